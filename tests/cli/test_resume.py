"""A run that was killed, stopped or damaged goes on, and ends with the same bytes."""
import fcntl
import json
import os
import pathlib
import random
import re
import shutil
import signal
import struct

import pytest

from cli.trees import Job, journal, partial, tree, wait_until_stopped
from conftest import run_tool

SPILL = ".fp4_scales.spill"
SPILL_RECORD_BYTES = 16


def make_source(folder):
    """A tiny checkpoint in which FP4 -> FP8 loses scales of every expert."""
    config = folder / "config.json"
    path = folder / "tiny"
    run_tool("ckpt-synth", "--config", "tiny", folder / "plain")
    text = json.loads((folder / "plain" / "config.json").read_text())
    shutil.rmtree(folder / "plain")
    text["n_routed_experts"] = 8
    config.write_text(json.dumps(text))
    run_tool("ckpt-synth", "--config", config, path)
    for file in path.glob("*.safetensors"):
        lose_scales(file)
    return path


def header_of(path):
    """(header bytes in all, entries) of a safetensors file."""
    with open(path, "rb") as file:
        size, = struct.unpack("<Q", file.read(8))
        return 8 + size, json.loads(file.read(size))


def lose_scales(path):
    """Some groups of every expert become zero: their scales do not follow from their codes."""
    begin, entries = header_of(path)
    data = bytearray(path.read_bytes())
    for name, entry in entries.items():
        if ".experts." in name and name.endswith(".weight"):
            at = begin + entry["data_offsets"][0]
            for group in range(0, 40, 3):
                data[at + 16 * group:at + 16 * (group + 1)] = bytes(16)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def job(source, tmp_path_factory):
    job = Job(tmp_path_factory.mktemp("jobs"), "ckpt-convert", "--experts", "fp8", source)
    assert "fp4_scales.zst" in job.expected
    return job


def kill_at(job, target, fault, n, *more, path=None):
    """Kill the run just before its nth write; False: it was over by then."""
    job.run(target, *more, check=(0, -signal.SIGKILL),
            env=fault.env(f"write:kill:{n}", path or partial(target)))
    return bool(fault.injected)


