"""GPT models of megatron-core on one process without a GPU. Reads a request a line, answers each:

    {"verb": "load", "config": F, "folder": D, "form": "te", "logits": F.pt, ...}
    {"verb": "save", ...}     the same model with random values, into the folder

config is a config.json of Hugging Face, per_layer whether keys have the numbers of layers. form is
the layer specs to use, both of megatron-core: "local" or "te", those for Transformer Engine. blocks
is how many next-token blocks follow the layers. An answer is {"error": text} if it was
refused.

megatron-core takes a GPU for granted, and its specs of form "te" take Transformer Engine for it.
What stands in:

    torch.cuda.current_device           "cpu"
    torch.cuda.synchronize              nothing
    TENorm                              torch.nn.RMSNorm, with an extra state
    TELinear, TEColumnParallelLinear    ColumnParallelLinear of megatron-core, with an extra state
    TELayerNormColumnParallelLinear     the same, which has and applies layer_norm_weight, too
    TERowParallelLinear                 RowParallelLinear of megatron-core, with an extra state
    TEDotProductAttention               DotProductAttention of megatron-core
    DotProductAttention                 the same; latent attention tells it the widths of keys and
                                        values, as Transformer Engine takes them
    is_te_min_version of the specs      true: experts are those of Transformer Engine, too
    te_general_gemm of the router       None: the name is not defined without Transformer Engine

Extra states are empty tensors, as of Transformer Engine's modules without FP8. All else is
megatron-core: the models, which specs they have, the keys, how they are saved and loaded.
"""
import argparse
import json
import os
import sys
import traceback
import warnings

warnings.filterwarnings("ignore")

import torch                                                                 # noqa: E402

torch.cuda.current_device = lambda: "cpu"
torch.cuda.synchronize = lambda *_: None

from megatron.core import dist_checkpointing, parallel_state                 # noqa: E402
from megatron.core.dist_checkpointing.validation import StrictHandling       # noqa: E402
from megatron.core.extensions import transformer_engine_spec_provider as te_specs  # noqa: E402
from megatron.core.models import backends                                    # noqa: E402
from megatron.core.models.gpt import gpt_layer_specs as specs                # noqa: E402
from megatron.core.models.gpt.gpt_model import GPTModel                      # noqa: E402
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear  # noqa: E402
from megatron.core.tensor_parallel.random import initialize_rng_tracker      # noqa: E402
from megatron.core.transformer import multi_latent_attention as mla          # noqa: E402
from megatron.core.transformer import TransformerConfig                      # noqa: E402
from megatron.core.transformer.dot_product_attention import DotProductAttention  # noqa: E402
from megatron.core.transformer.moe import moe_utils                          # noqa: E402
from megatron.core.transformer.transformer_config import MLATransformerConfig  # noqa: E402


class ExtraState:
    """What Transformer Engine keeps beside the weights of a module that knows of FP8."""

    def get_extra_state(self):
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state):
        assert torch.equal(state, self.get_extra_state())


class Norm(ExtraState, torch.nn.RMSNorm):
    def __init__(self, config, hidden_size, eps=1e-5):
        super().__init__(hidden_size, eps=eps)


class Column(ExtraState, ColumnParallelLinear):
    pass


class Linear(Column):
    """The whole of it on every rank, of which there is one here."""

    def __init__(self, *args, parallel_mode, tp_group, **options):
        super().__init__(*args, gather_output=False, **options)


class NormColumn(Column):
    def __init__(self, input_size, output_size, *, config, **options):
        super().__init__(input_size, output_size, config=config, **options)
        self.layer_norm_weight = torch.nn.Parameter(torch.ones(input_size))
        self.eps = config.layernorm_epsilon

    def forward(self, x):
        return super().forward(torch.nn.functional.rms_norm(x, x.shape[-1:],
                                                            self.layer_norm_weight, self.eps))


class Row(ExtraState, RowParallelLinear):
    pass


class Attention(DotProductAttention):
    """The width of values is kv_channels; that of keys does not matter."""

    def __init__(self, *args, config, k_channels=None, v_channels=None, **options):
        assert v_channels in (None, config.kv_channels)
        super().__init__(*args, config=config, **options)


