"""DeepSeek-V4 in GGUF by llama.cpp's own words, not by the maps that the tools use.

Names and shapes: `load_arch_tensors` of src/models/deepseek4.cpp (ggml-org/llama.cpp, as of
2026-10 in llama-cpp-python 0.3.36), whose create_tensor calls are repeated here in their order,
with ne as they ask for it; `done_getting_tensors` of src/llama-model-loader.cpp, which refuses a
file with any other tensor. Keys: its `load_arch_hparams`, and what llama-model.cpp asks of every
arch; a key of another type than that of the member it is read into is refused, too. Values:
conversion/deepseek.py.
"""
import re

# What element-wise operations take: ggml has them for F32 alone. Products and look-ups take BF16.
F32 = re.compile(r"norm|hc_|sinks|_ape|exp_probs_b")

# By the type that the loader asks for; of arrays that of the elements.
KEYS = {"STRING": """general.architecture rope.scaling.type""",
        "UINT32": """context_length embedding_length block_count attention.head_count
attention.head_count_kv attention.key_length attention.value_length attention.q_lora_rank
attention.output_lora_rank attention.output_group_count attention.sliding_window
attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k
rope.dimension_count rope.scaling.original_context_length expert_count expert_used_count
expert_shared_count expert_feed_forward_length expert_gating_func hash_layer_count
hyper_connection.count hyper_connection.sinkhorn_iterations nextn_predict_layers""",
        "FLOAT32": """attention.layer_norm_rms_epsilon attention.compress_rope_freq_base
rope.freq_base rope.scaling.factor rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow
expert_weights_scale hyper_connection.epsilon""",
        "BOOL": "expert_weights_norm"}
KEYS = {name: kind for kind, names in KEYS.items() for name in names.split()}
ARRAYS = {"attention.compress_ratios": {"INT32", "UINT32"}, "swiglu_clamp_exp": {"FLOAT32"}}


