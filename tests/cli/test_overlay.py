"""Which file of a checkpoint has a tensor: the index decides, as for all who load by it."""
import json
import shutil

import pytest

from corrupt.files import INDEX, Model, file_bytes, read_file

NORM = "layers.0.attn_norm.weight"
WEIGHT = "layers.0.attn.wq_a.weight"
SCALE = "layers.0.attn.wq_a.scale"
OVERLAY = "model-overlay-00001.safetensors"


def overlay(golden, path, names, change=lambda t: t.changed(0, lambda b: b ^ 1)):
    """A copy whose index names an overlay for some tensors; their older copies stay."""
    model = Model(golden)
    model.write(path)
    index = json.loads((path / INDEX).read_text())
    (path / OVERLAY).write_bytes(file_bytes({n: change(model[n]) for n in names}))
    for name in names:
        index["weight_map"][name] = OVERLAY
    (path / INDEX).write_text(json.dumps(index))
    return path


def edited(golden, path, names):
    """The same values without an overlay."""
    model = Model(golden)
    for name in names:
        model[name] = model[name].changed(0, lambda b: b ^ 1)
    return model.write(path)


def test_the_tensor_that_the_index_names_counts(ckpt, golden_a, digest, tmp_path):
    over = overlay(golden_a, tmp_path / "over", [NORM])
    same = edited(golden_a, tmp_path / "same", [NORM])
    assert digest(over) == digest(same) != digest(golden_a)
    assert ckpt("ckpt-verify", "compare", "--json", over, same).json["same"]
    got = ckpt("ckpt-verify", "compare", "--json", over, golden_a, check=1).json
    assert [t if isinstance(t, str) else t["name"] for t in got["differing"]] == [NORM]


def test_each_older_copy_is_told_with_both_files(ckpt, golden_a, tmp_path):
    over = overlay(golden_a, tmp_path / "over", [NORM, "norm.weight"])
    model = Model(golden_a)
    notes = ckpt("ckpt-inspect", "--json", over).json["notes"]
    for name in (NORM, "norm.weight"):
        assert f"tensor '{name}' of '{model.file_of(name)}' is not used: " \
               f"the index maps it to '{OVERLAY}'" in notes
    assert len(notes) == 2


def test_older_copies_may_have_any_shape_and_dtype(ckpt, golden_a, digest, tmp_path):
    over = overlay(golden_a, tmp_path / "over", [NORM], change=lambda t: t)
    base = over / Model(golden_a).file_of(NORM)
    tensors, metadata = read_file(base)
    tensors[NORM].dtype, tensors[NORM].shape = "U8", [len(tensors[NORM].data)]
    base.write_bytes(file_bytes(tensors, metadata))
    assert digest(over) == digest(golden_a)


def test_a_conversion_uses_the_overlay_and_copies_no_older_tensor(ckpt, golden_a, digest, tmp_path):
    over = overlay(golden_a, tmp_path / "over", [NORM])
    done = ckpt("ckpt-convert", "--json", "--verify", "--dtype", "bf16", over,
                tmp_path / "out").json
    assert any(NORM in note for note in done["notes"])
    assert digest(tmp_path / "out") == digest(over)
    assert Model(tmp_path / "out").names().count(NORM) == 1
    assert ckpt("ckpt-inspect", "--json", tmp_path / "out").json["notes"] == []


@pytest.mark.parametrize("name", [WEIGHT, SCALE])
def test_half_a_pair_in_an_overlay_is_told(ckpt, golden_a, tmp_path, name):
    notes = ckpt("ckpt-inspect", "--json", overlay(golden_a, tmp_path / "in", [name])).json["notes"]
    assert any("only one of the two" in n and f"'{WEIGHT}'" in n and OVERLAY in n for n in notes)


def test_a_whole_pair_in_an_overlay_is_not(ckpt, golden_a, tmp_path):
    over = overlay(golden_a, tmp_path / "in", [WEIGHT, SCALE], change=lambda t: t)
    notes = ckpt("ckpt-inspect", "--json", over).json["notes"]
    assert len(notes) == 2 and not any("only one" in n for n in notes)


