"""What a command says while it works: on a terminal of any width, in a log, on signals."""
import fcntl
import os
import pathlib
import pty
import re
import signal
import struct
import subprocess
import termios

import pytest

from cli.held import FIELDS, Held
from conftest import BUILD, SANITIZER, run_tool


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("progress") / "tiny"
    run_tool("ckpt-synth", "--config", "tiny", path)
    return path


class Screen:
    """A terminal as far as tools use one: lines wrap, and wrap anew when it is resized."""

    def __init__(self, columns):
        self.columns = columns
        self.lines = [""]          # logical lines, as long as they like
        self.at = (0, 0)           # logical line, character in it
        self.wraps = True

    def write(self, text):
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", text):
            line, column = self.at
            if part == "\r":       # of the row on the screen, not of the logical line
                self.at = (line, column - column % self.columns)
            elif part == "\n":
                self.lines.append("")
                self.at = (len(self.lines) - 1, 0)
            elif part == "\x1b[J":
                self.lines = self.lines[:line + 1]
                self.lines[line] = self.lines[line][:column]
            elif part in ("\x1b[?7l", "\x1b[?7h"):
                self.wraps = part[-1] == "h"
            elif part[0] != "\x1b":
                now = self.lines[line].ljust(column)
                self.lines[line] = now[:column] + part + now[column + 1:]
                if self.wraps or (column + 1) % self.columns != 0:
                    self.at = (line, column + 1)
            else:
                raise AssertionError(f"what is {part!r}?")

    def resize(self, columns):
        self.columns = columns

    @property
    def rows(self):
        """What is seen, without the empty rest."""
        rows = []
        for line in self.lines:
            rows += [line[i:i + self.columns] for i in range(0, max(len(line), 1), self.columns)]
        while rows and not rows[-1].strip():
            rows.pop()
        return rows


class Terminal:
    """A tool with a terminal as its stderr."""

    def __init__(self, columns, tool, *args, env=None):
        self.leader, follower = pty.openpty()
        self.screen = Screen(columns)
        self.raw = ""
        self.resize(columns)
        self.process = subprocess.Popen([BUILD / "bin" / tool, *map(str, args)], stderr=follower,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        env={**os.environ, **SANITIZER, **(env or {})})
        os.close(follower)

    def resize(self, columns):
        fcntl.ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.screen.resize(columns)

    def read(self):
        """What was said since, "" at the end."""
        try:
            text = os.read(self.leader, 4096).decode().replace("\r\n", "\n")
        except OSError:            # EIO: the other side is closed
            return ""
        self.raw += text
        self.screen.write(text)
        return text

    def read_until(self, pattern):
        start = len(self.raw)
        while not re.search(pattern, self.raw[start:]):
            assert self.read() != "", self.raw

    def finish(self):
        while self.read() != "":
            pass
        os.close(self.leader)
        return self.process.wait()


@pytest.fixture
def held(fault, tmp_path):
    return Held(fault, tmp_path / "out")


@pytest.mark.parametrize("columns", [25, 80, 200])
def test_the_line_fits_and_is_erased(tiny, tmp_path, held, columns):
    terminal = Terminal(columns, "ckpt-convert", "--dtype", "bf16", tiny, tmp_path / "out",
                        env=held.env)
    for _ in range(2):
        terminal.read_until("converting .*\x1b\\[J\r")
        assert len(terminal.screen.rows) == 1 and FIELDS.fullmatch(terminal.screen.rows[0])
    held.let_go()
    assert terminal.finish() == 0
    lines = re.findall(r"\r([a-z][^\x1b]*)\x1b\[J\r", terminal.raw)
    assert lines and all(FIELDS.fullmatch(line) and len(line) < columns for line in lines), lines
    assert max(map(len, lines)) > min(columns, 50) - 12
    assert re.fullmatch(r"ckpt-convert: wrote '.*': 456 tensors, .*, root \w{64}",
                        "".join(terminal.screen.rows)), terminal.screen.rows


def test_percent_and_bytes_are_those_of_the_whole_job(tiny, tmp_path, held):
    """Of which the phase that is seen is one third."""
    terminal = Terminal(80, "ckpt-convert", "--verify", "--dtype", "bf16", tiny, tmp_path / "out",
                        env=held.env)
    terminal.read_until("converting .* of .*\x1b\\[J\r")
    percent, done, total = re.search(r"(\d+)%.*  ([\d.]+) MB of ([\d.]+) MB",
                                     terminal.screen.rows[0]).groups()
    held.let_go()
    assert terminal.finish() == 0
    result = sum(p.stat().st_size for p in (tmp_path / "out").glob("*.safetensors")) / 1e6
    assert abs(float(total) - 3 * result) < 1, "written, synced and read back"
    assert abs(int(percent) - 100 * float(done) / float(total)) <= 1


@pytest.mark.parametrize("before, after", [(200, 25), (80, 25), (25, 200)])
def test_a_terminal_that_is_resized_keeps_no_stale_line(tiny, tmp_path, held, before, after):
    terminal = Terminal(before, "ckpt-convert", "--dtype", "bf16", tiny, tmp_path / "out",
                        env=held.env)
    terminal.read_until("converting .*\x1b\\[J\r")
    terminal.resize(after)
    for _ in range(2):                      # the first may have been on its way
        terminal.read_until("converting .*\x1b\\[J\r")
    assert len(terminal.screen.rows) == 1 and len(terminal.screen.rows[0]) < after
    held.let_go()
    assert terminal.finish() == 0
    rows = "".join(terminal.screen.rows)
    assert rows.startswith("ckpt-convert: wrote '") and rows.count("ckpt-convert") == 1, rows


