"""Options of ckpt-download that few need: other clients' notes and leftovers, mirrors, signals."""
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from client import ID, MIB, SIDE, Client, one, wait_for
from conftest import BUILD
from mock_hub import Entry, Hub, Repo

META = pathlib.Path(".cache/huggingface/download")


# ---- --trust-metadata ----

@pytest.fixture
def theirs(download, hub):
    """A folder as the Python client leaves it: metadata, and no record of ours."""
    download()
    shutil.rmtree(download.folder / SIDE)
    hub.reset()
    return download


def status_of(result):
    return {f["name"]: f["status"] for f in result.json["files"]}


def damage(path):
    before = path.stat()
    with open(path, "r+b") as f:
        f.write(b"?")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_trusted_metadata_saves_the_hash_and_proves_nothing(theirs):
    damage(theirs.folder / "dir/mid.bin")
    assert set(status_of(theirs("--trust-metadata")).values()) == {"kept"}
    assert status_of(theirs())["dir/mid.bin"] == "downloaded"     # trust left no record
    theirs.assert_right()


@pytest.mark.parametrize("change", ["etag", "younger", "size", "none", "verify"])
def test_metadata_that_does_not_fit_is_not_trusted(theirs, change):
    path, note = theirs.folder / "dir/mid.bin", theirs.folder / META / "dir/mid.bin.metadata"
    damage(path)
    lines = note.read_text().split("\n")
    if change == "etag":
        note.write_text("\n".join([lines[0], "0" * 64, *lines[2:]]))
    elif change == "younger":
        os.utime(path, (time.time() + 100, time.time() + 100))
    elif change == "size":
        os.truncate(path, 1000)
        os.utime(path, (1, 1))
    elif change == "none":
        note.unlink()
    words = ["--verify"] if change == "verify" else []
    assert status_of(theirs("--trust-metadata", *words))["dir/mid.bin"] == "downloaded"
    theirs.assert_right()


def test_blobs_of_a_cache_are_trusted_by_name(download, hub, tmp_path):
    where = ("--cache-dir", tmp_path / "C")
    path = pathlib.Path(download(where=where).json["path"])
    shutil.rmtree(tmp_path / "C/models--o--m/ckpt")
    shutil.rmtree(path)
    damage(tmp_path / "C/models--o--m/blobs" / hub.repos[ID].find("dir/mid.bin").etag)
    assert set(status_of(download("--trust-metadata", where=where)).values()) == {"kept"}
    assert (path / "dir/mid.bin").exists()


# ---- --skip-unsafe ----

@pytest.mark.parametrize("names", [["../out"], ["/abs", "a\\b", "x" * 247], [".git/config"],
                                   [".cache/huggingface/download/good.txt.metadata"],
                                   ["twice", "twice"], ["folder", "folder/x"], ["y" * 5000]])
def test_unsafe_files_are_left_out_and_the_status_tells(ckpt, tmp_path, names):
    files = [Entry("good.txt", 5, 1, "git", "direct")] + \
        [Entry(n if "folder" in n else f"x{i}", 5, 2, "git", "direct", listed={"path": n})
         for i, n in enumerate(names)]
    with Hub([Repo(ID, files)]) as hub:
        download = Client(ckpt, hub, tmp_path)
        failed = download("--skip-unsafe", check=2)
        assert failed.json["reason"] == "partial" and "unsafe" in failed.err
        extra = {"folder/x"} if names[0] == "folder" else set()
        assert set(download.visible) - extra == {"good.txt"}
        assert sorted(p.name for p in tmp_path.iterdir()) in (["D"], ["D", "home"])


# ---- options without an effect ----

@pytest.mark.parametrize("words", [
    ("--force-download", "--verify"), ("--force-download", "--trust-metadata"),
    ("--force-download", "--adopt-partials"), ("--hub", "modelscope", "--hf-refs"),
    ("--hub", "modelscope", "--adopt-partials")])
def test_options_that_leave_each_other_nothing_to_do_are_refused(hub, download, words):
    failed = download(*words, check=2)
    assert failed.json["reason"] == "usage" and words[-1] in failed.err and hub.log == []


def test_a_path_in_the_name_of_the_repository_takes_no_other_files(ckpt, hub, download):
    for more in ["f.bin"], ["--include", "*"], ["--exclude", "x"]:
        failed = ckpt("ckpt-download", f"hf://{ID}/dir", *more, "--json", check=2,
                      env=download.env)
        assert failed.json["reason"] == "usage" and hub.log == []


