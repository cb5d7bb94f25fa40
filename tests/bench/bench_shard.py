"""Layouts into layouts against a parallel copy of the same bytes, and against torch.

    bench_shard.py [--dir DIR] [--experts N] [--layers N] [--rounds N] [--threads N]

The slice, the contenders' turns and the columns are those of bench_convert.py. torch takes one
round in one process: it loads the largest file of the slice, casts it to BF16 and saves it
as a distributed checkpoint (DCP), which its own converter then turns into one file.
"""
import importlib.util
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from bench_convert import (Result, bytes_of, in_a_slice, parse, print_row, remove,  # noqa: E402
                           run)

CASES = [("HF -> mp4", "fp4", ("--layout", "mp", "--mp", "4")),
         ("mp4 -> mp2", "mp4", ("--layout", "mp", "--mp", "2")),
         ("HF -> torch_dist", "fp4", ("--layout", "torch_dist")),
         ("torch_dist -> HF", "dist", ("--layout", "hf")),
         ("HF -> GGUF", "fp4", ("--layout", "gguf", "--without-tokenizer")),
         ("GGUF -> HF", "gguf", ("--layout", "hf"))]
TORCH = {"HF -> torch_dist": "save", "torch_dist -> HF": "load"}
KEPT = {"HF -> mp4": "mp4", "HF -> torch_dist": "dist", "HF -> GGUF": "gguf"}


def data_files(folder):
    return sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".distcp", ".gguf"))


def measure(bench, title, source, options):
    source = bench.work / source
    command = bench.tool("ckpt-shard", *options, source, bench.out)
    run(Result(), command)                                   # warms up, and knows the sizes
    in_files, out_bytes = data_files(source), bytes_of(data_files(bench.out))
    if title in KEPT:
        bench.out.rename(bench.work / KEPT[title])
    else:
        remove(bench.out)
    share = out_bytes / bytes_of(in_files)
    copy = bench.copy_command([(f, int(f.stat().st_size * share)) for f in in_files])
    results = Result(), Result()
    for _ in range(bench.args.rounds):
        bench.out.mkdir()
        run(results[0], copy)
        remove(bench.out)
        run(results[1], command)
        remove(bench.out)
    moved = bytes_of(in_files) + out_bytes
    print(f"{title}, {bytes_of(in_files) / 1e9:.2f} GB -> {out_bytes / 1e9:.2f} GB")
    print_row("parallel copy", moved, results[0])
    print_row("ckpt-shard", moved, results[1], results[0])
    if title in TORCH:
        measure_torch(bench, title, moved, results[1])


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
