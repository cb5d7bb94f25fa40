"""One job done by several processes: started by a launcher, or killed at random and run again."""
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import time

import pytest

from cli.trees import Job, tree
from conftest import BUILD, SANITIZER

COUNT = 4
HANG_SECONDS = 600           # about 0.1 s here
LAYOUTS = {
    "torch_dist": ("--layout", "torch_dist"),
    "ranks": ("--layout", "torch_dist", "--files", "rank", "--tp", "2", "--ep", "4",
              "--extra-state"),
    "mp": ("--layout", "mp", "--mp", "2"),
    "hf": ("--layout", "hf", "--dtype", "bf16"),
    # FP4 -> FP8 keeps what FP8 loses in a file of its own.
    "fp8": ("--layout", "hf", "--experts", "fp8"),
}


@pytest.fixture(scope="module", params=LAYOUTS)
def job(request, golden_b, tmp_path_factory):
    """Job.expected is what one process writes."""
    job = Job(tmp_path_factory.mktemp("parts"), "ckpt-shard", *LAYOUTS[request.param], golden_b)
    assert ("fp4_scales.zst" in job.expected) == (request.param == "fp8")
    return job


def start_parts(job, target, parts=range(1, COUNT + 1)):
    return [job.start(target, "--part", f"{part}/{COUNT}") for part in parts]


def finish_parts(processes, allowed=(0,)):
    """Wait for all; their exit statuses."""
    for process in processes:
        out, err = process.communicate(timeout=HANG_SECONDS)
        assert process.returncode in allowed, (process.returncode, out, err)
    return [process.returncode for process in processes]


def check_committed(job, target, *, clean=True):
    """A process that is killed just after the rename leaves journals, and nothing else."""
    if not clean:
        for path in target.glob(".ckpt-journal*"):
            path.unlink()
    assert tree(target) == job.expected
    assert os.listdir(target.parent) == ["out"]


# ---- launchers ----

@pytest.fixture(scope="module")
def mpirun():
    """Open MPI's; others have other options."""
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun: scripts/setup --tests installs it")
    version = subprocess.run(["mpirun", "--version"], text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT)
    if "Open MPI" not in version.stdout:
        pytest.skip("mpirun is not that of Open MPI")
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(COUNT)]


def test_mpirun_writes_what_one_process_writes(job, mpirun):
    target = job.new_target()
    target.parent.mkdir()
    done = subprocess.run([*mpirun, BUILD / "bin" / job.tool, *job.args, target], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=HANG_SECONDS,
                          env={**os.environ, **SANITIZER})
    assert done.returncode == 0, done.stdout
    # Every process knew its share, or one of them would have done it all; the last says nothing.
    said = [f"share {part} of {COUNT} is done" in done.stdout for part in range(1, COUNT + 1)]
    assert sum(said) == COUNT - 1, done.stdout
    check_committed(job, target)


