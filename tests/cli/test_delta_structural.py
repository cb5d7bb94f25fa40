"""ckpt-delta diff --structural: tensors that only one side has, or has with another dtype."""
import json
import shutil
import signal

import pytest

from cli.delta_models import drift, edit_config
from cli.test_delta import GOLDEN
from cli.test_delta_pipes import stream_of
from cli.trees import Job, partial, tree
from corrupt.files import INDEX, Tensor, file_bytes, read_file
from interop import delta_reader

ADDED, REMOVED = "model.layers.1.new.weight", "model.layers.1.removed.weight"


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """OLD and NEW: one tensor is gone, one is new, one of zeros, one has another dtype, one file
    more, and another config."""
    folder = tmp_path_factory.mktemp("changed")
    old, new = folder / "old", folder / "new"
    shutil.copytree(GOLDEN / "base", old)
    shutil.copytree(GOLDEN / "new-v2", new)
    path = new / "model-00002-of-00002.safetensors"
    tensors = read_file(path)[0]
    index = json.loads((new / INDEX).read_text())
    name = "model.layers.0.input_layernorm.weight"
    name = name if name in tensors else next(n for n in tensors if n != ADDED)
    tensors[name] = Tensor("U8", [len(tensors[name].data)], tensors[name].data)
    path.write_bytes(file_bytes(tensors))
    more = {"model.more.weight": Tensor("BF16", [3, 5], bytes(30)),
            "model.scalar": Tensor("F32", [], b"\0\0\x80\x3f")}
    (new / "more.safetensors").write_bytes(file_bytes(more))
    index["weight_map"].update({n: "more.safetensors" for n in more})
    (new / INDEX).write_text(json.dumps(index, indent=1))
    edit_config(new, rope_theta=4321)
    return old, new, name


@pytest.fixture(scope="module")
def delta(ckpt, changed, tmp_path_factory):
    path = tmp_path_factory.mktemp("delta") / "weight_v000001"
    ckpt("ckpt-delta", "diff", "--structural", *changed[:2], path)
    return path