def test_an_interrupted_run_leaves_its_error_alone(tiny, tmp_path, held):
    terminal = Terminal(80, "ckpt-convert", "--dtype", "bf16", tiny, tmp_path / "out",
                        env=held.env)
    terminal.read_until("converting .*\x1b\\[J\r")
    held.interrupt(terminal.process, signal.SIGINT)
    assert terminal.finish() == -signal.SIGINT
    assert "".join(terminal.screen.rows) == \
        "ckpt-convert: interrupted; run the same command again to resume"


def test_every_phase_has_its_name(tiny, tmp_path):
    said = run_tool("ckpt-convert", "--verbose", "--verify", "--dtype", "bf16", tiny,
                    tmp_path / "out").err.splitlines()
    assert [line.removeprefix("ckpt-convert: ") for line in said[:-1]] == \
        ["reading", "converting", "verifying", "syncing"] and " wrote " in said[-1]


@pytest.mark.parametrize("words", [["ckpt-verify", "digest"], ["ckpt-inspect", "--stat"],
                                   ["ckpt-verify", "check", "--values"]])
def test_commands_that_only_read_say_so(tiny, words):
    assert run_tool(*words, "-v", tiny).err == f"{words[0]}: reading\n"
    assert run_tool(*words, "-v", "-q", tiny).err == ""


def test_a_comparison_says_that_it_reads(tiny):
    assert run_tool("ckpt-verify", "compare", "-v", tiny, tiny).err == "ckpt-verify: reading\n"


@pytest.mark.parametrize("words, said", [(["--quiet"], ""), (["--progress", "never"], "wrote")])
def test_quiet_and_never_draw_nothing(tiny, tmp_path, fault, words, said):
    """Through 400 ms of work: five lines a second would be drawn."""
    terminal = Terminal(80, "ckpt-convert", *words, "--dtype", "bf16", tiny, tmp_path / "out",
                        env=fault.env("short-read:1,short-write:1", "out.partial"))
    assert terminal.finish() == 0
    assert "\x1b" not in terminal.raw and bool(said) == bool(terminal.raw)
    assert said in terminal.raw


def test_always_draws_into_a_pipe(tiny, tmp_path, held):
    process = subprocess.Popen([BUILD / "bin" / "ckpt-convert", "--progress", "always", "--dtype",
                                "bf16", tiny, tmp_path / "out"], stderr=subprocess.PIPE,
                               env={**os.environ, **held.env, "COLUMNS": "30"})
    said = b""
    while said.count(b"\x1b[J\r") < 2:
        said += os.read(process.stderr.fileno(), 4096)
    held.let_go()
    said += process.stderr.read()
    assert process.wait() == 0
    lines = re.findall(r"\r([a-z][^\x1b]*)\x1b\[J\r", said.decode())
    assert lines and all(len(line) < 30 and FIELDS.fullmatch(line) for line in lines), said


def test_a_log_has_a_line_every_period(tiny, fault):
    """While a disk does not answer, too."""
    process = subprocess.Popen([BUILD / "bin" / "ckpt-verify", "digest", "--progress-interval", "1",
                                tiny], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, **fault.env("pread:hang:12", "model-00003")})
    lines = [process.stderr.readline() for _ in range(2)]
    process.kill()
    process.communicate()
    for line in lines:
        assert re.fullmatch(r"ckpt-verify: reading .* so far\n", line), lines


# ---- signals ----

@pytest.mark.parametrize("args", [["ckpt-verify", "digest"], ["ckpt-inspect", "--stat"],
                                  ["ckpt-verify", "check", "--values"]])
def test_sigusr1_prints_the_state_and_does_nothing_else(tiny, fault, args):
    """Twice, and the result is what it is without."""
    expected = run_tool(*args, tiny).out
    env = {**os.environ, **SANITIZER, **fault.env("pread:stop:12", "model-00003")}
    process = subprocess.Popen([BUILD / "bin" / args[0], *args[1:], tiny], env=env, text=True,
                               stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    stat = pathlib.Path(f"/proc/{process.pid}/stat")
    while stat.read_text().split()[2] != "T":
        assert process.poll() is None
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and out == expected
    assert re.fullmatch(args[0] + r": (reading|done) .* so far\n", err), err


@pytest.mark.skipif("tsan" in BUILD.name, reason="ThreadSanitizer keeps a signal back while a call "
                    "that it does not take for a blocking one, such as open, waits")
def test_sigusr1_is_answered_by_a_command_that_waits(tiny, tmp_path):
    """It opens a pipe that nobody writes to: no loop runs that could look at a flag."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen([BUILD / "bin" / "ckpt-run", "--tokens", pipe, tiny],
                               stderr=subprocess.PIPE, text=True)
    syscall = pathlib.Path(f"/proc/{process.pid}/syscall")
    while not syscall.read_text().startswith("257 "):           # openat
        assert process.poll() is None
    process.send_signal(signal.SIGUSR1)
    assert re.fullmatch(r"ckpt-run: working  0:\d\d so far\n", process.stderr.readline())
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM


def test_an_ignored_sigusr1_stays_ignored(tiny):
    script = "trap '' USR1; \"$0\" digest --quiet \"$1\" & kill -USR1 $!; wait $!"
    done = subprocess.run(["bash", "-c", script, BUILD / "bin" / "ckpt-verify", tiny],
                          capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
