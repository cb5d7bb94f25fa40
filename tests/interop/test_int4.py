"""INT4 of compressed-tensors (pack-quantized): eight codes in a word, BF16 scales of 32, by NumPy.

Every code under every BF16 scale: inspect, digest, compare, casts with their counts, copies; and
what is not quite it.
"""
import json
import re
import struct

import numpy as np
import pytest

from cli.kernels import tool      # noqa: F401
from corrupt.files import Model, Tensor, read_file, tensor_files

torch = pytest.importorskip("torch")
from interop import value_digest     # noqa: E402

X = "m.o_proj"
WEIGHTS = {"type": "int", "num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": True,
           "dynamic": False, "actorder": None}
SCHEME = {"quant_method": "compressed-tensors", "format": "pack-quantized",
          "config_groups": {"group_0": {"targets": ["Linear"], "weights": WEIGHTS}}}


def scheme(**weights):
    return {**SCHEME, "config_groups": {"group_0": {"weights": {**WEIGHTS, **weights}}}}


def words(codes):
    """The words of codes 0..15: the first of eight in the low bits."""
    return (codes.reshape(len(codes), -1, 8).astype(np.uint32) <<
            np.arange(0, 32, 4, np.uint32)).sum(axis=-1, dtype=np.uint32)


def products(codes, scales):
    """Codes times scales given as BF16 bits, in F32; and where that alone is not finite."""
    factor = (scales.astype(np.uint32) << 16).view(np.float32).repeat(32, axis=1)
    with np.errstate(all="ignore"):
        values = (codes.astype(np.float32) - 8) * factor
    return values, ~np.isfinite(values) & np.isfinite(factor)


def stored(codes, scales, module=X, shape_dtype="I32"):
    packed = words(codes)
    number = {"I32": "<i4", "I64": "<i8"}[shape_dtype]
    return {f"{module}.weight_packed": Tensor("I32", list(packed.shape), packed.tobytes()),
            f"{module}.weight_scale": Tensor("BF16", list(scales.shape),
                                             scales.astype("<u2").tobytes()),
            f"{module}.weight_shape": Tensor(shape_dtype, [2],
                                             np.array(codes.shape, number).tobytes())}


def write(path, tensors, quantization=SCHEME):
    model = Model()
    model.config = {"model_type": "llama", "quantization_config": quantization}
    model.files["model.safetensors"] = tensors
    return model.write(path)


def every_pair():
    """Two groups for each BF16 scale, which hold each code twice, in orders of their own."""
    draw = np.random.default_rng(4)
    codes = np.tile(np.arange(16), (65536, 4))
    return draw.permuted(codes, axis=1), np.arange(65536)[:, None].repeat(2, axis=1)


def usable_pairs():
    """Without scales that are negative, infinite or NaN, or codes whose product overflows."""
    codes, scales = (part[:0x7F80] for part in every_pair())
    codes[products(codes, scales)[1]] = 8
    return codes, scales


def some():
    draw = np.random.default_rng(5)
    return draw.integers(0, 16, (40, 96)), draw.integers(0x3B00, 0x3D00, (40, 3))


def test_every_product_has_the_digest_of_its_value(tool, tmp_path):
    codes, scales = every_pair()
    codes[products(codes, scales)[1]] = 8
    values, wrong = products(codes, scales)
    assert not wrong.any()
    path = write(tmp_path / "in", stored(codes, scales))
    (seen,) = tool("ckpt-inspect", "--json", "--logical", path).json["tensors"]
    assert (seen["name"], seen["shape"], seen["encoding"]) == (
        X + ".weight", [65536, 64], "I4 1x32 BF16")
    root = value_digest.digest({X + ".weight": torch.from_numpy(values)})[0]
    assert tool("ckpt-verify", "digest", "--json", path).json["root"] == root


def test_f32_holds_all_of_them(tool, tmp_path):
    codes, scales = usable_pairs()
    values, wrong = products(codes, scales)
    assert not wrong.any() and (values.view(np.uint32) & 0xFFFF != 0).any()
    path = write(tmp_path / "in", stored(codes, scales))
    tool("ckpt-convert", "--dtype", "f32", "--verify", path, tmp_path / "out")
    (file,) = tensor_files(tmp_path / "out")
    written = read_file(tmp_path / "out" / file)[0]
    assert list(written) == [X + ".weight"] and written[X + ".weight"].dtype == "F32"
    assert written[X + ".weight"].data == values.tobytes()
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())
    tool("ckpt-verify", "compare", path, tmp_path / "out")


