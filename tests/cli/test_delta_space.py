"""ckpt-delta apply and the disk: a plan, a disk that is too small, blocks shared with the base."""
import shutil
import subprocess

import pytest

from cli.delta_models import drift, edit_config
from cli.trees import partial, tree


@pytest.fixture(scope="module")
def pair(ckpt, golden_a, tmp_path_factory):
    """OLD, NEW and the delta between them; only norms differ, in some of the files."""
    folder = tmp_path_factory.mktemp("pair")
    new = drift(golden_a, folder / "new", only=lambda name: "layers.1" in name and "norm" in name)
    edit_config(new, rope_theta=777)
    ckpt("ckpt-delta", "diff", golden_a, new, folder / "d")
    return golden_a, new, folder / "d"


@pytest.fixture
def sharing_disk(tmp_path):
    """A folder on a file system that shares blocks between files, where that is allowed."""
    image, folder = tmp_path / "image", tmp_path / "shared"
    folder.mkdir()
    image.touch()
    with open(image, "r+b") as file:
        file.truncate(400 << 20)
    for step in (["mkfs.xfs", "-q", "-m", "reflink=1", image],
                 ["mount", "-o", "loop", image, folder]):
        if shutil.which(step[0]) is None:
            pytest.skip(f"this test mounts an XFS, and there is no {step[0]} here")
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip("this test mounts an XFS, which is not allowed here: " + done.stderr)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def used_bytes(folder):
    usage = shutil.disk_usage(folder)
    return usage.total - usage.free


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(ckpt, pair, tmp_path):
    old, new, delta = pair
    size = sum(p.stat().st_size for p in old.rglob("*.safetensors"))
    said = ckpt("ckpt-delta", "apply", "--dry-run", "--json", old, delta, tmp_path / "out").json
    assert said["needed_bytes"] >= size and said["changed_tensors"] > 0
    said = ckpt("ckpt-delta", "diff", "--dry-run", old, new, tmp_path / "d").out
    assert said.startswith("plan: version 000001, 667 tensors")
    for words in (["squash", old, delta], ["reverse", old, delta],
                  ["diff", old, new]):
        ckpt("ckpt-delta", *words, "--dry-run", tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_in_place_changes_nothing(ckpt, pair, tmp_path):
    shutil.copytree(pair[0], tmp_path / "base")
    ckpt("ckpt-delta", "apply", "--in-place", "--dry-run", tmp_path / "base", pair[2])
    assert tree(tmp_path / "base") == tree(pair[0])


def test_a_dry_run_refuses_what_the_run_would(ckpt, pair, tmp_path):
    (tmp_path / "out").mkdir()
    said = ckpt("ckpt-delta", "apply", "--dry-run", pair[0], pair[2], tmp_path / "out", check=2)
    assert "already exists" in said.err


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(ckpt, pair, small_disk):
    disk = small_disk(8)
    said = ckpt("ckpt-delta", "apply", pair[0], pair[2], disk / "out", check=2).err
    assert "not enough disk space" in said and "--no-space-check" in said
    assert list(disk.iterdir()) == []
    said = ckpt("ckpt-delta", "apply", "--no-space-check", pair[0], pair[2], disk / "out", check=2)
    assert "No space left" in said.err


def test_files_begin_with_the_blocks_of_the_base(ckpt, pair, sharing_disk, tmp_path):
    old, new, delta = pair
    base = sharing_disk / "base"
    shutil.copytree(old, base)
    shutil.copytree(delta, sharing_disk / "delta")
    subprocess.run(["sync", "-f", base], check=True)
    before = used_bytes(sharing_disk)
    ckpt("ckpt-delta", "apply", base, sharing_disk / "delta", sharing_disk / "out")
    subprocess.run(["sync", "-f", base], check=True)
    assert tree(sharing_disk / "out") == tree(new)
    assert used_bytes(sharing_disk) - before < 4 << 20 < sum(
        p.stat().st_size for p in base.iterdir())
    assert tree(base) == tree(old)


def test_a_killed_apply_goes_on_where_blocks_are_shared(ckpt, fault, pair, sharing_disk):
    old, new, delta = pair
    base = sharing_disk / "base"
    shutil.copytree(old, base)
    for n in (2, 7, 30):
        target = sharing_disk / f"out{n}"
        ckpt("ckpt-delta", "apply", base, delta, target, check=-9,
             env=fault.env(f"write:kill:{n}", partial(target)))
        assert fault.injected
        ckpt("ckpt-delta", "apply", base, delta, target)
        assert tree(target) == tree(new)
    assert tree(base) == tree(old)
