"""NVFP4: E2M1 codes, E4M3 scales of 16, one F32 scale of the tensor, by NumPy's arithmetic.

Every code under every scale byte and several scales of the tensor, in the names and with the
configs of NVIDIA's Model-Optimizer and of compressed-tensors, which divides by its scale: inspect,
digest, compare, casts, copies; and what is not quite it.
"""
import json
import re

import numpy as np
import pytest

from cli.kernels import tool      # noqa: F401
from corrupt.files import Model, Tensor, read_file, tensor_files
from interop.numpy_codes import e2m1, e4m3

torch = pytest.importorskip("torch")
from interop import value_digest     # noqa: E402

X = "m.o_proj"
MODELOPT = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}
PACKED = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
          "config_groups": {"group_0": {"weights": {
              "type": "float", "num_bits": 4, "strategy": "tensor_group", "group_size": 16}}}}
HF_QUANT = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}

# name: names of data, scale and scale of the tensor; its shape; quantization_config
FORMS = {
    "modelopt": ("weight", "weight_scale", "weight_scale_2", [], MODELOPT),
    "hf_quant_config.json alone": ("weight", "weight_scale", "weight_scale_2", [], None),
    "experts beside FP8": ("weight", "weight_scale", "weight_scale_2", [1], {
        "quant_method": "fp8", "weight_block_size": [128, 128], "moe_quant_algo": "NVFP4",
        "quant_algo": "MIXED_PRECISION"}),
    "compressed-tensors": ("weight_packed", "weight_scale", "weight_global_scale", [1], PACKED),
}
# a power of two, what modelopt and compressed-tensors make of an amax, the edges of F32
WHOLE = [1.0, 2.0 ** -11, np.float32(0.1875) / np.float32(2688), np.float32(2688) / np.float32(3),
         3.4e38, 2.0 ** 119, 1e-38, 1e-45, np.nan, np.inf]


@pytest.fixture(params=FORMS.values(), ids=[name.replace(" ", "-") for name in FORMS])
def form(request):
    return request.param


def pairs():
    """A row for each scale byte; its groups hold each code once, in orders of their own."""
    draw = np.random.default_rng(16)
    codes = np.stack([np.concatenate([draw.permutation(16) for _ in range(3)])
                      for _ in range(256)])
    return codes, np.arange(256)[:, None].repeat(3, axis=1)


def products(codes, scales, whole, form):
    """Codes times scales, rounded to F32 (it is exact); then the scale of the tensor, once more.
    And where that is not finite, although all three are."""
    with np.errstate(all="ignore"):
        first = (e2m1(codes) * e4m3(scales).repeat(16, axis=1)).astype(np.float32)
        whole = np.float32(whole)
        values = first / whole if form[0] == "weight_packed" else first * whole
    return values, ~np.isfinite(values) & np.isfinite(first) & np.isfinite(whole)


def stored(codes, scales, whole, form, module=X):
    data, scale, tensor_scale, shape, _ = form
    packed = (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8)
    return {f"{module}.{data}": Tensor("U8", list(packed.shape), packed.tobytes()),
            f"{module}.{scale}": Tensor("F8_E4M3", list(scales.shape),
                                        scales.astype(np.uint8).tobytes()),
            f"{module}.{tensor_scale}": Tensor("F32", shape, np.float32(whole).tobytes())}


def write_tensors(path, tensors, scheme):
    model = Model()
    model.config = {"model_type": "llama"}
    if scheme is not None:
        model.config["quantization_config"] = scheme
    model.files["model.safetensors"] = tensors
    path = model.write(path)
    if scheme is None:
        (path / "hf_quant_config.json").write_text(json.dumps(HF_QUANT))
    return path


def write(path, codes, scales, whole, form):
    return write_tensors(path, stored(codes, scales, whole, form), form[4])


def positive(codes, scales):
    """Without the scales that are negative or NaN."""
    return codes[:127], scales[:127]