def test_without_an_index_two_of_a_name_are_an_error(ckpt, golden_a, tmp_path):
    over = overlay(golden_a, tmp_path / "in", [NORM])
    (over / INDEX).unlink()
    err = ckpt("ckpt-inspect", over, check=2).err
    assert f"'{NORM}' is also in 'model-0" in err and f"'{over / OVERLAY}'" in err


def test_a_tensor_that_no_entry_names_is_an_error(ckpt, golden_a, tmp_path):
    over = overlay(golden_a, tmp_path / "in", [NORM])
    index = json.loads((over / INDEX).read_text())
    del index["weight_map"][NORM]
    (over / INDEX).write_text(json.dumps(index))
    err = ckpt("ckpt-inspect", over, check=2).err
    assert f"'{NORM}'" in err


def test_another_choice_of_the_index_is_another_source(ckpt, golden_a, fault, digest, tmp_path):
    """A killed conversion does not go on with what another file says."""
    over = overlay(golden_a, tmp_path / "in", [NORM])
    ckpt("ckpt-convert", "--dtype", "bf16", over, tmp_path / "out", check=None,
         env=fault.env("pwrite:EIO:40"))
    assert (tmp_path / "out.partial").is_dir()
    index = json.loads((over / INDEX).read_text())
    index["weight_map"][NORM] = Model(golden_a).file_of(NORM)
    (over / INDEX).write_text(json.dumps(index))
    again = ckpt("ckpt-convert", "--lenient", "--dtype", "bf16", over, tmp_path / "out",
                 check=(0, 2))
    assert again.status == 2 or digest(tmp_path / "out") == digest(golden_a)


# ---- folders below ----

def below(golden, path):
    """A copy whose weights lie in folders below."""
    model = Model(golden)
    model.write(path)
    index = json.loads((path / INDEX).read_text())
    for i, name in enumerate(sorted(model.files)):
        to = f"part{i % 2}/x/{name}"
        (path / to).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path / name, path / to)
        index["weight_map"] = {n: to if f == name else f for n, f in index["weight_map"].items()}
    (path / INDEX).write_text(json.dumps(index))
    return path


def test_an_index_may_name_files_in_folders_below(ckpt, golden_a, digest, tmp_path):
    path = below(golden_a, tmp_path / "in")
    assert digest(path) == digest(golden_a)
    assert ckpt("ckpt-inspect", "--json", path).json["notes"] == []
    ckpt("ckpt-convert", "--verify", path, tmp_path / "out")
    assert {p.relative_to(path): p.read_bytes() for p in path.rglob("*.safetensors")} == \
        {p.relative_to(tmp_path / "out"): p.read_bytes()
         for p in (tmp_path / "out").rglob("*.safetensors")}
    assert digest(tmp_path / "out") == digest(golden_a)


@pytest.mark.parametrize("name", ["../x.safetensors", "a/../../x.safetensors", "/x.safetensors",
                                  "a//x.safetensors", "a/./x.safetensors", "a/", "",
                                  "a/.b/x.safetensors", "a\\x.safetensors"])
def test_no_name_leads_out_of_the_folder(ckpt, golden_a, tmp_path, name):
    model = Model(golden_a)
    model.stale["other"] = name
    err = ckpt("ckpt-inspect", model.write(tmp_path / "in"), check=2).err
    assert "'other' is not mapped to a file name" in err


def test_all_missing_files_are_told_in_one_line(ckpt, golden_a, tmp_path):
    path = Model(golden_a).write(tmp_path / "in")
    gone = sorted(path.glob("*.safetensors"))[1:3]
    for p in gone:
        p.unlink()
    err = ckpt("ckpt-verify", "digest", path, check=2).err
    assert INDEX in err and "5 files, of which 2 do not exist" in err and gone[0].name in err
