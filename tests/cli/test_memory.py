"""--memory is a promise: the process stays within it, or says at once that it cannot."""
import json
import re
import shutil

import pytest

from cli.measure import measure
from cli.trees import INSTRUMENTED
from conftest import ROOT, run_tool
from corrupt.files import read_header, tensor_files

MIB = 1 << 20
SLACK_BYTES = 24 * MIB        # the program, its libraries, thread stacks
THREADS = 64                  # many times what a small limit has room for

pytestmark = pytest.mark.skipif(INSTRUMENTED, reason="a sanitizer's memory is not the tool's")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Experts and attention of Flash's true shape, but few of them."""
    path = tmp_path_factory.mktemp("memory")
    config = json.loads((ROOT / "formats" / "maps" / "deepseek_v4.flash.json").read_text())
    config.update(num_hidden_layers=1, num_nextn_predict_layers=0, n_routed_experts=8,
                  vocab_size=8192, compress_ratios=config["compress_ratios"][:1])
    (path / "config.json").write_text(json.dumps(config))
    run_tool("ckpt-synth", "--config", path / "config.json", path / "slice")
    return path


def source_bytes(folder):
    return sum(file.stat().st_size for file in (folder / "slice").iterdir())


@pytest.mark.parametrize("memory", ["256MiB", "64MiB", "16MiB"])
@pytest.mark.parametrize("options", [("--experts", "fp8"), ("--dtype", "bf16")])
def test_a_conversion_stays_within_its_limit(folder, tmp_path, memory, options):
    limit = int(memory[:-3]) * MIB
    assert source_bytes(folder) > 200 * MIB
    done = measure(tmp_path, "ckpt-convert", *options, "--memory", memory, "--threads", THREADS,
                   folder / "slice", tmp_path / "out")
    assert done.status == 0, done.err
    assert done.peak_bytes <= limit + SLACK_BYTES


def test_all_of_flash_is_planned_as_gguf_in_64_mib(tmp_path):
    """69187 stored tensors: the catalogs are most of it, and one thread's tile is the rest."""
    run_tool("ckpt-synth", "--config", "flash", "--sparse", tmp_path / "flash")
    done = measure(tmp_path, "ckpt-shard", "--layout", "gguf", "--without-tokenizer", "--dry-run",
                   "--no-space-check", "--memory", "64MiB", tmp_path / "flash", tmp_path / "out")
    assert done.status == 0, done.err
    assert done.peak_bytes <= 64 * MIB + SLACK_BYTES


def test_a_digest_stays_within_its_limit(folder, tmp_path):
    done = measure(tmp_path, "ckpt-verify", "digest", "--memory", "16MiB", "--threads", THREADS,
                   folder / "slice")
    assert done.status == 0, done.err
    assert done.peak_bytes <= 16 * MIB + SLACK_BYTES


def test_a_certificate_stays_within_its_limit(folder, tmp_path):
    """However many files there are to hash at the same time."""
    shutil.copytree(folder / "slice", tmp_path / "many")
    for i in range(THREADS):
        (tmp_path / "many" / f"{i}.txt").write_bytes(bytes(2 * MIB))
    done = measure(tmp_path, "ckpt-verify", "certify", "--memory", "16MiB", "--threads", THREADS,
                   "--out", tmp_path / "c.json", tmp_path / "many")
    assert done.status == 0, done.err
    assert done.peak_bytes <= 16 * MIB + SLACK_BYTES


def test_a_carried_file_of_any_size_is_replaced_in_place(folder, tmp_path):
    """It is copied in pieces: no file beside the weights is too large for --in-place."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(folder / "slice", old)
    shutil.copytree(old, new)
    (new / "tokenizer.model").write_bytes(bytes(96 * MIB) + b"end")
    run_tool("ckpt-delta", "diff", old, new, tmp_path / "delta")
    done = measure(tmp_path, "ckpt-delta", "apply", "--in-place", "--memory", "32MiB", old,
                   tmp_path / "delta")
    assert done.status == 0, done.err
    assert (old / "tokenizer.model").read_bytes() == (new / "tokenizer.model").read_bytes()
    assert done.peak_bytes <= 32 * MIB + SLACK_BYTES


def test_synthesis_stays_within_its_limit(folder, tmp_path):
    done = measure(tmp_path, "ckpt-synth", "--memory", "16MiB", "--threads", THREADS,
                   "--config", folder / "config.json", tmp_path / "out")
    assert done.status == 0, done.err
    assert done.peak_bytes <= 16 * MIB + SLACK_BYTES


def test_a_limit_that_is_too_small_is_refused_with_what_is_needed(folder, tmp_path):
    """The bytes it names are enough, and a byte less is not."""
    command = ("ckpt-convert", "--experts", "fp8", folder / "slice", tmp_path / "out")
    result = run_tool(*command, "--memory", "100kB", check=2)
    assert "memory limit of 100000 bytes is too small" in result.err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
    need, catalogs, tile = (int(word.strip(",")) for word in result.err.split() if
                            word.strip(",\n").isdigit() and word != "100000")
    assert need == catalogs + tile
    run_tool(*command, "--memory", need - 1, check=2)
    run_tool(*command, "--memory", need)


def test_a_dry_run_says_what_is_needed(folder, tmp_path):
    plan = run_tool("ckpt-convert", "--experts", "fp8", "--dry-run", "--json", folder / "slice",
                    tmp_path / "out").json
    assert 0 < plan["fixed_memory_bytes"] < 64 * MIB
    assert 0 < plan["tile_bytes_per_thread"] < 64 * MIB


@pytest.fixture(scope="module")
def exceptions(folder):
    """The same with three experts whose groups all have a scale that no rule recovers."""
    path = folder / "exceptions"
    shutil.copytree(folder / "slice", path)
    for file in path.glob("*.safetensors"):
        header, _, offset = read_header(file)
        with open(file, "r+b") as f:
            for name, h in header.items():
                if re.search(r"\.experts\.[012]\.w", name):
                    begin, end = h["data_offsets"]
                    f.seek(offset + begin)          # every element is 1 x 2^-7
                    f.write((b"\x22" if name.endswith(".weight") else b"\x78") * (end - begin))
    return path


@pytest.mark.parametrize("memory", ["64MiB", "16MiB"])
def test_sorting_exceptions_stays_within_the_limit(exceptions, tmp_path, memory):
    """Held at once, they would take more than the smaller limit and its slack."""
    limit = int(memory[:-3]) * MIB
    done = measure(tmp_path, "ckpt-convert", "--experts", "fp8", "--memory", memory, "--json",
                   "--report", tmp_path / "report", exceptions, tmp_path / "out")
    assert done.status == 0, done.err
    count = json.loads((tmp_path / "report").read_text())["totals"]["exceptions"]
    assert 32 * count > 16 * MIB + SLACK_BYTES
    assert done.peak_bytes <= limit + SLACK_BYTES
    run_tool("ckpt-convert", "--experts", "fp4", tmp_path / "out", tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(exceptions)
