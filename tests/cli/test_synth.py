"""ckpt-synth: official-layout checkpoints of any size, the same bytes every time."""
import json
import shutil

import pytest

from cli.kernels import needs_kernels
from cli.trees import tree
from corrupt.files import INDEX, Model, all_files, file_bytes, read_header, tensor_files

# Counts and bytes published for the official releases (tensors, payload, all files).
OFFICIAL = {"flash": (69_187, 159_609_485_896, 159_617_149_040, 46),
            "pro": (145_116, 864_704_792_696, 864_721_029_744, 64)}


@pytest.fixture(scope="module")
def tiny(ckpt, tmp_path_factory):
    out = tmp_path_factory.mktemp("synth") / "tiny"
    ckpt("ckpt-synth", "--config", "tiny", out)
    return out


def test_tiny_is_a_complete_checkpoint(ckpt, tiny):
    assert len(ckpt("ckpt-verify", "digest", "--json", tiny).json["root"]) == 64
    listed = ckpt("ckpt-inspect", "--json", tiny).json
    assert listed["family"] == "deepseek_v4"


def test_the_index_and_the_headers_are_canonical(tiny):
    model = Model(tiny)
    assert json.loads((tiny / INDEX).read_text()) == model.index()
    for name, data in tensor_files(tiny).items():
        assert data == file_bytes(model.files[name])


def test_the_same_seed_gives_the_same_bytes(ckpt, tiny, tmp_path):
    ckpt("ckpt-synth", "--config", "tiny", "--threads", "3", tmp_path / "again")
    ckpt("ckpt-synth", "--config", "tiny", "--seed", "2", tmp_path / "other")
    assert all_files(tmp_path / "again") == all_files(tiny)
    a, b = Model(tiny), Model(tmp_path / "other")
    assert a.names() == b.names()
    assert a["embed.weight"] != b["embed.weight"]


@pytest.mark.parametrize("kernels", ["scalar", "avx2"])
def test_any_kernels_give_the_same_bytes(ckpt, tiny, tmp_path, kernels):
    needs_kernels(kernels)
    ckpt("ckpt-synth", "--config", "tiny", tmp_path / "x", env={"CKPT_KERNELS": kernels})
    assert all_files(tmp_path / "x") == all_files(tiny)


def test_tensors_differ_from_each_other(tiny):
    model = Model(tiny)
    large = [t.data for n in model.names() if len((t := model[n]).data) > 1000]
    assert len(set(large)) == len(large)


def test_codes_and_scales_are_sound(ckpt, tiny, tmp_path):
    """No NaN code, no odd scale, every cast exact: the strict path takes it both ways."""
    for options in (["--dtype", "bf16"], ["--experts", "fp8"]):
        out = tmp_path / options[1]
        ckpt("ckpt-convert", *options, "--verify", tiny, out)
        ckpt("ckpt-verify", "compare", tiny, out)
        back = tmp_path / f"back-{options[1]}"
        ckpt("ckpt-convert", "--like", tiny, out, back)
        assert tensor_files(back) == tensor_files(tiny)


def test_a_config_file_makes_its_own_model(ckpt, golden, tmp_path):
    ckpt("ckpt-synth", "--config", golden / "config.json", tmp_path / "out")
    theirs, ours = Model(golden), Model(tmp_path / "out")
    assert sorted(ours.names()) == sorted(theirs.names())
    for name in theirs.names():
        assert (ours[name].dtype, ours[name].shape) == (theirs[name].dtype, theirs[name].shape)
    ckpt("ckpt-verify", "check", "--structure-only", tmp_path / "out")


def test_a_seed_of_values_that_are_all_zero_is_refused(ckpt, tmp_path):
    assert "--sparse and --seed" in ckpt("ckpt-synth", "--config", "tiny", "--sparse", "--seed",
                                         "2", tmp_path / "out", check=2).err


def test_fewer_layers(ckpt, tmp_path):
    ckpt("ckpt-synth", "--config", "tiny", "--layers", "2", tmp_path / "out")
    model = Model(tmp_path / "out")
    assert {n.split(".")[1] for n in model.names() if n.startswith("layers.")} == {"0", "1"}
    assert any(n.startswith("mtp.0.") for n in model.names())
    ckpt("ckpt-verify", "digest", tmp_path / "out")


