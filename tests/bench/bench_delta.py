"""Deltas and packed checkpoints against a parallel copy, slime's code path, zstd and ZipNN.

    bench_delta.py [--dir DIR] [--experts N] [--layers N] [--rounds N] [--threads N]

The slice is that of bench_convert.py, smaller, in BF16; a share of the elements of every tensor
moves by one unit in the last place. Contenders take turns, each figure is the best round, and rates
count the bytes of the model. The copy reads what a diff reads (OLD and NEW), or reads and writes
what an apply does. slime's path is slime_path.py: NumPy and zstd, a pool of threads over the
tensors. The bars: 0.5 of the copy at 1 % changed; 3 times slime's path on two cores, 10 times on
16; a packed checkpoint smaller than those of zstd and ZipNN, at the rate of `zstd -1 -T0` or more.
A packed checkpoint is read back before it appears, the others are not.
"""
import os
import shutil
import sys
import time

import bench_convert
from bench_convert import ROOT, Bench, Result, bytes_of, files_of, print_row, remove
from memory import touch_memory

sys.path.insert(0, str(ROOT / "tests"))
# Share of the elements that change: size of a delta in % of the model that was measured with zstd
# level 1 over 8 M weights, as XOR and as overwrite.
SHARES = {0.001: (0.16, 0.22), 0.01: (1.39, 2.17), 0.03: (3.43, 6.26), 0.1: (9.06, 20.1)}
TIMED = (0.01, 0.1)
PEERS = os.environ.get("CKPT_PEERS", sys.executable)      # a Python that has the peers' packages
ZIPNN = """
import sys, zipnn
for path in sys.argv[3:]:
    with open(path, "rb") as file, open(sys.argv[2], "ab") as out:
        out.write(zipnn.ZipNN(input_format="byte", bytearray_dtype=sys.argv[1],
                              threads={threads}).compress(file.read()))
"""


