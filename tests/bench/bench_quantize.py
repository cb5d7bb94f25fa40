"""Quantising by each rule against a parallel copy of the same bytes, and against torch.

    bench_quantize.py [--dir DIR] [--experts N] [--layers N] [--rounds N] [--threads N]

The slice, the columns and the ratios are those of bench_convert.py; the source is BF16. The bar is
0.6 of the copy, without digests; of rules that need the largest value of a tensor first, 0.6 of a
copy that reads twice. torch takes one round, over the largest file of the slice.
"""
import importlib.util
import json
import os
import sys

import bench_convert
from bench_convert import ROOT, Bench, Result, bytes_of, files_of, print_row, remove
from memory import touch_memory

RULES = ("fp8-b128-f32", "fp8-b128-f32-deepseek", "fp8-b128-ue8m0", "v4-release")
# Not of all weights of DeepSeek-V4: the same tensors of no known family.
OTHERS = ("fp4-b32-deepseek", "fp4-b32-floor", "fp4-b32-even", "mxfp8-rceil", "mxfp8-floor",
          "nvfp4-modelopt", "fp8-channel")
WEIGHTS = ("layers.*.attn.w*.weight", "layers.*.w[123].weight")
MOST_MIB = 1024 + 64             # the tools' default limit, and what the process needs beside it
IN_TORCH = ("fp8-b128-f32-deepseek", "fp8-b128-ue8m0", "fp4-b32-deepseek")


class QuantizeBench(Bench):
    def quantize_command(self, source, rule, *options):
        # Every rule takes all weights, dense ones too.
        only = [word for w in WEIGHTS for word in ("--only", w)] if rule in OTHERS else []
        return self.tool("ckpt-convert", "--quantize", rule, *only, *options, source, self.out)

    def copy_of(self, source, sizes, rule):
        command = self.copy_command([(f, sizes[f.name]) for f in files_of(source)])
        if rule == "nvfp4-modelopt":                      # it reads twice
            for f in files_of(source):
                command += [f, self.out / f"{f.name}.none", 0]
        return command

    def torch_rule(self, source, rule):
        """(bytes in and out, result) of the largest file."""
        file = max(files_of(source), key=lambda f: f.stat().st_size)
        result = Result()
        self.out.mkdir()
        bench_convert.run(result, [sys.executable, ROOT / "tests" / "bench" / "torch_quantise.py",
                                   rule, file, self.out / file.name])
        moved = file.stat().st_size + (self.out / file.name).stat().st_size
        remove(self.out)
        return moved, result

    def rule(self, source, rule):
        contenders = {"no digests": self.quantize_command(source, rule, "--no-digest"),
                      "digests": self.quantize_command(source, rule)}
        results = {name: Result() for name in ["copy", *contenders]}
        bench_convert.run(Result(), contenders["no digests"])
        sizes = {f.name: f.stat().st_size for f in files_of(self.out)}
        copy = self.copy_of(source, sizes, rule)
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
        moved = bytes_of(files_of(source)) + sum(sizes.values())
        print(f"{rule}, {moved / 1e9:.2f} GB in and out")
        print_row("parallel copy", moved, results["copy"])
        print_row("ckpt-convert --no-digest", moved, results["no digests"], results["copy"])
        print_row("ckpt-convert", moved, results["digests"], results["copy"])
        peak = max(r.peak_bytes for n, r in results.items() if n != "copy") / 2**20
        print(f"  peak memory {peak:.0f} MiB, {'at most' if peak <= MOST_MIB else 'MORE THAN'} the "
              f"limit + 64 MiB")
        if rule in IN_TORCH and all(importlib.util.find_spec(m) for m in ("torch", "safetensors")):
            of_torch, torch = self.torch_rule(source, rule)
            print_row("torch, its largest file", of_torch, torch)
            times = moved / of_torch * torch.seconds / results["no digests"].seconds
            print(f"  no digests: {times:.0f} times as fast as torch", flush=True)

    def run_all(self):
        self.begin()
        bench_convert.run(Result(), self.convert_command(self.work / "fp4", "bf16"))
        plain, other = self.work / "bf16", self.work / "other"
        self.out.rename(plain)
        remove(self.work / "fp4")
        other.mkdir()
        for file in plain.iterdir():
            if file.suffix == ".safetensors" or file.name.endswith(".index.json"):
                os.link(file, other / file.name)
        (other / "config.json").write_text(json.dumps({"model_type": "other"}))
        for rule in RULES:
            self.rule(plain, rule)
        for rule in OTHERS:
            self.rule(other, rule)


if __name__ == "__main__":
    bench_convert.in_a_slice(bench_convert.parse(__doc__), QuantizeBench.run_all, QuantizeBench)
