"""The values of a native DeepSeek-V4 checkpoint, by torch's casts, under Megatron's keys.

Written from the published table of keys, not from the maps that the tools use.
"""
import re

import torch
from safetensors.torch import load_file

# E2M1: torch has no cast from its packed dtype.
FP4 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])

TOP = {"embed.weight": "embedding.word_embeddings.weight", "head.weight": "output_layer.weight",
       "norm.weight": "decoder.final_layernorm.weight"}
HEAD = {"v1": "decoder.hc_head_params.", "v2": "decoder."}
# What follows decoder.layers.{N}. where the two styles agree.
BOTH = {"attn_norm.weight": "input_layernorm.weight",
        "ffn_norm.weight": "pre_mlp_layernorm.weight",
        "ffn.gate.weight": "mlp.router.weight",
        "ffn.gate.bias": "mlp.router.expert_bias",
        "ffn.gate.tid2eid": "mlp.router.tid2eid",
        "ffn.shared_experts.w2.weight": "mlp.shared_experts.linear_fc2.weight"}
V1 = {"hc_attn_fn": "hc_attn_fn", "hc_attn_base": "hc_attn_base",
      "hc_ffn_fn": "hc_ffn_fn", "hc_ffn_base": "hc_ffn_base",
      "attn.wq_a.weight": "self_attention.wq_a.weight",
      "attn.q_norm.weight": "self_attention.q_norm.weight",
      "attn.wq_b.weight": "self_attention.wq_b.weight",
      "attn.wkv.weight": "self_attention.wkv.weight",
      "attn.kv_norm.weight": "self_attention.kv_norm.weight",
      "attn.wo_a.weight": "self_attention.wo_a.weight",
      "attn.wo_b.weight": "self_attention.wo_b.weight",
      "attn.attn_sink": "self_attention.attn_sink",
      "attn.compressor.ape": "self_attention.compressor.ape",
      "attn.compressor.wkv.weight": "self_attention.compressor.wkv.weight",
      "attn.compressor.wgate.weight": "self_attention.compressor.wgate.weight",
      "attn.compressor.norm.weight": "self_attention.compressor.norm.weight",
      "attn.indexer.wq_b.weight": "self_attention.indexer.linear_wq_b.weight",
      "attn.indexer.weights_proj.weight": "self_attention.indexer.linear_weights_proj.weight",
      "attn.indexer.compressor.ape": "self_attention.indexer.compressor.ape",
      "attn.indexer.compressor.wkv.weight": "self_attention.indexer.compressor.wkv.weight",
      "attn.indexer.compressor.wgate.weight": "self_attention.indexer.compressor.wgate.weight",
      "attn.indexer.compressor.norm.weight": "self_attention.indexer.compressor.norm.weight"}
CORE = "self_attention.core_attention."
V2 = {"hc_attn_fn": "self_attention_hyper_connection.mapping_proj.weight",
      "hc_attn_base": "self_attention_hyper_connection.bias",
      "hc_ffn_fn": "mlp_hyper_connection.mapping_proj.weight",
      "hc_ffn_base": "mlp_hyper_connection.bias",
      "attn.wq_a.weight": "self_attention.linear_q_down_proj.weight",
      "attn.q_norm.weight": "self_attention.q_layernorm.weight",
      "attn.wq_b.weight": "self_attention.linear_q_up_proj.weight",
      "attn.wkv.weight": "self_attention.linear_kv_proj.weight",
      "attn.kv_norm.weight": "self_attention.kv_layernorm.weight",
      "attn.wo_a.weight": "self_attention.linear_o_group_proj",
      "attn.wo_b.weight": "self_attention.linear_proj.weight",
      "attn.attn_sink": CORE + "attn_sink",
      "attn.compressor.ape": CORE + "compressor.ape",
      "attn.compressor.wkv.weight": CORE + "compressor.linear_wkv.weight",
      "attn.compressor.wgate.weight": CORE + "compressor.linear_wgate.weight",
      "attn.compressor.norm.weight": CORE + "compressor.norm.weight",
      "attn.indexer.wq_b.weight": CORE + "indexer.linear_wq_b.weight",
      "attn.indexer.weights_proj.weight": CORE + "indexer.linear_weights_proj.weight",
      "attn.indexer.compressor.ape": CORE + "indexer.compressor.ape",
      "attn.indexer.compressor.wkv.weight": CORE + "indexer.compressor.linear_wkv.weight",
      "attn.indexer.compressor.wgate.weight": CORE + "indexer.compressor.linear_wgate.weight",
      "attn.indexer.compressor.norm.weight": CORE + "indexer.compressor.norm.weight"}
