"""Generation on a GPU: python3 tests/cuda/tokens.py BUILD [--layers N] [--tokens N]

First bits: the golden models with every encoding, fed whole, by fives and token by token, on each
number of devices. Then time: a slice of Flash that fits on one device, 4,096 tokens of context;
milliseconds of a token with resident weights against the time in which device memory gives them,
and with device memory for a part of the weights, with and without host memory for copies of the
others, against the time in which the bus gives the experts to which a token is routed, and what
was really copied; resident on two devices. The last tokens are measured, when most experts had
their turn. What is generated must be the same in all cases. Writes to /dev/shm. Exit 1: bits
differ. Needs no package.
"""
import argparse
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

DATA = pathlib.Path(__file__).parent.parent / "data"
CONTEXT = 4096
LAYER_BYTES = 3.6e9
HEAD_BYTES = 2.2e9
ROUTED_BYTES = 6 * 3 * 4096 * 2048 * 17 // 32    # of a token in a layer: FP4 with scales of 32
HOST_BYTES = 40 << 30                            # for copies of all experts of ten layers
RECENT = 64                                      # tokens that ckpt-run averages
VOCAB = 129280

failures = 0


def check(holds, text):
    global failures
    failures += not holds
    print("ok  " if holds else "FAIL", text, flush=True)


def run(build, *arguments, **options):
    done = subprocess.run([build / "bin" / arguments[0], *map(str, arguments[1:])],
                          capture_output=True, text=True, **options)
    if done.returncode != 0:
        print(f"FAIL {' '.join(map(str, arguments))}: {done.stderr.strip()}", flush=True)
        sys.exit(1)
    return done.stdout


def bandwidths(build):
    """Bytes a second: device memory (a copy reads and writes), and pinned copies to the device."""
    said = subprocess.run([build / "cuda/test_cuda", "--bandwidth"], capture_output=True,
                          text=True).stdout
    print("\n".join(line for line in said.splitlines() if "copy" in line), flush=True)
    device = re.search(r"copy on the device[^0-9]*([0-9.]+)", said)
    pinned = re.search(r"pinned copy to the device: ([0-9.]+)", said)
    return float(device[1]) * 1e9 if device else None, float(pinned[1]) * 1e9 if pinned else None


# ---- bits ----

def bits_of(build, folder, model, *options):
    """All tensors of a run, without the header, which tells the backend."""
    run(build, "ckpt-run", "--quiet", "--tokens", folder / "short.json", "--generate", "9", "--out",
        folder / "out", *options, model)
    raw = (folder / "out").read_bytes()
    return raw[8 + int.from_bytes(raw[:8], "little"):]


def check_bits(build, folder, devices):
    """150 tokens: an entry of every ratio is made while tokens come one by one."""
    (folder / "short.json").write_text(json.dumps([i * 37 % 384 for i in range(150)]))
    ways = [[], ["--feed", "1"], ["--feed", "5"]]
    pairs = [["--devices", "0,1"], ["--devices", "1,0", "--feed", "7"]] if devices > 1 else []
    for name in ["golden-a", "golden-b"]:
        encodings = {"as it is": []}
        if name == "golden-a":
            encodings |= {"bf16": ["--dtype", "bf16"], "fp8": ["--experts", "fp8"]}
        for label, options in encodings.items():
            model = folder / f"{name}-{label}"
            if options:
                run(build, "ckpt-convert", "--quiet", "--no-manifest", *options, DATA / name, model)
            else:
                model = DATA / name
            for profile in ["deploy", "exact"]:
                numerics = ["--numerics", profile]
                cpu = bits_of(build, folder, model, *numerics)
                for way in ways + (pairs if not options else []):
                    bits = bits_of(build, folder, model, *numerics, "--backend", "cuda", *way)
                    text = f"{name} {label} {profile} {' '.join(way) or 'whole'}"
                    if way == []:
                        whole = bits
                    check(bits == whole, f"{text}: as fed whole; the CPU's bits "
                                         + ("too" if bits == cpu else "differ"))


