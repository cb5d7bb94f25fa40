"""megatron-core's dist_checkpointing on gloo ranks and the CPU, on loopback.

    megatron_worker.py load RANKS EXPECTED.pt FOLDER LAYOUT...   each layout, strictly; compared
    megatron_worker.py save RANKS TENSORS.pt FOLDER LAYOUT       as a trainer of that layout

A value that is a pair (count, is_none) stands for so many byte entries, each of which holds an
empty tensor, or None.

LAYOUT is TPxPPxEPxETP. With as many ranks as the layout has, every rank is one of them; a single
rank holds what all of them would. Megatron checks that the shards cover the checkpoint.
"""
import dataclasses
import os
import re
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")

import torch                                                                 # noqa: E402
import torch.distributed as dist                                             # noqa: E402
import torch.multiprocessing as processes                                    # noqa: E402
from megatron.core import dist_checkpointing                                 # noqa: E402
from megatron.core.dist_checkpointing import ShardedTensor                   # noqa: E402
from megatron.core.dist_checkpointing.mapping import ShardedObject           # noqa: E402
from megatron.core.dist_checkpointing.validation import StrictHandling       # noqa: E402

from v4_values import bits                                                   # noqa: E402

FC1, FC2 = "experts.experts.linear_fc1.weight", "experts.experts.linear_fc2.weight"
SHARED_FC1 = "shared_experts.linear_fc1.weight"
ROWS = ("embedding.word_embeddings.weight", "output_layer.weight", "self_attention.wq_b.weight",
        "self_attention.wo_a.weight", "self_attention.attn_sink",
        "self_attention.linear_q_up_proj.weight")
COLUMNS = ("self_attention.wo_b.weight", "self_attention.linear_proj.weight",
           "shared_experts.linear_fc2.weight")


@dataclasses.dataclass
class Layout:
    tp: int
    pp: int
    ep: int
    etp: int

    @property
    def ranks(self):
        return self.pp * max(self.tp, self.ep * self.etp)


def stage_of(key, layers, pp):
    layer = re.match(r"decoder\.layers\.(\d+)\.", key)
    if layer is None:
        return 0 if key.startswith("embedding.") else pp - 1
    return int(layer[1]) * pp // layers


def cut(key, t, layout, rank):
    """[(box of the tensor, rank offsets, prepended axes, is the main replica)] of one rank."""
    per_stage = layout.ranks // layout.pp
    place = rank % per_stage
    if key.endswith((FC1, FC2)):
        e_rank, r = place // layout.etp % layout.ep, place % layout.etp
        main = place < layout.ep * layout.etp
        count = t.shape[0] // layout.ep
        axis, parts = (1, 2 * layout.etp) if key.endswith(FC1) else (2, layout.etp)
        size = t.shape[axis] // parts
        boxes = []
        for e in range(e_rank * count, (e_rank + 1) * count):
            for p in (r, layout.etp + r) if key.endswith(FC1) else (r,):
                box = [e, slice(None), slice(None)]
                box[axis] = slice(p * size, (p + 1) * size)
                boxes.append((tuple(box), [(0, e, t.shape[0]), (axis, p, parts)], 1, main))
        return boxes
    r, main = place % layout.tp, place < layout.tp
    if key.endswith(ROWS):
        axis, parts, mine = 0, layout.tp, (r,)
    elif key.endswith(COLUMNS):
        axis, parts, mine = 1, layout.tp, (r,)
    elif key.endswith(SHARED_FC1):
        axis, parts, mine = 0, 2 * layout.tp, (r, layout.tp + r)
    else:
        return [((...,), [], 0, place == 0)]
    size = t.shape[axis] // parts
    boxes = []
    for p in mine:
        box = [slice(None)] * t.dim()
        box[axis] = slice(p * size, (p + 1) * size)
        boxes.append((tuple(box), [(axis, p, parts)], 0, main))
    return boxes


def objects(key, count, layout, rank):
    """{name: ShardedObject}: one for the whole, or one for each of the rank's experts."""
    place = rank % (layout.ranks // layout.pp)
    mine, main = range(count), place == 0
    if count > 1:
        e_rank, mine = place // layout.etp % layout.ep, count // layout.ep
        mine, main = range(e_rank * mine, (e_rank + 1) * mine), place % layout.etp == 0
        main = main and place < layout.ep * layout.etp
    return {f"{key}#{rank}.{i}": ShardedObject(
        key, None, (count,), (i,), (0, 0, 0) if main else (0, 0, 1 + rank)) for i in mine}


def shards(values, layout, rank, make):
    """{name: ShardedTensor} and {name: (key, box)} of one rank; make(local) is its tensor."""
    layers = 1 + max(int(m[1]) for m in (re.match(r"decoder\.layers\.(\d+)\.", k) for k in values)
                     if m is not None)
    state, where = {}, {}
    for key, t in values.items():
        if stage_of(key, layers, layout.pp) != rank // (layout.ranks // layout.pp):
            continue
        if isinstance(t, tuple):
            entries = objects(key, t[0], layout, rank)
            state.update(entries)
            where.update(dict.fromkeys(entries, (key, None)))
            continue
        for i, (box, offsets, prepended, main) in enumerate(cut(key, t, layout, rank)):
            name = f"{key}#{rank}.{i}"
            replica = (0, 0, 0) if main else (0, 0, 1 + rank)
            state[name] = ShardedTensor.from_rank_offsets(
                key, make(t[box].contiguous()), *offsets, replica_id=replica,
                prepend_axis_num=prepended)
            where[name] = key, box
    return state, where


def blank(t):
    t = torch.empty_like(t)
    bits(t).fill_(0x55)
    return t


def load(values, folder, layout, played):
    state, where = {}, {}
    for rank in played:
        mine, boxes = shards(values, layout, rank, blank)
        for name, shard in mine.items():
            if len(played) == 1 or shard.replica_id == (0, 0, 0):
                state[name], where[name] = shard, boxes[name]
    loaded = dist_checkpointing.load(state, folder, strict=StrictHandling.RAISE_ALL)
    for name, (key, box) in where.items():
        if box is None:
            empty = None if values[key][1] else torch.empty(0, dtype=torch.uint8)
            if empty is not loaded[name] and not torch.equal(empty, loaded[name]):
                raise AssertionError(f"{folder}: {name} holds {loaded[name]}")
        elif not torch.equal(bits(loaded[name]), bits(values[key][box])):
            raise AssertionError(f"{folder}: {key} {box} in {layout}")
    os.write(1, f"{folder}: {layout} {played} has {len(where)} shards\n".encode())


def main(rank, ranks, store, verb, source, folder, layouts):
    torch.set_num_threads(1)
    torch.cuda.synchronize = lambda *_: None         # Megatron takes a device for granted
    torch.cuda.current_device = lambda: "cpu"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    values = torch.load(source)
    for text in layouts:
        layout = Layout(*map(int, text.split("x")))
        if verb == "save":
            assert layout.ranks == ranks
            state, _ = shards(values, layout, rank, lambda t: t)
            state["iteration"] = 5
            dist_checkpointing.save(state, folder, ("torch_dist", 1))
        elif layout.ranks == ranks:
            load(values, folder, layout, [rank])
        else:
            assert ranks == 1
            load(values, folder, layout, range(layout.ranks))
    dist.destroy_process_group()


def run(words):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    verb, count, source, folder, *layouts = words
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        given = int(count), f"{place}/store", verb, source, folder, layouts
        processes.start_processes(main, given, int(count), start_method="fork")


if __name__ == "__main__":
    run(sys.argv[1:])
