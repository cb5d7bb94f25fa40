"""The files beside the weights in a delta: what cannot be written is refused before anything is."""
import hashlib
import json
import shutil

import pytest

from cli.delta_models import drift, edit_config
from cli.trees import tree

SIDE = "ckpt-delta.json"


@pytest.fixture(scope="module")
def pair(ckpt, golden_a, tmp_path_factory):
    """OLD, NEW and the delta between them, which carries config.json."""
    folder = tmp_path_factory.mktemp("pair")
    old = folder / "old"
    shutil.copytree(golden_a, old)
    (old / "notes.txt").write_text("old")
    new = drift(old, folder / "new")
    edit_config(new, rope_theta=999)
    ckpt("ckpt-delta", "diff", old, new, folder / "d")
    return old, new, folder / "d"


def edited(delta, target, edit):
    """A copy of the delta with its side file changed by `edit`."""
    shutil.copytree(delta, target)
    side = json.loads((target / SIDE).read_text())
    edit(side, target)
    (target / SIDE).write_text(json.dumps(side))
    return target


def carrying(name, **more):
    """An edit that lets the delta carry one more file."""
    def edit(side, folder):
        (folder / "carried").mkdir(exist_ok=True)
        (folder / "carried" / "more").write_text("more")
        entry = {"name": name, "as": "carried/more",
                 "sha256": hashlib.sha256(b"more").hexdigest()}
        side["carried"].append({**entry, **more})
    return edit


def refused(ckpt, pair, delta, tmp_path, *expected):
    """By verify and apply, in place and not; nothing is changed or left."""
    base = tmp_path / "base"
    shutil.copytree(pair[0], base)
    before = tree(base)
    names = sorted(p.name for p in tmp_path.iterdir())
    for words in (["verify", base, delta], ["apply", base, delta, tmp_path / "out"],
                  ["apply", "--in-place", base, delta]):
        said = ckpt("ckpt-delta", *words, check=2).err
        assert all(e in said for e in expected), said
        assert said.count("\n") == 1
        assert tree(base) == before
        assert sorted(p.name for p in tmp_path.iterdir()) == names
        assert not list(base.glob(".ckpt*"))


@pytest.mark.parametrize("is_back", [False, True])
def test_a_file_that_becomes_a_folder_is_refused(ckpt, pair, tmp_path, is_back):
    old, new = tmp_path / "o", tmp_path / "n"
    for source, target in zip(pair, (new, old) if is_back else (old, new)):
        shutil.copytree(source, target)
    file, folder = (new, old) if is_back else (old, new)
    (file / "encoding").write_text("a file")
    (folder / "encoding").mkdir()
    (folder / "encoding" / "rw").write_text("a file in a folder")
    names = sorted(p.name for p in tmp_path.iterdir())
    said = ckpt("ckpt-delta", "diff", old, new, tmp_path / "d", check=2).err
    assert "'encoding' would be both a file and the folder of 'encoding/rw'" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_a_carried_file_below_a_file_of_the_base_is_refused(ckpt, pair, tmp_path):
    delta = edited(pair[2], tmp_path / "d", carrying("notes.txt/more"))
    refused(ckpt, pair, delta, tmp_path, "'notes.txt/more'", "is not a folder")


def test_a_carried_file_in_place_of_a_folder_is_refused(ckpt, pair, tmp_path):
    delta = edited(pair[2], tmp_path / "d", carrying("encoding"))
    base = tmp_path / "base"
    shutil.copytree(pair[0], base)
    (base / "encoding").mkdir(exist_ok=True)                  # also an empty one
    before = tree(base)
    for words in (["verify", base, delta], ["apply", "--in-place", base, delta]):
        assert "encoding" in ckpt("ckpt-delta", *words, check=2).err
        assert tree(base) == before and (base / "encoding").is_dir()


@pytest.mark.parametrize("name", ["config.json/more", "model-00001-of-00005.safetensors/more",
                                  "a/model.safetensors", "model.safetensors.index.json/more",
                                  "ckpt-manifest.json", "model-00001-of-00005.safetensors"])
def test_names_of_the_weights_and_below_them_are_refused(ckpt, pair, tmp_path, name):
    delta = edited(pair[2], tmp_path / "d", carrying(name))
    refused(ckpt, pair, delta, tmp_path, name)


@pytest.mark.parametrize("name, expected", [
    ("n" * 300, "a part of 300 bytes"), ("d/" * 40 + "x", "nested in 40 folders"),
    ("d/" * 32 + "x", "nested in 32 folders")])
def test_names_that_no_reader_would_take_are_refused(ckpt, pair, tmp_path, name, expected):
    delta = edited(pair[2], tmp_path / "d", carrying(name))
    refused(ckpt, pair, delta, tmp_path, expected)


