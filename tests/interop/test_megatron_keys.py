"""Keys, shapes and boxes of torch_dist are those that megatron-core gives models of a config.

data/mcore-keys.json lists what megatron-core 0.16.1 has for tiny models of each family, on one rank
and with every parallelism of two; it leaves out the third of four layers.
"""
import functools
import itertools
import json

import pytest

pytest.importorskip("torch")
import torch.distributed.checkpoint as dcp                                   # noqa: E402

from conftest import ROOT                                                    # noqa: E402

COMMON = {"vocab_size": 36, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4,
          "num_key_value_heads": 2, "intermediate_size": 24, "head_dim": 8, "dtype": "bfloat16"}
EXPERTS = {"moe_intermediate_size": 8, "n_routed_experts": 4, "n_shared_experts": 1,
           "first_k_dense_replace": 1}
LATENT = {**{k: v for k, v in COMMON.items() if k != "head_dim"}, **EXPERTS,
          "num_key_value_heads": 4, "q_lora_rank": 12, "kv_lora_rank": 8, "qk_nope_head_dim": 8,
          "qk_rope_head_dim": 4, "v_head_dim": 8}
QWEN = {**COMMON, "model_type": "qwen3_moe", "num_experts": 4, "moe_intermediate_size": 8}
# What a listing is called: the config, and the options that ask for its form.
MODELS = {
    "llama3": ({**COMMON, "model_type": "llama"}, ()),
    "qwen3": ({**COMMON, "model_type": "qwen3"}, ("--dialect", "slime")),
    "qwen3_moe": (QWEN, ("--dialect", "miles")),
    "qwen3_moe_homogeneous": (QWEN, ("--dialect", "bridge")),
    "glm4_moe": ({**COMMON, **EXPERTS, "model_type": "glm4_moe", "attention_bias": True,
                  "use_qk_norm": True, "num_nextn_predict_layers": 1}, ("--dialect", "bridge")),
    "deepseek_v3": ({**LATENT, "model_type": "deepseek_v3", "num_nextn_predict_layers": 1}, ()),
    "kimi_k2": ({**LATENT, "model_type": "kimi_k2"}, ("--layer-keys", "per-layer")),
    "deepseek_v32_upstream": ({**LATENT, "model_type": "deepseek_v32", "index_n_heads": 4,
                               "index_head_dim": 8, "index_topk": 4},
                              ("--dialect", "bridge", "--allow-lossy")),
}


@functools.cache
def listing(model, with_blocks):
    """{key: (shape, {ranks: boxes})}; next-token blocks are written on demand."""
    keys = json.loads((ROOT / "tests/data/mcore-keys.json").read_text())[model]["keys"]
    return {key: (entry["shape"], dict(zip((1, 2), entry["chunks"].values(), strict=True)))
            for key, entry in keys.items() if with_blocks or not key.startswith("mtp.")}


def check_boxes(key, chunks, boxes):
    """Long lists of boxes are cut, and end in how many there are."""
    got = sorted([list(chunk.offsets), list(chunk.sizes)] for chunk in chunks)
    want = sorted(box for box in boxes if not isinstance(box, str))
    count = next((int(box.split()[1]) for box in boxes if isinstance(box, str)), len(want))
    assert len(got) == count, key
    assert all(box in got for box in want), key


@pytest.fixture(scope="module")
def sources(ckpt, tmp_path_factory):
    """{model: folder} of synthetic checkpoints, made when they are asked for."""
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def source(model):
        config = folder / f"{model}.json"
        config.write_text(json.dumps(MODELS[model][0]))
        ckpt("ckpt-synth", "--config", config, folder / model)
        return folder / model
    return source


def has_experts(model):
    return "moe_intermediate_size" in MODELS[model][0]


CASES = [(model, *ranks) for model in MODELS for ranks in itertools.product((1, 2), repeat=4)
         if has_experts(model) or ranks[2:] == (1, 1)]


@pytest.mark.parametrize("model, tp, pp, ep, etp", CASES)
def test_keys_shapes_and_boxes_are_megatrons(ckpt, sources, tmp_path, model, tp, pp, ep, etp):
    ranks = ["--tp", tp, "--pp", pp]
    with_blocks = "num_nextn_predict_layers" in MODELS[model][0] and pp == 2
    if has_experts(model):
        ranks += ["--ep", ep, "--etp", etp]
    if with_blocks:
        ranks += ["--mtp"]
    ckpt("ckpt-shard", "--layout", "torch_dist", "--files", "rank", *MODELS[model][1], *ranks,
         sources(model), tmp_path / "dist")
    metadata = dcp.FileSystemReader(tmp_path / "dist/release").read_metadata()
    stored = metadata.state_dict_metadata
    want = listing(model, with_blocks)
    assert {key for key in stored if ".layers.2." not in key} == set(want)
    for key, (shape, boxes) in want.items():
        assert list(stored[key].size) == shape, key
        check_boxes(key, stored[key].chunks, boxes[etp if ".mlp.experts." in key else tp])
