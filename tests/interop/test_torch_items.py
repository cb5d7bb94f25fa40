"""torch.save items, DCP metadata and common.pt against torch itself, in both directions.

The C side is tests/unit/torch_items.c, which build/tests/test_zip_item runs when it has arguments.
"""
import argparse
import collections
import enum
import json
import pickle
import pickletools
import shutil
import subprocess
import tarfile
import zipfile

import pytest

torch = pytest.importorskip("torch")
dcp = pytest.importorskip("torch.distributed.checkpoint")

DTYPES = ["bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
          "float16", "bfloat16", "float32", "float64", "complex64", "float8_e4m3fn",
          "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz",
          "float4_e2m1fn_x2"]
SHAPES = [(), (1,), (6,), (2, 3), (0, 4), (300, 70), (2, 1, 3, 2, 1, 2, 1, 2)]


@pytest.fixture
def items(build):
    """items("read", path) -> what the command printed; check=2: its error instead."""
    def run(*args, check=0):
        done = subprocess.run([build / "tests" / "test_zip_item", *map(str, args)], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        assert done.returncode == check, done.stderr
        if check:
            assert done.stderr.count("\n") == 1
            return done.stderr
        return json.loads(done.stdout) if done.stdout else None
    return run


def filled(dtype, shape):
    """A tensor of any dtype whose bytes count up (0 and 1 for bool)."""
    kind = getattr(torch, dtype)
    count = torch.Size(shape).numel() * kind.itemsize
    values = torch.arange(count) % (2 if dtype == "bool" else 251)
    return values.to(torch.uint8).view(kind).reshape(shape)


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and raw(a) == raw(b)


def check_zip(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
        return [i.filename for i in archive.infolist()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_loads_what_we_write(items, tmp_path, dtype):
    for i, shape in enumerate(SHAPES):
        expected = filled(dtype, shape)
        (tmp_path / "payload").write_bytes(raw(expected))
        path = tmp_path / f"{i}.pt"
        items("write", dtype, ",".join(map(str, shape)) or "-", tmp_path / "payload", path)
        for mmap in (False, True):
            assert same(torch.load(path, weights_only=True, mmap=mmap), expected)
        assert check_zip(path) == [f"archive/{n}" for n in
                                   ("version", "byteorder", "data.pkl", "data/0")]
        with zipfile.ZipFile(path) as archive:
            pickletools.dis(archive.read("archive/data.pkl"), out=open("/dev/null", "w"))
        read = items("read", path)
        assert (read["dtype"], tuple(read["shape"])) == (dtype, shape)


def test_torch_loads_the_byte_entries(items, tmp_path):
    items("none", tmp_path / "none.pt")
    items("empty", tmp_path / "empty.pt")
    assert torch.load(tmp_path / "none.pt", weights_only=True) == [None]
    loaded, = torch.load(tmp_path / "empty.pt", weights_only=True)
    assert same(loaded, torch.empty(0, dtype=torch.uint8))
    check_zip(tmp_path / "none.pt")
    check_zip(tmp_path / "empty.pt")


def assert_reads(items, path, tensor, offset=0):
    """What we say about an item gives the values back, strides and all."""
    read = items("read", path, offset, path.stat().st_size - offset)
    element = tensor.element_size()
    assert read["dtype"] == str(tensor.dtype).removeprefix("torch.")
    assert tuple(read["shape"]) == tuple(tensor.shape)
    assert tuple(read["strides"]) == tensor.stride()
    assert bool(read["row_major"]) == tensor.is_contiguous()
    data = path.read_bytes()
    assert read["data_offset"] == read["payload_offset"] + read["storage_offset"] * element
    storage = data[read["payload_offset"]:read["payload_offset"] + read["payload_bytes"]]
    assert len(storage) == read["storage_elements"] * element
    typed = torch.frombuffer(bytearray(storage) or bytearray(element), dtype=torch.uint8)
    rebuilt = torch.as_strided(typed.view(tensor.dtype), read["shape"], read["strides"],
                               read["storage_offset"])
    assert same(rebuilt, tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_we_read_what_torch_writes(items, tmp_path, dtype):
    for i, shape in enumerate(SHAPES):
        tensor = filled(dtype, shape)
        torch.save(tensor, tmp_path / f"{i}.pt")
        assert_reads(items, tmp_path / f"{i}.pt", tensor)


def views():
    base = torch.arange(120, dtype=torch.int32).reshape(4, 5, 6)
    yield "part", base[2:]
    yield "transposed", base.permute(2, 0, 1)
    yield "columns", base[:, :, 1:4]
    yield "steps", base[::2, 1::3, ::5]
    yield "one", base[1, 2, 3]
    yield "repeated", torch.tensor([1.5, 2.5]).expand(3, 2)
    yield "tail", torch.arange(10)[9:]
    yield "nothing", base[4:]


@pytest.mark.parametrize("name,tensor", list(views()), ids=[n for n, _ in views()])
def test_views_keep_offset_and_strides(items, tmp_path, name, tensor):
    torch.save(tensor, tmp_path / "view.pt")
    assert_reads(items, tmp_path / "view.pt", tensor)


def test_parameters_and_options_of_torch_save(items, tmp_path):
    tensor = torch.arange(8, dtype=torch.float32).reshape(2, 4)
    torch.save(torch.nn.Parameter(tensor), tmp_path / "parameter.pt")
    assert_reads(items, tmp_path / "parameter.pt", tensor)
    with_grad = tensor.clone().requires_grad_()
    torch.save(with_grad, tmp_path / "grad.pt")
    assert_reads(items, tmp_path / "grad.pt", tensor)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(tensor, tmp_path / "no-crc.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_reads(items, tmp_path / "no-crc.pt", tensor)
    shifted = tmp_path / "inside.pt"
    shifted.write_bytes(b"x" * 77 + (tmp_path / "parameter.pt").read_bytes())
    assert_reads(items, shifted, tensor, offset=77)


def test_other_locations_are_accepted(items, tmp_path):
    tensor = torch.arange(3)
    torch.save(tensor, tmp_path / "cpu.pt")
    with zipfile.ZipFile(tmp_path / "cpu.pt") as archive, \
            zipfile.ZipFile(tmp_path / "cuda.pt", "w") as out:
        for info in archive.infolist():
            content = archive.read(info)
            if info.filename.endswith("data.pkl"):
                assert content.count(b"\3\0\0\0cpu") == 1
                content = content.replace(b"\3\0\0\0cpu", b"\6\0\0\0cuda:1")
            out.writestr(info.filename, content)
    assert_reads(items, tmp_path / "cuda.pt", tensor)


def refused(items, tmp_path, value, words):
    torch.save(value, tmp_path / "odd.pt")
    assert words in items("read", tmp_path / "odd.pt", check=2)


def test_what_is_no_plain_tensor_is_refused(items, tmp_path):
    refused(items, tmp_path, [torch.zeros(2)], "plain tensor")
    refused(items, tmp_path, collections.OrderedDict(a=torch.zeros(2)), "plain tensor")
    refused(items, tmp_path, torch.zeros(2).to_sparse(), "plain tensor")
    refused(items, tmp_path, torch.zeros(2, dtype=torch.complex64).conj(), "metadata")
    refused(items, tmp_path, torch.zeros([1] * 9), "size")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_compressed_records_are_refused(items, tmp_path, method):
    torch.save(torch.zeros(1000), tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as archive, \
            zipfile.ZipFile(tmp_path / "packed.pt", "w", method) as out:
        for info in archive.infolist():
            out.writestr(info.filename, archive.read(info))
    assert "compressed" in items("read", tmp_path / "packed.pt", check=2)


# ---- DCP ----

def nested_state():
    return {
        "model": {"weight": filled("bfloat16", (5, 7)), "bias": filled("float32", (7,)),
                  "f8": filled("float8_e4m3fn", (4, 4)), "scalar": torch.tensor(3.5)},
        "layers": [torch.arange(4), torch.zeros(0, 3)],
        "view": torch.arange(24).reshape(4, 6).t()[1:],
        "obj": {"x": 1, "name": "n"},
        "_extra_state": b"bytes",
    }


def flat_tensors(state):
    flat = {}
    for key, value in state.items():
        if isinstance(value, list):
            value = {str(i): v for i, v in enumerate(value)}
        if isinstance(value, dict):
            flat.update({f"{key}.{k}": v for k, v in flat_tensors(value).items()})
        elif isinstance(value, torch.Tensor):
            flat[key] = value
    return flat


def assert_same_checkpoint(items, folder, expected):
    """Every tensor in the metadata, its chunk's item included."""
    entries = items("dcp", folder / ".metadata")
    assert {k for k, e in entries.items() if e["dtype"]} == set(expected)
    for key, tensor in expected.items():
        entry = entries[key]
        assert entry["dtype"] == str(tensor.dtype).removeprefix("torch.")
        assert (tuple(entry["size"]), entry["cover"]) == (tuple(tensor.shape), "proven")
        for chunk in entry["chunks"]:
            read = items("read", folder / chunk["path"], chunk["offset"], chunk["length"])
            assert read["shape"] == chunk["sizes"]
    return entries


def test_we_read_and_rewrite_what_dcp_saves(items, tmp_path):
    state = nested_state()
    dcp.save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    expected = flat_tensors(state)
    entries = assert_same_checkpoint(items, tmp_path / "dcp", expected)
    assert {k for k, e in entries.items() if not e["dtype"]} == {"obj.x", "obj.name",
                                                                 "_extra_state"}
    items("dcp-copy", tmp_path / "dcp" / ".metadata", tmp_path / "copy")
    shutil.copy(tmp_path / "copy", tmp_path / "dcp" / ".metadata")
    loaded = {k: torch.zeros_like(v.contiguous()) for k, v in expected.items()}
    dcp.load(loaded, checkpoint_id=tmp_path / "dcp", no_dist=True)
    assert all(same(loaded[k], expected[k]) for k in expected)
    assert items("dcp", tmp_path / "dcp" / ".metadata") == entries


def test_what_we_write_becomes_a_torch_save_file(items, tmp_path):
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
    state = {"a": filled("bfloat16", (6, 3)), "b": filled("int64", (2,))}
    dcp.save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    items("dcp-copy", tmp_path / "dcp" / ".metadata", tmp_path / "copy")
    shutil.copy(tmp_path / "copy", tmp_path / "dcp" / ".metadata")
    dcp_to_torch_save(tmp_path / "dcp", tmp_path / "flat.pt")
    flat = torch.load(tmp_path / "flat.pt", weights_only=True)
    assert all(same(flat[k], v) for k, v in state.items())
    opcodes = {op.name for op, _, _ in pickletools.genops((tmp_path / "copy").read_bytes())}
    assert not opcodes & {"FRAME", "MEMOIZE", "STACK_GLOBAL", "SHORT_BINUNICODE"}


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("sample")
    with tarfile.open(data / "dcp-sample-torch2.11.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_the_sample_of_two_ranks_is_read(items, two_ranks):
    plain = torch.load(two_ranks / "dcp-sample.pt", weights_only=False)
    entries = items("dcp", two_ranks / "dcp-sample" / ".metadata")
    assert all(e["cover"] == "proven" for e in entries.values())
    assert len(entries["w.bf16.shard0"]["chunks"]) == 2
    compared = 0
    for key, tensor in flat_tensors(plain).items():
        if key not in entries:
            continue
        whole = torch.zeros_like(tensor.contiguous())
        for chunk in entries[key]["chunks"]:
            path = two_ranks / "dcp-sample" / chunk["path"]
            read = items("read", path, chunk["offset"], chunk["length"])
            at = read["data_offset"]
            bytes_ = torch.Size(chunk["sizes"]).numel() * tensor.element_size()
            part = torch.frombuffer(bytearray(path.read_bytes()[at:at + bytes_] or b"\0" * 8),
                                    dtype=torch.uint8)
            box = tuple(slice(o, o + s) for o, s in zip(chunk["offsets"], chunk["sizes"]))
            if bytes_:
                whole[box] = part.view(tensor.dtype).reshape(chunk["sizes"])
        assert same(whole, tensor), key
        compared += 1
    assert compared >= 8


def test_a_missing_chunk_is_named(items, tmp_path):
    dcp.save({"a.b": torch.zeros(3)}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    reader = dcp.FileSystemReader(tmp_path / "dcp")
    metadata = reader.read_metadata()
    metadata.storage_data.clear()
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
    assert "'a.b'" in items("dcp", tmp_path / ".metadata", check=2)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_and_old_spellings_are_read(items, tmp_path, protocol):
    dcp.save({"w": filled("float16", (2, 2))}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    metadata = dcp.FileSystemReader(tmp_path / "dcp").read_metadata()
    expected = items("dcp", tmp_path / "dcp" / ".metadata")
    metadata.all_local_plans = [{"plan": [1, {2}, b"bytes", 1e300, 1 << 70]}]
    metadata.mcore_data = {}
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata, protocol))
    assert items("dcp", tmp_path / ".metadata") == expected
    for name in ("state_dict_metadata", "storage_data"):
        missing = pickle.loads(pickle.dumps(metadata))
        delattr(missing, name)
        (tmp_path / ".metadata").write_bytes(pickle.dumps(missing, protocol))
        assert name in items("dcp", tmp_path / ".metadata", check=2)
    info, = metadata.storage_data.values()
    info.transform_descriptors = ["zstd"]
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata, protocol))
    assert "transformed" in items("dcp", tmp_path / ".metadata", check=2)
    info.transform_descriptors = None
    for path in ("/etc/passwd", "../x", "a/../../x", ".."):
        info.relative_path = path
        (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata, protocol))
        assert "inside the folder" in items("dcp", tmp_path / ".metadata", check=2)


def test_classes_that_moved_are_the_same(items, tmp_path):
    dcp.save({"w": filled("float16", (2, 2))}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    metadata = dcp.FileSystemReader(tmp_path / "dcp").read_metadata()
    written = pickle.dumps(metadata, 2)
    module = b"torch.distributed.checkpoint.metadata\n"
    by_value = b"K\0\x85"        # the enum's argument, (0,), up to its memo
    for old, new in [
            (module + b"TensorProperties",
             b"torch.distributed._shard.sharded_tensor.metadata\nTensorProperties"),
            (module + b"_MEM_FORMAT_ENCODING",
             b"torch.distributed._shard.sharded_tensor.metadata\nMEM_FORMAT_ENCODING"),
            (module + b"Metadata\n",
             b"megatron.core.dist_checkpointing.strategies.torch\nMCoreMetadata\n"),
            (by_value, b"X\4\0\0\0NAME\x85")]:
        assert written.count(old) == 1
        written = written.replace(old, new)
    (tmp_path / ".metadata").write_bytes(written)
    assert items("dcp", tmp_path / ".metadata") == items("dcp", tmp_path / "dcp" / ".metadata")


# ---- common.pt ----

class Colour(enum.Enum):
    RED = 1


def namespace():
    return argparse.Namespace(
        num_layers=43, seq_length=1 << 40, lr=1e-6, bf16=True, name="Ünï", save=None,
        moe_layer_freq=[0, 1, 1], betas=(0.9, 0.95), dtype=torch.bfloat16, colour=Colour.RED,
        nested=[[1]], padded_vocab_size=-1)


def test_we_read_common_state_of_torch(items, tmp_path):
    state = {"args": namespace(), "checkpoint_version": 3.0, "iteration": 7, "opt": {"x": [1]},
             "rng": torch.arange(3)}
    expected = dict(num_layers=43, seq_length=1 << 40, lr=1e-6, bf16=True, name="Ünï", save=None,
                    moe_layer_freq=[0, 1, 1], betas=[0.9, 0.95], dtype="<other>",
                    colour="<other>", nested=["<other>"], padded_vocab_size=-1)
    for value in (state, [state]):
        torch.save(value, tmp_path / "common.pt")
        read = items("common", tmp_path / "common.pt")
        assert read == {"iteration": 7, "checkpoint_version": 3, "args": expected}


def test_torch_loads_our_common_pt_restricted(items, tmp_path):
    items("common-write", tmp_path / "common.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        loaded = torch.load(tmp_path / "common.pt", weights_only=True)
    assert vars(loaded.pop("args")) == {
        "num_layers": 43, "big": 1 << 40, "negative": -1 << 63, "norm_epsilon": 1e-6,
        "bf16": True, "fp16": False, "tokenizer": "café", "again": "tokenizer",
        "nothing": None, "moe_layer_freq": [0, 1], "no_items": []}
    assert loaded == {"checkpoint_version": 3.0, "iteration": 1,
                      "num_floating_point_operations_so_far": 0,
                      "content_metadata": {"singleton_local_shards": False,
                                           "chained_optim_avoid_prefix": True}}
    check_zip(tmp_path / "common.pt")
    assert items("common", tmp_path / "common.pt")["args"]["tokenizer"] == "café"
