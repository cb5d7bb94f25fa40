"""GGUF files: those of the package `gguf` are read to its values, and it reads ours.

scripts/setup --tests installs the package into .venv/clients/gguf.
"""
import hashlib
import json
import subprocess

import numpy
import pytest

from conftest import ROOT
from corrupt.files import Model
from interop.gguf_names import ARRAYS, BEYOND, KEYS, loader_tensors, native_parts, wanted_type
from interop.numpy_codes import e2m1, e4m3

CLIENT = ROOT / ".venv" / "clients" / "gguf" / "bin" / "python"
WORKER = ROOT / "tests" / "interop" / "gguf_worker.py"
needs_client = pytest.mark.skipif(not CLIENT.exists(), reason="the package gguf is not installed: "
                                  "run scripts/setup --tests")


def by_package(path, folder):
    """(keys by name, tensors by name, values by name) as the package reads a file."""
    told, values = folder / "told.json", folder / "values.npz"
    subprocess.run([CLIENT, WORKER, path, told, values], check=True)
    read = json.loads(told.read_text())
    return ({k["key"]: k for k in read["keys"]}, {t["name"]: t for t in read["tensors"]},
            dict(numpy.load(values)))


@pytest.fixture(scope="module")
def folder(data):
    return data / "gguf"


@pytest.fixture(scope="module")
def expected(folder):
    return json.loads((folder / "expected.json").read_text())



@pytest.mark.parametrize("name", ["golden.gguf", "split-00001-of-00003.gguf",
                                  "split-00003-of-00003.gguf"])
def test_golden_tensors_are_listed(ckpt, folder, expected, name):
    """Shapes are those of everywhere else: the number of columns last."""
    found = ckpt("ckpt-inspect", "--json", folder / name).json["tensors"]
    assert [(t["name"], t["dtype"], t["bytes"]) for t in found] == \
        [(t["name"], t["type"], t["bytes"]) for t in expected["tensors"]]
    for got, want in zip(found, expected["tensors"]):
        assert got["shape"] == want["ne"][::-1]


@needs_client
def test_golden_values_are_those_of_the_package(ckpt, folder, expected, tmp_path):
    _, _, values = by_package(folder / "golden.gguf", tmp_path)
    for t in expected["tensors"]:
        rows = int(numpy.prod(t["ne"][1:]))
        found = ckpt("ckpt-inspect", "--json", "--values", f"0-{rows - 1}", "--tensors", t["name"],
                     folder / "golden.gguf").json["tensors"][0]["values"]
        want = values[t["name"]]
        assert hashlib.sha256(want.tobytes()).hexdigest() == t["values_le_sha256"], t["name"]
        assert numpy.array_equal(numpy.array(found, want.dtype).reshape(want.shape), want), \
            t["name"]


def test_split_and_whole_have_one_digest(digest, folder):
    assert digest(folder / "golden.gguf") == digest(folder / "split-00002-of-00003.gguf")


# ---- ours, read by the package ----

@pytest.fixture(scope="module", params=[0, 1])
def ours(ckpt, golden, request, tmp_path_factory):
    """(the checkpoint, its config, the number of next-token blocks in its GGUF file, keys, tensors
    and values of that by the package)"""
    folder = tmp_path_factory.mktemp("ours")
    ckpt("ckpt-shard", "--layout", "gguf", "--without-tokenizer", *["--mtp"][:request.param],
         golden, folder / "gguf")
    return (golden, json.loads((golden / "config.json").read_text()), request.param,
            *by_package(folder / "gguf" / "model.gguf", folder))


@needs_client
def test_tensors_are_those_that_the_loader_asks_for(ours):
    """Its own checks, as a table: names, types that its operations take, shapes, and no others
    than these, unless next-token blocks were asked for, whose head it does not know."""
    _, config, drafters, _, tensors, _ = ours
    wanted = loader_tensors(config, drafters)
    more = {n for n in tensors if n.split(".", 2)[-1] in BEYOND}
    assert set(tensors) - more == set(wanted) and len(more) == 3 * drafters
    for name, ne in wanted.items():
        assert tensors[name]["ne"] == ne, name
        assert tensors[name]["type"] == wanted_type(name), name


