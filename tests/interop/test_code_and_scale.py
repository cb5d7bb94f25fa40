"""Every pair of code and scale byte, by NumPy's arithmetic: exact in each command, or refused.

A product is formed in float64, where it is exact, and rounded once to float32. What the tools do
with it must follow: the digest, both casts, both ways back, the comparison.
"""
import numpy as np
import pytest

from cli.kernels import tool      # noqa: F401
from corrupt.files import Model, Tensor, read_file, tensor_files
from interop.numpy_codes import e2m1, e4m3, e8m0

torch = pytest.importorskip("torch")
from interop import value_digest     # noqa: E402

FP4_NAME, FP8_NAME = "m.experts.0.up.weight", "m.o_proj.weight"
BYTES = np.arange(256)
FP4_BLOCK_ROWS = 17          # a row for each code, and one of all codes


# ---- the formats ----

def products(codes, scales):
    """The float32 values, and where factors are finite and the product is not."""
    with np.errstate(all="ignore"):
        values = (codes * scales).astype(np.float32)
    return values, np.isinf(values) & np.isfinite(codes) & np.isfinite(scales)


def is_bf16(values):
    return values.view(np.uint32) & 0xFFFF == 0


# ---- checkpoints ----

def fp4_checkpoint(path, codes, scales):
    """codes [rows, columns], scales [rows, columns / 32] as bytes."""
    model = Model()
    packed = (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8)
    model.files["model.safetensors"] = {
        FP4_NAME: Tensor("I8", list(packed.shape), packed.tobytes()),
        FP4_NAME + "_scale_inv": Tensor("F8_E8M0", list(scales.shape),
                                        scales.astype(np.uint8).tobytes())}
    return model.write(path)


def fp8_checkpoint(path, codes, scales):
    """scales: bytes of E8M0, or float32; [ceil(rows / 128), ceil(columns / 128)]."""
    model = Model()
    dtype = "F32" if scales.dtype == np.float32 else "F8_E8M0"
    data = (scales if dtype == "F32" else scales.astype(np.uint8)).tobytes()
    model.files["model.safetensors"] = {
        FP8_NAME: Tensor("F8_E4M3", list(codes.shape), codes.astype(np.uint8).tobytes()),
        FP8_NAME + "_scale_inv": Tensor(dtype, list(scales.shape), data)}
    return model.write(path)


def fp4_pairs():
    """Blocks of 128 columns share a byte; row r has code r alone, the last one has all."""
    codes = np.repeat(np.arange(FP4_BLOCK_ROWS)[:, None], 256 * 128, axis=1)
    codes[16] = np.tile(np.arange(16), 256 * 8)
    scales = np.repeat(BYTES, 4)[None].repeat(FP4_BLOCK_ROWS, axis=0)
    return codes, scales, e2m1(codes), e8m0(scales).repeat(32, axis=1)


def fp8_pairs():
    """Blocks of two rows hold each code once."""
    codes = np.arange(256).reshape(2, 128)
    codes = np.tile(codes, (1, 256))
    return codes, BYTES[None], e4m3(codes), e8m0(BYTES)[None].repeat(128, axis=1)


def stored(path, name):
    """(codes, scales as float64) of a tensor that was written."""
    tensors = {}
    for file in path.glob("*.safetensors"):
        tensors.update(read_file(file)[0])
    t = tensors[name]
    if t.dtype == "BF16":
        return np.frombuffer(t.data, np.uint16).reshape(t.shape), None
    s = tensors[name + "_scale_inv"]
    scales = (e8m0(np.frombuffer(s.data, np.uint8).astype(int)) if s.dtype == "F8_E8M0" else
              np.frombuffer(s.data, np.float32).astype(float)).reshape(s.shape)
    return np.frombuffer(t.data, np.uint8).reshape(t.shape).astype(int), scales


def check_digest(tool, path, name, values):
    root = value_digest.digest({name: torch.from_numpy(values)})[0]
    assert tool("ckpt-verify", "digest", "--json", path).json["root"] == root


def check_bf16(tool, path, target, name, values):
    """The cast is right bit by bit, and the way back with the scales returns the files."""
    tool("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", path, target)
    assert np.array_equal(stored(target, name)[0], values.view(np.uint32) >> 16)
    check_digest(tool, target, name, values)
    tool("ckpt-verify", "compare", path, target)
    back = target.with_name(target.name + "-back")
    tool("ckpt-convert", "--like", path, target, back)
    assert tensor_files(back) == tensor_files(path)


