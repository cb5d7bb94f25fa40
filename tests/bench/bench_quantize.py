"""Quantising by each rule against a parallel copy of the same bytes, and FP8 against torch.

    bench_quantize.py [--dir DIR] [--experts N] [--layers N] [--rounds N] [--threads N]

The slice, the columns and the ratios are those of bench_convert.py; the source is BF16. The bar is
0.6 of the copy, without digests.
"""
import bench_convert
from bench_convert import Bench, bytes_of, files_of, print_row, remove
from memory import touch_memory

RULES = ("fp8-b128-f32", "fp8-b128-f32-deepseek", "fp8-b128-ue8m0", "fp4-b32-deepseek",
         "fp4-b32-floor", "fp4-b32-even", "v4-release")


class QuantizeBench(Bench):
    def quantize_command(self, rule, *options):
        # FP4 of dense weights too: every rule takes all of them.
        return self.tool("ckpt-convert", "--quantize", rule, *options, self.work / "bf16",
                         self.out)

    def rule(self, rule):
        contenders = {"no digests": self.quantize_command(rule, "--no-digest"),
                      "digests": self.quantize_command(rule)}
        results = {name: bench_convert.Result() for name in ["copy", *contenders]}
        bench_convert.run(bench_convert.Result(), contenders["no digests"])
        sizes = {f.name: f.stat().st_size for f in files_of(self.out)}
        copy = self.copy_command([(f, sizes[f.name]) for f in files_of(self.work / "bf16")])
        remove(self.out)
        for _ in range(self.args.rounds):
            touch_memory(self.work, sum(sizes.values()))
            self.out.mkdir()
            bench_convert.run(results["copy"], copy)
            remove(self.out)
            for name, command in contenders.items():
                touch_memory(self.work, sum(sizes.values()))
                bench_convert.run(results[name], command)
                remove(self.out)
        moved = bytes_of(files_of(self.work / "bf16")) + sum(sizes.values())
        print(f"{rule}, {moved / 1e9:.2f} GB in and out")
        print_row("parallel copy", moved, results["copy"])
        print_row("ckpt-convert --no-digest", moved, results["no digests"], results["copy"])
        print_row("ckpt-convert", moved, results["digests"], results["copy"])

    def run_all(self):
        self.begin()
        bench_convert.run(bench_convert.Result(),
                          self.convert_command(self.work / "fp4", "bf16"))
        self.out.rename(self.work / "bf16")
        remove(self.work / "fp4")
        for rule in RULES:
            self.rule(rule)


if __name__ == "__main__":
    bench_convert.in_a_slice(bench_convert.parse(__doc__), QuantizeBench.run_all, QuantizeBench)
