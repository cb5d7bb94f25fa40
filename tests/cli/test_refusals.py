"""What ckpt-convert refuses: exit status 2, one line that names the place, and no DST."""
import json
import random
import re
import struct

import pytest

from corrupt.files import Model, Tensor, bf16, file_bytes, tensor_files, with_byte

EXPERT = "layers.1.ffn.experts.3.w1"
DENSE = "layers.1.attn.wq_b"
LAYER_1 = "in/model-00002-of-00005.safetensors'"


@pytest.fixture
def refused(ckpt, tmp_path):
    """refused(source, options..., says=[...]): the run fails, says this, and leaves nothing."""
    def run(source, *options, says):
        before = set(tmp_path.iterdir())
        err = ckpt("ckpt-convert", *options, source, tmp_path / "dst", check=2).err
        for word in says:
            assert word in err, err
        assert not (tmp_path / "dst").exists()
        assert set(tmp_path.iterdir()) == before
        assert "is not exact" not in err or "--allow-lossy" in err
        return err
    return run


def expert(golden_a, change):
    """golden-a with one expert's packed codes and scales passed through `change`."""
    model = Model(golden_a)
    weight, scale = model[EXPERT + ".weight"], model[EXPERT + ".scale"]
    data, scales = bytearray(weight.data), bytearray(scale.data)
    change(data, scales)
    model[EXPERT + ".weight"] = Tensor(weight.dtype, weight.shape, bytes(data))
    model[EXPERT + ".scale"] = Tensor(scale.dtype, scale.shape, bytes(scales))
    return model


def with_group(golden_a, scale, code_pair):
    """All scales 2^-7, but for one group (row 5, group 6), which has 16 bytes of these codes."""
    def change(data, scales):
        scales[:] = bytes([120] * len(scales))
        scales[8 * 5 + 6] = scale
        data[128 * 5 + 6 * 16:128 * 5 + 7 * 16] = bytes([code_pair] * 16)
    return expert(golden_a, change)


# ---- FP4 -> FP8 ----

def test_a_spread_that_loses_a_code_names_it(refused, golden_a, tmp_path):
    """Block [0, 1], row 5: group 6 is 15 powers of two below group 5, and holds a 0.5."""
    def change(data, scales):
        for row in range(128):
            for group in range(4, 8):
                scales[8 * row + group] = 120
        scales[8 * 5 + 6] = 105
        data[128 * 5 + 6 * 16:128 * 5 + 7 * 16] = bytes([0x42] * 15 + [0x14])
    path = expert(golden_a, change).write(tmp_path / "in")
    err = refused(path, "--dtype", "fp8",
                  says=[f"'{EXPERT}.weight'", "block [0, 1]", "row 5", "group 6", "code 1"])
    assert re.search(r"2\^15\b", err)


@pytest.mark.parametrize("code,distance", [(1, 14), (3, 14), (2, 15), (5, 15), (4, 16), (7, 16),
                                           (6, 17)])
def test_the_last_distance_that_is_exact(ckpt, digest, refused, golden_a, tmp_path, code,
                                         distance):
    """0.5 and 1.5 survive 14 powers of two, 1 and 3 15, 2 and 6 16, 4 17; one more is lossy."""
    for d in (distance, distance + 1):
        path = with_group(golden_a, 120 - d, code).write(tmp_path / f"in{d}")
        if d == distance:
            ckpt("ckpt-convert", "--dtype", "fp8", path, tmp_path / "fp8")
            assert digest(tmp_path / "fp8") == digest(path)
            ckpt("ckpt-convert", "--experts", "fp4", tmp_path / "fp8", tmp_path / "back")
            assert tensor_files(tmp_path / "back") == tensor_files(path)
        else:
            refused(path, "--dtype", "fp8", says=[f"'{EXPERT}.weight'", f"code {code}",
                                                  f"2^{d}"])


