"""The file system fails: one line, status 2, no DST, and the same command goes on from there."""
import itertools
import os
import shutil

import pytest

from cli.trees import Job, partial, tree
from conftest import run_tool


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "tiny"
    run_tool("ckpt-synth", "--config", "tiny", path)
    return path


@pytest.fixture(scope="module")
def fp8(source, tmp_path_factory):
    """FP4 -> FP8 writes every kind of file: tensors, index, configs, scales by the side."""
    return Job(tmp_path_factory.mktemp("fp8"), "ckpt-convert", "--experts", "fp8", source)


@pytest.fixture(scope="module")
def synth(tmp_path_factory):
    return Job(tmp_path_factory.mktemp("synth"), "ckpt-synth", "--config", "tiny")


@pytest.fixture(params=["fp8", "synth"])
def job(request):
    return request.getfixturevalue(request.param)


# ---- what a program has to bear ----

@pytest.mark.parametrize("rules", [
    "short-read:1", "short-write:2", "short-read:3,short-write:4",
    "read:EINTR:1,read:EINTR:2,read:EINTR:100,write:EINTR:1,write:EINTR:2,write:EINTR:100",
])
def test_short_and_interrupted_transfers_change_nothing(job, fault, rules):
    target = job.new_target()
    path = str(target.parent) if job.tool == "ckpt-synth" else None
    job.run(target, env=fault.env(rules, path))
    assert tree(target) == job.expected
    # Short transfers are not logged; that they happen is tests/unit/test_fault.py's claim.
    assert "EINTR" not in rules or fault.injected


def test_a_file_system_without_rename_noreplace_will_do(fp8, fault):
    """Only the last rename must not replace, and it can look first."""
    survived = 0
    for n in itertools.count(1):
        target = fp8.new_target()
        result = fp8.run(target, check=(0, 2), env=fault.env(f"rename:EINVAL:{n}", target.parent))
        if not fault.injected:
            break
        if result.status == 0:
            survived += 1
            assert tree(target) == fp8.expected
    assert survived == 1 and n > 3


# ---- what a program has to refuse ----

def fails_cleanly(job, target, env, fault):
    """Status 2 and its line (run_tool looks), no DST; then the same command completes."""
    result = job.run(target, check=2, env=env)
    assert fault.injected, "the fault never came"
    assert not target.exists()
    job.finish(target)
    return result.err


@pytest.mark.parametrize("rule, path, word", [
    ("pread:EIO:1", "tiny/model-00001", "Input/output error"),             # a header
    ("pread:EIO:9", "tiny/model-00003", "model-00003"),
    ("pread:EIO:50+", "tiny/", "Input/output error"),
    ("open:EACCES:1", "tiny/model-00002", "Permission denied"),
    ("open:EMFILE:1", "tiny/config.json", "Too many open files"),
    ("read:EIO:1", "tiny/model.safetensors.index.json", "index.json"),
])
def test_a_source_that_cannot_be_read(fp8, fault, rule, path, word):
    target = fp8.new_target()
    assert word in fails_cleanly(fp8, target, fault.env(rule, path), fault)


@pytest.mark.parametrize("rule, path, word", [
    ("write:ENOSPC:1", "out.partial/model-00001", "No space left"),        # a header
    ("write:EIO:1", "out.partial/model-00008", "model-00008"),             # the last header
    ("pwrite:ENOSPC:40", "out.partial", "No space left"),
    ("pwrite:ENOSPC:200+", "out.partial", "No space left"),
    ("pwrite:EDQUOT:2", "out.partial/model-00005", "quota"),
    ("write:ENOSPC:1", "out.partial/.ckpt-journal", ".ckpt-journal"),
    ("ftruncate:EFBIG:1", "out.partial/model-00004", "File too large"),
    ("open:EROFS:1", "out.partial/model-00001", "Read-only"),
    ("fsync:EIO:1", "out.partial/model-00006", "model-00006"),
    ("close:EIO:1", "out.partial/model-00003", "model-00003"),
    ("write:ENOSPC:1", "out.partial/.model.safetensors.index.json", "index.json"),
    ("write:ENOSPC:1", "out.partial/.config.json", "config.json"),
    ("rename:EIO:1", "out.partial/.config.json", "config.json"),
])
def test_a_target_that_cannot_be_written(job, fault, rule, path, word):
    target = job.new_target()
    assert word in fails_cleanly(job, target, fault.env(rule, path), fault)


@pytest.mark.parametrize("rule, path", [
    ("write:ENOSPC:3", "out.partial/.ckpt-journal"),
    ("write:ENOSPC:1", "out.partial/.fp4_scales.spill"),
    ("fsync:EIO:1", "out.partial/.fp4_scales.spill"),
    ("write:EIO:1", "out.partial/.fp4_scales.zst"),
    ("fsync:EIO:1", "out.partial/.fp4_scales.zst"),
    ("rename:EACCES:1", "out.partial/.fp4_scales.zst"),
])
def test_what_stands_beside_the_tensors_cannot_be_written(fp8, fault, rule, path):
    target = fp8.new_target()
    fails_cleanly(fp8, target, fault.env(rule, path), fault)


