"""ckpt-shard at the full size of the released models, and killed at any moment."""
import json
import random
import signal

import pytest

from cli.measure import measure
from cli.trees import INSTRUMENTED, Job, partial

MIB = 1 << 20
DRY_MEMORY = 500 * MIB
HANG_SECONDS = 30            # of CPU; not a speed, only what a quadratic loop would take
KEYS = {"flash": 1242, "pro": 1772}
LAYERS = {"flash": 43, "pro": 61}
BYTES = {"flash": (560e9, 580e9), "pro": (3.10e12, 3.20e12)}
PRESETS = {"flash": {"flash-convert": 8 * 4, "flash-h200": 8 * 8, "flash-gb300": 8 * 4},
           "pro": {"pro-convert": 8 * 32, "pro-train": 8 * 32}}
# A rank's file as DeepSeek's converter makes it, in GB. Flash has 8 output groups: no mp16.
RANK_GIGABYTES = {"flash": {1: 161.09, 2: 81.68, 4: 41.98, 8: 22.13},
                  "pro": {1: 868.87, 2: 438.12, 4: 222.75, 8: 115.06, 16: 61.22}}

full_size = pytest.mark.skipif(INSTRUMENTED, reason="full catalogs under a sanitizer take long")


@pytest.fixture(scope="module", params=KEYS)
def release(request, ckpt, tmp_path_factory):
    path = tmp_path_factory.mktemp("full") / request.param
    ckpt("ckpt-synth", "--config", request.param, "--sparse", path)
    return path


@full_size
@pytest.mark.parametrize("style", ["v1", "v2"])
def test_a_full_size_plan_is_light(release, tmp_path, style):
    done = measure(tmp_path, "ckpt-shard", "--layout", "torch_dist", "--key-style", style,
                   "--dry-run", "--no-space-check", "--json", release, tmp_path / "out")
    assert done.status == 0, done.err
    assert done.cpu_seconds < HANG_SECONDS
    plan = json.loads(done.out)
    # v2 has three tensors for each of a layer's two hyper-connection scales.
    assert plan["keys"] == KEYS[release.name] + (4 * LAYERS[release.name] if style == "v2" else 0)
    low, high = BYTES[release.name]
    assert low < plan["out_bytes"] < high
    assert sum(f["bytes"] for f in plan["files"]) == plan["out_bytes"]
    assert done.peak_bytes < DRY_MEMORY


@full_size
def test_presets_are_legal_at_full_size(ckpt, release, tmp_path):
    for preset, ranks in PRESETS[release.name].items():
        plan = ckpt("ckpt-shard", "--layout", "torch_dist", "--preset", preset, "--files", "rank",
                    "--dry-run", "--no-space-check", "--json", release, tmp_path / "out").json
        assert plan["keys"] == KEYS[release.name]
        assert len(plan["files"]) == ranks, preset


@full_size
@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_ranks_have_the_sizes_of_the_release(ckpt, release, tmp_path, count):
    gigabytes = RANK_GIGABYTES[release.name]
    if count not in gigabytes:
        failed = ckpt("ckpt-shard", "--dry-run", "--layout", "mp", "--mp", count, release,
                      tmp_path / "out", check=2)
        assert "attn.wo_a.weight" in failed.err
        assert "legal values are: 1 2 4 8\n" in failed.err
        return
    plan = ckpt("ckpt-shard", "--dry-run", "--no-space-check", "--json", "--layout", "mp", "--mp",
                count, release, tmp_path / "out").json
    assert len(plan["files"]) == count
    for file in plan["files"]:
        assert abs(file["bytes"] / 1e9 - gigabytes[count]) < 0.02, file


# ---- killed and run again ----

@pytest.fixture(scope="module")
def job(golden_b, tmp_path_factory):
    job = Job(tmp_path_factory.mktemp("jobs"), "ckpt-shard", "--layout", "torch_dist", golden_b)
    assert "release/.metadata" in job.expected
    return job


@pytest.mark.parametrize("seed", range(12))
def test_killed_at_any_write_it_goes_on(job, fault, seed):
    """Checksums of what an earlier life wrote are made again from the bytes in the files."""
    rng = random.Random(seed)
    target = job.new_target()
    for _ in range(rng.randint(1, 3)):
        job.run(target, check=-signal.SIGKILL,
                env=fault.env(f"write:kill:{rng.randint(1, 500)}", partial(target)))
        assert fault.injected
        assert not target.exists()
    job.finish(target)


@pytest.mark.parametrize("name", [".metadata", "metadata.json", "common.pt", "config.json",
                                  "latest_checkpointed_iteration.txt", "ckpt-manifest.json"])
def test_killed_at_the_files_beside_the_data_it_goes_on(job, fault, name):
    target = job.new_target()
    job.run(target, check=-signal.SIGKILL,
            env=fault.env("write:kill:1", name))
    assert fault.injected
    assert not target.exists()
    job.finish(target)


@pytest.mark.parametrize("other", [("--iteration", "12"), ("--extra-state",), ("--ep", "4"),
                                   ("--files", "rank")], ids=" ".join)
def test_another_layout_does_not_go_on_in_the_same_folder(job, fault, other):
    """It would leave files of both, or one's boxes beside the other's arguments."""
    target = job.new_target()
    job.run(target, check=-signal.SIGKILL, env=fault.env("write:kill:40", partial(target)))
    assert "unfinished run with different options" in job.run(target, *other, check=2).err
    job.finish(target)


@pytest.mark.parametrize("call, step, least", [("fsync", 7, 3), ("rename", 1, 1)])
def test_killed_while_committing_it_goes_on(job, fault, call, step, least):
    kills = 0
    for target in job.killed_in_turn(call, step, fault):
        job.finish_or_check(target)
        kills += 1
    assert kills >= least


def test_killed_by_the_clock_it_goes_on(job):
    for target in job.killed_by_the_clock(6, random.Random(7)):
        job.finish_or_check(target)
