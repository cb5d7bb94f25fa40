"""An allocation fails: one line, status 2, nothing under DST, or the right result all the same."""
import random

import pytest

from client import MIB, Client, one
from conftest import BUILD, run_tool
from mock_hub import Hub

RUNS = 24

pytestmark = pytest.mark.skipif(
    any(word in (BUILD / "bin" / "ckpt-inspect").read_bytes() for word in (b"__asan_", b"__tsan_")),
    reason="a sanitizer has an allocator of its own")


class NoMemory:
    """Which allocation of a run is to fail, and how many there were."""

    def __init__(self, log):
        self.log = log

    def env(self, number, least=0):
        return {"LD_PRELOAD": str(BUILD / "tests" / "no_memory.so"), "CKPT_NO_MEMORY": str(number),
                "CKPT_NO_MEMORY_LEAST": str(least), "CKPT_NO_MEMORY_LOG": str(self.log)}

    def numbers(self, seed):
        """Of allocations to fail, after a run in which none did."""
        count = int(self.log.read_text())
        assert count > 20
        return sorted(random.Random(seed).sample(range(1, count + 1), min(RUNS, count)))


@pytest.fixture
def no_memory(tmp_path):
    return NoMemory(tmp_path / "allocations")


COMMANDS = {
    "inspect": ("ckpt-inspect", "SRC"), "digest": ("ckpt-verify", "digest", "--json", "SRC"),
    "compare": ("ckpt-verify", "compare", "SRC", "SRC"),
    "check": ("ckpt-verify", "check", "--structure-only", "SRC"),
    "convert": ("ckpt-convert", "--experts", "fp8", "--threads", "1", "SRC", "DST"),
    "share": ("ckpt-convert", "--dtype", "bf16", "--part", "1/2", "SRC", "DST"),
    "mp": ("ckpt-shard", "--layout", "mp", "--mp", "2", "SRC", "DST"),
    "torch_dist": ("ckpt-shard", "--layout", "torch_dist", "SRC", "DST"),
    "run": ("ckpt-run", "--tokens", "-", "--threads", "1", "SRC"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_any_allocation_may_fail(no_memory, golden_a, tmp_path, name):
    def run(number, **options):
        target = tmp_path / f"out{number}"
        words = [{"SRC": golden_a, "DST": target}.get(word, word) for word in COMMANDS[name]]
        return target, run_tool(*words, env=no_memory.env(number), input="1 2 3", **options)

    good_target, good = run(0)
    failed = 0
    for number in no_memory.numbers(name):
        target, done = run(number, check=(0, 2))
        failed += done.status == 2
        if done.status == 2:
            assert not target.exists() and done.err.count("\n") == 1
        elif "DST" not in COMMANDS[name]:
            assert done.out == good.out
        else:
            assert target.exists() == good_target.exists()
    assert failed > 0


def test_any_allocation_of_a_download_may_fail(ckpt, no_memory, tmp_path):
    with Hub([one(2 * MIB)]) as hub:
        download = Client(ckpt, hub, tmp_path / "first")
        (tmp_path / "first").mkdir()
        download(**no_memory.env(0))
        for number in no_memory.numbers("download"):
            folder = tmp_path / f"at{number}"
            folder.mkdir()
            again = Client(ckpt, hub, folder)
            done = again(check=(0, 1, 2), **no_memory.env(number))
            if done.status != 0:
                again()                      # what arrived is used, or fetched once more
            again.assert_right()


def test_the_first_allocation_of_a_converter_may_fail(no_memory, golden_a, tmp_path):
    """That of its command line, before there is anything that could tell of it."""
    failed = run_tool("ckpt-convert", "--dtype", "bf16", golden_a, tmp_path / "out", check=2,
                      env=no_memory.env(1))
    assert "memory" in failed.err and not (tmp_path / "out").exists()


def test_any_large_allocation_of_a_download_may_fail(ckpt, no_memory, tmp_path):
    """Above all the buffers of threads that hash."""
    large = 64 << 10
    with Hub([one(2 * MIB)]) as hub:
        (tmp_path / "first").mkdir()
        Client(ckpt, hub, tmp_path / "first")(**no_memory.env(0, large))
        count = int(no_memory.log.read_text())
        assert 0 < count < 100
        failed = 0
        for number in range(1, count + 1):
            folder = tmp_path / f"at{number}"
            folder.mkdir()
            download = Client(ckpt, hub, folder)
            done = download(check=(0, 2), **no_memory.env(number, large))
            failed += done.status == 2
            if done.status != 0:
                download()
            download.assert_right()
        assert failed > 0
