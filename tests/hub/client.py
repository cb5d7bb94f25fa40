"""Running ckpt-download against the mock hub: what the download tests share."""
import os
import pathlib
import signal
import subprocess
import time

from conftest import BUILD, SANITIZER
from mock_hub import Entry, Repo

MIB = 1 << 20
ID = "o/m"
STOP_SECONDS = 60            # not a speed: what only a client that waits for a server would take
SIDE = pathlib.Path(".cache/huggingface/ckpt")


def environment(hub, home, **more):
    keep = {k: v for k, v in os.environ.items()
            if not k.lower().endswith("_proxy") and not k.startswith(("HF_", "MODELSCOPE_"))}
    return {**keep, **SANITIZER, "HF_ENDPOINT": hub.url, "HF_HOME": str(home),
            "MODELSCOPE_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0",
            **more}


class Client:
    """download(...) runs the tool on D; the folder and what is in it can be asked about."""

    def __init__(self, ckpt, hub, tmp_path):
        self.ckpt = ckpt
        self.hub = hub
        self.folder = tmp_path / "D"
        self.env = environment(hub, tmp_path / "home")

    def words(self, *args, where=None):
        where = ("--local-dir", self.folder) if where is None else where
        return [ID, *where, "--json", "--quiet", "--stall-timeout", 3, *args]

    def __call__(self, *args, check=0, where=None, **env):
        done = self.ckpt("ckpt-download", *self.words(*args, where=where), check=check,
                         env={**self.env, **env}, timeout=180)
        self.hub.settle()
        return done

    def start(self, *args):
        words = [str(w) for w in self.words(*args)]
        return subprocess.Popen([BUILD / "bin" / "ckpt-download", *words], env=self.env,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def stop(self, process, number=signal.SIGKILL):
        process.send_signal(number)
        out, err = process.communicate(timeout=STOP_SECONDS)
        return process.returncode, out, err

    @property
    def parts(self):
        """Unfinished files and their journals."""
        side = self.folder / SIDE
        return sorted(p.name for p in side.iterdir()
                      if p.suffix in (".part", ".state", ".new") or p.name.startswith("new.")
                      ) if side.exists() else []

    @property
    def visible(self):
        """Everything in D that is no side file."""
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*")
                      if p.is_file() and ".cache" not in p.parts) if self.folder.exists() else []

    def assert_right(self, *paths):
        """The files are there, byte for byte, and nothing else; no token went astray."""
        files = [f for f in self.hub.repos[ID].files if not paths or f.path in paths]
        assert self.visible == sorted(f.path for f in files)
        for f in files:
            assert (self.folder / f.path).read_bytes() == f.content.bytes(), f.path
        assert self.parts == []
        assert self.hub.leaks == []


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.005)


def mixed():
    """A repository with each kind and shape of file."""
    return Repo(ID, [Entry("big.bin", 40 * MIB + 12345, 1), Entry("dir/mid.bin", 3 * MIB, 2),
                     Entry("config.json", 700, 3, "git"),
                     Entry("dir/sub/di rect+ü.txt", 3001, 4, "git", "direct"),
                     Entry("empty", 0, 5, "git"), Entry(".gitattributes", 20, 6, "git")])


def one(size=20 * MIB, **options):
    return Repo(ID, [Entry("f.bin", size, 9, **options)])