def block(config, ratio, is_hash):
    """{name: ne} of a block."""
    D, H, hd = (config[k] for k in ("hidden_size", "num_attention_heads", "head_dim"))
    ql, ol, G = (config[k] for k in ("q_lora_rank", "o_lora_rank", "o_groups"))
    E, I, hc = (config[k] for k in ("n_routed_experts", "moe_intermediate_size", "hc_mult"))
    iH, id_ = config["index_n_heads"], config["index_head_dim"]
    mix = (2 + hc) * hc
    found = {
        "attn_norm.weight": [D], "attn_sinks.weight": [H], "attn_q_a.weight": [D, ql],
        "attn_q_a_norm.weight": [ql], "attn_q_b.weight": [ql, H * hd], "attn_kv.weight": [D, hd],
        "attn_kv_a_norm.weight": [hd], "attn_output_a.weight": [H * hd // G, ol * G],
        "attn_output_b.weight": [G * ol, D],
        "hc_attn_fn.weight": [hc * D, mix], "hc_attn_base.weight": [mix],
        "hc_attn_scale.weight": [3], "hc_ffn_fn.weight": [hc * D, mix],
        "hc_ffn_base.weight": [mix], "hc_ffn_scale.weight": [3],
        "ffn_gate_inp.weight": [D, E], "ffn_norm.weight": [D],
        "ffn_gate_exps.weight": [D, I, E], "ffn_down_exps.weight": [I, D, E],
        "ffn_up_exps.weight": [D, I, E], "ffn_gate_shexp.weight": [D, I],
        "ffn_down_shexp.weight": [I, D], "ffn_up_shexp.weight": [D, I]}
    if is_hash:
        found["ffn_gate_tid2eid.weight"] = [config["num_experts_per_tok"], config["vocab_size"]]
    else:
        found["exp_probs_b.bias"] = [E]
    if ratio:
        width = 2 if ratio == 4 else 1
        found.update({"attn_compressor_kv.weight": [D, width * hd],
                      "attn_compressor_gate.weight": [D, width * hd],
                      "attn_compressor_ape.weight": [width * hd, ratio],
                      "attn_compressor_norm.weight": [hd]})
    if ratio == 4:
        found.update({"indexer.proj.weight": [D, iH], "indexer.attn_q_b.weight": [ql, iH * id_],
                      "indexer_compressor_kv.weight": [D, 2 * id_],
                      "indexer_compressor_gate.weight": [D, 2 * id_],
                      "indexer_compressor_ape.weight": [2 * id_, ratio],
                      "indexer_compressor_norm.weight": [id_]})
    return found


def loader_tensors(config, drafters):
    """{name: ne} that the loader asks for, in a file with so many next-token blocks."""
    D, V, hc = config["hidden_size"], config["vocab_size"], config["hc_mult"]
    L, ratios = config["num_hidden_layers"], config["compress_ratios"]
    found = {"token_embd.weight": [D, V], "output_norm.weight": [D], "output.weight": [D, V],
             "output_hc_fn.weight": [hc * D, hc], "output_hc_base.weight": [hc],
             "output_hc_scale.weight": [1]}
    for b in range(L + drafters):
        named = block(config, ratios[b] if b < L else 0, b < config["num_hash_layers"])
        if b >= L:
            named.update({"nextn.eh_proj.weight": [2 * D, D], "nextn.enorm.weight": [D],
                          "nextn.hnorm.weight": [D], "nextn.shared_head_norm.weight": [D]})
        found.update({f"blk.{b}.{name}": ne for name, ne in named.items()})
    return found


# What a file with next-token blocks has beyond that, so that the loader refuses it.
BEYOND = {"nextn.hc_head_fn.weight", "nextn.hc_head_base.weight", "nextn.hc_head_scale.weight"}


def wanted_type(name):
    if "_exps." in name:
        return "MXFP4"
    if "tid2eid" in name:
        return "I32"
    return "F32" if F32.search(name) else "BF16"


TOP = {"token_embd": "embed", "output": "head", "output_norm": "norm"}
BLOCK = {"attn_sinks": "attn.attn_sink", "attn_q_a": "attn.wq_a", "attn_q_a_norm": "attn.q_norm",
         "attn_q_b": "attn.wq_b", "attn_kv": "attn.wkv", "attn_kv_a_norm": "attn.kv_norm",
         "attn_output_a": "attn.wo_a", "attn_output_b": "attn.wo_b",
         "attn_compressor_kv": "attn.compressor.wkv",
         "attn_compressor_gate": "attn.compressor.wgate",
         "attn_compressor_ape": "attn.compressor.ape",
         "attn_compressor_norm": "attn.compressor.norm", "indexer.attn_q_b": "attn.indexer.wq_b",
         "indexer.proj": "attn.indexer.weights_proj",
         "indexer_compressor_kv": "attn.indexer.compressor.wkv",
         "indexer_compressor_gate": "attn.indexer.compressor.wgate",
         "indexer_compressor_ape": "attn.indexer.compressor.ape",
         "indexer_compressor_norm": "attn.indexer.compressor.norm", "ffn_gate_inp": "ffn.gate",
         "ffn_gate_tid2eid": "ffn.gate.tid2eid", "ffn_gate_shexp": "ffn.shared_experts.w1",
         "ffn_down_shexp": "ffn.shared_experts.w2", "ffn_up_shexp": "ffn.shared_experts.w3",
         "nextn.enorm": "enorm", "nextn.hnorm": "hnorm", "nextn.shared_head_norm": "norm",
         "nextn.hc_head_fn": "hc_head_fn", "nextn.hc_head_base": "hc_head_base",
         "nextn.hc_head_scale": "hc_head_scale"}
EXPERTS = {"ffn_gate_exps": "w1", "ffn_down_exps": "w2", "ffn_up_exps": "w3"}
# Parameters that are no module's weight in the release.
BARE = re.compile(r"(hc_\w+|attn_sink|ape|tid2eid)$")


def native_parts(name, config):
    """(names of the release, dimension that they are stacked along or joined on)."""
    if not name.startswith("blk."):
        stem = name.removesuffix(".weight")
        return ([TOP[stem] + ".weight"] if stem in TOP
                else [stem.replace("output_hc_", "hc_head_")]), None
    _, b, rest = name.split(".", 2)
    L = config["num_hidden_layers"]
    prefix = f"layers.{b}." if int(b) < L else f"mtp.{int(b) - L}."
    if rest == "exp_probs_b.bias":
        return [prefix + "ffn.gate.bias"], None
    stem = rest.removesuffix(".weight")
    if stem == "nextn.eh_proj":
        return [prefix + "e_proj.weight", prefix + "h_proj.weight"], 1
    if stem in EXPERTS:
        return [f"{prefix}ffn.experts.{e}.{EXPERTS[stem]}.weight"
                for e in range(config["n_routed_experts"])], 0
    native = BLOCK.get(stem, stem)
    return [prefix + native + ("" if BARE.search(native) else ".weight")], None