@needs_client
def test_keys_are_those_that_the_loader_asks_for(ours):
    _, config, drafters, keys, tensors, _ = ours
    arch = keys["general.architecture"]["value"]
    blocks = keys[f"{arch}.block_count"]["value"]
    found = {k.removeprefix(f"{arch}."): keys[k] for k in keys}
    assert arch == "deepseek4" and blocks == config["num_hidden_layers"] + drafters
    assert found["nextn_predict_layers"]["value"] == drafters
    assert {k: found[k]["types"] for k in KEYS} == {k: [kind] for k, kind in KEYS.items()}
    for k, kinds in ARRAYS.items():
        assert found[k]["types"][0] == "ARRAY" and set(found[k]["types"][1:]) <= kinds
    assert found["expert_gating_func"]["value"] == 4          # sqrtsoftplus
    assert len(found["attention.compress_ratios"]["value"]) >= blocks
    assert len(found["swiglu_clamp_exp"]["value"]) == blocks
    assert (f"blk.{config['num_hidden_layers']}.nextn.eh_proj.weight" in tensors) == (drafters > 0)


@needs_client
def test_values_are_those_of_the_release(ours):
    """Every tensor, by torch's casts of the release's codes: in its role, in its order."""
    from interop.v4_values import native_values
    path, config, drafters, _, tensors, values = ours
    native = {n: v for n, v in native_values(path).items()
              if drafters or not n.startswith("mtp.")}
    used = set()
    for name in tensors:
        parts, joined = native_parts(name, config)
        used.update(parts)
        found = [native[p].float().numpy() if native[p].is_floating_point()
                 else native[p].numpy() for p in parts]
        want = found[0] if joined is None else (
            numpy.stack(found) if joined == 0 else numpy.concatenate(found, axis=1))
        assert list(want.shape)[::-1] == tensors[name]["ne"], name
        got = values[name].reshape(want.shape)
        assert numpy.array_equal(got, want), name
        if tensors[name]["type"] != "MXFP4":       # for which the package's table has no -0
            assert (numpy.signbit(got) == numpy.signbit(want)).all(), name
    assert used == set(native)


# ---- NVFP4, whose tensor scale is beside the blocks ----

@needs_client
def test_nvfp4_times_the_scale_beside_it_is_the_weight(ckpt, golden_a, tmp_path):
    """The package decodes blocks, llama.cpp multiplies by X.scale: codes x scales by NumPy."""
    ckpt("ckpt-convert", "--dtype", "bf16", golden_a, tmp_path / "bf16")
    ckpt("ckpt-convert", "--quantize", "v4-nvfp4", "--only", "*experts*", tmp_path / "bf16",
         tmp_path / "nvfp4")
    ckpt("ckpt-shard", "--layout", "gguf", "--without-tokenizer", tmp_path / "nvfp4",
         tmp_path / "gguf")
    keys, tensors, values = by_package(tmp_path / "gguf" / "model.gguf", tmp_path)
    assert keys["general.file_type"]["value"] == 39               # MOSTLY_NVFP4
    release, seen = Model(tmp_path / "nvfp4"), 0
    for name, told in tensors.items():
        if told["type"] != "NVFP4":
            continue
        columns, rows, count = told["ne"]
        block = name.removesuffix(".weight")
        scales = values[block + ".scale"]
        assert tensors[block + ".scale"]["ne"] == [count]
        assert tensors[block + ".input_scale"]["ne"] == [count]
        for e, native in enumerate(native_parts(name, release.config)[0]):
            packed = numpy.frombuffer(release[native].data, "u1")
            codes = e2m1(numpy.stack([packed & 15, packed >> 4], -1)).reshape(rows, columns)
            grid = e4m3(numpy.frombuffer(release[native + "_scale"].data, "u1"))
            grid = grid.reshape(rows, columns // 16).repeat(16, axis=1)
            whole = numpy.frombuffer(release[native + "_scale_2"].data, "<f4")
            got = values[name].reshape(count, rows, columns)[e] * scales[e]
            assert numpy.array_equal(got, (codes * grid).astype("f4") * whole), native
            seen += 1
    assert seen == 4 * 16 * 3
