"""ckpt-shard: every layout from every other, DeepSeek's own converter as the judge of mp."""
import gzip
import hashlib
import json
import re

import pytest

from cli.trees import tree
from conftest import DATA
from corrupt.files import all_files, read_file, tensor_files

OFFICIAL = json.loads(gzip.decompress((DATA / "official-convert-digests.json.gz").read_bytes()))
LETTER = {"golden-a": "a", "golden-b": "b"}
TORCH_NAMES = {"I64": "int64", "F32": "float32", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
               "F8_E8M0": "float8_e8m0fnu", "F4": "float4_e2m1fn_x2"}
# Made by an independent implementation of the digest, from the golden checkpoints.
MAINS = {
    "golden-a": "6cdc7520ca1a88e738ba8b221a99d1d59518f38f1b6b77a411d30bc03641206f",
    "golden-b": "81c40dc58877f889532cc9714b79f76600451bd0bb5774e1ee937631e9b4d74d",
}
LEGAL = {"golden-a": [1, 2, 4, 8], "golden-b": [1, 2]}
RANKS = [1, 2, 4, 8]
LEGAL_COUNTS = [(name, count) for name in LEGAL for count in LEGAL[name]]
LEGAL_SOURCES = [(name, a, b) for name, a in LEGAL_COUNTS for b in RANKS]


@pytest.fixture(scope="module")
def sharded(ckpt, golden, tmp_path_factory):
    """sharded("--layout", "mp", "--mp", "4") -> the golden checkpoint so, made once."""
    folder = tmp_path_factory.mktemp(golden.name)
    made = {}

    def get(*options):
        if options not in made:
            made[options] = folder / str(len(made))
            ckpt("ckpt-shard", *options, golden, made[options])
        return made[options]
    return get


def mp(count, *options):
    return ("--layout", "mp", "--mp", str(count), *options)


def official_form(path):
    """{"file:tensor": [dtype, shape, digest]} of a directory, as DeepSeek's converter's table."""
    table = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors, metadata = read_file(file)
        assert metadata is None
        for name, t in tensors.items():
            shape = list(t.shape)
            if t.dtype == "F4":                  # torch counts bytes
                shape[-1] //= 2
            table[f"{file.name}:{name}"] = [TORCH_NAMES[t.dtype], shape,
                                            hashlib.sha256(t.data).hexdigest()[:32]]
    return table


def original_files(path):
    """A tree without what mp adds: its own code's config, which is carried along from then on."""
    files = all_files(path)
    assert files.pop("inference/config.json", None) is not None
    return files


# ---- mp against DeepSeek's converter ----

def test_the_table_has_every_case():
    assert set(OFFICIAL) == {f"{g}/{e}/mp{n}" for g in "ab" for e in ("fp4", "fp8") for n in RANKS}
    assert [k for k, v in OFFICIAL.items() if "error" in v] == [
        "b/fp4/mp4", "b/fp4/mp8", "b/fp8/mp4", "b/fp8/mp8"]


@pytest.mark.parametrize("experts", ["fp4", "fp8"])
@pytest.mark.parametrize("count", RANKS)
def test_mp_is_what_deepseeks_converter_writes(ckpt, sharded, golden, tmp_path, count, experts):
    expected = OFFICIAL[f"{LETTER[golden.name]}/{experts}/mp{count}"]
    options = mp(count, "--experts", experts, "--match-reference")
    if "error" in expected:
        assert "must be divisible" in expected["error"]
        failed = ckpt("ckpt-shard", *options, golden, tmp_path / "out", check=2)
        legal = " ".join(map(str, LEGAL[golden.name]))
        assert re.search(rf"--mp {count}, legal values are: {legal}\n", failed.err), failed.err
        assert not (tmp_path / "out").exists()
    else:
        assert official_form(sharded(*options)) == expected


