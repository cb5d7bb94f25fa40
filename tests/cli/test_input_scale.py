"""--input-scale FILE: scales of activations beside NVFP4 weights come from a calibration."""
import struct

import numpy as np
import pytest

from cli.trees import Job, partial
from client import environment
from corrupt.files import Model, Tensor, bf16, tensor_files
from mock_hub import Entry, Hub, Repo

NAMES = [f"layers.{layer}.ffn.experts.{e}.{w}" for layer in range(4) for e in range(16)
         for w in ("w1", "w2", "w3")]
RULE = ["--quantize", "v4-nvfp4", "--input-scale"]


def scale(value, dtype="F32", shape=()):
    count = int(np.prod(shape, dtype=int))
    return Tensor(dtype, list(shape), struct.pack("<f", value) * count)


def calibration(path, change=None, names=NAMES, shape=()):
    """A file with one scale for each name; change(its tensors by name)."""
    model = Model()
    tensors = {f"{n}.input_scale": scale(2.0 ** -9 * (i + 3), shape=shape)
               for i, n in enumerate(names)}
    if change is not None:
        change(tensors)
    model.files["model.safetensors"] = tensors
    model.config = None
    return model.write(path) / "model.safetensors"


def scales(path):
    """The scales of activations of a model, with the shapes that they are stored with."""
    model = Model(path)
    return {n: (model[n].shape, struct.unpack("<f", model[n].data)[0])
            for n in model.names() if n.endswith("input_scale")}


# ---- which scale a weight gets ----

@pytest.mark.parametrize("shape", [(), (1,)])
def test_each_weight_gets_the_scale_of_its_name(ckpt, golden_a, tmp_path, shape):
    file = calibration(tmp_path / "file", shape=shape)
    done = ckpt("ckpt-convert", "--json", *RULE, file, golden_a, tmp_path / "out").json
    assert scales(tmp_path / "out") == {f"{n}.input_scale": ([], 2.0 ** -9 * (i + 3))
                                        for i, n in enumerate(NAMES)}
    assert done["notes"] == [f"192 weights have their input_scale from '{file}', the first is "
                             f"'{NAMES[0]}.weight'"]
    ckpt("ckpt-verify", "check", "--values", tmp_path / "out")
    name = f"{NAMES[5]}.weight"
    seen = ckpt("ckpt-inspect", "--values", "0", "--tensors", name, tmp_path / "out").out
    row = ckpt("ckpt-inspect", "--json", "--values", "0", "--tensors", name,
               tmp_path / "out").json["tensors"][0]
    model = Model(tmp_path / "out")
    whole = struct.unpack("<f", model[f"{NAMES[5]}.weight_scale_2"].data)[0]
    assert row["input_scale"] == 2.0 ** -9 * 8 and np.float32(row["tensor_scale"]) == whole
    assert seen.splitlines()[1:3] == [f"tensor scale: {row['tensor_scale']}",
                                      f"input scale: {row['input_scale']}"]
    for place in (tmp_path / "file", tmp_path / "out"):         # a folder, and a whole release
        ckpt("ckpt-convert", "--overwrite", *RULE, place, golden_a, tmp_path / "again")
        assert tensor_files(tmp_path / "again") == tensor_files(tmp_path / "out")


def test_gguf_of_a_release_and_a_packed_one_are_calibrations_too(ckpt, golden_a, tmp_path):
    ckpt("ckpt-convert", *RULE, calibration(tmp_path / "file"), golden_a, tmp_path / "out")
    ckpt("ckpt-shard", "--layout", "gguf", "--without-tokenizer", tmp_path / "out",
         tmp_path / "gguf")
    ckpt("ckpt-delta", "diff", "--base", "none", tmp_path / "out", tmp_path / "packed.ckpt")
    for place in ("gguf/model.gguf", "packed.ckpt"):
        ckpt("ckpt-convert", "--overwrite", *RULE, tmp_path / place, golden_a, tmp_path / "again")
        assert tensor_files(tmp_path / "again") == tensor_files(tmp_path / "out")
    ckpt("ckpt-shard", "--layout", "gguf", "--without-tokenizer", *RULE, tmp_path / "file",
         golden_a, tmp_path / "gguf2")
    assert (tmp_path / "gguf2/model.gguf").read_bytes() == \
        (tmp_path / "gguf/model.gguf").read_bytes()


