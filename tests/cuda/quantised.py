"""Quantised models on the CUDA backend: python3 tests/cuda/quantised.py BUILD

Each encoding that --quantize makes, and Q8_0 of GGUF, which the host decodes: the logits are those
of the same values in F32 on the device, and those of the CPU backend, bit for bit.
Exit 1: something is off. Needs no library.
"""
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from cli.quantised_models import PRESETS, divided      # noqa: E402

DATA = pathlib.Path(__file__).parent.parent / "data"
# All rows at once; a few rows at a time, for which there are other kernels; weights that come in
# many pieces, because they do not fit.
WAYS = [[], ["--feed", "1"], ["--device-memory", "32MiB"]]

failures = 0


def check(holds, text):
    global failures
    failures += not holds
    print("ok  " if holds else "FAIL", text, flush=True)


class Tools:
    def __init__(self, build):
        self.bin = pathlib.Path(build) / "bin"

    def __call__(self, tool, *arguments):
        subprocess.run([self.bin / tool, "--quiet", *arguments], check=True,
                       stdout=subprocess.DEVNULL)

    def same(self, tokens, out, reference, *arguments):
        """ckpt-run has the logits of the reference, every bit."""
        done = subprocess.run([self.bin / "ckpt-run", "--quiet", "--tokens", tokens, "--out", out,
                               "--against", reference, *arguments], stdout=subprocess.DEVNULL)
        return done.returncode == 0


def make_models(tools, folder, name):
    """{what: path}: every form of the golden model, of its BF16 values."""
    bf16, mixed = folder / "bf16", folder / "mixed"
    tools("ckpt-convert", "--dtype", "bf16", DATA / name, bf16)
    tools("ckpt-convert", "--dtype", "bf16", "--experts", "keep", DATA / name, mixed)
    models = {"fp8 and fp4": DATA / name}
    for preset, (words, _) in PRESETS.items():
        models[preset] = folder / preset
        tools("ckpt-convert", "--quantize", *words, bf16, models[preset])
    models["nvfp4, exact"] = folder / "factor"
    tools("ckpt-convert", "--quantize", "experts=nvfp4-exact,mtp-experts=keep", mixed,
          models["nvfp4, exact"])
    models["nvfp4, divided"] = divided(models["nvfp4, exact"], folder / "divisor")
    models["q8_0"] = folder / "q8_0"
    tools("ckpt-shard", "--layout", "gguf", "--without-tokenizer", "--quantize",
          "q8_0,experts=keep", DATA / name, models["q8_0"])
    return models


def check_model(tools, folder, name, what, model):
    f32, tokens = folder / "f32" / model.name, DATA / f"{name}.safetensors"
    tools("ckpt-shard", "--layout", "hf", "--dtype", "f32", "--experts", "f32", model, f32)
    for numerics in ("exact", "deploy"):
        base = ["--numerics", numerics, "--backend"]
        on_device, on_cpu = folder / "device.safetensors", folder / "cpu.safetensors"
        tools("ckpt-run", "--tokens", tokens, "--out", on_device, *base, "cuda", f32)
        tools("ckpt-run", "--tokens", tokens, "--out", on_cpu, *base, "cpu", model)
        for way in WAYS:
            check(tools.same(tokens, folder / "out.safetensors", on_device, *base, "cuda", *way,
                             model), f"{name} {numerics} {what}: as F32 " + " ".join(way))
        check(tools.same(tokens, folder / "out.safetensors", on_cpu, *base, "cuda", model),
              f"{name} {numerics} {what}: as on the CPU")


def main():
    tools = Tools(sys.argv[1])
    with tempfile.TemporaryDirectory() as base:
        for name in ("golden-a", "golden-b"):
            folder = pathlib.Path(base) / name
            (folder / "f32").mkdir(parents=True)
            for what, model in make_models(tools, folder, name).items():
                check_model(tools, folder, name, what, model)
    print(failures, "failed")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
