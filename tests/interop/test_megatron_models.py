"""megatron-core's own GPT models load our torch_dist and compute what transformers does from the
source, and transformers computes from what we make of their checkpoints what they did.

So keys, shapes, packing of queries, keys and values, order of gate and up, norms and rotary
dimensions are right in meaning, and not only as a listing. What stands in for a GPU and Transformer
Engine: megatron_model_worker.py.
"""
import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("megatron.core.dist_checkpointing")
safetensors_torch = pytest.importorskip("safetensors.torch")

from interop.workers import HERE, Server                                     # noqa: E402

COMMON = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 3,
          "num_attention_heads": 4, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
          "rope_theta": 10000, "hidden_act": "silu", "tie_word_embeddings": False,
          "dtype": "bfloat16"}
GROUPS = {**COMMON, "num_key_value_heads": 2, "head_dim": 24}
EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 4, "norm_topk_prob": True}
SHARED = {**EXPERTS, "n_routed_experts": 8, "n_shared_experts": 2, "first_k_dense_replace": 1,
          "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_method": "noaux_tc"}
LATENT = {**COMMON, **SHARED, "model_type": "deepseek_v3", "num_key_value_heads": 4,
          "n_group": 4, "topk_group": 2, "kv_lora_rank": 16, "qk_nope_head_dim": 16,
          "qk_rope_head_dim": 8, "v_head_dim": 20,
          "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
                           "mscale": 1.0, "mscale_all_dim": 1.0,
                           "original_max_position_embeddings": 4096}}
MODELS = {
    "llama3": {**GROUPS, "model_type": "llama", "max_position_embeddings": 131072,
               "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                "high_freq_factor": 4.0,
                                "original_max_position_embeddings": 8192}},
    "qwen3_tied": {**GROUPS, "model_type": "qwen3", "tie_word_embeddings": True},
    "qwen3_moe": {**GROUPS, **EXPERTS, "model_type": "qwen3_moe", "num_experts": 8,
                  "decoder_sparse_step": 1, "mlp_only_layers": []},
    "glm4_moe": {**GROUPS, **SHARED, "model_type": "glm4_moe", "n_group": 1, "topk_group": 1,
                 "attention_bias": True, "use_qk_norm": True, "partial_rotary_factor": 0.5,
                 "num_nextn_predict_layers": 1},
    "deepseek_v3": {**LATENT, "q_lora_rank": 24, "num_nextn_predict_layers": 1},
    "plain_queries": {**LATENT, "q_lora_rank": None},
}
CASES = [("llama3", "stacked"), ("llama3", "per-layer"), ("qwen3_tied", "stacked"),
         ("qwen3_moe", "stacked"), ("qwen3_moe", "per-layer"), ("glm4_moe", "per-layer"),
         ("deepseek_v3", "per-layer"), ("plain_queries", "per-layer")]
NEXT_TOKEN = [model for model in MODELS if "num_nextn_predict_layers" in MODELS[model]]
PROMPTS = [[5], [1, 2, 3, 4, 5, 60, 7, 1, 95], [(37 * n * n + 11 * n) % 96 for n in range(40)]]
# Both compute in F32 what sums of up to 96 products and three layers give, in other orders: some
# roundings of 2**-24 each. The largest difference seen is 2e-6 of the largest logit.
TOLERANCE = 1e-5


class Megatron(Server):
    """One worker for all tests of a process: to import megatron-core takes seconds."""

    def __call__(self, verb, config, folder, keys, form="te", blocks=0):
        """The logits of PROMPTS. form: the layer specs of Transformer Engine, or local ones."""
        logits = folder.parent / "megatron.logits"
        error = self.ask({
            "verb": verb, "config": str(config), "folder": str(folder), "form": form,
            "per_layer": keys == "per-layer", "blocks": blocks, "prompts": PROMPTS,
            "logits": str(logits)})["error"]
        assert error is None, error
        return torch.load(logits)


@pytest.fixture(scope="module")
def megatron():
    with Megatron(HERE / "megatron_model_worker.py") as worker:
        yield worker


@pytest.fixture(scope="module")
def sources(ckpt, tmp_path_factory):
    """source(model): the folder of a synthetic checkpoint, and transformers' model of it in F32."""
    made = {}

    def source(model):
        if model not in made:
            folder = tmp_path_factory.mktemp(model)
            (folder / "config.json").write_text(json.dumps(MODELS[model]))
            ckpt("ckpt-synth", "--config", folder / "config.json", folder / "model")
            plain = folder / "plain"
            plain.mkdir()
            (plain / "config.json").write_text(json.dumps(MODELS[model]))
            safetensors_torch.save_file(without_scales(of_files(folder / "model")),
                                        plain / "model.safetensors")
            made[model] = folder / "model", of_transformers(plain)
        return made[model]
    return source


def of_files(folder):
    return {name: t for path in folder.glob("*.safetensors")
            for name, t in safetensors_torch.load_file(path).items()}


