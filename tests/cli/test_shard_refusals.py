"""What ckpt-shard will not read, write or guess."""
import re
import shutil

import pytest

from corrupt.files import all_files, file_bytes, read_file


@pytest.fixture(scope="module")
def mp2(ckpt, golden_a, tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "mp2"
    ckpt("ckpt-shard", "--layout", "mp", "--mp", "2", golden_a, path)
    return path


@pytest.fixture
def copy(mp2, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(mp2, tmp_path / "mp")


def change(path, edit):
    """Rewrite one rank's file: edit({name: Tensor})."""
    tensors, _ = read_file(path)
    edit(tensors)
    path.write_bytes(file_bytes(tensors))


def refuse(ckpt, source, *words, layout=("--layout", "hf"), options=()):
    """Refused with all these words, and nothing is left."""
    target = source.parent / "refused"
    failed = ckpt("ckpt-shard", *layout, *options, source, target, check=2)
    for word in words:
        assert word in failed.err, failed.err
    assert not target.exists()
    return failed.err


# ---- mp: what ranks must agree on ----

REPLICATED = ["norm.weight", "layers.0.attn.wkv.weight", "layers.1.ffn.gate.weight",
              "layers.0.attn.wq_a.scale", "layers.0.ffn.gate.tid2eid", "hc_head_fn",
              "layers.2.ffn.shared_experts.w1.weight", "mtp.0.e_proj.weight"]


@pytest.mark.parametrize("where", ["first", "last"])
@pytest.mark.parametrize("name", REPLICATED)
def test_ranks_that_disagree_are_refused(ckpt, copy, name, where):
    def edit(tensors):
        at = 0 if where == "first" else len(tensors[name].data) - 1
        tensors[name] = tensors[name].changed(at, lambda byte: byte ^ 1)
    change(copy / "model1-mp2.safetensors", edit)
    said = refuse(ckpt, copy, "differ")
    assert f"'{re.sub('[.]scale$', '.weight', name)}'" in said or f"'{name}'" in said, said


@pytest.mark.parametrize("tool", [["ckpt-verify", "digest"],
                                  ["ckpt-shard", "--layout", "torch_dist"],
                                  ["ckpt-shard", "--layout", "mp", "--mp", "4"]])
def test_every_reader_notices_that_ranks_disagree(ckpt, copy, tmp_path, tool):
    def edit(tensors):
        tensors["norm.weight"] = tensors["norm.weight"].changed(7, lambda byte: byte ^ 64)
    change(copy / "model0-mp2.safetensors", edit)
    target = [tmp_path / "out"] if tool[0] == "ckpt-shard" else []
    assert "'norm.weight'" in ckpt(*tool, copy, *target, check=2).err


@pytest.mark.parametrize("name, at, row, col", [("norm.weight", 7, 0, 3),
                                                ("layers.0.attn.wq_a.scale", 1, 0, 1)])
def test_for_compare_and_check_ranks_that_disagree_are_a_difference(ckpt, copy, mp2, tmp_path,
                                                                    name, at, row, col):
    """A bit of a copy is a bit: told with its place, status 1, and the rest is looked at, too."""
    logical = name.replace(".scale", ".weight")
    file = "model1-mp2.safetensors"
    manifest = tmp_path / "manifest"
    manifest.write_text(ckpt("ckpt-verify", "digest", "--json", mp2).out)

    def edit(tensors):
        tensors[name] = tensors[name].changed(at, lambda byte: byte ^ 64)
        other = "layers.1.attn.attn_sink"
        tensors[other] = tensors[other].changed(0, lambda byte: byte ^ 1)
    change(copy / file, edit)
    for sides in (mp2, copy), (copy, mp2):
        said = ckpt("ckpt-verify", "compare", "--json", *sides, check=1).json
        found = {d["name"]: d for d in said["differing"]}
        assert found.keys() == {logical, "layers.1.attn.attn_sink"}
        assert found[logical] == {
            "name": logical, "kind": "copy", "row": row, "col": col, "a": None, "b": None,
            "count": 0, "side": "ab"[sides.index(copy)], "file": file}
        assert f"and '{file}' has different bytes, first at row {row} column {col}" \
            in ckpt("ckpt-verify", "compare", *sides, check=1).out
    said = ckpt("ckpt-verify", "check", "--json", "--manifest", manifest, copy, check=1).json
    assert {(d["kind"], d["name"], d.get("file")) for d in said["differing"]} == {
        ("copy", logical, file), ("value", "layers.1.attn.attn_sink", None)}
    assert f"copy      {logical}  in '{file}'" in \
        ckpt("ckpt-verify", "check", "--manifest", manifest, copy, check=1).out


@pytest.mark.parametrize("rank", [0, 1])
def test_a_missing_rank_is_refused(ckpt, copy, rank):
    (copy / f"model{rank}-mp2.safetensors").unlink()
    refuse(ckpt, copy, "1 file of mp2, expected 2")


def test_ranks_of_two_checkpoints_are_refused(ckpt, copy):
    shutil.copy(copy / "model0-mp2.safetensors", copy / "model0-mp4.safetensors")
    refuse(ckpt, copy, "mixes mp")


@pytest.mark.parametrize("name", ["model00-mp2.safetensors", "model1-mp02.safetensors",
                                  "model2-mp2.safetensors", "model-1-mp2.safetensors"])
def test_a_rank_by_another_name_is_no_rank(ckpt, copy, name):
    (copy / "model1-mp2.safetensors").rename(copy / name)
    refuse(ckpt, copy, "1 file of mp2, expected 2")


@pytest.mark.parametrize("name", ["embed.weight", "layers.0.attn.wq_b.weight",
                                  "layers.1.attn.attn_sink"])
def test_an_uneven_cut_is_refused(ckpt, copy, name):
    def edit(tensors):
        t = tensors[name]
        row = len(t.data) // t.shape[0]
        t.shape[0] -= 1
        t.data = t.data[:-row]
    change(copy / "model1-mp2.safetensors", edit)
    refuse(ckpt, copy, f"'{name}'", "divided unevenly", "model1-mp2.safetensors")


@pytest.mark.parametrize("name", ["norm.weight", "embed.weight", "layers.0.attn.wo_b.scale",
                                  "layers.2.ffn.experts.9.w2.weight"])
def test_a_tensor_that_one_rank_lacks_is_missed(ckpt, copy, name):
    change(copy / "model1-mp2.safetensors", lambda tensors: tensors.pop(name))
    refuse(ckpt, copy, "'" + name.rsplit(".", 1)[0] + ".")       # weight or scale


def test_an_expert_that_two_ranks_have_is_refused(ckpt, copy):
    name = "layers.0.ffn.experts.0.w1.weight"
    expert = read_file(copy / "model0-mp2.safetensors")[0][name]
    change(copy / "model1-mp2.safetensors", lambda tensors: tensors.update({name: expert}))
    refuse(ckpt, copy, f"'{name}'", "is in 'model1-mp2.safetensors', expected in "
                                    "'model0-mp2.safetensors'")


@pytest.mark.parametrize("part", ["weight", "scale"])
def test_an_expert_in_the_wrong_rank_is_refused(ckpt, copy, part):
    """The code that runs the shards would miss it, and find one that it does not look for."""
    name = f"layers.2.ffn.experts.3.w2.{part}"
    moved = {}
    change(copy / "model0-mp2.safetensors", lambda tensors: moved.update({name: tensors.pop(name)}))
    change(copy / "model1-mp2.safetensors", lambda tensors: tensors.update(moved))
    for tool in "ckpt-inspect", "ckpt-verify digest":
        failed = ckpt(*tool.split(), copy, check=2)
        assert f"'{name}' is in 'model1-mp2.safetensors', expected in" in failed.err


def test_ranks_that_changed_names_are_refused(ckpt, copy):
    """Every tensor is there, once: the experts of rank 0 under the name of rank 1."""
    (copy / "model0-mp2.safetensors").rename(copy / "x")
    (copy / "model1-mp2.safetensors").rename(copy / "model0-mp2.safetensors")
    (copy / "x").rename(copy / "model1-mp2.safetensors")
    refuse(ckpt, copy, ".ffn.experts.", "expected in 'model")


def test_experts_that_ranks_cannot_divide_are_refused(ckpt, copy):
    def edit(tensors):
        for name in [n for n in tensors if ".experts.15." in n]:
            del tensors[name]
    change(copy / "model1-mp2.safetensors", edit)
    refuse(ckpt, copy, "is one of 15 experts, which cannot be divided over 2 ranks")


def test_another_dtype_in_one_rank_is_refused(ckpt, copy):
    def edit(tensors):
        tensors["norm.weight"].dtype = "F16"
    change(copy / "model1-mp2.safetensors", edit)
    refuse(ckpt, copy, "'norm.weight'", "a different dtype", "model1-mp2.safetensors")


def test_an_unknown_tensor_is_refused(ckpt, copy):
    def edit(tensors):
        tensors["layers.0.attn.surprise"] = tensors["norm.weight"]
    for rank in (0, 1):
        change(copy / f"model{rank}-mp2.safetensors", edit)
    refuse(ckpt, copy, "'layers.0.attn.surprise'")


# ---- --describe ----

def test_a_description_goes_into_a_new_folder_only(ckpt, golden_a, tmp_path):
    """It has the names of a checkpoint's own files, which a dry run must not cost anybody."""
    dist = tmp_path / "dist"
    ckpt("ckpt-shard", "--layout", "torch_dist", golden_a, dist)
    before = all_files(dist)
    (tmp_path / "empty").mkdir()
    words = ["ckpt-shard", "--layout", "torch_dist", "--tp", "2", "--dry-run", "--describe"]
    for place, why in ((dist, "already exists"), (tmp_path / "empty", "already exists"),
                       (dist / "new", "inside the input")):
        source = dist if place.parent == dist else golden_a
        assert why in ckpt(*words, place, source, tmp_path / "out", check=2).err
    assert all_files(dist) == before and not list((tmp_path / "empty").iterdir())
    ckpt(*words, tmp_path / "new", golden_a, tmp_path / "out")
    assert (tmp_path / "new/release/.metadata").exists()


def test_a_description_of_nothing_is_refused(ckpt, golden_a, tmp_path):
    said = ckpt("ckpt-shard", "--layout", "mp", "--mp", "2", "--dry-run", "--describe",
                tmp_path / "plan", golden_a, tmp_path / "out", check=2)
    assert "layout mp has no small files" in said.err and said.out == ""
    assert not list(tmp_path.iterdir())


# ---- options ----

@pytest.mark.parametrize("options, words", [
    ((), ["--layout is missing"]),
    (("--layout", "mp"), ["--layout mp needs --mp N"]),
    (("--layout", "hf", "--mp", "2"), ["--mp only applies to --layout mp"]),
    (("--layout", "zip"), ["zip"]),
    (("--layout", "torch_dist", "--describe", "plan"), ["--describe needs --dry-run"]),
    (("--layout", "mp", "--mp", "0"), ["--mp", "at least 1"]),
    (("--layout", "mp", "--mp", "2", "--names", "sglang"), ["--names only applies"]),
    (("--layout", "torch_dist", "--names", "sglang"), ["--names only applies"]),
    (("--layout", "mp", "--mp", "2", "--max-shard-size", "1GB"), ["--max-shard-size only"]),
    (("--layout", "torch_dist", "--max-shard-size", "1GB"), ["--max-shard-size only"]),
    (("--layout", "torch_dist", "--scale-dtype", "f32"), ["--scale-dtype cannot be used"]),
    (("--layout", "torch_dist", "--tp", "2", "--preset", "flash-h200"), ["--preset and --tp"]),
    (("--layout", "mp", "--mp", "3"), ["cannot be divided by --mp 3", "legal values are: 1 2 4 8"]),
    (("--layout", "mp", "--mp", "65537"), ["65537"]),
    (("--layout", "torch_dist", "--tp", "3"), ["cannot be divided by --tp 3",
                                               "legal values are: 1 2 4 8\n"]),
    (("--layout", "torch_dist", "--tp", "16"), ["cannot be divided by --tp 16"]),
    (("--layout", "torch_dist", "--ep", "3"), ["cannot be divided by --ep 3",
                                               "legal values are: 1 2 4 8 16\n"]),
    (("--layout", "torch_dist", "--etp", "3"), ["cannot be divided by --etp 3",
                                                "legal values are: 1 2 4 8 16 32 64 128\n"]),
    (("--layout", "torch_dist", "--pp", "3"), ["4 layers cannot be divided over --pp 3",
                                               "legal values are: 1 2 4\n"]),
    (("--layout", "torch_dist", "--pp", "5"), ["4 layers", "legal values are: 1 2 4\n"]),
    (("--layout", "torch_dist", "--pp", "2", "--first-stage-layers", "4"),
     ["4 layers", "legal values are: 1\n"]),
    (("--layout", "torch_dist", "--first-stage-layers", "2"), ["4 layers", "--pp 1"]),
    (("--layout", "torch_dist", "--pp", "2", "--first-stage-layers", "5"),
     ["4 layers", "legal values are: none;", "choose other stages"]),
    (("--layout", "hf", "--tp", "2"), ["--tp needs --layout torch_dist, got hf"]),
    (("--layout", "mp", "--mp", "2", "--preset", "flash-h200"),
     ["--preset needs --layout torch_dist"]),
    (("--layout", "hf", "--extra-state"), ["--extra-state needs --layout torch_dist"]),
    (("--layout", "torch_dist", "--dtype", "fp8"), ["always BF16", "fp8"]),
    (("--layout", "torch_dist", "--experts", "fp4"), ["always BF16", "fp4"]),
    (("--layout", "torch_dist", "--iteration", "-1"), ["--iteration '-1'"]),
    (("--layout", "torch_dist", "--iteration", "latest"), ["--iteration 'latest'"]),
    (("--layout", "torch_dist", "--iteration", "1000000000"), ["--iteration '1000000000'"]),
], ids=lambda x: " ".join(x) if isinstance(x, tuple) else "")
def test_options_that_make_no_sense_are_refused(ckpt, golden_a, tmp_path, options, words):
    failed = ckpt("ckpt-shard", *options, golden_a, tmp_path / "out", check=2)
    for word in words:
        assert word in failed.err, failed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("style, tensor", [("v1", "self_attention.wo_a.weight"),
                                           ("v2", "self_attention.linear_proj.weight")])
def test_no_rank_gets_a_part_of_an_output_group(ckpt, golden_b, tmp_path, style, tensor):
    """Its shape could be cut in four; but the four heads are of two groups."""
    failed = ckpt("ckpt-shard", "--layout", "torch_dist", "--key-style", style, "--tp", "4",
                  golden_b, tmp_path / "out", check=2)
    assert f"{tensor}'" in failed.err
    assert "cannot be divided by --tp 4, legal values are: 1 2\n" in failed.err


# ---- torch_dist: the folder ----

@pytest.fixture(scope="module")
def dist(ckpt, golden_b, tmp_path_factory):
    path = tmp_path_factory.mktemp("dist") / "dist"
    ckpt("ckpt-shard", "--layout", "torch_dist", golden_b, path)
    return path


@pytest.mark.parametrize("text", ["", "\n", "latest", "../release", "-3", "1e3", "iter_0000001",
                                  "9" * 40])
def test_a_tracker_that_names_no_iteration_is_refused(ckpt, dist, tmp_path, text):
    path = shutil.copytree(dist, tmp_path / "dist")
    (path / "latest_checkpointed_iteration.txt").write_text(text)
    assert "does not name an iteration" in ckpt("ckpt-verify", "digest", path, check=2).err


@pytest.mark.parametrize("text", ["release", "release\n", " release \n"])
def test_a_tracker_may_end_as_it_likes(ckpt, dist, tmp_path, text):
    path = shutil.copytree(dist, tmp_path / "dist")
    (path / "latest_checkpointed_iteration.txt").write_text(text)
    ckpt("ckpt-verify", "digest", path)


def test_a_tracker_to_nowhere_is_refused(ckpt, dist, tmp_path):
    path = shutil.copytree(dist, tmp_path / "dist")
    (path / "latest_checkpointed_iteration.txt").write_text("12")
    assert "iter_0000012" in ckpt("ckpt-verify", "digest", path, check=2).err


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "__3_0.distcp"])
def test_a_missing_file_is_named(ckpt, dist, tmp_path, name):
    path = shutil.copytree(dist, tmp_path / "dist")
    (path / "release" / name).unlink()
    assert name in ckpt("ckpt-verify", "digest", path, check=2).err