@pytest.mark.parametrize("golden, count", LEGAL_COUNTS, indirect=["golden"])
def test_fp8_without_match_reference_keeps_every_value(digest, sharded, golden, count):
    exact = sharded(*mp(count, "--experts", "fp8"))
    reference = sharded(*mp(count, "--experts", "fp8", "--match-reference"))
    assert digest(exact) == digest(reference) == digest(golden)
    # The sign of zero is all that differs.
    differing = 0
    for file in sorted(exact.glob("*.safetensors")):
        a, b = read_file(file)[0], read_file(reference / file.name)[0]
        assert a.keys() == b.keys()
        for name in a:
            differing += a[name] != b[name]
            assert b[name].data in (a[name].data, a[name].data.replace(b"\x80", b"\0")), name
    assert differing > 0, "the golden data has no -0: a weak test"


def test_dry_run_writes_nothing_and_names_every_rank(ckpt, golden, tmp_path):
    plan = ckpt("ckpt-shard", "--dry-run", "--json", *mp(2), golden, tmp_path / "out").json
    assert [f["name"] for f in plan["files"]] == [f"model{r}-mp2.safetensors" for r in (0, 1)]
    assert list(tmp_path.iterdir()) == []
    ckpt("ckpt-shard", *mp(2), golden, tmp_path / "out")
    assert {f["name"]: f["bytes"] for f in plan["files"]} == {
        name: len(data) for name, data in tensor_files(tmp_path / "out").items()}


# ---- any mp to any mp ----

