"""ckpt-verify check --values: faults of values that need no reference, each with its place."""
import struct

import numpy as np
import pytest

from corrupt.files import Model, Tensor, bf16

EXPERT = "layers.2.ffn.experts.3.w1.weight"
FP8 = "layers.1.attn.wq_b.weight"


def check(ckpt, path, status, *options, **how):
    doc = ckpt("ckpt-verify", "check", "--values", "--json", *options, path, check=status,
               **how).json
    return doc, {(f["kind"], f["name"]): f for f in doc["findings"]}


def test_a_release_has_no_findings(ckpt, golden):
    doc, found = check(ckpt, golden, 0)
    assert found == {} and doc["faults"] == 0 and doc["checked"] == "values alone"
    assert doc["values_checked"] == doc["tensor_count"]


@pytest.mark.parametrize("layout", [["ckpt-convert", "--dtype", "bf16", "--experts", "bf16"],
                                    ["ckpt-convert", "--dtype", "fp8"],
                                    ["ckpt-shard", "--layout", "mp", "--mp", "2"],
                                    ["ckpt-shard", "--layout", "torch_dist"]])
def test_conversions_have_no_findings(ckpt, golden_a, tmp_path, layout):
    ckpt(*layout, golden_a, tmp_path / "x")
    assert check(ckpt, tmp_path / "x", 0)[1] == {}


def test_every_fault_is_named_with_its_place(ckpt, golden_a, tmp_path):
    model = Model(golden_a)
    experts = model.config["n_routed_experts"]
    norm, ids = "layers.1.attn_norm.weight", "layers.0.ffn.gate.tid2eid"
    bias = "layers.2.ffn.gate.bias"
    model[norm] = model[norm].changed(7, 0x7F).changed(6, 0xC0)           # element 3: NaN
    model["head.weight"] = model["head.weight"].changed(2 * 256 * 5 + 9, 0x7F).changed(
        2 * 256 * 5 + 8, 0x80)                                            # row 5, column 4
    scale = EXPERT.replace(".weight", ".scale")
    cols = model[scale].shape[1]
    model[scale] = model[scale].changed(9 * cols + 2, 0xFF).changed(20 * cols + 1, 0)
    width = model[ids].shape[1]
    table = np.frombuffer(model[ids].data, "<i8").reshape(-1, width).copy()
    table[11, 1] = experts
    table[30, 2] = table[30, 0]
    model[ids] = Tensor("I64", model[ids].shape, table.tobytes())
    values = np.frombuffer(model[bias].data, "<f4")
    model[bias] = Tensor("BF16", model[bias].shape, (values.view("<u4") >> 16).astype("<u2")
                         .tobytes())
    for part in "weight", "scale":
        for w in "w1", "w2", "w3":
            model[f"layers.3.ffn.experts.9.{w}.{part}"] = \
                model[f"layers.3.ffn.experts.4.{w}.{part}"]
    gate = "layers.3.ffn.gate.weight"
    model[gate] = bf16(model[gate].shape, 0x8000)
    doc, found = check(ckpt, model.write(tmp_path / "m"), 1)
    assert found["nan", norm] | {"count": 1, "row": 0, "col": 3} == found["nan", norm]
    inf = found["infinity", "head.weight"]
    assert (inf["row"], inf["col"], inf["count"]) == (5, 4, 1)
    nan = found["scale_nan", EXPERT]
    assert (nan["row"], nan["col"], nan["count"]) == (9, 2, 1)
    zero = found["scale_zero", EXPERT]
    assert (zero["row"], zero["col"], zero["fault"]) == (20, 1, False)
    assert found["nan", EXPERT]["count"] == 32
    assert {k: found["id_range", ids][k] for k in ("row", "col", "number")} == {
        "row": 11, "col": 1, "number": experts}
    assert {k: found["id_repeated", ids][k] for k in ("row", "col")} == {"row": 30, "col": 2}
    assert (found["narrow_dtype", bias]["count"], found["narrow_dtype", bias]["number"]) == (8, 24)
    same = found["same_experts", "layers.3.ffn.experts.9.w2.weight"]
    assert same["other"] == "layers.3.ffn.experts.4.w2.weight"
    assert found["zero_tensor", gate]["count"] == np.prod(model[gate].shape)
    assert found["scale_spread", EXPERT]["number"] > 14
    assert doc["faults"] == 11 and doc["same"] is False
    out = ckpt("ckpt-verify", "check", "--values", tmp_path / "m", check=1).out
    assert "11 faults and 2 remarks on the values of 383 tensors" in out
    assert "first at row 9 column 2" in out


@pytest.fixture(scope="module")
def nvfp4(ckpt, golden_a, tmp_path_factory):
    path = tmp_path_factory.mktemp("nvfp4") / "model"
    ckpt("ckpt-convert", "--quantize", "v4-nvfp4", "--no-manifest", golden_a, path)
    return path


@pytest.mark.parametrize("ending, value, of", [
    ("input_scale", 0.0, "its activations"), ("input_scale", -1.0, "its activations"),
    ("input_scale", float("nan"), "its activations"), ("input_scale", float("inf"), "its activ"),
    ("weight_scale_2", -0.5, "the whole tensor")])
