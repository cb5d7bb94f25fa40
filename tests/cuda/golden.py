"""The CUDA backend on the golden models: python3 tests/cuda/golden.py BUILD

Against what DeepSeek's code computed, against the CPU backend, and against itself with other
chunks, feeds, device memory and encodings, bit for bit.
Exit 1: something is off. Needs numpy, safetensors.
"""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file

DATA = pathlib.Path(__file__).parent.parent / "data"
EXACT_MAX_ABS = 1e-4
EXACT_KL = 1e-9
# Mean KL between DeepSeek's semantics on a GPU and on a CPU: what rounding alone does.
NOISE = {"golden-a": 8.0e-3, "golden-b": 1.6e-4}
VARIANTS = [["--chunk", "7"], ["--chunk", "300"], ["--feed", "37"], ["--feed", "1"],
            ["--device-memory", "16MiB"]]
ENCODINGS = [["--dtype", "bf16"], ["--experts", "fp8"]]
GPUS = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.count("GPU ")
if GPUS > 1:
    VARIANTS += [["--devices", "0,1"], ["--devices", "1,0", "--feed", "50"]]

failures = 0


def check(holds, text):
    global failures
    failures += not holds
    print("ok  " if holds else "FAIL", text)


def log_softmax(logits):
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def kl(p, q):
    p, q = log_softmax(p), log_softmax(q)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def run(bin_dir, folder, name, model, *options):
    out = pathlib.Path(folder) / "out"
    subprocess.run([bin_dir / "ckpt-run", "--quiet", "--tokens",
                    DATA / f"{name}.safetensors", "--out", out, *options, model], check=True)
    return load_file(out)["logits"]


def same(a, b):
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


def check_model(bin_dir, folder, name, numerics):
    oracle = load_file(DATA / f"{name}.safetensors")[f"logits_{numerics}"]
    base = ["--numerics", numerics, "--backend"]
    ours = run(bin_dir, folder, name, DATA / name, *base, "cuda")
    cpu = run(bin_dir, folder, name, DATA / name, *base, "cpu")
    far, divergence = np.abs(ours - oracle).max(), kl(oracle, ours)
    text = f"{name} {numerics}: max abs {far:.3g}, mean KL {divergence:.3g}"
    if numerics == "exact":
        check(far <= EXACT_MAX_ABS and divergence <= EXACT_KL, text)
        check(np.abs(ours - cpu).max() <= EXACT_MAX_ABS, "  near the CPU")
    else:
        check(divergence <= 1.5 * NOISE[name], text)
        check(kl(cpu, ours) <= 1.5 * NOISE[name], "  near the CPU")
    print("     the CPU's bits:", "equal" if same(ours, cpu) else "different")
    for options in VARIANTS:
        other = run(bin_dir, folder, name, DATA / name, *base, "cuda", *options)
        check(same(ours, other), "  same bits with " + " ".join(options))
    for i, options in enumerate(ENCODINGS):
        model = pathlib.Path(folder) / f"{name}-{i}"
        if not model.exists():
            subprocess.run([bin_dir / "ckpt-convert", "--quiet", *options, DATA / name, model],
                           check=True, stdout=subprocess.DEVNULL)
        check(same(ours, run(bin_dir, folder, name, model, *base, "cuda")),
              "  same bits from " + " ".join(options))


def main():
    bin_dir = pathlib.Path(sys.argv[1]) / "bin"
    with tempfile.TemporaryDirectory() as folder:
        for name in NOISE:
            for numerics in ("exact", "deploy"):
                check_model(bin_dir, folder, name, numerics)
    print(failures, "failed")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