@pytest.mark.parametrize("rank, size", [
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"), ("RANK", "WORLD_SIZE")])
@pytest.mark.parametrize("words", [(), ("--part", "auto")], ids=["plain", "auto"])
def test_the_variables_of_every_launcher_are_understood(golden_a, tmp_path, rank, size, words):
    """But RANK and WORLD_SIZE, which whole pods have, only where they are asked for."""
    job = Job(tmp_path, "ckpt-shard", "--layout", "mp", "--mp", "2", golden_a)
    target = job.new_target()
    if rank == "RANK" and not words:
        job.run(target, env={rank: "1", size: "8"})
        check_committed(job, target)
        return
    for i in (2, 0, 1):
        job.run(target, *words, env={rank: str(i), size: "3"})
        assert target.exists() == (i == 1), "the last of three commits"
    check_committed(job, target)


@pytest.mark.parametrize("rank, size, said", [
    ("0", "x", "SIZE of the launcher: expected a whole number of 0 or more, got 'x'"),
    ("first", "3", "RANK of the launcher: expected a whole number of 0 or more, got 'first'"),
    ("-1", "3", "got '-1'"), ("0", "3.0", "got '3.0'"), ("3", "3", "I must be 1 to N"),
    ("0", "18446744073709551616", "got '18446744073709551616'")])
def test_variables_of_a_launcher_that_are_no_numbers_are_refused(ckpt, golden_a, tmp_path, rank,
                                                                 size, said):
    """Else each of several processes would do the whole job."""
    env = {"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_SIZE": size}
    for more in (), ("--dry-run",):
        err = ckpt("ckpt-convert", *more, golden_a, tmp_path / "out", check=2, env=env).err
        assert said in err and list(tmp_path.iterdir()) == []
    ckpt("ckpt-convert", "--part", "1/1", golden_a, tmp_path / "out", env=env)


@pytest.mark.parametrize("rank, size", [("0", ""), ("", "3"), (None, "x"), ("x", None)])
def test_half_of_the_variables_are_no_launcher(ckpt, golden_a, tmp_path, rank, size):
    """As in a batch script, where Slurm sets the rank and not the size of a step."""
    env = {"SLURM_PROCID": rank, "SLURM_STEP_NUM_TASKS": size}
    ckpt("ckpt-convert", golden_a, tmp_path / "out",
         env={name: value for name, value in env.items() if value is not None})
    assert (tmp_path / "out").exists()


def test_auto_without_a_launcher_is_refused(ckpt, golden_a, tmp_path):
    err = ckpt("ckpt-convert", "--part", "auto", golden_a, tmp_path / "out", check=2).err
    assert "RANK" in err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["3/2", "0/2", "0", "1/", "/2", "a/b", "1/2/3", "1/70000", "",
                                  "1/" + "0" * 40 + "1GARBAGE", "0" * 32 + "1/2x"])
def test_a_part_that_is_none_is_refused(ckpt, golden_a, tmp_path, text):
    err = ckpt("ckpt-convert", "--part", text, golden_a, tmp_path / "out", check=2).err
    assert "--part" in err and list(tmp_path.iterdir()) == []


def test_a_part_that_waits_says_so_in_any_case(ckpt, golden_a, tmp_path):
    """An exit status of 0 without DST must not pass for a result."""
    def part(i, *words):
        return ckpt("ckpt-convert", "--part", f"{i}/3", *words, golden_a, tmp_path / "out")
    assert "share 1 of 3 is done" in part(1, "--quiet").out
    said = part(2, "--quiet", "--json").json
    assert said["waiting"] is True and (said["share"], said["share_count"]) == (2, 3)
    assert said["target"] == str(tmp_path / "out")
    assert "waiting" not in part(3, "--json").json


# ---- plain processes ----

def test_parts_that_run_at_once_write_what_one_process_writes(job):
    target = job.new_target()
    finish_parts(start_parts(job, target))
    check_committed(job, target)


def test_parts_may_come_one_by_one_in_any_order(job):
    target = job.new_target()
    for part in (3, 1, 4):
        said = job.run(target, "--part", f"{part}/{COUNT}").out
        assert f"share {part} of {COUNT} is done" in said
        assert not target.exists()
    job.run(target, "--part", f"2/{COUNT}")
    check_committed(job, target)


def weights(target):
    """The files of data below DST.partial that have any."""
    folder = target.with_name("out.partial")
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]


@pytest.mark.parametrize("seed", range(3))
def test_what_other_parts_finished_is_read_again_before_it_counts(job, seed):
    """A byte changed in each file after three of four parts have finished."""
    target, rng = job.new_target(), random.Random(seed)
    for part in (1, 2, 3):
        job.run(target, "--part", f"{part}/{COUNT}")
    damaged = 0
    for path in weights(target):
        data = bytearray(path.read_bytes())
        places = [i for i in rng.sample(range(len(data)), 50) if data[i] != 0]
        if not places:
            continue
        data[places[0]] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        damaged += 1
    assert damaged > 0
    said = job.run(target, "--part", f"4/{COUNT}", "--json").json
    assert said["repaired"] > 0
    check_committed(job, target)


def test_a_part_that_comes_when_all_is_done_is_done(job):
    """Restarted, or slow to start: with what it would write there is nothing to refuse."""
    target = job.new_target()
    finish_parts(start_parts(job, target))
    for words in (), ("--overwrite",):
        assert "share 3 of 4 is done" in job.run(target, "--part", "3/4", *words).out
        said = job.run(target, "--part", "2/4", "--json", *words).json
        assert said["waiting"] is False
    check_committed(job, target)


