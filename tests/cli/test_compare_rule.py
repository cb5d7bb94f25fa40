"""ckpt-verify compare --up-to-rule: exports of others, held against a named rule."""
import json
import struct

import numpy as np
import pytest

from conftest import DATA
from corrupt.files import Model, Tensor, read_file
from interop.numpy_codes import e2m1, e4m3

GOLDEN = DATA / "quantise"
FP4, FP8 = "m.experts.0.up.weight", "m.o_proj.weight"
BLOCKS = {"quant_method": "fp8", "weight_block_size": [128, 128]}
# rule: name of the weight, dtypes of codes and scales, name of the scale, quantization_config.
FORMS = {
    "fp8-b128-f32": (FP8, "F8_E4M3", "F32", "_scale_inv", BLOCKS),
    "fp8-b128-f32-deepseek": (FP8, "F8_E4M3", "F32", "_scale_inv", BLOCKS),
    "fp8-b128-ue8m0": (FP8, "F8_E4M3", "F8_E8M0", "_scale_inv", BLOCKS),
    "fp8-channel": (FP8, "F8_E4M3", "F32", "_scale", {"quant_method": "fp8"}),
    "mxfp8-rceil": (FP8, "F8_E4M3", "U8", "_scale_inv", {"quant_method": "mxfp8"}),
    "mxfp8-floor": (FP8, "F8_E4M3", "U8", "_scale_inv", {"quant_method": "mxfp8"}),
    "fp4-b32-deepseek": (FP4, "I8", "F8_E8M0", "_scale_inv", BLOCKS),
    "fp4-b32-floor": (FP4, "I8", "F8_E8M0", "_scale_inv", BLOCKS),
    "fp4-b32-even": (FP4, "I8", "F8_E8M0", "_scale_inv", BLOCKS),
}


def golden(file):
    return read_file(GOLDEN / file)[0]


def plain(path, name, tensor, more=None):
    model = Model()
    model.files["model.safetensors"] = {name: tensor, **(more or {})}
    return model.write(path)


def quantised(path, rule, codes, scales, more=None):
    """codes: bytes [rows, ...]; scales of the rule's own shape."""
    name, dtype, scale_dtype, ending, config = FORMS[rule]
    scale = Tensor(scale_dtype, scales.shape, scales.data)
    model = Model()
    model.config = {"quantization_config": config}
    model.files["model.safetensors"] = {name: Tensor(dtype, codes.shape, codes.data),
                                        name + ending: scale, **(more or {})}
    return model.write(path)


def pair(folder, rule, source="normal", more=None):
    vectors = golden("vectors.safetensors")
    plain(folder / "a", FORMS[rule][0], golden("inputs.safetensors")[source], more)
    quantised(folder / "b", rule, vectors[f"{rule}/{source}/codes"],
              vectors[f"{rule}/{source}/scale"], more)
    return folder


def compare(ckpt, folder, *rules, check, **how):
    options = [w for r in rules for w in ("--up-to-rule", r)]
    return ckpt("ckpt-verify", "compare", "--json", *options, folder / "a", folder / "b",
                check=check, **how).json


@pytest.mark.parametrize("rule", FORMS)
def test_a_file_made_by_its_rule_is_right(ckpt, tmp_path, rule):
    pair(tmp_path, rule, "edge" if rule == "mxfp8-floor" else "normal")
    doc = compare(ckpt, tmp_path, rule, check=0)
    assert doc["same"] and doc["by_rule"]["tensor_count"] == 1
    assert doc["by_rule"]["made"] > 0 and doc["by_rule"]["wrong"] == 0
    assert not compare(ckpt, tmp_path, check=1)["same"]          # as values it differs
    assert compare(ckpt, tmp_path, rule, check=0, env={"CKPT_KERNELS": "scalar"}) == doc


@pytest.mark.parametrize("made,asked", [
    ("fp8-b128-f32", "fp8-b128-f32-deepseek"), ("fp8-b128-f32-deepseek", "fp8-b128-f32"),
    ("mxfp8-rceil", "mxfp8-floor"), ("fp4-b32-deepseek", "fp4-b32-floor"),
    ("fp4-b32-floor", "fp4-b32-even"), ("fp4-b32-even", "fp4-b32-deepseek")])