def test_the_deepest_names_are_written(ckpt, pair, tmp_path, digest):
    name = "d/" * 31 + "x"
    delta = edited(pair[2], tmp_path / "d", carrying(name))
    base = tmp_path / "base"
    shutil.copytree(pair[0], base)
    ckpt("ckpt-delta", "apply", base, delta, tmp_path / "out")
    ckpt("ckpt-delta", "apply", "--in-place", base, delta)
    assert (base / name).read_text() == "more"
    assert tree(tmp_path / "out") == tree(base)
    assert digest(base) == digest(pair[1])


def test_a_file_too_deep_to_be_carried_is_refused(ckpt, pair, tmp_path):
    new = tmp_path / "n"
    shutil.copytree(pair[1], new)
    deep = new / ("d/" * 31)
    deep.mkdir(parents=True)
    (deep / "x").write_text("1")
    said = ckpt("ckpt-delta", "diff", pair[0], new, tmp_path / "d", check=2).err
    assert "nested in 32 folders" in said
    assert [p.name for p in tmp_path.iterdir()] == ["n"]


def test_a_file_twice_is_refused(ckpt, pair, tmp_path):
    def twice(side, folder):
        carrying("config.json")(side, folder)
        assert [f["name"] for f in side["carried"]] == ["config.json"] * 2
    delta = edited(pair[2], tmp_path / "d", twice)
    refused(ckpt, pair, delta, tmp_path, "'config.json' twice")


def test_two_files_of_a_delta_one_below_the_other_are_refused(ckpt, pair, tmp_path):
    def both(side, folder):
        carrying("more")(side, folder)
        carrying("more/x")(side, folder)
    refused(ckpt, pair, edited(pair[2], tmp_path / "d", both), tmp_path, "folder of 'more/x'")


def test_a_damaged_carried_file_is_found_before_anything_is_changed(ckpt, pair, tmp_path):
    delta = edited(pair[2], tmp_path / "d", carrying("more", sha256="0" * 64))
    refused(ckpt, pair, delta, tmp_path, "is damaged")


def test_a_linked_folder_in_place_is_refused(ckpt, pair, tmp_path):
    delta = edited(pair[2], tmp_path / "d", carrying("linked/more"))
    base, other = tmp_path / "base", tmp_path / "other"
    shutil.copytree(pair[0], base)
    other.mkdir()
    (base / "linked").symlink_to(other)
    before = tree(base)
    said = ckpt("ckpt-delta", "apply", "--in-place", base, delta, check=2).err
    assert "is not a folder" in said
    assert tree(base) == before and list(other.iterdir()) == []


@pytest.mark.parametrize("whose", ["base", "result"])
def test_a_wrong_main_root_is_refused(ckpt, pair, tmp_path, whose):
    def edit(side, _):
        side[whose]["main"] = "0" * 64
    delta = edited(pair[2], tmp_path / "d", edit)
    refused(ckpt, pair, delta, tmp_path, f"a wrong main root of its {whose}")


@pytest.mark.parametrize("name, says", [
    (None, "a tensor has no name"),
    ("other", "tells of tensor 'other', which its data files do not have"),
])
def test_a_tensor_that_is_not_in_the_delta_is_refused(ckpt, pair, tmp_path, name, says):
    def edit(side, _):
        side["tensors"][1]["name"] = name
    refused(ckpt, pair, edited(pair[2], tmp_path / "d", edit), tmp_path, SIDE, says)


def test_a_base_that_is_a_link_is_not_changed_in_place(ckpt, pair, tmp_path):
    shutil.copytree(pair[0], tmp_path / "base")
    link = tmp_path / "link"
    link.symlink_to("base")
    before = tree(tmp_path / "base")
    for name in (link, f"{link}/"):
        said = ckpt("ckpt-delta", "apply", "--in-place", name, pair[2], check=2).err
        assert "a part of its path is a link" in said
        assert tree(tmp_path / "base") == before


def test_a_whole_version_of_the_chain_is_not_changed_in_place(ckpt, pair, tmp_path):
    for name in ("base", "whole"):
        shutil.copytree(pair[0], tmp_path / name)
    before = tree(tmp_path)
    said = ckpt("ckpt-delta", "apply", "--in-place", tmp_path / "base", tmp_path / "whole",
                pair[2], check=2).err
    assert f"'{tmp_path / 'whole'}' is a whole checkpoint, which replaces" in said
    assert tree(tmp_path) == before


def test_a_packed_checkpoint_is_not_changed_in_place(ckpt, pair, tmp_path):
    packed = tmp_path / "a.ckpt"
    ckpt("ckpt-delta", "diff", "--base", "none", pair[0], packed)
    before = packed.read_bytes()
    said = ckpt("ckpt-delta", "apply", "--in-place", packed, pair[2], check=2).err
    assert "is a packed checkpoint, which cannot be changed in place" in said
    assert packed.read_bytes() == before
