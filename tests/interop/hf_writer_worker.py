"""What HuggingFaceStorageWriter of torch saves from gloo ranks, on loopback.

    hf_writer_worker.py RANKS FOLDER     FOLDER/sharded, FOLDER/consolidated and FOLDER/one_rank
"""
import os
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as processes
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor


def tensors():
    draw = torch.Generator().manual_seed(5)
    return {"a.weight": torch.randn(8, 6, generator=draw).bfloat16(),
            "b.weight": torch.randn(6, 8, generator=draw), "n": torch.randn(5, generator=draw)}


def main(rank, ranks, store, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    ways = {"a.weight": [Shard(0)], "b.weight": [Shard(1)], "n": [Replicate()]}
    state = {n: distribute_tensor(t, mesh, ways[n]) for n, t in tensors().items()}
    for name, options in (("sharded", {}), ("consolidated", {"enable_consolidation": True})):
        writer = dcp.HuggingFaceStorageWriter(os.path.join(folder, name), save_distributed=True,
                                              **options)
        dcp.save(state, storage_writer=writer)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        processes.spawn(main, (int(sys.argv[1]), os.path.join(temporary, "store"), sys.argv[2]),
                        nprocs=int(sys.argv[1]))
    dcp.save(tensors(), no_dist=True, storage_writer=dcp.HuggingFaceStorageWriter(
        os.path.join(sys.argv[2], "one_rank")))