def test_a_scale_of_a_whole_tensor_that_is_not_above_0_is_a_fault(ckpt, nvfp4, tmp_path, ending,
                                                                  value, of):
    model = Model(nvfp4)
    name = EXPERT.replace(".w1.weight", ".w2.weight")
    model[name.replace("weight", ending)] = Tensor("F32", [], struct.pack("<f", value))
    doc, found = check(ckpt, model.write(tmp_path / "m"), 1)
    assert [kind for kind in found if kind[0] != "outlier"] == [("whole_scale", name)]
    assert doc["faults"] == 1
    assert f"the scale of {of}" in found["whole_scale", name]["text"]


@pytest.mark.parametrize("kind", ["whole_scale", "id_range"])
def test_what_no_reader_can_compute_with_gets_no_certificate(ckpt, golden_a, nvfp4, tmp_path, kind):
    model, ids = Model(nvfp4 if kind == "whole_scale" else golden_a), "layers.0.ffn.gate.tid2eid"
    if kind == "whole_scale":
        model[EXPERT.replace("weight", "weight_scale_2")] = Tensor("F32", [], bytes(4))
    else:
        model[ids] = model[ids].changed(7, 0x70)
    done = ckpt("ckpt-verify", "certify", "--json", "--out", tmp_path / "c.json",
                model.write(tmp_path / "m"), check=1).json
    assert [f["kind"] for f in done["findings"] if f["fails"]] == [kind]


def test_a_gate_whose_weights_have_two_scales_is_a_remark(ckpt, nvfp4, tmp_path):
    assert check(ckpt, nvfp4, 0)[1] == {}
    model = Model(nvfp4)
    name = EXPERT.replace("weight", "weight_scale_2")
    value, = struct.unpack("<f", model[name].data)
    model[name] = Tensor("F32", model[name].shape, struct.pack("<f", value * 2))
    doc, found = check(ckpt, model.write(tmp_path / "m"), 0)
    assert doc["faults"] == 0
    assert found["unequal_pair", EXPERT]["other"] == EXPERT.replace("w1", "w3")


def test_an_outlier_is_a_remark(ckpt, golden_a, tmp_path):
    model = Model(golden_a)
    name = FP8.replace(".weight", ".scale")
    model[name] = Tensor("F8_E8M0", model[name].shape,
                         bytes(b + 6 for b in model[name].data))
    doc, found = check(ckpt, model.write(tmp_path / "m"), 0)
    assert list(found) == [("outlier", FP8)] and found["outlier", FP8]["number"] > 10
    assert doc["faults"] == 0


def test_saturated_codes_and_rows_of_zeros_are_remarks(ckpt, tmp_path):
    model = Model()
    codes = bytearray(b"\x38" * (128 * 128))
    codes[:1000] = b"\xFE" * 1000
    model.files["model.safetensors"] = {
        "a.weight": Tensor("F8_E4M3", [128, 128], bytes(codes)),
        "a.weight_scale_inv": Tensor("F8_E8M0", [1, 1], b"\x7f"),
        "b.weight": Tensor("F32", [3, 2], struct.pack("<6f", 1, 2, 0, -0.0, 3, 0))}
    _, found = check(ckpt, model.write(tmp_path / "m"), 0)
    assert found["saturated", "a.weight"]["number"] == pytest.approx(1000 / 128 ** 2)
    assert {k: found["zero_rows", "b.weight"][k] for k in ("count", "row")} == {
        "count": 1, "row": 1}
    assert len(found) == 2


def test_groups_of_zeros_spread_nothing(ckpt, tmp_path):
    model = Model()
    rows = bytearray(b"\x11" * (128 * 64))
    rows[:16] = b"\x80" * 16
    scales = bytearray(b"\x7f" * (128 * 4))
    scales[0] = 1
    model.files["model.safetensors"] = {
        "m.experts.0.up.weight": Tensor("I8", [128, 64], bytes(rows)),
        "m.experts.0.up.weight_scale_inv": Tensor("F8_E8M0", [128, 4], bytes(scales))}
    assert check(ckpt, model.write(tmp_path / "zeros"), 0)[1] == {}
    model["m.experts.0.up.weight"] = model["m.experts.0.up.weight"].changed(0, 0x11)
    found = check(ckpt, model.write(tmp_path / "ones"), 0)[1]
    assert found["scale_spread", "m.experts.0.up.weight"]["number"] == 126


def test_values_and_a_manifest_in_one_pass(ckpt, golden_a, tmp_path):
    manifest = tmp_path / "m.json"
    manifest.write_text(ckpt("ckpt-verify", "digest", "--json", golden_a).out)
    doc, found = check(ckpt, golden_a, 0, "--manifest", manifest)
    assert doc["checked"] == "values" and doc["same"] is True and found == {}
    model = Model(golden_a)
    name = "layers.1.attn_norm.weight"
    model[name] = model[name].changed(7, 0x7F).changed(6, 0xC0)
    doc, found = check(ckpt, model.write(tmp_path / "x"), 1, "--manifest", manifest)
    assert [d["name"] for d in doc["differing"]] == [name] and ("nan", name) in found


def test_threads_and_kernels_change_nothing(ckpt, golden_b):
    first = check(ckpt, golden_b, 0, "--threads", 1)
    assert check(ckpt, golden_b, 0, "--threads", 5, env={"CKPT_KERNELS": "scalar"}) == first


def test_values_are_not_structure(ckpt, golden_a):
    done = ckpt("ckpt-verify", "check", "--values", "--structure-only", golden_a, check=2)
    assert "--structure-only" in done.err
