"""How fast layers stream: python3 tests/cuda/layers.py BUILD [--transformers] [ckpt-run options]

A slice of Flash with synthetic values and a prompt of 4,096 tokens: each layer's time against the
time in which its bytes alone reach the device from pinned memory. The first run only fills caches.
With --transformers the same slice runs there, in BF16, all of it on the device. Needs 40 GB of
memory for files in /dev/shm.
"""
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

LAYERS = 7        # ratios 0 0 4 128 4 128 4; three hash layers, four that score
TOKENS = 4096


def run_ours(build, folder, options):
    said = subprocess.run([build / "cuda/test_cuda", "--bandwidth"], capture_output=True, text=True)
    pinned = float(re.search(r"pinned copy to the device: ([0-9.]+)", said.stdout)[1]) * 1e9
    print(f"pinned copies: {pinned / 1e9:.1f} GB/s")
    for _ in range(3):
        said = subprocess.run(
            [build / "bin/ckpt-run", "--json", "--quiet", "--backend", "cuda", "--positions",
             "last", "--out", folder / "out", "--tokens", folder / "tokens.json", *options,
             folder / "model"],
            check=True, capture_output=True, text=True)
    layers = json.loads(said.stdout)["layers"]
    for layer in layers:
        copy = layer["weight_bytes"] / pinned
        print("layer {layer}, ratio {ratio:3}: {ms:.1f} ms, waits {wait:.1f}; its bytes alone "
              "{copy:.1f} ms: {times:.2f}; meanwhile {moved:.2f} GB in {busy:.1f} ms".format(
                  **layer, ms=layer["seconds"] * 1e3, wait=layer["wait_seconds"] * 1e3,
                  copy=copy * 1e3, times=layer["seconds"] / copy,
                  moved=layer["copy_bytes"] / 1e9, busy=layer["copy_seconds"] * 1e3))
    seconds = sum(layer["seconds"] for layer in layers)
    copy = sum(layer["weight_bytes"] for layer in layers) / pinned
    print(f"all: {seconds * 1e3:.1f} ms, {TOKENS / seconds:.0f} tokens/s; bytes alone "
          f"{copy * 1e3:.1f} ms: {seconds / copy:.2f}")


def run_transformers(config, tokens):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights
    config.pop("quantization_config", None)
    config["compress_ratios"] = config["compress_ratios"][:LAYERS]
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"), no_init_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config),
                                                 attn_implementation="eager").eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, p.shape[-1] ** -0.5) if p.dim() > 1 else p.fill_(1)
        for name, buffer in model.named_buffers():
            if "tid2eid" in name:
                buffer.random_(0, config["n_routed_experts"])
        for _ in range(3):
            torch.cuda.synchronize()
            begin = time.time()
            model(torch.tensor([tokens], device="cuda"), logits_to_keep=1, use_cache=False)
            torch.cuda.synchronize()
            seconds = time.time() - begin
    print(f"transformers: {seconds * 1e3:.1f} ms, {TOKENS / seconds:.0f} tokens/s, "
          f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


def main():
    build, options = pathlib.Path(sys.argv[1]), sys.argv[2:]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = pathlib.Path(name)
        subprocess.run([build / "bin/ckpt-synth", "--quiet", "--config", "flash", "--layers",
                        str(LAYERS), folder / "model"], check=True)
        rng = random.Random(1)
        tokens = [rng.randrange(129280) for _ in range(TOKENS)]
        (folder / "tokens.json").write_text(json.dumps(tokens))
        run_ours(build, folder, [o for o in options if o != "--transformers"])
        if "--transformers" in options:
            run_transformers(json.loads((folder / "model/config.json").read_text()), tokens)


if __name__ == "__main__":
    main()
