"""ckpt-inspect --for: every rule about a loader, as a table: what is done, and who then says what.

The rules and where they were read stand in verify/loader_rules.c. scripts/vllm-mapping asks vLLM
itself, tests/interop/test_loaders_transformers.py transformers.
"""
import json
import math
import re
import struct

import pytest

from conftest import ROOT
from corrupt.files import Model, Tensor, bf16

LOADERS = ("vllm", "sglang", "transformers", "megatron")
MXFP8 = {"quantization_config": {"quant_method": "mxfp8", "weight_block_size": [1, 32],
                                 "activation_scheme": "dynamic"},
         "model_type": "other", "architectures": ["OtherForCausalLM"]}


# ---- what is done to a checkpoint ----

def convert(*options):
    return lambda ckpt, golden, out: ckpt("ckpt-convert", *options, golden, out)


def shard(*options):
    return lambda ckpt, golden, out: ckpt("ckpt-shard", *options, golden, out)


def edited(change, *options):
    """The checkpoint, converted with options, whose files were changed behind the tool's back."""
    def make(ckpt, golden, out):
        source = out.with_name("source")
        ckpt("ckpt-convert", *options, golden, source)
        model = Model(source)
        change(model)
        model.extras.pop("ckpt-manifest.json", None)
        model.write(out)
    return make


def without(*path):
    def change(model):
        at = model.config
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]
    return change


def with_member(value, *path):
    def change(model):
        at = model.config
        for key in path[:-1]:
            at = at.setdefault(key, {})
        at[path[-1]] = value
    return change


def free_scales(model):
    """Dense scales in F32 that are no powers of two."""
    for name in model.names():
        if name.endswith(".scale") and ".experts." not in name and \
                model[name].dtype == "F8_E8M0":
            count = len(model[name].data)
            model[name] = Tensor("F32", model[name].shape, struct.pack("<f", 3e-4) * count)


def one_plain_wo_a(model):
    name = "layers.1.attn.wo_a.weight"
    model[name] = bf16(model[name].shape)
    del model["layers.1.attn.wo_a.scale"]
    model.config["quantization_config"]["modules_to_not_convert"] = [
        "layers.1.attn.wo_a", "layers.1.self_attn.wo_a"]


