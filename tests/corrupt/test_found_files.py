"""A pipe, a device or a socket where a folder should have a file: refused at once, never read."""
import os
import shutil
import socket
import subprocess

import pytest

from conftest import ROOT, run_tool
from corrupt.files import INDEX

SECONDS = 60            # a tool that waits for a pipe would wait for ever
KINDS = ["pipe", "device", "socket"]
WORDS = {"pipe": "named pipe", "device": "device", "socket": "socket"}


def put(kind, path):
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as s:        # the path may be too long for a socket
            here = os.open(path.parent, os.O_RDONLY)
            s.bind(f"/proc/self/fd/{here}/{path.name}")
            os.close(here)


def refused(path, kind, *command):
    err = run_tool(*command, check=2, timeout=SECONDS).err
    assert f"expected a file, got a {WORDS[kind]}" in err and path.name in err, err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["config.json", INDEX, "ckpt-manifest.json",
                                  "model-00002-of-00005.safetensors"])
def test_in_a_hugging_face_folder(golden_a, tmp_path, kind, name):
    shutil.copytree(golden_a, tmp_path / "in")
    put(kind, tmp_path / "in" / name)
    refused(tmp_path / name, kind, "ckpt-verify", "check", tmp_path / "in")
    if name != "ckpt-manifest.json":
        refused(tmp_path / name, kind, "ckpt-inspect", tmp_path / "in")
        refused(tmp_path / name, kind, "ckpt-convert", tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["README.md", "generation_config.json", "fp4_scales.zst"])
def test_among_the_files_that_a_result_carries_along(golden_a, tmp_path, kind, name):
    """Told before the first byte, and not left out."""
    shutil.copytree(golden_a, tmp_path / "in")
    put(kind, tmp_path / "in" / name)
    for command in (["ckpt-convert"], ["ckpt-shard", "--layout", "hf"]):
        refused(tmp_path / name, kind, *command, "--dtype", "bf16", tmp_path / "in",
                tmp_path / "out")
        assert os.listdir(tmp_path) == ["in"]
    run_tool("ckpt-inspect", tmp_path / "in", timeout=SECONDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer(golden_a, tmp_path, kind):
    shutil.copytree(golden_a, tmp_path / "in")
    put(kind, tmp_path / "in" / "tokenizer.json")
    refused(tmp_path / "tokenizer.json", kind, "ckpt-run", "--prompt", "x", tmp_path / "in")


@pytest.fixture(scope="module")
def torch_dist(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("torch_dist") / "out"
    run_tool("ckpt-shard", "--layout", "torch_dist", data / "golden-a", path)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [".metadata", "latest_checkpointed_iteration.txt",
                                  "__0_0.distcp"])
def test_in_a_torch_dist_folder(torch_dist, tmp_path, kind, name):
    shutil.copytree(torch_dist, tmp_path / "in")
    found = [p for p in (tmp_path / "in").rglob("*") if p.name == name]
    put(kind, found[0])
    refused(found[0], kind, "ckpt-verify", "digest", tmp_path / "in")


@pytest.mark.parametrize("kind", KINDS)
def test_the_journal_of_a_result(golden_a, tmp_path, kind):
    (tmp_path / "out.partial").mkdir()
    journal = tmp_path / "out.partial" / ".ckpt-journal"
    put(kind, journal)
    err = run_tool("ckpt-convert", golden_a, tmp_path / "out", check=2, timeout=SECONDS).err
    what = "it is a link" if kind == "device" else f"expected a file, got a {WORDS[kind]}"
    assert f"cannot open '{journal}': {what}" in err, err


def test_what_a_user_names_may_be_a_pipe(golden_a, tmp_path):
    """bash gives a command's output as /dev/fd/N; standard input is a pipe here, too."""
    bin_folder = ROOT / os.environ.get("CKPT_BUILD", "build") / "bin"
    script = f"""set -e
cd {bin_folder}
./ckpt-verify digest --json {golden_a} > {tmp_path}/m
./ckpt-verify check --manifest <(cat {tmp_path}/m) {golden_a}
cat {tmp_path}/m | ./ckpt-verify check --manifest /dev/stdin {golden_a}
./ckpt-inspect --map <(cat {ROOT}/formats/maps/deepseek_v4.native.map) --logical {golden_a}
echo 1 2 3 | ./ckpt-run --dry-run --tokens - {golden_a}
./ckpt-run --dry-run --tokens <(echo 1 2 3) --config <(cat {golden_a}/config.json) {golden_a}
"""
    subprocess.run(["bash", "-c", script], check=True, timeout=5 * SECONDS,
                   stdout=subprocess.DEVNULL)
