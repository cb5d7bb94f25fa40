"""What slime's writer and SGLang's reader of its deltas do, for bench_delta.py.

    slime_path.py write OLD NEW DELTA THREADS
    slime_path.py apply BASE DELTA DST THREADS      DST becomes a copy of BASE, which is patched
    slime_path.py patch MODEL DELTA THREADS         in place

As in their sources: NumPy over whole tensors, one zstd frame and one checksum for each, a pool of
threads over the tensors; the reader maps the files for writing. python-zstandard and xxhash where
they are installed, else the same libraries by ctypes.
"""
import importlib.util
import json
import pathlib
import shutil
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from corrupt.files import INDEX, read_header  # noqa: E402
from interop import delta_reader  # noqa: E402

FILE = "model-00000-of-00001.safetensors"
HAS_PACKAGES = all(importlib.util.find_spec(name) for name in ("zstandard", "xxhash"))

if HAS_PACKAGES:
    import xxhash
    import zstandard

    def compress(data):
        return zstandard.ZstdCompressor(level=1).compress(data)

    def decompress(frame):
        return zstandard.ZstdDecompressor().decompress(frame)

    def checksum(data):
        return xxhash.xxh3_128(data).hexdigest()
else:
    def compress(data):
        return delta_reader.compress(data.tobytes())

    def decompress(frame):
        return delta_reader.decompress(bytes(frame))

    def checksum(data):
        return delta_reader.xxh3(data.tobytes())


def map_tensors(folder, mode):
    """{name: its bytes, mapped}"""
    maps = {}
    places = delta_reader.tensors_of(folder)
    for path, _, _ in places.values():
        if path not in maps:
            maps[path] = np.memmap(path, np.uint8, mode)
    return {n: maps[path][offset:offset + size] for n, (path, offset, size) in places.items()}


def write(old, new, delta, threads):
    before, after = map_tensors(old, "r"), map_tensors(new, "r")

    def encode(name):
        change = before[name] ^ after[name]
        return (name, compress(change), checksum(after[name])) if change.any() else None

    with ThreadPoolExecutor(threads) as pool:
        done = sorted(filter(None, pool.map(encode, after)))
    header, at = {"__metadata__": {name: text for name, _, text in done}}, 0
    for name, frame, _ in done:
        header[name] = {"dtype": "U8", "shape": [len(frame)],
                        "data_offsets": [at, at + len(frame)]}
        at += len(frame)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    delta.mkdir()
    with open(delta / FILE, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, frame, _ in done:
            file.write(frame)
    (delta / INDEX).write_text(json.dumps({
        "metadata": {"version": "000001", "base_version": "000000", "delta_encoding": "xor",
                     "compression_format": "zstd", "checksum_format": "xxh3-128"},
        "weight_map": {name: FILE for name, _, _ in done}}))


def patch(model, delta, threads):
    local, frames = map_tensors(model, "r+"), map_tensors(delta, "r")
    sums = read_header(delta / FILE)[1]

    def decode(name):
        local[name] ^= np.frombuffer(decompress(frames[name]), np.uint8)
        assert checksum(local[name]) == sums[name], name

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, frames))


def main(action, *args):
    *paths, threads = args
    paths = [pathlib.Path(p) for p in paths]
    if action == "apply":
        shutil.copytree(paths[0], paths[2])
        paths = [paths[2], paths[1]]
    (write if action == "write" else patch)(*paths, int(threads))


if __name__ == "__main__":
    main(*sys.argv[1:])
