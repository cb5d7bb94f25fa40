"""ckpt-run against transformers and against what DeepSeek's own code computed."""
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from interop import live_model

MAX_ABS = 1e-4
MEAN_KL = 1e-9
# Mean KL between DeepSeek's semantics on a GPU and on a CPU: what rounding alone does.
NOISE = {"golden-a": 8.0e-3, "golden-b": 1.6e-4}
GAP = 1e-5          # scores closer than this at a top-k cut: F32 rounding may choose
DRAWS = 20


def run(ckpt, model, tokens, out, *options):
    ckpt("ckpt-run", "--tokens", tokens, "--out", out, "--quiet", *options, model)
    return load_file(out)


@pytest.fixture(scope="module")
def oracle(data, golden):
    return load_file(data / f"{golden.name}.safetensors")


@pytest.fixture(scope="module")
def exact(ckpt, data, golden, oracle, tmp_path_factory):
    """Logits and trace of the exact profile."""
    folder = tmp_path_factory.mktemp("exact")
    positions = ",".join(map(str, oracle["hidden_positions"].tolist()))
    result = run(ckpt, golden, data / f"{golden.name}.safetensors", folder / "out",
                 "--numerics", "exact", "--trace", folder / "trace", "--trace-positions",
                 positions)
    lines = [json.loads(line) for line in (folder / "trace").read_text().splitlines()]
    return result, lines


@pytest.mark.parametrize("key", ["logits_exact", "logits_transformers_fp32"])
def test_exact_logits_are_those_of_both_codes(exact, oracle, key):
    ours = exact[0]["logits"]
    assert ours.shape == oracle[key].shape
    assert (ours - oracle[key]).abs().max() <= MAX_ABS
    assert live_model.kl(oracle[key], ours) <= MEAN_KL


def test_exact_hidden_states_are_those_of_deepseek_after_every_layer(exact, oracle):
    positions = oracle["hidden_positions"].tolist()
    layers = sorted(k for k in oracle if k.startswith("hidden_exact.layer"))
    states = {line["layer"]: line for line in exact[1] if line["point"] == "x"}
    assert layers and len(layers) == len(states)
    for i in range(len(layers)):
        ours = torch.tensor([states[i]["values"][str(p)] for p in positions])
        theirs = oracle[f"hidden_exact.layer{i}"].reshape(len(positions), -1)
        assert (ours - theirs).abs().max() <= MAX_ABS, i


def test_deploy_differs_from_deepseek_no_more_than_machines_do(ckpt, data, golden, oracle,
                                                               tmp_path):
    ours = run(ckpt, golden, data / f"{golden.name}.safetensors", tmp_path / "out")["logits"]
    distance = live_model.kl(oracle["logits_deploy"], ours)
    print(f"{golden.name}: mean KL to DeepSeek's deployed semantics {distance:.2e}")
    assert distance <= 1.5 * NOISE[golden.name]


def smallest_gap(trace):
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    return min((line["gap"] for line in lines if "gap" in line), default=1.0)


def draw(ckpt, folder, seed):
    """A model whose cuts are clear; prints how many draws it took."""
    for attempt in range(10):
        place = folder / f"model-{attempt}"
        config, tensors, tokens = live_model.write_model(place, 1000 * seed + attempt)
        save_file({"tokens": tokens}, folder / "tokens")
        ours = run(ckpt, place, folder / "tokens", folder / "out", "--numerics", "exact",
                   "--mtp", "--trace", folder / "trace")
        if smallest_gap(folder / "trace") >= GAP:
            print(f"seed {seed}: draw {attempt + 1}, ratios {config['compress_ratios']}")
            return place, config, tensors, tokens, ours
    raise AssertionError("ten draws with near ties: the gap is computed wrongly")


def mtp_logits(folder, config, tensors, tokens, state):
    """The MTP block by transformers: a model of one layer, whose input is put in its place."""
    one = {**config, "num_hidden_layers": 1, "num_hash_layers": 0, "compress_ratios": [0, 0]}
    body = {name: tensors[name] for name in ("embed.weight", "head.weight")}
    for name, value in tensors.items():
        if name.startswith("mtp.0."):
            tail = name.removeprefix("mtp.0.")
            top = tail in ("norm.weight", "hc_head_fn", "hc_head_base", "hc_head_scale")
            body[tail if top else f"layers.0.{tail}"] = value
            body[name] = value
    extra = {k: body.pop(f"layers.0.{k}").float() for k in
             ("e_proj.weight", "h_proj.weight", "enorm.weight", "hnorm.weight")}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(one))
    save_file({k: v.clone() for k, v in body.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})

    def norm(x, weight):
        return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    embedding = tensors["embed.weight"].float()[tokens[1:]]
    e = norm(embedding, extra["enorm.weight"]) @ extra["e_proj.weight"].T
    h = norm(state[:, :-1], extra["hnorm.weight"]) @ extra["h_proj.weight"].T
    return folder, e[None, :, None] + h


def forward(ckpt, place, tokens, monkeypatch, hook):
    """transformers' logits; hook(model) may watch or change what goes through."""
    converted = place.with_name(place.name + "-tf")
    ckpt("ckpt-convert", "--names", "transformers", "--no-manifest", place, converted)
    model = live_model.load_transformers(converted)
    hook(model)
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "topk", live_model.stable_topk)
        patch.setattr(torch.Tensor, "topk", live_model.stable_topk)
        return model(tokens[None], use_cache=False).logits[0]


def check(ours, theirs):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= MAX_ABS
    assert live_model.kl(theirs, ours) <= MEAN_KL


@pytest.mark.parametrize("seed", range(DRAWS))
def test_random_models_give_the_logits_of_transformers(ckpt, tmp_path, monkeypatch, seed):
    place, config, tensors, tokens, ours = draw(ckpt, tmp_path, seed)
    seen = []

    def watch(model):
        model.model.layers[-1].register_forward_hook(lambda m, a, out: seen.append(
            out[0] if isinstance(out, tuple) else out))
    check(ours["logits"], forward(ckpt, place, tokens, monkeypatch, watch))
    folder, state = mtp_logits(tmp_path / "mtp", config, tensors, tokens, seen[0])

    def replace(model):
        model.model.layers[0].register_forward_pre_hook(
            lambda m, args, kwargs: ((state, *args[1:]), kwargs) if args else
            (args, {**kwargs, "hidden_states": state}), with_kwargs=True)
    check(ours["mtp_logits"], forward(ckpt, folder, tokens[1:], monkeypatch, replace))


def test_the_config_that_transformers_writes_says_the_same(ckpt, golden, tmp_path):
    from transformers import AutoConfig
    root = json.loads((golden / "config.json").read_text())
    old = {"compress_ratios", "num_hash_layers", "rope_scaling", "quantization_config"}
    AutoConfig.for_model(**{k: v for k, v in root.items() if k != "quantization_config"}) \
        .save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({k: v for k, v in written.items() if k not in old}))
    digests = [ckpt("ckpt-run", "--json", "--dry-run", "--tokens", "-", *more, golden,
                    input="1").json["config_digest"]
               for more in ([], ["--config", tmp_path / "config.json"])]
    assert digests[0] == digests[1]
