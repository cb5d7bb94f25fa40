"""Casts equal torch's: every kernel set against torch on the CPU, bit for bit.

The kernels are called through libkernels-test.so, which exports all of them. NaN payloads are
torch's own affair: where torch has a NaN, ours must be the NaN that kernels.h promises.
"""

import ctypes
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / os.environ.get("CKPT_BUILD", "build") / "tests" / "libkernels-test.so"

POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t
CODEC = ctypes.CFUNCTYPE(None, POINTER, POINTER, SIZE)
ROW = ctypes.CFUNCTYPE(None, POINTER, POINTER, SIZE, POINTER)


class EncodeResult(ctypes.Structure):
    _fields_ = [("inexact_count", ctypes.c_uint64), ("first_inexact", ctypes.c_uint64)]


class Kernels(ctypes.Structure):
    """ckpt_kernels, up to the last member that is called here."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("e4m3_to_f32", CODEC),
        ("e5m2_to_f32", CODEC),
        ("e8m0_to_f32", CODEC),
        ("e2m1_to_f32", CODEC),
        ("bf16_to_f32", CODEC),
        ("f16_to_f32", CODEC),
        ("f32_to_bf16", CODEC),
        ("f32_to_f16", CODEC),
        ("f32_to_e4m3", CODEC),
        ("f32_to_e5m2", CODEC),
        ("f32_to_e8m0", CODEC),
        ("f32_to_e2m1", CODEC),
        ("fp8_row_to_bf16", ROW),
        ("fp8_row_to_f32", ROW),
        ("fp4_row_to_bf16", ROW),
        ("fp4_row_to_f32", ROW),
        ("int4_row_to_f32", ROW),
        ("nvfp4_row_to_f32",
         ctypes.CFUNCTYPE(None, POINTER, POINTER, ctypes.c_float, SIZE, POINTER)),
        ("fp4_group_masks", ctypes.CFUNCTYPE(None, POINTER, SIZE, POINTER)),
        ("fp4_row_to_fp8",
         ctypes.CFUNCTYPE(None, POINTER, POINTER, SIZE, ctypes.c_int, POINTER)),
        ("f32_block_amax", ctypes.CFUNCTYPE(ctypes.c_float, POINTER, SIZE, SIZE, SIZE)),
        ("f32_block_to_fp8",
         ctypes.CFUNCTYPE(EncodeResult, POINTER, SIZE, SIZE, SIZE, ctypes.c_float, POINTER,
                          SIZE)),
    ]


@pytest.fixture(scope="module", params=["scalar", "avx2", "avx512"])
def kernels(request):
    if not LIBRARY.exists():
        pytest.fail(f"{LIBRARY} is missing: run make first")
    library = ctypes.CDLL(str(LIBRARY))
    library.kernels_find.restype = ctypes.POINTER(Kernels)
    library.kernels_find.argtypes = [ctypes.c_char_p]
    found = library.kernels_find(request.param.encode())
    if not found:
        pytest.skip(f"this CPU lacks {request.param}")
    assert found.contents.name.decode() == request.param
    return found.contents


def bits(tensor):
    """The bit patterns of a tensor as non-negative int64 numbers."""
    size = tensor.element_size()
    signed = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[size]
    return tensor.contiguous().view(signed).to(torch.int64) & ((1 << 8 * size) - 1)


def f32_from_bits(pattern):
    return torch.where(pattern >= 1 << 31, pattern - (1 << 32), pattern).to(
        torch.int32).view(torch.float32)


def assert_same(ours, theirs, our_nan):
    """Equal bits, and where torch has NaN the promised one."""
    nan = theirs.to(torch.float32).isnan()
    expected = torch.where(nan, our_nan, bits(theirs))
    wrong = (bits(ours) != expected).nonzero()
    assert len(wrong) == 0, (
        f"{len(wrong)} differ, first at {wrong[0].item()}: "
        f"{bits(ours)[wrong[0]].item():#x}, torch {expected[wrong[0]].item():#x}")


def run_codec(function, source, dtype):
    out = torch.empty(source.numel(), dtype=dtype)
    function(source.data_ptr(), out.data_ptr(), source.numel())
    return out


def signed_nan(codes, code_bits):
    return ((codes >> (code_bits - 1)) << 31) | 0x7FC00000


DECODED = [
    ("e4m3_to_f32", torch.float8_e4m3fn, lambda c: signed_nan(c, 8)),
    ("e5m2_to_f32", torch.float8_e5m2, lambda c: signed_nan(c, 8)),
    ("e8m0_to_f32", torch.float8_e8m0fnu, lambda c: torch.full_like(c, 0x7FC00000)),
    ("bf16_to_f32", torch.bfloat16, lambda c: c << 16),
    ("f16_to_f32", torch.float16,
     lambda c: signed_nan(c, 16) | ((c & 0x3FF) << 13)),
]


@pytest.mark.parametrize("name,dtype,nan", DECODED, ids=[d[0] for d in DECODED])
def test_every_code_decodes_as_in_torch(kernels, name, dtype, nan):
    wide = dtype.itemsize == 2
    codes = torch.arange(65536 if wide else 256)
    typed = codes.to(torch.int16 if wide else torch.uint8).view(dtype)
    ours = run_codec(getattr(kernels, name), typed, torch.float32)
    assert_same(ours, typed.to(torch.float32), nan(codes))


def boundary_values(dtype):
    """Every finite value of a format, the midpoints, and the F32 neighbours of both."""
    wide = dtype.itemsize == 2
    codes = torch.arange(65536 if wide else 256)
    values = codes.to(torch.int16 if wide else torch.uint8).view(dtype).to(torch.float64)
    values = values[values.isfinite()].unique()
    middles = (values[1:] + values[:-1]) / 2
    overflow = values[-1:] + (values[-1:] - values[-2:-1]) / 2
    points = torch.cat([values, middles, overflow, -overflow]).to(torch.float32)
    around = bits(points).unsqueeze(1) + torch.tensor([-2, -1, 0, 1, 2])
    return f32_from_bits(around.flatten() & 0xFFFFFFFF)


def random_values(count, seed):
    """Random bit patterns, half of them in the range where small formats have their values."""
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.randint(0, 1 << 32, (count,), generator=generator)
    near = (pattern & 0x87FFFFFF) | 0x38000000
    return f32_from_bits(torch.cat([pattern, near]))


SPECIAL = torch.tensor([
    0, 0x80000000, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001,
    0xFFFFFFFF, 0x7F7FFFFF, 0xFF7FFFFF, 0x00400000, 0x00400001, 0x00200000, 0x43E80000,
    0x43E80001, 0x477FF000, 0x477FEFFF])

ENCODED = [
    ("f32_to_bf16", torch.bfloat16, lambda u: torch.full_like(u, 0x7FC0)),
    ("f32_to_f16", torch.float16, lambda u: (u >> 31 << 15) | 0x7E00 | ((u >> 13) & 0x3FF)),
    ("f32_to_e4m3", torch.float8_e4m3fn, lambda u: (u >> 31 << 7) | 0x7F),
    ("f32_to_e5m2", torch.float8_e5m2, lambda u: (u >> 31 << 7) | 0x7F),
    ("f32_to_e8m0", torch.float8_e8m0fnu, lambda u: torch.full_like(u, 0xFF)),
]


@pytest.mark.parametrize("name,dtype,nan", ENCODED, ids=[e[0] for e in ENCODED])
def test_f32_encodes_as_in_torch(kernels, name, dtype, nan):
    values = torch.cat([boundary_values(dtype), random_values(500_000, seed=1),
                        f32_from_bits(SPECIAL)])
    theirs = values.to(dtype)
    if name == "f32_to_e4m3":       # overflow is NaN here and in torch 2.11, 448 from 2.12 on
        theirs = torch.where(values.abs() > 464, torch.tensor(torch.nan),
                             theirs.to(torch.float32)).to(dtype)
    ours = run_codec(getattr(kernels, name), values, dtype)
    assert_same(ours, theirs, nan(bits(values)))


def fp8_scales(blocks):
    """All 256 E8M0 values, then random F32 ones, infinities and NaN among them."""
    e8m0 = torch.arange(256).to(torch.uint8).view(torch.float8_e8m0fnu).to(torch.float32)
    ordinary = torch.rand(blocks // 2, generator=torch.Generator().manual_seed(2)) * 0.01
    any_bits = random_values(blocks // 4, seed=3)
    return torch.cat([e8m0, ordinary, any_bits])


@pytest.mark.parametrize("name,dtype,nan", [
    ("fp8_row_to_bf16", torch.bfloat16, 0x7FC0), ("fp8_row_to_f32", torch.float32, 0x7FC00000)])
def test_fp8_rows_dequantise_as_torch_arithmetic(kernels, name, dtype, nan):
    scale = fp8_scales(2000).repeat_interleave(2)       # two blocks of 128 hold all 256 codes
    codes = torch.arange(256).to(torch.uint8).repeat(len(scale) // 2)
    ours = torch.empty(codes.numel(), dtype=dtype)
    getattr(kernels, name)(codes.data_ptr(), scale.data_ptr(), codes.numel(), ours.data_ptr())
    product = codes.view(torch.float8_e4m3fn).to(torch.float32) * scale.repeat_interleave(128)
    assert_same(ours, product.to(dtype), torch.full((codes.numel(),), nan))


E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0,
                     -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


def fp4_packed(groups, seed):
    generator = torch.Generator().manual_seed(seed)
    packed = torch.randint(0, 256, (groups * 16,), generator=generator).to(torch.uint8)
    nibbles = torch.stack([packed & 15, packed >> 4], dim=1).flatten().to(torch.int64)
    return packed, nibbles


@pytest.mark.parametrize("name,dtype,nan", [
    ("fp4_row_to_bf16", torch.bfloat16, 0x7FC0), ("fp4_row_to_f32", torch.float32, 0x7FC00000)])
def test_fp4_rows_dequantise_as_torch_arithmetic(kernels, name, dtype, nan):
    scale = torch.arange(256).to(torch.uint8).repeat_interleave(16)
    packed, nibbles = fp4_packed(len(scale), seed=4)
    ours = torch.empty(nibbles.numel(), dtype=dtype)
    getattr(kernels, name)(packed.data_ptr(), scale.data_ptr(), nibbles.numel(),
                           ours.data_ptr())
    factor = scale.view(torch.float8_e8m0fnu).to(torch.float32).repeat_interleave(32)
    assert_same(ours, (E2M1[nibbles] * factor).to(dtype), torch.full_like(nibbles, nan))


@pytest.mark.parametrize("positive_zero", [0, 1])
def test_fp4_rows_become_fp8_as_in_torch(kernels, positive_zero):
    """DeepSeek's cast: table value times 2^(6 - d), then torch's cast; its table has no -0."""
    distance = torch.arange(64).to(torch.uint8).repeat_interleave(16)
    packed, nibbles = fp4_packed(len(distance), seed=5)
    ours = torch.empty(nibbles.numel(), dtype=torch.uint8)
    kernels.fp4_row_to_fp8(packed.data_ptr(), distance.data_ptr(), nibbles.numel(),
                           positive_zero, ours.data_ptr())
    table = E2M1.clone()
    if positive_zero:
        table[8] = 0.0
    factor = torch.exp2(6.0 - distance.to(torch.float32)).repeat_interleave(32)
    theirs = (table[nibbles] * factor).to(torch.float8_e4m3fn)
    assert torch.equal(ours, theirs.view(torch.uint8))


@pytest.mark.parametrize("scale", [2.0 ** -9, 0.0123, 1.0, 2.0 ** 20])
def test_fp8_blocks_quantise_as_in_torch(kernels, scale):
    rows, cols = 128, 128
    source = random_values(rows * cols // 2, seed=6)
    source = torch.where(source.isnan(), torch.tensor(1.0), source)
    divisor = torch.tensor(scale, dtype=torch.float32)
    ours = torch.empty(rows * cols, dtype=torch.uint8)
    result = kernels.f32_block_to_fp8(source.data_ptr(), rows, cols, cols, divisor.item(),
                                      ours.data_ptr(), cols)
    theirs = (source / divisor).clamp(-448.0, 448.0).to(torch.float8_e4m3fn)
    inexact = bits(theirs.to(torch.float32) * divisor) != bits(source)
    assert torch.equal(ours, theirs.view(torch.uint8))
    assert result.inexact_count == inexact.sum().item() > 0
    assert result.first_inexact == inexact.nonzero()[0].item()


def test_block_maximum_is_torch_amax(kernels):
    source = torch.randn(77, 130, generator=torch.Generator().manual_seed(7))
    assert kernels.f32_block_amax(source.data_ptr(), 77, 129, 130) == \
        source[:, :129].abs().amax().item()
