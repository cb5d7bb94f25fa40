"""What people and scripts do to a command line, and names that want to be more than names."""
import itertools
import os
import shutil
from pathlib import Path

import pytest

from corrupt.files import INDEX, Model, bf16, file_bytes, pack, tensor_files
from cli.trees import tree

NATIVE_MAP = Path(__file__).parents[2] / "formats/maps/deepseek_v4.native.map"
NAME = "two\nlines\x1b[31m\tred"
SHOWN = "two\\nlines\\x1b[31m\\tred"


# ---- DST and its inputs ----

@pytest.fixture
def source(golden_a, tmp_path):
    return Model(golden_a).write(tmp_path / "in")


@pytest.mark.parametrize("target,word", [
    ("in", "are the same"), ("./in/", "are the same"), ("in/.", "are the same"),
    ("in/out", "is inside"), ("in/deep/out", "is inside"), (".", "would replace"),
    ("link/out", "is inside"),
])
def test_an_output_is_apart_from_its_input(ckpt, source, tmp_path, target, word):
    (source / "deep").mkdir()
    (tmp_path / "link").symlink_to("in")
    before = tree(tmp_path)
    err = ckpt("ckpt-convert", "--overwrite", "in", target, check=2, cwd=tmp_path).err
    assert word in err and "'in'" in err
    assert tree(tmp_path) == before and not (tmp_path / "in.partial").exists()


@pytest.mark.parametrize("option", ["--like", "--fill-from"])
def test_an_output_is_apart_from_the_other_inputs(ckpt, golden_a, source, tmp_path, option):
    err = ckpt("ckpt-convert", "--overwrite", option, source, golden_a, source, check=2).err
    assert "are the same" in err
    assert tensor_files(source) == tensor_files(golden_a)


def test_a_file_is_not_replaced_by_what_it_becomes(ckpt, source):
    file = next(source.glob("*.safetensors"))
    err = ckpt("ckpt-convert", "--overwrite", file, source, check=2).err
    assert "would replace" in err and file.exists()


@pytest.mark.parametrize("name", ["out.partial", "out.ckpt-replaced"])
def test_an_input_is_not_lost_with_what_writing_takes(ckpt, source, tmp_path, name):
    """What a killed --overwrite leaves under these names may be all there is."""
    source.rename(tmp_path / name)
    before = tree(tmp_path)
    err = ckpt("ckpt-convert", "--overwrite", tmp_path / name, tmp_path / "out", check=2).err
    assert "rename one of them" in err and tree(tmp_path) == before


def test_files_behind_links_are_not_replaced(ckpt, source, tmp_path):
    """A snapshot in the cache of a hub is a folder of links."""
    blobs, snapshot = tmp_path / "hub/blobs", tmp_path / "hub/snapshots/main"
    snapshot.mkdir(parents=True)
    source.rename(blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    (tmp_path / "link").symlink_to(snapshot)
    before = tree(tmp_path)
    err = ckpt("ckpt-convert", "--overwrite", tmp_path / "link", blobs, check=2).err
    assert "would replace" in err and tree(tmp_path) == before
    ckpt("ckpt-convert", tmp_path / "link", tmp_path / "hub/out")
    assert tensor_files(tmp_path / "hub/out") == tensor_files(blobs)


def test_a_link_to_the_input_may_be_replaced(ckpt, source, tmp_path):
    """The rename takes the place of the link; what it points to stays."""
    (tmp_path / "link").symlink_to("in")
    before = tree(source)
    ckpt("ckpt-convert", "--overwrite", source, tmp_path / "link")
    assert tree(source) == before
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "link" / INDEX).exists()


def test_beside_the_input_is_apart(ckpt, source, tmp_path):
    """A common beginning is no common folder."""
    ckpt("ckpt-convert", source, tmp_path / "in-2")
    ckpt("ckpt-convert", tmp_path / "in-2", tmp_path / "i")


@pytest.mark.parametrize("option", ["--report", "--manifest"])
@pytest.mark.parametrize("place", ["nowhere/file", "file/file", "folder", "out/file", "out"])
def test_a_file_that_cannot_be_written_is_told_before_the_work(ckpt, golden_a, tmp_path, option,
                                                               place):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    before = tree(tmp_path)
    err = ckpt("ckpt-convert", option, tmp_path / place, golden_a, tmp_path / "out", check=2).err
    assert f"'{tmp_path / place}'" in err
    assert tree(tmp_path) == before and not (tmp_path / "out.partial").exists()