def test_bf16_has_the_nearest_values_and_their_count(tool, tmp_path):
    codes, scales = usable_pairs()
    rounded = torch.from_numpy(products(codes, scales)[0]).to(torch.bfloat16)
    codes[rounded.isinf().numpy()] = 8                  # beyond the range: refused, not rounded
    values = products(codes, scales)[0]
    rounded = torch.from_numpy(values).to(torch.bfloat16)
    count = int((rounded.to(torch.float32).numpy().view(np.uint32) !=
                 values.view(np.uint32)).sum())
    assert count > 0
    path = write(tmp_path / "in", stored(codes, scales))
    report = tmp_path / "report.json"
    said = tool("ckpt-convert", "--dtype", "bf16", "--allow-lossy", "--verify", "--report", report,
                path, tmp_path / "out")
    assert f"{count} values were rounded" in said.out + said.err, said
    (file,) = tensor_files(tmp_path / "out")
    (written,) = read_file(tmp_path / "out" / file)[0].values()
    assert written.dtype == "BF16"
    assert written.data == rounded.view(torch.int16).numpy().tobytes()
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())


def test_bf16_without_consent_is_refused_by_element(ckpt, tmp_path):
    codes, scales = np.full((4, 32), 11), np.full((4, 1), 0x3F81)         # 3 x 1.0078125
    path = write(tmp_path / "in", stored(codes, scales))
    err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out", check=2).err
    assert f"'{X}.weight', row 0, column 0" in err and "not exact in BF16" in err, err
    assert "--allow-lossy" in err and not (tmp_path / "out").exists()


def test_exact_values_need_no_consent(ckpt, tmp_path):
    draw = np.random.default_rng(6)
    codes, scales = draw.integers(0, 16, (40, 96)), draw.integers(60, 190, (40, 3)) << 7
    path = write(tmp_path / "in", stored(codes, scales))
    ckpt("ckpt-convert", "--dtype", "bf16", "--verify", path, tmp_path / "out")
    ckpt("ckpt-verify", "compare", path, tmp_path / "out")


