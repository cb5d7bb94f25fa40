"""ckpt-download as its users run it: what ends up on the disk, what is asked of the hub."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest

from client import ID, MIB, SIDE, Client, mixed, one
from conftest import BUILD
from mock_hub import Entry, Hub, Repo


def test_every_file_arrives_with_few_requests_and_no_token_elsewhere(download, hub):
    result = download(HF_TOKEN="hf_test").json
    download.assert_right()
    files = len(hub.repos[ID].files)
    assert result["reason"] == "fine" and result["commit"] == hub.repos[ID].commit
    assert {f["status"] for f in result["files"]} == {"downloaded"}
    assert len(hub.requests(port="hub")) <= 2 * files + 3
    assert all(e["has_authorization"] for e in hub.requests(port="hub"))
    assert hub.requests(port="cdn") and not hub.requests(port="cdn", has_authorization=True)
    assert hub.payload <= sum(f.size for f in hub.repos[ID].files) * 1.01


def test_a_second_run_asks_two_questions_and_fetches_nothing(download, hub):
    download()
    hub.reset()
    result = download().json
    assert {f["status"] for f in result["files"]} == {"kept"}
    assert len(hub.log) == 2 and hub.payload == 0


def test_a_commit_needs_no_question_about_the_revision(download, hub):
    download("--revision", hub.repos[ID].commit)
    assert not [e for e in hub.log if "/revision/" in e["target"]]
    download.assert_right()


def test_a_file_that_was_touched_is_hashed_and_one_that_was_changed_is_fetched(download, hub):
    download()
    os.utime(download.folder / "big.bin", (1, 1))
    damaged = download.folder / "dir/mid.bin"
    data = bytearray(damaged.read_bytes())
    data[1000] ^= 1
    damaged.write_bytes(data)
    hub.reset()
    status = {f["name"]: f["status"] for f in download().json["files"]}
    assert status["big.bin"] == "kept" and status["dir/mid.bin"] == "downloaded"
    assert hub.payload == len(data)
    download.assert_right()


def test_verify_finds_a_change_that_left_no_trace(download, hub):
    download()
    path = download.folder / "config.json"
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    with open(path, "r+b") as f:
        f.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert download().json["kept_bytes"] == sum(f.size for f in hub.repos[ID].files)
    download("--verify")
    download.assert_right()


def test_the_side_file_has_what_an_offline_check_needs(download, hub):
    download("--exclude", "big*")
    listing = json.loads((download.folder / SIDE / "listing.json").read_text())
    assert (listing["version"], listing["hub"], listing["commit"]) == \
        (1, "hf", hub.repos[ID].commit)
    by_path = {f["path"]: f for f in listing["files"]}
    for entry in hub.repos[ID].files:
        assert by_path[entry.path] == {
            "path": entry.path, "size": entry.size, "hash": entry.etag,
            "algorithm": "sha256" if entry.kind == "lfs" else "git-sha1",
            "selected": entry.path != "big.bin"}


@pytest.mark.parametrize("words,paths", [
    (("config.json",), ["config.json"]),
    (("dir/",), ["dir/mid.bin", "dir/sub/di rect+ü.txt"]),
    (("config.json", "*.bin"), ["big.bin", "config.json", "dir/mid.bin"]),
    (("--include", "*.bin", "--exclude", "dir/*"), ["big.bin"]),
    (("--include", "[!b]*", "--exclude", "dir*"), [".gitattributes", "config.json", "empty"]),
])
def test_patterns_choose_files(download, words, paths):
    download(*words)
    download.assert_right(*paths)


def test_an_hf_address_names_repo_revision_and_path(ckpt, hub, download):
    ckpt("ckpt-download", f"hf://models/{ID}@main/config.json", "--local-dir", download.folder,
         env=download.env)
    download.assert_right("config.json")


def test_a_file_that_is_not_there_is_named(download):
    failed = download("nothing.bin", check=2)
    assert failed.json["reason"] == "not-found" and "nothing.bin" in failed.err
    assert download.visible == []


def test_a_dry_run_touches_nothing(download, hub):
    plan = download("--dry-run").json
    assert plan["fetch_bytes"] == sum(f.size for f in hub.repos[ID].files)
    assert plan["limit_seconds"] is None
    assert not download.folder.exists() and hub.payload == 0


def test_a_dry_run_tells_the_time(download, ckpt):
    """At the limit, or at a rate that it names: that of the network it cannot know."""
    plan = download("--dry-run", "--limit-rate", "100k").json
    assert plan["limit_seconds"] == plan["fetch_bytes"] // 100_000 > 0
    words = ["ckpt-download", ID, "--local-dir", download.folder, "--dry-run"]
    said = ckpt(*words, env=download.env).out.splitlines()[-1]
    assert re.fullmatch(r"time: \d+:\d\d if the network has 1 Gbit/s, which is not measured", said)
    said = ckpt(*words, "--limit-rate", "100k", env=download.env).out.splitlines()[-1]
    minutes, seconds = re.fullmatch(r"time: at least (\d+):(\d\d), by --limit-rate", said).groups()
    assert int(minutes) * 60 + int(seconds) == plan["limit_seconds"]
    download()
    assert "time:" not in ckpt(*words, "--limit-rate", "100k", env=download.env).out


def test_a_plan_to_fetch_all_again_needs_the_room_for_all(ckpt, small_disk):
    with Hub([one(8 * MIB)]) as hub:
        download = Client(ckpt, hub, small_disk(74))       # slack takes 64 MiB
        download()
        plan = download("--dry-run", "--force-download", check=2).json
        assert plan["fetch_bytes"] == plan["space_bytes"] == plan["total_bytes"] == 8 * MIB
        assert plan["reuse_bytes"] == 0 and {f["action"] for f in plan["files"]} == {"fetch"}
        assert download("--dry-run").json["space_bytes"] == 0
        failed = download("--force-download", check=2)
        assert failed.json["reason"] == "disk" and "not enough disk space" in failed.err
        assert download("--dry-run", "--force-download", check=2).err == failed.err
        download()


def test_the_cache_has_blobs_and_relative_links(download, hub, tmp_path):
    result = download(where=("--cache-dir", tmp_path / "C")).json
    root = tmp_path / "C" / "models--o--m"
    commit = hub.repos[ID].commit
    assert result["path"] == str(root / "snapshots" / commit)
    assert (root / "refs/main").read_text() == commit
    for entry in hub.repos[ID].files:
        link = root / "snapshots" / commit / entry.path
        assert os.readlink(link) == "../" * (2 + entry.path.count("/")) + "blobs/" + entry.etag
        assert link.read_bytes() == entry.content.bytes()
    hub.reset()
    download(where=("--cache-dir", tmp_path / "C"))
    assert hub.payload == 0


def test_no_name_in_a_cache_is_used_for_anything_else(ckpt, tmp_path):
    """A file may be called what a temporary link would be."""
    names = [".ckpt-link", "a", "new.link", "z"]
    with Hub([Repo(ID, [Entry(n, 30, i, "git") for i, n in enumerate(names)])]) as hub:
        download = Client(ckpt, hub, tmp_path)
        snapshot = pathlib.Path(download(where=("--cache-dir", tmp_path / "C")).json["path"])
        assert sorted(os.listdir(snapshot)) == sorted(names)


def test_equal_files_of_a_cache_are_fetched_once(ckpt, tmp_path):
    with Hub([Repo(ID, [Entry("a.bin", 2 * MIB, 1), Entry("b/c.bin", 2 * MIB, 1)])]) as hub:
        download = Client(ckpt, hub, tmp_path)
        result = download(where=("--cache-dir", tmp_path / "C")).json
        for name in ("a.bin", "b/c.bin"):
            assert (pathlib.Path(result["path"]) / name).stat().st_size == 2 * MIB
        assert len(list((tmp_path / "C/models--o--m/blobs").iterdir())) == 1
        assert hub.payload == 2 * MIB


def test_a_dataset_and_a_paged_listing(ckpt, tmp_path):
    files = [Entry(f"d{i // 10}/f{i}.txt", 10 + i, i, "git", "direct") for i in range(57)]
    with Hub([Repo(ID, files, type="dataset")], page_size=10) as hub:
        download = Client(ckpt, hub, tmp_path)
        download("--repo-type", "dataset")
        download.assert_right()
        assert len([e for e in hub.log if "/tree/" in e["target"]]) == 6


def test_a_renamed_repository_is_followed(ckpt, tmp_path):
    repo = one(3 * MIB)
    old = Repo(ID, [], renamed_to="n/new")
    repo.id = "n/new"
    with Hub([repo, old]) as hub:
        client = Client(ckpt, hub, tmp_path)
        client("--revision", "main")
        assert (client.folder / "f.bin").read_bytes() == repo.files[0].content.bytes()


def test_a_new_commit_does_not_mix_with_the_old(ckpt, tmp_path):
    a, b = Entry("a.bin", 20 * MIB, 1), Entry("b.bin", 3 * MIB, 2)
    with Hub([Repo(ID, [a, b])]) as hub:
        download = Client(ckpt, hub, tmp_path)
        hub.fault("status", port="cdn", path="a.bin", status=404, count=1000, min_first=MIB)
        download(check=2)
        hub.reset()
        hub.repos[ID] = Repo(ID, [Entry("a.bin", 20 * MIB, 7), b])
        result = download("--clean").json
        assert hub.payload == 20 * MIB and result["reused_bytes"] == 0
        download.assert_right()


@pytest.mark.parametrize("words", [("--local-dir", "x", "--cache-dir", "y"),
                                   ("--connections", "0"), ("--connections", "65"),
                                   ("--hub", "modelscope"), ("f", "--include", "x")])
def test_contradictions_are_usage_errors(ckpt, hub, words):
    failed = ckpt("ckpt-download", ID, "--json", *words, check=2, env={"HF_ENDPOINT": hub.url})
    assert failed.json["reason"] == "usage" and hub.log == []


@pytest.mark.parametrize("name", ["a/b/c", "a//b", "../x", "a/..", "x--y/z", "-a/b", "a/b.git",
                                  "a b/c", "/a", "a/"])
def test_names_that_are_none_are_refused_before_any_request(ckpt, hub, name):
    failed = ckpt("ckpt-download", "--json", "--", name, check=2, env={"HF_ENDPOINT": hub.url})
    assert failed.json["reason"] == "usage" and hub.log == []


def test_then_becomes_the_command(ckpt, hub, download):
    done = ckpt("ckpt-download", ID, "--local-dir", download.folder, "--quiet",
                "--then", "ls", download.folder, env=download.env)
    assert done.out.split() == ["big.bin", "config.json", "dir", "empty"]
    download.assert_right()


def test_then_is_not_reached_after_a_failure(ckpt, hub, download):
    hub.fault("status", port="cdn", status=404, count=1000)
    ckpt("ckpt-download", ID, "--local-dir", download.folder, "--quiet",
         "--then", "touch", download.folder / "reached", check=2, env=download.env)
    assert not (download.folder / "reached").exists()


# ---- ModelScope ----

@pytest.fixture(params=[206, 200])
def modelscope(request, ckpt, tmp_path):
    with Hub([mixed()], range_status=request.param) as hub:
        yield Client(ckpt, hub, tmp_path)


def test_modelscope_is_downloaded_whatever_status_ranges_have(modelscope):
    modelscope("--hub", "modelscope", MODELSCOPE_API_TOKEN="ms-token")
    modelscope.assert_right()
    hub = modelscope.hub
    assert all(e["has_authorization"] and e["cookie"] == "m_session_id=ms-token"
               for e in hub.requests(port="hub"))
    assert not (modelscope.folder / ".cache/huggingface/download").exists()
    hub.reset()
    modelscope("--hub", "ms")
    assert len(hub.log) == 1


def test_modelscope_datasets_come_in_pages(ckpt, tmp_path):
    files = [Entry(f"f{i}.txt", 10 + i, i, shape="direct") for i in range(431)]
    with Hub([Repo(ID, files)]) as hub:
        download = Client(ckpt, hub, tmp_path)
        download("--hub", "modelscope", "--repo-type", "dataset")
        download.assert_right()
        assert len([e for e in hub.log if "PageNumber" in e["target"]]) == 3


def test_modelscope_says_no_with_status_200(ckpt, tmp_path):
    with Hub([]) as hub:
        failed = Client(ckpt, hub, tmp_path)("--hub", "ms", "--revision", "main", check=2)
        assert failed.json["reason"] == "not-found" and "master" in failed.err


@pytest.mark.parametrize("words,says", [
    (["no-such-program-here"], "was not found"), (["./no-such-program"], "expected a program"),
    (["/etc"], "expected a program"), (["/etc/passwd"], "expected a program"), ([""], "not found"),
    ([BUILD / "bin/ckpt-convert", "--nonsense", "D", "R"], "unknown option '--nonsense'"),
    ([BUILD / "bin/ckpt-convert", "D"], "too few arguments"),
    ([BUILD / "bin/ckpt-convert", "--no-digest", "--verify", "D", "R"], "--no-digest"),
    ([BUILD / "bin/ckpt-shard", "--layout", "mp", "D", "R"], "--mp"),
    ([BUILD / "bin/ckpt-verify", "digest", "--nonsense", "D"], "unknown option"),
    ([BUILD / "bin/ckpt-run", "--generate", "8", "D"], "expected --tokens"),
    ([BUILD / "bin/ckpt-run", "--prompt", "hi", "--temperature", "x", "D"], "--temperature"),
    ([BUILD / "bin/ckpt-verify", "nonsense", "D"], "unknown command")])
def test_a_command_that_would_fail_afterwards_is_refused_before_any_request(hub, download, words,
                                                                            says):
    failed = download("--then", *words, check=2)
    assert says in failed.err and failed.json["reason"] == "usage"
    assert hub.log == [] and not download.folder.exists()


@pytest.mark.parametrize("words,says", [
    (["ckpt-convert", "D", "R"], "R' already exists"),
    (["ckpt-shard", "--layout", "mp", "--mp", "2", "D", "R"], "R' already exists"),
    (["ckpt-convert", "D", "nowhere/R"], "nowhere'"),
    (["ckpt-convert", "D", "D"], "are the same"), (["ckpt-convert", "D", "-"], "'-'"),
    (["ckpt-convert", "--report", "R", "D", "S"], "R'"),
    (["ckpt-run", "--prompt", "hi", "--out", "R", "D"], "R'"),
    (["ckpt-run", "--prompt", "hi", "--out", "nowhere/o", "D"], "nowhere")])
def test_an_output_that_would_be_refused_afterwards_is_refused_before_any_request(
        hub, download, tmp_path, golden_a, words, says):
    tool = words[0]
    shutil.copytree(golden_a, tmp_path / "R")
    at = {name: tmp_path / name for name in ("R", "S", "nowhere/R", "nowhere/o")}
    at["D"] = download.folder
    words = [at.get(word, word) for word in words[1:]]
    failed = download("--then", BUILD / "bin" / tool, *words, check=2)
    assert says in failed.err and failed.json["reason"] == "usage"
    assert hub.log == [] and not download.folder.exists()


def test_a_command_is_found_as_the_shell_finds_it(ckpt, hub, download, tmp_path):
    program = tmp_path / "bin/ckpt-is-done"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho done\n")
    words = (ID, "--local-dir", download.folder, "--quiet", "--then", "ckpt-is-done")
    env = {**download.env, "PATH": f"/nowhere:{program.parent}:{os.environ['PATH']}"}
    failed = ckpt("ckpt-download", *words, env=env, check=2)
    assert "was not found" in failed.err and hub.log == []
    program.chmod(0o755)
    assert ckpt("ckpt-download", *words, env=env).out == "done\n"
    download.assert_right()


@pytest.mark.parametrize("where", [("--local-dir", "D", "--hf-refs"), ("--cache-dir", "C")])
def test_a_stop_while_all_is_synced_stops_the_command_too(hub, download, tmp_path, fault, where):
    words = [BUILD / "bin/ckpt-download", ID, *where, "--json", "--then", "touch", "T"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**download.env, **fault.env("fsync:stop:1", "new.")}, text=True)
    while os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT).si_code != \
            os.CLD_STOPPED:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and "interrupted" in err
    assert json.loads(out)["reason"] == "interrupted" and not (tmp_path / "T").exists()
    subprocess.run(words, cwd=tmp_path, env=download.env, check=True, capture_output=True)
    assert (tmp_path / "T").exists()


def test_looking_at_options_does_nothing(ckpt, tmp_path, golden_a):
    for words in ["ckpt-convert", golden_a, tmp_path / "R"], ["ckpt-verify", "digest", golden_a]:
        assert ckpt(words[0], "--check-options", *words[1:]).out == ""
    assert list(tmp_path.iterdir()) == []