def change(source, target, share):
    """A copy of `source` in which a share of the BF16 elements of each tensor moved by one unit in
    the last place."""
    import numpy as np
    from interop.delta_reader import tensors_of
    shutil.copytree(source, target)
    draw = np.random.default_rng(1)
    for name, (path, offset, size) in tensors_of(target).items():
        if size < 4096 or "tid2eid" in name:
            continue
        data = np.memmap(path, np.uint16, "r+", offset, (size // 2,))
        for part in np.array_split(data, max(1, size >> 23)):
            at = np.flatnonzero(draw.random(len(part), np.float32) < share)
            part[at] += np.where(draw.random(len(at), np.float32) < 0.5, 1, 0xFFFF).astype(
                np.uint16)
        data.flush()


def has_package(name):
    """Whether python3 has it: this one, or that of $CKPT_PEERS."""
    status = os.spawnlp(os.P_WAIT, PEERS, PEERS, "-c", f"import importlib.util, sys; "
                        f"sys.exit(importlib.util.find_spec('{name}') is None)")
    return status == 0


class DeltaBench(Bench):
    ROOM_FACTOR = 10               # three models in BF16, of two to four times the slice's size

    def rounds_of(self, contenders, size, prepare=None):
        """The best round of each; `size` bytes are written by one of them."""
        results = {name: Result() for name in contenders}
        for _ in range(self.args.rounds):
            for name, command in contenders.items():
                touch_memory(self.work, size)
                if name == "copy":
                    self.out.mkdir()
                elif prepare is not None:
                    prepare()
                bench_convert.run(results[name], command)
                remove(self.out)
        return results

    def slime(self, *arguments):
        return [shutil.which(PEERS), ROOT / "tests" / "bench" / "slime_path.py", *arguments,
                self.args.threads]

    def print_contest(self, title, size, results, ours, theirs):
        print_row(title, size, results["copy"])
        print_row(ours, size, results["ours"], results["copy"])
        print_row(theirs, size, results["slime"], results["copy"])
        wall = results["slime"].seconds / results["ours"].seconds
        cpu = results["slime"].cpu / results["ours"].cpu
        print(f"  {ours} is {wall:.1f} times as fast as slime's path, {cpu:.1f} times by CPU "
              "seconds", flush=True)

    def sizes(self, old, new, share):
        size = bytes_of(files_of(old))
        text = []
        for encoding, told in zip(("xor", "overwrite"), SHARES[share]):
            delta = self.work / f"weight_v00000{1 + (encoding != 'xor')}"
            bench_convert.run(Result(), self.tool("ckpt-delta", "diff", "--encoding", encoding, old,
                                                  new, delta))
            packed = bytes_of(files_of(delta))
            text.append(f"{encoding} {packed / size:.2%} (sheet: {told} %)")
        remove(delta)
        print(f"{share:.1%} of elements changed, {size / 1e9:.2f} GB: {', '.join(text)}",
              flush=True)

    def delta(self, old, share):
        new, delta = self.work / "new", self.work / "weight_v000001"
        change(old, new, share)
        self.sizes(old, new, share)
        if share in TIMED:
            self.time_diff(old, new)
            self.time_apply(old, delta)
            remove(new)
            self.time_in_place(old, delta)
        remove(new)
        remove(delta)

    def time_diff(self, old, new):
        results = self.rounds_of({
            "copy": self.copy_command([(f, 0) for f in files_of(old) + files_of(new)]),
            "ours": self.tool("ckpt-delta", "diff", old, new, self.out),
            "slime": self.slime("write", old, new, self.out)}, 0)
        self.print_contest("parallel read of both", bytes_of(files_of(old)), results,
                           "ckpt-delta diff", "slime's writer")

    def time_apply(self, old, delta):
        size = bytes_of(files_of(old))
        results = self.rounds_of({
            "copy": self.copy_command([(f, f.stat().st_size) for f in files_of(old)]),
            "ours": self.tool("ckpt-delta", "apply", old, delta, self.out),
            "slime": self.slime("apply", old, delta, self.out)}, size)
        self.print_contest("parallel copy", size, results, "ckpt-delta apply",
                           "copy, SGLang's reader")

    def time_in_place(self, old, delta):
        """The reader checks less: neither the base nor the whole result."""
        size = bytes_of(files_of(old))
        results = self.rounds_of({
            "ours": self.tool("ckpt-delta", "apply", "--in-place", self.out, delta),
            "slime": self.slime("patch", self.out, delta)}, 0,
            lambda: shutil.copytree(old, self.out))
        print_row("apply --in-place", size, results["ours"])
        print_row("SGLang's reader", size, results["slime"])

    # ---- packed ----

    def peers(self, files, kind):
        """(name, command that makes self.out) for each peer that is here."""
        zstd = shutil.which("zstd")
        for level in ((1, 3) if zstd else ()):
            yield (f"zstd -{level} -T{self.args.threads}",
                   ["/bin/sh", "-c", f"cat \"$@\" | '{zstd}' -{level} -T{self.args.threads} -q > "
                    f"'{self.out}'", "sh", *files])
        if not zstd:
            print("  zstd                    absent")
        if has_package("zipnn"):
            yield "ZipNN", [shutil.which(PEERS), "-c", ZIPNN.format(threads=self.args.threads),
                            kind, self.out, *files]
        else:
            print("  ZipNN                   absent", flush=True)

    def pack(self, title, source, kind):
        files = files_of(source)
        size = bytes_of(files)
        commands = {"ckpt-delta --base none": self.tool("ckpt-delta", "diff", "--base", "none",
                                                        source, self.out),
                    **dict(self.peers(files, kind))}
        results = {name: Result() for name in commands}
        packed = {}
        for _ in range(self.args.rounds):
            for name, command in commands.items():
                bench_convert.run(results[name], command)
                packed[name] = self.out.stat().st_size
                remove(self.out)
        print(f"{title} packed, {size / 1e9:.2f} GB")
        for name, result in results.items():
            print(f"  {name:24}{result.seconds:8.2f}{result.cpu:8.2f}"
                  f"{size / result.seconds / 1e9:8.2f}{result.peak_bytes / 2**20:9.0f}"
                  f"  {packed[name] / size:.2%}", flush=True)

    def run_all(self):
        begin = time.monotonic()
        self.begin()
        fp4, fp8, bf16 = (self.work / name for name in ("fp4", "fp8", "bf16"))
        self.pack("FP4 experts", fp4, "float8_e4m3fn")
        for target, folder in (("bf16", bf16), ("fp8", fp8)):
            bench_convert.run(Result(), self.convert_command(fp4, target))
            self.out.rename(folder)
        remove(fp4)
        self.pack("FP8", fp8, "float8_e4m3fn")
        remove(fp8)
        self.pack("BF16", bf16, "bfloat16")
        for share in SHARES:
            self.delta(bf16, share)
        print(f"{time.monotonic() - begin:.0f} seconds for all of this")


if __name__ == "__main__":
    bench_convert.in_a_slice(bench_convert.parse(__doc__, layers=1, experts=8), DeltaBench.run_all,
                             DeltaBench)
