"""The full size of the released models, over file holes."""
import errno
import json
import os
import re
import struct
import subprocess

import pytest

from cli.measure import measure
from cli.trees import INSTRUMENTED, partial
from conftest import BUILD, ROOT, run_tool

MIB = 1 << 20
CATALOG_BYTES = 300 * MIB
HANG_SECONDS = 30             # of CPU; not a speed: what only a quadratic loop would take

pytestmark = pytest.mark.skipif(INSTRUMENTED, reason="full catalogs under a sanitizer take long")

RELEASES = {
    "flash": {"tensors": 69187, "files": 46, "payload": 159609485896, "headers": 7663144},
    "pro": {"tensors": 145116, "files": 64, "payload": 864704792696, "headers": 16237048},
}


@pytest.fixture(scope="module", params=RELEASES)
def model(request, tmp_path_factory):
    """(its name, its folder): everything but the values."""
    path = tmp_path_factory.mktemp("scale") / request.param
    run_tool("ckpt-synth", "--config", request.param, "--sparse", path)
    yield request.param, path


@pytest.fixture(scope="module")
def headers(model):
    """By file: bytes of the header, and what it says. Read without any of our code."""
    read = {}
    for path in sorted(model[1].glob("*.safetensors")):
        with open(path, "rb") as file:
            size, = struct.unpack("<Q", file.read(8))
            read[path] = 8 + size, json.loads(file.read(size))
    return read


def test_tensors_files_and_bytes_are_those_of_the_release(model, headers):
    name, _ = model
    entries = [entry for _, header in headers.values() for tensor, entry in header.items()
               if tensor != "__metadata__"]
    assert {"tensors": len(entries), "files": len(headers),
            "payload": sum(e["data_offsets"][1] - e["data_offsets"][0] for e in entries),
            "headers": sum(size for size, _ in headers.values())} == RELEASES[name]


def test_every_file_is_exactly_filled(headers):
    for path, (size, header) in headers.items():
        spans = sorted(entry["data_offsets"] for tensor, entry in header.items()
                       if tensor != "__metadata__")
        assert spans[0][0] == 0
        assert all(a[1] == b[0] for a, b in zip(spans, spans[1:]))
        assert path.stat().st_size == size + spans[-1][1]


def test_the_index_agrees_with_the_headers(model, headers):
    index = json.loads((model[1] / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == RELEASES[model[0]]["payload"]
    assert index["weight_map"] == {tensor: path.name for path, (_, header) in headers.items()
                                   for tensor in header if tensor != "__metadata__"}


def test_no_disk_is_used(model):
    used = sum(path.stat().st_blocks * 512 for path in model[1].iterdir())
    assert used < 64 * MIB


def test_the_plan_says_the_same(model):
    name, _ = model
    plan = run_tool("ckpt-synth", "--config", name, "--dry-run", "--json",
                    "--no-space-check", "nowhere").json
    assert plan.pop("schema") == "ckpt-synth/1"
    assert plan == {"tensor_count": RELEASES[name]["tensors"],
                    "file_count": RELEASES[name]["files"],
                    "payload_bytes": RELEASES[name]["payload"],
                    "header_bytes": RELEASES[name]["headers"]}


@pytest.mark.parametrize("tool, options", [
    ("ckpt-inspect", ()),
    ("ckpt-inspect", ("--json",)),
    ("ckpt-convert", ("--dry-run", "--no-space-check", "--dtype", "bf16")),
    ("ckpt-convert", ("--dry-run", "--no-space-check", "--json", "--experts", "fp8")),
])
def test_a_full_catalog_is_light(model, tmp_path, tool, options):
    target = (tmp_path / "out",) if tool == "ckpt-convert" else ()
    done = measure(tmp_path, tool, *options, model[1], *target)
    assert done.status == 0, done.err
    assert done.cpu_seconds < HANG_SECONDS
    assert done.out
    assert done.peak_bytes < CATALOG_BYTES


# ---- a disk that fills up ----

@pytest.fixture(scope="module")
def flash(tmp_path_factory):
    """All layers and experts of Flash; only the vocabulary is short, so that its work begins
    with what has to be encoded."""
    folder = tmp_path_factory.mktemp("flash")
    config = json.loads((ROOT / "formats" / "maps" / "deepseek_v4.flash.json").read_text())
    config["vocab_size"] = 128
    (folder / "config.json").write_text(json.dumps(config))
    run_tool("ckpt-synth", "--config", folder / "config.json", "--sparse", folder / "flash")
    return folder / "flash"


def fill(flash, folder, tmp_path, env=None):
    """Zeros under scales of 2^-127, which are scales like any other. The room is not looked at
    beforehand: that it ends while data are written is the point."""
    target = folder / "out"
    done = measure(tmp_path, "ckpt-convert", "--dtype", "bf16", "--memory", "256MiB",
                   "--no-space-check", flash, target, env=env)
    assert done.status == 2
    assert re.fullmatch(r"ckpt-convert: cannot write '[^\n]*': No space left on device\n",
                        done.err)
    assert not target.exists()
    assert done.peak_bytes <= (256 + 64) * MIB
    return partial(target)


def test_a_full_disk_ends_it_cleanly(flash, small_disk, tmp_path):
    disk = small_disk(160)
    left = fill(flash, disk, tmp_path)
    assert os.statvfs(disk).f_bavail < 1024
    # It got through whole tensors before the disk was full.
    done = (left / ".ckpt-journal").read_text().count("\ndone ")
    assert done > 3
    # And again: the disk is as full as before.
    fill(flash, disk, tmp_path)


def test_a_disk_said_to_be_full_ends_it_cleanly(flash, tmp_path, fault):
    left = fill(flash, tmp_path, tmp_path, fault.env("pwrite:ENOSPC:300+", "out.partial"))
    assert fault.injected
    assert (left / ".ckpt-journal").exists()


def test_a_file_system_that_limits_the_size_of_files_says_so(flash, tmp_path):
    """As FAT would: the first file that is too large is named, before any value is read."""
    limit = 64 * MIB
    script = f"ulimit -f {limit // 1024}; exec \"$0\" \"$@\""
    done = subprocess.run(["bash", "-c", script, *map(str, (
        BUILD / "bin" / "ckpt-convert", "--dtype", "bf16", flash, tmp_path / "out"))],
        text=True, capture_output=True)
    assert done.returncode == 2, done
    assert os.strerror(errno.EFBIG) in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
