"""What every command promises: help, version, exit statuses, one line of error, quiet pipes."""
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess

import pytest

from corrupt.files import Tensor, file_bytes
from conftest import BUILD, ROOT, run_tool

TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("ckpt-*.c"))
COMMON = ["--json", "--quiet", "--threads", "--memory"]
VERSION = re.search(r'#define CKPT_VERSION "([^"]+)"',
                    (ROOT / "libckpt" / "ckpt.h").read_text()).group(1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("contract") / "tiny"
    run_tool("ckpt-synth", "--config", "tiny", path)
    return path


def subcommands(tool):
    """Words of the usage line: "ckpt-verify digest|check|compare ..."."""
    usage = re.search(rf"^Usage: {tool} ([a-z|-]+)(?=\s)", run_tool(tool, "--help").out, re.M)
    return usage.group(1).split("|") if usage else []


def every_command():
    """(tool, words) of every command and subcommand."""
    for tool in TOOLS:
        yield tool, []
        for word in subcommands(tool):
            yield tool, [word]


@pytest.fixture(scope="module")
def commands():
    found = list(every_command())
    assert {"ckpt-convert", "ckpt-synth", "ckpt-inspect", "ckpt-verify"} <= {t for t, _ in found}
    return found


def test_help_is_complete(commands):
    """On stdout, with every option that works, and not a word on stderr."""
    for tool, words in commands:
        result = run_tool(tool, *words, "--help")
        assert result.err == "" and "Usage: " + " ".join([tool, *words]) in result.out
        assert "Exit status" in result.out
        if not words and subcommands(tool):
            continue
        for option in ["--help", "--version", *(COMMON if tool != "ckpt-download" else [])]:
            assert option in result.out, f"{tool} {words} does not have {option}"


def test_help_fits_a_terminal(commands):
    for tool, words in commands:
        for line in run_tool(tool, *words, "--help").out.splitlines():
            assert len(line) <= 100, f"{tool}: {line}"


def test_version_is_that_of_the_library(commands):
    for tool, words in commands:
        assert run_tool(tool, *words, "--version").out == f"{tool} {VERSION}\n"


@pytest.mark.parametrize("args", [["--no-such-option"], ["-x"], ["--threads", "many"],
                                  ["--memory", "-1"], ["--memory", "1.5XB"], ["--threads"],
                                  ["--json=yes"], []])
def test_what_is_not_understood_is_refused(commands, args):
    for tool, words in commands:
        result = run_tool(tool, *words, *args, check=2)
        assert result.out == ""


def test_an_empty_value_is_refused(commands):
    """As of a shell variable that is not set: nothing is guessed from it."""
    for tool, words in commands:
        shown = run_tool(tool, *words, "--help").out
        for option, value in re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+) ([^ a-z]\S*|\S+\|\S+)", shown,
                                        re.M):
            if option == "--then":             # the rest of the line is another command
                continue
            for given in ([f"{option}="], [option, ""]):
                err = run_tool(tool, *words, *given, check=2).err
                assert f"for option '{option}': expected " in err and err.endswith(", got ''\n")


def test_too_many_arguments_are_refused(commands, tiny):
    for tool, words in commands:
        if words != ["digest"]:             # of any number of checkpoints
            run_tool(tool, *words, *[tiny] * 9, check=2)


def test_a_path_that_does_not_exist_is_named(tiny, tmp_path):
    absent = tmp_path / "absent\nwith a line break"
    for args in (["ckpt-convert", absent, tmp_path / "out"], ["ckpt-inspect", absent],
                 ["ckpt-verify", "digest", absent], ["ckpt-verify", "compare", tiny, absent],
                 ["ckpt-synth", "--config", absent, tmp_path / "out"]):
        assert "absent" in run_tool(*args, check=2).err        # on one line: run_tool looks
    assert os.listdir(tmp_path) == []


def test_different_is_status_1_and_not_an_error(tiny, tmp_path):
    run_tool("ckpt-synth", "--config", "tiny", "--seed", 2, tmp_path / "other")
    result = run_tool("ckpt-verify", "compare", "--json", tiny, tmp_path / "other", check=1)
    assert result.json["same"] is False and result.err == ""
    assert run_tool("ckpt-verify", "compare", "--json", tiny, tiny).json["same"] is True