def test_a_file_made_by_another_rule_is_not(ckpt, tmp_path, made, asked):
    pair(tmp_path, made)
    doc = compare(ckpt, tmp_path, asked, check=1)
    assert doc["by_rule"]["wrong"] > 0 and not doc["same"]
    assert doc["differing"][0]["kind"] == "values"


def test_a_value_that_is_equal_is_told_as_such(ckpt, tmp_path):
    """1 by half the code and twice the scale, in a block where something else was rounded."""
    x = struct.pack("<2H", 0x3F80, 0x3F81) + bytes(2 * (128 * 128 - 2))
    plain(tmp_path / "a", FP8, Tensor("BF16", [128, 128], x))
    quantised(tmp_path / "b", "fp8-b128-ue8m0",
              Tensor("F8_E4M3", [128, 128], b"\x70\x70" + bytes(128 * 128 - 2)),
              Tensor("F8_E8M0", [1, 1], b"\x78"))
    run = "ckpt-verify", "compare", "--up-to-rule"
    out = ckpt(*run, "fp8-ue8m0", tmp_path / "a", tmp_path / "b", check=1).out
    assert "row 0 column 0: 1 in both, by another code or scale than the rule's; 16384 of" in out
    err = ckpt(*run, "v4-release", tmp_path / "a", tmp_path / "b", check=2).err
    assert "'v4-release': expected a rule, not those of a release" in err


# ---- a scale of the whole tensor ----

def nvfp4(path, vectors, names, whole=None):
    """Tensors of these names, all with the same bytes; `whole`: another scale of the tensor."""
    model = Model()
    model.config = {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}
    codes, scales, scale2 = (vectors[f"nvfp4-modelopt/normal/{x}"]
                             for x in ("codes", "scale", "scale2"))
    model.files["model.safetensors"] = {}
    for name in names:
        model.files["model.safetensors"] |= {
            name: Tensor("U8", codes.shape, codes.data),
            name + "_scale": Tensor("F8_E4M3", scales.shape, scales.data),
            name + "_scale_2": scale2 if whole is None else Tensor("F32", [], whole)}
    return model.write(path)


def test_nvfp4_is_right_with_the_scale_of_its_tensor(ckpt, tmp_path):
    plain(tmp_path / "a", FP8, golden("inputs.safetensors")["normal"])
    nvfp4(tmp_path / "b", golden("vectors.safetensors"), [FP8])
    doc = compare(ckpt, tmp_path, "nvfp4", check=0)
    assert doc["by_rule"] == {"tensor_count": 1, "made": 1320, "kept": 0, "wrong": 0}
    (tmp_path / "other").mkdir()
    plain(tmp_path / "other" / "a", FP8, golden("inputs.safetensors")["normal"])
    nvfp4(tmp_path / "other" / "b", golden("vectors.safetensors"), [FP8],
          struct.pack("<f", 0.001))
    assert compare(ckpt, tmp_path / "other", "nvfp4", check=1)["by_rule"]["wrong"] == 1320


def nearest(values, table):
    """Codes of the nearest entries of an ascending table, ties to the even code."""
    table = table.astype(np.float64)
    above = np.clip(np.searchsorted(table, values), 1, len(table) - 1)
    low, high = values - table[above - 1], table[above] - values
    return np.where((low < high) | ((low == high) & (above % 2 == 1)), above - 1, above)


def quantise(values, whole):
    """The rule nvfp4-modelopt under a given scale of the tensor: packed codes, scales."""
    blocks = values.reshape(values.shape[0], -1, 16).astype(np.float32)
    whole = np.float32(whole)
    amax = np.abs(blocks).max(2)
    scales = nearest(np.clip(amax / (np.float32(6) * whole), 2 ** -9, 448).astype(float),
                     e4m3(np.arange(127)))
    divisor = (e4m3(scales).astype(np.float32) * whole)[..., None]
    quotient = (blocks / divisor).astype(np.float64)
    codes = nearest(np.minimum(np.abs(quotient), 6), e2m1(np.arange(8)))
    codes = (codes | (quotient < 0) << 3).reshape(values.shape)
    return (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8), scales.astype(np.uint8)


