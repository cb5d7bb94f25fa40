"""Random tiny DeepSeek-V4 models, and transformers as the judge of what they compute."""
import json
import random

import torch
from safetensors.torch import save_file

DEFAULTS = {
    "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4",
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1,
    "hidden_act": "silu", "max_position_embeddings": 4096, "norm_topk_prob": True,
    "num_key_value_heads": 1, "tie_word_embeddings": False, "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16", "n_shared_experts": 1, "scoring_func": "sqrtsoftplus",
    "compress_rope_theta": 160000, "rope_theta": 10000, "hc_eps": 1e-6, "rms_norm_eps": 1e-6,
}


def draw_config(rng):
    heads = rng.choice([2, 4, 6, 8])
    layers = rng.randint(2, 5)
    experts = rng.randint(3, 12)
    rope = rng.choice([8, 16, 32])
    return {
        **DEFAULTS,
        "vocab_size": rng.choice([96, 160, 257]),
        "hidden_size": rng.choice([64, 96, 160, 256]),
        "num_hidden_layers": layers,
        "num_hash_layers": rng.randint(0, 2),
        "num_nextn_predict_layers": 1,
        "num_attention_heads": heads,
        "head_dim": rng.choice([h for h in (32, 48, 64, 96, 128) if h >= rope]),
        "qk_rope_head_dim": rope,
        "q_lora_rank": rng.choice([32, 48, 80]),
        "o_groups": rng.choice([g for g in (1, 2, 3, 4, 8) if heads % g == 0]),
        "o_lora_rank": rng.choice([16, 24, 64]),
        "n_routed_experts": experts,
        "num_experts_per_tok": rng.randint(1, min(experts, 4)),
        "moe_intermediate_size": rng.choice([32, 64, 96]),
        "routed_scaling_factor": rng.choice([1.0, 1.5, 2.5]),
        "swiglu_limit": rng.choice([0.5, 1.0, 10.0]),
        "sliding_window": rng.choice([4, 8, 16, 32, 128]),
        "compress_ratios": [rng.choice([0, 4, 4, 128]) for _ in range(layers)] + [0],
        "index_n_heads": rng.choice([1, 2, 4, 8]),
        "index_head_dim": rng.choice([d for d in (32, 48, 64, 128) if d >= rope]),
        "index_topk": rng.randint(2, 24),
        "hc_mult": rng.choice([2, 3, 4, 4]),
        "hc_sinkhorn_iters": rng.choice([2, 5, 20]),
        "rope_scaling": {"type": "yarn", "factor": rng.choice([4, 16]), "beta_fast": 32,
                         "beta_slow": 1,
                         "original_max_position_embeddings": rng.choice([64, 256, 65536])},
    }


