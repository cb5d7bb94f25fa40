"""Models of transformers: what it saves is read as the family that it is, goes to torch_dist and
back, and what comes back is loaded with every parameter in its place."""
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

COMMON = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
          "num_attention_heads": 4, "max_position_embeddings": 64}
GROUPS = {"num_key_value_heads": 2, "head_dim": 8}
EXPERTS = {"moe_intermediate_size": 8, "num_experts_per_tok": 2}
SHARED = {**EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1,
          "n_group": 1, "topk_group": 1}
LATENT = {**SHARED, "num_key_value_heads": 4, "q_lora_rank": 12, "kv_lora_rank": 8,
          "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
INDEXER = {**LATENT, "index_n_heads": 4, "index_head_dim": 8, "index_topk": 4}
MODELS = {
    "Llama": GROUPS,
    "Qwen3": GROUPS,
    "Qwen3Moe": {**GROUPS, **EXPERTS, "num_experts": 4},
    "Glm4Moe": {**GROUPS, **SHARED, "attention_bias": True, "use_qk_norm": True},
    "DeepseekV3": LATENT,
    "DeepseekV32": INDEXER,
    "GlmMoeDsa": INDEXER,
}


@pytest.fixture(params=MODELS)
def saved(request, tmp_path):
    """(name of the model, the model, the folder that it was saved in)."""
    config = getattr(transformers, request.param + "Config", None)
    if config is None:
        pytest.skip(f"this transformers has no {request.param}")
    torch.manual_seed(1)
    causal = getattr(transformers, request.param + "ForCausalLM")
    model = causal(config(**COMMON, **MODELS[request.param])).bfloat16()
    model.save_pretrained(tmp_path / "saved")
    return request.param, model, tmp_path / "saved"


def test_what_transformers_saves_is_of_its_family(ckpt, saved):
    name, model, folder = saved
    seen = ckpt("ckpt-inspect", "--json", "--logical", folder).json
    assert seen["family"] == model.config.model_type
    assert seen["names"] == "native"
    assert not [note for note in seen.get("notes", []) if "tensor '" in note], seen["notes"]


def test_what_comes_back_from_torch_dist_is_loaded(ckpt, saved, tmp_path):
    _, model, folder = saved
    ckpt("ckpt-shard", "--layout", "torch_dist", folder, tmp_path / "dist")
    ckpt("ckpt-shard", "--layout", "hf", tmp_path / "dist", tmp_path / "back")
    again, info = type(model).from_pretrained(tmp_path / "back", dtype=torch.bfloat16,
                                              output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    parameters = dict(model.named_parameters())
    for key, tensor in again.named_parameters():
        assert torch.equal(tensor.view(torch.int16), parameters[key].view(torch.int16)), key