def test_a_pattern_that_matches_no_file_is_mentioned(ckpt, hub, download):
    words = [ID, "--local-dir", download.folder, "--include", "*", "--include", "*.gguf",
             "--exclude", "original/*"]
    said = ckpt("ckpt-download", *words, env=download.env)
    notes = [line for line in said.err.splitlines() if line.startswith("note: ")]
    assert notes == [f"note: no file of '{ID}' matches '*.gguf'",
                     f"note: no file of '{ID}' matches 'original/*'"]
    download.assert_right()
    for more in [], ["--dry-run"]:
        shown = ckpt("ckpt-download", *words, "--json", "--quiet", *more, env=download.env)
        assert shown.json["unmatched"] == ["*.gguf", "original/*"] and shown.err == ""


@pytest.mark.parametrize("option", ["--force-download", "--hf-refs", "--adopt-partials"])
def test_options_that_need_the_hub_are_refused_without(hub, download, option):
    """Above all --force-download, which called files missing that are there."""
    download()
    hub.reset()
    failed = download(option, check=2, HF_HUB_OFFLINE="1")
    assert failed.json["reason"] == "usage" and option in failed.err and hub.log == []
    download.assert_right()


@pytest.mark.parametrize("option", ["--local-dir", "--cache-dir"])
@pytest.mark.parametrize("value", ["", "-"])
def test_a_folder_needs_a_name(hub, download, tmp_path, option, value):
    """An empty variable of a script must not mean the current folder."""
    failed = subprocess.run([BUILD / "bin/ckpt-download", ID, option, value], cwd=tmp_path,
                            env=download.env, capture_output=True, text=True)
    assert failed.returncode == 2
    assert ("take a folder" if value else "expected DIR, got ''") in failed.stderr
    assert hub.log == [] and not list(tmp_path.iterdir())


def test_a_rate_of_nothing_is_refused(hub, download):
    assert "--limit-rate" in download("--limit-rate", "0", check=2).err and hub.log == []


# ---- --tries ----

@pytest.mark.parametrize("tries", [1, 3])
def test_a_hub_that_always_fails_is_asked_as_often_as_said(hub, download, tries):
    hub.fault("status", port="hub", count=10**6, status=503)
    assert download("--tries", tries, check=2).json["reason"] == "network"
    assert len(hub.log) == tries


@pytest.mark.parametrize("tries", ["0", "201", "x", "-1"])
def test_a_number_of_tries_out_of_range_is_refused(hub, download, tries):
    assert "tries" in download("--tries", tries, check=2).err and hub.log == []


# ---- --prune-extra ----

def test_pruning_removes_what_is_not_listed_and_nothing_else(download, hub, tmp_path):
    download()
    (download.folder / "old/deep").mkdir(parents=True)
    (download.folder / "old/deep/model.bin").write_text("x")
    (download.folder / ".git").mkdir()
    (download.folder / ".git/config").write_text("x")
    (download.folder / "dir/extra.txt").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/kept").write_text("x")
    (download.folder / "link").symlink_to(tmp_path / "elsewhere")
    download()
    assert "old/deep/model.bin" in download.visible           # nothing goes unasked
    download("--prune-extra", "--exclude", "config.json")     # listed, though not selected
    (download.folder / ".git/config").unlink()
    (download.folder / ".git").rmdir()
    download.assert_right()
    assert not (download.folder / "old").exists() and not (download.folder / "link").is_symlink()
    assert (tmp_path / "elsewhere/kept").exists()


