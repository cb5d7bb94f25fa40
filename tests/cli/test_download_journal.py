"""What ckpt-download cannot read is not taken for absent; one bad file leaves others alone."""
import os
import shutil
import socket

import pytest

from client import ID, MIB, SIDE, Client, mixed, one, wait_for
from mock_hub import Entry, Hub, Repo

SIZE = 12 * MIB


@pytest.fixture
def hub():
    with Hub([one(SIZE)]) as h:
        yield h


@pytest.fixture(scope="module")
def half(ckpt, tmp_path_factory):
    """The folder that a killed run left, with a part of the file."""
    path = tmp_path_factory.mktemp("half")
    with Hub([one(SIZE)], connection_rate=MIB) as h:
        download = Client(ckpt, h, path)
        process = download.start()
        wait_for(lambda: h.payload > SIZE // 3)
        download.stop(process)
    return download.folder


def begin_again(download, half):
    shutil.rmtree(download.folder, ignore_errors=True)
    shutil.copytree(half, download.folder)
    return download("--dry-run").json["reuse_bytes"]


def there(download):
    """Blocks of the file that are on the disk, in the file or in its part."""
    paths = [download.folder / "f.bin", *(download.folder / SIDE).glob("*.part")]
    truth = download.hub.repos[ID].files[0].content.bytes()
    data = next((p.read_bytes() for p in paths if p.exists()), b"")
    return {i for i in range(0, len(data), 4096) if data[i:i + 4096] == truth[i:i + 4096]}


NUMBERS = [*range(1, 10), 16, 40]


@pytest.mark.parametrize("path", [".state", ".part", "verified", "lock"])
@pytest.mark.parametrize("call,error,says", [
    ("open", "EMFILE", "Too many open files"), ("open", "EIO", "Input/output error"),
    ("open", "ENOMEM", "Cannot allocate memory"), ("read", "EIO", "Input/output error"),
    ("read", "ENOMEM", "Cannot allocate memory"), ("rename", "EIO", "Input/output error"),
    ("rename", "EMFILE", "Too many open files")])
def test_no_failing_call_loses_what_is_there(download, hub, half, fault, path, call, error, says):
    """Each open, read and rename in turn: whatever fails, the bytes stay and are reused. What has
    arrived is hashed where it lies, and read only where it cannot be mapped."""
    count = 0
    unmapped = "mmap:EINVAL:1+," if (path, call) == (".part", "read") else ""
    for number in NUMBERS:
        reusable = begin_again(download, half)
        assert reusable > MIB
        before = there(download)
        first = download(check=(0, 2), **fault.env(f"{unmapped}{call}:{error}:{number}", path))
        if not any(line.startswith(call) for line in fault.injected):
            break
        count += 1
        if first.status != 0:
            assert says in first.err and "another" not in first.err, (number, first.err)
            assert before <= there(download), number
            files = first.json["files"]
            reason = files[0]["reason"] if files else first.json["reason"]
            assert first.json["reason"] == reason == "disk", number
        else:
            assert first.json["fetched_bytes"] <= SIZE - reusable, number
        again = download().json
        download.assert_right()
        assert again["reused_bytes"] + again["kept_bytes"] >= reusable, number
        assert again["fetched_bytes"] <= SIZE - reusable, number
    assert count > 0 or (path, call) in UNUSED


# Calls that nothing of the kind needs: a lock is only opened, a list of records is appended to.
UNUSED = {("lock", "read"), ("lock", "rename"), ("verified", "rename"), ("verified", "read")}


def test_a_plan_calls_an_unreadable_journal_that(download, half, fault):
    begin_again(download, half)
    plan = download("--dry-run", **fault.env("open:EMFILE:1+", ".state")).json
    assert fault.injected and plan["files"][0]["action"] == "unreadable"
    assert plan["reuse_bytes"] == 0 and plan["fetch_bytes"] == 0


def test_a_journal_that_is_too_large_is_not_read_and_not_removed(download, half):
    begin_again(download, half)
    state = next((download.folder / SIDE).glob("*.state"))
    os.truncate(state, (64 << 20) + 1)
    before = there(download)
    failed = download(check=2)
    assert "too large" in failed.err and failed.json["reason"] == "other"
    assert there(download) == before and state.exists()


# ---- what stands in the way ----

def make_folder(path):
    path.mkdir(parents=True)


def make_pipe(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def make_socket(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    here = os.open(path.parent, os.O_RDONLY)
    try:                                     # names of sockets are short
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def make_device(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))       # /dev/zero
    except PermissionError:
        pytest.skip("this test makes a device, which is not allowed here")


OTHERS = [make_folder, make_pipe, make_socket, make_device]


@pytest.mark.parametrize("make", OTHERS)
def test_a_file_whose_place_is_taken_leaves_the_others_alone(download, hub, make):
    hub.repos[ID] = mixed()
    make(download.folder / "config.json")
    kind = os.lstat(download.folder / "config.json").st_mode
    failed = download(check=2)
    assert failed.json["reason"] == "other" and "1 of 6 files failed" in failed.err
    states = {f["name"]: (f["status"], f.get("reason")) for f in failed.json["files"]}
    assert states.pop("config.json") == ("failed", "other")
    assert set(states.values()) == {("downloaded", None)}
    assert os.lstat(download.folder / "config.json").st_mode == kind


def test_force_does_not_fetch_what_its_place_will_not_take(download, hub):
    hub.repos[ID] = mixed()
    make_folder(download.folder / "big.bin")
    failed = download("--force-download", check=2)
    assert [f["name"] for f in failed.json["files"] if f["status"] == "failed"] == ["big.bin"]
    assert hub.payload < hub.repos[ID].find("big.bin").size and len(download.visible) == 5


@pytest.mark.parametrize("make", OTHERS)
@pytest.mark.parametrize("ending", [".state", ".part"])
def test_a_part_whose_place_is_taken_leaves_the_others_alone(download, hub, half, make, ending):
    begin_again(download, half)
    hub.repos[ID] = Repo(ID, [*one(SIZE).files, Entry("g.bin", 3 * MIB, 4)])
    path = next((download.folder / SIDE).glob("*" + ending))
    path.unlink()
    make(path)
    failed = download(check=2)
    assert failed.json["reason"] == "other" and "regular file" in failed.err
    assert [f["status"] for f in failed.json["files"]] == ["failed", "downloaded"]
    assert path.exists() and len(list((download.folder / SIDE).glob("*.part"))) == 1


@pytest.mark.parametrize("make", OTHERS)
@pytest.mark.parametrize("name", ["verified", "lock"])
def test_a_side_file_whose_place_is_taken_is_refused_at_once(download, hub, make, name):
    make(download.folder / SIDE / name)
    failed = download(check=2)
    assert "regular file" in failed.err and hub.payload == 0


@pytest.mark.parametrize("make", OTHERS)
def test_what_is_read_offline_is_a_file_or_refused_at_once(download, hub, tmp_path, make):
    cache = tmp_path / "C"
    download(where=("--cache-dir", cache))
    repo = cache / "models--o--m"
    listing = next((repo / "ckpt").glob("listing-*.json"))
    for path in repo / "refs/main", listing:
        kept = path.read_bytes()
        path.unlink()
        make(path)
        failed = download(check=2, where=("--cache-dir", cache), HF_HUB_OFFLINE="1")
        assert "no earlier run" not in failed.err and path.name in failed.err
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.write_bytes(kept)
    download(where=("--cache-dir", cache), HF_HUB_OFFLINE="1")


@pytest.mark.parametrize("make", OTHERS)
def test_a_stored_token_is_a_file_or_refused_at_once(download, hub, tmp_path, make):
    make(tmp_path / "home/token")
    failed = download(check=2)
    assert failed.json["reason"] == "auth" and "stored token" in failed.err and hub.log == []
    download(HF_HUB_DISABLE_IMPLICIT_TOKEN="1")
    download.assert_right()


# ---- disks ----

def part_of(entry):
    return f".{entry.etag}.part"


def test_a_bad_block_under_one_file_leaves_the_others_alone(download, hub, fault):
    hub.repos[ID] = mixed()
    big = hub.repos[ID].files[0]
    failed = download(check=2, **fault.env("pwrite:EIO:1+", part_of(big)))
    assert fault.injected and failed.json["reason"] == "disk"
    assert [f["name"] for f in failed.json["files"] if f["status"] == "failed"] == [big.path]
    assert len(download.visible) == len(hub.repos[ID].files) - 1
    download()
    download.assert_right()


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_a_full_disk_is_full_for_every_file(download, hub, fault, error):
    hub.connection_rate = MIB
    hub.repos[ID] = Repo(ID, [Entry(f"f{i}", SIZE, i) for i in range(3)])
    failed = download(check=2, **fault.env(f"pwrite:{error}:1", ".part"))
    assert fault.injected and failed.json["reason"] == "disk" and download.visible == []
    assert "files failed" not in failed.err and hub.payload < SIZE


def test_a_disk_with_nothing_free_is_refused_before_the_first_byte(ckpt, hub, small_disk):
    disk = small_disk(1)
    download = Client(ckpt, hub, disk)
    download.folder.mkdir()
    with open(disk / "fill", "wb", buffering=0) as f, pytest.raises(OSError):
        while True:
            f.write(bytes(4096))
    assert os.statvfs(disk).f_bavail == 0
    failed = download(check=2)
    assert failed.json["reason"] == "disk" and hub.payload == 0
    assert "not enough disk space" in failed.err