def without_scales(tensors):
    """FP8 times the scales of its blocks, for which transformers needs a GPU."""
    for name in [name for name in tensors if name.endswith(".weight_scale_inv")]:
        weight = name.removesuffix("_scale_inv")
        scale = tensors.pop(name).repeat_interleave(128, 0).repeat_interleave(128, 1)
        rows, columns = tensors[weight].shape
        tensors[weight] = tensors[weight].float() * scale[:rows, :columns]
    return tensors


def of_transformers(folder):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True)
    layers = model.config.num_hidden_layers
    assert not info["missing_keys"]
    assert all(key.startswith(f"model.layers.{layers}.") for key in info["unexpected_keys"])
    return model.eval()


@torch.no_grad()
def logits(model, prompts=PROMPTS):
    return [model(torch.tensor([prompt])).logits[0] for prompt in prompts]


class NextToken:
    """A next-token block as DeepSeek describes it, around a layer of transformers.

    transformers leaves the block out. As one more layer of a model it loads the layer inside.
    """

    def __init__(self, folder):
        config = json.loads((folder / "config.json").read_text())
        self.count = config["num_hidden_layers"]
        more = folder.parent / f"{folder.name}-more"
        more.mkdir(exist_ok=True)
        (more / "config.json").write_text(json.dumps(
            {**config, "num_hidden_layers": self.count + 1}))
        tensors = of_files(folder)
        safetensors_torch.save_file(tensors, more / "model.safetensors")
        self.model = transformers.AutoModelForCausalLM.from_pretrained(more, dtype=torch.float32)
        self.layers = self.model.eval().model.layers
        self.parameters = {name: tensors[f"model.layers.{self.count}.{name}.weight"].float()
                           for name in ("enorm", "hnorm", "eh_proj", "shared_head.norm")}

    def normal(self, x, name):
        weight = self.parameters[name]
        return torch.nn.functional.rms_norm(x, weight.shape, weight, COMMON["rms_norm_eps"])

    def after(self, layers, **inputs):
        """The hidden states after some of the layers, before the last norm."""
        model = self.model.model
        model.layers, model.config.num_hidden_layers = layers, len(layers)
        states = []
        hook = model.norm.register_forward_pre_hook(lambda _, given: states.append(given[0]))
        model(use_cache=False, **inputs)
        hook.remove()
        return states[0]

    @torch.no_grad()
    def logits(self, prompts=PROMPTS):
        model, results = self.model.model, []
        for prompt in prompts:
            hidden = model.norm(self.after(self.layers[:self.count],
                                           input_ids=torch.tensor([prompt])))
            # Nobody knows the token after the last one: for Megatron it is 0.
            following = model.embed_tokens(torch.tensor([prompt[1:] + [0]]))
            both = [self.normal(following, "enorm"), self.normal(hidden, "hnorm")]
            block = self.after(self.layers[self.count:], inputs_embeds=torch.cat(both, -1)
                               @ self.parameters["eh_proj"].T)
            results += [self.model.lm_head(hidden)[0],
                        self.model.lm_head(self.normal(block, "shared_head.norm"))[0]]
        return results


def difference(a, b):
    """The largest one, as a share of the largest logit."""
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(a, b, strict=True))


def shard(ckpt, source, folder, keys, *options):
    ckpt("ckpt-shard", "--layout", "torch_dist", "--layer-keys", keys, *options, source, folder)
    return folder / "release"


@pytest.mark.parametrize("model, keys", CASES)
def test_megatron_computes_from_torch_dist_what_transformers_does(ckpt, megatron, sources, tmp_path,
                                                                  model, keys):
    source, judge = sources(model)
    folder = shard(ckpt, source, tmp_path / "dist", keys, "--extra-state")
    got = megatron("load", source / "config.json", folder, keys)
    assert difference(got, logits(judge)) < TOLERANCE


@torch.no_grad()
def check_that_places_count(tensors, compute):
    """Equal logits show that every row is in its place only if they differ where one is not."""
    want = compute()
    for name, tensor in tensors:
        kept = tensor.clone()
        tensor.copy_(kept.roll(1, dims=max(tensor.dim() - 2, 0)))
        assert difference(compute(), want) > 10 * TOLERANCE, name
        tensor.copy_(kept)
    assert difference(compute(), want) == 0


@pytest.mark.parametrize("model", MODELS)
def test_rows_in_other_places_give_other_logits(sources, model):
    _, judge = sources(model)
    tensors = [*judge.named_parameters(), *judge.named_buffers()]
    check_that_places_count([(name, t) for name, t in tensors if "inv_freq" not in name],
                            lambda: logits(judge, PROMPTS[-1:]))


@pytest.mark.parametrize("model", NEXT_TOKEN)
def test_rows_of_a_next_token_block_in_other_places_give_other_logits(sources, model):
    source, _ = sources(model)
    block = NextToken(source.parent / "plain")
    layer = block.layers[block.count]
    check_that_places_count([*block.parameters.items(), *layer.named_parameters(),
                             *layer.named_buffers()], lambda: block.logits(PROMPTS[-1:]))