# ---- what is exact ----

def test_every_fp4_pair_has_the_digest_of_its_value(tool, tmp_path):
    codes, scales, numbers, factors = fp4_pairs()
    values, wrong = products(numbers, factors)
    assert wrong.any()
    codes[wrong] = 0
    values, wrong = products(e2m1(codes), factors)
    assert not wrong.any() and np.isnan(values).any() and (values[:, 0] != 0).any()
    check_digest(tool, fp4_checkpoint(tmp_path / "in", codes, scales), FP4_NAME, values)


def test_every_fp8_pair_has_the_digest_of_its_value(tool, tmp_path):
    codes, scales, numbers, factors = fp8_pairs()
    values, wrong = products(numbers, factors)
    assert wrong.any()
    codes[wrong] = 0
    values, _ = products(e4m3(codes), factors)
    check_digest(tool, fp8_checkpoint(tmp_path / "in", codes, scales), FP8_NAME, values)


def test_every_fp4_pair_that_is_a_value_is_exact_in_bf16_and_comes_back(tool, tmp_path):
    codes, scales, _, factors = fp4_pairs()
    scales[scales == 255] = 127
    factors[np.isnan(factors)] = 1
    codes[products(e2m1(codes), factors)[1]] = 0
    values, _ = products(e2m1(codes), factors)
    assert is_bf16(values).all()
    path = fp4_checkpoint(tmp_path / "in", codes, scales)
    check_bf16(tool, path, tmp_path / "bf16", FP4_NAME, values)


def test_every_fp8_pair_that_is_exact_in_bf16_comes_back(tool, tmp_path):
    codes, _, numbers, factors = fp8_pairs()
    values, wrong = products(numbers, factors)
    codes[wrong | np.isnan(values) | ~is_bf16(values)] = 0
    scales = np.where(BYTES == 255, 127, BYTES)[None]
    values, _ = products(e4m3(codes), e8m0(scales).repeat(128, axis=1))
    path = fp8_checkpoint(tmp_path / "in", codes, scales)
    check_bf16(tool, path, tmp_path / "bf16", FP8_NAME, values)


