"""--config: checkpoints that have no config.json, as trainers write them."""
import argparse
import json
import pickle
import shutil
import zipfile

import pytest

from corrupt.files import tensor_files


@pytest.fixture(scope="module")
def bare(ckpt, golden_a, tmp_path_factory):
    """The golden checkpoint as Megatron would write it: without a config.json."""
    folder = tmp_path_factory.mktemp("bare")
    ckpt("ckpt-shard", "--layout", "torch_dist", golden_a, folder / "dist")
    for path in list((folder / "dist").rglob("config.json")):
        path.unlink()
    return folder / "dist"


def test_a_trained_checkpoint_becomes_a_release(ckpt, bare, golden_a, digest, tmp_path):
    done = ckpt("ckpt-convert", "--config", golden_a / "config.json", "--quantize", "v4-release",
                "--fill-from", golden_a, "--json", bare, tmp_path / "out").json
    assert digest(tmp_path / "out") == digest(golden_a)
    assert done["quantised"]["exact_tensors"] > 200
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["expert_dtype"] == "fp4" and config["model_type"] == "deepseek_v4"
    assert "fp4-b32-deepseek" in config["quantization_config"]["ckpt_rule"]


def test_the_config_is_edited_for_what_the_tensors_are(ckpt, bare, golden_a, tmp_path):
    """The release's config says FP8; the trained tensors are BF16."""
    ckpt("ckpt-convert", "--config", golden_a / "config.json", bare, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config and "expert_dtype" not in config
    assert ckpt("ckpt-inspect", "--json", tmp_path / "out").json["family"] == "deepseek_v4"


def test_with_like_every_byte_returns(ckpt, bare, golden_a, tmp_path):
    ckpt("ckpt-convert", "--config", golden_a / "config.json", "--quantize", "v4-release",
         "--like", golden_a, "--fill-from", golden_a, bare, tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(golden_a)


def test_without_it_the_error_names_the_option(ckpt, bare, tmp_path):
    err = ckpt("ckpt-convert", "--quantize", "v4-release", bare, tmp_path / "out", check=2).err
    assert "--config" in err
    assert not list(tmp_path.iterdir())


def test_a_release_without_a_config_is_told(ckpt, bare, golden_a, tmp_path):
    said = "no config.json is written"
    assert said in ckpt("ckpt-shard", "--layout", "hf", bare, tmp_path / "without").out
    assert not (tmp_path / "without" / "config.json").exists()
    assert said not in ckpt("ckpt-shard", "--layout", "hf", "--config", golden_a / "config.json",
                            bare, tmp_path / "with").out
    assert said not in ckpt("ckpt-shard", "--layout", "hf", "--like", golden_a, "--fill-from",
                            golden_a, bare, tmp_path / "like").out


def test_a_source_with_its_own_config_is_refused(ckpt, golden_a, bare, tmp_path):
    err = ckpt("ckpt-convert", "--config", golden_a / "config.json", golden_a, tmp_path / "out",
               check=2).err
    assert "has a config.json" in err
    shutil.copy(golden_a / "config.json", tmp_path / "broken.json")
    (tmp_path / "broken.json").write_text("[]")
    err = ckpt("ckpt-convert", "--config", tmp_path / "broken.json", bare, tmp_path / "out",
               check=2).err
    assert "is not an object" in err and not (tmp_path / "out").exists()


def trained_from(dist, **args):
    """Put the arguments of a run in place of those that a torch_dist has."""
    path, = dist.rglob("common.pt")
    common = {"args": argparse.Namespace(**args), "iteration": 1, "checkpoint_version": 3.0}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("common/data.pkl", pickle.dumps(common, 2))
        archive.writestr("common/version", "3\n")


@pytest.mark.parametrize("release, file", [("/models/V4", "/models/V4/config.json"),
                                           ("/models/V4/", "/models/V4/config.json"),
                                           ("org/name", "org/name/config.json")])
def test_the_release_in_the_arguments_is_named(ckpt, bare, qwen, tmp_path, release, file):
    """It is named and not opened: the folder is not there."""
    hint = f"(its args name hf_checkpoint '{release.rstrip('/')}': give --config {file})"
    shutil.copytree(bare, tmp_path / "dist")
    trained_from(tmp_path / "dist", hf_checkpoint=release)
    err = ckpt("ckpt-convert", "--quantize", "v4-release", tmp_path / "dist", tmp_path / "out",
               check=2).err
    assert err.rstrip().endswith("give --config FILE or --like ORIGINAL " + hint)
    done = ckpt("ckpt-shard", "--layout", "hf", "--json", tmp_path / "dist", tmp_path / "hf").json
    assert any("no config.json is written" in n and n.endswith(hint) for n in done["notes"])
    shutil.copytree(qwen[2], tmp_path / "qwen")
    trained_from(tmp_path / "qwen", hf_checkpoint=release)
    note, = ckpt("ckpt-inspect", "--json", tmp_path / "qwen").json["notes"]
    assert note.endswith(hint)


@pytest.mark.parametrize("release", [None, 7, "", "/x" * 200])
def test_arguments_that_name_no_release_give_no_hint(ckpt, bare, tmp_path, release):
    shutil.copytree(bare, tmp_path / "dist")
    trained_from(tmp_path / "dist", hf_checkpoint=release)
    err = ckpt("ckpt-convert", "--quantize", "v4-release", tmp_path / "dist", tmp_path / "out",
               check=2).err
    assert err.rstrip().endswith("give --config FILE or --like ORIGINAL")


QWEN = {"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 256,
        "tie_word_embeddings": False, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "max_position_embeddings": 512}


@pytest.fixture(scope="module")
def qwen(ckpt, tmp_path_factory):
    """Its config, a release, and the same as Megatron would write it."""
    folder = tmp_path_factory.mktemp("qwen")
    (folder / "qwen.json").write_text(json.dumps(QWEN))
    ckpt("ckpt-synth", "--config", folder / "qwen.json", folder / "hf")
    ckpt("ckpt-shard", "--layout", "torch_dist", folder / "hf", folder / "dist")
    (folder / "dist/config.json").unlink()
    return folder / "qwen.json", folder / "hf", folder / "dist"


def test_a_decoder_of_megatron_that_is_read_as_stored_is_noted(ckpt, qwen):
    config, _, dist = qwen
    told = ckpt("ckpt-inspect", "--json", dist).json
    note, = told["notes"]
    assert told["family"] == "generic" and "no config.json" in note and "--config" in note
    told = ckpt("ckpt-inspect", "--json", "--config", config, dist).json
    assert told["family"] == "qwen3" and told["notes"] == []


def test_its_digest_by_the_config_is_that_of_the_release(ckpt, qwen, digest):
    config, hf, dist = qwen
    assert digest(dist) != digest(hf)
    out = ckpt("ckpt-verify", "digest", "--config", config, dist).out
    assert out.split()[0] == digest(hf)


def test_check_and_compare_read_by_the_config(ckpt, qwen, tmp_path):
    config, hf, dist = qwen
    (tmp_path / "hf.json").write_text(ckpt("ckpt-verify", "digest", "--json", hf).out)
    ckpt("ckpt-verify", "check", "--manifest", tmp_path / "hf.json", dist, check=2)
    ckpt("ckpt-verify", "check", "--manifest", tmp_path / "hf.json", "--config", config, dist)
    ckpt("ckpt-verify", "compare", hf, dist, check=2)
    ckpt("ckpt-verify", "compare", "--config", config, hf, dist)
    ckpt("ckpt-verify", "compare", "--config", config, dist, hf)
    ckpt("ckpt-verify", "compare", "--config", config, dist, dist)


def test_compare_of_two_that_have_a_config_refuses_another(ckpt, qwen, tmp_path):
    config, hf, dist = qwen
    assert "leave out --config" in ckpt("ckpt-verify", "compare", "--config", config, hf, hf,
                                        check=2).err
    broken = tmp_path / "broken"
    shutil.copytree(hf, broken)
    next(broken.glob("*.safetensors")).write_bytes(b"")
    assert "--config" not in ckpt("ckpt-verify", "compare", "--config", config, dist, broken,
                                  check=2).err
    assert "no such file" in ckpt("ckpt-verify", "compare", "--config", tmp_path / "none", dist,
                                  dist, check=2).err


def test_names_that_need_numbers_of_the_config_ask_for_it(ckpt, bare, tmp_path):
    err = ckpt("ckpt-shard", "--layout", "gguf", bare, tmp_path / "out", check=2).err
    assert "'num_hidden_layers' is missing" in err and "use --config FILE" in err