@pytest.fixture(scope="module")
def write_count(job, tmp_path_factory):
    """How many writes a whole run makes, by halving."""
    from conftest import Fault
    fault = Fault(tmp_path_factory.mktemp("count") / "log")
    low, high = 1, 2
    while kill_at(job, job.new_target(), fault, high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if kill_at(job, job.new_target(), fault, middle):
            low = middle
        else:
            high = middle
    assert low > 100
    return low


# ---- kill -9 ----

@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_write_it_goes_on(job, write_count, fault, seed):
    n = random.Random(seed).randint(1, write_count)
    target = job.new_target()
    while not kill_at(job, target, fault, n):   # threads make the count vary: it was over by then
        n -= n // 20
        assert n > write_count // 2
        target = job.new_target()
    assert not target.exists()
    job.finish(target)


def test_killed_again_and_again_it_gets_there(job, write_count, fault):
    """Every life writes a part of the whole, and none begins at nothing."""
    target = job.new_target()
    lives = 1
    while kill_at(job, target, fault, write_count // 6):
        lives += 1
        assert lives < 60, "it does not get on"
    assert lives > 5
    assert tree(target) == job.expected


@pytest.mark.parametrize("call, step", [("fsync", 7), ("rename", 1)])
def test_killed_while_committing_it_goes_on(job, fault, call, step):
    kills = 0
    for target in job.killed_in_turn(call, step, fault):
        job.finish_or_check(target)
        kills += 1
    assert kills >= 3


def test_killed_at_any_time_it_goes_on(job):
    """By the clock, not by the call: threads are wherever they are."""
    for target in job.killed_by_the_clock(8, random.Random(4)):
        job.finish_or_check(target)


# ---- what is kept, and what is not believed ----

@pytest.fixture
def half(job, fault):
    """A run that was killed in its sixth file: the five before are finished."""
    target = job.new_target()
    assert kill_at(job, target, fault, 4, "--threads", "1", path="out.partial/model-00006")
    return target


def written_again(job, target, fault, number):
    """Does going on write more than the header of this file?"""
    env = fault.env("write:EIO:2", f"out.partial/model-{number:05}")
    job.run(target, check=(0, 2), env=env)
    return bool(fault.injected)


def test_finished_tensors_are_not_written_again(job, half, fault):
    for number in range(1, 6):
        shutil.copytree(half.parent, half.parent.with_suffix(f".{number}"))
        assert not written_again(job, half.parent.with_suffix(f".{number}") / "out", fault, number)
    assert written_again(job, half, fault, 7)
    job.finish(half)


@pytest.mark.parametrize("number", [1, 2, 4, 5])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_finished_tensors_are_verified(job, half, fault, number, where):
    """A byte that rotted is found and written again, whichever it is."""
    path, = partial(half).glob(f"model-{number:05}*")
    size = path.stat().st_size
    offset = {"first": header_of(path)[0], "middle": size // 2, "last": size - 1}[where]
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    shutil.copytree(half.parent, half.parent.with_suffix(f".{number}{where}"))
    assert written_again(job, half.parent.with_suffix(f".{number}{where}") / "out", fault, number)
    job.finish(half)


def test_a_finished_file_that_is_gone_is_written_again(job, half):
    next(partial(half).glob("model-00002*")).unlink()
    next(partial(half).glob("model-00003*")).write_bytes(b"")
    job.finish(half)


@pytest.mark.parametrize("threads, memory", [(1, "1GiB"), (3, "64MiB")])
def test_going_on_may_use_other_threads_and_memory(job, half, fault, threads, memory):
    env = fault.env("write:EIO:2", "out.partial/model-00003")
    job.finish(half, "--threads", threads, "--memory", memory, env=env)
    assert not fault.injected


# ---- the journal ----

def lines_of(target):
    return journal(target).read_bytes().splitlines(keepends=True)


def test_a_flipped_bit_in_the_journal_is_not_believed(job, half):
    """Whatever it hits below the first line: at worst, tensors are done again."""
    whole = journal(half).read_bytes()
    first = whole.index(b"\n") + 1
    rng = random.Random(5)
    for i in range(6):
        copy = half.parent.with_suffix(f".flip{i}") / "out"
        shutil.copytree(half.parent, copy.parent)
        text = bytearray(whole)
        text[rng.randrange(first, len(text))] ^= 1 << rng.randrange(7)
        journal(copy).write_bytes(text)
        job.finish(copy)


def test_a_line_for_another_tensor_is_not_believed(job, half):
    """Digests that are right, but not of this tensor, with a check that is right, too."""
    lines = [line for line in lines_of(half) if line.startswith(b"done ")]
    whole = lines_of(half)
    journal(half).write_bytes(whole[0] + b"".join(reversed(whole[1:])))
    assert len(lines) > 10
    job.finish(half)


@pytest.mark.parametrize("keep", ["header", "half", "torn", "more"])
def test_a_journal_that_ends_early_is_used_as_far_as_it_goes(job, half, keep):
    whole = journal(half).read_bytes()
    first = whole.index(b"\n") + 1
    text = {"header": whole[:first], "half": whole[:len(whole) // 2],
            "torn": whole[:-7], "more": whole + b"done 1 0123"}[keep]
    journal(half).write_bytes(text)
    job.finish(half)


def test_a_journal_that_was_only_begun_is_begun_again(job, half):
    """Killed in the first write of all: nothing else is there."""
    whole = journal(half).read_bytes()
    shutil.rmtree(partial(half))
    partial(half).mkdir()
    journal(half).write_bytes(whole[:20])
    job.finish(half)


@pytest.mark.parametrize("text", [None, b"", b"ckpt-journal 1 0123"])
def test_a_folder_that_lost_its_journal_is_refused(job, half, text):
    if text is None:
        journal(half).unlink()
    else:
        journal(half).write_bytes(text)
    before = [p.name for p in partial(half).iterdir() if p.name != ".ckpt-journal"]
    assert "has files but no journal" in job.run(half, check=2).err
    assert sorted(before) == sorted(p.name for p in partial(half).iterdir()
                                    if p.name != ".ckpt-journal")


# ---- the scales beside it ----

def spill(target):
    return partial(target) / SPILL


def side_bytes(target):
    """What the journal says is synced of the spill."""
    return max(int(line.split()[1]) for line in lines_of(target) if line.startswith(b"side "))


def test_a_record_torn_by_a_power_loss_is_cut(job, half):
    """Behind what was synced: zeros, rubbish, half a record, whole ones after it."""
    whole = spill(half).read_bytes()[:side_bytes(half)]
    assert len(whole) > 10 * SPILL_RECORD_BYTES
    for i, tail in enumerate((bytes(64), b"\xff" * 40, whole[:7],
                              bytes(16) + whole[:SPILL_RECORD_BYTES])):
        copy = half.parent.with_suffix(f".tail{i}") / "out"
        shutil.copytree(half.parent, copy.parent)
        spill(copy).write_bytes(whole + tail)
        job.finish(copy)


def test_a_damaged_record_that_finished_tensors_need_is_refused(job, half):
    data = bytearray(spill(half).read_bytes())
    for offset in (0, 5 * SPILL_RECORD_BYTES + 8, side_bytes(half) - 1):
        data[offset] ^= 4
        spill(half).write_bytes(data)
        result = job.run(half, check=2)
        assert f"is damaged at offset {offset // SPILL_RECORD_BYTES * SPILL_RECORD_BYTES}" in \
            result.err
        data[offset] ^= 4
    spill(half).write_bytes(data)
    job.finish(half)


def test_a_spill_that_is_gone_is_refused(job, half):
    spill(half).unlink()
    assert "is damaged at offset 0" in job.run(half, check=2).err


# ---- whose folder it is ----

@pytest.mark.parametrize("other", [["--dtype", "bf16"], ["--match-reference"],
                                   ["--names", "sglang", "--force-names"],
                                   ["--max-shard-size", "3MB"],
                                   ["--no-digest"], ["--lenient"]])
def test_another_command_is_refused(job, half, other):
    before = tree(partial(half))
    assert "is an unfinished run with different options" in job.run(half, *other, check=2).err
    assert "--restart" in job.run(half, *other, check=2).err
    assert tree(partial(half)) == before
    job.finish(half)


@pytest.mark.parametrize("word", ["--restart", "--overwrite"])
def test_a_run_of_other_options_goes_where_that_is_said(job, half, word):
    job.run(half, "--match-reference", word)
    assert os.listdir(half.parent) == ["out"]
    assert tree(half).keys() == job.expected.keys()


def test_restart_goes_on_with_a_run_of_the_same_options(job, half):
    assert "were already written by an earlier run" in job.run(half, "--restart").out
    assert tree(half) == job.expected


def change_time(path):
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


def change_header(path):
    """Two members of an entry in another order, under the same size and time."""
    status = path.stat()
    data = path.read_bytes()
    changed = re.sub(rb'("dtype":"\w+"),("shape":[^]]*])', rb'\2,\1', data, count=1)
    assert len(changed) == len(data) and changed != data
    path.write_bytes(changed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def change_size(path):
    """A longer header, under the same time."""
    status = path.stat()
    data = path.read_bytes()
    size, = struct.unpack("<Q", data[:8])
    path.write_bytes(struct.pack("<Q", size + 8) + data[8:8 + size] + b" " * 8 + data[8 + size:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [change_time, change_header, change_size])
def test_a_changed_source_is_refused(source, tmp_path, fault, change):
    copy = shutil.copytree(source, tmp_path / "tiny")
    job = Job(tmp_path, "ckpt-convert", "--experts", "fp8", copy)
    target = job.new_target()
    assert kill_at(job, target, fault, 60)
    change(next(copy.glob("model-00003*")))
    assert "its source has changed" in job.run(target, check=2).err
    assert not target.exists()


def edit_config(path):
    path.write_text(path.read_text().replace("{", '{"note": 1,', 1))


@pytest.mark.parametrize("name, change", [("config.json", edit_config),
                                          ("fp4_scales.zst", change_time)])
def test_a_changed_file_beside_the_source_is_refused(source, ckpt, tmp_path, fault, name, change):
    fp8 = tmp_path / "fp8"
    ckpt("ckpt-convert", "--experts", "fp8", source, fp8)
    job = Job(tmp_path, "ckpt-convert", "--experts", "fp4", fp8)
    target = job.new_target()
    assert kill_at(job, target, fault, 60)
    change(fp8 / name)
    assert "its source has changed" in job.run(target, check=2).err
    assert not target.exists()


@pytest.mark.parametrize("change", [pathlib.Path.unlink, change_time,
                                    lambda path: path.rename(path.with_name("b.jinja"))])
def test_carried_files_are_of_one_source(source, tmp_path, fault, change):
    """What the source no longer has must not stay in the result of the next run."""
    copy = shutil.copytree(source, tmp_path / "tiny")
    (copy / "a.jinja").write_text("{{ a }}")
    job = Job(tmp_path, "ckpt-convert", "--experts", "fp8", copy)
    target = job.new_target()
    assert kill_at(job, target, fault, 60)
    change(copy / "a.jinja")
    assert "its source has changed" in job.run(target, check=2).err
    assert not target.exists()
    job.run(target, "--restart")
    assert (target / "a.jinja").exists() == (copy / "a.jinja").exists()
    assert (target / "b.jinja").exists() == (copy / "b.jinja").exists()


def test_a_source_that_changes_meanwhile_is_noticed(source, tmp_path, fault):
    copy = shutil.copytree(source, tmp_path / "tiny")
    job = Job(tmp_path, "ckpt-convert", "--experts", "fp8", copy)
    target = job.new_target()
    process = stopped_at_work(job, target, fault)
    change_time(next(copy.glob("model-00002*")))
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "was changed while it was being read" in said
    assert os.listdir(target.parent) == []


def flip_and_put_back(path):
    """A value changed in place, and the time with it."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns


@pytest.mark.parametrize("number", range(1, 9))
def test_a_source_that_changes_under_the_same_time_is_noticed(source, tmp_path, fault, number):
    """Before or after its bytes were read: either the new value is in the result, or it is told."""
    copy = shutil.copytree(source, tmp_path / "tiny")
    job = Job(tmp_path, "ckpt-convert", "--experts", "fp8", copy)
    target = job.new_target()
    process = stopped_at_work(job, target, fault)
    flip_and_put_back(next(copy.glob(f"model-0000{number}*")))
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    if process.returncode == 2:
        assert "was changed while it was being read" in said and os.listdir(target.parent) == []
    else:
        assert tree(target) == job.expected


def test_a_source_that_changed_under_the_same_time_before_a_rerun_is_noticed(source, tmp_path,
                                                                             fault):
    copy = shutil.copytree(source, tmp_path / "tiny")
    job = Job(tmp_path, "ckpt-convert", "--threads", 1, "--experts", "fp8", copy)
    noticed = 0
    for number in range(1, 9):
        target = job.new_target()
        assert kill_at(job, target, fault, 200)
        flip_and_put_back(next(copy.glob(f"model-0000{number}*")))
        result = job.run(target, check=(0, 2))
        noticed += result.status == 2
        fresh = job.new_target()
        job.run(fresh)
        assert result.status == 2 or tree(target) == tree(fresh)
    assert noticed > 0


def test_a_source_whose_mode_changed_is_gone_on_with(source, tmp_path, fault):
    copy = shutil.copytree(source, tmp_path / "tiny")
    job = Job(tmp_path, "ckpt-convert", "--experts", "fp8", copy)
    target = job.new_target()
    assert kill_at(job, target, fault, 200)
    for path in copy.iterdir():
        path.chmod(0o600)
    assert "were already written by an earlier run" in job.run(target).out
    assert tree(target) == job.expected


def test_a_link_planted_in_the_partial_folder_is_not_followed(job, half, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("mine")
    for plant in os.symlink, os.link:
        for name in "model-00004-of-00008.safetensors", ".ckpt-journal.commit", "config.json":
            path = partial(half) / name
            kept = path.read_bytes() if path.exists() else None
            path.unlink(missing_ok=True)
            plant(theirs, path)
            job.run(half, check=(0, 2))
            assert theirs.read_text() == "mine"
            if half.exists():
                assert not any(p.is_symlink() for p in half.rglob("*"))
                return
            path.unlink(missing_ok=True)
            if kept is not None:
                path.write_bytes(kept)
    job.finish(half)


@pytest.mark.parametrize("rule, path", [
    ("open:EMFILE", "out.partial"), ("read:EIO", "out.partial/.ckpt-journal"),
    ("open:EACCES", "out.partial/.ckpt-journal"), ("rename:EIO", "out")])
def test_what_cannot_be_looked_at_is_not_thrown_away(job, half, fault, rule, path):
    """Each of the first of these calls fails: all that was done before is still there after it."""
    done = journal(half).read_bytes()
    refused = 0
    for n in range(1, 8):
        copy = half.parent.with_suffix(f".{rule.split(':')[0]}{n}{len(path)}") / "out"
        shutil.copytree(half.parent, copy.parent)
        result = job.run(copy, "--restart", check=(0, 2),
                         env=fault.env(f"{rule}:{n}", str(copy.parent / path)))
        if not fault.injected:
            break
        refused += result.status == 2
        if result.status == 2 and partial(copy).exists():
            assert journal(copy).read_bytes().startswith(done)
            assert "were already written by an earlier run" in job.run(copy).out
        assert tree(copy) == job.expected
    assert refused > 0


# ---- two at once, and being stopped ----

def stopped_at_work(job, target, fault):
    """A run that has finished some tensors, stopped (SIGSTOP) in its tracks."""
    process = job.start(target, "--threads", "1",
                        env=fault.env("write:stop:4", "out.partial/model-00003"))
    assert wait_until_stopped(process)
    assert journal(target).read_bytes().count(b"done ") > 2
    return process


def test_the_second_process_is_refused(job, fault):
    target = job.new_target()
    process = stopped_at_work(job, target, fault)
    assert "another process is writing here" in job.run(target, check=2).err
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert tree(target) == job.expected


def test_the_lock_goes_with_its_holder(job, half):
    with open(journal(half)) as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert "another process is writing here" in job.run(half, check=2).err
    job.finish(half)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_and_it_goes_on(job, fault, number):
    target = job.new_target()
    process = stopped_at_work(job, target, fault)
    done = journal(target).read_bytes()
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == -number and out == ""
    assert said.startswith("ckpt-convert: interrupted") and said.count("\n") == 1
    assert not target.exists()
    assert journal(target).read_bytes().startswith(done)
    job.finish(target)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_the_caller_ignores_stays_ignored(job, fault, number):
    """As nohup and `trap '' INT` do for whatever they start."""
    target = job.new_target()
    before = signal.signal(number, signal.SIG_IGN)
    try:
        process = stopped_at_work(job, target, fault)
    finally:
        signal.signal(number, before)
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0 and tree(target) == job.expected


def test_a_killed_synthesis_is_done_again(tmp_path, fault):
    job = Job(tmp_path, "ckpt-synth", "--config", "tiny")
    for n in (1, 2, 9, 30, 300):
        target = job.new_target()
        assert kill_at(job, target, fault, n)
        job.finish(target)
    target = job.new_target()
    assert kill_at(job, target, fault, 100)
    err = job.run(target, "--seed", "2", check=2).err
    assert "is an unfinished run with different options" in err
