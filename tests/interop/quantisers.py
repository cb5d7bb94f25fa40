"""The quantisers of libckpt, called through libkernels-test.so; arrays are NumPy's."""
import ctypes
import os
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / os.environ.get("CKPT_BUILD", "build") / "tests" / "libkernels-test.so"
SETS = ("scalar", "avx2", "avx512")
RULES = ("fp8-b128-f32", "fp8-b128-f32-deepseek", "fp8-b128-ue8m0", "fp4-b32-deepseek",
         "fp4-b32-floor", "fp4-b32-even", "mxfp8-rceil", "mxfp8-floor", "nvfp4-modelopt",
         "fp8-channel")
DONE, NOT_FINITE, TOO_LARGE, TOO_SMALL = range(4)
POINTER, SIZE, PLACE = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64


class Rule(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("short_name", ctypes.c_char_p),
                ("codes", ctypes.c_int), ("block_rows", ctypes.c_uint32),
                ("block_cols", ctypes.c_uint32), ("scale_dtype", ctypes.c_int),
                ("scales", ctypes.c_int), ("powers_of_two", ctypes.c_int),
                ("has_tensor_scale", ctypes.c_int), ("from_fp4", ctypes.c_int),
                ("keeps_exact", ctypes.c_int), ("keeps_f32", ctypes.c_int),
                ("takes_fp8", ctypes.c_int)]


class Setup(ctypes.Structure):
    _fields_ = [("kernels", POINTER), ("rule", ctypes.POINTER(Rule)),
                ("tensor_scale", ctypes.c_float)]


class Panel(ctypes.Structure):
    _fields_ = [("values", POINTER), ("rows", SIZE), ("cols", SIZE), ("pitch", SIZE),
                ("kept", POINTER), ("first_row", PLACE), ("first_col", PLACE),
                ("original", POINTER), ("sticky", POINTER), ("sticky_pitch", SIZE),
                ("halves", POINTER)]


class Target(ctypes.Structure):
    _fields_ = [("codes", POINTER), ("codes_pitch", SIZE), ("scales", POINTER),
                ("scales_pitch", SIZE), ("scale_dtype", ctypes.c_int)]


class Result(ctypes.Structure):
    _fields_ = [("outcome", ctypes.c_int), ("row", PLACE), ("col", PLACE)]


class Loss(ctypes.Structure):
    _fields_ = [("elements", PLACE), ("blocks", PLACE), ("kept_blocks", PLACE),
                ("rounded", PLACE), ("saturated", PLACE),
                ("underflowed", PLACE), ("dropped_signs", PLACE),
                ("error_squares", ctypes.c_uint64 * 11), ("value_squares", ctypes.c_uint64 * 11),
                ("max_error", ctypes.c_float), ("max_row", PLACE), ("max_col", PLACE)]

    def sums(self):
        """Both sums of squares, as exactly as a double holds them."""
        return [float(sum(limb << 64 * i for i, limb in enumerate(limbs))) * 2.0 ** -352
                if any(limbs) else 0.0 for limbs in (self.error_squares, self.value_squares)]


def library():
    loaded = ctypes.CDLL(str(LIBRARY))
    loaded.kernels_find.restype = POINTER
    loaded.quantise_rule_find.restype = ctypes.POINTER(Rule)
    loaded.quantise_tensor_scale.restype = ctypes.c_float
    loaded.quantise_tensor_scale.argtypes = [ctypes.POINTER(Rule), ctypes.c_float]
    loaded.quantise_panel_run.restype = Result
    loaded.quantise_panel_run.argtypes = [ctypes.POINTER(t) for t in (Setup, Panel, Target, Loss)]
    loaded.quantise_find_kept.restype = ctypes.c_uint64
    loaded.quantise_find_kept.argtypes = [ctypes.POINTER(Setup), ctypes.POINTER(Panel), POINTER,
                                          POINTER]
    loaded.nvfp4_cast_tensor_scale.restype = ctypes.c_float
    loaded.nvfp4_cast_tensor_scale.argtypes = [ctypes.c_uint8]
    loaded.nvfp4_cast_scales.restype = SIZE
    loaded.nvfp4_cast_scales.argtypes = [POINTER, POINTER, SIZE, ctypes.c_uint8, POINTER]
    return loaded


LIB = library() if LIBRARY.exists() else None


class Quantiser:
    """One rule with one kernel set."""

    def __init__(self, rule, kernels, f32_scales=False):
        self.rule = LIB.quantise_rule_find(rule.encode())
        assert self.rule, rule
        self.kernels = LIB.kernels_find(kernels.encode())
        r = self.rule.contents
        f32 = LIB.quantise_rule_find(b"fp8-b128-f32").contents.scale_dtype
        self.scale_dtype = f32 if f32_scales else r.scale_dtype
        f16 = LIB.quantise_rule_find(b"q8_0").contents.scale_dtype
        self.scale_type = {f32: np.float32, f16: np.float16}.get(self.scale_dtype, np.uint8)
        self.codes_a_byte = 2 if r.codes == LIB.quantise_rule_find(b"fp4").contents.codes else 1
        self.block_rows, self.block_cols = r.block_rows, r.block_cols
        self.tensor_scale = np.float32(1)

    def take_amax(self, amax):
        self.tensor_scale = np.float32(LIB.quantise_tensor_scale(self.rule, float(amax)))

    def grid(self, rows, cols):
        width = min(self.block_cols, cols)
        return -(-rows // self.block_rows), -(-cols // width)

    def setup(self):
        return Setup(self.kernels, self.rule, float(self.tensor_scale))

    def run(self, values, kept=None, into=None):
        """(result, codes, scales, loss) of a matrix of F32, by panels of whole blocks."""
        values = np.ascontiguousarray(values, dtype=np.float32)
        rows, cols = values.shape
        codes, scales = into or (np.zeros((rows, cols // self.codes_a_byte), np.uint8),
                                 np.zeros(self.grid(rows, cols), self.scale_type))
        loss, result = Loss(), Result()
        step = self.block_rows if self.block_rows > 1 else max(rows, 1)
        for row in range(0, rows, step):
            block_row = row // self.block_rows
            panel = Panel(values[row:].ctypes.data, min(step, rows - row), cols, cols,
                          None if kept is None else kept[block_row:].ctypes.data, row, 0)
            target = Target(codes[row:].ctypes.data, codes.strides[0],
                            scales[block_row:].ctypes.data, scales.strides[0], self.scale_dtype)
            result = LIB.quantise_panel_run(self.setup(), panel, target, loss)
            if result.outcome != DONE:
                break
        return result, codes, scales, loss

    def find_kept(self, values, original):
        """A grid of 0 and 1, for a matrix of one block row, or blocks of one row."""
        values, original = (np.ascontiguousarray(a, dtype=np.float32) for a in (values, original))
        kept = np.full(self.grid(*values.shape), 7, np.uint8)
        panel = Panel(values.ctypes.data, *values.shape, values.shape[1], None, 0, 0)
        count = LIB.quantise_find_kept(self.setup(), panel, original.ctypes.data,
                                       kept.ctypes.data)
        assert count == kept.sum()
        return kept
