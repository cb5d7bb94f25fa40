"""A ckpt-download that is killed, starved or crowded loses nothing and leaves nothing behind."""
import os
import pathlib
import random
import signal
import threading
import time

import pytest

from client import ID, MIB, SIDE, Client, one, wait_for
from cli.trees import INSTRUMENTED
from mock_hub import Entry, Hub, Repo


def repo_of_many(total_bytes):
    sizes = [total_bytes // 4] * 3 + [total_bytes // 40] * 9
    return Repo(ID, [Entry(f"f{i}.bin", s, i) for i, s in enumerate(sizes)] +
                [Entry("config.json", 900, 99, "git")])


@pytest.fixture
def hub():
    with Hub([one(64 * MIB)], connection_rate=MIB // 4) as h:      # half a minute
        yield h


def right_bytes(download):
    """What of the repository is on the disk, in files and in parts, whatever any journal says."""
    block, total = 4096, 0
    for entry in download.hub.repos[ID].files:
        parts = list((download.folder / SIDE).glob(f"*.{entry.etag}.part"))
        for path in [p for p in [download.folder / entry.path, *parts] if p.exists()]:
            data, truth = path.read_bytes(), entry.content.bytes()
            total += sum(len(truth[i:i + block]) for i in range(0, len(truth), block)
                         if data[i:i + block] == truth[i:i + block])
    return total


@pytest.mark.parametrize("seed", range(20))
def test_a_kill_at_any_moment_costs_a_hundredth_at_most(ckpt, tmp_path, seed):
    """Of what the client had received. What was on its way, in the sockets of a machine that is too
    busy to read them, is lost with any client: the mock's count of sent bytes would have it."""
    with Hub([repo_of_many(192 * MIB)], connection_rate=8 * MIB) as hub:
        download = Client(ckpt, hub, tmp_path)
        size = sum(f.size for f in hub.repos[ID].files)
        process = download.start()
        moment = random.Random(seed).uniform(0, 0.8) * size
        wait_for(lambda: hub.payload >= moment)
        assert download.stop(process)[0] == -signal.SIGKILL
        hub.connection_rate = None
        received = right_bytes(download)
        result = download().json
        there = result["reused_bytes"] + result["kept_bytes"]
        assert there >= received - size // 100, (there, received)
        assert result["fetched_bytes"] <= size - there + size // 100
        download.assert_right()


def span_count(download):
    return sum(p.read_bytes().count(b"span") for p in (download.folder / SIDE).glob("*.state"))


def test_an_interrupt_ends_soon_and_the_next_run_goes_on(download, hub):
    """The file, or a server that says nothing, would take more than STOP_SECONDS."""
    hub.connection_rate = MIB // 16
    hub.fault("silent", port="cdn", min_first=1)
    process = download.start("--stall-timeout", 200)
    wait_for(lambda: span_count(download) > 0 and "taken" in hub.faults[0])
    status, out, err = download.stop(process, signal.SIGINT)
    assert status == -signal.SIGINT
    assert '"interrupted"' in out and err.count("\n") == 1
    hub.connection_rate = None
    result = download().json
    assert result["reused_bytes"] > 0
    download.assert_right()


def killed_halfway(download):
    """Killed after some dozen lines of the journal, of a thousand; the next run is not paced."""
    process = download.start()
    wait_for(lambda: span_count(download) > 30)
    download.stop(process)
    download.hub.connection_rate = None
    return next((download.folder / SIDE).glob("*.state"))


def test_after_a_reboot_only_what_was_synced_counts(download):
    state = killed_halfway(download)
    lines = state.read_text().split("\n")
    words = lines[0].split(" ")
    words[4] = "0" * 8 + words[4][8:]
    lines[0] = with_check(" ".join(words[:-1]) + " ")
    state.write_text("\n".join(lines))
    assert download("--dry-run").json["reuse_bytes"] == 0
    half = len(lines) // 2
    before = len("\n".join(lines[:half])) + 1
    lines.insert(half, with_check(f"synced {before} "))
    state.write_text("\n".join(lines))
    reuse = download("--dry-run").json["reuse_bytes"]
    assert 0 < reuse < 64 * MIB
    assert download().json["reused_bytes"] == reuse
    download.assert_right()


def with_check(body):
    value = 2166136261
    for byte in body.encode():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return f"{body}{value:08x}"


@pytest.mark.parametrize("damage", ["empty", "garbage", "torn", "foreign", "gone", "hostile"])
def test_a_damaged_journal_never_makes_a_wrong_file(download, damage):
    state = killed_halfway(download)
    text = state.read_bytes()
    if damage == "gone":
        state.unlink()
    else:
        state.write_bytes({"empty": b"", "garbage": os.urandom(5000), "torn": text[:-7],
                           "foreign": text.replace(b" 67108864 ", b" 67108865 "),
                           "hostile": text + (with_check("span 0 67108864 ") + "\n").encode()
                           }[damage])
    download()
    download.assert_right()


def test_a_part_that_rotted_is_found_by_the_hash(download):
    state = killed_halfway(download)
    with open(state.with_suffix(".part"), "r+b") as f:
        f.seek(1000)
        f.write(b"rot")
    assert download().json["reused_bytes"] > 0
    download.assert_right()


def test_two_at_once_on_one_folder_do_not_disturb_each_other(download, hub):
    process = download.start()
    wait_for(lambda: (download.folder / SIDE / "lock").exists() and download.parts)
    failed = download(check=2)
    assert "another ckpt-download" in failed.err
    hub.connection_rate = None
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    download.assert_right()


def test_a_part_that_another_process_took_over_is_left_alone(download, hub):
    """Where locks do nothing: the other one gives the part its name, and nobody else may write."""
    process = download.start()
    wait_for(lambda: span_count(download) > 0)
    state = next((download.folder / SIDE).glob("*.state"))
    words = state.read_text().split("\n")[0].split(" ")
    theirs = with_check(" ".join([*words[:5], "abcdef", ""])) + "\n"
    state.with_name("theirs").write_text(theirs)
    state.with_name("theirs").rename(state)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "another process is downloading" in err
    assert hub.payload < 16 * MIB and state.read_text() == theirs and download.visible == []


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(ckpt, tmp_path):
    disk = os.statvfs(tmp_path)
    entry = Entry("huge.bin", disk.f_bavail * disk.f_frsize + (1 << 30), 1, sha256="a" * 64)
    with Hub([Repo(ID, [entry])]) as hub:
        download = Client(ckpt, hub, tmp_path)
        failed = download(check=2)
        assert failed.json["reason"] == "disk" and hub.payload == 0 and download.parts == []


@pytest.mark.parametrize("rule", ["pwrite:ENOSPC:5", "pwrite:EIO:3", "fsync:EIO:1"])
def test_a_failing_disk_ends_the_run_and_the_next_one_goes_on(download, hub, fault, rule):
    hub.connection_rate = None
    failed = download(check=2, **fault.env(rule, ".part" if "pwrite" in rule else None))
    assert fault.injected and failed.json["reason"] == "disk"
    assert download.visible == []
    download()
    download.assert_right()


@pytest.mark.skipif(INSTRUMENTED, reason="a sanitizer's memory is not the tool's")
def test_memory_is_bounded_for_a_hundred_thousand_files_and_one_of_500_gb(ckpt, tmp_path):
    files = [Entry(f"dir{i % 100}/file-{i}.txt", 100 + i % 50, 0, sha256=f"{i:064x}",
                   listed={}) for i in range(100000)]
    files.append(Entry("huge.bin", 500 * 10**9, 1, sha256="f" * 64))
    with Hub([Repo(ID, files, commit="c" * 40)], page_size=5000) as hub:
        download = Client(ckpt, hub, tmp_path)
        assert most_memory(download.start("--dry-run")) < 200 * MIB
        process = download.start("--no-space-check", "--limit-rate", "30M")
        assert most_memory(process, lambda: hub.payload > 200 * MIB) < 200 * MIB
        assert process.returncode == -signal.SIGINT
        part, = (p for p in (download.folder / SIDE).glob("*.part") if p.stat().st_size > 10**9)
        assert part.stat().st_blocks * 512 < 10**9


@pytest.mark.parametrize("text,says", [
    ("[" + "[]," * (8 * MIB) + "[]]", "memory"),                      # values of many bytes each
    ("[" + '{"type":"directory"},' * (1 << 20) + "{}]", "memory"),
    ("[" + '"' + "x" * (80 * MIB) + '"]', "memory"),
    ("[" + " " * (40 * MIB) + "[]" + "]", "no type")])
@pytest.mark.skipif(INSTRUMENTED, reason="a sanitizer's memory is not the tool's")
def test_a_listing_that_multiplies_in_memory_is_refused(download, hub, text, says):
    hub.fault("text", port="hub", path="/api/models/o/m/tree/*", count=9, text=text)
    errors = []
    process = download.start("--memory", "64MiB")
    assert most_memory(process, errors=errors) < 128 * MIB
    assert process.returncode == 2 and says in errors[0] and errors[0].count("\n") == 1
    assert not download.folder.exists()


def most_memory(process, is_enough=lambda: False, errors=None):
    """Of the whole run, which is interrupted when it is enough."""
    most, is_asked = 0, False

    def drain():
        said = process.communicate()[1]
        if errors is not None:
            errors.append(said)
    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    while process.poll() is None:
        if not is_asked and is_enough():
            process.send_signal(signal.SIGINT)      # a second one would kill at once
            is_asked = True
        try:
            text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        most = max([most] + [int(line.split()[1]) * 1024 for line in text.splitlines()
                             if line.startswith("VmHWM")])
        time.sleep(0.05)
    process.wait()
    thread.join()
    assert most > 0
    return most
