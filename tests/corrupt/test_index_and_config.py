"""Damaged index.json and config.json: refused with a sentence, nothing read outside the folder."""
import json
import os

import pytest

from corrupt.files import INDEX, Model, Tensor, file_bytes, read_header, tensor_files

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def model():
    """Two files of one tensor each, of no known family."""
    m = Model()
    m.files = {ONE: {"a": Tensor("U8", [4], b"1234")}, TWO: {"b": Tensor("U8", [4], b"5678")}}
    return m


@pytest.fixture
def refused(ckpt, tmp_path):
    def run(path, *options, says=()):
        for tool in ("ckpt-convert", "ckpt-verify digest", "ckpt-inspect"):
            end = [tmp_path / "out"] if tool == "ckpt-convert" else []
            extra = options if tool != "ckpt-inspect" else ()
            err = ckpt(*tool.split(), *extra, path, *end, check=2).err
            for word in says:
                assert word in err, err
            assert not (tmp_path / "out").exists()
            assert not (tmp_path / "out.partial").exists()
    return run


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", ".hidden.safetensors", "..",
                                  ".", "", "sub/../x.safetensors", "./" + ONE, "..\\x.safetensors"])
def test_a_file_name_that_leaves_the_folder(refused, model, tmp_path, name):
    (tmp_path / "x.safetensors").write_bytes(file_bytes({"c": Tensor("U8", [4], b"9999")}))
    model.stale["c"] = name
    refused(model.write(tmp_path / "in"), says=[INDEX, "'c'", "not mapped to a file name"])


@pytest.mark.parametrize("value", [1, None, ["x"], {"x": "y"}])
def test_an_entry_that_is_no_name(refused, model, tmp_path, value):
    model.stale["c"] = value
    refused(model.write(tmp_path / "in"), says=[INDEX, "'c'"])


def test_a_file_that_is_missing(refused, model, tmp_path):
    model.stale["c"] = "model-00003-of-00003.safetensors"
    refused(model.write(tmp_path / "in"), says=["model-00003-of-00003.safetensors"])


def test_a_file_that_is_a_folder(refused, model, tmp_path):
    path = model.write(tmp_path / "in")
    (path / TWO).unlink()
    (path / TWO).mkdir()
    refused(path, says=[TWO])


def test_a_link_to_nothing(refused, model, tmp_path):
    path = model.write(tmp_path / "in")
    (path / TWO).unlink()
    (path / TWO).symlink_to("nowhere")
    refused(path, says=[TWO])


def test_a_file_that_is_a_pipe(refused, model, tmp_path):
    """Must not block."""
    path = model.write(tmp_path / "in")
    (path / TWO).unlink()
    os.mkfifo(path / TWO)
    refused(path, says=[TWO])


def test_a_tensor_that_is_in_no_file(refused, model, tmp_path):
    model.stale["c"] = ONE
    refused(model.write(tmp_path / "in"), says=["stale index entry", "'c'", ONE])


def test_a_tensor_that_is_in_another_file(refused, model, tmp_path):
    index = model.index()
    index["weight_map"]["a"] = TWO
    path = model.write(tmp_path / "in")
    (path / INDEX).write_text(json.dumps(index))
    refused(path, says=["'a'", TWO])


def test_a_tensor_that_the_index_leaves_out(ckpt, refused, model, tmp_path):
    index = model.index()
    model.files[ONE]["c"] = Tensor("U8", [4], b"9999")
    path = model.write(tmp_path / "in")
    (path / INDEX).write_text(json.dumps(index))
    refused(path, says=["'c'", ONE, INDEX])
    ckpt("ckpt-convert", "--lenient", path, tmp_path / "out")
    assert "c" in Model(tmp_path / "out")


def test_a_tensor_in_two_files_without_an_index(refused, model, tmp_path):
    model.files[ONE]["c"] = Tensor("U8", [4], b"9999")
    model.files[TWO]["a"] = Tensor("U8", [4], b"4321")
    refused(model.write(tmp_path / "bare", index=False), says=["'a'"])