def test_the_files_of_the_golden_result_come_back(ckpt, tmp_path, digest):
    old, new = GOLDEN / "base", GOLDEN / "new-v2"
    ckpt("ckpt-delta", "diff", "--structural", old, new, tmp_path / "d")
    ckpt("ckpt-delta", "apply", old, tmp_path / "d", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(new)
    side = json.loads((tmp_path / "d" / "ckpt-delta.json").read_text())
    assert side["structure"]["added"] == [ADDED]
    assert side["structure"]["removed"] == [REMOVED]
    assert side["base"]["root"] == digest(old) and side["result"]["root"] == digest(new)


def test_apply_gives_the_very_files(ckpt, changed, delta, tmp_path, digest):
    old, new, retyped = changed
    said = ckpt("ckpt-delta", "verify", "--base-check", "full", "--json", old, delta).json
    assert (said["base"]["root"], said["result"]["root"]) == (digest(old), digest(new))
    ckpt("ckpt-delta", "apply", old, delta, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(new)
    told = ckpt("ckpt-delta", "inspect", "--json", delta).json
    assert told["added"] == sorted([ADDED, "model.more.weight", "model.scalar", retyped])
    assert told["removed"] == sorted([REMOVED, retyped])


def test_reverse_returns_the_base(ckpt, changed, delta, tmp_path):
    old, new, _ = changed
    ckpt("ckpt-delta", "reverse", old, delta, tmp_path / "back")
    ckpt("ckpt-delta", "apply", new, tmp_path / "back", tmp_path / "again")
    assert tree(tmp_path / "again") == tree(old)


def test_later_deltas_follow_and_are_squashed(ckpt, changed, delta, tmp_path):
    old, new, _ = changed
    last = drift(new, tmp_path / "last", seed=3)
    ckpt("ckpt-delta", "diff", new, last, tmp_path / "weight_v000002")
    ckpt("ckpt-delta", "apply", old, delta, tmp_path / "weight_v000002", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(last)
    ckpt("ckpt-delta", "squash", old, delta, tmp_path / "weight_v000002", tmp_path / "all")
    ckpt("ckpt-delta", "apply", old, tmp_path / "all", tmp_path / "out2")
    assert tree(tmp_path / "out2") == tree(last)
    ckpt("ckpt-delta", "reverse", old, delta, tmp_path / "weight_v000002", tmp_path / "back")
    ckpt("ckpt-delta", "apply", last, tmp_path / "back", tmp_path / "again")
    assert tree(tmp_path / "again") == tree(old)


def test_it_goes_through_a_pipe(ckpt, changed, delta, tmp_path):
    old, new, _ = changed
    stream = stream_of("diff", "--structural", old, new, "-")
    ckpt("ckpt-delta", "apply", old, "-", tmp_path / "out", input=stream)
    assert tree(tmp_path / "out") == tree(new)


def test_equal_tensors_make_a_plain_delta(ckpt, changed, tmp_path):
    old = changed[0]
    new = drift(old, tmp_path / "new")
    ckpt("ckpt-delta", "diff", "--structural", old, new, tmp_path / "a")
    ckpt("ckpt-delta", "diff", old, new, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_readers_of_others_refuse_the_word(changed, delta, tmp_path):
    with pytest.raises((AssertionError, ValueError, KeyError)):
        delta_reader.apply(changed[0], delta, tmp_path / "out")


@pytest.mark.release
def test_a_killed_apply_goes_on(ckpt, fault, changed, delta, tmp_path):
    job = Job(tmp_path, "ckpt-delta", "apply", changed[0], delta)
    assert job.expected == tree(changed[1])
    killed = 0
    for n in range(1, 40, 5):
        target = job.new_target()
        target.parent.mkdir()
        ckpt("ckpt-delta", "apply", changed[0], delta, target, check=(0, -signal.SIGKILL),
             env=fault.env(f"write:kill:{n}", partial(target)))
        killed += bool(fault.injected)
        if not target.exists():
            job.finish(target)
        assert tree(target) == job.expected
    assert killed > 0


# ---- refused by name, nothing written ----

def refused(ckpt, tmp_path, *args, check=2):
    said = ckpt("ckpt-delta", *args, tmp_path / "refused", check=check).err
    assert not (tmp_path / "refused").exists()
    assert not (tmp_path / "refused.partial").exists()
    return said


def test_without_the_option_the_tensor_is_named(ckpt, changed, tmp_path):
    said = refused(ckpt, tmp_path, "diff", *changed[:2])
    assert REMOVED in said and "--structural" in said


def test_what_it_cannot_be_is_refused(ckpt, changed, delta, tmp_path):
    old, new, _ = changed
    for options in (("--format", "skyrl"), ("--encoding", "overwrite")):
        assert "adds or removes" in refused(ckpt, tmp_path, "diff", "--structural", *options, old,
                                            new)
    shutil.copytree(old, tmp_path / "base")
    said = ckpt("ckpt-delta", "apply", "--in-place", tmp_path / "base", delta, check=2).err
    assert "in place" in said and tree(tmp_path / "base") == tree(old)
    ckpt("ckpt-delta", "diff", "--structural", new, old, tmp_path / "weight_v000002")
    said = refused(ckpt, tmp_path, "apply", old, delta, tmp_path / "weight_v000002")
    assert "must be the first" in said


def test_another_base_is_refused(ckpt, changed, delta, tmp_path):
    said = refused(ckpt, tmp_path, "apply", changed[1], delta, check=1)
    assert "was not made from" in said
    other = drift(changed[0], tmp_path / "other", seed=5)
    assert "was not made from" in refused(ckpt, tmp_path, "apply", other, delta, check=1)


def test_an_untouched_tensor_that_differs_is_found_by_the_root(ckpt, changed, delta, tmp_path):
    old = changed[0]
    touched = set(json.loads((delta / INDEX).read_text())["weight_map"])
    name = next(n for n in delta_reader.tensors_of(old) if n not in touched | {REMOVED})
    other = drift(old, tmp_path / "other", only=lambda n: n == name)
    assert "root" in refused(ckpt, tmp_path, "apply", other, delta, check=1)
    # One that the result lacks is no part of it, but of the base.
    gone = drift(old, tmp_path / "gone", only=lambda n: n == REMOVED)
    ckpt("ckpt-delta", "apply", gone, delta, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(changed[1])
    said = ckpt("ckpt-delta", "verify", "--base-check", "full", gone, delta, check=1).err
    assert "root" in said


def edit_side(delta, edit):
    path = delta / "ckpt-delta.json"
    side = json.loads(path.read_text())
    edit(side)
    path.write_text(json.dumps(side))


def spoil_word(delta):
    path = delta / INDEX
    path.write_text(path.read_text().replace("xor+ckpt1", "xor"))
    edit_side(delta, lambda s: s["files"].clear())
    return "disagree"


def spoil_member(delta):
    edit_side(delta, lambda s: s.pop("structure"))
    return "disagree"


def spoil_side(delta):
    (delta / "ckpt-delta.json").unlink()
    return "has no ckpt-delta.json"


def spoil_path(delta):
    edit_side(delta, lambda s: s["structure"]["weights"][0].update(name="../x.safetensors"))
    return "no valid 'weights'"


def spoil_twice(delta):
    edit_side(delta, lambda s: s["structure"]["weights"].append(s["structure"]["weights"][0]))
    return "no valid 'weights'"


def spoil_size(delta):
    edit_side(delta, lambda s: s["structure"]["weights"][1].update(bytes=1 << 40))
    return "its tensors need"


def spoil_names(delta):
    edit_side(delta, lambda s: s["structure"]["added"].pop())
    return "differs"


def spoil_header(delta):
    path = next((delta / "structure").glob("*.header"))
    path.write_bytes(path.read_bytes()[:-1])
    return "is damaged"


@pytest.mark.parametrize("spoil", [spoil_word, spoil_member, spoil_side, spoil_path, spoil_twice,
                                   spoil_size, spoil_names, spoil_header])
def test_damaged_structure_is_refused(ckpt, changed, delta, tmp_path, spoil):
    other = tmp_path / "in" / "d"
    shutil.copytree(delta, other)
    expected = spoil(other)
    said = refused(ckpt, tmp_path, "apply", changed[0], other, check=(1, 2))
    assert expected in said


def test_tensors_of_a_known_family(ckpt, golden_a, tmp_path):
    """Its maps know every tensor: one that they lack, or that is gone, takes --lenient."""
    new = drift(golden_a, tmp_path / "new")
    index = json.loads((new / INDEX).read_text())
    gone = "layers.0.attn.attn_sink"
    path = new / index["weight_map"].pop(gone)
    tensors, metadata = read_file(path)
    del tensors[gone]
    tensors["added.weight"] = Tensor("F32", [4], bytes(range(16)))
    index["weight_map"]["added.weight"] = path.name
    path.write_bytes(file_bytes(tensors, metadata))
    (new / INDEX).write_text(json.dumps(index))
    ckpt("ckpt-delta", "diff", "--lenient", "--structural", golden_a, new, tmp_path / "d")
    ckpt("ckpt-delta", "apply", "--lenient", golden_a, tmp_path / "d", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(new)
    ckpt("ckpt-delta", "reverse", "--lenient", golden_a, tmp_path / "d", tmp_path / "back")
    ckpt("ckpt-delta", "apply", "--lenient", new, tmp_path / "back", tmp_path / "again")
    assert tree(tmp_path / "again") == tree(golden_a)