def mxfp8_everywhere(ckpt, golden, out):
    """DeepSeek-V4 in MXFP8, wo_a too, which --quantize does not make."""
    ckpt("ckpt-convert", "--dtype", "bf16", golden, out.with_name("plain"))
    ckpt("ckpt-convert", "--quantize", "mxfp8", "--wo-a", "bf16", out.with_name("plain"),
         out.with_name("mxfp8"))
    model = Model(out.with_name("mxfp8"))
    model.extras.clear()
    for name in [n for n in model.names() if n.endswith(".wo_a.weight")]:
        rows, columns = model[name].shape
        model[name] = Tensor("F8_E4M3", [rows, columns], bytes(rows * columns))
        model[name.replace(".weight", ".scale")] = Tensor("U8", [rows, columns // 32],
                                                          b"\x7f" * (rows * columns // 32))
    del model.config[QUANT]["modules_to_not_convert"]
    model.write(out)


def generic(config, tensors):
    def make(ckpt, golden, out):
        model = Model()
        model.config = config
        model.files["model.safetensors"] = tensors
        model.write(out)
    return make


def one_file(ckpt, golden, out):
    """A single file, and the only one of the test that is no folder."""
    source = sorted(golden.glob("*.safetensors"))[0]
    out.write_bytes(source.read_bytes())


def mxfp8(scale):
    return generic(MXFP8, {"model.q_proj.weight": Tensor("F8_E4M3", [32, 64], bytes(2048)),
                           "model.q_proj.weight_scale_inv": Tensor(scale, [32, 2],
                                                                   b"\x7f" * 64)})


def as_fp4(model):
    """Of weights that are no experts."""
    for name in [n for n in model.names() if n.endswith("attn.wkv.weight")]:
        rows, cols = model[name].shape
        model[name] = Tensor("I8", [rows, cols // 2], bytes(rows * cols // 2))
        model[name.replace(".weight", ".scale")] = Tensor("F8_E8M0", [rows, cols // 32],
                                                          b"\x7f" * (rows * cols // 32))


FP4_TENSORS = {"model.q_proj.weight": Tensor("I8", [32, 32], bytes(1024)),
               "model.q_proj.weight_scale_inv": Tensor("F8_E8M0", [32, 2], b"\x7f" * 64)}


def wrong_grid(shape):
    """FP8 in blocks of 128 x 128, whose scales are of other blocks."""
    config = {"model_type": "x", "architectures": ["X"], QUANT: STALE}
    return generic(config, {
        "model.q_proj.weight": Tensor("F8_E4M3", [256, 256], bytes(65536)),
        "model.q_proj.weight_scale_inv": Tensor("F32", shape, struct.pack("<f", 1) *
                                                shape[0] * shape[1])})


def nvfp4(*dropped, scales=(), blocks="layers|mtp", **told):
    """Routed experts as Model-Optimizer writes them: the same codes under two levels of scales.
    `scales`: those that are others, by name."""
    def change(model):
        for name in model.names():
            weight = model[name]
            if not re.match(rf"({blocks})\..*\.experts\..*\.weight$", name):
                continue
            rows, cols = weight.shape
            stem = name.removesuffix(".weight")
            model[name] = Tensor("U8", weight.shape, weight.data)
            del model[stem + ".scale"]
            model[stem + ".weight_scale"] = Tensor("F8_E4M3", [rows, cols // 8],
                                                   b"\x38" * (rows * cols // 8))
            for ending, value in (".weight_scale_2", 1 / 64), (".input_scale", 1.0):
                if ending not in dropped:
                    model[stem + ending] = Tensor("F32", [], struct.pack("<f", value))
        for name, value in dict(scales).items():
            model[name] = Tensor("F32", [], struct.pack("<f", value))
        model.config[QUANT].update({"moe_quant_algo": "NVFP4", "quant_algo": "MIXED_PRECISION",
                                    "group_size": 16} | told)
        model.config[QUANT] = {k: v for k, v in model.config[QUANT].items() if v is not None}
    return edited(change)


BF16 = ("--dtype", "bf16")
FP8 = ("--experts", "fp8")
QUANT = "quantization_config"
EXPERT = "layers.1.ffn.experts.3."
WHOLE = {"vllm": "whole-scales", "sglang": "whole-scales", "transformers": "nvfp4"}
STALE = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
# name: how it is made; for each loader the rules that speak against it, and notes in brackets.
TABLE = {
    "official": (convert(), {"megatron": "layout dtype"}),
    "fp8": (convert(*FP8), {"megatron": "layout dtype"}),
    "fp8-e8m0": (convert(*FP8, "--scale-dtype", "e8m0"),
                 {"vllm": "scales", "megatron": "layout dtype"}),
    "bf16": (convert(*BF16), {"sglang": "(bf16-experts)", "megatron": "layout"}),
    "bf16-experts": (convert("--experts", "bf16"),
                     {"sglang": "(bf16-experts)", "megatron": "layout dtype"}),
    # ---- expert_dtype ----
    "fp4, told nothing": (edited(without("expert_dtype")), {"transformers": "experts"}),
    "fp8, told nothing": (edited(without("expert_dtype"), *FP8), {"vllm": "experts"}),
    "fp4, told fp8": (edited(with_member("fp8", "expert_dtype")),
                      {"vllm": "experts scales", "transformers": "experts"}),
    "fp8, told fp4": (edited(with_member("fp4", "expert_dtype"), *FP8),
                      {"vllm": "experts", "transformers": "experts"}),
    "fp4, told inside": (edited(lambda m: (without("expert_dtype")(m),
                                           with_member("fp4", QUANT, "expert_dtype")(m))), {}),
    # ---- quantization_config ----
    "no quantization_config": (edited(without(QUANT)), dict.fromkeys(
        LOADERS[:3], "quantization-config")),
    "stale quantization_config": (edited(with_member(STALE, QUANT), *BF16), dict.fromkeys(
        LOADERS[:3], "stale-quantization-config") | {
            "sglang": "stale-quantization-config (bf16-experts)"}),
    "other method": (edited(with_member("gguf", QUANT, "quant_method")), dict.fromkeys(
        LOADERS[:3], "(not-judged) (family)")),
    "no method": (edited(without(QUANT, "quant_method")), dict.fromkeys(
        LOADERS[:3], "quant-method")),
    "no activation_scheme": (edited(without(QUANT, "activation_scheme")),
                             {"vllm": "activation-scheme", "sglang": "activation-scheme"}),
    "static activation_scheme": (edited(with_member("static", QUANT, "activation_scheme")),
                                 dict.fromkeys(LOADERS[:3], "activation-scheme")),
    "no block": (edited(without(QUANT, "weight_block_size")), {"vllm": "block",
                                                               "sglang": "block"}),
    # ---- lists of modules ----
    "unlisted": (edited(without(QUANT, "modules_to_not_convert"), "--experts", "bf16"),
                 dict.fromkeys(LOADERS[:3], "plain-modules") | {
                     "sglang": "plain-modules (bf16-experts)"}),
    "listed": (edited(with_member(["layers.2.attn.wq_b"], QUANT, "modules_to_not_convert")),
               dict.fromkeys(LOADERS[:3], "listed-modules")),
    "listed above": (edited(with_member(["model.layers.2.attn"], QUANT, "ignored_layers")),
                     dict.fromkeys(LOADERS[:3], "listed-modules")),
    "others listed": (edited(with_member(["lm_head", "layers.2.att"], QUANT, "ignored_layers")),
                      {}),
    # ---- names ----
    "sglang names": (convert(*BF16, "--names", "sglang"),
                     {"vllm": "names", "sglang": "(bf16-experts)", "transformers": "names"}),
    "sglang names, fp8": (convert("--names", "sglang", "--force-names"),
                          {"vllm": "names", "sglang": "wo-a-name", "transformers": "names"}),
    "transformers names": (convert(*BF16, "--names", "transformers"),
                           {"vllm": "names", "sglang": "names (bf16-experts)"}),
    "one plain wo_a": (edited(one_plain_wo_a), {"sglang": "wo-a"}),
    "mxfp8 wo_a": (mxfp8_everywhere, {"vllm": "quant-method", "sglang": "wo-a-block",
                                      "transformers": "quant-method"}),
    # ---- scales ----
    "free dense scales": (edited(free_scales), {"vllm": "scales", "transformers": "scales"}),
    "mxfp8, u8": (mxfp8("U8"), {"vllm": "quant-method (family)", "sglang": "(family)",
                                "transformers": "quant-method (family)"}),
    "mxfp8, e8m0": (mxfp8("F8_E8M0"),
                    {"vllm": "quant-method (family)", "sglang": "mxfp8-scales (family)",
                     "transformers": "quant-method (family)"}),
    # ---- NVFP4 experts ----
    "nvfp4": (nvfp4(), {"transformers": "nvfp4"}),
    "nvfp4, but not of next-token blocks": (nvfp4(blocks="layers"), {"vllm": "(fp4-drafter)",
                                                                     "transformers": "nvfp4"}),
    "nvfp4 without input scales": (nvfp4(".input_scale"), {
        "vllm": "input-scale", "sglang": "input-scale", "transformers": "nvfp4"}),
    "nvfp4, not mixed": (nvfp4(quant_algo=None), {"sglang": "nvfp4", "transformers": "nvfp4"}),
    "nvfp4, an input scale of 0": (nvfp4(scales={EXPERT + "w2.input_scale": 0.0}), WHOLE),
    "nvfp4, an input scale of NaN": (nvfp4(scales={EXPERT + "w1.input_scale": math.nan}), WHOLE),
    "nvfp4, a scale below 0": (nvfp4(scales={EXPERT + "w2.weight_scale_2": -1.0}), WHOLE),
    "nvfp4, a pair with two scales": (nvfp4(scales={EXPERT + "w3.weight_scale_2": 1 / 32}), WHOLE),
    # ---- forms that are not read ----
    "fp4 outside of experts": (edited(as_fp4), dict.fromkeys(LOADERS[:3], "fp4-alone") |
                               {"megatron": "layout dtype"}),
    "fp4 of another model": (generic({"model_type": "x", "architectures": ["X"], QUANT: STALE},
                                     FP4_TENSORS), dict.fromkeys(LOADERS[:3], "fp4 (family)")),
    "a grid of other blocks": (wrong_grid([3, 3]), dict.fromkeys(LOADERS[:3],
                                                                 "unfit-scales (family)")),
    # ---- folders ----
    "mp": (shard("--layout", "mp", "--mp", "1"), dict.fromkeys(LOADERS[:3], "layout")),
    "torch_dist": (shard("--layout", "torch_dist"),
                   dict.fromkeys(LOADERS[:3], "layout") | {"sglang": "layout (bf16-experts)",
                                                           "megatron": ""}),
    "one file": (one_file, None),
    "no config": (generic(None, {"x": bf16([2, 2])}),
                  dict.fromkeys(LOADERS[:3], "config (family)") | {"megatron": "layout (family)"}),
    "no architectures": (edited(without("architectures")),
                         {"vllm": "architectures", "sglang": "architectures"}),
    "no model_type": (generic({"architectures": ["X"]}, {"x": bf16([2, 2])}),
                      {"vllm": "model-type (family)", "sglang": "(family)",
                       "transformers": "model-type (family)"}),
    "a method that is not judged": (
        generic({"model_type": "x", "architectures": ["X"], QUANT: {
            "quant_method": "compressed-tensors"}}, {
                "a.weight_packed": Tensor("U8", [4, 8], bytes(32)),
                "a.weight": Tensor("F8_E4M3", [4, 8], bytes(32))}),
        dict.fromkeys(LOADERS[:3], "(not-judged) (family)")),
}
seen = set()


@pytest.fixture(scope="module", params=TABLE)
def made(request, ckpt, golden_a, tmp_path_factory):
    out = tmp_path_factory.mktemp("for") / "out"
    make, says = TABLE[request.param]
    if make is one_file:
        out = out.with_name("model-00001-of-00005.safetensors")
    make(ckpt, golden_a, out)
    return out, says


def rules(doc):
    return " ".join([r["rule"] for r in doc["reasons"]] +
                    [f"({r['rule']})" for r in doc["notes"]])


@pytest.mark.parametrize("loader", LOADERS)
def test_rules_hold_where_they_should(ckpt, made, loader):
    path, says = made
    if says is None:                                   # one file of several
        doc = ckpt("ckpt-inspect", "--json", "--for", loader, path, check=1).json
        assert {"layout", "one-file"} <= {r["rule"] for r in doc["reasons"]}
        seen.update(r["rule"] for r in doc["reasons"])
        return
    if loader == "megatron" and loader not in says:
        return                                         # layout, and the rest as in other rows
    expected = says.get(loader, "")
    loads = not re.sub(r"\([^)]*\)", "", expected).strip()
    doc = ckpt("ckpt-inspect", "--json", "--for", loader, path, check=0 if loads else 1).json
    assert rules(doc) == expected
    assert doc["for"] == loader and doc["loads"] == loads and doc["version"]
    assert all(r["text"] and (r["source"] or r["rule"] in (
        "layout", "one-file", "config", "family", "not-judged")) for r in
        doc["reasons"] + doc["notes"])
    seen.update(r["rule"] for r in doc["reasons"] + doc["notes"])


def test_every_rule_of_the_table_has_a_row():
    source = (ROOT / "verify" / "loader_rules.c").read_text()
    names = set(re.findall(r'^    \{ "([a-z0-9-]+)", ', source, re.M))
    tested = {r.strip("()") for _, says in TABLE.values() for text in (says or {}).values()
              for r in text.split()} | {"one-file"}
    assert names == tested


def test_the_text_says_why_and_where_it_was_read(ckpt, golden_a, tmp_path):
    TABLE["fp8-e8m0"][0](ckpt, golden_a, tmp_path / "out")
    out = ckpt("ckpt-inspect", "--for", "vllm", tmp_path / "out", check=1).out
    assert "vllm will NOT load it" in out and "vLLM 0.33" in out
    assert "--scale-dtype f32" in out and "quant_config.py#is_scale_e8m0" in out
    assert "vllm will load it" in ckpt("ckpt-inspect", "--for", "vllm", golden_a).out


def notes(ckpt, path):
    return json.loads(ckpt("ckpt-inspect", "--json", "--summary", path).out)["notes"]


def test_inspect_notes_where_config_and_files_disagree(ckpt, golden_a, tmp_path):
    assert notes(ckpt, golden_a) == []
    for i, (row, words) in enumerate({
            "fp4, told fp8": "says expert_dtype fp8, but", "listed": "lists their modules as plain",
            "stale quantization_config": "no weight is quantised",
            "no quantization_config": "has no quantization_config"}.items()):
        folder = tmp_path / str(i)
        folder.mkdir()
        TABLE[row][0](ckpt, golden_a, folder / "out")
        assert any(words in n for n in notes(ckpt, folder / "out")), row


@pytest.mark.parametrize("options", [["--for", "tgi"], ["--for", "vllm", "--stat"],
                                     ["--for", "vllm", "--tensors", "x"]])
def test_bad_options_are_refused(ckpt, golden_a, options):
    ckpt("ckpt-inspect", *options, golden_a, check=2)


@pytest.mark.parametrize("tool", ["ckpt-convert", "ckpt-shard"])
def test_help_says_what_readers_of_bf16_experts_need(ckpt, tool):
    words = " ".join(ckpt(tool, "--help").out.split())
    assert "SGLANG_DSV4_FP4_EXPERTS=0" in words and "llama.cpp's converter reads FP4" in words