def test_a_folder_that_was_no_download_is_not_pruned(download):
    download.folder.mkdir()
    (download.folder / "thesis.tex").write_text("x")
    for more in [], ["--dry-run"]:
        assert download("--prune-extra", *more, check=2).json["reason"] == "usage"
        assert [p.name for p in download.folder.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("is_there", [False, True])
def test_a_new_folder_has_nothing_to_prune(download, is_there):
    if is_there:
        download.folder.mkdir()
    download("--prune-extra")
    download.assert_right()


def test_a_dry_run_names_what_would_be_deleted(ckpt, download):
    assert download("--prune-extra", "--dry-run").json["delete"] == []
    download()
    (download.folder / "old").mkdir()
    (download.folder / "old/model.bin").write_text("x")
    (download.folder / "extra.txt").write_text("x")
    plan = download("--prune-extra", "--dry-run")
    assert sorted(plan.json["delete"]) == ["extra.txt", "old/model.bin"]
    said = ckpt("ckpt-download", ID, "--local-dir", download.folder, "--prune-extra", "--dry-run",
                env=download.env).out
    assert "delete      old/model.bin\n" in said and "delete      extra.txt\n" in said
    assert (download.folder / "old/model.bin").exists()
    assert download("--dry-run").json["delete"] == []
    download("--prune-extra")
    download.assert_right()


def test_a_home_with_the_cache_in_it_is_no_download(download):
    """~/.cache/huggingface is where everybody's cache is."""
    (download.folder / ".cache/huggingface/hub/models--o--m/refs").mkdir(parents=True)
    (download.folder / ".cache/huggingface/token").write_text("x")
    (download.folder / "thesis.tex").write_text("x")
    assert download("--prune-extra", check=2).json["reason"] == "usage"
    assert download("--prune-extra", check=2).json["reason"] == "usage"     # what that left is none
    assert download.visible == ["thesis.tex"]


# ---- --adopt-partials ----

def leave_partial(download, hub, name, size, data=None):
    entry = hub.repos[ID].find("big.bin")
    folder = download.folder / META
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name.format(etag=entry.etag)
    path.write_bytes(data or entry.content.bytes(0, size))
    return path


def test_an_old_partial_is_gone_on_with(download, hub):
    path = leave_partial(download, hub, "abc=.{etag}.incomplete", 30 * MIB)
    result = download("--adopt-partials", "big.bin").json
    assert result["reused_bytes"] == 30 * MIB and not path.exists()
    assert hub.payload == hub.repos[ID].find("big.bin").size - 30 * MIB
    download.assert_right("big.bin")


def test_an_old_partial_with_wrong_bytes_is_found_by_the_hash(download, hub):
    leave_partial(download, hub, "abc=.{etag}.incomplete", 0, os.urandom(2 * MIB))
    download("--adopt-partials", "big.bin")
    download.assert_right("big.bin")


def test_an_old_partial_takes_the_place_of_a_part_that_has_nothing(download, hub, fault):
    """Killed before it has the part's name: the journal must not tell of the older part."""
    hub.connection_rate = MIB
    process = download.start("big.bin")
    wait_for(lambda: list((download.folder / SIDE).glob("*.state")))
    download.stop(process)
    hub.connection_rate = None
    state, = (download.folder / SIDE).glob("*.state")
    state.write_bytes(state.read_bytes().splitlines(keepends=True)[0])
    path = leave_partial(download, hub, "abc=.{etag}.incomplete", 30 * MIB)
    words = [BUILD / "bin/ckpt-download", *map(str, download.words("--adopt-partials", "big.bin"))]
    killed = subprocess.run(words, env={**download.env, **fault.env("rename:kill:1", "abc=")},
                            capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL and path.exists()
    hub.reset()
    assert download("--adopt-partials", "big.bin").json["reused_bytes"] == 30 * MIB
    assert hub.payload == hub.repos[ID].find("big.bin").size - 30 * MIB
    download.assert_right("big.bin")


@pytest.mark.parametrize("name,words", [("abc=.{etag}.0123abcd.incomplete", ["--adopt-partials"]),
                                        ("abc=.{etag}.incomplete", [])])
def test_other_partials_are_left_alone_and_told_of(ckpt, download, hub, name, words):
    path = leave_partial(download, hub, name, 30 * MIB)
    done = ckpt("ckpt-download", ID, "--local-dir", download.folder, *words, "big.bin",
                env=download.env)
    assert path.exists() and hub.payload == hub.repos[ID].find("big.bin").size
    assert ("unfinished" in done.err) == (not words)


# ---- --hf-refs ----

def test_refs_are_written_only_where_asked(download, hub, tmp_path):
    ref = tmp_path / "home/hub/models--o--m/refs/main"
    download()
    assert not ref.exists()
    download("--hf-refs")
    assert ref.read_text() == hub.repos[ID].commit


# ---- --data-host-map ----

def test_a_data_host_is_replaced_and_gets_no_token(download, hub):
    old, new = (v.origin.removeprefix("http://") for v in (hub.cdn, hub.cdn2))
    download("--data-host-map", f"{old}={new}", HF_TOKEN="hf_test")
    assert hub.requests(port="cdn2") and not hub.requests(port="cdn")
    download.assert_right()


@pytest.mark.parametrize("map", ["", "a", "=b", "a=", "a=b/c", "a b=c"])
def test_a_map_that_is_none_is_a_usage_error(download, hub, map):
    assert download("--data-host-map", map, check=2).json["reason"] == "usage" and hub.log == []


# ---- signals ----

def test_signals_report_and_lift_the_limit(ckpt, tmp_path):
    """SIGUSR1 only reports: the limit stays, until SIGUSR2 takes it off."""
    with Hub([one(64 * MIB)]) as hub:
        download = Client(ckpt, hub, tmp_path)
        process = download.start("--limit-rate", "100k")        # would take ten minutes
        wait_for(lambda: hub.requests_so_far(port="hub", method="HEAD"))
        process.send_signal(signal.SIGUSR1)
        said = process.stderr.readline()
        assert "of 1 file " in said and said.endswith(" so far\n") and "limit" not in said
        process.send_signal(signal.SIGUSR2)
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0 and err == "ckpt-download: limit off\n"
        download.assert_right()
