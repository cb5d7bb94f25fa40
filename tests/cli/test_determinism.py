"""Output depends on the input alone: not on threads, memory, or the instructions of the CPU."""
import itertools

import pytest

from cli.kernels import needs_kernels
from cli.trees import tree
from conftest import run_tool

# Every number of threads, limit and set of kernels, in different company.
WAYS = [(1, "4GiB", "scalar"), (8, "64MiB", "scalar"), (2, "4GiB", "avx2"), (8, "64MiB", "avx2"),
        (8, "4GiB", "avx512"), (1, "64MiB", "avx512")]


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(map(str, way)))
def way(request):
    """Arguments and environment of one way to run."""
    threads, memory, kernels = request.param
    needs_kernels(kernels)
    return {"args": ("--threads", threads, "--memory", memory), "env": {"CKPT_KERNELS": kernels}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The sources of all conversions, made the plain way."""
    path = tmp_path_factory.mktemp("sources")
    run_tool("ckpt-synth", "--config", "tiny", path / "tiny")
    run_tool("ckpt-convert", "--dtype", "bf16", path / "tiny", path / "bf16")
    run_tool("ckpt-convert", "--experts", "fp8", path / "tiny", path / "fp8")
    return path


CONVERSIONS = {
    "synth": ("ckpt-synth", "--config", "tiny", "--seed", "3"),
    "fp4-to-fp8": ("ckpt-convert", "--experts", "fp8", "tiny"),
    "to-bf16": ("ckpt-convert", "--dtype", "bf16", "tiny"),
    "un-cast": ("ckpt-convert", "--like", "tiny", "bf16"),
    "canonical": ("ckpt-convert", "--dtype", "fp8", "--experts", "fp4", "bf16"),
    "fp8-to-fp4": ("ckpt-convert", "--experts", "fp4", "fp8"),
    "names": ("ckpt-convert", "--dtype", "bf16", "--names", "transformers", "tiny"),
    "shards": ("ckpt-convert", "--max-shard-size", "5MB", "tiny"),
}


@pytest.fixture(scope="module")
def reference(folder):
    """What each conversion makes without options; each is made once."""
    made = {}

    def make(name):
        if name not in made:
            run_tool(*CONVERSIONS[name], folder / f"reference-{name}", cwd=folder)
            made[name] = tree(folder / f"reference-{name}")
            assert any(file.endswith(".safetensors") for file in made[name])
        return made[name]
    return make


@pytest.mark.parametrize("name", CONVERSIONS)
def test_the_way_does_not_show(name, way, folder, reference, tmp_path):
    run_tool(*CONVERSIONS[name], *way["args"], tmp_path / "out", cwd=folder, env=way["env"])
    assert tree(tmp_path / "out") == reference(name)


@pytest.mark.parametrize("name", ["fp8-to-fp4", "un-cast"])
def test_the_way_back_returns_the_original(name, folder, reference):
    original = tree(folder / "tiny")
    result = reference(name)
    for file, digest in original.items():
        if file.endswith(".safetensors"):
            assert result[file] == digest, f"{file} is not what it was"


def test_digests_do_not_show_it_either(way, folder):
    """One digest for all ways and all encodings."""
    roots = {run_tool("ckpt-verify", "digest", "--json", *way["args"], folder / source,
                      env=way["env"]).json["root"] for source in ("tiny", "bf16", "fp8")}
    assert roots == {run_tool("ckpt-verify", "digest", "--json", folder / "tiny").json["root"]}


def test_seeds_do_show(tmp_path):
    trees = []
    for seed in (1, 2):
        run_tool("ckpt-synth", "--config", "tiny", "--seed", seed, tmp_path / str(seed))
        trees.append(tree(tmp_path / str(seed)))
    for a, b in itertools.combinations(trees, 2):
        assert a.keys() == b.keys() and a != b


def test_kernels_that_are_not_there_are_refused(folder, tmp_path):
    result = run_tool("ckpt-convert", "--dtype", "bf16", "tiny", tmp_path / "out", cwd=folder,
                      check=2, env={"CKPT_KERNELS": "sse9"})
    assert "CKPT_KERNELS" in result.err
    assert not (tmp_path / "out").exists()
