"""ckpt-download --delete-source: converted while it comes, and never both trees on the disk."""
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest

from client import ID, MIB, SIDE, Client, wait_for
from conftest import BUILD, run_tool
from corrupt.files import all_files
from mock_hub import Entry, Hub, Repo

FP8 = ("--experts", "fp8")
CASES = [("ckpt-convert", "--dtype", "bf16"), ("ckpt-convert", *FP8),
         ("ckpt-shard", "--layout", "mp", "--mp", "2"),
         ("ckpt-shard", "--layout", "torch_dist", "--tp", "2")]
FIRST = "model-00002-of-00008.safetensors"      # of the shards, the one that is converted first


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Eight shards, two of them small, and files that are carried along."""
    path = tmp_path_factory.mktemp("source") / "S"
    run_tool("ckpt-synth", "--config", "tiny", "--seed", "7", path)
    (path / "inference").mkdir()
    (path / "inference/readme.txt").write_text("carried along")
    return path


@pytest.fixture(scope="module")
def results(source, tmp_path_factory):
    """results(words): what a plain conversion of the source makes."""
    made = {}

    def make(words):
        if words not in made:
            made[words] = tmp_path_factory.mktemp("result") / "R"
            run_tool(words[0], *words[1:], source, made[words])
        return made[words]
    return make


@pytest.fixture
def hub(source):
    with Hub([repo_of(source)]) as h:
        yield h


def repo_of(folder, seed=0):
    return Repo(ID, [Entry(str(p.relative_to(folder)), seed=seed, data=p.read_bytes(),
                           kind="lfs" if p.suffix == ".safetensors" else "git")
                     for p in sorted(folder.rglob("*")) if p.is_file()])


def then(download, words=CASES[0]):
    """The options that convert D to R, beside it."""
    target = download.folder.parent / "R"
    return ["--delete-source", "--then", BUILD / "bin" / words[0], *words[1:], download.folder,
            target], target


def shards(folder):
    return sorted(p.name for p in folder.glob("*.safetensors"))


def assert_done(download, target, expected):
    assert all_files(target) == all_files(expected)
    assert shards(download.folder) == [] and download.parts == []
    side = download.folder / SIDE
    assert not (side / "shape").exists() and not list(side.glob("*.head"))
    assert not target.with_suffix(".partial").exists()


@pytest.mark.parametrize("words", CASES, ids=lambda w: "-".join(w[1:]).replace("--", ""))
def test_the_result_is_that_of_a_download_and_a_conversion(download, hub, results, words):
    options, target = then(download, words)
    download(*options)
    assert_done(download, target, results(words))
    files = hub.repos[ID].files
    assert hub.payload <= sum(f.size for f in files) * 1.01    # headers come once, too
    assert download.visible == ["config.json", "inference/readme.txt",
                                "model.safetensors.index.json"]


def on_disk(*folders):
    total = 0
    for folder in folders:
        for here, _, names in os.walk(folder):       # which does not mind folders that go away
            for name in names:
                try:
                    total += os.lstat(pathlib.Path(here, name)).st_blocks * 512
                except FileNotFoundError:
                    pass
    return total


def test_a_disk_never_holds_both_trees(download, hub, results, tmp_path):
    hub.connection_rate = 8 * MIB
    options, target = then(download)
    most = 0
    process = download.start(*options)
    threading.Thread(target=process.communicate, daemon=True).start()
    while process.poll() is None:
        most = max(most, on_disk(download.folder, target, target.with_suffix(".partial")))
        time.sleep(0.01)
    assert process.returncode == 0
    assert_done(download, target, results(CASES[0]))
    source_bytes = sum(f.size for f in hub.repos[ID].files)
    largest = max(f.size for f in hub.repos[ID].files)
    heads = 8 * MIB                                   # at most one MiB of each shard
    assert largest < most < on_disk(target) + 3 * largest + heads < on_disk(target) + source_bytes


def test_a_result_that_has_no_room_is_refused_before_the_tensors(ckpt, hub, results, small_disk):
    disk = small_disk(84)                     # its slack alone is 64 MiB
    download = Client(ckpt, hub, disk)
    options, target = then(download)
    failed = download(*options, check=2)
    assert failed.json["reason"] == "disk" and "not enough disk space for the result" in failed.err
    assert hub.payload < 9 * MIB and not target.exists()      # headers
    download("--no-space-check", *options)
    assert_done(download, target, results(CASES[0]))


def killed(download, options, payload):
    """Was it killed when the hub had sent that much, or done before?"""
    process = download.start(*options)
    wait_for(lambda: download.hub.payload >= payload or process.poll() is not None)
    return download.stop(process)[0] == -signal.SIGKILL


@pytest.mark.parametrize("words", CASES[:3], ids=lambda w: "-".join(w[1:]).replace("--", ""))
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moments_it_ends_with_the_same_bytes(download, hub, results, words, seed):
    hub.connection_rate = 3 * MIB
    options, target = then(download, words)
    size = sum(f.size for f in hub.repos[ID].files)
    chance, kills = random.Random(seed), 0
    while kills < 5 and not target.exists():
        kills += killed(download, options, hub.payload + chance.uniform(0, 0.4) * size)
    assert kills > 1
    hub.connection_rate = None
    if not target.exists() or (target / ".ckpt-journal").exists():
        download(*options)
    assert all_files(target) == all_files(results(words))


def test_killed_when_the_result_has_its_name_it_ends_well(download, hub, results, fault):
    """The source's tensors are gone by then, and the journal is still in the result."""
    options, target = then(download)
    partial, journal = target.with_suffix(".partial"), ".ckpt-journal"
    words = [BUILD / "bin" / "ckpt-download", *map(str, download.words(*options))]
    for number in range(1, 30):              # until it is the rename of all of it
        env = {**download.env, **fault.env(f"rename:kill:{number}", partial)}
        killed_run = subprocess.run(words, env=env, capture_output=True, timeout=90, check=False)
        assert killed_run.returncode == 2 and fault.injected
        there = all_files(partial)
        there.pop(journal)
        if there == all_files(results(CASES[0])):
            break
    partial.rename(target)
    assert (target / journal).exists() and FIRST not in shards(download.folder)
    hub.reset()
    download(*options)
    assert_done(download, target, results(CASES[0]))
    assert not [e for e in hub.log if e["is_data"] and e["bytes"] > MIB]


