"""Weight deltas as the readers and writers of slime, miles and SGLang handle them: none of the
tools' code, but libzstd, libxxhash and NumPy. After their sources: all tensors found by the headers
of all files, changed in place, the checksum of the result compared as a string.
"""
import ctypes
import json
import pathlib
import shutil
import zlib

import numpy as np

from corrupt.files import INDEX, Tensor, file_bytes, read_header
from interop.value_digest import xxhash

zstd = ctypes.CDLL("libzstd.so.1")
for name, result, args in (
        ("ZSTD_getFrameContentSize", ctypes.c_ulonglong, [ctypes.c_char_p, ctypes.c_size_t]),
        ("ZSTD_findFrameCompressedSize", ctypes.c_size_t, [ctypes.c_char_p, ctypes.c_size_t]),
        ("ZSTD_compressBound", ctypes.c_size_t, [ctypes.c_size_t]),
        ("ZSTD_compress", ctypes.c_size_t, [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p,
                                            ctypes.c_size_t, ctypes.c_int]),
        ("ZSTD_decompress", ctypes.c_size_t, [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p,
                                              ctypes.c_size_t]),
        ("ZSTD_isError", ctypes.c_uint, [ctypes.c_size_t])):
    getattr(zstd, name).restype = result
    getattr(zstd, name).argtypes = args


def compress(data, level=1):
    out = ctypes.create_string_buffer(zstd.ZSTD_compressBound(len(data)))
    size = zstd.ZSTD_compress(out, len(out), data, len(data), level)
    assert not zstd.ZSTD_isError(size)
    return out.raw[:size]


def decompress(frame):
    """One frame with its content size, and nothing behind it."""
    size = zstd.ZSTD_getFrameContentSize(frame, len(frame))
    assert size < 1 << 40
    assert zstd.ZSTD_findFrameCompressedSize(frame, len(frame)) == len(frame)
    out = ctypes.create_string_buffer(max(size, 1))
    assert zstd.ZSTD_decompress(out, size, frame, len(frame)) == size
    return out.raw[:size]


def xxh3(data):
    h = xxhash.XXH3_128bits_withSeed(data, len(data), 0)
    return f"{h.high:016x}{h.low:016x}"


CHECKSUMS = {"xxh3-128": xxh3, "adler32": lambda data: f"{zlib.adler32(data):08x}"}


def tensors_of(folder):
    """{name: (file, offset, size)} of every .safetensors file of a folder."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        header, _, begin = read_header(path)
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            found[name] = (path, begin + first, last - first)
    return found


def read_tensor(place):
    path, offset, size = place
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def payload(old, new, encoding):
    a, b = (np.frombuffer(x, dtype=np.uint8) for x in (old, new))
    if encoding == "xor":
        return (a ^ b).tobytes()
    at = np.flatnonzero(a != b).astype("<u4")
    return np.uint32(len(at)).tobytes() + at.tobytes() + b[at].tobytes()


def patched(old, data, encoding):
    if encoding == "xor":
        return (np.frombuffer(old, np.uint8) ^ np.frombuffer(data, np.uint8)).tobytes()
    count = int(np.frombuffer(data[:4], "<u4")[0])
    new = np.frombuffer(old, np.uint8).copy()
    new[np.frombuffer(data[4:4 + 4 * count], "<u4")] = np.frombuffer(data[4 + 4 * count:], np.uint8)
    return new.tobytes()


def apply(base, delta, target):
    """SGLang's way: a copy of the base, changed in place; names by the index."""
    shutil.copytree(base, target)
    index = json.loads((delta / INDEX).read_text())
    about = index["metadata"]
    assert about["compression_format"] == "zstd"
    local = tensors_of(target)
    for file in sorted(set(index["weight_map"].values())):
        header, sums, _ = read_header(delta / file)
        named = {n for n, f in index["weight_map"].items() if f == file}
        frames = {n: p for n, p in tensors_of(delta).items() if p[0].name == file}
        assert named == set(frames)
        for name, place in frames.items():
            assert header[name]["dtype"] == "U8"
            new = patched(read_tensor(local[name]), decompress(read_tensor(place)),
                          about["delta_encoding"])
            assert CHECKSUMS[about["checksum_format"]](new) == sums[name], name
            with open(local[name][0], "r+b") as out:
                out.seek(local[name][1])
                out.write(new)


SKYRL_DTYPES = {"bfloat16": "BF16", "float32": "F32", "float8_e4m3fn": "F8_E4M3", "int64": "I64",
                "int8": "I8"}


def apply_skyrl(base, delta, target):
    """SkyRL's way: everything by the manifest, dtype and shape as in the local checkpoint."""
    shutil.copytree(base, target)
    manifest = json.loads((delta / "manifest.json").read_text())
    local = tensors_of(target)
    shapes = {n: e for path in {p for p, _, _ in local.values()}
              for n, e in read_header(path)[0].items()}
    payloads = tensors_of(delta)
    assert sorted({p[0].name for p in payloads.values()}) == sorted(manifest["payload_files"])
    for entry in manifest["tensors"]:
        place = payloads[entry["payload_key"]]
        assert place[0].name == entry["payload_file"] and place[2] == entry["compressed_num_bytes"]
        here = shapes[entry["name"]]
        assert here["shape"] == entry["shape"]
        assert here["dtype"] == SKYRL_DTYPES[entry["dtype"]]
        data = decompress(read_tensor(place))
        assert len(data) == entry["uncompressed_num_bytes"]
        new = patched(read_tensor(local[entry["name"]]), data, "xor")
        assert entry["checksum_algorithm"] == "xxh3-128" and xxh3(new) == entry["checksum"]
        with open(local[entry["name"]][0], "r+b") as out:
            out.seek(local[entry["name"]][1])
            out.write(new)
    return manifest


def write(base, new, delta, encoding="xor", checksum="xxh3-128", version=1, change=None):
    """slime's way: one file, whatever differs. `change(name, frame, sum)` may spoil an entry."""
    delta.mkdir(parents=True)
    old_tensors, new_tensors = tensors_of(base), tensors_of(new)
    entries, sums = {}, {}
    for name, place in new_tensors.items():
        old, now = read_tensor(old_tensors[name]), read_tensor(place)
        if old == now:
            continue
        frame, text = compress(payload(old, now, encoding)), CHECKSUMS[checksum](now)
        if change is not None:
            frame, text = change(name, frame, text)
        entries[name], sums[name] = Tensor("U8", [len(frame)], frame), text
    file = "model-00000-of-00001.safetensors"
    (delta / file).write_bytes(file_bytes(entries, sums))
    (delta / INDEX).write_text(json.dumps({
        "metadata": {"version": f"{version:06d}", "base_version": f"{version - 1:06d}",
                     "delta_encoding": encoding, "compression_format": "zstd",
                     "checksum_format": checksum},
        "weight_map": {name: file for name in entries}}))
    return delta
