"""Conversions against a parallel copy of the same bytes and against torch; digests against reading.

    bench_convert.py [--dir DIR] [--experts N] [--layers N] [--rounds N] [--threads N]

A slice with the shapes of DeepSeek-V4-Flash is made in DIR (a new folder in /dev/shm, removed at
the end). Contenders take turns, and each figure is its best round: other work on the machine can
only slow a round down. torch takes one round, over the largest file of the slice.

Rates count bytes read and written. A ratio over 1 is faster than the bar; "cpu" is the same ratio
of CPU seconds (user + system), which other work disturbs less. Peak memory is never less than this
script's own. Nothing is asserted here.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time

from memory import touch_memory

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = (ROOT / os.environ.get("CKPT_BUILD", "build")).resolve()
CONFIG = ROOT / "formats" / "maps" / "deepseek_v4.flash.json"
CHUNK_BYTES = 256 << 10     # of the parallel copy: larger ones fall out of the L2 cache
CASES = [("FP4 -> FP8", "fp4", "fp8"), ("FP4 -> BF16", "fp4", "bf16"),
         ("FP8 -> BF16", "fp8", "bf16")]


class Result:
    """Seconds, CPU seconds and peak memory of a command's best round."""

    def __init__(self):
        self.seconds = self.cpu = float("inf")
        self.peak_bytes = 0

    def add(self, seconds, cpu, peak_bytes):
        self.seconds = min(self.seconds, seconds)
        self.cpu = min(self.cpu, cpu)
        self.peak_bytes = max(self.peak_bytes, peak_bytes)


