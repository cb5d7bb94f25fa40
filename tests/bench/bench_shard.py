"""Layouts into layouts against a parallel copy of the same bytes, and against torch.

    bench_shard.py [--dir DIR] [--experts N] [--layers N] [--rounds N] [--threads N]

The slice, the contenders' turns and the columns are those of bench_convert.py. File systems let one
thread at a time write to a file, so the bar is a copy into as many files, of the same sizes, as the
conversion writes. Where these are fewer than the files that are read, there is a second bar: the
copy of every file to one of its own, with as many bytes in all.

torch takes one round in one process: it loads the largest file of the slice, casts it to BF16 and
saves it as a distributed checkpoint (DCP), which its own converter then turns into one file.
"""
import bisect
import importlib.util
import itertools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from bench_convert import (Result, bytes_of, in_a_slice, parse, print_row, remove,  # noqa: E402
                           run)
from memory import touch_memory  # noqa: E402

CASES = [("HF -> mp4", "fp4", ("--layout", "mp", "--mp", "4")),
         ("mp4 -> mp2", "mp4", ("--layout", "mp", "--mp", "2")),
         ("HF -> torch_dist", "fp4", ("--layout", "torch_dist")),
         ("torch_dist -> HF", "dist", ("--layout", "hf")),
         ("HF -> GGUF", "fp4", ("--layout", "gguf", "--without-tokenizer")),
         ("HF -> GGUF, split", "fp4", ("--layout", "gguf", "--without-tokenizer",
                                       "--max-shard-size", "600MB")),
         ("GGUF -> HF", "gguf", ("--layout", "hf"))]
TORCH = {"HF -> torch_dist": "save", "torch_dist -> HF": "load"}
KEPT = {"HF -> mp4": "mp4", "HF -> torch_dist": "dist", "HF -> GGUF": "gguf"}


def data_files(folder):
    return sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".distcp", ".gguf"))


def copy_apart(bench, in_files, out_bytes):
    """The copy of every file to one of its own."""
    share = out_bytes / bytes_of(in_files)
    return bench.copy_command([(f, int(f.stat().st_size * share)) for f in in_files])


def copy_into(bench, in_files, sizes):
    """The copy into files of these sizes: each gets those whose middle lies in its share of the
    bytes. None: one of them gets none."""
    in_bytes, out_bytes = bytes_of(in_files), sum(sizes)
    groups, place, ends = [[] for _ in sizes], 0, list(itertools.accumulate(sizes))
    for f in in_files:
        middle = (place + f.stat().st_size / 2) / in_bytes * out_bytes
        groups[bisect.bisect_right(ends, middle)].append(f)
        place += f.stat().st_size
    if not all(groups):
        return None
    return bench.copy_command([(f, size * f.stat().st_size // bytes_of(group), str(i))
                               for i, (size, group) in enumerate(zip(sizes, groups))
                               for f in group])


def bars_of(bench, in_files, sizes):
    """{name: command}; the ratios that are shown first are those to the first."""
    bars = {}
    if len(sizes) < len(in_files):
        bars[f"copy into {len(sizes)} file{'s' * (len(sizes) > 1)}"] = copy_into(bench, in_files,
                                                                               sizes)
    bars[f"copy into {len(in_files)} files"] = copy_apart(bench, in_files, sum(sizes))
    return {name: command for name, command in bars.items() if command}


def measure(bench, title, source, options):
    source = bench.work / source
    command = bench.tool("ckpt-shard", *options, source, bench.out)
    run(Result(), command)                                   # warms up, and knows the sizes
    in_files = data_files(source)
    sizes = [f.stat().st_size for f in data_files(bench.out)]
    if title in KEPT:
        bench.out.rename(bench.work / KEPT[title])
    else:
        remove(bench.out)
    bars = bars_of(bench, in_files, sizes)
    results = {name: Result() for name in [*bars, "ckpt-shard"]}
    for _ in range(bench.args.rounds):
        for name, copy in bars.items():
            touch_memory(bench.work, sum(sizes))
            bench.out.mkdir()
            run(results[name], copy)
            remove(bench.out)
        touch_memory(bench.work, sum(sizes))
        run(results["ckpt-shard"], command)
        remove(bench.out)
    ours = results.pop("ckpt-shard")
    moved = bytes_of(in_files) + sum(sizes)
    print(f"{title}, {bytes_of(in_files) / 1e9:.2f} GB -> {sum(sizes) / 1e9:.2f} GB")
    for name, result in results.items():
        print_row(name, moved, result)
    for name, result in results.items():
        print_row(f"ckpt-shard vs {name[10:]}", moved, ours, result)
    if title in TORCH:
        measure_torch(bench, title, moved, ours)


def measure_torch(bench, title, moved, ours):
    """One round, and how many times as fast we move a byte."""
    if any(importlib.util.find_spec(m) is None for m in ("torch", "safetensors")):
        print("  torch                   absent", flush=True)
        return
    source, result = bench.work / "torch_dist", Result()
    if TORCH[title] == "save":
        source, target = max(data_files(bench.work / "fp4"), key=lambda f: f.stat().st_size), source
    else:
        target = bench.work / "torch.pt"
    run(result, [sys.executable, pathlib.Path(__file__).with_name("torch_shard.py"), TORCH[title],
                 source, target])
    torch_moved = sum(bytes_of([p] if p.is_file() else data_files(p)) for p in (source, target))
    print_row("torch, one file" if TORCH[title] == "save" else "torch, what it saved", torch_moved,
              result)
    if TORCH[title] == "load":
        remove(source)
        remove(target)
    scale = moved / torch_moved
    print(f"  {scale * result.seconds / ours.seconds:.0f} times as fast as torch, "
          f"{scale * result.cpu / ours.cpu:.0f} times by CPU seconds", flush=True)


def run_all(bench):
    bench.make_slice()
    print(f"{bench.args.threads} threads, best of {bench.args.rounds} rounds")
    print(f"  {'':24}{'seconds':>8}{'cpu s':>8}{'GB/s':>8}{'peak MiB':>9}{'ratio':>7}{'cpu':>7}")
    for title, source, options in CASES:
        measure(bench, title, source, options)


if __name__ == "__main__":
    in_a_slice(parse(__doc__), run_all)
