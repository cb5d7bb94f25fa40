"""What the indexer of sparse attention computes in megatron-core 0.16.1 and transformers from one
checkpoint, whose torch_dist each dialect stores in its own way.

transformers turns the first dimensions of each head by the position, of DeepSeek-V3.2 as two
halves, of GLM-5 as pairs of neighbours. megatron-core 0.16.1 turns the last ones, as pairs; so does
slime's model, and that of miles for GLM-5. Later megatron-core turns the first, in the way that
dsa_indexer_rope_interleaved tells. So values must be where the code that runs looks for them, which
no key tells.
"""
import json
import types

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
dsa = pytest.importorskip("megatron.core.transformer.experimental_attention_variant.dsa")
safetensors_torch = pytest.importorskip("safetensors.torch")
import torch.distributed.checkpoint as dcp                                   # noqa: E402
from transformers.models.deepseek_v32 import modeling_deepseek_v32 as v32    # noqa: E402
from transformers.models.glm_moe_dsa import modeling_glm_moe_dsa as glm      # noqa: E402

from interop.test_dialects import CONFIG as SMALL, PLAIN, UPSTREAM           # noqa: E402

HEAD, ROPE, TOKENS = 16, 8, 40
CONFIG = {**SMALL, "index_head_dim": HEAD, "qk_rope_head_dim": ROPE, "index_topk": TOKENS,
          "head_dim": ROPE, "num_nextn_predict_layers": 0, "rms_norm_eps": 1e-6,
          "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
CLASSES = {"deepseek_v32": (v32.DeepseekV32Config, v32.DeepseekV32Indexer,
                            v32.DeepseekV32RotaryEmbedding),
           "glm_moe_dsa": (glm.GlmMoeDsaConfig, glm.GlmMoeDsaIndexer, glm.GlmMoeDsaRotaryEmbedding)}
KEYS = {"slime": PLAIN, "miles": PLAIN, "bridge": UPSTREAM}


class Linear(torch.nn.Linear):
    """As a module of megatron-core: the result, and a bias that was not added."""

    def __init__(self, columns, rows, **_):
        super().__init__(columns, rows, bias=False)

    def forward(self, x):
        return super().forward(x), None


class Norm(torch.nn.LayerNorm):
    def __init__(self, config, hidden_size, eps):
        super().__init__(hidden_size, eps=eps)


class One:
    def size(self):
        return 1

    def rank(self):
        return 0


@pytest.fixture(scope="module", params=CLASSES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(ckpt, family, tmp_path_factory):
    """A checkpoint in BF16, and the tensors of its indexer."""
    folder = tmp_path_factory.mktemp(family)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": family}))
    ckpt("ckpt-synth", "--config", folder / "config.json", folder / "synth")
    ckpt("ckpt-convert", "--dtype", "bf16", folder / "synth", folder / "model")
    tensors = {name: t for path in (folder / "model").glob("*.safetensors")
               for name, t in safetensors_torch.load_file(path).items()}
    torch.manual_seed(3)
    head = "model.layers.1.self_attn.indexer."
    for name in tensors:
        if "norm" in name:
            tensors[name] = (1 + 0.3 * torch.randn(tensors[name].shape)).bfloat16().to(
                tensors[name].dtype)
        elif name.startswith(head):
            tensors[name] = torch.randn(tensors[name].shape).bfloat16()
    for path in (folder / "model").glob("*.safetensors"):
        safetensors_torch.save_file({name: tensors[name] for name in
                                     safetensors_torch.load_file(path)}, path)
    return folder / "model", {name.removeprefix(head): t.float() for name, t in tensors.items()
                              if name.startswith(head)}


@pytest.fixture(scope="module")
def inputs():
    """Hidden states and latent queries of some tokens."""
    torch.manual_seed(5)
    return (torch.randn(1, TOKENS, CONFIG["hidden_size"]),
            torch.randn(1, TOKENS, CONFIG["q_lora_rank"]))


def transformers_scores(monkeypatch, family, weights, inputs):
    kinds = CLASSES[family]
    config = kinds[0](**CONFIG)
    indexer = kinds[1](config, 1)
    indexer.load_state_dict(weights)
    places = torch.arange(TOKENS)[None]
    seen = []
    topk = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk",
                        lambda t, *a, **k: seen.append(t) or topk(t, *a, **k))
    indexer(*inputs, kinds[2](config)(inputs[0], places), torch.zeros(1, TOKENS, TOKENS), places)
    monkeypatch.undo()
    (scores,) = seen
    return scores


@torch.no_grad()
def megatron_scores(monkeypatch, weights, inputs, apply_rope=None):
    """Of its module as it is, but for a GPU's device and kernel: a rotation of all dimensions of
    queries and keys by a Hadamard matrix, in F32."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "cpu")
    matrix = torch.ones(1, 1)
    while len(matrix) < HEAD:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    monkeypatch.setattr(dsa, "rotate_activation", lambda x: x @ matrix * HEAD ** -0.5)
    if apply_rope is not None:
        monkeypatch.setattr(dsa.DSAIndexer, "_apply_rope", apply_rope)
    config = types.SimpleNamespace(
        hidden_size=CONFIG["hidden_size"], qk_pos_emb_head_dim=ROPE,
        q_lora_rank=CONFIG["q_lora_rank"], dsa_indexer_n_heads=CONFIG["index_n_heads"],
        dsa_indexer_head_dim=HEAD, dsa_indexer_topk=TOKENS, rope_type="rope", rotary_percent=1.0,
        rotary_base=10000, layernorm_epsilon=1e-6, init_method=None, sequence_parallel=False,
        context_parallel_size=1, apply_rope_fusion=False, rotary_interleaved=False,
        multi_latent_attention=True)
    indexer = dsa.DSAIndexer(config, dsa.DSAIndexerSubmodules(Linear, Linear, Norm, Linear),
                             types.SimpleNamespace(tp=One(), cp=One()))
    indexer.load_state_dict(weights)
    scores, _ = indexer.forward_with_scores(*(x.transpose(0, 1) for x in inputs))
    monkeypatch.undo()
    return scores


def stored(ckpt, model, dialect, folder):
    """The indexer as a dialect's trainer loads it, under the names of megatron-core."""
    ckpt("ckpt-shard", "--layout", "torch_dist", "--dialect", dialect, model[0], folder)
    state = {f"decoder.layers.1.{key}": torch.zeros_like(model[1][name]).bfloat16()
             for key, name in KEYS[dialect].items()}
    dcp.load(state, checkpoint_id=folder / "release")
    names = {name: key.rpartition("indexer.")[2] for key, name in UPSTREAM.items()}
    return {names[name]: state[f"decoder.layers.1.{key}"].float()
            for key, name in KEYS[dialect].items()}


def same(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


def pair(weights):
    """What is two halves in transformers, as pairs: dimensions i and i + half of the ones that
    turn become neighbours. They are the last ones, as slime has them."""
    half = torch.arange(ROPE // 2)
    order = torch.cat([torch.arange(HEAD - ROPE),
                       HEAD - ROPE + torch.stack([half, half + ROPE // 2], 1).flatten()])
    return {name: t if "weights_proj" in name
            else t.reshape(-1, HEAD, *t.shape[1:])[:, order].reshape(t.shape)
            for name, t in weights.items()}


def later(interleaved):
    """The rule of later versions of megatron-core, in the words of this one."""
    def apply_rope(self, x, rotary_pos_emb, mscale):
        turned, rest = x[..., :ROPE], x[..., ROPE:]
        config = types.SimpleNamespace(**{**vars(self.config),
                                          "multi_latent_attention": interleaved})
        turned = dsa.apply_rotary_pos_emb(turned, rotary_pos_emb, config=config, cu_seqlens=None,
                                          mscale=mscale, cp_group=self.pg_collection.cp)
        return torch.cat([turned, rest], dim=-1)
    return apply_rope


def test_megatron_core_0_16_computes_alike_from_exchanged_halves_of_glm5(
        ckpt, monkeypatch, family, model, inputs, tmp_path):
    """Of DeepSeek-V3.2 from none: it would need the pairs of GLM-5 as well."""
    want = transformers_scores(monkeypatch, family, model[1], inputs)
    straight = stored(ckpt, model, "bridge", tmp_path / "bridge")
    exchanged = stored(ckpt, model, "slime", tmp_path / "slime")
    is_glm = family == "glm_moe_dsa"
    assert same(megatron_scores(monkeypatch, exchanged, inputs), want) == is_glm
    assert not same(megatron_scores(monkeypatch, straight, inputs), want)
    assert same(megatron_scores(monkeypatch, pair(exchanged), inputs), want) == (not is_glm)


def test_later_megatron_core_computes_alike_from_a_straight_copy(
        ckpt, monkeypatch, family, model, inputs, tmp_path):
    """As Megatron-Bridge makes one; if told whether dimensions turn as pairs of neighbours."""
    want = transformers_scores(monkeypatch, family, model[1], inputs)
    for dialect in "bridge", "miles":
        weights = stored(ckpt, model, dialect, tmp_path / dialect)
        for interleaved in False, True:
            got = megatron_scores(monkeypatch, weights, inputs, later(interleaved))
            assert same(got, want) == (interleaved == (family == "glm_moe_dsa"))