def test_layers_of_a_language_model_are_those_of_its_own_config(ckpt, tmp_path):
    """Whatever the root says; a config that tells no number is refused."""
    text = {"model_type": "qwen3_vl_text", "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 32, "vocab_size": 256}
    config = {"model_type": "qwen3_vl", "num_hidden_layers": 9, "text_config": text}
    (tmp_path / "vl.json").write_text(json.dumps(config))
    ckpt("ckpt-synth", "--config", tmp_path / "vl.json", "--layers", "2", tmp_path / "out")
    config["text_config"]["num_hidden_layers"] = 2
    assert json.loads((tmp_path / "out/config.json").read_text()) == config
    assert {n.split(".")[3] for n in Model(tmp_path / "out").index()["weight_map"]
            if ".layers." in n} == {"0", "1"}
    del config["text_config"]["num_hidden_layers"], config["num_hidden_layers"]
    (tmp_path / "none.json").write_text(json.dumps(config))
    err = ckpt("ckpt-synth", "--config", tmp_path / "none.json", "--layers", "2", tmp_path / "none",
               check=2).err
    assert "--layers: the config has no 'num_hidden_layers'" in err


@pytest.mark.parametrize("name", OFFICIAL)
def test_full_size_headers_are_the_published_ones(ckpt, tmp_path, name):
    """Sparse files: real headers, real sizes, no disk."""
    tensors, payload, on_disk, shards = OFFICIAL[name]
    out = tmp_path / name
    ckpt("ckpt-synth", "--config", name, "--sparse", out)
    files = sorted(out.glob("*.safetensors"))
    assert len(files) == shards
    assert sum(p.stat().st_size for p in files) == on_disk
    assert sum(p.stat().st_blocks * 512 for p in files) < 200 << 20
    index = json.loads((out / INDEX).read_text())
    assert index["metadata"]["total_size"] == payload
    assert len(index["weight_map"]) == tensors
    header, metadata, _ = read_header(files[0])
    assert list(header) == ["embed.weight"] and metadata is None
    plan = ckpt("ckpt-convert", "--dry-run", "--no-space-check", "--json", "--dtype", "bf16", out,
                tmp_path / "bf16").json
    assert len(plan["files"]) == shards


@pytest.mark.parametrize("name,payload,tensors", [("flash", 581_975_531_080, 35_020),
                                                  ("pro", 3_197_868_864_632, 73_164)])
def test_the_plan_of_a_full_size_cast_has_the_known_size(ckpt, tmp_path, name, payload, tensors):
    out = tmp_path / name
    ckpt("ckpt-synth", "--config", name, "--sparse", out)
    plan = ckpt("ckpt-convert", "--dry-run", "--no-space-check", "--json", "--dtype", "bf16", out,
                tmp_path / "bf16").json
    assert len(plan["tensors"]) == tensors
    headers = sum(f["bytes"] for f in plan["files"]) - payload
    assert 0 < headers < 20 << 20


def test_refusals_leave_nothing(ckpt, tmp_path):
    (tmp_path / "bad.json").write_text('{"model_type": "deepseek_v4"}')
    (tmp_path / "other.json").write_text('{"model_type": "llama"}')
    for config in ("huge", tmp_path / "bad.json", tmp_path / "other.json", tmp_path / "none.json"):
        ckpt("ckpt-synth", "--config", config, tmp_path / "out", check=2)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.json", "other.json"]
    ckpt("ckpt-synth", tmp_path / "out", check=2)


def test_a_model_is_not_replaced_by_one_made_of_its_config(ckpt, golden_a, tmp_path):
    shutil.copytree(golden_a, tmp_path / "model")
    before = tree(tmp_path)
    config = tmp_path / "model/config.json"
    for target in [tmp_path / "model", config, tmp_path]:
        err = ckpt("ckpt-synth", "--overwrite", "--config", config, target, check=2).err
        assert "would replace" in err or "are the same" in err
    assert tree(tmp_path) == before
    ckpt("ckpt-synth", "--sparse", "--config", config, tmp_path / "other")


def test_a_disk_that_is_too_small_is_told_before_a_byte(ckpt, small_disk):
    """The releases take hundreds of gigabytes, and --sparse is easily forgotten."""
    disk = small_disk(1)
    err = ckpt("ckpt-synth", "--config", "tiny", disk / "out", check=2).err
    assert "not enough disk space" in err and "--sparse needs no room" in err
    assert list(disk.iterdir()) == []
    ckpt("ckpt-synth", "--config", "flash", "--sparse", "--layers", "1", disk.parent / "sparse")
    err = ckpt("ckpt-synth", "--config", "tiny", "--no-space-check", disk / "out", check=2).err
    assert "No space left" in err


def test_an_existing_target_stays(ckpt, tiny, tmp_path):
    (tmp_path / "out").mkdir()
    ckpt("ckpt-synth", "--config", "tiny", tmp_path / "out", check=2)
    assert list((tmp_path / "out").iterdir()) == []
    ckpt("ckpt-synth", "--config", "tiny", "--overwrite", tmp_path / "out")
    assert all_files(tmp_path / "out") == all_files(tiny)