@pytest.mark.parametrize("golden, a, b", LEGAL_SOURCES, indirect=["golden"])
def test_any_mp_to_any_mp_is_the_direct_way(ckpt, sharded, golden, tmp_path, a, b):
    if b not in LEGAL[golden.name]:
        failed = ckpt("ckpt-shard", *mp(b), sharded(*mp(a)), tmp_path / "out", check=2)
        assert "legal values are: 1 2\n" in failed.err
        return
    ckpt("ckpt-shard", *mp(b), sharded(*mp(a)), tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(sharded(*mp(b)))


@pytest.mark.parametrize("experts", ["fp4", "fp8"])
@pytest.mark.parametrize("golden, count", LEGAL_COUNTS, indirect=["golden"])
def test_mp_and_back_is_the_original_tree(ckpt, sharded, golden, tmp_path, count, experts):
    """wo_a is BF16 in mp: --like finds its scales again."""
    ckpt("ckpt-shard", "--layout", "hf", "--like", golden,
         sharded(*mp(count, "--experts", experts)), tmp_path / "back")
    assert original_files(tmp_path / "back") == all_files(golden)


# ---- round the houses ----

# Steps from the original on; each reads what the one before wrote.
ROUND = {
    "golden-a": [mp(8),
                 ("--layout", "torch_dist", "--tp", "8", "--pp", "2", "--ep", "4"),
                 ("--layout", "torch_dist", "--tp", "2", "--pp", "1", "--ep", "8", "--etp", "2"),
                 mp(2)],
    "golden-b": [mp(2),
                 ("--layout", "torch_dist", "--tp", "2", "--pp", "2", "--ep", "4",
                  "--first-stage-layers", "3", "--last-stage-layers", "2", "--files", "rank"),
                 ("--layout", "torch_dist", "--tp", "2", "--pp", "1", "--ep", "8", "--etp", "2",
                  "--key-style", "v2", "--iteration", "12"),
                 mp(2)],
}


def test_round_the_houses_nothing_changes(ckpt, digest, golden, tmp_path):
    path = golden
    for i, step in enumerate(ROUND[golden.name]):
        ckpt("ckpt-shard", *step, "--verify", path, tmp_path / f"step{i}")
        path = tmp_path / f"step{i}"
        assert digest(path, "main") == MAINS[golden.name], step
    ckpt("ckpt-shard", "--layout", "hf", "--like", golden, "--fill-from", golden, path,
         tmp_path / "last")
    assert digest(tmp_path / "last", "main") == MAINS[golden.name]
    assert original_files(tmp_path / "last") == all_files(golden)


def test_what_torch_dist_leaves_out_is_the_mtp_block(ckpt, golden, tmp_path):
    done = ckpt("ckpt-shard", "--layout", "torch_dist", "--json", golden, tmp_path / "out").json
    source = {t["name"] for t in ckpt("ckpt-verify", "digest", "--json", golden).json["tensors"]}
    names = {t["name"] for t in
             ckpt("ckpt-verify", "digest", "--json", tmp_path / "out").json["tensors"]}
    assert names < source
    assert all(name.startswith("mtp.") for name in source - names)
    assert done["left_out"] == len(source - names)


def test_without_fill_from_the_mtp_block_is_missed(ckpt, sharded, golden, tmp_path):
    failed = ckpt("ckpt-shard", "--layout", "hf", "--like", golden,
                  sharded("--layout", "torch_dist"), tmp_path / "out", check=2)
    assert "mtp.0." in failed.err
    assert not (tmp_path / "out").exists()


# ---- torch_dist: files, forms, determinism ----

def test_a_release_has_the_files_that_loaders_look_for(sharded, golden):
    path = sharded("--layout", "torch_dist")
    assert (path / "latest_checkpointed_iteration.txt").read_text().strip() == "release"
    layers = json.loads((golden / "config.json").read_text())["num_hidden_layers"]
    assert {p.name for p in (path / "release").iterdir()} == {
        ".metadata", "metadata.json", "common.pt"} | {
        f"__{i}_0.distcp" for i in range(layers + 1)}
    assert json.loads((path / "release" / "metadata.json").read_text()) == {
        "sharded_backend": "torch_dist", "sharded_backend_version": 1,
        "common_backend": "torch", "common_backend_version": 1}


@pytest.mark.parametrize("number, folder", [(0, "iter_0000000"), (12, "iter_0000012"),
                                            (12345678, "iter_12345678")])
def test_an_iteration_is_named_as_megatron_names_it(sharded, digest, golden, number, folder):
    path = sharded("--layout", "torch_dist", "--iteration", str(number))
    assert (path / "latest_checkpointed_iteration.txt").read_text().strip() == str(number)
    assert (path / folder / ".metadata").exists()
    # The root and the inner folder are the same checkpoint.
    assert digest(path, "main") == digest(path / folder, "main") == MAINS[golden.name]


@pytest.mark.parametrize("style", ["v1", "v2"])
@pytest.mark.parametrize("options", [
    (), ("--files", "rank", "--tp", "2", "--ep", "2"), ("--tp", "2", "--etp", "4"),
    ("--tp", "1", "--pp", "1")], ids=" ".join)
def test_every_torch_dist_has_the_digest(digest, sharded, golden, style, options):
    path = sharded("--layout", "torch_dist", "--key-style", style, *options)
    assert digest(path, "main") == MAINS[golden.name]


@pytest.mark.parametrize("options", [("--threads", "1"), ("--threads", "2"), ("--threads", "7"),
                                     ("--memory", "24MiB", "--threads", "1")], ids=" ".join)
@pytest.mark.parametrize("layout", [("--layout", "torch_dist"), mp(2)], ids=["torch_dist", "mp"])
def test_the_bytes_depend_on_neither_threads_nor_memory(ckpt, sharded, golden, tmp_path, layout,
                                                        options):
    ckpt("ckpt-shard", *layout, *options, golden, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(sharded(*layout))


def test_files_of_ranks_are_numbered_as_ranks(sharded):
    """TP 2 and EP 2 in one stage: two ranks, and each holds its share of the experts."""
    path = sharded("--layout", "torch_dist", "--files", "rank", "--tp", "2", "--ep", "2")
    sizes = [p.stat().st_size for p in sorted((path / "release").glob("*.distcp"))]
    assert len(sizes) == 2
    assert min(sizes) > sum(sizes) / 4