def stand_in():
    backends.DotProductAttention = Attention
    moe_utils.te_general_gemm = None
    te_specs.TENorm = specs.TENorm = Norm
    te_specs.TELinear = mla.TELinear = Linear
    te_specs.TEColumnParallelLinear = mla.TEColumnParallelLinear = Column
    te_specs.TELayerNormColumnParallelLinear = NormColumn
    te_specs.TERowParallelLinear = Row
    te_specs.TEDotProductAttention = Attention
    te_specs.is_te_min_version = lambda *_: True
    specs.TESpecProvider = te_specs.TESpecProvider


def expert_options(hf, per_layer):
    """TransformerConfig's members for experts."""
    layers = hf["num_hidden_layers"]
    experts = hf.get("n_routed_experts", hf.get("num_experts"))
    if experts is None:
        return {}
    dense = hf.get("first_k_dense_replace", 0)
    options = {
        "num_moe_experts": experts, "moe_router_topk": hf["num_experts_per_tok"],
        "moe_ffn_hidden_size": hf["moe_intermediate_size"],
        "moe_layer_freq": [int(n >= dense) for n in range(layers)] if per_layer else 1,
        "moe_router_load_balancing_type": "none", "moe_token_dispatcher_type": "allgather"}
    if "n_routed_experts" in hf:
        options |= {
            "moe_router_score_function": "sigmoid", "moe_router_enable_expert_bias": True,
            "moe_router_num_groups": hf["n_group"], "moe_router_group_topk": hf["topk_group"],
            "moe_router_topk_scaling_factor": hf["routed_scaling_factor"],
            "moe_shared_expert_intermediate_size":
                hf["n_shared_experts"] * hf["moe_intermediate_size"]}
    return options


def transformer_config(hf, per_layer):
    common = {
        "num_layers": hf["num_hidden_layers"], "hidden_size": hf["hidden_size"],
        "num_attention_heads": hf["num_attention_heads"],
        "ffn_hidden_size": hf["intermediate_size"],
        "layernorm_epsilon": hf["rms_norm_eps"], "normalization": "RMSNorm",
        "activation_func": torch.nn.functional.silu, "gated_linear_unit": True,
        "add_bias_linear": False, "add_qkv_bias": hf.get("attention_bias", False),
        "hidden_dropout": 0.0, "attention_dropout": 0.0, "persist_layer_norm": False,
        "use_cpu_initialization": True, "params_dtype": torch.float32,
        "bias_activation_fusion": False, "masked_softmax_fusion": False,
        "gradient_accumulation_fusion": False, **expert_options(hf, per_layer)}
    if "kv_lora_rank" not in hf:
        return TransformerConfig(**common, num_query_groups=hf["num_key_value_heads"],
                                 kv_channels=hf["head_dim"], qk_layernorm=has_qk_norm(hf))
    # DotProductAttention takes the width of values from kv_channels.
    yarn = hf["rope_scaling"]
    return MLATransformerConfig(
        **common, multi_latent_attention=True, qk_layernorm=True, kv_channels=hf["v_head_dim"],
        q_lora_rank=hf["q_lora_rank"], kv_lora_rank=hf["kv_lora_rank"],
        qk_head_dim=hf["qk_nope_head_dim"], qk_pos_emb_head_dim=hf["qk_rope_head_dim"],
        v_head_dim=hf["v_head_dim"], rope_type="yarn", rotary_base=hf["rope_theta"],
        rotary_scaling_factor=yarn["factor"], beta_fast=yarn["beta_fast"],
        beta_slow=yarn["beta_slow"], mscale=yarn["mscale"], mscale_all_dim=yarn["mscale_all_dim"],
        original_max_position_embeddings=yarn["original_max_position_embeddings"])


def has_qk_norm(hf):
    return hf["model_type"].startswith("qwen3") or hf.get("use_qk_norm", False)