@pytest.mark.parametrize("cut", [1, 64, 22, 4096])
def test_a_file_that_ends_early_is_refused(ckpt, dist, tmp_path, cut):
    path = shutil.copytree(dist, tmp_path / "dist")
    file = path / "release" / "__2_0.distcp"
    # The last item is padded to 64: cut into it, not only into what follows it.
    file.write_bytes(file.read_bytes()[:-cut - 63])
    assert "__2_0.distcp" in ckpt("ckpt-verify", "digest", path, check=2).err


# ---- torch_dist: what lies beside the data ----

@pytest.fixture
def dist_copy(dist, tmp_path):
    return shutil.copytree(dist, tmp_path / "dist")


@pytest.mark.parametrize("text, word", [
    ('{"sharded_backend": "zarr", "sharded_backend_version": 1}', "sharded_backend 'zarr'"),
    ('{"sharded_backend": "fsdp_dtensor", "sharded_backend_version": 1}', "'fsdp_dtensor'"),
    ('{"sharded_backend": "torch_dist", "sharded_backend_version": 2}', "sharded_backend_version"),
    ('{"sharded_backend_version": 1}', "expected 'torch_dist'"), ("[]", "expected 'torch_dist'"),
    ("", "metadata.json"), ("{", "metadata.json")])
