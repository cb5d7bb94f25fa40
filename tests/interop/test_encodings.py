"""Every code under every scale in the other encodings that are decoded, by NumPy's arithmetic.

32 x 32 and 1 x 32 blocks, a scale for each row, MXFP8: inspect, digest, compare, the cast to BF16,
a copy; and grids that do not fit what config.json says.
"""
import json
import re

import numpy as np
import pytest

from cli.kernels import tool      # noqa: F401
from corrupt.files import Model, Tensor, read_file, tensor_files
from interop.numpy_codes import e4m3, e8m0

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
dcp = pytest.importorskip("torch.distributed.checkpoint")
from interop import value_digest     # noqa: E402

NAME = "m.o_proj.weight"
BYTES = np.arange(256)
MX = {"quant_method": "mxfp8"}
CHANNEL = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {
    "group_0": {"weights": {"type": "float", "num_bits": 8, "strategy": "channel"}}}}
BLOCK_32 = {"quant_method": "fp8", "weight_block_size": [32, 32]}
F32_SCALES = np.concatenate([
    np.float32(2.0) ** np.arange(-149, 128, dtype=np.float32),
    np.array([3 * 2.0 ** -149, 1e-30, 0.1, 3, 1.14285712 * 2.0 ** 119, 1.1428572 * 2.0 ** 119,
              3.4028235e38, np.nan, np.inf, -np.inf, 0, -0.0, -1], np.float32)])


def pairs_32():
    """Blocks of 32 x 32 hold each code four times."""
    codes = np.tile(np.arange(1024).reshape(32, 32) % 256, (1, 256))
    return codes, BYTES[None], e8m0(BYTES)[None].repeat(32, axis=1)


def pairs_1x32():
    """A column of eight blocks holds each code once."""
    codes = np.tile(np.arange(256).reshape(8, 32), (1, 256))
    return codes, BYTES[None].repeat(8, axis=0), e8m0(BYTES)[None].repeat(32, axis=1)


def pairs_row(scales, values):
    return np.tile(BYTES, (len(scales), 1)), scales[:, None], values[:, None].astype(np.float64)


def bf16_scales():
    raw = np.arange(0, 65536, 37, dtype=np.uint16)
    return raw, (raw.astype(np.uint32) << 16).view(np.float32)


# name: (codes, scales, factors), dtype of the scales, their suffix, config, encoding
FORMS = {
    "32x32": (pairs_32, "F8_E8M0", "_scale_inv", BLOCK_32, "F8_E4M3 32x32 F8_E8M0"),
    "1x32 under a config of 32x32": (pairs_1x32, "F8_E8M0", "_scale_inv", BLOCK_32,
                                     "F8_E4M3 1x32 F8_E8M0"),
    "MXFP8, weight_scale": (pairs_1x32, "U8", "_scale", MX, "F8_E4M3 1x32 F8_E8M0"),
    "MXFP8, weight_scale_inv": (pairs_1x32, "U8", "_scale_inv", MX, "F8_E4M3 1x32 F8_E8M0"),
    "MXFP8 of modelopt": (pairs_1x32, "F8_E8M0", "_scale",
                          {"quant_method": "modelopt", "quant_algo": "MXFP8"},
                          "F8_E4M3 1x32 F8_E8M0"),
    "a row, F32": (lambda: pairs_row(F32_SCALES, F32_SCALES), "F32", "_scale", CHANNEL,
                   "F8_E4M3 1xrow F32"),
    "a row, F32 [n]": (lambda: pairs_row(F32_SCALES, F32_SCALES), "F32 [n]", "_scale",
                       {"quant_method": "fbgemm_fp8"}, "F8_E4M3 1xrow F32"),
    "a row, BF16": (lambda: pairs_row(*bf16_scales()), "BF16", "_scale_inv", None,
                    "F8_E4M3 1xrow BF16"),
}


def products(codes, factors):
    with np.errstate(all="ignore"):
        values = (e4m3(codes) * factors).astype(np.float32)
    return values, np.isinf(values) & np.isfinite(e4m3(codes)) & np.isfinite(factors)


