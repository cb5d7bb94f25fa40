"""ckpt-delta apply, killed at any moment: the same command ends with the same bytes, or refuses
with the place; what is half changed is noticed."""
import fcntl
import os
import random
import shutil
import signal

import pytest

from cli.delta_models import drift, edit_config
from cli.trees import Job, partial, tree
from conftest import RELEASE
from corrupt.files import INDEX
from interop.delta_reader import tensors_of

JOURNAL = ".ckpt-delta-journal"
KILLS = 50 if RELEASE else 6


@pytest.fixture(scope="module")
def pair(ckpt, golden_a, tmp_path_factory):
    """OLD, NEW, and a delta for each encoding."""
    folder = tmp_path_factory.mktemp("pair")
    old = folder / "old"
    shutil.copytree(golden_a, old)
    new = drift(old, folder / "new", share=0.02)
    edit_config(new, rope_theta=4321)
    for encoding in ("xor", "overwrite"):
        ckpt("ckpt-delta", "diff", "--encoding", encoding, old, new, folder / encoding)
    return old, new, folder




def run_killed(ckpt, fault, path, n, *args):
    """Run until its nth write below `path`; was it killed?"""
    ckpt("ckpt-delta", "apply", *args, check=(0, -signal.SIGKILL),
         env=fault.env(f"write:kill:{n}", path))
    return bool(fault.injected)


@pytest.mark.release
def test_a_killed_apply_goes_on_to_the_same_files(ckpt, fault, pair, tmp_path):
    old, new, folder = pair
    job = Job(tmp_path, "ckpt-delta", "apply", old, folder / "xor")
    assert job.expected == tree(new)
    draw = random.Random(1)
    killed = 0
    for _ in range(KILLS):
        target = job.new_target()
        target.parent.mkdir()
        killed += run_killed(ckpt, fault, partial(target), draw.randrange(1, 400),
                             old, folder / "xor", target)
        assert not target.exists() or tree(target) == job.expected
        if target.exists():
            continue
        job.finish(target)
    assert killed > 0


@pytest.mark.release
@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
def test_a_killed_apply_in_place_goes_on(ckpt, fault, pair, tmp_path, encoding):
    old, new, folder = pair
    expected = tree(new)
    draw = random.Random(2)
    half = 0
    for n in range(KILLS):
        base = tmp_path / f"{n}" / "base"
        shutil.copytree(old, base)
        # In turn: at any write, those of the journal too, and at a write to the weights.
        where, last = ((base, 3000), (base / "model", 100))[n % 2]
        killed = run_killed(ckpt, fault, where, draw.randrange(1, last), "--in-place", base,
                            folder / encoding)
        if (base / JOURNAL).exists():
            half += 1
            said = ckpt("ckpt-inspect", base, check=2).err
            assert "half changed" in said
        elif killed:
            assert tree(base)[INDEX] == expected[INDEX]
        if tree(base) != expected:
            ckpt("ckpt-delta", "apply", "--in-place", base, folder / encoding)
        assert tree(base) == expected
        shutil.rmtree(base)
    assert half > 0


def test_a_file_beside_the_weights_that_was_half_written_is_not_left(ckpt, fault, pair, tmp_path):
    old, new, folder = pair
    base = tmp_path / "base"
    shutil.copytree(old, base)
    users = base / ".config.json.notes.tmp"
    users.write_text("mine")
    ckpt("ckpt-delta", "apply", "--in-place", base, folder / "xor", check=-signal.SIGKILL,
         env=fault.env("rename:kill:1", base / ".config.json"))
    assert fault.injected and len(list(base.glob(".config.json.*.tmp"))) == 2
    ckpt("ckpt-delta", "apply", "--in-place", base, folder / "xor")
    assert users.read_text() == "mine"
    users.unlink()
    assert tree(base) == tree(new) and not list(base.glob(".*"))


