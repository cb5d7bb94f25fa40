"""The fault injector does what it says: a fault that never came would make a test lie."""
import os
import signal
import subprocess
import sys

import pytest

from cli.trees import INSTRUMENTED, wait_until_stopped

WRITE = "os.pwrite(fd, b'x' * 100, 0)"
PROGRAM = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for line in sys.argv[2:]:
    try:
        print(eval(line))
    except OSError as error:
        print(os.strerror(error.errno))
"""


def start(env, path, *lines):
    if INSTRUMENTED:
        pytest.skip("python itself is not built with the sanitizer")
    return subprocess.Popen([sys.executable, "-c", PROGRAM, path, *lines], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, **env})


def run(env, path, *lines):
    process = start(env, path, *lines)
    out, _ = process.communicate()
    return process.returncode, out.split("\n")[:-1]


@pytest.mark.parametrize("rule, line, said", [
    ("pwrite:ENOSPC:1", WRITE, "No space left on device"),
    ("write:EIO:1", WRITE, "Input/output error"),
    ("write:EIO:1", "os.write(fd, b'x')", "Input/output error"),
    ("write:EDQUOT:1", "os.pwritev(fd, [b'x'], 0)", "Disk quota exceeded"),
    ("read:EIO:1", "os.pread(fd, 1, 0)", "Input/output error"),
    ("pread:EIO:1", "os.preadv(fd, [bytearray(1)], 0)", "Input/output error"),
    ("fsync:EIO:1", "os.fsync(fd)", "Input/output error"),
    ("fsync:EIO:1", "os.fdatasync(fd)", "Input/output error"),
    ("ftruncate:EFBIG:1", "os.ftruncate(fd, 1)", "File too large"),
    ("rename:EXDEV:1", "os.rename(sys.argv[1], sys.argv[1] + 'x')", "Invalid cross-device link"),
    ("close:EIO:1", "os.close(fd)", "Input/output error"),
    ("open:EMFILE:1", "os.open(sys.argv[1] + '.part', os.O_CREAT)", "Too many open files"),
])
def test_each_call_can_fail(rule, line, said, fault, tmp_path):
    env = fault.env(rule, ".part" if rule.startswith("open") else "victim")
    assert run(env, tmp_path / "victim", line)[1] == [said]
    assert len(fault.injected) == 1


def test_only_the_nth_call_fails(fault, tmp_path):
    _, out = run(fault.env("write:EIO:2", "victim"), tmp_path / "victim", WRITE, WRITE, WRITE)
    assert out == ["100", "Input/output error", "100"]


def test_a_plus_means_from_the_nth_on(fault, tmp_path):
    _, out = run(fault.env("write:EIO:2+", "victim"), tmp_path / "victim", WRITE, WRITE, WRITE)
    assert out == ["100", "Input/output error", "Input/output error"]
    assert len(fault.injected) == 2


def test_other_paths_are_left_alone(fault, tmp_path):
    _, out = run(fault.env("write:EIO:1+", "elsewhere"), tmp_path / "victim", WRITE)
    assert out == ["100"] and fault.injected == []


def test_kill_comes_before_the_write(fault, tmp_path):
    status, out = run(fault.env("write:kill:2", "victim"), tmp_path / "victim",
                      "os.pwrite(fd, b'one', 0)", "os.pwrite(fd, b'two', 3)")
    assert status == -signal.SIGKILL
    assert (tmp_path / "victim").read_bytes() == b"one"
    assert fault.injected == ["write kill at 2"]


def test_stop_comes_before_the_write_which_then_happens(fault, tmp_path):
    path = tmp_path / "victim"
    process = start(fault.env("write:stop:2", "victim"), path, "os.pwrite(fd, b'one', 0)",
                    "os.pwrite(fd, b'two', 3)")
    assert wait_until_stopped(process)
    assert path.read_bytes() == b"one" and fault.injected == ["write stop at 2"]
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0 and path.read_bytes() == b"onetwo"


def test_reads_and_writes_are_shortened(fault, tmp_path):
    lines = [WRITE] * 20 + ["len(os.pread(fd, 100, 0))"] * 20
    _, out = run(fault.env("short-read:1,short-write:2", "victim"), tmp_path / "victim", *lines)
    counts = [int(n) for n in out]
    assert all(1 <= n <= 100 for n in counts)
    assert len(set(counts[:20])) > 5 and len(set(counts[20:])) > 3


@pytest.mark.parametrize("rule", ["wite:EIO:1", "write:EWHAT:1", "write:EIO:0", "write:EIO", "x"])
def test_a_rule_that_is_not_understood_is_refused(rule, fault, tmp_path):
    assert run(fault.env(rule, "victim"), tmp_path / "victim", WRITE)[0] == 99