def test_names_of_the_source_are_found_where_the_result_has_others(ckpt, golden_a, tmp_path):
    ckpt("ckpt-convert", "--dtype", "bf16", "--names", "sglang", golden_a, tmp_path / "source")
    spelt = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    names = ["model." + n[:-2].replace(".ffn.", ".mlp.") + spelt[n[-2:]] for n in NAMES]
    assert names[0] + ".weight" in Model(tmp_path / "source")
    file = calibration(tmp_path / "file", names=names)
    ckpt("ckpt-convert", *RULE, file, "--names", "native", tmp_path / "source", tmp_path / "out")
    assert scales(tmp_path / "out") == {f"{n}.input_scale": ([], 2.0 ** -9 * (i + 3))
                                        for i, n in enumerate(NAMES)}


def test_a_number_is_for_all_and_none_is_1(ckpt, golden_a, tmp_path):
    told = ckpt("ckpt-convert", "--json", "--quantize", "v4-nvfp4", golden_a, tmp_path / "1").json
    assert told["notes"] == [f"192 weights have an input_scale of 1, the first is "
                             f"'{NAMES[0]}.weight': give what a calibration found with "
                             "--input-scale"]
    told = ckpt("ckpt-convert", "--json", *RULE, "0.25", golden_a, tmp_path / "2").json
    assert told["notes"] == []
    for out, value in (("1", 1), ("2", 0.25)):
        assert scales(tmp_path / out) == {f"{n}.input_scale": ([], value) for n in NAMES}


def test_what_a_weight_has_is_kept(ckpt, golden_a, tmp_path):
    ckpt("ckpt-convert", *RULE, calibration(tmp_path / "file"), golden_a, tmp_path / "out")
    ckpt("ckpt-convert", "--quantize", "mtp-experts=nvfp4-exact", "--input-scale", "3",
         tmp_path / "out", tmp_path / "more")
    found = scales(tmp_path / "more")
    assert len(found) == 240
    assert {n: s for n, s in found.items() if n.startswith("layers.")} == scales(tmp_path / "out")
    assert {s for n, (_, s) in found.items() if n.startswith("mtp.")} == {3}


def test_like_has_those_of_the_original(ckpt, golden_a, tmp_path):
    """A weight that did not change is the original's to the byte."""
    file = calibration(tmp_path / "file")
    ckpt("ckpt-convert", *RULE, file, golden_a, tmp_path / "old")
    ckpt("ckpt-convert", "--dtype", "bf16", tmp_path / "old", tmp_path / "plain")
    like = ["--quantize", "v4-nvfp4", "--like", tmp_path / "old"]
    told = ckpt("ckpt-convert", "--json", *like, tmp_path / "plain", tmp_path / "new").json
    assert told["notes"] == [] and tensor_files(tmp_path / "new") == tensor_files(tmp_path / "old")
    ckpt("ckpt-convert", *like, golden_a, tmp_path / "exact")           # FP4, kept as it is
    assert tensor_files(tmp_path / "exact") == tensor_files(tmp_path / "old")
    ckpt("ckpt-convert", *like, "--input-scale", "7", tmp_path / "plain", tmp_path / "seven")
    assert {s for _, s in scales(tmp_path / "seven").values()} == {7}


# ---- refused ----

def remove(*numbers):
    def change(tensors):
        for i in numbers:
            del tensors[f"{NAMES[i]}.input_scale"]
    return change


def put(tensor):
    return lambda tensors: tensors.update({f"{NAMES[5]}.input_scale": tensor})


