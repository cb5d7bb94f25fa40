"""Deltas and packed checkpoints against a parallel copy, slime's code path, zstd and ZipNN.

    bench_delta.py [--dir DIR] [--experts N] [--layers N] [--rounds N] [--threads N]

The slice and the columns are those of bench_convert.py, in BF16. A share of the elements of every
tensor changes by one bit. The copy reads what a diff reads (OLD and NEW) and reads and writes what
an apply does; rates count the bytes of the model. slime's path is NumPy and libzstd over whole
tensors in one process, as in tests/interop. The bars: 0.5 of the copy at 1 % changed; 3 times
slime's path on two cores; a packed checkpoint smaller than those of zstd and ZipNN, at the rate of
`zstd -1 -T0` or more. A packed checkpoint is read back before it appears, the others are not.
"""
import importlib.util
import shutil
import sys
import time

import bench_convert
from bench_convert import ROOT, Bench, Result, bytes_of, files_of, print_row, remove
from memory import touch_memory

sys.path.insert(0, str(ROOT / "tests"))
SHARES = (0.001, 0.01, 0.03, 0.1)


def change(source, target, share):
    """A copy of `source` in which a share of the BF16 elements of each tensor differ in one bit."""
    import numpy as np
    from interop.delta_reader import tensors_of
    shutil.copytree(source, target)
    draw = np.random.default_rng(1)
    for name, (path, offset, size) in tensors_of(target).items():
        if size < 4096 or "tid2eid" in name:
            continue
        data = np.memmap(path, np.uint8, "r+", offset, (size,))
        data[draw.integers(0, size // 2, int(size / 2 * share)) * 2] ^= 1
        data.flush()


class DeltaBench(Bench):
    def rounds_of(self, contenders, size):
        results = {name: Result() for name in contenders}
        for _ in range(self.args.rounds):
            for name, command in contenders.items():
                touch_memory(self.work, size)
                if name == "copy":
                    self.out.mkdir()
                bench_convert.run(results[name], command)
                remove(self.out)
        return results

    def slime(self, action):
        """Seconds of one round in this process."""
        begin = time.monotonic()
        action()
        return time.monotonic() - begin

    def delta(self, old, share):
        new, delta = self.work / "new", self.work / "weight_v000001"
        change(old, new, share)
        size = bytes_of(files_of(old))
        reads = self.copy_command([(f, 0) for f in files_of(old) + files_of(new)])
        diff = self.rounds_of({"copy": reads, "diff": self.tool("ckpt-delta", "diff", old, new,
                                                                self.out)}, 0)
        bench_convert.run(Result(), self.tool("ckpt-delta", "diff", old, new, delta))
        packed = sum(f.stat().st_size for f in delta.iterdir())
        print(f"{share:.1%} of elements changed: {packed / size:.2%} of {size / 1e9:.2f} GB")
        print_row("parallel read of both", size, diff["copy"])
        print_row("ckpt-delta diff", size, diff["diff"], diff["copy"])
        copies = self.copy_command([(f, f.stat().st_size) for f in files_of(old)])
        apply = self.rounds_of({"copy": copies, "apply": self.tool(
            "ckpt-delta", "apply", old, delta, self.out)}, size)
        print_row("parallel copy", size, apply["copy"])
        print_row("ckpt-delta apply", size, apply["apply"], apply["copy"])
        if share == 0.01:
            self.against_slime(old, new, diff["diff"], apply["apply"])
        remove(new)
        remove(delta)

    def against_slime(self, old, new, diff, apply):
        from interop import delta_reader
        theirs = self.work / "theirs"
        wrote = self.slime(lambda: delta_reader.write(old, new, theirs))
        read = self.slime(lambda: delta_reader.apply(old, theirs, self.out))
        remove(self.out)
        remove(theirs)
        print(f"  slime's path: {wrote:.2f} s and {read:.2f} s: diff is {wrote / diff.seconds:.1f} "
              f"times as fast, apply {read / apply.seconds:.1f} times", flush=True)

    def peers(self, files):
        """(size, seconds) of what others make of the same files."""
        if shutil.which("zstd") is not None:
            for level in (1, 3):
                result, size = Result(), 0
                for f in files:
                    one = Result()
                    bench_convert.run(one, [shutil.which("zstd"), f"-{level}",
                                            f"-T{self.args.threads}", "-q", "-k", "-f", f, "-o",
                                            self.out])
                    size += self.out.stat().st_size
                    result.seconds = one.seconds + (0 if size == self.out.stat().st_size
                                                    else result.seconds)
                yield f"zstd -{level} -T{self.args.threads}", size, result.seconds
            remove(self.out)
        else:
            print("  zstd                    absent")
        if importlib.util.find_spec("zipnn") is None:
            print("  ZipNN                   absent", flush=True)
            return
        import zipnn
        size = 0
        begin = time.monotonic()
        for f in files:
            size += len(zipnn.ZipNN(input_format="byte", bytearray_dtype="bfloat16",
                                    threads=self.args.threads).compress(f.read_bytes()))
        yield "ZipNN", size, time.monotonic() - begin

    def pack(self, title, source):
        size = sum(f.stat().st_size for f in source.iterdir())
        results = self.rounds_of({"pack": self.tool("ckpt-delta", "diff", "--base", "none", source,
                                                    self.out)}, size)
        target = self.work / "packed"
        bench_convert.run(Result(), self.tool("ckpt-delta", "diff", "--base", "none", source,
                                              target))
        print(f"{title} packed: {target.stat().st_size / size:.2%} of {size / 1e9:.2f} GB")
        print_row("ckpt-delta --base none", size, results["pack"])
        for name, packed, seconds in self.peers(files_of(source)):
            print(f"  {name:24}{seconds:8.2f}        {size / seconds / 1e9:8.2f}"
                  f"   {packed / size:.2%}", flush=True)
        remove(target)

    def run_all(self):
        self.begin()
        fp4, fp8, bf16 = (self.work / name for name in ("fp4", "fp8", "bf16"))
        for target, folder in (("bf16", bf16), ("fp8", fp8)):
            bench_convert.run(Result(), self.convert_command(fp4, target))
            self.out.rename(folder)
        for title, folder in (("FP4 experts", fp4), ("FP8", fp8), ("BF16", bf16)):
            self.pack(title, folder)
        remove(fp4)
        remove(fp8)
        for share in SHARES:
            self.delta(bf16, share)


if __name__ == "__main__":
    bench_convert.in_a_slice(bench_convert.parse(__doc__), DeltaBench.run_all, DeltaBench)