def test_any_spread_is_fine_for_zeros(ckpt, digest, golden_a, tmp_path):
    path = with_group(golden_a, 60, 0x08).write(tmp_path / "in")
    ckpt("ckpt-convert", "--dtype", "fp8", path, tmp_path / "fp8")
    assert digest(tmp_path / "fp8") == digest(path)
    ckpt("ckpt-convert", "--experts", "fp4", tmp_path / "fp8", tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(path)


def test_a_lossy_spread_passes_when_told_and_is_counted(ckpt, golden_a, tmp_path):
    path = with_group(golden_a, 100, 0x10).write(tmp_path / "in")
    said = ckpt("ckpt-convert", "--dtype", "fp8", "--allow-lossy", "--report",
                tmp_path / "r.json", path, tmp_path / "out")
    assert said.err.startswith("ckpt-convert: wrote ") and len(said.err.splitlines()) == 1
    report = json.loads((tmp_path / "r.json").read_text())
    lossy = {t["name"]: t["inexact"] for t in report["target_tensors"] if t["inexact"]}
    assert lossy == {f"{EXPERT}.weight": 16}
    ckpt("ckpt-verify", "compare", path, tmp_path / "out", check=1)


@pytest.mark.parametrize("byte", [0, 1, 5, 6, 7])
def test_the_smallest_scales_survive_fp8(ckpt, digest, golden_a, tmp_path, byte):
    """2^-127 is a scale of FP8, too: where the rule asks for a smaller one, the codes are."""
    def change(data, scales):
        scales[:] = bytes([byte] * len(scales))
    path = expert(golden_a, change).write(tmp_path / "in")
    ckpt("ckpt-convert", "--dtype", "fp8", "--scale-dtype", "e8m0", path, tmp_path / "fp8")
    assert set(Model(tmp_path / "fp8")[EXPERT + ".scale"].data[:1]) == {max(byte - 6, 0)}
    assert digest(tmp_path / "fp8") == digest(path)
    ckpt("ckpt-convert", "--experts", "fp4", tmp_path / "fp8", tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(path)


# ---- odd scales and codes ----

@pytest.mark.parametrize("options", [["--dtype", "bf16"], ["--dtype", "fp8"], []])
@pytest.mark.parametrize("byte", [0xFF])
@pytest.mark.parametrize("name,at,block", [(EXPERT, 8 * 17 + 3, "[17, 3]"),
                                           (DENSE, 5, "[5, 0]")])
def test_scale_bytes_that_are_no_scales(refused, golden_a, tmp_path, options, byte, name, at,
                                        block):
    with_byte(golden_a, tmp_path / "in", name + ".scale", at, byte)
    refused(tmp_path / "in", *options, says=[f"'{name}.weight'", block, f"0x{byte:02X}"])


@pytest.mark.parametrize("options", [["--dtype", "bf16"], [], ["--scale-dtype", "f32"]])
@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_nan_codes(refused, golden_a, tmp_path, options, code):
    with_byte(golden_a, tmp_path / "in", DENSE + ".weight", 128 * 700 + 99, code)
    refused(tmp_path / "in", *options,
            says=[f"'{DENSE}.weight'", "row 700", "column 99", f"0x{code:02X}"])


@pytest.mark.parametrize("value", [0.0, -0.5, float("inf"), float("nan")])
def test_f32_scales_that_are_no_scales(ckpt, refused, golden_a, tmp_path, value):
    ckpt("ckpt-convert", "--dtype", "fp8", "--scale-dtype", "f32", golden_a, tmp_path / "f32")
    model = Model(tmp_path / "f32")
    model.extras.clear()
    t = model[DENSE + ".scale"]
    model[DENSE + ".scale"] = Tensor("F32", t.shape,
                                     t.data[:8] + struct.pack("<f", value) + t.data[12:])
    refused(model.write(tmp_path / "in"), "--dtype", "bf16",
            says=[f"'{DENSE}.weight'", "[2, 0]", "not a positive number"])


# ---- pairs ----

@pytest.mark.parametrize("name", [EXPERT, DENSE])
def test_a_missing_scale(refused, golden_a, tmp_path, name):
    model = Model(golden_a)
    del model[name + ".scale"]
    refused(model.write(tmp_path / "in"), "--dtype", "bf16",
            says=[f"'{name}.weight'", "no scale"])


def test_an_orphan_scale(refused, golden_a, tmp_path):
    model = Model(golden_a)
    model["layers.1.attn.wx.scale"] = model[DENSE + ".scale"]
    refused(model.write(tmp_path / "in"), says=["'layers.1.attn.wx.scale'",
                                                "'layers.1.attn.wx.weight'"])


def test_two_scales(refused, golden_a, tmp_path):
    model = Model(golden_a)
    model[DENSE + ".weight_scale_inv"] = model[DENSE + ".scale"]
    refused(model.write(tmp_path / "in"),
            says=[f"'{DENSE}.scale'", f"'{DENSE}.weight_scale_inv'"])


@pytest.mark.parametrize("name,shape", [(DENSE, [1, 8]), (DENSE, [4, 1]), (DENSE, [8]),
                                        (EXPERT, [128, 4]), (EXPERT, [8, 128]),
                                        (EXPERT, [1, 1024])])
def test_a_scale_of_the_wrong_shape(refused, golden_a, tmp_path, name, shape):
    model = Model(golden_a)
    size = 1
    for d in shape:
        size *= d
    model[name + ".scale"] = Tensor("F8_E8M0", shape, bytes([120] * size))
    refused(model.write(tmp_path / "in"),
            says=[f"'{name}.scale'", f"'{name}.weight'", str(shape)])


def test_a_scale_of_a_tensor_that_takes_none(refused, golden_a, tmp_path):
    model = Model(golden_a)
    model["layers.1.attn.compressor.wkv.scale"] = Tensor("F8_E8M0", [2, 2], bytes([120] * 4))
    refused(model.write(tmp_path / "in"),
            says=["'layers.1.attn.compressor.wkv.weight'", "BF16"])


@pytest.mark.parametrize("dtype,width", [("F16", 2), ("I8", 1), ("F64", 8)])
def test_a_scale_of_a_dtype_that_is_no_scale(refused, golden_a, tmp_path, dtype, width):
    model = Model(golden_a)
    model[DENSE + ".scale"] = Tensor(dtype, [8, 1], bytes(8 * width))
    refused(model.write(tmp_path / "in"), says=[f"'{DENSE}.scale'", dtype, LAYER_1])


# ---- inventory ----

@pytest.mark.parametrize("name", ["layers.2.attn.q_norm.weight", "mtp.0.norm.weight",
                                  "hc_head_fn", "layers.0.ffn.gate.tid2eid"])
def test_a_missing_tensor(refused, golden_a, tmp_path, name):
    model = Model(golden_a)
    del model[name]
    refused(model.write(tmp_path / "in"), says=[f"'{name}'", "lacks"])


def test_a_missing_expert(refused, golden_a, tmp_path):
    model = Model(golden_a)
    del model[EXPERT + ".weight"], model[EXPERT + ".scale"]
    refused(model.write(tmp_path / "in"), says=[f"'{EXPERT}.weight'"])


@pytest.mark.parametrize("name", ["layers.2.attn.extra.weight", "stray",
                                  "layers.9.attn_norm.weight",
                                  "layers.1.ffn.experts.16.w1.weight"])
def test_an_unknown_tensor(refused, golden_a, tmp_path, name):
    model = Model(golden_a)
    model[name] = bf16([256])
    refused(model.write(tmp_path / "in"), "--dtype", "bf16", says=[f"'{name}'"])


def test_a_wrong_shape(refused, golden_a, tmp_path):
    model = Model(golden_a)
    model["layers.1.attn_norm.weight"] = bf16([128])
    refused(model.write(tmp_path / "in"),
            says=["'layers.1.attn_norm.weight'", "[128]", "[256]", LAYER_1])


def test_a_wrong_class(refused, golden_a, tmp_path):
    model = Model(golden_a)
    t = model["layers.1.ffn.gate.tid2eid"]
    model["layers.1.ffn.gate.tid2eid"] = Tensor("F64", t.shape, t.data)
    refused(model.write(tmp_path / "in"),
            says=["'layers.1.ffn.gate.tid2eid'", "F64", "I64"])


def test_the_config_of_another_model(refused, golden_a, tmp_path):
    model = Model(golden_a)
    model.config["n_routed_experts"] = 17
    refused(model.write(tmp_path / "in"), says=["'layers.0.ffn.gate.weight'", "[17, 256]"])


def test_blocks_of_another_size(refused, golden_a, tmp_path):
    model = Model(golden_a)
    model.config["quantization_config"]["weight_block_size"] = [32, 32]
    refused(model.write(tmp_path / "in"), "--dtype", "bf16", says=["weight_block_size"])


# ---- values that do not fit ----

def test_fp8_that_is_not_fp4(ckpt, refused, golden_a, tmp_path):
    ckpt("ckpt-convert", "--dtype", "fp8", golden_a, tmp_path / "fp8")
    model = Model(tmp_path / "fp8")
    del model.extras["fp4_scales.zst"]
    model[EXPERT + ".weight"] = model[EXPERT + ".weight"].changed(256 * 9 + 77, 0x39)   # 1.125
    refused(model.write(tmp_path / "in"), "--experts", "fp4",
            says=[f"'{EXPERT}.weight'", "row 9", "group 2"])


def test_fp8_that_is_not_fp4_whatever_the_side_data_say(ckpt, refused, golden_a, tmp_path):
    """The damaged group is the one whose scale is listed."""
    ckpt("ckpt-convert", "--dtype", "fp8", golden_a, tmp_path / "fp8")
    model = Model(tmp_path / "fp8")
    name = "mtp.0.ffn.experts.7.w2"
    groups = model[name + ".weight"].shape[1] // 32
    row, group = divmod(225, groups)
    at = row * model[name + ".weight"].shape[1] + 32 * group
    model[name + ".weight"] = model[name + ".weight"].changed(at, 0x39)
    refused(model.write(tmp_path / "in"), "--experts", "fp4",
            says=[f"'{name}.weight'", f"row {row}"])


def random_bf16(golden_a, name):
    model = Model(golden_a)
    t = model[name]
    count = 1
    for d in t.shape:
        count *= d
    draw = random.Random(7)
    data = b"".join(struct.pack("<f", draw.gauss(0, .02))[2:] for _ in range(count))
    return Tensor("BF16", t.shape, data)


def test_random_bf16_is_not_fp8(ckpt, refused, golden_a, tmp_path):
    ckpt("ckpt-convert", "--dtype", "bf16", golden_a, tmp_path / "bf16")
    model = Model(tmp_path / "bf16")
    model[DENSE + ".weight"] = random_bf16(golden_a, DENSE + ".weight")
    path = model.write(tmp_path / "in")
    for options in (["--dtype", "fp8"], ["--like", golden_a]):
        err = refused(path, *options, says=[f"'{DENSE}.weight'", "BF16", "F8_E4M3"])
        assert re.search(r"row \d+, column \d+", err)


def test_random_bf16_is_not_fp4(ckpt, refused, golden_a, tmp_path):
    ckpt("ckpt-convert", "--dtype", "bf16", golden_a, tmp_path / "bf16")
    model = Model(tmp_path / "bf16")
    t = model[EXPERT + ".weight"]
    data = random_bf16(tmp_path / "bf16", EXPERT + ".weight").data
    model[EXPERT + ".weight"] = Tensor("BF16", t.shape, data)
    path = model.write(tmp_path / "in")
    refused(path, "--dtype", "fp8", "--experts", "fp4",
            says=[f"'{EXPERT}.weight'", "row 0", "group 0"])
    refused(path, "--like", golden_a, says=[f"'{EXPERT}.weight'", "row 0"])


def test_one_changed_value_of_a_cast_does_not_go_back(ckpt, refused, golden_a, tmp_path):
    ckpt("ckpt-convert", "--dtype", "bf16", golden_a, tmp_path / "bf16")
    with_byte(tmp_path / "bf16", tmp_path / "in", DENSE + ".weight", 2 * (128 * 300 + 21),
              lambda b: b ^ 1)
    refused(tmp_path / "in", "--like", golden_a,
            says=[f"'{DENSE}.weight'", "row 300", "column 21"])


def test_f32_values_do_not_become_bf16_unseen(ckpt, refused, golden_a, tmp_path):
    """--like with a BF16 tensor where the source has F32."""
    model = Model(golden_a)
    t = model["layers.2.attn.attn_sink"]
    model["layers.2.attn.attn_sink"] = Tensor("F32", t.shape, struct.pack("<8f", *[.1] * 8))
    source = model.write(tmp_path / "in")
    model["layers.2.attn.attn_sink"] = bf16(t.shape)
    refused(source, "--like", model.write(tmp_path / "like"),
            says=["'layers.2.attn.attn_sink'", "row 0, column 0", "F32", "BF16"])


@pytest.fixture
def v3_like(tmp_path):
    """FP8 blocks with F32 scales that are no powers of two."""
    folder = tmp_path / "v3"
    folder.mkdir()
    codes = bytes(i % 0x7E + 1 for i in range(130 * 200))
    tensors = {"a.weight": Tensor("F8_E4M3", [130, 200], codes),
               "a.weight_scale_inv": Tensor("F32", [2, 2], struct.pack("<4f", .5, .3, .25, 2))}
    (folder / "model.safetensors").write_bytes(file_bytes(tensors))
    return folder


def test_f32_scales_round_only_when_told(ckpt, refused, v3_like, tmp_path):
    err = refused(v3_like, "--dtype", "bf16", says=["'a.weight'", "BF16", "F8_E4M3"])
    assert re.search(r"row 0, column 1[2-9]\d", err)        # in block [0, 1]
    ckpt("ckpt-convert", "--dtype", "bf16", "--allow-lossy", v3_like, tmp_path / "out")


def test_f32_scales_have_no_e8m0(refused, v3_like):
    refused(v3_like, "--scale-dtype", "e8m0", "--dtype", "fp8",
            says=["'a.weight'", "block [0, 1]", "F8_E8M0"])


# ---- --like ----

def test_like_of_another_model(refused, golden_a, golden_b):
    refused(golden_a, "--like", golden_b, says=[str(golden_b)])


def test_like_with_tensors_that_nothing_fills(ckpt, refused, golden_a, tmp_path):
    part = Model(golden_a)
    for name in part.names():
        if name.startswith("mtp."):
            del part[name]
    part.config["num_nextn_predict_layers"] = 0
    part.config["compress_ratios"] = part.config["compress_ratios"][:4]
    path = part.write(tmp_path / "main")
    refused(path, "--like", golden_a, says=["'mtp.0."])
    refused(golden_a, "--like", path, says=["'mtp.0."])


# ---- side data ----

@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "empty"])
def test_damaged_side_data(ckpt, refused, golden_a, tmp_path, damage):
    ckpt("ckpt-convert", "--dtype", "fp8", golden_a, tmp_path / "fp8")
    model = Model(tmp_path / "fp8")
    data = model.extras["fp4_scales.zst"]
    model.extras["fp4_scales.zst"] = {
        "truncated": data[:-5], "flipped": data[:40] + bytes([data[40] ^ 0x20]) + data[41:],
        "text": b"ckpt-fp4-scales 1 -\ntensor nothing 1\n", "empty": b""}[damage]
    refused(model.write(tmp_path / "in"), "--experts", "fp4", says=["fp4_scales.zst"])