def block_shapes(c, prefix, ratio, is_hash):
    """Native names and shapes of one block's tensors."""
    d, h, hd, ql = (c[k] for k in ("hidden_size", "num_attention_heads", "head_dim",
                                   "q_lora_rank"))
    g, ol, n = c["o_groups"], c["o_lora_rank"], c["hc_mult"]
    e, m, ih, idim = (c[k] for k in ("n_routed_experts", "moe_intermediate_size",
                                     "index_n_heads", "index_head_dim"))
    wide = 2 if ratio == 4 else 1
    shapes = {
        "attn_norm.weight": [d], "ffn_norm.weight": [d], "attn.attn_sink": [h],
        "attn.wq_a.weight": [ql, d], "attn.q_norm.weight": [ql], "attn.wq_b.weight": [h * hd, ql],
        "attn.wkv.weight": [hd, d], "attn.kv_norm.weight": [hd],
        "attn.wo_a.weight": [g * ol, h * hd // g], "attn.wo_b.weight": [d, g * ol],
        "ffn.gate.weight": [e, d],
    }
    for half in ("attn", "ffn"):
        shapes |= {f"hc_{half}_fn": [(2 + n) * n, n * d], f"hc_{half}_base": [(2 + n) * n],
                   f"hc_{half}_scale": [3]}
    if ratio:
        shapes |= {"attn.compressor.ape": [ratio, wide * hd],
                   "attn.compressor.wkv.weight": [wide * hd, d],
                   "attn.compressor.wgate.weight": [wide * hd, d],
                   "attn.compressor.norm.weight": [hd]}
    if ratio == 4:
        shapes |= {"attn.indexer.wq_b.weight": [ih * idim, ql],
                   "attn.indexer.weights_proj.weight": [ih, d],
                   "attn.indexer.compressor.ape": [ratio, wide * idim],
                   "attn.indexer.compressor.wkv.weight": [wide * idim, d],
                   "attn.indexer.compressor.wgate.weight": [wide * idim, d],
                   "attn.indexer.compressor.norm.weight": [idim]}
    shapes |= {"ffn.gate.tid2eid": [c["vocab_size"], c["num_experts_per_tok"]]} if is_hash else \
        {"ffn.gate.bias": [e]}
    for who in [f"experts.{i}" for i in range(e)] + ["shared_experts"]:
        shapes |= {f"ffn.{who}.w1.weight": [m, d], f"ffn.{who}.w2.weight": [d, m],
                   f"ffn.{who}.w3.weight": [m, d]}
    return {prefix + name: shape for name, shape in shapes.items()}


def model_shapes(c):
    d, n, v, layers = (c[k] for k in ("hidden_size", "hc_mult", "vocab_size",
                                      "num_hidden_layers"))
    head = {"norm.weight": [d], "hc_head_fn": [n, n * d], "hc_head_base": [n],
            "hc_head_scale": [1]}
    shapes = {"embed.weight": [v, d], "head.weight": [v, d], **head}
    for i in range(layers):
        shapes |= block_shapes(c, f"layers.{i}.", c["compress_ratios"][i],
                               i < c["num_hash_layers"])
    shapes |= block_shapes(c, "mtp.0.", 0, False)
    shapes |= {f"mtp.0.{name}": shape for name, shape in head.items()}
    return shapes | {"mtp.0.e_proj.weight": [d, d], "mtp.0.h_proj.weight": [d, d],
                     "mtp.0.enorm.weight": [d], "mtp.0.hnorm.weight": [d]}


def draw_tensor(c, name, shape, gen):
    """Values that leave nothing hidden: no zeros, no symmetry; BF16 where the release has it."""
    def normal(std):
        return torch.randn(shape, generator=gen) * std
    if name.endswith("tid2eid"):
        return torch.stack([torch.randperm(c["n_routed_experts"], generator=gen)[:shape[1]]
                            for _ in range(shape[0])])
    if name.endswith("_scale"):
        return 1 + normal(0.1)
    if name.endswith("_base") or name.endswith(".ape"):
        return normal(0.5)
    if name.endswith("_fn"):
        return normal(0.02)
    if name.endswith("sink"):
        return normal(1.0)
    if name.endswith("gate.bias"):
        return normal(0.1)
    if "norm" in name:
        return (1 + normal(0.1)).bfloat16()
    return normal(1.0 if name == "embed.weight" else shape[-1] ** -0.5).bfloat16()


def write_model(folder, seed):
    """A checkpoint in native names, BF16; returns its config and a prompt."""
    rng = random.Random(seed)
    gen = torch.Generator().manual_seed(seed)
    config = draw_config(rng)
    tensors = {name: draw_tensor(config, name, shape, gen)
               for name, shape in model_shapes(config).items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    length = rng.randint(130, 280)
    tokens = torch.randint(config["vocab_size"], (length,), generator=gen)
    return config, tensors, tokens


def stable_topk(values, k, dim=-1, largest=True, sorted=True):
    """torch.topk with the tie rule of the model: higher first, then the lower index."""
    assert largest
    v, i = torch.sort(values, dim=dim, descending=True, stable=True)
    return torch.return_types.topk((v.narrow(dim, 0, k), i.narrow(dim, 0, k)))


def load_transformers(folder):
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                attn_implementation="eager").eval()


def kl(p, q):
    """Mean KL divergence of rows of logits, in F64."""
    p, q = (torch.log_softmax(x.double(), -1) for x in (p, q))
    return (p.exp() * (p - q)).sum(-1).mean().item()