def test_killed_when_it_is_about_to_note_the_end_it_ends_well(download, hub, results, fault):
    """The result has its name, and keeps its journal until the note is there."""
    options, target = then(download)
    words = [BUILD / "bin" / "ckpt-download", *map(str, download.words(*options))]
    last, too_many = 1, 100                  # the last of these renames is of the note of the end

    def killed_at(number):
        for folder in download.folder, target, target.with_suffix(".partial"):
            shutil.rmtree(folder, ignore_errors=True)
        env = {**download.env, **fault.env(f"rename:kill:{number}", "new.")}
        done = subprocess.run(words, env=env, capture_output=True, timeout=90, check=False)
        return done.returncode == -signal.SIGKILL

    while last + 1 < too_many:
        number = (last + too_many) // 2
        last, too_many = (number, too_many) if killed_at(number) else (last, number)
    assert killed_at(last)
    assert (target / ".ckpt-journal").exists() and FIRST not in shards(download.folder)
    download(*options)
    assert_done(download, target, results(CASES[0]))


def test_killed_when_only_the_cleaning_was_left_the_next_run_cleans(download, hub, results,
                                                                    tmp_path):
    """The converter has ended its journal, and the download dies before it hears of it."""
    script = tmp_path / "bin/ckpt-convert"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n"{BUILD}/bin/ckpt-convert" "$@"\nstatus=$?\n'
                      '[ "$1" = --check-options ] || kill -9 $PPID\nexit $status\n')
    script.chmod(0o755)
    target = tmp_path / "R"
    options = ("--delete-source", "--then", script, "--dtype", "bf16", download.folder, target)
    process = download.start(*options)
    assert process.wait(timeout=90) == -signal.SIGKILL
    assert all_files(target) == all_files(results(CASES[0])) and shards(download.folder) != []
    hub.reset()
    assert download(*options).json["reason"] == "fine"
    assert_done(download, target, results(CASES[0]))
    assert not [e for e in hub.log if e["is_data"]]
    failed = subprocess.run([BUILD / "bin" / "ckpt-download", *map(str, download.words(*options))],
                            env=download.env, capture_output=True, text=True, timeout=90)
    assert failed.returncode != 0        # that command has ended, and has no claim on R any more


