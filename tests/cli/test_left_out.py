"""What a conversion or a check does not read is said: files that no index names, __metadata__."""
import json

import pytest

from corrupt.files import Model, Tensor, bf16, file_bytes, read_header

STRAY = "file 'stray.safetensors' is not in the index: ignored"
BELOW = "file 'mp2/model0-mp2.safetensors' is not part of the layout: ignored"


@pytest.fixture
def with_stray(golden_a, tmp_path):
    """A checkpoint with a file of weights that its index does not name, and one in a folder."""
    path = Model(golden_a).write(tmp_path / "in")
    weights = file_bytes({"stray": bf16([4])}, None)
    (path / "mp2").mkdir()
    (path / "stray.safetensors").write_bytes(weights)
    (path / "mp2" / "model0-mp2.safetensors").write_bytes(weights)
    return path


# ---- files of weights that nobody reads ----

def test_inspect_notes_files_that_are_not_in_the_index(ckpt, with_stray):
    assert ckpt("ckpt-inspect", "--json", with_stray).json["notes"] == [BELOW, STRAY]
    out = ckpt("ckpt-inspect", "--summary", with_stray).out
    assert f"note      {STRAY}\n" in out and f"note      {BELOW}\n" in out


def test_a_conversion_leaves_them_out_and_says_so(ckpt, with_stray, tmp_path):
    report = tmp_path / "report.json"
    done = ckpt("ckpt-convert", "--json", "--report", report, with_stray, tmp_path / "out").json
    assert done["notes"] == [BELOW, STRAY]
    assert not list((tmp_path / "out").rglob("stray*")) and not (tmp_path / "out/mp2").exists()
    report = json.loads(report.read_text())
    assert report["notes"] == [BELOW, STRAY]
    for name in ("stray.safetensors", "mp2/model0-mp2.safetensors"):
        assert {"name": name, "action": "left out"} in report["other_files"]


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_person_is_told_of_them(ckpt, with_stray, tmp_path, options):
    out = ckpt("ckpt-convert", *options, with_stray, tmp_path / "out").out
    assert f"note: {STRAY}\n" in out and f"note: {BELOW}\n" in out


def test_those_of_the_other_inputs_are_told_with_their_path(ckpt, golden_a, with_stray, tmp_path):
    done = ckpt("ckpt-convert", "--json", "--like", with_stray, golden_a, tmp_path / "out").json
    assert done["notes"] == [f"'{with_stray}': {BELOW}", f"'{with_stray}': {STRAY}"]


@pytest.mark.parametrize("manifest", [False, True])
def test_a_check_finds_them_different(ckpt, golden_a, with_stray, tmp_path, manifest):
    options = ["--structure-only"]
    if manifest:
        (tmp_path / "m").write_text(ckpt("ckpt-verify", "digest", "--json", golden_a).out)
        options = ["--manifest", tmp_path / "m"]
    done = ckpt("ckpt-verify", "check", "--json", *options, with_stray, check=1).json
    assert done["same"] is False and done["notes"] == [BELOW, STRAY]
    assert done["differing"] == [{"name": "stray.safetensors", "kind": "unlisted"}]
    out = ckpt("ckpt-verify", "check", *options, with_stray, check=1).out
    assert "structure is NOT right" in out and "unlisted  stray.safetensors\n" in out
    assert not manifest or "values are as in" in out


def test_a_lenient_check_lets_them_pass(ckpt, with_stray):
    done = ckpt("ckpt-verify", "check", "--json", "--lenient", "--structure-only",
                with_stray).json
    assert done["same"] is None and done["differing"] == [] and STRAY in done["notes"]


def test_files_in_folders_below_are_nothing_to_check(ckpt, with_stray):
    (with_stray / "stray.safetensors").unlink()
    out = ckpt("ckpt-verify", "check", "--structure-only", with_stray).out
    assert "structure is right" in out and BELOW in out


def test_model_parallel_folders_tell_them_too(ckpt, golden_a, tmp_path):
    ckpt("ckpt-shard", "--layout", "mp", "--mp", 2, golden_a, tmp_path / "mp")
    (tmp_path / "mp" / "extra.safetensors").write_bytes(file_bytes({"x": bf16([4])}, None))
    notes = ckpt("ckpt-inspect", "--json", tmp_path / "mp").json["notes"]
    assert notes == ["file 'extra.safetensors' is not part of the layout: ignored"]
    ckpt("ckpt-verify", "check", tmp_path / "mp", check=1)


