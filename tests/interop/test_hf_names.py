"""The tensors of a family are those that transformers saves for a model of the same config.

data/hf-names.json lists names, dtypes and shapes that transformers 5.23.0 saves for tiny models,
with the config.json it writes beside them.
"""
import json

import pytest

safetensors = pytest.importorskip("safetensors")

from conftest import ROOT                                                    # noqa: E402

LISTING = json.loads((ROOT / "tests/data/hf-names.json").read_text())
# Those of which there is a family; transformers has no next-token blocks.
MODELS = ["llama", "qwen3", "qwen3_moe", "deepseek_v3", "deepseek_v32", "glm_moe_dsa", "glm4_moe"]


def shapes(folder):
    found = {}
    for path in folder.glob("*.safetensors"):
        with safetensors.safe_open(path, "np") as tensors:
            found.update({name: tensors.get_slice(name).get_shape() for name in tensors.keys()})
    return {name: shape for name, shape in found.items() if not name.endswith("_scale_inv")}


@pytest.mark.parametrize("model", MODELS)
def test_a_family_has_the_tensors_that_transformers_saves(ckpt, tmp_path, model):
    config, saved = (LISTING[model][key] for key in ("config", "saved"))
    (tmp_path / "config.json").write_text(json.dumps(config))
    ckpt("ckpt-synth", "--config", tmp_path / "config.json", tmp_path / "model")
    assert f"family    {model}\n" in ckpt("ckpt-inspect", "--summary", tmp_path / "model").out
    blocks = tuple(f"model.layers.{config['num_hidden_layers'] + m}."
                   for m in range(config.get("num_nextn_predict_layers") or 0))
    got = {name: shape for name, shape in shapes(tmp_path / "model").items()
           if not (blocks and name.startswith(blocks))}
    assert got == {name: shape for name, (_, shape) in saved.items()}


@pytest.mark.parametrize("members", [
    {"indexer_types": ["full", "shared", "full"]}, {"index_topk_freq": 2},
    {"index_topk_freq": 3, "index_skip_topk_offset": 1},
    {"index_topk_freq": 2, "index_skip_topk_offset": 0}])
def test_layers_that_share_an_indexer_have_none(ckpt, tmp_path, members):
    """Which they are is in config.json, as a list or as a schedule."""
    transformers = pytest.importorskip("transformers")
    listing = LISTING["glm_moe_dsa"]
    config = {key: value for key, value in listing["config"].items() if key != "indexer_types"}
    config |= members
    kinds = transformers.GlmMoeDsaConfig(**config).indexer_types
    assert "shared" in kinds
    (tmp_path / "config.json").write_text(json.dumps(config))
    ckpt("ckpt-synth", "--config", tmp_path / "config.json", tmp_path / "model")
    without = tuple(f"model.layers.{i}.self_attn.indexer." for i, kind in enumerate(kinds)
                    if kind == "shared")
    assert set(shapes(tmp_path / "model")) == {name for name in listing["saved"]
                                               if not name.startswith(without)}
    ckpt("ckpt-shard", "--layout", "torch_dist", tmp_path / "model", tmp_path / "dist")
    ckpt("ckpt-verify", "compare", tmp_path / "model", tmp_path / "dist")


@pytest.mark.parametrize("model", sorted(set(LISTING) - set(MODELS)))
def test_what_has_no_family_is_refused_by_those_that_need_one(ckpt, tmp_path, model):
    (tmp_path / "config.json").write_text(json.dumps(LISTING[model]["config"]))
    error = ckpt("ckpt-synth", "--config", tmp_path / "config.json", tmp_path / "no", check=2).err
    assert "unknown model family" in error and "qwen3_moe" in error
    assert not (tmp_path / "no").exists()
