"""Fixtures that every Python test shares: the tools, golden data, faults, small disks."""
import dataclasses
import json
import os
import pathlib
import signal
import subprocess

import pytest

# Loaded after this file, whose names it needs.
pytest_plugins = ["hub_fixtures"]

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
BUILD = (ROOT / os.environ.get("CKPT_BUILD", "build")).resolve()
# `make check-release`: what is too long for every check, or a part of it there.
RELEASE = os.environ.get("CKPT_RELEASE") == "1"
# A sanitizer that finds something must not look like one of the tools' own exit statuses.
SANITIZER = {"ASAN_OPTIONS": "exitcode=86:detect_leaks=1:abort_on_error=0",
             "UBSAN_OPTIONS": "print_stacktrace=1",
             "TSAN_OPTIONS": "exitcode=86:halt_on_error=1"}


def pytest_configure(config):
    """A skipped test says why, whatever options pytest was started with."""
    config.addinivalue_line("markers", "release: is longer in make check-release")
    if "s" not in config.option.reportchars.lower():
        config.option.reportchars += "s"


# A shell starts what runs in its background with SIGINT ignored, and the tools keep that. A handler
# (other than SIG_IGN) becomes the default in every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclasses.dataclass
class Result:
    """What a tool did."""
    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def run_tool(tool, *args, check=0, env=None, input=None, timeout=300, cwd=None):
    """Run build/bin/TOOL and check its exit status (a number, a tuple of them, None: any).

    Whatever the status, the contract on stderr is checked: nothing on success, else one line that
    starts with the tool's name (sanitizer reports break it, as they should).
    """
    text = input is None or isinstance(input, str)
    done = subprocess.run([BUILD / "bin" / tool, *map(str, args)], input=input, text=text,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, cwd=cwd,
                          stdin=subprocess.DEVNULL if input is None else None,
                          env={**os.environ, **SANITIZER, **(env or {})})
    out, err = (s if text else s.decode() for s in (done.stdout, done.stderr))
    said = f"{tool} {' '.join(map(str, args))}\nstatus {done.returncode}\n{err}\n{out[-4000:]}"
    allowed = (check,) if isinstance(check, int) else check
    assert allowed is None or done.returncode in allowed, said
    if done.returncode == 2:
        assert err.startswith(tool + ": ") and err.endswith("\n") and err.count("\n") == 1, said
    elif done.returncode >= 0:
        assert done.returncode in (0, 1), said
    return Result(done.returncode, out, err)


@pytest.fixture(scope="session")
def ckpt():
    """ckpt("ckpt-convert", "--dtype", "bf16", src, dst, check=0) -> Result(status, out, err)."""
    return run_tool


@pytest.fixture(scope="session")
def digest(ckpt):
    """digest(path) -> the value digest's root, as ckpt-verify computes it."""
    def root(path, key="root", **options):
        return ckpt("ckpt-verify", "digest", "--json", path, **options).json[key]
    return root


@pytest.fixture(scope="session")
def build():
    """The build folder, for libraries: build / "tests" / "libkernels-test.so"."""
    return BUILD


@pytest.fixture(scope="session")
def data():
    """tests/data, see its README."""
    return DATA


@pytest.fixture(scope="session", params=["golden-a", "golden-b"])
def golden(request):
    """Each of the two golden checkpoints in turn. Read only."""
    return DATA / request.param


@pytest.fixture(scope="session")
def golden_a():
    return DATA / "golden-a"


@pytest.fixture(scope="session")
def golden_b():
    return DATA / "golden-b"


class Fault:
    """Environment for one run under tests/fault/fault.c, and what it injected."""

    def __init__(self, log):
        self.log = log

    def env(self, rules, path=None):
        """rules: "pwrite:ENOSPC:40,short-read:7"; path: only files whose path contains it."""
        self.log.unlink(missing_ok=True)
        env = {"LD_PRELOAD": str(BUILD / "tests" / "fault.so"), "CKPT_FAULT": rules,
               "CKPT_FAULT_LOG": str(self.log)}
        if path is not None:
            env["CKPT_FAULT_PATH"] = str(path)
        return env

    @property
    def injected(self):
        """Lines "pwrite ENOSPC at 40". A test whose fault never came has tested nothing."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def fault(tmp_path):
    """run with env=fault.env("fsync:EIO:1"), then assert fault.injected."""
    return Fault(tmp_path / "fault.log")


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(MiB) -> a folder that is a file system of its own, where that is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(size):
        nonlocal mounted
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "none", folder],
                              capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip("this test mounts a tmpfs, which is not allowed here: " + done.stderr)
        mounted = True
        return folder
    yield mount
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)      # a failed test may be at it