# ---- --json, --quiet, --dry-run ----

def json_commands(tiny, out):
    return [["ckpt-inspect", tiny], ["ckpt-inspect", "--logical", tiny],
            ["ckpt-inspect", "--stat", tiny], ["ckpt-inspect", "--for", "vllm", tiny],
            ["ckpt-inspect", "--values", "0", "--tensors", "norm.weight", tiny],
            ["ckpt-verify", "digest", tiny], ["ckpt-verify", "compare", tiny, tiny],
            ["ckpt-verify", "compare", "--stat", "--group", "kind", tiny, tiny],
            ["ckpt-convert", "--dry-run", "--dtype", "bf16", tiny, out / "none"],
            ["ckpt-convert", "--dtype", "bf16", tiny, out / "convert"],
            ["ckpt-synth", "--dry-run", "--config", "tiny", out / "none"],
            ["ckpt-synth", "--config", "tiny", out / "synth"]]


WRITTEN = re.compile(r"(ckpt-\w+): wrote '(.*)': (\d+) tensors, [\d.]+ \wB in [\d.]+ s, "
                     r"[\d.]+ \wB/s(, root [0-9a-f]{64})?(, \d+ notes?)?\n")


def assert_closed(args, result):
    """A command that writes ends with one line on stderr; others say nothing there."""
    if args[0] not in ("ckpt-convert", "ckpt-synth") or "--dry-run" in args:
        assert result.err == "", args
        return
    said = WRITTEN.fullmatch(result.err)
    assert said and said[1] == args[0] and said[2] == str(args[-1]), result.err
    assert int(said[3]) > 100 and (said[4] is not None) == (args[0] == "ckpt-convert")


def test_json_is_one_document(tiny, tmp_path):
    for args in json_commands(tiny, tmp_path):
        result = run_tool(*args, "--json")
        assert isinstance(json.loads(result.out), dict), args
        assert_closed(args, result)


def test_quiet_says_nothing_on_stderr_and_a_log_has_the_closing_line(tiny, tmp_path):
    for folder, more in ("pipe", []), ("quiet", ["--quiet"]):
        (tmp_path / folder).mkdir()
        for args in json_commands(tiny, tmp_path / folder):
            result = run_tool(*args, *more)
            if more:
                assert result.err == ""
            else:
                assert_closed(args, result)


def test_the_closing_line_has_the_root_and_counts_notes(tiny, tmp_path, digest):
    """One shard of a checkpoint is converted with a note."""
    shard = sorted(tiny.glob("model-*.safetensors"))[1]
    said = WRITTEN.fullmatch(run_tool("ckpt-convert", shard, tmp_path / "one").err)
    assert said[4] == ", root " + digest(tmp_path / "one") and said[5] is not None