# ---- time ----

def generate(build, folder, count, *options):
    begin = time.time()
    told = json.loads(run(build, "ckpt-run", "--json", "--quiet", "--backend", "cuda", "--tokens",
                          folder / "tokens.json", "--generate", count, *options,
                          folder / "model"))
    return told, time.time() - begin


def copied(told):
    return sum(layer["copy_bytes"] for layer in told["layers"])


def used_bytes(told, before):
    """Bytes of weights that a token asks of all layers, and of the head."""
    asked = sum(a["weight_bytes"] - b["weight_bytes"]
                for a, b in zip(told["layers"], before["layers"]))
    return asked / RECENT + VOCAB * 4096 * 2


def measure(build, folder, label, options, count):
    before, _ = generate(build, folder, count - RECENT + 1, *options)
    told, wall = generate(build, folder, count + 1, *options)
    speed = told["speed"]
    layers = len(told["layers"])
    seconds = speed["recent_token_seconds"]
    print(f"{label}: prompt {speed['prompt_seconds']:.2f} s, {seconds * 1e3:.2f} ms a token "
          f"({speed['token_seconds'] / count * 1e3:.2f} of all {count}), "
          f"{seconds * 1e6 / layers:.0f} us a token and layer, process {wall:.1f} s", flush=True)
    moved = (copied(told) - copied(before)) / RECENT
    return told["prompts"][0]["generated"], seconds, used_bytes(told, before), moved


def check_time(build, folder, options, devices):
    device, pinned = bandwidths(build)
    need = options.layers * LAYER_BYTES + HEAD_BYTES
    cases = {"resident": []}
    for percent in [25, 50, 80]:
        part = ["--device-memory", f"{int(need * percent / 100)}"]
        cases[f"memory for {percent} %"] = part
        cases[f"memory for {percent} %, copies"] = part + ["--memory", str(HOST_BYTES)]
    if devices > 1:
        cases["resident on two devices"] = ["--devices", "0,1"]
    results = {}
    for label, extra in cases.items():
        tokens, seconds, used, moved = measure(build, folder, label, extra, options.tokens)
        results[label] = tokens
        if device:
            print(f"     weights of a token: {used / 1e9:.2f} GB, {used / device * 1e3:.2f} ms of "
                  f"device memory: {seconds * device / used:.1f} times", flush=True)
        if pinned and moved > 1e6:
            routed = ROUTED_BYTES * options.layers
            print(f"     routed to: {routed / 1e9:.2f} GB, {routed / pinned * 1e3:.2f} ms of the "
                  f"bus: {seconds * pinned / routed:.2f} times", flush=True)
            print(f"     copied for a token: {moved / 1e9:.2f} GB, {moved / pinned * 1e3:.2f} ms "
                  f"of the bus: {seconds * pinned / moved:.2f} times", flush=True)
    check(len({tuple(t) for t in results.values()}) == 1, "the same tokens in all cases")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512)
    options = parser.parse_args()
    devices = subprocess.run(["nvidia-smi", "-L"], capture_output=True,
                             text=True).stdout.count("GPU ")
    room = shutil.disk_usage("/dev/shm").free * 0.9 - HEAD_BYTES
    options.layers = min(options.layers, int(room / LAYER_BYTES))
    print(f"{devices} devices, {options.layers} layers", flush=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = pathlib.Path(name)
        check_bits(options.build, folder, devices)
        begin = time.time()
        run(options.build, "ckpt-synth", "--quiet", "--config", "flash", "--layers",
            options.layers, folder / "model")
        print(f"model written in {time.time() - begin:.1f} s", flush=True)
        draw = random.Random(1)
        tokens = [draw.randrange(VOCAB) for _ in range(CONTEXT)]
        (folder / "tokens.json").write_text(json.dumps(tokens))
        check_time(options.build, folder, options, devices)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
