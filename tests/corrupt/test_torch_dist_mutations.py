"""A thousand damaged torch_dist checkpoints: refused in one line, or read with the right values."""
import io
import json
import os
import pickletools
import random
import resource
import shutil
import struct
import subprocess
import tarfile
import zipfile

import pytest

from cli.trees import INSTRUMENTED
from conftest import BUILD, DATA, SANITIZER

ADDRESS_SPACE = 2 << 30      # sanitizers reserve terabytes: no limit there
HANG_CPU_SECONDS = 20
BATCHES, PER_BATCH = 25, 40


def limit():
    resource.setrlimit(resource.RLIMIT_CPU, (HANG_CPU_SECONDS, HANG_CPU_SECONDS))
    if not INSTRUMENTED:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def digest(path, *options):
    """(exit status, values or message) under a limit of memory and CPU time."""
    done = subprocess.run([BUILD / "bin" / "ckpt-verify", "digest", "--json", "--threads", "1",
                           "--memory", "64MiB", *options, path], text=True,
                          capture_output=True, timeout=300, preexec_fn=limit,
                          stdin=subprocess.DEVNULL, env={**os.environ, **SANITIZER})
    assert done.returncode in (0, 2), (done.returncode, done.stderr)
    if done.returncode == 2:
        assert done.stderr.startswith("ckpt-verify: ") and done.stderr.count("\n") == 1
        return 2, done.stderr
    return 0, {t["name"]: t["value"] for t in json.loads(done.stdout)["tensors"]}


class Original:
    """A checkpoint, its values, and which bytes of its files are tensor elements."""

    def __init__(self, path, inner, *options):
        self.path, self.inner, self.options = path, inner, options
        status, self.values = digest(path, *options)
        assert status == 0, self.values
        self.files = {p.name: p.read_bytes() for p in inner.iterdir()}
        self.payload = {name: payload_of(data) for name, data in self.files.items()
                        if name.endswith(".distcp")}
        assert all(self.payload.values())


def payload_of(data):
    """Ranges of the elements in a .distcp file, found without .metadata: items end in an end
    record without comment, and begin where the last one ended, up to 64 bytes of padding later."""
    ranges, begin = [], 0
    while (begin := data.find(b"PK\x03\x04", begin)) >= 0:
        end = begin
        while True:
            end = data.index(b"PK\x05\x06", end) + 22
            try:
                archive = zipfile.ZipFile(io.BytesIO(data[begin:end]))
                if archive.infolist() and archive.infolist()[0].header_offset == 0:
                    break
            except zipfile.BadZipFile:
                continue
        for info in archive.infolist():
            if "/data/" in info.filename and info.file_size > 0:
                at = begin + info.header_offset
                name, extra = struct.unpack("<HH", data[at + 26:at + 30])
                ranges.append((at + 30 + name + extra, at + 30 + name + extra + info.file_size))
        begin = end
    return ranges


@pytest.fixture(scope="module")
def originals(ckpt, tmp_path_factory):
    """One that we wrote and one that torch wrote."""
    folder = tmp_path_factory.mktemp("originals")
    ckpt("ckpt-synth", "--config", "tiny", "--layers", "2", folder / "tiny")
    ckpt("ckpt-shard", "--layout", "torch_dist", "--tp", "2", folder / "tiny", folder / "ours")
    with tarfile.open(DATA / "dcp-sample-torch2.11.tar") as tar:
        tar.extractall(folder, filter="data")
    return [Original(folder / "ours", folder / "ours" / "release"),
            Original(folder / "dcp-sample", folder / "dcp-sample", "--lenient")]


# ---- mutations: (bytes, generator) -> bytes, different ones ----

def flip_bit(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:]


def set_byte(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF])]) + data[at + 1:]


def truncate(data, rng):
    return data[:rng.randrange(len(data))]


def cut_out(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 64):]


def repeat(data, rng):
    at, size = rng.randrange(len(data)), rng.randint(1, 64)
    return data[:at + size] + data[at:]


def swap(data, rng):
    """Two runs of bytes change places."""
    a, b = sorted(rng.sample(range(len(data) - 16), 2))
    size = min(rng.randint(1, 16), b - a)
    return data[:a] + data[b:b + size] + data[a + size:b] + data[a:a + size] + data[b + size:]


GENERAL = [flip_bit, flip_bit, set_byte, truncate, cut_out, repeat, swap]


def opcodes(data, names):
    """[(begin, end, argument)] of opcodes of a pickle."""
    found = list(pickletools.genops(data))
    ends = [at for _, _, at in found[1:]] + [len(data)]
    return [(at, end, arg) for (op, arg, at), end in zip(found, ends) if op.name in names]


def long1(n):
    size = n.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + n.to_bytes(size, "little", signed=True)