def test_another_backend_is_refused_or_let_pass_by_name(ckpt, dist_copy, digest, dist, text, word):
    (dist_copy / "release" / "metadata.json").write_text(text)
    for path in dist_copy, dist_copy / "release":
        err = ckpt("ckpt-verify", "digest", path, check=2).err
        assert word in err and "metadata.json" in err and "--lenient ignores this" in err
    said = ckpt("ckpt-inspect", "--lenient", "--json", dist_copy).json["notes"]
    assert any(word in note for note in said), said


def test_a_common_pt_that_was_cut_is_refused(ckpt, dist_copy, digest, dist):
    """A folder that was copied in part: Megatron dies on it, after it was given the nodes."""
    path = dist_copy / "release" / "common.pt"
    whole = path.read_bytes()
    for size in [0, 1, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:size])
        err = ckpt("ckpt-verify", "digest", dist_copy, check=2).err
        assert "common.pt" in err and "--lenient ignores this" in err
        said = ckpt("ckpt-inspect", "--lenient", "--json", dist_copy).json["notes"]
        assert any("common.pt" in note for note in said)
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    ckpt("ckpt-verify", "digest", dist_copy, check=(0, 2))
    path.write_bytes(whole)
    assert digest(dist_copy) == digest(dist)


def test_a_missing_common_pt_is_told(ckpt, dist_copy):
    (dist_copy / "release" / "common.pt").unlink()
    assert "no common.pt" in ckpt("ckpt-inspect", dist_copy).out
    (dist_copy / "release" / "metadata.json").unlink()       # nor does it claim to be Megatron's
    assert "no common.pt" not in ckpt("ckpt-inspect", dist_copy).out


def test_a_sparse_layout_is_refused(ckpt, dist_copy):
    path = dist_copy / "release" / ".metadata"
    data = path.read_bytes()
    assert data.count(b"torch.strided") == 1                 # and shared by all tensors
    path.write_bytes(data.replace(b"torch.strided", b"torch.sparsed"))
    for options in (), ("--lenient",):
        err = ckpt("ckpt-verify", "digest", *options, dist_copy, check=2).err
        assert "has layout 'torch.sparsed', expected 'torch.strided'" in err


def test_a_file_that_ends_in_a_byte_entry_is_refused(ckpt, golden_b, tmp_path):
    """Byte entries stand behind the tensors, which are all there."""
    ckpt("ckpt-shard", "--layout", "torch_dist", "--extra-state", golden_b, tmp_path / "dist")
    path = tmp_path / "dist" / "release" / "__1_0.distcp"
    path.write_bytes(path.read_bytes()[:-700])
    err = ckpt("ckpt-verify", "digest", tmp_path / "dist", check=2).err
    assert "__1_0.distcp' ends before its entry" in err and "_extra_state" in err
