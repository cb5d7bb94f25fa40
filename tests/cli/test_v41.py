"""DeepSeek-V4.1: two blocks of FP8, tables of embeddings, a config inside the config."""
import copy
import json

import pytest

CONFIG = {
    "architectures": ["DeepseekV41ForCausalLM"], "model_type": "deepseek_v41", "dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic",
                            "weight_block_size": [32, 32], "scale_fmt": "ue8m0",
                            "expert_dtype": "fp4"},
    "text_config": {
        "vocab_size": 64, "hidden_size": 64, "moe_intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32, "qk_rope_head_dim": 16,
        "q_lora_rank": 64, "o_lora_rank": 32, "o_groups": 2, "n_routed_experts": 6,
        "n_shared_experts": 1, "num_experts_per_tok": 2, "compress_ratios": [0, 2, 1, 1, 0, 0, 0],
        "kv_source_layer_ids": [1, 2], "index_source_layer_ids": [1, 2, 3], "index_n_heads": 2,
        "index_head_dim": 32, "hc_mult": 2, "engram_layer_ids": [1, 3],
        "engram_num_embeddings": [70, 90], "engram_max_ngram_size": 3, "engram_n_heads": 2,
        "engram_head_dim": 64, "num_nextn_predict_layers": 3, "dspark_n_routed_experts": 3,
        "dspark_target_layer_ids": [1, 2, 3], "dspark_markov_rank": 16},
    "vision_config": {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48,
                      "patch_size": 2, "downsample_ratio": 2},
}


def synth(ckpt, config, folder):
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(config))
    ckpt("ckpt-synth", "--config", path, folder)
    return folder


@pytest.fixture(scope="module")
def model(ckpt, tmp_path_factory):
    return synth(ckpt, CONFIG, tmp_path_factory.mktemp("v41") / "model")


def tensors(ckpt, folder, *options):
    return {t["name"]: t for t in ckpt("ckpt-inspect", "--json", *options, folder).json["tensors"]}


def test_the_inventory_follows_the_config(ckpt, model):
    stored = tensors(ckpt, model)
    shapes = {name: t["shape"] for name, t in stored.items()}
    assert shapes["layers.1.engram.embed.weight"] == [70, 64]
    assert shapes["layers.1.engram.embed.scale"] == [70, 2]
    assert shapes["layers.3.engram.embed.weight"] == [90, 64]
    assert shapes["layers.1.engram.wkv.scale"] == [6, 8]
    assert "layers.2.engram.embed.weight" not in shapes
    assert {f"layers.{n}.attn.compressor.wgate.weight" in shapes for n in (0, 2, 3)} == {False}
    assert "layers.1.attn.compressor.wgate.weight" in shapes
    assert "layers.3.attn.indexer.wk.weight" not in shapes
    assert shapes["mtp.2.markov_head.embed.weight"] == [64, 16]
    assert shapes["aligner.w1.weight"] == [64, 128]
    encodings = {t["encoding"] for t in tensors(ckpt, model, "--logical").values()}
    assert {"F8_E4M3 32x32 F8_E8M0", "F8_E4M3 1x32 F8_E8M0", "F4 1x32 F8_E8M0"} <= encodings


def test_bf16_has_the_same_values(ckpt, model, tmp_path):
    ckpt("ckpt-convert", "--dtype", "bf16", model, tmp_path / "bf16")
    ckpt("ckpt-verify", "compare", model, tmp_path / "bf16")
    assert {t["dtype"] for t in tensors(ckpt, tmp_path / "bf16").values()} == {"BF16", "F32"}


def test_files_can_be_cut_anew(ckpt, model, tmp_path):
    ckpt("ckpt-convert", "--max-shard-size", "100kB", model, tmp_path / "small")
    assert (ckpt("ckpt-verify", "digest", model).out.split()[0]
            == ckpt("ckpt-verify", "digest", tmp_path / "small").out.split()[0])


def test_what_the_config_implies_must_be_there(ckpt, model, tmp_path):
    config = copy.deepcopy(CONFIG)
    config["text_config"]["engram_layer_ids"] = [1, 2]
    (tmp_path / "model").mkdir()
    for path in model.iterdir():
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    error = ckpt("ckpt-inspect", tmp_path / "model", check=2).err
    assert "'layers.2.engram.embed.weight'" in error


def test_layouts_without_a_place_for_it_are_refused(ckpt, model, tmp_path):
    for layout in (["torch_dist"], ["mp", "--mp", "1"]):
        error = ckpt("ckpt-shard", "--layout", *layout, model, tmp_path / "out", check=2).err
        assert "deepseek_v41" in error and not (tmp_path / "out").exists()