def test_every_product_has_the_digest_of_its_value(tool, tmp_path, form):
    tensors, values = {}, {}
    for i, whole in enumerate(WHOLE):
        codes, scales = pairs()
        codes[products(codes, scales, whole, form)[1]] = 0
        values[f"m.{i}.weight"], wrong = products(codes, scales, whole, form)
        assert not wrong.any()
        tensors.update(stored(codes, scales, whole, form, f"m.{i}"))
    path = write_tensors(tmp_path / "in", tensors, form[4])
    seen = tool("ckpt-inspect", "--json", "--logical", path).json
    sign = "/" if form[0] == "weight_packed" else "*"
    assert {t["name"]: t["encoding"] for t in seen["tensors"]} == {
        name: f"F4 1x16 F8_E4M3 {sign} F32" for name in values}
    root = value_digest.digest({name: torch.from_numpy(v) for name, v in values.items()})[0]
    assert tool("ckpt-verify", "digest", "--json", path).json["root"] == root


def test_what_bf16_holds_is_cast_exactly(tool, tmp_path, form):
    tensors, values = {}, {}
    for i, whole in enumerate([2.0 ** -11, 0.25, 2.0 ** 100, 2.0 ** -120]):
        codes, scales = positive(*pairs())
        exact, _ = products(codes, scales, whole, form)
        codes[~np.isfinite(exact) | (exact.view(np.uint32) & 0xFFFF != 0)] = 0
        values[f"m.{i}.weight"], _ = products(codes, scales, whole, form)
        tensors.update(stored(codes, scales, whole, form, f"m.{i}"))
    path = write_tensors(tmp_path / "in", tensors, form[4])
    tool("ckpt-convert", "--dtype", "bf16", "--verify", path, tmp_path / "out")
    (file,) = tensor_files(tmp_path / "out")
    written = read_file(tmp_path / "out" / file)[0]
    assert set(written) == set(values)
    for name, exact in values.items():
        assert written[name].dtype == "BF16"
        assert np.array_equal(np.frombuffer(written[name].data, np.uint16).reshape(exact.shape),
                              exact.view(np.uint32) >> 16)
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())
    assert not (tmp_path / "out/hf_quant_config.json").exists()
    tool("ckpt-verify", "compare", path, tmp_path / "out")


def test_f32_holds_all_of_them(tool, tmp_path, form):
    codes, scales = positive(*pairs())
    values, wrong = products(codes, scales, 0.3, form)
    assert not wrong.any() and (values.view(np.uint32) & 0xFFFF != 0).any()
    path = write(tmp_path / "in", codes, scales, 0.3, form)
    tool("ckpt-convert", "--dtype", "f32", "--verify", path, tmp_path / "out")
    (file,) = tensor_files(tmp_path / "out")
    written = read_file(tmp_path / "out" / file)[0]
    assert list(written) == [X + ".weight"] and written[X + ".weight"].dtype == "F32"
    assert written[X + ".weight"].data == values.tobytes()
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())
    tool("ckpt-verify", "compare", path, tmp_path / "out")


def test_what_bf16_does_not_hold_is_refused_by_element(ckpt, tmp_path, form):
    codes, scales = np.full((4, 32), 2), np.full((4, 2), 0x38)
    path = write(tmp_path / "in", codes, scales, 0.3, form)
    err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out", check=2).err
    assert f"'{X}.weight', row 0, column 0" in err and "not exact in BF16" in err, err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("whole", [3.4e38, 1e-45, 0.0])
def test_products_beyond_f32_are_refused(ckpt, tmp_path, form, whole):
    codes, scales = pairs()
    wrong = products(codes, scales, whole, form)[1]
    if not wrong.any():
        ckpt("ckpt-verify", "digest", write(tmp_path / "in", codes, scales, whole, form))
        return
    err = ckpt("ckpt-verify", "digest", write(tmp_path / "in", codes, scales, whole, form),
               check=2).err
    row, col = map(int, re.search(r"row (\d+), column (\d+): code", err).groups())
    assert wrong[row, col] and "beyond the range of F32" in err, err


@pytest.mark.parametrize("whole", [0.0, -1.0, np.nan, np.inf], ids=str)
def test_a_scale_of_the_tensor_that_is_none_is_refused(ckpt, tmp_path, form, whole):
    codes, scales = np.full((4, 32), 2), np.full((4, 2), 0x38)
    path = write(tmp_path / "in", codes, scales, whole, form)
    err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out", check=2).err
    assert f"'{X}.weight'" in err, err
    assert "not a positive number" in err or "beyond the range of F32" in err, err


@pytest.mark.parametrize("byte", [0x7F, 0xFF, 0x81, 0xFE])
def test_a_block_scale_that_is_none_is_refused_where_values_are_wanted(ckpt, tmp_path, form, byte):
    codes, scales = np.full((4, 32), 2), np.full((4, 2), 0x38)
    scales[2, 1] = byte
    path = write(tmp_path / "in", codes, scales, 1, form)
    err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out", check=2).err
    assert f"'{X}.weight', block [2, 1]" in err, err