@pytest.mark.parametrize("rule, step", [("fsync:EIO", 2), ("rename:EIO", 1), ("close:EIO", 5),
                                        ("open:EIO", 6), ("ftruncate:EIO", 3)])
def test_whichever_call_fails(fp8, fault, rule, step):
    """One after the other: either it did not matter and all is right, or it was refused."""
    refused = 0
    for n in itertools.count(1, step):
        target = fp8.new_target()
        result = fp8.run(target, check=(0, 2), env=fault.env(f"{rule}:{n}", target.parent))
        if not fault.injected:
            break
        refused += result.status == 2
        if not target.exists():
            assert result.status == 2
            fp8.finish(target)
        assert tree(target) == fp8.expected, f"{rule}:{n} left something else"
        assert os.listdir(target.parent) == ["out"]
    assert refused >= 2 and result.status == 0


# ---- replacing ----

@pytest.fixture
def old(tmp_path):
    """A folder in the target's place, and what is in it."""
    target = tmp_path / "folder" / "out"
    target.mkdir(parents=True)
    (target / "model.safetensors").write_text("data")
    return target


def test_what_exists_is_not_replaced(job, old):
    for more in (), ("--dry-run",):
        result = job.run(old, *more, check=2)
        assert f"'{old}' already exists" in result.err
    assert os.listdir(old.parent) == ["out"] and os.listdir(old) == ["model.safetensors"]


def test_overwrite_replaces_all_of_it(job, old):
    job.finish(old, "--overwrite")


@pytest.mark.parametrize("rule", [
    "pwrite:ENOSPC:100", "fsync:EIO:20", "rename:EIO:1", "rename:EIO:2", "rename:EIO:3",
    "rename:EIO:4", "close:EIO:1+", "write:EIO:1",
])
def test_a_failure_leaves_what_was_there(fp8, old, fault, rule):
    fp8.run(old, "--overwrite", check=2, env=fault.env(rule, old.parent))
    assert fault.injected
    assert os.listdir(old) == ["model.safetensors"]
    fp8.finish(old, "--overwrite")


def test_wherever_it_fails_one_of_the_two_has_the_name(fp8, old, fault):
    """Around the last renames a failed fsync may come too late to undo, but never between."""
    for n in itertools.count(18):
        fp8.run(old, "--overwrite", check=(0, 2), env=fault.env(f"fsync:EIO:{n}", old.parent))
        if not fault.injected:
            break
        assert os.listdir(old) == ["model.safetensors"] or tree(old) == fp8.expected
        shutil.rmtree(old)
        old.mkdir()
        (old / "model.safetensors").write_text("data")
    assert n > 22


def test_a_kill_between_two_renames_is_mended(fp8, old, fault):
    """The old folder is moved aside before the new one takes its name."""
    for n in itertools.count(1):
        fp8.run(old, "--overwrite", check=None, env=fault.env(f"rename:kill:{n}", old.parent))
        if not fault.injected:
            break
        assert (old / "model.safetensors").exists() or partial(old).exists()
        if not (old / "model.safetensors").exists():
            assert (old.with_name("out.ckpt-replaced") / "model.safetensors").read_text() == "data"
    assert n > 3
    fp8.finish(old, "--overwrite")


def test_somebody_elses_partial_folder_is_left_alone(job, tmp_path):
    folder = tmp_path / "out.partial"
    folder.mkdir()
    (folder / "notes").write_text("mine")
    result = job.run(tmp_path / "out", check=2)
    assert "has files but no journal" in result.err
    assert (folder / "notes").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_an_empty_partial_folder_is_used(job, tmp_path):
    (tmp_path / "out.partial").mkdir()
    job.finish(tmp_path / "out")


def test_a_parent_that_does_not_exist_is_named(job, tmp_path):
    result = run_tool(job.tool, *job.args, tmp_path / "none" / "out", check=2)
    assert str(tmp_path / "none") in result.err


# ---- reading only ----

def test_a_digest_bears_short_reads_and_refuses_errors(source, fault):
    right = run_tool("ckpt-verify", "digest", "--json", source)
    short = run_tool("ckpt-verify", "digest", "--json", source, env=fault.env("short-read:9"))
    assert short.json["root"] == right.json["root"]
    for n in (1, 3, 60, 200):
        result = run_tool("ckpt-verify", "digest", "--json", source, check=2,
                          env=fault.env(f"pread:EIO:{n}", "tiny/model"))
        assert fault.injected and result.json["schema"] == "ckpt-error/1"