@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
def test_in_place_gives_the_files_of_the_new(ckpt, pair, tmp_path, encoding):
    old, new, folder = pair
    shutil.copytree(old, tmp_path / "base")
    ckpt("ckpt-delta", "apply", "--in-place", tmp_path / "base", folder / encoding)
    assert tree(tmp_path / "base") == tree(new)


def test_in_place_changes_nothing_of_a_wrong_base(ckpt, pair, tmp_path):
    old, _, folder = pair
    other = drift(old, tmp_path / "base", only=lambda name: name == "embed.weight", seed=9)
    before = tree(other)
    ckpt("ckpt-delta", "apply", "--in-place", other, folder / "xor", check=1)
    assert tree(other) == before


def test_links_are_refused_in_place_before_a_change_is_said_to_have_begun(ckpt, pair, tmp_path):
    old, new, folder = pair
    base = tmp_path / "base"
    base.mkdir()
    for path in old.iterdir():
        (base / path.name).symlink_to(path)
    before = tree(old)
    said = ckpt("ckpt-delta", "apply", "--in-place", base, folder / "xor", check=2).err
    assert ckpt("ckpt-delta", "apply", "--in-place", "--dry-run", base, folder / "xor",
                check=2).err == said
    assert "it is a link" in said
    assert tree(old) == before and {p.name for p in base.iterdir()} == {p.name for p in
                                                                        old.iterdir()}
    ckpt("ckpt-delta", "apply", base, folder / "xor", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(new)


def test_a_base_is_changed_by_one_run_at_a_time(ckpt, pair, tmp_path):
    """The second one would remove the journal of the first."""
    shutil.copytree(pair[0], tmp_path / "base")
    args = ("ckpt-delta", "apply", "--in-place", tmp_path / "base", pair[2] / "xor")
    folder = os.open(tmp_path / "base", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    said = ckpt(*args, check=2).err
    assert "is being changed by another ckpt-delta" in said and said.count("\n") == 1
    assert tree(tmp_path / "base") == tree(pair[0])
    os.close(folder)
    ckpt(*args)


def test_in_place_twice_is_recognised(ckpt, pair, tmp_path):
    old, new, folder = pair
    shutil.copytree(new, tmp_path / "base")
    said = ckpt("ckpt-delta", "apply", "--in-place", tmp_path / "base", folder / "xor", check=1).err
    assert "already applied" in said
    assert tree(tmp_path / "base") == tree(new)


def interrupted(ckpt, fault, pair, base):
    """A base that an apply in place has changed in part."""
    old, new, folder = pair
    file = tensors_of(old)["embed.weight"][0].name
    shutil.copytree(old, base)
    assert run_killed(ckpt, fault, base / file, 3, "--in-place", base, folder / "xor")
    assert (base / JOURNAL).exists()


def test_a_sector_that_is_neither_is_refused_with_its_place(ckpt, fault, pair, tmp_path):
    base = tmp_path / "base"
    interrupted(ckpt, fault, pair, base)
    path, offset, _ = tensors_of(base)["embed.weight"]
    data = bytearray(path.read_bytes())
    data[offset + 5000] ^= 0xFF
    path.write_bytes(data)
    said = ckpt("ckpt-delta", "apply", "--in-place", base, pair[2] / "xor", check=2).err
    assert "neither" in said and path.name in said and "embed.weight" in said


def test_another_delta_does_not_go_on_with_it(ckpt, fault, pair, tmp_path):
    base = tmp_path / "base"
    interrupted(ckpt, fault, pair, base)
    said = ckpt("ckpt-delta", "apply", "--in-place", base, pair[2] / "overwrite", check=2).err
    assert "another change" in said
    ckpt("ckpt-delta", "apply", "--in-place", base, pair[2] / "xor")
    assert tree(base) == tree(pair[1])


def test_a_delta_is_not_taken_for_a_checkpoint(ckpt, pair):
    for tool in (["ckpt-inspect"], ["ckpt-verify", "digest"]):
        assert "weight delta" in ckpt(*tool, pair[2] / "xor", check=2).err
