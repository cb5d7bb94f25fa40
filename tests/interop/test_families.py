"""Families that are texts alone: a checkpoint goes to torch_dist and back byte by byte, and what
torch reads in between is packed as Megatron packs it."""
import itertools
import json

import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
import torch.distributed.checkpoint as dcp                                   # noqa: E402

COMMON = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
          "num_key_value_heads": 2, "intermediate_size": 40, "dtype": "bfloat16"}
MLA = {"num_key_value_heads": 4, "moe_intermediate_size": 24, "n_routed_experts": 4,
       "n_shared_experts": 1, "q_lora_rank": 20, "kv_lora_rank": 12, "qk_nope_head_dim": 16,
       "qk_rope_head_dim": 8, "v_head_dim": 16}
CONFIGS = {
    "llama": {**COMMON, "model_type": "llama", "tie_word_embeddings": False},
    "llama-tied": {**COMMON, "model_type": "llama", "tie_word_embeddings": True,
                   "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
    "llama-without-groups": {**{k: v for k, v in COMMON.items() if k != "num_key_value_heads"},
                             "model_type": "llama"},
    "qwen3": {**COMMON, "model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True},
    "glm-4.5": {**COMMON, "model_type": "glm4_moe", "head_dim": 16, "attention_bias": True,
                "use_qk_norm": True, "first_k_dense_replace": 1, "n_routed_experts": 4,
                "n_shared_experts": 1, "moe_intermediate_size": 24,
                "num_nextn_predict_layers": 1},
    "qwen3-moe": {**COMMON, "model_type": "qwen3_moe", "num_experts": 4, "head_dim": 16,
                  "moe_intermediate_size": 24, "mlp_only_layers": [1]},
    "qwen3-moe-alike": {**COMMON, "model_type": "qwen3_moe", "num_experts": 4, "head_dim": 16,
                        "moe_intermediate_size": 24},
    "qwen3-moe-steps": {**COMMON, "model_type": "qwen3_moe", "num_local_experts": 4,
                        "head_dim": 16, "moe_intermediate_size": 24, "decoder_sparse_step": 2,
                        "attention_bias": True, "tie_word_embeddings": True},
    "deepseek-v3": {**COMMON, **MLA, "model_type": "deepseek_v3", "first_k_dense_replace": 1,
                    "num_nextn_predict_layers": 1},
    "kimi-k2": {**COMMON, **MLA, "model_type": "kimi_k2", "first_k_dense_replace": 2,
                "q_lora_rank": None, "n_shared_experts": 2, "qk_nope_head_dim": 24},
}


@pytest.fixture(params=CONFIGS)
def model(request, ckpt, tmp_path):
    """(config, folder) of a checkpoint with synthetic values, in BF16."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[request.param]))
    ckpt("ckpt-synth", "--config", tmp_path / "config.json", tmp_path / "synth")
    ckpt("ckpt-convert", "--dtype", "bf16", tmp_path / "synth", tmp_path / "model")
    return CONFIGS[request.param], tmp_path / "model"


def load(folder):
    return {name: tensor for path in folder.glob("*.safetensors")
            for name, tensor in safetensors_torch.load_file(path).items()}


def qkv(config, tensors, layer, kind):
    """Megatron's linear_qkv: for each query group its queries, its key, its value."""
    groups = config.get("num_key_value_heads", config["num_attention_heads"])
    q, k, v = (tensors[f"model.layers.{layer}.self_attn.{p}_proj.{kind}"] for p in "qkv")
    return torch.cat(list(itertools.chain(*zip(q.chunk(groups), k.chunk(groups),
                                               v.chunk(groups)))))


def latent_keys(t, head):
    """Keys of attention with latent keys and values."""
    names = {"linear_q_down_proj.weight": "q_a_proj", "linear_q_up_proj.weight": "q_b_proj",
             "linear_q_up_proj.layer_norm_weight": "q_a_layernorm",
             "linear_q_proj.weight": "q_proj",
             "linear_kv_down_proj.weight": "kv_a_proj_with_mqa",
             "linear_kv_up_proj.weight": "kv_b_proj",
             "linear_kv_up_proj.layer_norm_weight": "kv_a_layernorm",
             "linear_proj.weight": "o_proj"}
    keys = {f"self_attention.{key}": t[f"{head}self_attn.{name}.weight"]
            for key, name in names.items() if f"{head}self_attn.{name}.weight" in t}
    return {"input_layernorm.weight": t[head + "input_layernorm.weight"], **keys}


def attention_keys(config, t, layer):
    head = f"model.layers.{layer}."
    keys = {f"self_attention.linear_qkv.{kind}": qkv(config, t, layer, kind)
            for kind in ("weight", "bias") if f"{head}self_attn.q_proj.{kind}" in t}
    keys["self_attention.linear_qkv.layer_norm_weight"] = t[head + "input_layernorm.weight"]
    for kind in ("weight", "bias"):
        if f"{head}self_attn.o_proj.{kind}" in t:
            keys["self_attention.linear_proj." + kind] = t[f"{head}self_attn.o_proj.{kind}"]
    for part in "qk":
        if f"{head}self_attn.{part}_norm.weight" in t:
            norm = t[f"{head}self_attn.{part}_norm.weight"]
            keys[f"self_attention.{part}_layernorm.weight"] = norm
    return keys


def layer_keys(config, t, layer):
    """{key of a layer: its tensor} of Megatron, from the tensors of Hugging Face."""
    head = f"model.layers.{layer}."
    is_latent = f"{head}self_attn.kv_b_proj.weight" in t
    keys = latent_keys(t, head) if is_latent else attention_keys(config, t, layer)
    for kind in ("weight", "bias"):
        if f"{head}mlp.gate_proj.{kind}" in t:
            keys["mlp.linear_fc1." + kind] = torch.cat(
                [t[f"{head}mlp.gate_proj.{kind}"], t[f"{head}mlp.up_proj.{kind}"]])
            keys["mlp.linear_fc2." + kind] = t[f"{head}mlp.down_proj.{kind}"]
    norm = t[head + "post_attention_layernorm.weight"]
    if head + "mlp.gate.weight" not in t:
        keys["mlp.linear_fc1.layer_norm_weight"] = norm
        return keys
    expert = head + "mlp.experts.{}.{}_proj.weight"
    keys["pre_mlp_layernorm.weight"] = norm
    keys["mlp.router.weight"] = t[head + "mlp.gate.weight"]
    keys["mlp.experts.experts.linear_fc1.weight"] = torch.stack(
        [torch.cat([t[expert.format(e, "gate")], t[expert.format(e, "up")]]) for e in range(4)])
    keys["mlp.experts.experts.linear_fc2.weight"] = torch.stack(
        [t[expert.format(e, "down")] for e in range(4)])
    if head + "mlp.gate.e_score_correction_bias" in t:
        keys["mlp.router.expert_bias"] = t[head + "mlp.gate.e_score_correction_bias"]
    shared = head + "mlp.shared_experts.{}_proj.weight"
    if shared.format("up") in t:
        keys["mlp.shared_experts.linear_fc1.weight"] = torch.cat(
            [t[shared.format("gate")], t[shared.format("up")]])
        keys["mlp.shared_experts.linear_fc2.weight"] = t[shared.format("down")]
    return keys


def block_keys(config, t):
    """Keys of the blocks that predict more tokens."""
    keys = {}
    for m in range(config.get("num_nextn_predict_layers", 0)):
        layer = config["num_hidden_layers"] + m
        names = {"enorm": "enorm", "hnorm": "hnorm", "eh_proj": "eh_proj",
                 "final_layernorm": "shared_head.norm"}
        keys.update({f"mtp.layers.{m}.{key}.weight": t[f"model.layers.{layer}.{name}.weight"]
                     for key, name in names.items()})
        keys.update({f"mtp.layers.{m}.transformer_layer.{key}": tensor
                     for key, tensor in layer_keys(config, t, layer).items()})
    return keys


def megatron_keys(config, t, stacked=None):
    stacked = config["model_type"] in ("llama", "qwen3") if stacked is None else stacked
    keys = {"embedding.word_embeddings.weight": t["model.embed_tokens.weight"],
            "decoder.final_layernorm.weight": t["model.norm.weight"]}
    if "lm_head.weight" in t:
        keys["output_layer.weight"] = t["lm_head.weight"]
    layers = [layer_keys(config, t, n) for n in range(config["num_hidden_layers"])]
    if stacked:
        for key in layers[0]:
            keys["decoder.layers." + key] = torch.stack([layer[key] for layer in layers])
    else:
        for number, layer in enumerate(layers):
            for key, tensor in layer.items():
                keys[f"decoder.layers.{number}.{key}"] = tensor
    return keys


def test_a_checkpoint_goes_to_torch_dist_and_back(ckpt, model, tmp_path):
    config, source = model
    ckpt("ckpt-shard", "--layout", "torch_dist", source, tmp_path / "dist")
    blocks = config.get("num_nextn_predict_layers", 0)
    fill = ("--like", source, "--fill-from", source) if blocks else ()
    ckpt("ckpt-shard", "--layout", "hf", *fill, tmp_path / "dist", tmp_path / "back")
    weights = {path.name for path in source.glob("*.safetensors")}
    assert {path.name for path in (tmp_path / "back").glob("*.safetensors")} == weights
    for name in (*weights, "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes(), name
    ckpt("ckpt-verify", "compare", *(["--main"] if blocks else []), source, tmp_path / "dist")


def test_next_token_blocks_go_along_on_demand(ckpt, model, tmp_path):
    config, source = model
    if not config.get("num_nextn_predict_layers"):
        error = ckpt("ckpt-shard", "--layout", "torch_dist", "--mtp", source, tmp_path / "dist",
                     check=2).err
        assert "--mtp: " in error and not (tmp_path / "dist").exists()
        return
    ckpt("ckpt-shard", "--layout", "torch_dist", "--mtp", "--pp", "3", source, tmp_path / "dist")
    tensors = load(source)
    want = {**megatron_keys(config, tensors), **block_keys(config, tensors)}
    state = {key: torch.zeros_like(tensor) for key, tensor in want.items()}
    folder = tmp_path / "dist" / "release"
    assert set(dcp.FileSystemReader(folder).read_metadata().state_dict_metadata) == set(want)
    dcp.load(state, checkpoint_id=folder)
    for key, tensor in want.items():
        assert torch.equal(state[key].view(torch.int16), tensor.view(torch.int16)), key
    ckpt("ckpt-verify", "compare", source, tmp_path / "dist")
    ckpt("ckpt-shard", "--layout", "hf", "--like", source, tmp_path / "dist", tmp_path / "back")
    for path in source.glob("*.safetensors"):
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("options", [(), ("--tp", "1"), ("--files", "rank", "--ep", "2")])
def test_torch_reads_what_megatron_would_have_packed(ckpt, model, tmp_path, options):
    config, source = model
    ckpt("ckpt-shard", "--layout", "torch_dist", *options, source, tmp_path / "dist")
    want = megatron_keys(config, load(source))
    state = {key: torch.zeros_like(tensor) for key, tensor in want.items()}
    folder = tmp_path / "dist" / "release"
    stored = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    assert set(stored) == set(want)
    dcp.load(state, checkpoint_id=folder)
    for key, tensor in want.items():
        assert torch.equal(state[key].view(torch.int16), tensor.view(torch.int16)), key


@pytest.mark.parametrize("style", ["stacked", "layers"])
def test_layers_have_one_key_or_one_each(ckpt, model, tmp_path, style):
    """Both forms are written where layers are alike, and read; a stage has its part of a stack."""
    config, source = model
    is_stack = style == "stacked"
    if is_stack and any(key in config for key in ("first_k_dense_replace", "decoder_sparse_step",
                                                  "mlp_only_layers")):
        error = ckpt("ckpt-shard", "--layout", "torch_dist", "--key-style", style, source,
                     tmp_path / "dist", check=2).err
        if config["model_type"] != "qwen3_moe":
            assert "--key-style stacked is not one of the family" in error
        return
    ckpt("ckpt-shard", "--layout", "torch_dist", "--key-style", style, "--pp", "3", "--files",
         "rank", source, tmp_path / "dist")
    want = megatron_keys(config, load(source), is_stack)
    folder = tmp_path / "dist" / "release"
    stored = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    assert set(stored) == set(want)
    for key, entry in stored.items():
        if is_stack and key.startswith("decoder.layers."):
            assert {chunk.sizes[0] for chunk in entry.chunks} == {1}, key
    state = {key: torch.zeros_like(tensor) for key, tensor in want.items()}
    dcp.load(state, checkpoint_id=folder)
    for key, tensor in want.items():
        assert torch.equal(state[key].view(torch.int16), tensor.view(torch.int16)), key
    blocks = ["--main"] if config.get("num_nextn_predict_layers") else []
    ckpt("ckpt-verify", "compare", *blocks, source, tmp_path / "dist")


def test_converters_find_their_arguments(ckpt, model, tmp_path):
    """What the converters of miles and slime read from common.pt, whatever the model."""
    config, source = model
    ckpt("ckpt-shard", "--layout", "torch_dist", source, tmp_path / "dist")
    common = torch.load(tmp_path / "dist/release/common.pt", weights_only=False)
    args = vars(common["args"])
    heads = config["num_attention_heads"]
    experts = config.get("n_routed_experts", config.get("num_experts",
                                                        config.get("num_local_experts")))
    want = {"num_layers": config["num_hidden_layers"], "vocab_size": config["vocab_size"],
            "hidden_size": config["hidden_size"], "num_attention_heads": heads,
            "num_query_groups": config.get("num_key_value_heads", heads),
            "kv_channels": config.get("head_dim", config["hidden_size"] // heads),
            "q_lora_rank": config.get("q_lora_rank")}
    assert {name: args[name] for name in want} == want
    assert args.get("num_experts") == experts


def save_dist(folder, config, tensors):
    """A torch_dist checkpoint as a trainer would have saved it."""
    dcp.save(tensors, checkpoint_id=folder / "release", no_dist=True)
    (folder / "latest_checkpointed_iteration.txt").write_text("release")
    (folder / "config.json").write_text(json.dumps(config))


def test_what_torch_saves_is_read(ckpt, model, tmp_path):
    """All of it: blocks that predict more tokens too, which we do not write; and from keys as
    Megatron's own modules have them."""
    config, source = model
    tensors = load(source)
    keys = {**megatron_keys(config, tensors), **block_keys(config, tensors)}
    save_dist(tmp_path / "dist", config, keys)
    ckpt("ckpt-verify", "compare", source, tmp_path / "dist")
    plain = {key.replace("linear_q_up_proj.layer_norm_weight", "q_layernorm.weight")
             .replace("linear_kv_up_proj.layer_norm_weight", "kv_layernorm.weight"): tensor
             for key, tensor in keys.items()}
    save_dist(tmp_path / "plain", config, plain)
    ckpt("ckpt-verify", "compare", source, tmp_path / "plain")


def cast(tensors, scale_first):
    """BF16 of FP8 in blocks of 128 x 128: the product rounded once, or the scale before it, too, as
    slime does."""
    def block(name, t):
        scale = tensors[name + "_scale_inv"]
        wide = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[:t.shape[0], :t.shape[1]]
        return (t.float() * (wide.bfloat16().float() if scale_first else wide)).bfloat16()
    return {name: block(name, t) if name + "_scale_inv" in tensors else t
            for name, t in tensors.items() if not name.endswith("_scale_inv")}


@pytest.mark.parametrize("form", ["bf16", "bf16-slime"])
def test_nothing_but_the_cast_of_free_scales_has_changed(ckpt, tmp_path, form):
    """Of torch_dist made from FP8 whose scales are no powers of two, by us and by slime."""
    config = CONFIGS["deepseek-v3"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    ckpt("ckpt-synth", "--config", tmp_path / "config.json", tmp_path / "fp8")
    for path in (tmp_path / "fp8").glob("*.safetensors"):
        free = {name: t * (1 + torch.rand(t.shape)) if name.endswith("_scale_inv") else t
                for name, t in safetensors_torch.load_file(path).items()}
        safetensors_torch.save_file(free, path)
    tensors = cast(load(tmp_path / "fp8"), form == "bf16-slime")
    save_dist(tmp_path / "dist", config, megatron_keys(config, tensors))
    command = "ckpt-verify", "compare", "--main", tmp_path / "fp8", tmp_path / "dist"
    ckpt(*command, check=1)
    ckpt(*command, "--as", form)
    ckpt(*command, "--as", "bf16" if form == "bf16-slime" else "bf16-slime", check=1)
    if form == "bf16":
        error = ckpt("ckpt-shard", "--layout", "torch_dist", tmp_path / "fp8", tmp_path / "no",
                     check=2).err
        assert "not exact in BF16" in error
        ckpt("ckpt-shard", "--layout", "torch_dist", "--allow-lossy", tmp_path / "fp8",
             tmp_path / "ours")
        ckpt("ckpt-verify", "compare", "--main", tmp_path / "ours", tmp_path / "dist")


def pad(tensors, rows):
    """Both ends of the vocabulary with more rows, as trainers have them for their ranks."""
    ends = "embedding.word_embeddings.weight", "output_layer.weight"
    return {key: torch.cat([t, torch.randn(rows, t.shape[1]).bfloat16()]) if key in ends else t
            for key, t in tensors.items()}


def test_padding_of_the_vocabulary_is_left_out_and_told(ckpt, model, tmp_path):
    config, source = model
    keys = megatron_keys(config, load(source))
    blocks = ["--main"] if config.get("num_nextn_predict_layers") else []
    save_dist(tmp_path / "dist", config, pad(keys, 16))
    ckpt("ckpt-verify", "compare", *blocks, source, tmp_path / "dist")
    said = ckpt("ckpt-inspect", tmp_path / "dist").out
    assert "the last 16 rows of 'embedding.word_embeddings.weight' are left out: padding" in said
    out = ckpt("ckpt-shard", "--layout", "hf", "--report", tmp_path / "report.json",
               tmp_path / "dist", tmp_path / "back")
    assert "the last 16 rows" in out.out + out.err
    fates = {t["name"]: t for t in json.loads((tmp_path / "report.json").read_text())[
        "source_tensors"]}
    assert fates["embedding.word_embeddings.weight"]["rows_left_out"] == 16
    assert "rows_left_out" not in fates["decoder.final_layernorm.weight"]
    name = "model.embed_tokens.weight"
    assert torch.equal(load(tmp_path / "back")[name], load(source)[name])


def test_a_vocabulary_that_is_too_short_is_refused(ckpt, model, tmp_path):
    config, source = model
    keys = megatron_keys(config, load(source))
    name = "embedding.word_embeddings.weight"
    save_dist(tmp_path / "dist", config, {**keys, name: keys[name][:-1].clone()})
    error = ckpt("ckpt-verify", "digest", tmp_path / "dist", check=2).err
    assert "'embed_tokens.weight'" in error and "47" in error and "48" in error


def test_query_groups_are_not_cut(ckpt, model, tmp_path):
    config, source = model
    if "kv_lora_rank" in config:
        pytest.skip("has no query groups")
    groups = config.get("num_key_value_heads", config["num_attention_heads"])
    error = ckpt("ckpt-shard", "--layout", "torch_dist", "--tp", 2 * groups, source,
                 tmp_path / "dist", check=2).err
    assert "linear_qkv" in error and "legal values are: 1" in error
    assert not (tmp_path / "dist").exists()


def test_other_tensors_stay_and_missing_ones_are_named(ckpt, tmp_path):
    config = CONFIGS["llama"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    ckpt("ckpt-synth", "--config", tmp_path / "config.json", tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = safetensors_torch.load_file(path)
    safetensors_torch.save_file({**tensors, "score.weight": torch.zeros(1, 32)}, path)
    (tmp_path / "model" / "model.safetensors.index.json").unlink()
    ckpt("ckpt-convert", tmp_path / "model", tmp_path / "copy")
    kept = safetensors_torch.load_file(tmp_path / "copy" / "model.safetensors")
    assert set(kept) == set(tensors) | {"score.weight"}
    error = ckpt("ckpt-shard", "--layout", "torch_dist", tmp_path / "model", tmp_path / "dist",
                 check=2).err
    assert "'score.weight'" in error
    del tensors["model.layers.1.mlp.up_proj.weight"]
    safetensors_torch.save_file(tensors, path)
    error = ckpt("ckpt-inspect", tmp_path / "model", check=2).err
    assert "'layers.1.mlp.up_proj.weight'" in error


def test_a_model_saved_without_its_head_keeps_its_names(ckpt, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["llama-tied"]))
    ckpt("ckpt-synth", "--config", tmp_path / "config.json", tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    bare = {name.removeprefix("model."): t for name, t in safetensors_torch.load_file(path).items()}
    (tmp_path / "base").mkdir()
    safetensors_torch.save_file(bare, tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "config.json").write_text(json.dumps(CONFIGS["llama-tied"]))
    ckpt("ckpt-convert", tmp_path / "base", tmp_path / "copy")
    assert set(safetensors_torch.load_file(tmp_path / "copy" / "model.safetensors")) == set(bare)
    ckpt("ckpt-verify", "compare", tmp_path / "base", tmp_path / "model")


def test_names_are_canonical_without_the_prefix(ckpt, model):
    config, source = model
    names = ckpt("ckpt-verify", "digest", "--tensors", "*", source).out
    assert "  layers.0.input_layernorm.weight" in names and "model." not in names


def test_the_family_says_which_weights_can_be_codes(ckpt, tmp_path):
    """--quantize of a BF16 model takes its linear layers, without being told which."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["qwen3-moe"]))
    ckpt("ckpt-synth", "--config", tmp_path / "config.json", tmp_path / "model")
    ckpt("ckpt-convert", "--quantize", "fp8-ue8m0", tmp_path / "model", tmp_path / "fp8")
    tensors = load(tmp_path / "fp8")
    codes = {name for name, t in tensors.items() if t.dtype == torch.float8_e4m3fn}
    assert codes == {name for name in tensors if name.endswith("_proj.weight")}
    config = json.loads((tmp_path / "fp8" / "config.json").read_text())
    plain = config["quantization_config"]["modules_to_not_convert"]
    assert {"lm_head", "model.layers.0.mlp.gate"} <= set(plain)
    assert all(name == "lm_head" or name.startswith("model.") for name in plain), plain


SIGHT = {"vision_n_layers": 1, "vision_dim": 8, "vision_n_heads": 2, "vision_inter_dim": 12,
         "vision_patch_size": 2, "vision_downsample_ratio": 2}


def tower(config):
    """What a DeepSeek-V4 that sees has beside the others."""
    width, dim = config["hidden_size"], SIGHT["vision_dim"]
    shapes = {"vision.patch_embed.proj.weight": (dim, 12), "vision.patch_embed.proj.bias": (dim,),
              "vision.norm.weight": (dim,), "aligner.w1.weight": (width, 4 * dim),
              "aligner.w1.bias": (width,), "aligner.w2.weight": (width, width),
              "aligner.w2.bias": (width,),
              **{f"image_{kind}": (width,) for kind in ("start", "end", "newline", "pad")}}
    block = {"attn.wqkv.weight": (3 * dim, dim), "attn.wqkv.bias": (3 * dim,),
             "attn.wo.weight": (dim, dim), "attn.wo.bias": (dim,), "mlp.w1.weight": (24, dim),
             "mlp.w2.weight": (dim, 12), "norm1.weight": (dim,), "norm2.weight": (dim,)}
    shapes.update({f"vision.blocks.0.{name}": shape for name, shape in block.items()})
    tensors = {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}
    return {**tensors, "layers.0.ffn.gate.bias_vl": torch.randn(config["n_routed_experts"])}


def test_a_model_that_sees_keeps_its_tower(ckpt, tmp_path):
    """In its own layout; those that have no place for it leave it out and say so."""
    source = tmp_path / "model"
    ckpt("ckpt-synth", "--config", "tiny", source)
    config = json.loads((source / "config.json").read_text())
    more = tower(config)
    safetensors_torch.save_file(more, source / "model-vision.safetensors")
    index = json.loads((source / "model.safetensors.index.json").read_text())
    index["weight_map"].update({name: "model-vision.safetensors" for name in more})
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    error = ckpt("ckpt-inspect", source, check=2).err
    assert "unexpected tensor" in error            # nothing in the config tells of it
    (source / "config.json").write_text(json.dumps({**config, **SIGHT}))
    ckpt("ckpt-convert", "--dtype", "bf16", source, tmp_path / "bf16")
    kept = load(tmp_path / "bf16")
    assert all(torch.equal(kept[name], tensor) for name, tensor in more.items())
    ckpt("ckpt-verify", "compare", source, tmp_path / "bf16")
    out = ckpt("ckpt-shard", "--layout", "torch_dist", source, tmp_path / "dist")
    assert "carries no vision tower" in out.out + out.err