def test_a_result_of_something_else_is_no_result_of_ours(job):
    """A byte of part 1 is another: part 1 finds that it exists, the others cannot know."""
    target = job.new_target()
    finish_parts(start_parts(job, target))
    path = max((p for p in target.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    codes = [job.run(target, "--part", f"{part}/{COUNT}", check=(0, 2)).status
             for part in range(1, COUNT + 1)]
    assert 2 in codes
    assert not target.with_name("out.partial").exists()


def test_parts_killed_when_all_was_written_end_well_one_by_one(job, fault):
    """The first commits; the others find the result."""
    target = job.new_target()
    for part in range(1, COUNT):
        job.run(target, "--part", f"{part}/{COUNT}")
    job.run(target, "--part", f"{COUNT}/{COUNT}", check=-signal.SIGKILL,
            env=fault.env("rename:kill:1+", str(target.parent)))
    assert fault.injected and not target.exists()
    for part in range(1, COUNT + 1):
        job.run(target, "--part", f"{part}/{COUNT}")
        assert target.exists()
    check_committed(job, target)


def test_a_commit_killed_among_its_journals_stays_one(job):
    """The result has its name: it is not taken back to wait for parts that were done."""
    target = job.new_target()
    for part in range(1, COUNT):
        job.run(target, "--part", f"{part}/{COUNT}")
    left = target.with_name("out.partial") / f".ckpt-journal.2-of-{COUNT}"
    text = left.read_bytes()
    job.run(target, "--part", f"{COUNT}/{COUNT}")
    (target / left.name).write_bytes(text)
    (target / ".ckpt-journal.commit").touch()
    assert job.run(target, "--part", f"4/{COUNT}", "--json").json["waiting"] is False
    check_committed(job, target)


def test_a_result_of_an_older_source_is_no_result(job, golden_b, tmp_path):
    """One tensor changed since: its part alone sees that in the values."""
    source = shutil.copytree(golden_b, tmp_path / "source")
    old, new = Job(tmp_path, job.tool, *job.args[:-1], source), tmp_path / "new" / "out"
    target = old.new_target()
    finish_parts(start_parts(old, target))
    with open(min(source.glob("*.safetensors")), "r+b") as file:
        size, = struct.unpack("<Q", file.read(8))
        entries = json.loads(file.read(size))
        begin, end = next(e["data_offsets"] for e in entries.values()
                          if isinstance(e, dict) and e.get("dtype") == "BF16")
        file.seek(8 + size + begin)
        file.write(bytes(end - begin))
    finish_parts(start_parts(old, target), allowed=(2,))
    finish_parts([old.start(target, "--part", f"{part}/{COUNT}", "--overwrite")
                  for part in range(1, COUNT + 1)])
    old.run(new)
    assert tree(target) == tree(new) != job.expected
    assert os.listdir(target.parent) == ["out"]


@pytest.fixture(scope="module")
def seconds(job):
    """How long four processes take here."""
    begin = time.monotonic()
    finish_parts(start_parts(job, job.new_target()))
    return time.monotonic() - begin


@pytest.mark.parametrize("victims", [1, COUNT], ids=["one", "all"])
def test_killed_at_random_and_run_again_nothing_differs(job, seconds, victims):
    """Fifty moments over all layouts, from before the first byte to after the rename."""
    rng, rounds = random.Random(victims), 0
    while rounds < 5:
        target = job.new_target()
        processes = start_parts(job, target)
        time.sleep(rng.uniform(0, seconds))
        for part in rng.sample(range(COUNT), victims):
            processes[part].kill()
        codes = finish_parts(processes, allowed=(0, -signal.SIGKILL))
        again = [i + 1 for i, code in enumerate(codes) if code != 0]
        if again:
            rounds += 1
        else:                    # all were faster than the clock
            seconds /= 2
        if target.exists():      # the last one was killed on its way out, or the victim was done
            check_committed(job, target, clean=not again)
            continue
        # One by one: if those that were killed had done their shares, the first makes it appear.
        for part in again:
            job.run(target, "--part", f"{part}/{COUNT}")
        check_committed(job, target)