def started_slowly(download, options):
    """The tool, with time to do something to it."""
    download.hub.connection_rate = MIB
    return download.start(*options)


def killed_when_the_first_is_gone(download, options):
    """FIRST is converted, on record as verified, and no longer there."""
    process = started_slowly(download, options)
    record = download.folder / SIDE / "verified"
    wait_for(lambda: record.exists() and FIRST in record.read_text() and
             not (download.folder / FIRST).exists())
    download.stop(process)
    download.hub.connection_rate = None


def test_what_is_converted_is_not_fetched_again(download, hub, results):
    """Killed when the first files are gone: those are not asked for by the next run."""
    options, target = then(download)
    killed_when_the_first_is_gone(download, options)
    hub.reset()
    download(*options)
    assert_done(download, target, results(CASES[0]))
    assert not [e for e in hub.log if FIRST in e["target"] and e["is_data"]]


def test_a_result_that_rotted_is_made_again_from_files_that_come_again(download, hub, results):
    options, target = then(download)
    killed_when_the_first_is_gone(download, options)
    written = target.with_suffix(".partial") / FIRST
    with open(written, "r+b") as f:
        f.seek(written.stat().st_size - 1000)
        f.write(b"rot")
    hub.reset()
    download(*options)
    assert_done(download, target, results(CASES[0]))
    assert [e for e in hub.log if FIRST in e["target"] and e["is_data"]]


