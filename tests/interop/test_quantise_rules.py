"""Named rules give the codes and scales of the code that they are named after, bit for bit.

Golden vectors (tests/data/quantise) are of slime, miles, torchao and ModelOpt. Live: torchao's
to_mx, and the other rules as their own projects write them in torch.
"""
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from interop import quantisers
from interop.quantisers import DONE, NOT_FINITE, TOO_LARGE, TOO_SMALL, RULES, SETS, Quantiser

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

DATA = quantisers.ROOT / "tests/data/quantise"
GROUPS = 327_680            # of 32: more than 10^7 values
SUMS = 5e-7                 # how exact sums of squares are: partial sums are F32


@pytest.fixture(scope="module", params=SETS)
def kernels(request):
    if quantisers.LIB is None:
        pytest.fail(f"{quantisers.LIBRARY} is missing: run make tests first")
    if not quantisers.LIB.kernels_find(request.param.encode()):
        pytest.skip(f"this CPU lacks {request.param}")
    return request.param


def load(name):
    return safetensors_torch.load_file(DATA / f"{name}.safetensors")


INPUTS = load("inputs")
VECTORS = load("vectors")


def stored(tensor):
    """Codes and scales as NumPy arrays of bytes or F32."""
    return (tensor if tensor.dtype == torch.float32 else tensor.view(torch.uint8)).numpy()


def same(got, expected):
    """Equal bits: F32 as integers."""
    kind = np.uint32 if expected.dtype == np.float32 else np.uint8
    np.testing.assert_array_equal(got.view(kind), np.ascontiguousarray(expected).view(kind))


# ---- golden vectors ----

@pytest.mark.parametrize("rule", [r for r in RULES if r != "mxfp8-floor"])     # has no vector
def test_golden_normal_input(kernels, rule):
    x = INPUTS["normal"].float().numpy()
    q = Quantiser(rule, kernels)
    q.take_amax(np.abs(x).max())
    result, codes, scales, _ = q.run(x)
    assert result.outcome == DONE
    same(codes, stored(VECTORS[f"{rule}/normal/codes"]))
    same(scales, stored(VECTORS[f"{rule}/normal/scale"]).reshape(scales.shape))
    if rule == "nvfp4-modelopt":
        same(q.tensor_scale[None], stored(VECTORS[f"{rule}/normal/scale2"]).reshape(1))


# What the largest BF16 becomes: 4 * 2^126 where the scale is a power of two that is rounded up.
OVERFLOWS = {"fp8-b128-ue8m0", "fp4-b32-deepseek", "mxfp8-rceil", "fp4-b32-even"}
OUTLIER = 2


@pytest.mark.parametrize("rule", [r for r in RULES if r != "fp8-channel"])
def test_golden_edge_input(kernels, rule):
    x = INPUTS["edge"].float().numpy()
    q = Quantiser(rule, kernels)
    q.take_amax(np.abs(x).max())
    for tile in range(8):
        cut = slice(128 * tile, 128 * (tile + 1))
        result, codes, scales, _ = q.run(x[:, cut])
        if tile == OUTLIER and rule in OVERFLOWS:
            assert result.outcome == TOO_LARGE
            continue
        assert result.outcome == DONE
        width = scales.shape[1]
        bytes_wide = codes.shape[1]
        same(scales, stored(VECTORS[f"{rule}/edge/scale"])[:, width * tile:width * (tile + 1)])
        same(codes, stored(VECTORS[f"{rule}/edge/codes"])[:, bytes_wide * tile:
                                                           bytes_wide * (tile + 1)])


def test_golden_edge_input_by_channel(kernels):
    result, codes, scales, _ = Quantiser("fp8-channel", kernels).run(INPUTS["edge"].float())
    assert result.outcome == DONE
    same(codes, stored(VECTORS["fp8-channel/edge/codes"]))
    same(scales, stored(VECTORS["fp8-channel/edge/scale"]))