@pytest.mark.parametrize("change, words", [
    (remove(4), f"has no input_scale for 1 of the 192 weights that need one, the first is "
                f"'{NAMES[4]}.weight'"),
    (remove(*range(9, 192)), "has no input_scale for 183 of the 192 weights that need one"),
    (lambda tensors: [tensors.update({f"model.{n}": tensors.pop(n)}) for n in list(tensors)],
     f"for any of the 192 weights that need one, the first is '{NAMES[0]}.weight', but has "
     f"'model.{NAMES[0]}.input_scale': rename its tensors"),
    (put(scale(0)), f"'{NAMES[5]}.weight' is 0, expected a finite number above 0"),
    (put(scale(-1)), "is -1, expected"),
    (put(scale(float("inf"))), "is inf, expected"),
    (put(scale(float("nan"))), "is nan, expected"),
    (put(Tensor("BF16", [], b"\0\x3f")), f"'{NAMES[5]}.input_scale' is BF16 [], expected F32 [] "
                                         "or [1]"),
    (put(Tensor("F64", [], bytes(8))), "is F64 [], expected F32"),
    (put(scale(1, shape=(2,))), "is F32 [2], expected F32"),
    (put(scale(1, shape=(1, 1))), "is F32 [1, 1], expected F32"),
    (put(scale(1, shape=(0,))), "is F32 [0], expected F32"),
    (lambda tensors: (tensors.clear(), tensors.update({"a.weight": bf16([4])})),
     "no tensor in it is the scale of activations, expected X.input_scale"),
])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_calibration_that_does_not_say_is_refused(ckpt, golden_a, tmp_path, change, words,
                                                    dry_run):
    file = calibration(tmp_path / "file", change)
    more = ["--dry-run"] if dry_run else []
    err = ckpt("ckpt-convert", *more, *RULE, file, golden_a, tmp_path / "out", check=2).err
    assert words in err and f"--input-scale '{file}'" in err and err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_torn_file_is_refused(ckpt, golden_a, tmp_path):
    file = calibration(tmp_path / "file")
    whole = file.read_bytes()
    for size in (0, 7, 100, len(whole) - 1):
        file.write_bytes(whole[:size])
        err = ckpt("ckpt-convert", *RULE, file, golden_a, tmp_path / "out", check=2).err
        assert str(file) in err and err.count("\n") == 1
        assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("word, told", [
    ("missing", "expected a number, or a checkpoint with X.input_scale, but no file"),
    ("1.5x", "expected a number, or a checkpoint with X.input_scale, but no file"),
    ("-2", "expected a number above 0"), ("inf", "expected a number above 0"),
    ("1e-60", "expected a number above 0"),
])
def test_a_word_that_is_neither_is_told_of_both(ckpt, golden_a, tmp_path, word, told):
    for command in (["ckpt-convert"], ["ckpt-shard", "--layout", "hf"]):
        err = ckpt(*command, *RULE, word, golden_a, tmp_path / "out", check=2).err
        assert f"--input-scale '{word}'" in err and told in err and err.count("\n") == 1


def test_the_output_may_not_be_the_calibration(ckpt, golden_a, tmp_path):
    file = calibration(tmp_path / "file")
    whole = file.read_bytes()
    for target in (tmp_path / "file", file):
        ckpt("ckpt-convert", "--overwrite", *RULE, file, golden_a, target, check=2)
    ckpt("ckpt-convert", "--overwrite", *RULE, file, "--report", file, golden_a, tmp_path / "out",
         check=2)
    assert file.read_bytes() == whole and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_scale_that_no_weight_needs_is_refused(ckpt, golden_a, tmp_path):
    """The original has none, and the result is like it."""
    ckpt("ckpt-convert", "--quantize", "v4-nvfp4", golden_a, tmp_path / "old")
    bare = Model(tmp_path / "old")
    for name in scales(tmp_path / "old"):
        del bare[name]
    bare.write(tmp_path / "bare")
    for word in ("2", calibration(tmp_path / "file")):
        err = ckpt("ckpt-convert", *RULE, word, "--like", tmp_path / "bare", golden_a,
                   tmp_path / "out", check=2).err
        assert "--input-scale: no weight of the result needs one" in err


# ---- resumed ----

def test_a_run_with_other_scales_is_another_run(golden_a, tmp_path, fault):
    files = [calibration(tmp_path / "a"), calibration(tmp_path / "b", put(scale(3)))]
    job = Job(tmp_path, "ckpt-convert", *RULE, files[0], golden_a)
    target = job.new_target()
    job.run(target, env=fault.env("pwrite:EIO:40", f"{target}.partial"), check=2)
    assert fault.injected and partial(target).exists()
    for other in (files[1], "3"):
        err = Job(tmp_path, "ckpt-convert", *RULE, other, golden_a).run(target, check=2).err
        assert "is an unfinished run with different options" in err
    job.finish(target)


# ---- by URL ----

def test_a_calibration_may_be_on_a_hub(ckpt, golden_a, tmp_path):
    file = calibration(tmp_path / "file")
    ckpt("ckpt-convert", *RULE, file, golden_a, tmp_path / "out")
    with Hub([Repo("o/m", [Entry(file.name, data=file.read_bytes(), kind="lfs")])]) as hub:
        ckpt("ckpt-convert", *RULE, "hf://o/m", golden_a, tmp_path / "again",
             env=environment(hub, tmp_path / "home"))
    assert tensor_files(tmp_path / "again") == tensor_files(tmp_path / "out")
