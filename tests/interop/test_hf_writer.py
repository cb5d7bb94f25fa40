"""Checkpoints of torch's HuggingFaceStorageWriter: whole ones are read, parts are never whole."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

from corrupt.files import INDEX, file_bytes, read_file

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors.torch")
from interop import hf_writer_worker as worker, value_digest     # noqa: E402


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What two ranks saved, and one."""
    folder = tmp_path_factory.mktemp("hf-writer")
    script = pathlib.Path(worker.__file__)
    done = subprocess.run([sys.executable, script, "2", folder], capture_output=True, text=True,
                          timeout=240, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr
    return folder


def refused(ckpt, path, out):
    """Every command that reads refuses, and names the form and the way out."""
    for command in (["ckpt-inspect"], ["ckpt-verify", "digest"], ["ckpt-convert"]):
        err = ckpt(*command, path, *([out] if command[0] == "ckpt-convert" else []), check=2).err
        assert "DCP_SHARDING_INFO" in err and "consolidate" in err and "slices of tensors" in err
    assert not out.exists()


def test_a_folder_of_parts_is_refused_by_name(ckpt, saved, tmp_path):
    refused(ckpt, saved / "sharded", tmp_path / "out")


def test_no_single_part_passes_as_whole(ckpt, saved, tmp_path):
    shards = sorted((saved / "sharded").iterdir())
    assert len(shards) == 2
    for shard in shards:
        refused(ckpt, shard, tmp_path / "out")
        alone = tmp_path / shard.stem
        alone.mkdir()
        os.link(shard, alone / "model.safetensors")
        refused(ckpt, alone, tmp_path / "out")
        refused(ckpt, alone / "model.safetensors", tmp_path / "out")


def test_an_index_does_not_make_a_part_whole(ckpt, saved, tmp_path):
    shard = sorted((saved / "sharded").iterdir())[1]
    path = tmp_path / "in"
    path.mkdir()
    os.link(shard, path / shard.name)
    names = read_file(shard)[0]
    (path / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, shard.name)}))
    refused(ckpt, path, tmp_path / "out")


@pytest.mark.parametrize("form", ["consolidated", "one_rank"])
def test_whole_checkpoints_are_read(ckpt, saved, form):
    got = ckpt("ckpt-verify", "digest", "--json", saved / form).json
    assert got["root"] == value_digest.digest(worker.tensors())[0]


@pytest.mark.parametrize("info", ["", "[]", "{\"a\": {}}", "{\"a\": {\"saved_offsets\": [0, 4]}}",
                                  "{\"a\": {\"saved_offsets\": [-1]}}", "{\"a\": 0}"])
def test_a_mark_that_does_not_say_zero_is_a_part(ckpt, saved, tmp_path, info):
    tensors, _ = read_file(saved / "one_rank" / "model-00001-of-00001.safetensors")
    (tmp_path / "m.safetensors").write_bytes(file_bytes(tensors, {"DCP_SHARDING_INFO": info}))
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(tensors,
                                                                          "m.safetensors")}))
    assert "DCP_SHARDING_INFO" in ckpt("ckpt-inspect", tmp_path, check=2).err