@pytest.mark.parametrize("rule", RULES)
def test_nan_and_infinity_are_refused_with_their_place(kernels, rule):
    bad = INPUTS["nonfinite"].float().numpy()
    rows, cols = np.nonzero(~np.isfinite(bad))
    assert len(rows) >= 3
    for row, col in zip(rows, cols):
        x = np.random.default_rng(1).normal(size=(200, 512)).astype(np.float32)
        x[row + 130, col + 17] = bad[row, col]
        result = Quantiser(rule, kernels).run(x)[0]
        assert (result.outcome, result.row, result.col) == (NOT_FINITE, row + 130, col + 17)


def test_a_code_beyond_bf16_is_refused_with_its_place(kernels):
    for rule in OVERFLOWS:
        x = np.full((3, 256), 0.5, np.float32)
        x[2, 200] = np.float32(3.98 * 2.0 ** 126)
        result = Quantiser(rule, kernels).run(x)[0]
        assert (result.outcome, result.row, result.col) == (TOO_LARGE, 2, 200), rule


def test_values_that_f32_cannot_scale_are_refused(kernels):
    x = np.full((2, 64), 1e-43, np.float32)
    q = Quantiser("nvfp4-modelopt", kernels)
    q.take_amax(x.max())
    assert q.run(x)[0].outcome == TOO_SMALL


def test_a_tensor_of_zeros_has_scales_of_one(kernels):
    q = Quantiser("nvfp4-modelopt", kernels)
    q.take_amax(0.0)
    result, codes, scales, loss = q.run(np.zeros((2, 64), np.float32))
    assert result.outcome == DONE and q.tensor_scale == 1.0
    assert (codes == 0).all() and (scales == 0x38).all()
    assert loss.sums() == [0.0, 0.0] and loss.rounded == 0


def test_powers_of_two_are_stored_as_f32_too(kernels):
    x = INPUTS["normal"].float().numpy()
    _, codes, scales, _ = Quantiser("fp8-b128-ue8m0", kernels).run(x)
    _, same_codes, f32, _ = Quantiser("fp8-b128-ue8m0", kernels, f32_scales=True).run(x)
    same(same_codes, codes)
    same(f32, np.ldexp(np.float32(1), scales.astype(np.int32) - 127).astype(np.float32))


# ---- live ----

def random_values():
    """10^7 values, half of them BF16: groups of all magnitudes, ties of the rounding, zeros."""
    draw = np.random.default_rng(20261129)
    x = draw.standard_normal((GROUPS, 32)).astype(np.float32)
    x *= np.ldexp(np.float32(1), draw.integers(-100, 100, (GROUPS, 1))).astype(np.float32)
    half = GROUPS // 2
    x[:half] = torch.from_numpy(x[:half]).bfloat16().float().numpy()
    ties = np.array([0, -0.0, .25, .75, 1.25, 1.75, 2.5, 3.5, 5, 6, 7, 7.97, -.1, -.25, 448, 464],
                    np.float32)
    x[:1000] = draw.choice(ties, (1000, 32)) * \
        np.ldexp(np.float32(1), draw.integers(-60, 60, (1000, 1))).astype(np.float32)
    x[1000:1010] = 0
    return x


VALUES = random_values()


def check_by_panels(kernels, rule, x, codes, scales):
    result, got_codes, got_scales, _ = Quantiser(rule, kernels).run(x)
    assert result.outcome == DONE
    same(got_scales, scales.reshape(got_scales.shape))
    same(got_codes, codes)


@pytest.fixture(scope="module")
def torchao(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchao")
    np.save(folder / "in.npy", VALUES)
    worker = pathlib.Path(__file__).with_name("torchao_worker.py")
    done = subprocess.run([sys.executable, worker, folder / "in.npy", folder / "out.npz"],
                          capture_output=True, text=True)
    assert done.returncode == 0, f"torchao: run scripts/setup --tests\n{done.stderr[-2000:]}"
    return np.load(folder / "out.npz")


@pytest.mark.parametrize("rule", ["fp4-b32-floor", "fp4-b32-even", "fp4-b32-deepseek",
                                  "mxfp8-rceil", "mxfp8-floor"])
def test_as_torchao(kernels, rule, torchao):
    scales = torchao[f"{rule}/scale"]
    if rule == "fp4-b32-deepseek":      # torchao's RCEIL has no floor: zeros have byte 0 there
        is_zero = ~VALUES.any(axis=1, keepdims=True)
        assert is_zero.any() and (scales[is_zero] == 0).all()
        scales = np.where(is_zero, 1, scales).astype(np.uint8)
    check_by_panels(kernels, rule, VALUES, torchao[f"{rule}/codes"], scales)


def e4m3(x):
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)