def test_a_copy_is_the_same_bytes_and_another_scale_differs(ckpt, tmp_path, form):
    codes, scales = positive(*pairs())
    path = write(tmp_path / "in", codes, scales, 0.5, form)
    ckpt("ckpt-convert", "--verify", path, tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(path)
    assert (tmp_path / "out/config.json").read_bytes() == (path / "config.json").read_bytes()
    assert (tmp_path / "out/hf_quant_config.json").exists() == (form[4] is None)
    codes[3, 40] = 5 if codes[3, 40] != 5 else 6
    other = write(tmp_path / "other", codes, scales, 0.5, form)
    said = ckpt("ckpt-verify", "compare", "--json", path, other, check=1).json["differing"]
    assert [(d["name"], d["row"], d["col"]) for d in said] == [(X + ".weight", 3, 40)]
    doubled = write(tmp_path / "doubled", codes, scales, 0.25, form)
    assert not ckpt("ckpt-verify", "compare", "--json", other, doubled, check=1).json["same"]


def test_both_spellings_of_the_same_values_are_the_same(ckpt, tmp_path):
    codes, scales = positive(*pairs())
    a = write(tmp_path / "a", codes, scales, 0.25, FORMS["modelopt"])
    b = write(tmp_path / "b", codes, scales, 4.0, FORMS["compressed-tensors"])
    assert ckpt("ckpt-verify", "compare", "--json", a, b).json["same"]
    roots = {ckpt("ckpt-verify", "digest", "--json", path).json["root"] for path in (a, b)}
    assert len(roots) == 1


def test_many_tiles_have_the_scale_of_the_tensor(tool, tmp_path, form):
    """Rows far beyond one tile, columns beyond one unit."""
    draw = np.random.default_rng(3)
    codes, scales = draw.integers(0, 16, (700, 2080)), draw.integers(0, 0x7F, (700, 130))
    path = write(tmp_path / "in", codes, scales, 1.25, form)
    root = value_digest.digest({X + ".weight": torch.from_numpy(
        products(codes, scales, 1.25, form)[0])})[0]
    assert tool("ckpt-verify", "digest", "--json", path).json["root"] == root
    tool("ckpt-convert", "--verify", path, tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(path)


@pytest.mark.parametrize("scale,shape,grid,whole", [
    ("F8_E4M3", [4, 32], [4, 3], []),            # a grid of something else
    ("F8_E4M3", [4, 20], [4, 2], []),            # no whole groups
    ("F8_E8M0", [4, 32], [4, 4], []),            # no such scales with a scale of the tensor
    ("F8_E4M3", [4, 32], [4, 4], [2]),           # two scales of the tensor
    ("F8_E4M3", [4, 32], [4, 4], None),          # none
], ids=str)
def test_what_is_not_quite_it_is_not_decoded(ckpt, tmp_path, scale, shape, grid, whole):
    tensors = {X + ".weight": Tensor("U8", shape, bytes(shape[0] * shape[1])),
               X + ".weight_scale": Tensor(scale, grid, bytes([0x38] * (grid[0] * grid[1])))}
    if whole is not None:
        tensors[X + ".weight_scale_2"] = Tensor(
            "F32", whole, np.ones(whole, np.float32).tobytes())
    path = write_tensors(tmp_path / "in", tensors, MODELOPT)
    seen = ckpt("ckpt-inspect", "--json", "--logical", path).json
    assert sorted(t["name"] for t in seen["tensors"]) == sorted(tensors)
    assert any(X + ".weight" in note for note in seen["notes"])
    err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out", check=2).err
    assert f"'{X}.weight'" in err and "not converted to another encoding" in err, err


def test_without_a_word_of_the_config_it_is_not_decoded(ckpt, tmp_path):
    codes, scales = positive(*pairs())
    path = write(tmp_path / "in", codes, scales, 1, FORMS["modelopt"])
    (path / "config.json").write_text('{"model_type": "llama"}')
    seen = ckpt("ckpt-inspect", "--json", "--logical", path).json
    assert len(seen["tensors"]) == 3
    assert any("NVFP4" in note for note in seen["notes"]), seen["notes"]
