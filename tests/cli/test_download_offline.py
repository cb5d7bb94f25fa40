"""What was downloaded, used and checked without a hub: HF_HUB_OFFLINE, ckpt-verify check."""
import json
import os
import pathlib

import pytest

from client import ID, SIDE, Client
from conftest import DATA
from mock_hub import Entry, Hub, Repo

OFFLINE = {"HF_HUB_OFFLINE": "1"}


def flip(path, at=100, keep_time=True):
    """One bit, and no trace of it where keep_time."""
    before = path.stat()
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1]))
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# ---- HF_HUB_OFFLINE ----

@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_needs_an_earlier_listing(download, hub, name):
    failed = download(check=2, **{name: "yes"})
    assert hub.log == [] and failed.json["reason"] == "network"
    assert "no earlier run has listed" in failed.err


@pytest.mark.parametrize("cached", [False, True])
def test_offline_finds_what_is_verified_and_asks_nobody(download, hub, tmp_path, cached):
    where = ("--cache-dir", tmp_path / "C") if cached else None
    online = download(where=where).json
    side = pathlib.Path(online["path"]) / SIDE
    listing = None if cached else (side / "listing.json").read_bytes()
    hub.reset()
    offline = download(where=where, **OFFLINE).json
    assert offline["path"] == online["path"] and offline["commit"] == online["commit"]
    assert {f["status"] for f in offline["files"]} == {"kept"} and hub.log == []
    commit = ("--revision", online["commit"])
    assert download(*commit, where=where, **OFFLINE).json["path"] == online["path"]
    assert cached or (side / "listing.json").read_bytes() == listing


def test_offline_names_what_is_missing(download, hub):
    download("--exclude", "config.json")
    hub.reset()
    failed = download(check=2, **OFFLINE)
    assert failed.json["reason"] == "network" and "config.json" in failed.err
    download("--exclude", "config.json", **OFFLINE)
    (download.folder / "dir/mid.bin").unlink()
    assert "dir/mid.bin" in download("--exclude", "config.json", check=2, **OFFLINE).err
    assert hub.log == []


def test_offline_hashes_what_was_touched(download, hub):
    download()
    flip(download.folder / "big.bin", keep_time=False)
    os.utime(download.folder / "dir/mid.bin", (1, 1))
    hub.reset()
    failed = download(check=1, **OFFLINE)
    assert failed.json["reason"] == "integrity" and "big.bin" in failed.err
    status = {f["name"]: f["status"] for f in failed.json["files"]}
    assert status["dir/mid.bin"] == "kept" and status["big.bin"] == "failed"
    assert hub.log == [] and (download.folder / "big.bin").exists()


@pytest.mark.parametrize("words", [("--revision", "v2"), ("--repo-type", "dataset"),
                                   ("--hub", "modelscope")])
def test_offline_does_not_take_one_thing_for_another(download, hub, words):
    download()
    hub.reset()
    assert download(*words, check=2, **OFFLINE).json["reason"] == "network" and hub.log == []


def test_modelscope_is_found_offline_too(download, hub):
    download("--hub", "modelscope")
    hub.reset()
    download("--hub", "modelscope", **OFFLINE)
    assert hub.log == []


# ---- ckpt-verify check ----

def check(ckpt, folder, status):
    return ckpt("ckpt-verify", "check", "--json", folder, check=status).json


@pytest.mark.parametrize("cached", [False, True])
def test_a_download_is_checked_against_the_listing(ckpt, download, hub, tmp_path, cached):
    where = ("--cache-dir", tmp_path / "C") if cached else None
    path = pathlib.Path(download(where=where).json["path"])
    hub.reset()
    result = check(ckpt, path, 0)
    assert (result["checked"], result["same"], result["commit"]) == \
        ("files", True, hub.repos[ID].commit)
    for name in ("dir/mid.bin", "config.json"):       # SHA-256, and git's SHA-1
        flip(path / name)
        result = check(ckpt, path, 1)
        entry = hub.repos[ID].find(name)
        assert [(d["kind"], d["name"], d["expected"]) for d in result["differing"]] == \
            [("hash", name, entry.etag)]
        assert name in ckpt("ckpt-verify", "check", path, check=1).out
        flip(path / name)
    assert hub.log == []


def test_missing_and_cut_files_are_named(ckpt, download):
    download("--exclude", "config.json")
    check(ckpt, download.folder, 0)                   # not selected: may be missing
    (download.folder / "dir/mid.bin").unlink()
    os.truncate(download.folder / "big.bin", 1000)
    differing = check(ckpt, download.folder, 1)["differing"]
    assert [(d["kind"], d["name"]) for d in differing] == \
        [("size", "big.bin"), ("missing", "dir/mid.bin")]
    assert differing[0]["got"] == "1000"


def test_a_checkpoint_is_looked_into_after_its_files(ckpt, tmp_path):
    files = [Entry(str(p.relative_to(DATA / "golden-a")), data=p.read_bytes())
             for p in sorted((DATA / "golden-a").rglob("*")) if p.is_file()]
    with Hub([Repo(ID, files)]) as hub:
        download = Client(ckpt, hub, tmp_path)
        download()
    result = check(ckpt, download.folder, 0)
    assert (result["checked"], result["same"]) == ("files", True) and result["tensor_count"] > 10
    text = ckpt("ckpt-verify", "check", download.folder).out
    assert "as 'hf' listed them" in text and "structure is right" in text
    shard = next(download.folder.glob("*.safetensors"))
    flip(shard, at=shard.stat().st_size - 1)
    assert [d["name"] for d in check(ckpt, download.folder, 1)["differing"]] == [shard.name]


def test_a_listing_of_no_file_is_no_pass(ckpt, download):
    download("config.json")
    path = download.folder / SIDE / "listing.json"
    listing = json.loads(path.read_text())
    for file in listing["files"]:
        file["selected"] = False
    path.write_text(json.dumps(listing))
    assert "nothing to check" in ckpt("ckpt-verify", "check", download.folder, check=2).err


def test_a_manifest_that_is_named_is_not_passed_over(ckpt, download, tmp_path):
    """The files are as listed, but none has the tensors that the manifest asks for."""
    download("config.json")
    check(ckpt, download.folder, 0)
    ckpt("ckpt-verify", "check", "--manifest", tmp_path / "m.json", download.folder, check=2)


@pytest.mark.parametrize("change", [
    {"version": 2}, {"files": 3}, {"repo": None}, {"commit": "x"}, {"revision": "a\u001b[2J"},
    {"files": [{"path": "../x", "size": 1, "algorithm": "sha256", "hash": "0" * 64,
                "selected": True}]},
    {"files": [{"path": "x", "size": 1, "algorithm": "md5", "hash": "0" * 32,
                "selected": True}]}])
def test_a_listing_that_is_none_is_an_error(ckpt, download, change):
    download("config.json")
    path = download.folder / SIDE / "listing.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    ckpt("ckpt-verify", "check", download.folder, check=2)
    download("config.json", check=2, **OFFLINE)