def test_a_dry_run_makes_nothing(tiny, tmp_path):
    run_tool("ckpt-convert", "--dry-run", "--dtype", "bf16", tiny, tmp_path / "out")
    run_tool("ckpt-synth", "--dry-run", "--config", "tiny", tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_dry_run_names_reports_and_writes_none(tiny, tmp_path):
    """It says where they would go, and refuses places that would be refused."""
    words = ["ckpt-convert", "--dry-run", "--dtype", "bf16", "--report", tmp_path / "r",
             "--manifest", tmp_path / "m", tiny, tmp_path / "out"]
    said = run_tool(*words).out
    assert f"'{tmp_path / 'r'}', which is not written" in said and f"'{tmp_path / 'm'}'" in said
    plan = run_tool(*words, "--json").json
    assert (plan["report"], plan["manifest"]) == (str(tmp_path / "r"), str(tmp_path / "m"))
    assert os.listdir(tmp_path) == []
    (tmp_path / "r").write_text("a letter")
    assert "not a report" in run_tool(*words, check=2).err
    assert os.listdir(tmp_path) == ["r"]


def test_a_dry_run_plans_without_tensor_data(tiny, tmp_path, fault):
    """Headers and configs are read at the front. Behind them a sample tells how fast the disk is,
    and a disk that cannot read it changes nothing of the plan."""
    shard = sorted(tiny.glob("model-*.safetensors"))[2]
    words = ["ckpt-convert", "--dry-run", "--json", "--no-space-check", shard, tmp_path / "out"]
    plan = run_tool(*words).json
    assert 0 < plan["time_guess"]["sample_bytes"] <= shard.stat().st_size
    blind = run_tool(*words, env=fault.env("pread:EIO:4+", "model-00003")).json
    assert fault.injected
    guess = blind["time_guess"]
    assert guess["sample_bytes"] == guess["sample_bytes_per_second"] == 0 < guess["seconds"]
    for each in plan, blind:
        del each["time_guess"], each["free_bytes"]
    assert plan == blind


def test_the_sample_of_a_dry_run_is_small(tmp_path):
    """By the system's count of what a process has read."""
    run_tool("ckpt-synth", "--config", "flash", "--layers", 1, "--sparse", tmp_path / "m")
    done = subprocess.run(["bash", "-c", '"$@"; grep rchar /proc/$$/io', "bash",
                           BUILD / "bin" / "ckpt-convert", "--dry-run", tmp_path / "m",
                           tmp_path / "out"], check=True, capture_output=True, text=True)
    assert re.search(r"^time: about \d+:\d\d, a guess from .* a sample of [\d.]+ MB was read at",
                     done.stdout, re.MULTILINE), done.stdout
    size = sum(p.stat().st_size for p in (tmp_path / "m").iterdir())
    assert int(re.search(r"rchar: (\d+)", done.stdout)[1]) < 48 << 20 < size / 50


@pytest.mark.parametrize("words", [
    ["ckpt-convert", "SRC", "DST"], ["ckpt-shard", "--layout", "hf", "SRC", "DST"],
    ["ckpt-delta", "diff", "SRC", "SRC", "DST"], ["ckpt-run", "--tokens", "TOKENS", "SRC"],
    ["ckpt-synth", "--config", "tiny", "DST"]], ids=lambda words: words[0])
def test_help_tells_a_sample_where_a_dry_run_takes_one(tiny, tmp_path, words):
    (tmp_path / "tokens").write_text("1 2 3")
    places = {"SRC": tiny, "DST": tmp_path / "out", "TOKENS": tmp_path / "tokens"}
    plan = run_tool(*(places.get(w, w) for w in words), "--dry-run", "--json").json
    command = words[:2] if words[0] == "ckpt-delta" else words[:1]
    told = " ".join(run_tool(*command, "--help").out.split())
    assert "--dry-run print the plan and write nothing" in told
    assert ("a sample of 32 MiB" in told) == ("time_guess" in plan)


# ---- readers that go away, disks that are full ----

SPEAKERS = [["--help"], ["--version"]]


def test_a_reader_that_went_away_ends_the_writer_by_sigpipe(commands):
    """As cat: a shell sees 141, and a script with pipefail knows what that means."""
    for tool, words in commands:
        for args in SPEAKERS:
            reader, writer = os.pipe()
            os.close(reader)
            done = subprocess.run([BUILD / "bin" / tool, *words, *args], stdout=writer,
                                  stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
            os.close(writer)
            assert done.returncode == -signal.SIGPIPE and done.stderr == b""


def test_who_ignores_sigpipe_is_told(commands):
    for tool, words in commands:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([BUILD / "bin" / tool, *words, "--help"], stdout=writer, text=True,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                              preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN),
                              restore_signals=False)
        os.close(writer)
        assert done.returncode == 2
        assert done.stderr == f"{tool}: cannot write to standard output: Broken pipe\n"


def test_much_output_into_head_ends_without_a_word(tiny):
    """More than a pipe holds: the writer is told only when the reader is gone."""
    for args in (["ckpt-inspect", tiny], ["ckpt-inspect", "--json", tiny],
                 ["ckpt-verify", "digest", "--json", tiny]):
        writer = subprocess.Popen([BUILD / "bin" / args[0], *args[1:]], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        writer.stdout.read(1)
        writer.stdout.close()
        said = writer.stderr.read()
        assert writer.wait() in (0, -signal.SIGPIPE) and said == b""


def test_output_that_could_not_be_written_is_an_error(commands):
    for tool, words in commands:
        with open("/dev/full", "w") as full:
            done = subprocess.run([BUILD / "bin" / tool, *words, "--help"], stdout=full, text=True,
                                  stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert done.returncode == 2
        assert done.stderr == f"{tool}: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_standard_streams_do_not_reach_files(tiny, tmp_path, closed):
    """A file that is opened must not become descriptor 1 or 2 and receive messages."""
    script = f"exec {closed}>&-; exec \"$0\" \"$@\""
    done = subprocess.run(["bash", "-c", script, BUILD / "bin" / "ckpt-convert", "--dtype", "bf16",
                           tiny, tmp_path / f"out{closed}"], capture_output=True)
    assert done.returncode == 0
    assert run_tool("ckpt-verify", "compare", tiny, tmp_path / f"out{closed}").status == 0


# ---- signals ----

@pytest.mark.parametrize("name, status", [("INT", 130), ("TERM", 143)])
def test_a_shell_sees_the_signal_and_its_loop_stops(tiny, tmp_path, fault, name, status):
    """The first round is stopped in the middle of its work; there is no second one.

    A shell without job control starts what it runs in the background with SIGINT ignored, which the
    tools keep: env puts the default back.
    """
    script = f"""
        for round in 1 2; do
            env --default-signal={name} "$0" digest --quiet "$1" & child=$!
            until grep -q State:.T /proc/$child/status; do :; done
            kill -{name} $child; kill -CONT $child; wait $child; status=$?
            echo "$round $status"
            [ $status -lt 128 ] || exit $status
        done"""
    env = {**os.environ, **fault.env("pread:stop:6", "model-00003")}
    done = subprocess.run(["bash", "-c", script, BUILD / "bin" / "ckpt-verify", tiny], env=env,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == status and done.stdout == f"1 {status}\n", done.stderr
    assert done.stderr == "ckpt-verify: interrupted\n"


OPENAT, READ = "257", "0"       # numbers of system calls on x86-64


@pytest.mark.parametrize("has_writer, call", [(False, OPENAT), (True, READ)])
@pytest.mark.parametrize("command", [("ckpt-verify", "check", "--manifest"),
                                     ("ckpt-inspect", "--map"), ("ckpt-run", "--tokens")])
def test_a_signal_ends_the_wait_for_a_pipe(tiny, tmp_path, command, has_writer, call):
    """A writer that never comes, or never writes, holds nobody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR) if has_writer else None
    process = subprocess.Popen([BUILD / "bin" / command[0], *command[1:], pipe, tiny],
                               stderr=subprocess.PIPE, text=True)
    proc = pathlib.Path(f"/proc/{process.pid}")
    while not (proc.joinpath("stat").read_text().split()[2] == "S"
               and proc.joinpath("syscall").read_text().startswith(call + " ")):
        assert process.poll() is None
    process.terminate()
    err = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGTERM and err.count("\n") <= 1, err
    if writer is not None:
        os.close(writer)


@pytest.mark.parametrize("call", ["open", "read"])
@pytest.mark.parametrize("command", [("ckpt-verify", "check", "--manifest"),
                                     ("ckpt-verify", "digest", "-c"),
                                     ("ckpt-inspect", "--map"), ("ckpt-run", "--tokens")])
def test_a_signal_just_before_the_wait_ends_it_too(tiny, tmp_path, fault, command, call):
    """It interrupts nothing: the process stands before the call when the signal comes."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR) if call == "read" else None
    more = [] if command[-1] == "-c" else [tiny]
    process = subprocess.Popen([BUILD / "bin" / command[0], *command[1:], pipe, *more],
                               env={**os.environ, **fault.env(f"{call}:stop:1", pipe)},
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    _, state = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(state) and fault.injected
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGINT and err.count("\n") <= 1, err
    if writer is not None:
        os.close(writer)


# ---- folders that may not be read ----

def as_someone_without_rights(*args):
    """Root may read everything; without two capabilities it is as everybody."""
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    return subprocess.run([*(drop if os.geteuid() == 0 else []), BUILD / "bin" / args[0],
                           *args[1:]], capture_output=True, text=True)


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100])
@pytest.mark.parametrize("where", ["itself", "its parent"])
def test_a_folder_that_may_not_be_entered_is_not_absent(tiny, tmp_path, mode, where):
    path = tmp_path / "parent" / "model"
    shutil.copytree(tiny, path)
    closed = path if where == "itself" else path.parent
    os.chmod(closed, mode)
    try:
        done = as_someone_without_rights("ckpt-inspect", path)
    finally:
        os.chmod(closed, 0o700)
    if closed != path and mode == 0o100:         # passing through is all that is needed
        assert done.returncode == 0
    else:
        assert done.returncode == 2 and "Permission denied" in done.stderr
        assert str(path) in done.stderr and done.stderr.count("\n") == 1


def test_a_manifest_that_may_not_be_read_is_not_absent(tiny, tmp_path):
    path = shutil.copytree(tiny, tmp_path / "model")
    (path / "ckpt-manifest.json").write_text("{}")
    os.chmod(path / "ckpt-manifest.json", 0)
    done = as_someone_without_rights("ckpt-verify", "check", path)
    assert done.returncode == 2 and "Permission denied" in done.stderr


def test_detection_does_not_walk_the_tree(tmp_path):
    """A home folder on a network file system has a million files below it."""
    tree = tmp_path / "home"
    tree.mkdir()
    (tree / "deep").mkdir()
    os.chmod(tree / "deep", 0)                   # who went down would stumble
    try:
        done = as_someone_without_rights("ckpt-inspect", tree)
    finally:
        os.chmod(tree / "deep", 0o700)
    assert done.returncode == 2 and "not a checkpoint" in done.stderr


# ---- numbers with their nouns ----

def test_one_thing_is_not_said_to_be_many(tmp_path):
    """A model of one tensor in one file, and another one of another value."""
    for name, value in ("a", 1), ("b", 2):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(
            file_bytes({"x": Tensor("F16", [1], struct.pack("<e", value))}))
    a, b = tmp_path / "a", tmp_path / "b"
    run_tool("ckpt-synth", "--config", "tiny", "--layers", "1", tmp_path / "layer")
    (tmp_path / "tokens").write_text("[[1]]")
    said = []
    for words in (["ckpt-inspect", a], ["ckpt-inspect", "--stat", a],
                  ["ckpt-convert", "--dry-run", "--dtype", "bf16", a, tmp_path / "c"],
                  ["ckpt-convert", "--dtype", "bf16", a, tmp_path / "c"],
                  ["ckpt-verify", "check", tmp_path / "c"], ["ckpt-verify", "compare", a, b],
                  ["ckpt-verify", "compare", "--stat", a, b],
                  ["ckpt-verify", "check", "--values", a],
                  ["ckpt-delta", "diff", a, b, tmp_path / "d"],
                  ["ckpt-delta", "inspect", tmp_path / "d"],
                  ["ckpt-delta", "apply", "--dry-run", a, tmp_path / "d", tmp_path / "e"],
                  ["ckpt-delta", "apply", a, tmp_path / "d", tmp_path / "e"],
                  ["ckpt-delta", "diff", "--base", "none", "--dry-run", a, tmp_path / "p"],
                  ["ckpt-delta", "diff", "--base", "none", a, tmp_path / "p"],
                  ["ckpt-verify", "certify", "--dry-run", "--out", tmp_path / "cert.json", a],
                  ["ckpt-verify", "certify", "--out", tmp_path / "cert.json", a, tmp_path / "e"],
                  ["ckpt-shard", "--layout", "torch_dist", "--preset", "flash-h200",
                   tmp_path / "layer", tmp_path / "t"],
                  ["ckpt-shard", "--layout", "torch_dist", "--dry-run", tmp_path / "layer",
                   tmp_path / "t"],
                  ["ckpt-run", "--tokens", tmp_path / "tokens", "--dry-run", tmp_path / "layer"]):
        done = subprocess.run([BUILD / "bin" / words[0], *words[1:]], capture_output=True,
                              text=True)
        said += [f"{words[0]}: {line}" for line in (done.stdout + done.stderr).splitlines()]
    many = (r"(?<![\w.])1 (stored )?(tensor|file|note|element|value|row|thread|piece|checksum|"
            r"layer|member|difference|prompt|rule|fault|remark|checkpoint|column|block)s\b")
    assert any("1 tensor," in line for line in said)
    assert any("1 layer cannot be divided over --pp 8" in line for line in said)
    assert [line for line in said if re.search(many, line) and "% of elements" not in line] == []