def test_fused_tensors_share_the_larger_scale(ckpt, tmp_path):
    """w1 is smaller than w3: quantised under the scale of w3 both are right, alone w1 is not."""
    large = golden("inputs.safetensors")["normal"]
    codes = np.frombuffer(large.data, "<u2").reshape(large.shape)
    small = codes - 0x100 * (codes & 0x7F80 > 0x100).astype("<u2")     # quarters
    values = (small.astype(np.uint32) << 16).view(np.float32)
    whole = golden("vectors.safetensors")["nvfp4-modelopt/normal/scale2"]
    packed, scales = quantise(values, np.frombuffer(whole.data, "<f4")[0])
    made = {"nvfp4-modelopt/normal/codes": Tensor("U8", packed.shape, packed.tobytes()),
            "nvfp4-modelopt/normal/scale": Tensor("U8", scales.shape, scales.tobytes()),
            "nvfp4-modelopt/normal/scale2": whole}
    w1, w3 = "m.experts.0.w1.weight", "m.experts.0.w3.weight"
    small = Tensor("BF16", large.shape, small.tobytes())
    for folder, a, more in ("alone", small, {}), ("both", small, {w3: large}):
        (tmp_path / folder).mkdir()
        plain(tmp_path / folder / "a", w1, a, more)
        one = Model(nvfp4(tmp_path / folder / "w1", made, [w1]))
        two = Model(nvfp4(tmp_path / folder / "w3", golden("vectors.safetensors"), [w3]))
        if more:
            one.files["model.safetensors"] |= two.files["model.safetensors"]
        one.write(tmp_path / folder / "b")
    doc = compare(ckpt, tmp_path / "both", "nvfp4", check=0)
    assert doc["by_rule"]["tensor_count"] == 2 and doc["by_rule"]["wrong"] == 0
    doc = compare(ckpt, tmp_path / "alone", "nvfp4", check=1)
    assert doc["by_rule"]["wrong"] > 1000


# ---- what is found ----

def test_one_changed_code_is_found(ckpt, tmp_path):
    rule = "fp8-b128-ue8m0"
    pair(tmp_path, rule)
    vectors = golden("vectors.safetensors")
    codes = vectors[f"{rule}/normal/codes"]
    changed = codes.changed(130 * 160 + 77, lambda byte: byte ^ 1)
    (tmp_path / "c").mkdir()
    plain(tmp_path / "c" / "a", FP8, golden("inputs.safetensors")["normal"])
    quantised(tmp_path / "c" / "b", rule, changed, vectors[f"{rule}/normal/scale"])
    doc = compare(ckpt, tmp_path / "c", rule, check=1)
    d = doc["first_difference"]
    assert (d["row"], d["col"], d["count"]) == (130, 77, 1)
    assert doc["by_rule"] == {"tensor_count": 1, "made": 3, "kept": 0, "wrong": 1}


@pytest.mark.parametrize("rule", ["fp8-b128-ue8m0", "fp4-b32-deepseek"])
def test_kept_blocks_are_right_and_only_those_with_equal_values(ckpt, tmp_path, rule):
    like = golden("like.safetensors")
    kind = rule[:3]
    plain(tmp_path / "a", FORMS[rule][0], like[f"{kind}/trained"])
    for name in "expect", "plain":
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").symlink_to(tmp_path / "a")
        quantised(tmp_path / name / "b", rule, like[f"{kind}/{name}.codes"],
                  like[f"{kind}/{name}.scale"])
    blocks = compare(ckpt, tmp_path / "expect", rule, check=0)["by_rule"]
    assert blocks["kept"] >= {"fp8": 1, "fp4": 14}[kind] and blocks["made"] > 0
    assert compare(ckpt, tmp_path / "plain", rule, check=0)["by_rule"]["wrong"] == 0


def test_plain_tensors_must_be_equal(ckpt, tmp_path):
    norm = Tensor("F32", [4], np.arange(4, dtype="<f4").tobytes())
    pair(tmp_path, "fp8-b128-ue8m0", more={"norm": norm})
    assert compare(ckpt, tmp_path, "fp8-b128-ue8m0", check=0)["compared"] == 2
    other = tmp_path / "other"
    other.mkdir()
    pair(other, "fp8-b128-ue8m0", more={"norm": norm})
    (other / "a").rename(other / "x")
    plain(other / "a", FP8, golden("inputs.safetensors")["normal"],
          {"norm": norm.changed(0, 9)})
    doc = compare(ckpt, other, "fp8-b128-ue8m0", check=1)
    assert [d["name"] for d in doc["differing"]] == ["norm"]