# ---- __metadata__ of files that are numbered anew ----

def metadata_of(path):
    return {p.name: read_header(p)[1] for p in path.glob("*.safetensors")}


@pytest.fixture
def with_metadata(golden_a, tmp_path):
    """with_metadata({...} by number of the file) -> a checkpoint."""
    def write(say, name="in"):
        model = Model(golden_a)
        model.metadata = {f: say(i) for i, f in enumerate(model.files)}
        return model.write(tmp_path / name)
    return write


def test_what_all_files_say_is_kept(ckpt, with_metadata, tmp_path):
    source = with_metadata(lambda i: {"part": str(i), "format": "pt", "z\n\"": "\u00e4"})
    done = ckpt("ckpt-convert", "--json", "--max-shard-size", "2MiB", source,
                tmp_path / "out").json
    files = metadata_of(tmp_path / "out")
    assert len(files) > 2 and all(m == {"format": "pt", "z\n\"": "\u00e4"} for m in files.values())
    assert done["notes"] == ["__metadata__ 'part' is dropped: not all files have the same"]


def test_what_one_file_does_not_say_is_dropped(ckpt, with_metadata, tmp_path):
    source = with_metadata(lambda i: {"format": "pt"} if i != 1 else None)
    done = ckpt("ckpt-convert", "--json", "--max-shard-size", "2MiB", source,
                tmp_path / "out").json
    assert set(map(str, metadata_of(tmp_path / "out").values())) == {"None"}
    assert done["notes"] == ["__metadata__ 'format' is dropped: not all files have the same"]


def test_the_first_file_may_be_the_one_that_is_silent(ckpt, with_metadata, tmp_path):
    source = with_metadata(lambda i: {"format": "pt"} if i != 0 else None)
    done = ckpt("ckpt-convert", "--json", "--max-shard-size", "2MiB", source,
                tmp_path / "out").json
    assert done["notes"] == ["__metadata__ 'format' is dropped: not all files have the same"]


def test_what_fills_has_a_say(ckpt, with_metadata, golden_a, tmp_path):
    source = Model(with_metadata(lambda i: {"format": "pt", "by": "us"}, "full"))
    for name in [n for n in source.names() if n.startswith("mtp.")]:
        del source[name]
    source.files = {f: tensors for f, tensors in source.files.items() if tensors}
    source = source.write(tmp_path / "in")
    filling = with_metadata(lambda i: {"format": "pt", "by": "them"}, "filling")
    report = tmp_path / "report.json"
    ckpt("ckpt-convert", "--fill-from", filling, "--report", report, source, tmp_path / "out")
    assert all(m == {"format": "pt"} for m in metadata_of(tmp_path / "out").values())
    notes = [n for n in json.loads(report.read_text())["notes"] if "__metadata__" in n]
    assert notes == ["__metadata__ 'by' is dropped: not all files have the same"]


def test_files_that_stay_keep_what_they_say(ckpt, with_metadata, tmp_path):
    source = with_metadata(lambda i: {"part": str(i)})
    done = ckpt("ckpt-convert", "--json", "--dtype", "bf16", source, tmp_path / "out").json
    assert metadata_of(tmp_path / "out") == metadata_of(source) and done["notes"] == []


def test_a_layout_without_metadata_drops_it(ckpt, with_metadata, tmp_path):
    """It is told, except of the format: that is of the old files."""
    source = with_metadata(lambda i: {"format": "pt", "by": "us"})
    done = ckpt("ckpt-shard", "--json", "--layout", "mp", "--mp", 2, source, tmp_path / "out").json
    assert all(m is None for m in metadata_of(tmp_path / "out").values())
    assert done["notes"] == ["__metadata__ 'by' is dropped: the layout cannot store it"]


# ---- dtypes without a value digest ----

def test_what_has_no_digest_converts_without(ckpt, tmp_path):
    model = Model()
    model.files = {"model.safetensors": {"w": Tensor("F64", [2], bytes(16))}}
    source = model.write(tmp_path / "in", index=False)
    err = ckpt("ckpt-convert", source, tmp_path / "out", check=2).err
    assert "'model.safetensors'" in err and "'w'" in err and "F64" in err and "--no-digest" in err
    assert not (tmp_path / "out.partial").exists()
    ckpt("ckpt-convert", "--no-digest", source, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == \
        (source / "model.safetensors").read_bytes()
