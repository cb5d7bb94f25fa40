"""Headers, indexes, configs and token files that ask for memory: refused, or read, within --memory.

The peak of the process counts, at a limit far below what the input would take if it were believed.
"""
import io
import json
import pickle
import shutil
import struct

import pytest

from cli.measure import measure
from cli.trees import INSTRUMENTED
from corrupt.files import INDEX, pack

pytestmark = pytest.mark.skipif(INSTRUMENTED, reason="a sanitizer's memory is not the tool's")

MIB = 1 << 20
LIMIT = 64 * MIB
SLACK = 64 * MIB
BELOW = 60 * MIB            # a text that fits the limit itself
LARGEST = 99_000_000        # near what a safetensors header may be


def entries(size, shape="[0]"):
    """As many tensors without elements as fit."""
    entry = '"%07x":{"dtype":"BF16","shape":' + shape + ',"data_offsets":[0,0]}'
    count = size // len(entry % 0 + ",")
    return "{" + ",".join(entry % i for i in range(count)) + "}"


def repeat(begin, text, end, size):
    return begin + text * ((size - len(begin) - len(end)) // len(text)) + end


def keys(size):
    """Short keys without end."""
    return ",".join(f'"{i:x}":0' for i in range(size // 10))


ONE = '{"a":{"dtype":"BF16","shape":'
TAIL = ',"data_offsets":[0,0]}}'

HEADERS = {
    "tensors": lambda: entries(BELOW),
    "tensors-to-the-limit": lambda: entries(LARGEST),
    "tensors-of-no-columns": lambda: entries(10 * MIB, "[100000000000,0]"),
    "dimensions": lambda: repeat(ONE + "[1", ",1", "]" + TAIL, BELOW),
    "numbers-in-a-row": lambda: repeat('{"a":[1', ",1", "]}", BELOW),
    "empty-arrays": lambda: repeat('{"a":[[]', ",[]", "]}", BELOW),
    "depth": lambda: "{" + '"a":' + "[" * BELOW,
    "metadata": lambda: '{"__metadata__":{' + keys(BELOW).replace(":0", ':""') + "}}",
    "metadata-of-one-text": lambda: '{"__metadata__":{"a":"' + "x" * BELOW + '"}}',
    "fields": lambda: '{"a":{' + keys(BELOW) + "}}",
    "a-name": lambda: '{"' + "n" * BELOW + '":{"dtype":"BF16","shape":[0]' + TAIL,
    "a-name-of-escapes": lambda: '{"' + "\\u0061" * (BELOW // 6) + '":{}}',
    "a-dtype": lambda: '{"a":{"dtype":"' + "F" * BELOW + '"}}',
    "a-number": lambda: '{"a":' + "0." + "1" * BELOW + "}",
    "blanks": lambda: "{" + " " * LARGEST + "}",
}


def check(tmp_path, *command):
    done = measure(tmp_path, *command[:1], *command[1:])
    assert done.status in (0, 2), done.err
    assert done.peak_bytes <= LIMIT + SLACK, done.err
    assert done.status == 0 or (done.err.count("\n") == 1 and
                                "out of memory" not in done.err), done.err
    return done


def checked(tmp_path, path):
    """Every command that opens a checkpoint."""
    memory = ["--memory", LIMIT]
    out = tmp_path / "out"
    seen = []
    for command in (["ckpt-inspect", *memory, path], ["ckpt-verify", "digest", *memory, path],
                    ["ckpt-verify", "compare", *memory, path, path],
                    ["ckpt-verify", "check", *memory, path],
                    ["ckpt-convert", *memory, path, out],
                    ["ckpt-shard", "--layout", "hf", *memory, path, out],
                    ["ckpt-run", *memory, "--tokens", "/dev/null", path]):
        seen.append(check(tmp_path, *command))
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(tmp_path / "out.partial", ignore_errors=True)
    return seen


@pytest.mark.parametrize("name", HEADERS)
def test_a_header(tmp_path, name):
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack(HEADERS[name]()))
    seen = checked(tmp_path, path)
    path.unlink()
    if name in ("tensors", "tensors-to-the-limit"):
        assert "the memory limit of 67108864 bytes is too small" in seen[0].err


def test_headers_that_add_up(tmp_path):
    """Each fits, what is kept of them all does not."""
    text = HEADERS["metadata-of-one-text"]().replace("x" * BELOW, "x" * (BELOW // 3))
    for i in range(8):
        (tmp_path / f"{i}.safetensors").write_bytes(pack(text))
    assert "memory limit" in checked(tmp_path, tmp_path)[0].err


INDEXES = {
    "entries": lambda: '{"weight_map":{' + ",".join(
        f'"{i:07x}":"a.safetensors"' for i in range(BELOW // 27)) + "}}",
    "files": lambda: '{"weight_map":{' + ",".join(
        f'"{i:07x}":"{i:07x}.safetensors"' for i in range(BELOW // 33)) + "}}",
    "a-file": lambda: '{"weight_map":{"a":"' + "f" * BELOW + '"}}',
    "beside": lambda: repeat('{"metadata":[1', ",1", '],"weight_map":{}}', BELOW),
    "larger-than-memory": lambda: repeat('{"metadata":[1', ",1", '],"weight_map":{}}', 200 * MIB),
}


@pytest.mark.parametrize("lenient", [[], ["--lenient"]])
@pytest.mark.parametrize("name", INDEXES)
def test_an_index(tmp_path, name, lenient):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / INDEX).write_text(INDEXES[name]())
    (tmp_path / "in" / "a.safetensors").write_bytes(pack(
        {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"1"))
    check(tmp_path, "ckpt-verify", "digest", *lenient, "--memory", LIMIT, tmp_path / "in")


CONFIGS = {
    "numbers": lambda c: {**c, "x": [1] * (7 * MIB // 2)},
    "ratios": lambda c: {**c, "compress_ratios": [4] * (7 * MIB // 2)},
    "members": lambda c: {**c, **{f"{i:x}": 0 for i in range(1_000_000)}},
    "layers": lambda c: {**c, "num_hidden_layers": 10**6, "compress_ratios": [4] * 10**6},
    "experts": lambda c: {**c, "n_routed_experts": 10**6},
    "layers-and-experts": lambda c: {**c, "num_hidden_layers": 10**5, "n_routed_experts": 10**5,
                                     "compress_ratios": [4] * 10**5},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config(tmp_path, golden_a, name):
    shutil.copytree(golden_a, tmp_path / "in")
    path = tmp_path / "in" / "config.json"
    path.write_text(json.dumps(CONFIGS[name](json.loads(path.read_text())), separators=(",", ":")))
    checked(tmp_path, tmp_path / "in")
    done = check(tmp_path, "ckpt-synth", "--dry-run", "--memory", LIMIT, "--config", path,
                 tmp_path / "new")
    if "layers" in name:
        assert done.status == 2 and "requires" in done.err, done.err
        assert done.cpu_seconds < 20


@pytest.mark.parametrize("text", [
    lambda: repeat('{"root":"a","main":"b","tensors":[1', ",1", "]}", BELOW),
    lambda: '{"root":"a","main":"b","tensors":[],' + keys(BELOW) + "}",
    lambda: " " * (300 * MIB),
])
@pytest.mark.parametrize("place", ["ckpt-manifest.json", "named"])
def test_a_manifest(tmp_path, golden_a, text, place):
    shutil.copytree(golden_a, tmp_path / "in")
    path = tmp_path / "in" / place
    path.write_text(text())
    named = ["--manifest", path] if place == "named" else []
    assert check(tmp_path, "ckpt-verify", "check", *named, "--memory", LIMIT,
                 tmp_path / "in").status == 2


def npy(shape, data=b"", dtype="<i4"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def tokens_of(shape, data=b""):
    return pack({"tokens": {"dtype": "I32", "shape": shape, "data_offsets": [0, len(data)]}}, data)


TOKENS = {
    "text": lambda: b"1 " * (BELOW // 2),
    "lines": lambda: b"1\n" * (BELOW // 2),
    "json": lambda: repeat("[1", ",1", "]", BELOW).encode(),
    "json-lists": lambda: repeat("[[1]", ",[1]", "]", BELOW).encode(),
    "jsonl": lambda: b'{"tokens":[1]}\n' * (BELOW // 15),
    "npy-rows-without-columns": lambda: npy("(100000000000, 0)"),
    "npy-columns-without-rows": lambda: npy("(0, 100000000000)"),
    "npy-overflow": lambda: npy("(4294967296, 4294967296)"),
    "npy-rows-of-padding": lambda: npy(f"({BELOW}, 1)", b"\xff" * BELOW, "|i1"),
    "npy-rows-of-one": lambda: npy(f"({BELOW}, 1)", b"\x01" * BELOW, "|i1"),
    "safetensors-rows-without-columns": lambda: tokens_of([10**11, 0]),
    "safetensors-header": lambda: pack(entries(BELOW)),
    "larger-than-memory": lambda: b"1 " * (200 * MIB),
}


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_file(tmp_path, golden_a, name):
    path = tmp_path / "tokens"
    path.write_bytes(TOKENS[name]())
    done = check(tmp_path, "ckpt-run", "--dry-run", "--memory", LIMIT, "--tokens", path, golden_a)
    path.unlink()
    if "without" in name:
        assert "holds no token ids" in done.err and done.cpu_seconds < 5


@pytest.mark.parametrize("text", [
    lambda: '{"model":{"type":"BPE","vocab":{' + keys(BELOW) + "}}}",
    lambda: repeat('{"model":{"type":"BPE","merges":["a b"', ',"a b"', "]}}", BELOW),
    lambda: '{"model":{"type":"BPE","vocab":{"a":16777215}}}',
    lambda: " " * (200 * MIB),
])
def test_a_tokenizer(tmp_path, golden_a, text):
    path = tmp_path / "tokenizer.json"
    path.write_text(text())
    assert check(tmp_path, "ckpt-run", "--dry-run", "--memory", LIMIT, "--tokenizer", path,
                 "--prompt", "x", golden_a).status == 2


def many(write, count):
    """A pickle of `count` items, written by hand."""
    out = io.BytesIO()
    out.write(b"\x80\x02](")
    out.write(write * count)
    out.write(b"e.")
    return out.getvalue()


@pytest.mark.parametrize("data", [
    lambda: many(b"]", BELOW), lambda: many(b"}", BELOW), lambda: many(b"K\x01", BELOW // 2),
    lambda: b"\x80\x02" + b"(" * BELOW, lambda: b"\x80\x02" + b"N" * BELOW,
    lambda: pickle.dumps(["x" * 100 + str(i) for i in range(BELOW // 110)], protocol=2),
    lambda: b"\x80\x02X" + struct.pack("<I", 4_000_000_000) + b"x",
    lambda: b"\x80\x02" + bytes(200 * MIB),
])
def test_torch_dist_metadata(tmp_path, data):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / ".metadata").write_bytes(data())
    (tmp_path / "in" / "__0_0.distcp").write_bytes(b"x")
    for command in (["ckpt-inspect"], ["ckpt-verify", "digest"]):
        assert check(tmp_path, *command, "--memory", LIMIT, tmp_path / "in").status == 2


@pytest.mark.parametrize("text", [lambda: "x" * (200 * MIB), lambda: '{"point":"a"}\n' * (4 * MIB)])
def test_a_trace(tmp_path, golden_a, text):
    path = tmp_path / "trace"
    path.write_text(text())
    check(tmp_path, "ckpt-verify", "logits", "--memory", LIMIT, "--trace", path, path, golden_a,
          golden_a)


def test_a_large_header_that_is_real_is_read(tmp_path):
    """100 MB, 1.29 million tensors: within 1 GiB, the default."""
    entry = '"t%07d":{"dtype":"BF16","shape":[16,1],"data_offsets":[%d,%d]}'
    count = 1_290_000
    text = "{" + ",".join(entry % (i, 32 * i, 32 * i + 32) for i in range(count)) + "}"
    assert 99e6 < len(text) < 100e6
    path = tmp_path / "x.safetensors"
    with open(path, "wb") as f:
        f.write(pack(text))
        f.truncate(8 + len(text) + 32 * count)
    done = measure(tmp_path, "ckpt-verify", "digest", "--json", path)
    path.unlink()
    assert done.status == 0, done.err
    assert done.peak_bytes <= 1024 * MIB