def test_statistics_and_the_rule_go_together(ckpt, tmp_path):
    pair(tmp_path, "fp4-b32-deepseek")
    doc = ckpt("ckpt-verify", "compare", "--json", "--stat", "--up-to-rule", "fp4", tmp_path / "a",
               tmp_path / "b").json
    assert doc["same"] and 0.11 < doc["tensors"][0]["relative_error"] < 0.15


def test_values_that_no_rule_takes_are_named(ckpt, tmp_path):
    rule = "fp8-b128-ue8m0"
    source = golden("inputs.safetensors")["nonfinite"]
    plain(tmp_path / "a", FP8, source)
    quantised(tmp_path / "b", rule, Tensor("", [4, 256], bytes(1024)),
              Tensor("", [1, 2], b"\x7f\x7f"))
    err = ckpt("ckpt-verify", "compare", "--up-to-rule", rule, tmp_path / "a", tmp_path / "b",
               check=2).err
    assert "row 0" in err and rule in err


@pytest.mark.parametrize("options,word", [
    (["--up-to-rule", "fp8-b128-u8m0"], "fp8-b128-ue8m0"),
    (["--up-to-rule", "nvfp4-cast"], "changes no value"),
    (["--up-to-rule", "fp4"], "no tensor"),
    (["--up-to-rule", "fp8-ue8m0", "--bits"], "--bits")])
def test_rules_that_cannot_be_checked_are_refused(ckpt, tmp_path, options, word):
    pair(tmp_path, "fp8-b128-ue8m0")
    err = ckpt("ckpt-verify", "compare", *options, tmp_path / "a", tmp_path / "b", check=2).err
    assert word in err


def test_rows_that_a_rule_does_not_make_are_compared_by_value(ckpt, tmp_path):
    """Files may end a row of MXFP8 with a part of a group; no rule makes such a row."""
    one, two = b"\x80\x3f", b"\x00\x40"
    whole, scale = "m.q_proj.weight", Tensor("U8", [4, 2], b"\x77" * 8)
    part = (Tensor("", [4, 40], b"\x78" * 160), scale)
    beside = {whole: Tensor("F8_E4M3", [4, 64], b"\x78" * 256), whole + "_scale_inv": scale}
    more = {whole: Tensor("BF16", [4, 64], one * 256)}
    for name, rest in ("alone", [{}, {}]), ("same", [more, beside]), ("other", [more, beside]):
        (tmp_path / name).mkdir()
        last = two if name == "other" else one
        plain(tmp_path / name / "a", FP8, Tensor("BF16", [4, 40], one * 159 + last), rest[0])
        quantised(tmp_path / name / "b", "mxfp8-rceil", *part, rest[1])
    err = ckpt("ckpt-verify", "compare", "--up-to-rule", "mxfp8", tmp_path / "alone/a",
               tmp_path / "alone/b", check=2).err
    assert "no tensor that is compared" in err
    for name, differing in ("same", []), ("other", [FP8]):
        doc = compare(ckpt, tmp_path / name, "mxfp8", check=len(differing))
        assert doc["by_rule"]["tensor_count"] == 1 and doc["by_rule"]["wrong"] == 0
        assert [d["name"] for d in doc["differing"]] == differing


def test_our_own_export_is_by_its_rules(ckpt, golden_a, tmp_path):
    """FP8 and FP4 in one release: two rules, and blocks that are as they were."""
    ckpt("ckpt-convert", "--dtype", "bf16", golden_a, tmp_path / "a")
    doc = json.loads(ckpt("ckpt-verify", "compare", "--json", "--up-to-rule", "fp4",
                          "--up-to-rule", "fp8-ue8m0", tmp_path / "a", golden_a).out)
    assert doc["by_rule"]["tensor_count"] == doc["other_encodings"]
    assert doc["by_rule"]["wrong"] == 0


def test_a_rule_that_makes_no_tensor_of_b_is_told_beside_one_that_does(ckpt, tmp_path):
    folder = pair(tmp_path, "fp8-b128-ue8m0")
    compare(ckpt, folder, "fp8-b128-ue8m0", check=0)
    said = ckpt("ckpt-verify", "compare", "--up-to-rule", "fp8-b128-ue8m0", "--up-to-rule",
                "fp4-b32-floor", folder / "a", folder / "b", check=2)
    assert "'fp4-b32-floor' makes" in said.err