def positive(scales, factors):
    """Scales that are no positive numbers replaced by one that is."""
    width = factors.shape[1] // scales.shape[1]
    good = (np.isfinite(factors) & (factors > 0))[:len(scales), ::width]
    one = tuple(np.argwhere(good)[good.sum() // 2])
    wide = good.repeat(width, axis=1)
    return (np.where(good, scales, scales[one]),
            np.where(wide, factors, factors[one[0], one[1] * width]))


def write(path, codes, scales, form):
    _, dtype, suffix, scheme, _ = form
    shape = list(scales.shape)[:1 if dtype.endswith("[n]") else 2]
    dtype = dtype.split()[0]
    data = scales.astype(np.uint8) if dtype in ("U8", "F8_E8M0") else scales
    model = Model()
    model.config = {"model_type": "llama"}
    if scheme is not None:
        model.config["quantization_config"] = scheme
    model.files["model.safetensors"] = {
        NAME: Tensor("F8_E4M3", list(codes.shape), codes.astype(np.uint8).tobytes()),
        NAME + suffix: Tensor(dtype, shape, data.tobytes())}
    return model.write(path)


@pytest.fixture(params=FORMS.values(), ids=[name.replace(" ", "-") for name in FORMS])
def form(request):
    return request.param


def test_every_pair_has_the_digest_of_its_value(tool, tmp_path, form):
    codes, scales, factors = form[0]()
    wrong = products(codes, factors)[1]
    assert wrong.any()
    codes[wrong] = 0
    values, _ = products(codes, factors)
    path = write(tmp_path / "in", codes, scales, form)
    seen = tool("ckpt-inspect", "--json", "--logical", path).json
    assert [(t["name"], t["encoding"]) for t in seen["tensors"]] == [(NAME, form[4])]
    root = value_digest.digest({NAME: torch.from_numpy(values)})[0]
    assert tool("ckpt-verify", "digest", "--json", path).json["root"] == root


def test_pairs_that_bf16_holds_are_cast_exactly(tool, tmp_path, form):
    codes, scales, factors = form[0]()
    scales, factors = positive(scales, factors)
    values, wrong = products(codes, factors)
    codes[wrong | np.isnan(values) | (values.view(np.uint32) & 0xFFFF != 0)] = 0
    values, _ = products(codes, factors)
    path = write(tmp_path / "in", codes, scales, form)
    tool("ckpt-convert", "--dtype", "bf16", "--verify", path, tmp_path / "out")
    (file,) = tensor_files(tmp_path / "out")
    written = read_file(tmp_path / "out" / file)[0]
    assert list(written) == [NAME] and written[NAME].dtype == "BF16"
    assert np.array_equal(np.frombuffer(written[NAME].data, np.uint16).reshape(codes.shape),
                          values.view(np.uint32) >> 16)
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())
    tool("ckpt-verify", "compare", path, tmp_path / "out")


def test_f32_holds_every_finite_product(ckpt, tmp_path, form):
    codes, scales, factors = form[0]()
    scales, factors = positive(scales, factors)
    values, wrong = products(codes, factors)
    codes[wrong | np.isnan(values)] = 0
    values, _ = products(codes, factors)
    path = write(tmp_path / "in", codes, scales, form)
    ckpt("ckpt-convert", "--dtype", "f32", "--verify", path, tmp_path / "out")
    (file,) = tensor_files(tmp_path / "out")
    written = read_file(tmp_path / "out" / file)[0]
    assert written[NAME].dtype == "F32" and written[NAME].data == values.tobytes()


def test_products_beyond_f32_are_refused(ckpt, tmp_path, form):
    codes, scales, factors = form[0]()
    wrong = products(codes, factors)[1]
    err = ckpt("ckpt-verify", "digest", write(tmp_path / "in", codes, scales, form), check=2).err
    row, col = map(int, re.search(r"row (\d+), column (\d+): code", err).groups())
    assert wrong[row, col] and "beyond the range of F32" in err, err


def test_a_copy_is_the_same_bytes_and_another_code_differs(ckpt, tmp_path, form):
    codes, scales, factors = form[0]()
    codes[products(codes, factors)[1] | (codes % 128 == 127)] = 0
    scales, factors = positive(scales, factors)
    codes[products(codes, factors)[1]] = 0
    path = write(tmp_path / "in", codes, scales, form)
    ckpt("ckpt-convert", path, tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(path)
    codes[3, 40] ^= 0x81
    other = write(tmp_path / "other", codes, scales, form)
    said = ckpt("ckpt-verify", "compare", "--json", path, other, check=1).json["differing"]
    assert [(d["name"], d["row"], d["col"]) for d in said] == [(NAME, 3, 40)]


@pytest.mark.parametrize("shape", [(1, 1), (33, 31), (40, 100), (65, 1057), (96, 2080)])
@pytest.mark.parametrize("block", [(32, 32), (1, 32)], ids=str)
def test_blocks_at_the_edges_are_shorter(tool, tmp_path, block, shape):
    draw = np.random.default_rng(shape)
    grid = tuple(-(-n // b) for n, b in zip(shape, block))
    codes = draw.integers(0, 0x7F, shape)
    scales = draw.integers(100, 130, grid)
    factors = e8m0(scales).repeat(block[0], 0).repeat(block[1], 1)[:shape[0], :shape[1]]
    path = write(tmp_path / "in", codes, scales, FORMS["32x32"])
    root = value_digest.digest({NAME: torch.from_numpy(products(codes, factors)[0])})[0]
    assert tool("ckpt-verify", "digest", "--json", path).json["root"] == root


@pytest.mark.parametrize("dtype,grid,scheme", [
    ("F8_E8M0", (2, 8), BLOCK_32),               # 48 x 32
    ("F8_E8M0", (3, 7), BLOCK_32),
    ("F8_E8M0", (96, 4), BLOCK_32),              # 1 x 64
    ("F8_E8M0", (96, 9), MX),
    ("U8", (3, 8), MX),                          # blocks, where the config says MXFP8
    ("F32", (96, 8), BLOCK_32),                  # 1 x 32 has E8M0 scales alone
    ("F32", (96, 2), CHANNEL),
    ("F32", (95, 1), CHANNEL),
    ("F32", (96, 1), BLOCK_32),                  # a row, where the config says blocks
    ("F8_E8M0", (96, 1), CHANNEL),
    ("F8_E8M0", (3, 8), None),                   # 32 x 32, which no config told
], ids=str)
def test_a_grid_that_does_not_fit_is_not_decoded(ckpt, tmp_path, dtype, grid, scheme):
    """Codes and scales stay tensors of their own, and whatever wants their values refuses."""
    data = np.ones(grid, np.float32 if dtype == "F32" else np.uint8)
    path = write(tmp_path / "in", np.zeros((96, 256), int), data,
                 (None, dtype, "_scale_inv", scheme, None))
    seen = ckpt("ckpt-inspect", "--json", "--logical", path).json
    assert sorted(t["name"] for t in seen["tensors"]) == [NAME, NAME + "_scale_inv"]
    assert any(NAME in note for note in seen["notes"])
    err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out", check=2).err
    assert f"'{NAME}'" in err and "not converted to another encoding" in err, err


@pytest.mark.parametrize("name", ["a row, F32 [n]", "a row, BF16", "MXFP8, weight_scale"])
def test_what_dcp_holds_is_the_same_and_comes_back_as_it_was(ckpt, tmp_path, name):
    codes, scales, factors = FORMS[name][0]()
    codes[:] = 0x38
    path = write(tmp_path / "in", codes, positive(scales, factors)[0], FORMS[name])
    dcp.save(safetensors_torch.load_file(path / "model.safetensors"),
             checkpoint_id=tmp_path / "dcp", no_dist=True)
    (tmp_path / "dcp/config.json").write_bytes((path / "config.json").read_bytes())
    assert ckpt("ckpt-verify", "compare", "--json", path, tmp_path / "dcp").json["same"]
    ckpt("ckpt-shard", "--layout", "hf", tmp_path / "dcp", tmp_path / "back")
    assert ckpt("ckpt-verify", "compare", "--json", path, tmp_path / "back").json["same"]


def test_fp8_in_other_blocks_stays_as_it_is(ckpt, tmp_path):
    codes, scales, _ = pairs_32()
    codes[:] = 0x38
    path = write(tmp_path / "in", codes, np.full_like(scales, 120), FORMS["32x32"])
    ckpt("ckpt-convert", "--dtype", "fp8", path, tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(path)
    err = ckpt("ckpt-convert", "--dtype", "fp8", "--scale-dtype", "f32",
               write(tmp_path / "mx", codes[:8], np.full((8, 256), 120),
                     FORMS["MXFP8, weight_scale"]), tmp_path / "no", check=2).err
    assert "mxfp8" in err or NAME in err
