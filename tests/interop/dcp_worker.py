"""torch.distributed.checkpoint on several gloo ranks, on loopback.

    dcp_worker.py load RANKS EXPECTED.pt FOLDER...   into DTensors, compared shard by shard
    dcp_worker.py save RANKS TENSORS.pt FOLDER       from DTensors cut in every way
"""
import os
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as processes
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from v4_values import bits

# What the ranks of a mesh do with a tensor, by the number of its dimensions.
ONE_AXIS = [[Shard(0)], [Shard(1)], [Replicate()]]
TWO_AXES = [[Shard(0), Shard(1)], [Shard(1), Shard(0)], [Replicate(), Shard(0)],
            [Shard(0), Shard(0)], [Shard(1), Replicate()], [Replicate(), Replicate()]]


def placements(t, number, axes):
    """The number-th of the ways that fit the tensor."""
    ways = [w for w in (ONE_AXIS if axes == 1 else TWO_AXES)
            if all(p.is_replicate() or p.dim < t.dim() for p in w)]
    return ways[number % len(ways)]


def distribute(tensors, mesh, turn):
    return {name: distribute_tensor(t, mesh, placements(t, i + turn, mesh.ndim),
                                    src_data_rank=None)
            for i, (name, t) in enumerate(sorted(tensors.items()))}


def load(mesh, expected, folders):
    for turn, folder in enumerate(folders):
        want = distribute(torch.load(expected[turn]), mesh, turn)
        state = {name: DTensor.from_local(torch.empty_like(t.to_local()), mesh, t.placements,
                                          run_check=False, shape=t.shape, stride=t.stride())
                 for name, t in want.items()}
        for t in state.values():
            bits(t.to_local()).fill_(0x55)
        dcp.load(state, checkpoint_id=folder)
        for name, t in state.items():
            if not torch.equal(bits(t.to_local()), bits(want[name].to_local())):
                raise AssertionError(f"{folder}: {name} {t.placements}")
        os.write(1, f"{folder}: {len(state)} tensors\n".encode())     # whole lines, whoever writes


def main(rank, ranks, store, what, inputs, folders):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    shape = (2, 2) if ranks == 4 else (ranks,)
    mesh = init_device_mesh("cpu", shape)
    if what == "load":
        load(mesh, inputs, folders)
    else:
        dcp.save(distribute(torch.load(inputs[0]), mesh, 0), checkpoint_id=folders[0])
    dist.destroy_process_group()


def run(words):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    verb, count, sources, *paths = words
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        given = int(count), f"{place}/store", verb, sources.split(","), paths
        processes.start_processes(main, given, int(count), start_method="fork")


if __name__ == "__main__":
    run(sys.argv[1:])
