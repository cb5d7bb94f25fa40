"""transformers loads what we write: no missing, no unexpected key, the same parameters."""
import json
import re

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from corrupt.files import read_header  # noqa: E402
from interop.test_safetensors import load, same  # noqa: E402

if not hasattr(transformers, "DeepseekV4ForCausalLM"):
    pytest.skip("this transformers has no DeepseekV4ForCausalLM", allow_module_level=True)


@pytest.fixture(scope="module")
def cast(ckpt, golden, tmp_path_factory):
    """cast("native") -> the golden checkpoint in BF16 under these names."""
    folder = tmp_path_factory.mktemp("cast")

    def get(names):
        path = folder / names
        if not path.exists():
            ckpt("ckpt-convert", "--dtype", "bf16", "--names", names, golden, path)
        return path
    return get


def model_of(path, dtype=torch.float32):
    model, info = transformers.DeepseekV4ForCausalLM.from_pretrained(
        path, dtype=dtype, output_loading_info=True)
    return model, info


def left_over(info):
    """Keys that the library has no place for, apart from the MTP block that it ignores."""
    return [k for k in info["unexpected_keys"] if not re.search(r"(^|\.)mtp\.", k)]


@pytest.mark.parametrize("names", ["transformers", "native"])
def test_every_key_has_its_place(cast, names):
    _, info = model_of(cast(names))
    assert not info["missing_keys"] and not left_over(info)
    assert not info["mismatched_keys"] and not info.get("error_msgs")


def test_parameters_are_our_tensors(cast):
    """Names and packing are the library's own: every parameter equals the tensor of its name."""
    model, _ = model_of(cast("transformers"))
    ours = load(cast("transformers"))
    there = {n for n in ours if not n.startswith("mtp.")}
    state = model.state_dict()
    assert there == {n for n in state}
    for name in there:
        assert torch.equal(state[name].float(), ours[name].float()), name


def test_both_names_give_the_same_model(cast):
    """Our map against the library's conversion of native names: an independent reading."""
    ours, _ = model_of(cast("transformers"))
    theirs, _ = model_of(cast("native"))
    a, b = ours.state_dict(), theirs.state_dict()
    assert a.keys() == b.keys()
    for name, t in a.items():
        assert same(t, b[name]), name


def test_logits_are_the_golden_ones(cast, golden):
    """A whole prompt in F32, eager, on the CPU; ties at the index cut broken by a stable sort."""
    golden_file = load_golden(golden)
    config = transformers.AutoConfig.from_pretrained(cast("transformers"))
    model = transformers.DeepseekV4ForCausalLM.from_pretrained(
        cast("transformers"), config=config, dtype=torch.float32, attn_implementation="eager")
    tokens = golden_file["tokens"].long().reshape(1, -1)

    def topk(self, k, dim=-1, largest=True, sorted=True):
        values, indices = torch.sort(self, dim=dim, descending=largest, stable=True)
        return torch.return_types.topk((values.narrow(dim, 0, k), indices.narrow(dim, 0, k)))

    saved = torch.topk, torch.Tensor.topk
    torch.topk, torch.Tensor.topk = topk, topk
    try:
        with torch.no_grad():
            logits = model(tokens).logits[0].float()
    finally:
        torch.topk, torch.Tensor.topk = saved
    wanted = golden_file["logits_exact"].float()
    assert logits.shape == wanted.shape
    assert (logits - wanted).abs().max() < 1e-4


def load_golden(golden):
    from safetensors.torch import load_file
    return load_file(golden.parent / f"{golden.name}.safetensors")


def test_config_is_loaded_without_quantisation(cast):
    config = transformers.AutoConfig.from_pretrained(cast("transformers"))
    assert type(config).__name__ == "DeepseekV4Config"
    assert getattr(config, "quantization_config", None) is None
    text = json.loads((cast("transformers") / "config.json").read_text())
    assert "expert_dtype" not in text


def test_experts_are_stacked_gate_first(cast):
    """w1's rows, then w3's, experts in order of their numbers."""
    native, packed = load(cast("native")), load(cast("transformers"))
    name = "model.layers.1.mlp.experts.gate_up_proj"
    experts = packed[name].shape[0]
    wanted = torch.stack([torch.cat([native[f"layers.1.ffn.experts.{e}.w1.weight"],
                                     native[f"layers.1.ffn.experts.{e}.w3.weight"]])
                          for e in range(experts)])
    assert experts >= 8 and same(packed[name], wanted)


def test_f32_tensors_stay_f32(cast):
    for p in cast("transformers").glob("*.safetensors"):
        for name, h in read_header(p)[0].items():
            if re.search(r"\.sinks$|_hc\.|hc_head\.|position_bias$|correction_bias$", name):
                assert h["dtype"] == "F32", name


def test_what_transformers_saves_is_read(ckpt, cast, golden, digest, tmp_path):
    """Its own names and config.json, through its own loading and saving."""
    model, _ = model_of(cast("native"))
    model.save_pretrained(tmp_path / "saved")
    seen = ckpt("ckpt-inspect", "--json", tmp_path / "saved").json
    assert seen["family"] == "deepseek_v4" and seen["names"].startswith("transformers")
    assert digest(tmp_path / "saved", key="main") == digest(golden, key="main")


def test_what_it_saves_in_bf16_is_told_to_be_narrower(ckpt, cast, tmp_path):
    model, _ = model_of(cast("native"))
    model.to(torch.bfloat16).save_pretrained(tmp_path / "saved")
    notes = ckpt("ckpt-inspect", "--json", tmp_path / "saved").json["notes"]
    assert any("tensors are BF16, narrower than the F32" in n for n in notes)