def run(result, command):
    """Run a command to its end, output dropped; its failure ends the benchmark."""
    null = os.open(os.devnull, os.O_WRONLY)
    begin = time.monotonic()
    pid = os.posix_spawn(command[0], [str(c) for c in command], os.environ,
                         file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)])
    os.close(null)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"bench_convert: '{' '.join(map(str, command[:6]))} ...' failed")
    result.add(time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def files_of(directory):
    return sorted(directory.glob("*.safetensors"))


def bytes_of(files):
    return sum(f.stat().st_size for f in files)


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def print_row(name, moved_bytes, result, bar=None):
    ratios = f"{bar.seconds / result.seconds:7.2f}{bar.cpu / result.cpu:7.2f}" if bar else " " * 14
    rate = moved_bytes / result.seconds / 1e9
    print(f"  {name:24}{result.seconds:8.2f}{result.cpu:8.2f}{rate:8.2f}"
          f"{result.peak_bytes / 2**20:9.0f}{ratios}", flush=True)


class Bench:
    # What a slice needs for each byte of it: FP8 input and BF16 output at the same time, and slack.
    ROOM_FACTOR = 6

    def __init__(self, args, work):
        self.args = args
        self.work = work
        self.out = work / "out"

    def tool(self, name, *arguments):
        return [BUILD / "bin" / name, "--threads", self.args.threads, "--quiet", *arguments]

    def copy_command(self, pairs):
        """pairs: (input file, bytes to write), and a name if it is not that of the input."""
        command = [BUILD / "bench" / "parallel_copy", self.args.threads, CHUNK_BYTES]
        for source, size, *name in pairs:
            command += [source, self.out / (name[0] if name else source.name), size]
        return command

    def make_slice(self):
        config = json.loads(CONFIG.read_text())
        layers = self.args.layers
        config.update(num_hidden_layers=layers, n_routed_experts=self.args.experts,
                      vocab_size=4096, num_nextn_predict_layers=0,
                      compress_ratios=config["compress_ratios"][:layers])
        (self.work / "config.json").write_text(json.dumps(config))
        run(Result(), self.tool("ckpt-synth", "--config", self.work / "config.json",
                                self.work / "fp4"))

    def convert_command(self, source, target, *options):
        return self.tool("ckpt-convert", "--dtype", target, *options, source, self.out)

    def torch_result(self, source, target, sizes):
        """One round over the largest file: (bytes in and out, result), or None without torch."""
        if any(importlib.util.find_spec(m) is None for m in ("torch", "safetensors")):
            return None
        file = max(files_of(source), key=lambda f: f.stat().st_size)
        result = Result()
        self.out.mkdir()
        run(result, [sys.executable, ROOT / "tests" / "bench" / "torch_cast.py", target, file,
                     self.out / file.name])
        return file.stat().st_size + sizes[file.name], result

    def convert(self, title, source, target):
        contenders = {"no digests": self.convert_command(source, target, "--no-digest"),
                      "digests": self.convert_command(source, target)}
        results = {name: Result() for name in ["copy", *contenders]}
        run(Result(), contenders["no digests"])          # warms up, and knows the sizes
        sizes = {f.name: f.stat().st_size for f in files_of(self.out)}
        copy = self.copy_command([(f, sizes[f.name]) for f in files_of(source)])
        remove(self.out)
        for _ in range(self.args.rounds):
            touch_memory(self.work, sum(sizes.values()))
            self.out.mkdir()
            run(results["copy"], copy)
            remove(self.out)
            for name, command in contenders.items():
                touch_memory(self.work, sum(sizes.values()))
                run(results[name], command)
                remove(self.out)
        self.print_convert(title, source, target, sizes, results)

    def print_convert(self, title, source, target, sizes, results):
        in_bytes = bytes_of(files_of(source))
        out_bytes = sum(sizes.values())
        moved = in_bytes + out_bytes
        print(f"{title}, {in_bytes / 1e9:.2f} GB -> {out_bytes / 1e9:.2f} GB")
        print_row("parallel copy", moved, results["copy"])
        print_row("ckpt-convert --no-digest", moved, results["no digests"], results["copy"])
        print_row("ckpt-convert", moved, results["digests"], results["copy"])
        torch = self.torch_result(source, target, sizes)
        remove(self.out)
        if torch is None:
            print("  torch                   absent", flush=True)
            return
        print_row("torch, its largest file", *torch)
        for name in ("no digests", "digests"):
            scale = moved / torch[0]             # of the whole slice to the one file
            print(f"  {name}: {scale * torch[1].seconds / results[name].seconds:.0f} times as fast "
                  f"as torch, {scale * torch[1].cpu / results[name].cpu:.0f} times by CPU seconds")

    def digest(self, title, source):
        read = self.copy_command([(f, 0) for f in files_of(source)])
        verify = [BUILD / "bin" / "ckpt-verify", "digest", "--threads", self.args.threads,
                  "--quiet", source]
        results = Result(), Result()
        for _ in range(self.args.rounds):
            run(results[0], read)
            run(results[1], verify)
        size = bytes_of(files_of(source))
        print(f"digest of {title}, {size / 1e9:.2f} GB")
        print_row("parallel read", size, results[0])
        print_row("ckpt-verify digest", size, results[1], results[0])

    def begin(self):
        print(f"{self.args.threads} threads, best of {self.args.rounds} rounds")
        print(f"  {'':24}{'seconds':>8}{'cpu s':>8}{'GB/s':>8}{'peak MiB':>9}"
              f"{'ratio':>7}{'cpu':>7}")
        self.make_slice()

    def digest_all(self):
        self.begin()
        self.digest("FP4", self.work / "fp4")
        for target in ("fp8", "bf16"):
            run(Result(), self.convert_command(self.work / "fp4", target))
            self.digest(target.upper(), self.out)
            remove(self.out)

    def run_all(self):
        self.begin()
        self.digest("FP4", self.work / "fp4")
        for title, source, target in CASES:
            if not (self.work / source).exists():
                run(Result(), self.convert_command(self.work / "fp4", source))
                self.out.rename(self.work / source)
                remove(self.work / "fp4")
                self.digest("FP8", self.work / source)
            self.convert(title, self.work / source, target)


def parse(text, **defaults):
    parser = argparse.ArgumentParser(description=text.split("\n")[0])
    parser.add_argument("--dir", default="/dev/shm", help="where files are made (/dev/shm)")
    for name, count, what in (("layers", 4, "layers of the slice"),
                              ("experts", 20, "experts of a layer"),
                              ("rounds", 3, "rounds of each contender")):
        parser.add_argument(f"--{name}", type=int, default=count, help=f"{what} (%(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)),
                        help="threads (one per core)")
    parser.set_defaults(**defaults)
    return parser.parse_args()


def in_a_slice(args, work_on, make=Bench):
    """Call `work_on` with a Bench whose folder is there as long as the call."""
    # 3 x 4096 x 2048 codes of half a byte and a scale for 32 of them; attention beside it.
    slice_bytes = args.layers * (args.experts * 13_400_000 + 150_000_000)
    room = shutil.disk_usage(args.dir).free
    if room < make.ROOM_FACTOR * slice_bytes:
        print(f"{args.dir} has room for {room / 1e9:.1f} GB, and the slice needs "
              f"{make.ROOM_FACTOR * slice_bytes / 1e9:.1f} GB: choose fewer --experts or another "
              "--dir")
        return
    with tempfile.TemporaryDirectory(prefix="ckpt-bench-", dir=args.dir) as work:
        work_on(make(args, pathlib.Path(work)))


if __name__ == "__main__":
    in_a_slice(parse(__doc__), Bench.run_all)