SCALE_PARTS = ["alpha_pre", "alpha_post", "alpha_res"]
SCALES = {"hc_attn_scale": "self_attention_hyper_connection.",
          "hc_ffn_scale": "mlp_hyper_connection."}


def spread(scale, shape, block_rows, block_cols):
    """Every element's scale, in F32."""
    s = scale.to(torch.float32)
    s = s.repeat_interleave(block_rows, 0).repeat_interleave(block_cols, 1)
    return s[:shape[0], :shape[1]]


def dequantise(weight, scale):
    """By torch's own casts, product in F32, rounded to BF16."""
    if weight.dtype == torch.float8_e4m3fn:
        values = weight.to(torch.float32) * spread(scale, weight.shape, 128, 128)
    else:
        codes = weight.view(torch.uint8)
        values = torch.stack([FP4[(codes & 15).long()], FP4[(codes >> 4).long()]], -1).flatten(1)
        values = values * spread(scale, values.shape, 1, 32)
    return values.to(torch.bfloat16)


def native_values(path):
    """{native name: tensor} without scales: BF16 where the file is quantised."""
    stored = {n: t for p in sorted(path.glob("*.safetensors")) for n, t in load_file(p).items()}
    values = {}
    for name, t in stored.items():
        scale = stored.get(name[:-len("weight")] + "scale") if name.endswith(".weight") else None
        if scale is not None:
            values[name] = dequantise(t, scale)
        elif not name.endswith(".scale"):
            values[name] = t
    return values


def megatron_values(path, style):
    """{Megatron key: tensor}: all but the MTP block."""
    values = native_values(path)
    names = {**BOTH, **(V1 if style == "v1" else V2)}
    made, experts, shared = {}, {}, {}
    for name, t in values.items():
        layer = re.fullmatch(r"layers\.(\d+)\.(.*)", name)
        if name.startswith("mtp."):
            continue
        if layer is None:
            made[TOP[name] if name in TOP else HEAD[style] + name] = t
            continue
        prefix, rest = f"decoder.layers.{layer[1]}.", layer[2]
        expert = re.fullmatch(r"ffn\.experts\.(\d+)\.(w[123])\.weight", rest)
        if expert is not None:
            experts.setdefault(prefix, {})[int(expert[1]), expert[2]] = t
        elif rest in ("ffn.shared_experts.w1.weight", "ffn.shared_experts.w3.weight"):
            shared.setdefault(prefix, {})[rest[-9:-7]] = t
        elif rest in SCALES and style == "v1":
            made[prefix + rest] = t
        elif rest in SCALES:
            for part, value in zip(SCALE_PARTS, t):
                made[prefix + SCALES[rest] + part] = value.reshape(1)
        elif rest == "ffn.gate.tid2eid":
            made[prefix + names[rest]] = t.to(torch.int32)
        else:
            made[prefix + names[rest]] = t
    for prefix, halves in shared.items():
        made[prefix + "mlp.shared_experts.linear_fc1.weight"] = torch.cat(
            [halves["w1"], halves["w3"]])
    for prefix, parts in experts.items():
        count = 1 + max(e for e, _ in parts)
        made[prefix + "mlp.experts.experts.linear_fc1.weight"] = torch.stack(
            [torch.cat([parts[e, "w1"], parts[e, "w3"]]) for e in range(count)])
        made[prefix + "mlp.experts.experts.linear_fc2.weight"] = torch.stack(
            [parts[e, "w2"] for e in range(count)])
    return made


def bits(t):
    """Storage as integers: equality that sees the sign of zero and NaN."""
    if t.element_size() > 8:
        return torch.view_as_real(t.contiguous()).view(torch.int64)
    view = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[t.element_size()]
    return t.contiguous().view(view)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


def differing(loaded, expected):
    """Names that are not the same on both sides."""
    return sorted(n for n in {*loaded, *expected}
                  if n not in loaded or n not in expected or not same(loaded[n], expected[n]))