def build(config, form, per_layer, blocks, **members):
    """blocks: how many predict the next token, after the layers. members: of the configuration."""
    with open(config) as file:
        hf = json.load(file)
    mcore = transformer_config(hf, per_layer)
    mcore.mtp_num_layers = blocks or None
    for name, value in members.items():
        setattr(mcore, name, value)
    layers = specs.get_gpt_decoder_block_spec(
        mcore, use_transformer_engine=form == "te", normalization="RMSNorm")
    model = GPTModel(
        mcore, layers, hf["vocab_size"], hf["max_position_embeddings"],
        share_embeddings_and_output_weights=hf.get("tie_word_embeddings", False),
        position_embedding_type="rope", rotary_base=hf["rope_theta"],
        rotary_percent=hf.get("partial_rotary_factor", 1.0),
        rope_scaling=hf["model_type"] == "llama", parallel_output=False,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        mtp_block_spec=specs.get_gpt_mtp_block_spec(mcore, layers, form == "te")
        if blocks else None)
    return model.eval()


def randomise(model):
    """Values for which no two modules compute alike, of the size that training leaves."""
    torch.manual_seed(4)
    for name, p in [*model.named_parameters(), *model.named_buffers()]:
        if "norm" in name:
            p.data = 1 + 0.3 * torch.randn_like(p)
        elif name.endswith("expert_bias"):
            p.data = 0.1 * torch.randn_like(p)
        elif name.endswith((".weight", ".bias")):
            p.data = torch.randn_like(p) * p.shape[-1] ** -0.5


@torch.no_grad()
def logits(model, prompts):
    """For each prompt those of the model, and then those of its next-token block, if it has one."""
    results = []

    def keep(_, __, hidden):
        results.extend(model.output_layer(h)[0][:, 0] for h in hidden.chunk(2))
    if model.mtp_process:
        model.mtp.register_forward_hook(keep)
    for prompt in prompts:
        tokens = torch.tensor([prompt])
        places = torch.arange(len(prompt))
        mask = places[None, :] > places[:, None]
        # With labels the result is a loss, without them there are no next-token blocks.
        labels = {"labels": tokens} if model.mtp_process else {}
        result = model(tokens, places[None], mask[None, None], **labels)
        if not labels:
            results.append(result[0])
    return results


def sharded(model, per_layer):
    """per_layer: keys have the layer's number, as they have where layers differ."""
    return model.sharded_state_dict(metadata={"non_homogeneous_layers": per_layer})


def arguments(model):
    """Those of the run that a converter reads."""
    mcore = model.config
    return argparse.Namespace(
        num_layers=mcore.num_layers, num_experts=mcore.num_moe_experts,
        num_attention_heads=mcore.num_attention_heads, num_query_groups=mcore.num_query_groups,
        vocab_size=model.vocab_size, hidden_size=mcore.hidden_size)


def load(model, folder, per_layer):
    """Only if all that was asked for is there, and nothing else is."""
    for p in [*model.parameters(), *model.buffers()]:
        torch.nn.init.constant_(p, float("nan"))
    loaded = dist_checkpointing.load({"model": sharded(model, per_layer)}, folder,
                                     strict=StrictHandling.RAISE_ALL)
    model.load_state_dict(loaded["model"], strict=True)
    for name, value in vars(arguments(model)).items():
        assert getattr(loaded["args"], name) == value, (name, value, loaded["args"])


def save(model, folder, per_layer):
    randomise(model)
    os.makedirs(folder)
    state = {"model": sharded(model, per_layer), "args": arguments(model), "iteration": 1,
             "checkpoint_version": 3.0}
    dist_checkpointing.save(state, folder, ("torch_dist", 1))


def answer(request):
    model = build(request["config"], request["form"], request["per_layer"], request["blocks"])
    verb = {"load": load, "save": save}[request["verb"]]
    verb(model, request["folder"], request["per_layer"])
    torch.save(logits(model, request["prompts"]), request["logits"])
    return {"error": None}


def main():
    # What libraries print is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0,
                                         world_size=1)
    parallel_state.initialize_model_parallel()
    # Without random states of a GPU, which dropout would use.
    initialize_rng_tracker(inference_rng_tracker=True)
    stand_in()
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception:
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