@pytest.mark.parametrize("scale_dtype", ["f32", "e8m0"])
def test_every_fp4_pair_keeps_its_value_in_fp8_and_comes_back(tool, tmp_path, scale_dtype):
    codes, scales, _, factors = fp4_pairs()
    scales[scales == 255] = 127
    factors[np.isnan(factors)] = 1
    codes[products(e2m1(codes), factors)[1]] = 0
    values, _ = products(e2m1(codes), factors)
    path = fp4_checkpoint(tmp_path / "in", codes, scales)
    tool("ckpt-convert", "--experts", "fp8", "--scale-dtype", scale_dtype, path, tmp_path / "fp8")
    fp8, fp8_scales = stored(tmp_path / "fp8", FP4_NAME)
    got, _ = products(e4m3(fp8), fp8_scales.repeat(128, axis=1))
    assert np.array_equal(got.view(np.uint32), values.view(np.uint32))
    check_digest(tool, tmp_path / "fp8", FP4_NAME, values)
    tool("ckpt-verify", "compare", path, tmp_path / "fp8")
    tool("ckpt-convert", "--experts", "fp4", tmp_path / "fp8", tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(path)


def test_fp4_groups_at_every_low_scale_and_distance_come_back(tool, tmp_path):
    """Groups of scale bytes 0 to 23 in one block: below 6 FP8's own scale is at its end."""
    lows = np.arange(24)
    scales = np.zeros((FP4_BLOCK_ROWS, 4 * 24 * 24), int)
    for top in lows:
        for low in lows:
            at = 4 * (24 * top + low)
            scales[:, at:at + 4] = [max(top, low), low, low, low]
    codes = np.repeat(np.arange(FP4_BLOCK_ROWS)[:, None], scales.shape[1] * 32, axis=1)
    codes[16] = np.tile(np.arange(16), scales.shape[1] * 2)
    # The first group of each block has the 4 that makes its scale the block's; what the others
    # lose on the way, by halves of the smallest FP8 code, is tested elsewhere.
    distance = (np.maximum(scales.reshape(FP4_BLOCK_ROWS, -1, 4).max(axis=2), 6).repeat(4, axis=1)
                - scales).repeat(32, axis=1)
    shifted = np.abs(e2m1(codes)) * 2.0 ** (6 - distance)
    codes[shifted % 2.0 ** -9 != 0] = 0
    path = fp4_checkpoint(tmp_path / "in", codes, scales)
    values, _ = products(e2m1(codes), e8m0(scales).repeat(32, axis=1))
    tool("ckpt-convert", "--experts", "fp8", path, tmp_path / "fp8")
    check_digest(tool, tmp_path / "fp8", FP4_NAME, values)
    tool("ckpt-convert", "--experts", "fp4", tmp_path / "fp8", tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(path)


def test_other_codes_of_every_scale_are_counted_as_values(tool, tmp_path):
    """Each code against the next one: a difference where NumPy says so, -0 and NaN alike."""
    codes, scales, numbers, factors = fp8_pairs()
    other = np.roll(codes, 1, axis=1)
    values, wrong = products(numbers, factors)
    other_values, other_wrong = products(e4m3(other), factors)
    codes[wrong | other_wrong] = other[wrong | other_wrong] = 0
    values, other_values = (products(e4m3(c), factors)[0] for c in (codes, other))
    differs = (values != other_values) & ~(np.isnan(values) & np.isnan(other_values))
    assert 0 < differs.sum() < differs.size
    said = tool("ckpt-verify", "compare", "--json",
                fp8_checkpoint(tmp_path / "a", codes, scales),
                fp8_checkpoint(tmp_path / "b", other, scales), check=1).json["differing"]
    assert [d["count"] for d in said] == [differs.sum()]
    row, col = np.argwhere(differs)[0]
    assert (said[0]["row"], said[0]["col"]) == (row, col)


# ---- what is refused ----

def element(code, number, scale, byte):
    return (f"row 0, column 5: code 0x{code:02X} ({number:g}) x scale {scale:.9g} "
            f"(0x{byte:02X})")


def wrong_pairs(decode, count):
    codes, scales = np.meshgrid(np.arange(count), BYTES, indexing="ij")
    wrong = products(decode(codes.ravel()), e8m0(scales.ravel()))[1]
    return list(zip(codes.ravel()[wrong], scales.ravel()[wrong]))


def one_fp4(path, code, byte):
    codes = np.zeros((1, 32), int)
    codes[0, 5] = code
    return fp4_checkpoint(path, codes, np.array([[byte]]))


def one_fp8(path, code, scale):
    codes = np.zeros((1, 32), int)
    codes[0, 5] = code
    return fp8_checkpoint(path, codes, np.array([[scale]]))


def commands(path, folder):
    return (("ckpt-verify", "digest", path), ("ckpt-verify", "compare", path, path),
            ("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", path, folder / "1"),
            ("ckpt-convert", "--dtype", "fp8", "--experts", "fp8", path, folder / "2"),
            ("ckpt-convert", "--no-digest", "--lenient", "--allow-lossy", path, folder / "3"))


def test_fp4_products_beyond_f32_are_refused_everywhere(ckpt, tmp_path):
    pairs = wrong_pairs(e2m1, 16)
    assert len(pairs) == 12
    for code, byte in pairs:
        path = one_fp4(tmp_path / f"{code}-{byte}", code, byte)
        said = element(code, e2m1(code), e8m0(byte), byte)
        for command in commands(path, tmp_path):
            err = ckpt(*command, check=2).err
            assert f"'{FP4_NAME}'" in err and said in err, err


def test_fp8_products_beyond_f32_are_refused_everywhere(ckpt, tmp_path):
    pairs = wrong_pairs(e4m3, 256)
    assert len(pairs) == 560
    for i, (code, byte) in enumerate(pairs):
        path = one_fp8(tmp_path / f"{code}-{byte}", code, byte)
        said = element(code, e4m3(np.array([code]))[0], e8m0(byte), byte)
        all_commands = commands(path, tmp_path)
        for command in all_commands if i % 16 == 0 else all_commands[:1]:
            err = ckpt(*command, check=2).err
            assert f"'{FP8_NAME}'" in err and said in err, err


def test_fp8_subnormals_that_bf16_lacks_are_refused_by_the_cast_alone(ckpt, tmp_path):
    codes, scales = (a.ravel() for a in np.meshgrid(np.arange(128), BYTES[:255], indexing="ij"))
    values, wrong = products(e4m3(codes), e8m0(scales))
    lacking = ~wrong & ~np.isnan(values) & ~is_bf16(values)
    assert set(scales[lacking]) == {0, 1, 2}
    for code, byte in zip(codes[lacking], scales[lacking]):
        path = one_fp8(tmp_path / f"{code}-{byte}", code, byte)
        err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out", check=2).err
        said = element(code, e4m3(np.array([code]))[0], e8m0(byte), byte).replace(
            "5: ", "5: F8_E4M3 128x128 F8_E8M0 ")
        assert said in err and "BF16" in err, err


# ---- F32 scales ----

F32_SCALES = np.array([
    2.0 ** -149, 3 * 2.0 ** -149, 2.0 ** -133, 2.0 ** -127, 1.5 * 2.0 ** -127, 2.0 ** -126,
    1e-30, 0.1, 1, 3, 2.0 ** 119, 1.14285712 * 2.0 ** 119, 1.1428572 * 2.0 ** 119, 2.0 ** 120,
    2.0 ** 127, 3.4028235e38], np.float32)
ODD_SCALES = np.array([np.nan, np.inf, -np.inf, 0, -0.0, -1, -2.0 ** -127], np.float32)


def f32_pairs(scales):
    codes = np.tile(np.arange(256).reshape(2, 128), (1, len(scales)))
    return codes, scales[None].astype(np.float64).repeat(128, axis=1)


def test_fp8_values_under_f32_scales_are_numpys(tool, tmp_path):
    """Not finite scales are factors like any other; only new infinities are refused."""
    scales = np.concatenate([F32_SCALES, ODD_SCALES])
    codes, factors = f32_pairs(scales)
    wrong = products(e4m3(codes), factors)[1]
    assert wrong.any()
    codes[wrong] = 0
    values, _ = products(e4m3(codes), factors)
    check_digest(tool, fp8_checkpoint(tmp_path / "in", codes, scales[None]), FP8_NAME, values)


def test_fp8_products_beyond_f32_are_refused_under_f32_scales(ckpt, tmp_path):
    codes, factors = f32_pairs(F32_SCALES)
    wrong = products(e4m3(codes), factors)[1]
    assert wrong.sum() > 200
    for row, col in np.argwhere(wrong)[::7]:
        code, scale = codes[row, col], F32_SCALES[col // 128]
        path = one_fp8(tmp_path / f"{row}-{col}", code, scale)
        number = e4m3(np.array([code]))[0]
        err = ckpt("ckpt-verify", "digest", path, check=2).err
        assert f"column 5: code 0x{code:02X} ({number:g}) x scale {scale:.9g} is beyond" in err, err


def test_f32_scales_cast_where_bf16_holds_the_product_and_come_back(tool, tmp_path):
    codes, factors = f32_pairs(F32_SCALES)
    values, wrong = products(e4m3(codes), factors)
    # Products that two codes share (by underflow) come back as one of them: leave those out.
    keep = ~wrong & ~np.isnan(values) & is_bf16(values) & (np.abs(factors) >= 2.0 ** -133)
    codes[~keep] = 0
    values, _ = products(e4m3(codes), factors)
    path = fp8_checkpoint(tmp_path / "in", codes, F32_SCALES[None])
    check_bf16(tool, path, tmp_path / "bf16", FP8_NAME, values)


@pytest.mark.parametrize("scale", ODD_SCALES)
def test_conversions_refuse_f32_scales_that_are_no_positive_numbers(ckpt, tmp_path, scale):
    path = one_fp8(tmp_path / "in", 0x38, scale)
    err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out", check=2).err
    assert "block [0, 0]" in err and "positive number" in err, err


@pytest.mark.parametrize("exponent", [-149, -133, -128, -127, -126, 0, 126, 127])
def test_f32_scales_become_e8m0_where_it_has_them(ckpt, digest, tmp_path, exponent):
    """0x00 is 2^-127: below it there is none."""
    path = one_fp8(tmp_path / "in", 0x38, np.float32(2.0 ** exponent))
    done = ckpt("ckpt-convert", "--dtype", "fp8", "--scale-dtype", "e8m0", path, tmp_path / "out",
                check=0 if exponent >= -127 else 2)
    if done.status == 2:
        assert "is not exact in F8_E8M0" in done.err
        return
    (file,) = tensor_files(tmp_path / "out")
    written = read_file(tmp_path / "out" / file)[0][FP8_NAME + "_scale_inv"]
    assert (written.dtype, written.data) == ("F8_E8M0", bytes([exponent + 127]))
    assert digest(tmp_path / "out") == digest(path)