def test_a_report_is_not_lost_with_what_the_output_replaces(ckpt, golden_a, tmp_path):
    ckpt("ckpt-convert", golden_a, tmp_path / "out")
    before = tree(tmp_path)
    err = ckpt("ckpt-convert", "--overwrite", "--report", tmp_path / "out/report", golden_a,
               tmp_path / "out", check=2).err
    assert "would replace" in err and tree(tmp_path) == before


@pytest.mark.parametrize("option", ["--report", "--manifest"])
@pytest.mark.parametrize("name,through", [
    *itertools.product(["model-00001-of-00005.safetensors", "config.json", INDEX, "deep/card.md"],
                       ["in", "link", "elsewhere"]),
    (".hidden", "in"), (".hidden", "link"),
])
def test_a_report_replaces_no_file_of_the_input(ckpt, source, tmp_path, option, name, through):
    """Whatever it is, by the path of the folder, of a link to it, or of where its files really are,
    as those of a hub's cache."""
    (source / "deep").mkdir()
    (source / "deep/card.md").write_text("kept")
    (source / ".hidden").write_text("kept")
    if through == "elsewhere":
        real = tmp_path / "elsewhere" / name
        real.parent.mkdir(parents=True)
        (source / name).rename(real)
        (source / name).symlink_to(real)
    (tmp_path / "link").symlink_to("in")
    before = tree(tmp_path)
    err = ckpt("ckpt-convert", option, tmp_path / through / name, source, tmp_path / "out",
               check=2).err
    assert "is a file of the input" in err and tree(tmp_path) == before


@pytest.mark.parametrize("options,file", [
    (["--like", "other"], "other/config.json"), (["--fill-from", "other"], "other/config.json"),
    (["--names", "native", "--map", "m.map"], "m.map"),
])
def test_a_report_replaces_no_other_input(ckpt, source, tmp_path, options, file):
    shutil.copytree(source, tmp_path / "other")
    shutil.copy(NATIVE_MAP, tmp_path / "m.map")
    before = tree(tmp_path)
    err = ckpt("ckpt-convert", "--report", file, *options, "in", "out", check=2, cwd=tmp_path).err
    assert "is a file of the input" in err and tree(tmp_path) == before


def test_the_output_does_not_replace_the_map(ckpt, golden_a, tmp_path):
    (tmp_path / "out").mkdir()
    shutil.copy(NATIVE_MAP, tmp_path / "out/m.map")
    before = tree(tmp_path)
    err = ckpt("ckpt-convert", "--overwrite", "--map", tmp_path / "out/m.map", golden_a,
               tmp_path / "out", check=2).err
    assert "would replace" in err and tree(tmp_path) == before


def test_a_new_report_beside_an_input_file_or_in_its_folder_is_fine(ckpt, source, tmp_path):
    ckpt("ckpt-convert", "--report", source / "new.json", source, tmp_path / "out")
    assert (source / "new.json").exists()
    one = source / "model-00002-of-00005.safetensors"
    for _ in range(2):               # an old report beside a single file is no part of it
        ckpt("ckpt-convert", "--overwrite", "--report", source / "new.json", one,
             tmp_path / "one")


def test_one_file_is_not_both_report_and_manifest(ckpt, golden_a, tmp_path):
    err = ckpt("ckpt-convert", "--report", tmp_path / "r", "--manifest", f"{tmp_path}/./r",
               golden_a, tmp_path / "out", check=2).err
    assert "are the same" in err and os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_report_replaces_only_a_file(ckpt, golden_a, tmp_path, kind):
    """As root, --report /dev/null would take the device away."""
    if kind == "link":
        (tmp_path / "x").symlink_to("/dev/null")
    else:
        os.mkfifo(tmp_path / "x")
    err = ckpt("ckpt-convert", "--report", tmp_path / "x", golden_a, tmp_path / "out", check=2).err
    assert "expected a file, got a" in err and os.listdir(tmp_path) == ["x"]


# ---- names and paths that are longer than a line ----

@pytest.mark.parametrize("header,words", [
    ({"dtype": "Q7", "shape": [2], "data_offsets": [0, 4]}, "' has unknown dtype 'Q7'"),
    ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
     "' F32 [2] needs 8 bytes, data_offsets have 4"),
    ({"dtype": "BF16", "shape": [2], "data_offsets": [4, 8]}, "' starts at 4, expected 0 (hole)"),
])
def test_a_long_subject_leaves_room_for_what_was_got(ckpt, tmp_path, header, words):
    folder = tmp_path / "/".join(["d" * 200] * 10)
    folder.mkdir(parents=True)
    name = "layers.0." + "n" * 1000 + ".weight"
    (folder / "m.safetensors").write_bytes(pack({name: header}, bytes(8)))
    err = ckpt("ckpt-inspect", folder / "m.safetensors", check=2).err
    assert err.startswith(f"ckpt-inspect: '{tmp_path}/dddd") and len(err) < 1100
    assert "dddd/m.safetensors': tensor 'layers.0.nnnn" in err
    assert err.endswith(f"nnnn.weight{words}\n")