def state_of(pid):
    """R, S, T (stopped) ... of a process; Z also of one that is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def converter_of(process, state="RSD"):
    """The process that ckpt-download has started, once it is in one of these states."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    found = []
    wait_for(lambda: found.extend(p for p in children.read_text().split() if state_of(p) in state)
             or found)
    return int(found[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_both_with_one_line(download, hub, results, number):
    options, target = then(download)
    process = started_slowly(download, options)
    wait_for(lambda: target.with_suffix(".partial").exists())
    converter = converter_of(process)
    status, _, err = download.stop(process, number)
    assert status == -number and err.count("\n") == 1 and "interrupted" in err
    assert state_of(converter) == "Z"
    hub.connection_rate = None
    download(*options)
    assert_done(download, target, results(CASES[0]))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_converter_that_a_signal_ends_is_told_of_and_the_next_run_goes_on(download, hub, results,
                                                                            number):
    """By the download if it was killed; else by the converter, whose line is the only one."""
    options, target = then(download)
    process = started_slowly(download, options)
    wait_for(lambda: target.with_suffix(".partial").exists())
    os.kill(converter_of(process), number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and err.count("\n") == 1 and '"reason": "other"' in out
    assert "run the same command again" in err
    if number == signal.SIGKILL:
        assert err.startswith("ckpt-download: ") and "killed by signal 9" in err
    else:
        assert err.startswith("ckpt-convert: interrupted")
    hub.connection_rate = None
    download(*options)
    assert_done(download, target, results(CASES[0]))


@pytest.mark.parametrize("who", ["converter", "download"])
def test_a_converter_that_takes_no_names_is_waited_for(download, tmp_path, who):
    """How it ends is the error, not that no name can be sent; a signal ends the wait."""
    script = tmp_path / "bin/ckpt-convert"
    script.parent.mkdir()
    script.write_text(f"""#!{sys.executable}
import pathlib, socket, sys, time
if "--check-options" in sys.argv:
    sys.exit(0)
stream = socket.socket(fileno=0)
stream.shutdown(socket.SHUT_RD)
stream.sendall(b"room 0 {1 << 40} 0\\nwant {FIRST}\\ngo\\n")
pathlib.Path("{tmp_path}/asked").touch()
time.sleep(1000)
""")
    script.chmod(0o755)
    download()                               # so that there is a file to name at once
    process = download.start("--delete-source", "--then", script, download.folder, tmp_path / "R")
    wait_for((tmp_path / "asked").exists)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    if who == "download":
        status, _, err = download.stop(process, signal.SIGTERM)
        assert status == -signal.SIGTERM and "interrupted" in err
    else:
        os.kill(converter_of(process), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "killed by signal 9; run the same command again" in err
    assert err.count("\n") == 1


def test_a_parent_that_ignores_the_end_of_children_hides_no_failure(download, tmp_path):
    """Its children inherit that; the kernel then keeps no status for who waits."""
    words = [BUILD / "bin/ckpt-download", *download.words("--delete-source", "--then"),
             BUILD / "bin/ckpt-convert", "--bogus", download.folder, tmp_path / "R"]
    done = subprocess.run(["env", "--ignore-signal=CHLD", *map(str, words)], env=download.env,
                          capture_output=True, text=True, timeout=180)
    assert done.returncode == 2 and "would fail: ckpt-convert: unknown option" in done.stderr
    assert not download.folder.exists()


def test_a_converter_whose_download_died_at_once_never_starts(download, hub, results, fault,
                                                              tmp_path):
    """Killed between the fork and the request to die with its parent: the child must see that."""
    script = tmp_path / "bin/ckpt-convert"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n[ "$1" = --check-options ] || echo "$1" >>"{tmp_path}/started"\n'
                      f'exec "{BUILD}/bin/ckpt-convert" "$@"\n')
    script.chmod(0o755)
    target = tmp_path / "R"
    options = ("--delete-source", "--then", script, "--dtype", "bf16", download.folder, target)
    plain, download.env = download.env, {**download.env, **fault.env("prctl:stop:1")}
    process = download.start(*options)
    converter = converter_of(process, "T")
    download.env = plain
    process.kill()
    process.wait()                           # its pipes are still open in the other
    assert state_of(converter) == "T" and fault.injected
    os.kill(converter, signal.SIGCONT)
    wait_for(lambda: state_of(converter) == "Z")
    assert not (tmp_path / "started").exists() and not target.with_suffix(".partial").exists()
    download(*options)                       # it has left no lock behind
    assert_done(download, target, results(CASES[0]))
    assert (tmp_path / "started").read_text() == "--feed\n"


@pytest.mark.parametrize("says", ["exec sleep", "exec 2>&-; exec sleep"])
def test_a_converter_that_does_not_say_whether_it_would_run_is_not_waited_for(download, hub,
                                                                              tmp_path, says):
    """Its options are checked at the start; a signal ends that, too, whenever it comes."""
    script = tmp_path / "bin/ckpt-convert"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho $$ >"{tmp_path}/new"\nmv "{tmp_path}/new" '
                      f'"{tmp_path}/asked"\n{says} 1000\n')
    script.chmod(0o755)
    process = download.start("--then", script, download.folder, tmp_path / "R")
    wait_for((tmp_path / "asked").exists)
    status, out, err = download.stop(process, signal.SIGTERM)
    assert status == -signal.SIGTERM and err.count("\n") == 1 and "interrupted" in err
    assert '"reason": "interrupted"' in out and hub.log == []
    assert state_of(int((tmp_path / "asked").read_text())) == "Z"


def converter_failure(download, options):
    """The one line is the converter's, whose name it starts with."""
    words = map(str, download.words(*options))
    failed = subprocess.run([BUILD / "bin" / "ckpt-download", *words], env=download.env,
                            capture_output=True, text=True, timeout=90)
    assert failed.stderr.startswith("ckpt-convert: ") and failed.stderr.count("\n") == 1
    return failed


@pytest.mark.parametrize("word", ["--dry-run", "--help", "--version"])
def test_a_converter_that_does_not_convert_is_no_success(download, hub, word):
    options, target = then(download, ("ckpt-convert", word))
    failed = subprocess.run([BUILD / "bin" / "ckpt-download", *map(str, download.words(*options))],
                            env=download.env, capture_output=True, text=True, timeout=90)
    assert failed.returncode == 2 and "ended without converting" in failed.stderr
    assert '"reason": "other"' in failed.stdout
    assert not target.exists() and hub.payload < 9 * MIB


def test_a_conversion_that_is_refused_costs_no_payload(download, hub):
    options, target = then(download)
    target.mkdir()
    failed = converter_failure(download, options)
    assert failed.returncode == 2 and "--overwrite" in failed.stderr
    assert '"reason": "other"' in failed.stdout
    assert hub.payload < 9 * MIB        # headers


def test_a_new_commit_does_not_mix_with_what_was_converted_of_the_old(download, hub, tmp_path):
    options, target = then(download)
    killed_when_the_first_is_gone(download, options)
    run_tool("ckpt-synth", "--config", "tiny", "--seed", "8", tmp_path / "S2")
    hub.repos[ID] = repo_of(tmp_path / "S2", seed=2)
    failed = converter_failure(download, options)
    assert failed.returncode == 2 and "remove the folder" in failed.stderr
    assert "--restart" not in failed.stderr
    assert not target.exists()


def test_a_header_that_differs_from_the_file_is_found(download, hub, source):
    """The first answer has a byte of the header wrong; the whole file, hashed, is right."""
    text = (source / FIRST).read_bytes()
    at = text.index(b"F8_E4M3") + 6
    hub.fault("wrong", port="cdn", path=FIRST, at=at)
    options, target = then(download)
    failed = converter_failure(download, options)
    assert failed.returncode in (1, 2)
    assert hub.faults[0]["taken"] == 1 and not target.exists()


def test_what_is_not_converted_is_not_removed(download, hub, source, tmp_path):
    """A file that no index names is left out of the result, and stays if it was there."""
    shutil.copytree(source, tmp_path / "S")
    extra = "model-extra.safetensors"
    shutil.copy(source / FIRST, tmp_path / "S" / extra)
    hub.repos[ID] = repo_of(tmp_path / "S")
    download("--no-check")
    options, target = then(download)
    download(*options)
    assert shards(download.folder) == [extra] and not (target / extra).exists()
    assert (download.folder / extra).read_bytes() == (tmp_path / "S" / extra).read_bytes()


def test_a_long_header_takes_a_second_look(ckpt, tmp_path):
    header = json.dumps({"__metadata__": {"note": "x" * (3 * MIB)},
                         "a": {"dtype": "BF16", "shape": [MIB], "data_offsets": [0, 2 * MIB]}})
    data = struct.pack("<Q", len(header)) + header.encode() + os.urandom(2 * MIB)
    with Hub([Repo(ID, [Entry("model.safetensors", data=data)])]) as hub:
        download = Client(ckpt, hub, tmp_path)
        options, target = then(download, ("ckpt-convert",))
        download(*options)
        assert (target / "model.safetensors").read_bytes()[-2 * MIB:] == data[-2 * MIB:]
        assert hub.payload <= len(data) * 1.01


@pytest.mark.parametrize("words", [("--delete-source",),
                                   ("--delete-source", "--then", "ckpt-convert"),
                                   ("--delete-source", "--local-dir", "D")])
def test_it_needs_a_folder_and_a_converter(ckpt, hub, words):
    failed = ckpt("ckpt-download", ID, "--json", *words, check=2, env={"HF_ENDPOINT": hub.url})
    assert failed.json["reason"] == "usage" and hub.log == []


def test_a_command_that_is_no_converter_is_refused_before_any_request(download, hub):
    failed = download("--delete-source", "--then", "rm", "-r", download.folder, check=2)
    assert failed.json["reason"] == "usage" and hub.log == []


@pytest.mark.parametrize("place", ["elsewhere", "other"])
def test_another_source_than_the_download_is_refused_before_any_request(
        download, hub, tmp_path, place):
    (tmp_path / "other").mkdir()
    failed = download("--delete-source", "--then", BUILD / "bin/ckpt-convert", "--dtype", "bf16",
                      tmp_path / place, tmp_path / "R", check=2)
    assert f"the source after '--then' must be '{download.folder}'" in failed.err
    assert failed.json["reason"] == "usage" and hub.log == []


@pytest.mark.parametrize("line,says", [("hello", "does not answer like ckpt-convert"),
                                       ("named /tmp", "does not answer like ckpt-convert")])
def test_a_program_that_only_looks_like_a_converter_is_told_of(download, hub, tmp_path, line, says):
    script = tmp_path / "bin/ckpt-convert"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\n[ "$1" = --check-options ] && exit 0\n'
                      f'echo "{line}" >&0\nread answer\n')
    script.chmod(0o755)
    failed = download("--delete-source", "--then", script, download.folder, tmp_path / "R", check=2)
    assert says in failed.err and failed.json["reason"] == "other"
    assert len(download.visible) > 2 and not (download.folder / SIDE / "ending").exists()