def save(megatron, folder, model, keys, **options):
    """A root as trainers leave it, and the logits of what is in it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(MODELS[model]))
    (folder / "latest_checkpointed_iteration.txt").write_text("1")
    return megatron("save", folder / "config.json", folder / "iter_0000001", keys, **options)


@pytest.mark.parametrize("model, keys", CASES)
@pytest.mark.parametrize("form", ["te", "local"])
def test_transformers_computes_what_megatron_did_before_saving(ckpt, megatron, tmp_path, model,
                                                               keys, form):
    want = save(megatron, tmp_path / "saved", model, keys, form=form)
    ckpt("ckpt-shard", "--layout", "hf", tmp_path / "saved", tmp_path / "back")
    assert difference(logits(of_transformers(tmp_path / "back")), want) < TOLERANCE


def test_megatron_refuses_what_is_missing_and_what_is_too_much(ckpt, megatron, sources, tmp_path):
    source, _ = sources("deepseek_v3")
    folder = shard(ckpt, source, tmp_path / "less", "per-layer")
    with pytest.raises(AssertionError, match="input_layernorm._extra_state"):
        megatron("load", source / "config.json", folder, "per-layer")
    folder = shard(ckpt, source, tmp_path / "more", "per-layer", "--extra-state", "--mtp")
    with pytest.raises(AssertionError, match="found in the checkpoint(?s:.*)mtp.*eh_proj"):
        megatron("load", source / "config.json", folder, "per-layer")


@pytest.mark.parametrize("model", NEXT_TOKEN)
def test_a_next_token_block_computes_the_same_there_and_back(ckpt, megatron, sources, tmp_path,
                                                             model):
    source, _ = sources(model)
    folder = shard(ckpt, source, tmp_path / "dist", "per-layer", "--extra-state", "--mtp")
    got = megatron("load", source / "config.json", folder, "per-layer", blocks=1)
    assert difference(got, NextToken(source.parent / "plain").logits()) < TOLERANCE
    want = save(megatron, tmp_path / "saved", model, "per-layer", blocks=1)
    ckpt("ckpt-shard", "--layout", "hf", tmp_path / "saved", tmp_path / "back")
    assert difference(NextToken(tmp_path / "back").logits(), want) < TOLERANCE


# ---- several ranks ----

RANKS = [("qwen3_moe", "per-layer", {"tp": 2}), ("qwen3_moe", "per-layer", {"ep": 2}),
         ("qwen3_moe", "stacked", {"ep": 2}), ("qwen3_moe", "per-layer", {"pp": 2}),
         ("llama3", "stacked", {"tp": 2})]


class Ranks:
    """Two ranks, for all tests of a process."""

    def __init__(self, folder):
        self.servers = [Server(HERE / "megatron_ranks_worker.py", folder / "store", str(rank))
                        for rank in range(2)]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for server in self.servers:
            server.__exit__(*error)

    def __call__(self, out, **request):
        """What each rank has computed, and how many values it has."""
        (out / "again").mkdir(parents=True)
        for server in self.servers:
            server.send({**request, "out": str(out)})
        for server in self.servers:
            reply = server.receive()
            assert reply["error"] is None, reply["error"][-4000:]
        return [torch.load(out / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    with Ranks(tmp_path_factory.mktemp("ranks")) as ranks:
        yield ranks


@pytest.mark.parametrize("model, keys, ranks", RANKS,
                         ids=[f"{m}-{k}-{next(iter(r))}" for m, k, r in RANKS])
@pytest.mark.parametrize("files", [(), ("--files", "rank")], ids=["layers", "ranks"])
def test_two_ranks_compute_from_torch_dist_what_transformers_does(
        ckpt, sources, two_ranks, tmp_path, model, keys, ranks, files):
    """Each rank has its share, and what both save has the values of the source."""
    source, judge = sources(model)
    if files:
        files += tuple(word for axis, n in ranks.items() for word in (f"--{axis}", str(n)))
    if files and "pp" in ranks:
        files += ("--first-stage-layers", "1")
    folder = shard(ckpt, source, tmp_path / "dist", keys, "--extra-state", *files)
    loaded = two_ranks(tmp_path / "out", config=str(source / "config.json"), folder=str(folder),
                       per_layer=keys == "per-layer", prompts=PROMPTS, ranks=ranks)
    for rank in loaded if "pp" not in ranks else loaded[1:]:
        assert difference(rank["logits"], logits(judge)) < TOLERANCE
    counts = [rank["count"] for rank in loaded]
    whole = sum(t.numel() for t in judge.parameters())
    assert max(counts) < whole and sum(counts) >= whole
    (tmp_path / "out/config.json").write_text((source / "config.json").read_text())
    (tmp_path / "out/latest_checkpointed_iteration.txt").write_text("1")
    (tmp_path / "out/again").rename(tmp_path / "out/iter_0000001")
    ckpt("ckpt-verify", "compare", source, tmp_path / "out")