# ---- numbers ----

@pytest.mark.parametrize("option,value", [
    ("--threads", "1025"), ("--threads", str(1 << 32)), ("--threads", "-1"), ("--threads", "1e3"),
    ("--memory", "0"), ("--memory", "0GiB"), ("--memory", "-1"), ("--memory", "16EiB"),
    ("--max-shard-size", "0"),
])
def test_a_number_that_means_nothing_is_refused(ckpt, golden_a, tmp_path, option, value):
    err = ckpt("ckpt-convert", option, value, golden_a, tmp_path / "out", check=2).err
    assert f"'{option}'" in err and f"'{value}'" in err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("options,word", [
    (["--no-digest", "--verify"], "--verify"),
    (["--no-digest", "--manifest", "m"], "--manifest"),
    (["--no-manifest", "--manifest", "m"], "--manifest"),
])
def test_options_that_exclude_each_other_are_refused(ckpt, golden_a, tmp_path, options, word):
    err = ckpt("ckpt-convert", *options, golden_a, "out", check=2, cwd=tmp_path).err
    assert word in err and f"cannot be used with {options[0]}" in err
    assert os.listdir(tmp_path) == []


def test_more_layers_than_there_are_are_refused(ckpt, tmp_path):
    err = ckpt("ckpt-synth", "--config", "tiny", "--layers", "1000", tmp_path / "out", check=2).err
    assert "--layers 1000" in err and os.listdir(tmp_path) == []


# ---- names on the terminal ----

@pytest.fixture
def odd_names(tmp_path):
    model = Model()
    model.files = {"a\nb.safetensors": {NAME: bf16([2])}}
    model.config = {"model_type": NAME}
    return model.write(tmp_path / "odd", index=False)


def controls(text):
    return [c for c in text if c != "\n" and (ord(c) < 32 or ord(c) == 127)]


def test_inspect_shows_names_on_one_line(ckpt, odd_names):
    out = ckpt("ckpt-inspect", odd_names).out
    assert SHOWN in out and "a\\nb.safetensors" in out and not controls(out)
    assert f"config    model_type {SHOWN}\n" in out
    doc = ckpt("ckpt-inspect", "--json", odd_names).json
    assert [t["name"] for t in doc["tensors"]] == [NAME]


def test_verify_shows_names_on_one_line(ckpt, odd_names, tmp_path):
    assert not controls(ckpt("ckpt-verify", "digest", "--tensors", "*", odd_names).out)
    (odd_names / "a\nb.safetensors").rename(tmp_path / "x.safetensors")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/x.safetensors").write_bytes(file_bytes({NAME: bf16([2], 0x4000)}, None))
    out = ckpt("ckpt-verify", "compare", tmp_path / "x.safetensors", tmp_path / "other",
               check=1).out
    assert f"differ  {SHOWN}  row" in out and not controls(out)


def test_check_shows_names_on_one_line(ckpt, odd_names, tmp_path):
    (tmp_path / "other.safetensors").write_bytes(file_bytes({NAME: bf16([2], 0x4000)}, None))
    manifest = tmp_path / "m.json"
    manifest.write_text(ckpt("ckpt-verify", "digest", "--json",
                             tmp_path / "other.safetensors").out)
    out = ckpt("ckpt-verify", "check", "--manifest", manifest, odd_names, check=1).out
    assert SHOWN in out and not controls(out)


def test_odd_file_names_are_refused_on_one_line(ckpt, odd_names, tmp_path):
    for more in (), ("--dry-run",):
        err = ckpt("ckpt-convert", *more, odd_names, tmp_path / "out", check=2).err
        assert "'a\\nb.safetensors'" in err and not controls(err)
    assert not (tmp_path / "out").exists()


def test_odd_tensor_names_are_converted_as_they_are(ckpt, odd_names, tmp_path):
    """In a plan, too, they are on one line."""
    (odd_names / "a\nb.safetensors").rename(odd_names / "ab.safetensors")
    out = ckpt("ckpt-convert", "--dry-run", odd_names, tmp_path / "out").out
    assert "ab.safetensors\n" in out and not controls(out)
    ckpt("ckpt-convert", odd_names, tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(odd_names)
