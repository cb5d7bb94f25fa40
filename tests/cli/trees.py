"""Small checkpoints, and folders compared byte by byte."""
import functools
import hashlib
import itertools
import os
import signal
import subprocess
import time

from conftest import BUILD, SANITIZER, run_tool

INSTRUMENTED = "asan" in BUILD.name or "tsan" in BUILD.name


def tree(folder):
    """Every file below `folder`, hidden ones too, with the SHA-256 of its bytes."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return files


def start_tool(tool, *args, env=None):
    """The tool as a process that runs beside the test."""
    return subprocess.Popen([BUILD / "bin" / tool, *map(str, args)], text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, **SANITIZER, **(env or {})})


def wait_until_stopped(process):
    """Did it stop (SIGSTOP), or end?"""
    end = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    return end.si_code == os.CLD_STOPPED


def partial(target):
    return target.with_name(target.name + ".partial")


def journal(target):
    return partial(target) / ".ckpt-journal"


class Job:
    """One command that makes a folder, and what the folder holds when nothing goes wrong."""

    def __init__(self, folder, *command):
        self.tool, *self.args = command
        self.folder = folder
        self.runs = 0

    @functools.cached_property
    def expected(self):
        done = self.new_target()
        self.run(done)
        return tree(done)

    def new_target(self):
        self.runs += 1
        return self.folder / f"run{self.runs}" / "out"

    def run(self, target, *more, **how):
        target.parent.mkdir(exist_ok=True)
        return run_tool(self.tool, *self.args, *more, target, **how)

    def start(self, target, *more, env=None):
        target.parent.mkdir(exist_ok=True)
        return start_tool(self.tool, *self.args, *more, target, env=env)

    def finish(self, target, *more, **how):
        """The same command again, undisturbed: the same bytes, and nothing beside them."""
        self.run(target, *more, **how)
        assert tree(target) == self.expected
        assert os.listdir(target.parent) == ["out"]

    def finish_or_check(self, target):
        """After a kill. Behind the last rename all is there, and the journal may be, too."""
        if target.exists():
            (target / ".ckpt-journal").unlink(missing_ok=True)
            assert tree(target) == self.expected
        else:
            self.finish(target)

    def killed_in_turn(self, call, step, fault):
        """The targets of runs that were killed at every `step`th of these calls."""
        for n in itertools.count(1, step):
            target = self.new_target()
            self.run(target, check=(0, -signal.SIGKILL),
                     env=fault.env(f"{call}:kill:{n}", target.parent))
            if not fault.injected:
                return
            yield target

    def killed_by_the_clock(self, count, rng):
        """The targets of so many runs that were killed, at moments spread over a whole run."""
        begin = time.monotonic()
        self.run(self.new_target())
        seconds = time.monotonic() - begin
        while count > 0:
            target = self.new_target()
            process = self.start(target)
            time.sleep(rng.uniform(0, seconds))
            process.kill()
            process.communicate()
            if process.returncode == -signal.SIGKILL:
                count -= 1
                yield target
            else:                 # it was faster than the clock
                assert process.returncode == 0
                seconds /= 2