@pytest.mark.parametrize("shape_dtype", ["I32", "I64"])
def test_a_copy_is_the_same_bytes_and_another_code_differs(ckpt, tmp_path, shape_dtype):
    codes, scales = some()
    path = write(tmp_path / "in", stored(codes, scales, shape_dtype=shape_dtype))
    ckpt("ckpt-convert", "--verify", path, tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(path)
    assert (tmp_path / "out/config.json").read_bytes() == (path / "config.json").read_bytes()
    codes[3, 40] = 5 if codes[3, 40] != 5 else 6
    other = write(tmp_path / "other", stored(codes, scales))
    said = ckpt("ckpt-verify", "compare", "--json", path, other, check=1).json["differing"]
    assert [(d["name"], d["row"], d["col"]) for d in said] == [(X + ".weight", 3, 40)]


def test_codes_lie_as_compressed_tensors_packs_them(ckpt, tmp_path):
    """pack_to_int32 of compressed-tensors 0.20.1 gives these words for -8 .. 7, twice."""
    packed = np.array([[0x76543210, -19088744] * 2], "<i4")
    tensors = {X + ".weight_packed": Tensor("I32", [1, 4], packed.tobytes()),
               X + ".weight_scale": Tensor("BF16", [1, 1], b"\x00\x3f"),
               X + ".weight_shape": Tensor("I32", [2], np.array([1, 32], "<i4").tobytes())}
    path = write(tmp_path / "in", tensors)
    ckpt("ckpt-convert", "--dtype", "f32", path, tmp_path / "out")
    (file,) = tensor_files(tmp_path / "out")
    (written,) = read_file(tmp_path / "out" / file)[0].values()
    assert np.frombuffer(written.data, np.float32).tolist() == [v / 2 for v in range(-8, 8)] * 2


def test_many_tiles_and_units(tool, tmp_path):
    """Rows far beyond one tile, columns beyond one unit."""
    draw = np.random.default_rng(3)
    codes, scales = draw.integers(0, 16, (700, 2080)), draw.integers(0, 0x7000, (700, 65))
    path = write(tmp_path / "in", stored(codes, scales))
    root = value_digest.digest({X + ".weight": torch.from_numpy(products(codes, scales)[0])})[0]
    assert tool("ckpt-verify", "digest", "--json", path).json["root"] == root
    tool("ckpt-convert", "--verify", path, tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(path)


@pytest.mark.parametrize("where", ["row", "column"])
@pytest.mark.parametrize("how", ["digest", "compare", "convert", "f32", "stat", "values"])
def test_other_numbers_of_the_shape_are_refused(ckpt, tmp_path, where, how):
    codes, scales = some()
    tensors = stored(codes, scales)
    numbers = [40 + (where == "row"), 96 - (where == "column")]
    tensors[X + ".weight_shape"].data = np.array(numbers, "<i4").tobytes()
    path, out = write(tmp_path / "in", tensors), tmp_path / "out"
    err = ckpt(*{"digest": ("ckpt-verify", "digest", path),
                 "stat": ("ckpt-inspect", "--stat", path),
                 "values": ("ckpt-verify", "check", "--values", path),
                 "compare": ("ckpt-verify", "compare", path, path),
                 "convert": ("ckpt-convert", path, out),
                 "f32": ("ckpt-convert", "--dtype", "f32", path, out)}[how], check=2).err
    assert f"'{X}.weight'" in err and "[40, 96]" in err and str(numbers) in err, err
    assert not out.exists()


def test_products_beyond_f32_are_refused(ckpt, tmp_path):
    codes, scales = np.full((4, 96), 9), np.full((4, 3), 0x3F80)
    codes[2, 40], scales[2, 1] = 2, 0x7F00
    path = write(tmp_path / "in", stored(codes, scales))
    err = ckpt("ckpt-verify", "digest", path, check=2).err
    row, col = map(int, re.search(r"row (\d+), column (\d+): code", err).groups())
    assert (row, col) == (2, 40) and "beyond the range of F32" in err, err


@pytest.mark.parametrize("bits", [0x7FC0, 0xFFC0, 0x7F80, 0xBF80], ids=hex)
def test_a_scale_that_is_none_is_refused_where_values_are_wanted(ckpt, tmp_path, bits):
    codes, scales = some()
    scales[2, 1] = bits
    path = write(tmp_path / "in", stored(codes, scales))
    err = ckpt("ckpt-convert", "--dtype", "f32", path, tmp_path / "out", check=2).err
    assert f"'{X}.weight', block [2, 1]" in err, err


NOT_QUITE = {
    "scales of something else": {"weight_scale": Tensor("BF16", [40, 2], bytes(160))},
    "scales of another dtype": {"weight_scale": Tensor("F16", [40, 3], bytes(240))},
    "rows of no whole groups": {"weight_packed": Tensor("I32", [40, 9], bytes(1440)),
                                "weight_shape": Tensor("I32", [2], struct.pack("<2i", 40, 72))},
    "words of another width": {"weight_packed": Tensor("I32", [40, 11], bytes(1760))},
    "words of 64 bits": {"weight_packed": Tensor("I64", [40, 6], bytes(1920))},
    "three numbers": {"weight_shape": Tensor("I32", [3], bytes(12))},
    "numbers of another dtype": {"weight_shape": Tensor("F32", [2], bytes(8))},
    "zero points": {"weight_zero_point": Tensor("I32", [5, 3], bytes(60))},
    "an order of columns": {"weight_g_idx": Tensor("I32", [96], bytes(384))},
}


def not_quite(change):
    tensors = stored(*some())
    tensors.update({f"{X}.{name}": tensor for name, tensor in change.items()})
    return tensors


@pytest.mark.parametrize("change", NOT_QUITE.values(), ids=[n.replace(" ", "-") for n in NOT_QUITE])
def test_what_is_not_quite_it_is_not_decoded(ckpt, tmp_path, change):
    tensors = not_quite(change)
    path = write(tmp_path / "in", tensors)
    seen = ckpt("ckpt-inspect", "--json", "--logical", path).json
    assert sorted(t["name"] for t in seen["tensors"]) == sorted(tensors)
    err = ckpt("ckpt-convert", "--dtype", "f32", path, tmp_path / "out", check=2).err
    assert f"'{path}'" in err or f"'{X}.weight_packed'" in err, err
    assert "or --dtype bf16 or f32" not in err, err               # what was asked for
    ckpt("ckpt-convert", path, tmp_path / "copy")
    assert tensor_files(tmp_path / "copy") == tensor_files(path)


@pytest.mark.parametrize("quantization", [
    scheme(symmetric=False), scheme(actorder="group"), scheme(actorder="weight"),
    scheme(num_bits=8), scheme(group_size=128), scheme(strategy="channel"),
    {**SCHEME, "format": "marlin-24"}, {"quant_method": "gptq"}, None], ids=str)
def test_without_the_words_of_the_config_it_is_not_decoded(ckpt, tmp_path, quantization):
    path = write(tmp_path / "in", stored(*some()), quantization)
    seen = ckpt("ckpt-inspect", "--json", "--logical", path).json
    assert len(seen["tensors"]) == 3
    assert any("integers packed in words" in note for note in seen["notes"]), seen["notes"]
    ckpt("ckpt-convert", "--dtype", "f32", path, tmp_path / "out", check=2)


def test_a_dtype_that_files_do_not_have_is_refused(ckpt, tmp_path):
    path = tmp_path / "x.safetensors"
    text = b'{"a":{"dtype":"I4","shape":[2,32],"data_offsets":[0,32]}}'
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(32))
    assert "unknown dtype 'I4'" in ckpt("ckpt-inspect", path, check=2).err
