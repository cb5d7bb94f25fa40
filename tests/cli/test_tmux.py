"""What is left on the screen of a real terminal, tmux, of any width, resized while a tool works."""
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time

import pytest

from cli.held import FIELDS, Held
from client import ID, environment, one
from conftest import BUILD, SANITIZER, run_tool
from mock_hub import Hub

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None,
                                reason="there is no tmux here: scripts/setup --tests")
HANG_SECONDS = 120
# What is on the screen already, as above any prompt. On an empty one, tmux moves the first rows of
# a line that it wraps anew into its history, where no program can erase them.
LINES_ABOVE = r"$\n" * 8


class Tmux:
    """A terminal with one pane, in which a shell runs a script and says END at its end."""

    def __init__(self, columns, script, env=None):
        self.folder = tempfile.mkdtemp(prefix="tmux-")       # a socket's path must be short
        self.env = {k: v for k, v in os.environ.items() if k != "TMUX"}
        self.env |= {**SANITIZER, **(env or {}), "TMUX_TMPDIR": self.folder,
                     "PATH": f"{BUILD / 'bin'}:{os.environ['PATH']}"}
        # The pane's shell waits until the window has its size, and stays when all is said.
        self("-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", 24, "sh", "-c",
             f"printf '{LINES_ABOVE}'; tmux wait-for go; {script}; echo END $?; exec cat",
             ";",
             "set-option", "-g", "window-size", "manual", ";",
             "resize-window", "-x", columns, "-y", 24)
        self("wait-for", "-S", "go")

    def __call__(self, *words):
        return subprocess.run(["tmux", *map(str, words)], env=self.env, check=True, text=True,
                              capture_output=True).stdout

    def resize(self, columns):
        self("resize-window", "-x", columns, "-y", 24)

    def rows(self, *more):
        """What is seen, without the empty rest; with "-S", "-", "-J" whole lines, from the first
        that was ever scrolled away."""
        rows = [row.rstrip() for row in self("capture-pane", "-p", *more).splitlines()]
        while rows and not rows[-1]:
            rows.pop()
        return rows[sum(row == "$" for row in rows):]

    def wait_for(self, is_so):
        """Until the rows are as they should be."""
        until = time.monotonic() + HANG_SECONDS
        while not is_so(rows := self.rows()):
            assert time.monotonic() < until, rows
            time.sleep(0.02)
        return rows

    def finish(self):
        self.wait_for(lambda rows: any(re.fullmatch(r"END \d+", row) for row in rows))
        return self.rows("-S", "-", "-J")

    def close(self):
        subprocess.run(["tmux", "kill-server"], env=self.env, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def tmux():
    open_ones = []

    def start(*args, **more):
        open_ones.append(Tmux(*args, **more))
        return open_ones[-1]

    yield start
    for each in open_ones:
        each.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tmux") / "tiny"
    run_tool("ckpt-synth", "--config", "tiny", path)
    return path


@pytest.fixture
def convert(tiny, tmp_path):
    return shlex.join(["ckpt-convert", "--dtype", "bf16", str(tiny), str(tmp_path / "out")])


@pytest.fixture
def held(fault, tmp_path):
    return Held(fault, tmp_path / "out")


def is_one_line(columns):
    return lambda rows: (len(rows) == 1 and FIELDS.fullmatch(rows[0].strip()) is not None and
                         len(rows[0]) < columns)


def assert_closed(lines):
    assert len(lines) == 2 and lines[1] == "END 0", lines
    assert re.fullmatch(r"ckpt-convert: wrote '.*': 456 tensors, .*, root \w{64}", lines[0]), lines


@pytest.mark.parametrize("columns", [25, 80, 200])
def test_one_line_while_it_works_and_none_of_it_afterwards(tmux, convert, held, columns):
    terminal = tmux(columns, convert, env=held.env)
    terminal.wait_for(is_one_line(columns))
    held.let_go()
    assert_closed(terminal.finish())


@pytest.mark.parametrize("before, after", [(200, 25), (80, 25), (25, 80), (25, 200)])
def test_a_resized_terminal_has_no_stale_line(tmux, convert, held, before, after):
    terminal = tmux(before, convert, env=held.env)
    terminal.wait_for(is_one_line(before))
    terminal.resize(after)
    terminal.wait_for(is_one_line(after))
    terminal.resize(before)
    terminal.wait_for(is_one_line(before))
    terminal.resize(after)
    held.let_go()
    assert_closed(terminal.finish())


def test_nothing_is_drawn_into_a_pipe(tmux, convert):
    assert_closed(tmux(80, f"{convert} 2>&1 | cat").finish())


@pytest.mark.parametrize("columns", [25, 80, 200])
def test_a_download_leaves_its_last_line_alone(tmux, fault, tmp_path, columns):
    """Its block of several lines is erased, too."""
    gate = tmp_path / "gate"
    words = ["ckpt-download", ID, "--local-dir", str(tmp_path / "m")]
    with Hub([one(1 << 20)]) as hub:
        terminal = tmux(columns, shlex.join(words) + " > /dev/null",
                        env={**environment(hub, tmp_path / "home"), "CKPT_FAULT_GATE": str(gate),
                             **fault.env("fsync:hang:1", tmp_path / "m")})
        terminal.wait_for(lambda rows: any("%" in row for row in rows))
        gate.touch()
        lines = terminal.finish()
    assert fault.injected
    assert len(lines) == 2 and lines[0].startswith("ckpt-download: ") and lines[1] == "END 0", lines
