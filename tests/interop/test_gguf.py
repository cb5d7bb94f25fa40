"""GGUF files: those of the package `gguf` are read to its values, and it reads ours.

scripts/setup --tests installs the package into .venv/clients/gguf.
"""
import hashlib
import json
import subprocess

import numpy
import pytest

from conftest import ROOT

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


PLAIN = {"F32", "F16", "BF16", "I32"}


@pytest.mark.parametrize("name", ["golden.gguf", "split-00001-of-00003.gguf",
                                  "split-00003-of-00003.gguf"])
def test_golden_tensors_are_listed(ckpt, folder, expected, name):
    """Shapes are those of everywhere else: the number of columns last."""
    found = ckpt("ckpt-inspect", "--json", folder / name).json["tensors"]
    assert [(t["name"], t["bytes"]) for t in found] == \
        [(t["name"], t["bytes"]) for t in expected["tensors"]]
    for got, want in zip(found, expected["tensors"]):
        if want["type"] in PLAIN:
            assert (got["dtype"], got["shape"]) == (want["type"], want["ne"][::-1])


@needs_client
def test_golden_values_are_those_of_the_package(ckpt, folder, expected, tmp_path):
    _, _, values = by_package(folder / "golden.gguf", tmp_path)
    for t in expected["tensors"]:
        if t["type"] not in PLAIN - {"I32"}:
            continue
        rows = int(numpy.prod(t["ne"][1:]))
        found = ckpt("ckpt-inspect", "--json", "--values", f"0-{rows - 1}", "--tensors", t["name"],
                     folder / "golden.gguf").json["tensors"][0]["values"]
        want = values[t["name"]]
        assert hashlib.sha256(want.tobytes()).hexdigest() == t["values_le_sha256"], t["name"]
        assert numpy.array_equal(numpy.array(found, want.dtype).reshape(want.shape), want), \
            t["name"]


def test_split_and_whole_have_one_digest(digest, folder):
    assert digest(folder / "golden.gguf") == digest(folder / "split-00002-of-00003.gguf")