def other_number(data, rng):
    """A size, an offset or a length becomes another: overlaps, holes, 2^60 elements."""
    begin, end, value = rng.choice(opcodes(data, ("BININT", "BININT1", "BININT2", "LONG1")))
    new = rng.choice([0, value + 1, value - 1, 2 * value, value // 2, -1, 1 << 31, 1 << 32,
                      1 << 60, (1 << 60) + 1, 1 << 62, (1 << 63) - 1, 1 << 63, 1 << 64, 1 << 100])
    return data[:begin] + long1(new) + data[end:]


def other_global(data, rng):
    """A class outside of the allow-list."""
    found = opcodes(data, ("GLOBAL",))
    if not found:
        begin, end, _ = rng.choice(opcodes(data, ("STACK_GLOBAL",)))
        return data[:begin] + b"\x30\x30" + b"cos\nsystem\n" + data[end:]
    begin, end, _ = rng.choice(found)
    module, name = rng.choice([("os", "system"), ("builtins", "eval"), ("torch", "load"),
                               ("subprocess", "Popen"), ("torch", "Tensor"), ("", "")])
    return data[:begin] + f"c{module}\n{name}\n".encode() + data[end:]


def other_text(data, rng):
    """A key, a path or an attribute becomes another."""
    begin, end, value = rng.choice(opcodes(data, ("BINUNICODE", "SHORT_BINUNICODE")))
    new = rng.choice(["", value + "x", value[1:], "../" + value, "/etc/passwd", "x" * 5000,
                      "\0", "size", "chunks"]).encode()
    return data[:begin] + b"X" + struct.pack("<I", len(new)) + new + data[end:]


def drop_opcodes(data, rng):
    found = list(pickletools.genops(data))
    first = rng.randrange(1, len(found) - 1)
    last = min(first + rng.randint(1, 12), len(found) - 1)
    return data[:found[first][2]] + data[found[last][2]:]


METADATA = [*GENERAL, other_number, other_number, other_number, other_global, other_text,
            drop_opcodes]
FILES = {".metadata": METADATA, "common.pt": GENERAL}


def mutate(original, rng):
    """(name of a file, its new bytes): never an element of a tensor alone."""
    kind = rng.choice([".metadata", ".metadata", ".metadata", ".distcp", ".distcp", "common.pt"])
    names = [n for n in original.files if n.endswith(kind)] or [".metadata"]
    name = rng.choice(sorted(names))
    old = original.files[name]
    if not name.endswith(".distcp"):
        return name, rng.choice(FILES[name])(old, rng)
    if rng.random() < 0.2:
        return name, truncate(old, rng)
    # In heads and tails, where it can be told; elements are anyone's.
    begin, end = rng.choice(gaps(original.payload[name], len(old)))
    part = rng.choice([flip_bit, set_byte])(old[begin:end], rng)
    return name, old[:begin] + part + old[end:]


def gaps(ranges, size):
    edges = [0, *(x for r in sorted(ranges) for x in r), size]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2]) if a < b]


def damaged_copy(original, folder, name, data):
    """Hard links, but for the one file."""
    shutil.copytree(original.path, folder, copy_function=os.link)
    path = folder / original.inner.relative_to(original.path) / name
    path.unlink()
    path.write_bytes(data)
    return folder


@pytest.mark.parametrize("batch", range(BATCHES))
def test_damage_is_refused_or_harmless(originals, tmp_path, batch):
    refused = 0
    for number in range(PER_BATCH):
        seed = batch * PER_BATCH + number
        rng = random.Random(seed)
        original = originals[seed % 2]
        name, data = mutate(original, rng)
        path = damaged_copy(original, tmp_path / str(number), name, data)
        status, said = digest(path, *original.options)
        refused += status == 2
        if status == 0 and "--lenient" in original.options:      # nobody knows its names
            assert sorted(said.values()) == sorted(original.values.values()), f"seed {seed}"
        elif status == 0:
            assert said == original.values, f"seed {seed}: {name} reads as something else"
        shutil.rmtree(path)
    assert refused > PER_BATCH / 5, "the mutations are too weak"


def test_one_item_for_two_boxes_is_refused(originals, tmp_path):
    """Every check of one box alone would pass: right dtype, right shape, all covered."""
    original = originals[0]
    data = original.files[".metadata"]
    places = [op for op in opcodes(data, ("BININT",)) if op[2] > 2_000_000 and op[2] % 64 == 0]
    (begin, end, _), (_, _, other) = places[-2:]
    moved = data[:begin] + long1(other) + data[end:]
    status, said = digest(damaged_copy(original, tmp_path / "moved", ".metadata", moved))
    assert status == 2 and "share the same bytes of" in said


def test_changed_elements_change_the_digest(originals, tmp_path):
    for i, original in enumerate(originals):
        name, ranges = next((n, r) for n, r in sorted(original.payload.items()) if r)
        begin, end = max(ranges, key=lambda r: r[1] - r[0])
        data = bytearray(original.files[name])
        data[(begin + end) // 2] ^= 1
        status, said = digest(damaged_copy(original, tmp_path / str(i), name, bytes(data)),
                              *original.options)
        assert status == 0 and said != original.values