BAD_INDEX = {
    "empty": "", "text": "hello", "an array": "[]", "a number": "1", "cut": '{"weight_map":{"a":',
    "no weight map": '{"metadata":{}}', "weight map of names": '{"weight_map":["a"]}',
    "duplicate entry": '{"weight_map":{"a":"%s","a":"%s"}}' % (ONE, TWO),
    "duplicate map": '{"weight_map":{"a":"%s"},"weight_map":{"a":"%s"}}' % (ONE, ONE),
    "bad UTF-8": b'{"weight_map":{"\xff":"x"}}', "deep": '{"weight_map":{"a":' + "[" * 100000,
    "escaped nul": '{"weight_map":{"a\\u0000":"%s"}}' % ONE,
    "trailing": '{"weight_map":{"a":"%s"}} {}' % ONE,
}


@pytest.mark.parametrize("case", BAD_INDEX, ids=[c.replace(" ", "-") for c in BAD_INDEX])
def test_an_index_that_is_no_index(refused, model, tmp_path, case):
    path = model.write(tmp_path / "in")
    text = BAD_INDEX[case]
    (path / INDEX).write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(path, says=[INDEX])


def test_an_index_without_metadata_is_fine(ckpt, model, tmp_path):
    path = model.write(tmp_path / "in")
    (path / INDEX).write_text(json.dumps({"weight_map": {"b": TWO, "a": ONE}}))
    ckpt("ckpt-convert", path, tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(path)
    assert json.loads((tmp_path / "out" / INDEX).read_text())["metadata"]["total_size"] == 8


# ---- config.json ----

BAD_CONFIG = {
    "empty": "", "an array": "[]", "cut": '{"model_type":', "duplicate": '{"a":1,"a":2}',
    "large number": '{"vocab_size": 9007199254740993}', "bad UTF-8": b'{"a":"\xff"}',
    "deep": '{"a":' * 100000, "trailing": "{} {}",
}


@pytest.mark.parametrize("case", BAD_CONFIG, ids=[c.replace(" ", "-") for c in BAD_CONFIG])
def test_a_config_that_is_no_config(refused, model, tmp_path, case):
    path = model.write(tmp_path / "in")
    text = BAD_CONFIG[case]
    (path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(path, says=["config.json"])


@pytest.mark.parametrize("key,value", [
    ("num_hidden_layers", -1), ("num_hidden_layers", 1.5), ("num_hidden_layers", "4"),
    ("num_hidden_layers", 10 ** 12), ("n_routed_experts", 10 ** 15), ("hidden_size", 1 << 52),
    ("compress_ratios", []), ("compress_ratios", "x"), ("compress_ratios", [0, 4]),
    ("compress_ratios", [0, 4, 128, -4, 0]), ("num_hash_layers", None), ("hidden_size", None),
    ("num_nextn_predict_layers", 1 << 40)])
def test_sizes_that_no_model_has(refused, golden_a, tmp_path, key, value):
    m = Model(golden_a)
    m.config[key] = value
    refused(m.write(tmp_path / "in"))


def test_a_missing_size(refused, golden_a, tmp_path):
    for key in ("hidden_size", "num_hidden_layers", "n_routed_experts", "compress_ratios"):
        m = Model(golden_a)
        del m.config[key]
        refused(m.write(tmp_path / key), says=[key])


def test_a_truncated_shard(refused, golden_a, tmp_path):
    path = Model(golden_a).write(tmp_path / "in")
    shard = path / "model-00003-of-00005.safetensors"
    data = shard.read_bytes()
    for size in (0, 7, 100, read_header(shard)[2], len(data) // 2, len(data) - 1):
        shard.write_bytes(data[:size])
        refused(path, says=["model-00003-of-00005.safetensors"])
    shard.write_bytes(data + b"\0")
    refused(path, says=["model-00003-of-00005.safetensors"])


def test_a_source_that_is_nothing(ckpt, refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "text.safetensors").mkdir()
    for name in ("empty", "text", "text.safetensors", "missing"):
        refused(tmp_path / name, says=[name])