def blocks(x):
    """[row of blocks, 128, column of blocks, 128] of a matrix of whole blocks."""
    return x.view(x.shape[0] // 128, 128, x.shape[1] // 128, 128)


def fp8_block(x, scale_of):
    tiles = blocks(x)
    scale = scale_of(tiles.abs().amax(dim=(1, 3), keepdim=True))
    return e4m3(tiles / scale).view(x.shape).numpy(), scale.view(scale.shape[0], -1)


# slime tools/convert_hf_to_fp8.py#block_fp8; VeOmni act_quant.py#fp8_weight_quant
SCALES = {
    "fp8-b128-f32": lambda a: a.clamp(min=1e-12) / 448.0,
    "fp8-b128-f32-deepseek": lambda a: a.clamp(min=1e-4) * np.float32(1 / 448),
    "fp8-b128-ue8m0": lambda a: torch.exp2(torch.ceil(torch.log2(
        (a.clamp(min=1e-4) * np.float32(1 / 448)).double()))).float(),
}


def matrix(rows, cols):
    """Part of VALUES as a matrix of BF16 values whose tiles differ in magnitude."""
    draw = torch.Generator().manual_seed(5)
    x = torch.from_numpy(VALUES.reshape(-1)[:rows * cols].reshape(rows, cols).copy())
    x = torch.frexp(x).mantissa * torch.exp2(torch.randint(-8, 1, x.shape, generator=draw).float())
    grid = torch.randint(-40, 40, (rows // 128, 1, cols // 128, 1), generator=draw).float()
    return (blocks(x) * torch.exp2(grid)).reshape(rows, cols).bfloat16()


@pytest.mark.parametrize("rule", SCALES)
def test_fp8_blocks_as_torch(kernels, rule):
    x = matrix(2560, 4096).float()
    if rule == "fp8-b128-f32":          # the floor is of the input's dtype, BF16
        codes, scales = fp8_block(x, lambda a: a.bfloat16().clamp(min=1e-12).float() / 448.0)
    else:
        codes, scales = fp8_block(x, SCALES[rule])
    scales = scales.numpy()
    if rule == "fp8-b128-ue8m0":
        scales = (scales.view(np.uint32) >> 23).astype(np.uint8)
    check_by_panels(kernels, rule, x.numpy(), codes, scales)


def test_fp8_channels_as_torch(kernels):
    x = matrix(2560, 4096).float()
    scale = x.abs().amax(dim=1, keepdim=True).bfloat16().clamp(min=1e-12).float() / 448.0
    check_by_panels(kernels, "fp8-channel", x.numpy(), e4m3(x / scale).numpy(), scale.numpy())


def e2m1_modelopt(x):
    """Codes of Model-Optimizer's NVFP4QTensor: the sign of what is below 0 only."""
    bounds = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    magnitude = x.abs()
    code = torch.searchsorted(bounds, magnitude)
    ties = torch.isin(magnitude, bounds[[1, 3, 5]])     # those go up, to the even code
    code = code + ties + 8 * (x < 0)
    return code.to(torch.uint8)


@pytest.mark.parametrize("exponent", [-60, -6, 0, 60])
def test_nvfp4_as_torch(kernels, exponent):
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(640, 4096, generator=draw) * 2.0 ** exponent
    x = (x * torch.exp2(torch.randint(-20, 1, (640, 256, 1), generator=draw).float())
         .expand(-1, -1, 16).reshape(640, 4096)).bfloat16().float()
    x[:, :64] = 0.0
    x[:, 64:80] = -0.0
    tensor_scale = x.abs().max() / 2688.0
    tiles = x.view(640, 256, 16)
    per_block = tiles.abs().amax(dim=2, keepdim=True) / (6.0 * tensor_scale)
    per_block[per_block == 0] = 1.0
    stored_scale = per_block.clamp(2.0 ** -9, 448.0).to(torch.float8_e4m3fn)
    codes = e2m1_modelopt(tiles / (stored_scale.float() * tensor_scale)).view(640, 4096)
    packed = codes[:, 0::2] | codes[:, 1::2] << 4
    q = Quantiser("nvfp4-modelopt", kernels)
    q.take_amax(x.abs().max())
    result, got_codes, got_scales, _ = q.run(x.numpy())
    assert result.outcome == DONE and q.tensor_scale == tensor_scale.numpy()
    same(got_scales, stored_scale.view(torch.uint8).view(640, 256).numpy())
    same(got_codes, packed.numpy())


# ---- the loss ----

def decoded(q, codes, scales, cols):
    """y as F32: code x scale, then x the tensor's scale."""
    from interop import numpy_codes
    if q.codes_a_byte == 2:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(codes.shape[0], -1)
    values = numpy_codes.e2m1(codes) if q.codes_a_byte == 2 else numpy_codes.e4m3(codes)
    if scales.dtype == np.uint8:
        scales = numpy_codes.e4m3(scales) if q.block_cols == 16 else numpy_codes.e8m0(scales)
    width = min(q.block_cols, cols)
    grid = np.repeat(np.repeat(scales.astype(np.float32), q.block_rows, axis=0), width, axis=1)
    return (values.astype(np.float32) * grid[:codes.shape[0], :cols]) * q.tensor_scale, grid


@pytest.mark.parametrize("rule", RULES)
def test_the_loss_is_what_numpy_finds(kernels, rule):
    x = np.ascontiguousarray(matrix(384, 1024).float().numpy()[:300, :992])
    x[5, 7] = -0.0
    x[7:9, ::37] *= 1e-6
    q = Quantiser(rule, kernels)
    q.take_amax(np.abs(x).max())
    result, codes, scales, loss = q.run(x)
    y, grid = decoded(q, codes, scales, 992)
    divisor = grid[:300, :992] * q.tensor_scale
    error = y.astype(np.float64) - x
    errors, values = loss.sums()
    assert result.outcome == DONE and loss.elements == x.size
    assert loss.blocks == scales.size and loss.kept_blocks == 0
    assert loss.rounded == np.count_nonzero(error)
    largest = np.float32(448 if q.codes_a_byte == 1 else 6)
    assert loss.saturated == np.count_nonzero(np.abs(x / divisor) > largest)
    assert loss.underflowed == np.count_nonzero((y == 0) & (x != 0)) > 0
    dropped = np.signbit(x) & (x == 0) & (rule == "nvfp4-modelopt")
    assert loss.dropped_signs == np.count_nonzero(dropped)
    assert errors == pytest.approx(np.sum(error ** 2), rel=SUMS)
    assert values == pytest.approx(np.sum(x.astype(np.float64) ** 2), rel=SUMS)
    worst = np.abs(error.astype(np.float32))
    assert loss.max_error == worst.max()
    assert worst[loss.max_row, loss.max_col] == worst.max()


@pytest.mark.parametrize("exponent", (-100, -70, -39, 58, 61, 80))
@pytest.mark.parametrize("rule", RULES)
def test_the_loss_of_small_and_large_values_is_what_numpy_finds(kernels, rule, exponent):
    """Their squares, or those of their errors, are beyond F32."""
    x = np.ldexp(matrix(128, 1024).float().numpy(), exponent)
    q = Quantiser(rule, kernels)
    q.take_amax(np.abs(x).max())
    result, codes, scales, loss = q.run(x)
    error = decoded(q, codes, scales, 1024)[0].astype(np.float64) - x
    assert result.outcome == DONE
    assert loss.sums() == pytest.approx([np.sum(error ** 2), np.sum(x.astype(np.float64) ** 2)],
                                        rel=SUMS)


@pytest.mark.parametrize("rule", RULES)
def test_a_small_error_among_exact_values_is_in_the_loss(kernels, rule):
    x = np.ones((128, 1024), np.float32)
    x[:, ::128] = 6 if "fp4" in rule else 448
    x[77, 901] = 1e-25
    q = Quantiser(rule, kernels)
    if rule == "nvfp4-modelopt":            # scales are then 2^7
        q.tensor_scale = np.float32(2.0 ** -7)
        x[:, ::16] = 6
    result, _, _, loss = q.run(x)
    assert result.outcome == DONE and loss.rounded == loss.underflowed == 1
    assert loss.sums()[0] == pytest.approx(float(np.float32(1e-25)) ** 2, rel=SUMS)


@pytest.mark.parametrize("rule", RULES)
def test_every_set_finds_the_same_loss(kernels, rule):
    x = matrix(384, 1024).float().numpy()[:300, :992]
    losses = []
    for name in ("scalar", kernels):
        q = Quantiser(rule, name)
        q.take_amax(np.abs(x).max())
        losses.append(bytes(q.run(x)[3]))
    assert losses[0] == losses[1]


# ---- exact where unchanged ----

@pytest.mark.parametrize("rule, name", [("fp8-b128-ue8m0", "fp8"), ("fp4-b32-deepseek", "fp4")])
def test_unchanged_blocks_keep_their_bytes(kernels, rule, name):
    data = load("like")
    trained = data[f"{name}/trained"].float().numpy()
    q = Quantiser(rule, kernels)
    original, plain, expected = (
        tuple(stored(data[f"{name}/{which}.{part}"]).copy() for part in ("codes", "scale"))
        for which in ("orig", "plain", "expect"))
    result, codes, scales, _ = q.run(trained)
    assert result.outcome == DONE
    same(codes, plain[0])
    same(scales, plain[1])
    kept = q.find_kept(trained, decoded(q, *original, trained.shape[1])[0])
    _, codes, scales, loss = q.run(trained, kept, original)
    same(codes, expected[0])
    same(scales, expected[1])
    assert loss.kept_blocks == kept.sum() == (1 if name == "fp8" else 14)
    assert loss.blocks == kept.size


def test_a_sign_of_zero_and_a_nan_are_changes(kernels):
    q = Quantiser("fp4-b32-deepseek", kernels)
    x = np.ones((2, 128), np.float32)
    y = x.copy()
    x[0, 40], y[0, 40] = 0.0, -0.0
    x[1, 0] = y[1, 0] = np.nan
    x[1, 127] = 1.001                   # the same BF16
    assert q.find_kept(x, y).tolist() == [[1, 0, 1, 1], [0, 1, 1, 1]]


# ---- nvfp4-cast ----

def test_fp4_becomes_nvfp4_by_exponents(kernels):
    data = load("nvfp4-cast")
    scale, weight = stored(data["in/scale"]), stored(data["in/weight"])
    largest = int(scale.max())
    golden = stored(data["modelopt/weight_scale"])
    assert np.float32(quantisers.LIB.nvfp4_cast_tensor_scale(largest)) == \
        data["modelopt/weight_scale_2"].item()
    groups = np.stack([weight & 7, weight >> 4 & 7], axis=-1).reshape(4, 4, 32)
    masks = np.bitwise_or.reduce(1 << groups, axis=2).astype(np.uint8)
    refused = 0
    for row in range(4):
        for group in range(4):
            got = np.zeros(2, np.uint8)
            fits = quantisers.LIB.nvfp4_cast_scales(
                scale[row, group:].ctypes.data, masks[row, group:].ctypes.data, 1, largest,
                got.ctypes.data)
            is_zero = masks[row, group] & 0xFE == 0
            within = scale[row, group] > 0 and largest - scale[row, group] <= 17
            assert fits == (within or is_zero)
            refused += not fits
            if fits:
                same(got, golden[row, 2 * group:2 * group + 2])
    assert refused > 0
