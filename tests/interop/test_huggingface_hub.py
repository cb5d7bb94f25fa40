"""Against the real huggingface_hub: it downloads from the mock, and each finds the other's files.

The newest, in .venv, and a 1.x in .venv/clients; scripts/setup --tests installs both.
"""
import json
import pathlib
import subprocess
import sys

import pytest

from client import ID, MIB, environment
from conftest import ROOT

CLIENTS = {"newest": pathlib.Path(sys.executable).parent, "1.x": ROOT / ".venv/clients/hf1/bin"}


@pytest.fixture(params=CLIENTS)
def hf(request, hub, tmp_path):
    """hf("download", ID, ...) -> its output."""
    command = CLIENTS[request.param] / "hf"
    if not command.exists():
        pytest.skip(f"{command} is not installed")

    def run(*words, check=True):
        env = environment(hub, tmp_path / "home", HF_TOKEN="hf_test", HF_HUB_DISABLE_XET="1",
                          HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_UPDATE_CHECK="1",
                          HF_HUB_DISABLE_PROGRESS_BARS="1")
        done = subprocess.run([command, *map(str, words)], env=env, capture_output=True,
                              text=True, timeout=120)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done
    run.python = command.parent / "python"
    return run


def test_the_real_client_downloads_from_the_mock(hf, hub, download):
    hf("download", ID, "--local-dir", download.folder)
    download.assert_right()


def test_after_ours_theirs_fetches_nothing(hf, hub, download):
    download()
    hub.reset()
    hf("download", ID, "--local-dir", download.folder)
    assert hub.payload == 0
    assert not [e for e in hub.log if "/resolve" in e["target"]], hub.log
    download.assert_right()


def test_after_theirs_ours_verifies_and_fetches_nothing(hf, hub, download):
    hf("download", ID, "--local-dir", download.folder)
    hub.reset()
    result = download().json
    assert {f["status"] for f in result["files"]} == {"kept"} and hub.payload == 0
    download.assert_right()


def test_ours_finds_what_theirs_did_not_see(hf, hub, download):
    hub.fault("wrong", port="cdn", path="dir/mid.bin", at=77)
    hf("download", ID, "--local-dir", download.folder)
    assert hub.faults[0]["taken"] == 1
    hub.reset()
    result = download().json
    assert {f["name"] for f in result["files"] if f["status"] == "downloaded"} == {"dir/mid.bin"}
    assert hub.payload == 3 * MIB
    download.assert_right()


def test_ours_completes_theirs(hf, hub, download):
    hf("download", ID, "--local-dir", download.folder, "--include", "*.bin")
    hub.reset()
    download()
    assert hub.payload == sum(f.size for f in hub.repos[ID].files if f.kind == "git")
    download.assert_right()


def test_theirs_completes_ours(hf, hub, download):
    download("--include", "*.bin")
    hub.reset()
    hf("download", ID, "--local-dir", download.folder)
    assert not hub.requests(port="cdn")
    download.assert_right()


@pytest.mark.parametrize("damaged", [False, True])
def test_hf_cache_verify_agrees(hf, hub, download, damaged):
    download()
    if damaged:
        with open(download.folder / "big.bin", "r+b") as f:
            f.seek(100)
            f.write(b"!")
    done = hf("cache", "verify", ID, "--local-dir", download.folder, check=False)
    assert (done.returncode == 0) != damaged, done.stdout + done.stderr


def test_the_cache_is_one_for_both(hf, hub, download, tmp_path):
    cache = tmp_path / "C"
    ours = download(where=("--cache-dir", cache)).json["path"]
    hub.reset()
    theirs = hf("download", ID, "--cache-dir", cache).stdout
    assert ours in theirs and hub.payload == 0
    hub.reset()
    offline = subprocess.run(
        [hf.python, "-c", "import huggingface_hub as h, sys;"
         "print(h.snapshot_download(sys.argv[1], cache_dir=sys.argv[2]))", ID, cache],
        env=environment(hub, tmp_path / "home", HF_HUB_OFFLINE="1"), capture_output=True,
        text=True, timeout=60)
    assert offline.stdout.strip() == ours, offline.stderr
    assert hub.log == []


def test_their_cache_is_verified_by_ours(hf, hub, download, tmp_path):
    cache = tmp_path / "C"
    hf("download", ID, "--cache-dir", cache)
    hub.reset()
    result = download(where=("--cache-dir", cache)).json
    assert {f["status"] for f in result["files"]} == {"kept"} and hub.payload == 0


def test_the_side_files_are_what_the_real_client_writes(hf, hub, download, tmp_path):
    download()
    hf("download", ID, "--local-dir", tmp_path / "E")
    ours, theirs = download.folder / ".cache/huggingface", tmp_path / "E/.cache/huggingface"
    commit = hub.repos[ID].commit
    assert (ours / ".gitignore").read_bytes() == (theirs / ".gitignore").read_bytes() == b"*"
    for path in sorted(theirs.glob("download/**/*.metadata")):
        mine = (ours / path.relative_to(theirs)).read_text().split("\n")
        assert mine[:2] == path.read_text().split("\n")[:2] and float(mine[2]) > 0
    assert {p.relative_to(theirs) for p in theirs.glob("download/**/*")} == \
        {p.relative_to(ours) for p in ours.glob("download/**/*")}
    trees = [json.loads((side / f"trees/{commit}.json").read_text()) for side in (ours, theirs)]
    assert trees[0] == trees[1]
