"""NumPy arrays as tensors of libckpt."""
import ctypes

import numpy as np

from . import _native
from ._native import lib

# NumPy's names of dtypes, those of the package ml_dtypes among them, and libckpt's.
DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "int32": "I32",
    "uint32": "U32", "int64": "I64", "uint64": "U64", "float16": "F16", "float32": "F32",
    "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}


class ArraySource:
    """A source of libckpt whose rows are those of arrays, which stay alive with it."""

    def __init__(self, arrays):
        self.rows = []
        structs = (_native.TensorStruct * max(1, len(arrays)))()
        for struct, (name, array) in zip(structs, arrays.items()):
            self._add(struct, name, np.asarray(array))
        self.functions = _native.SourceFunctions(read=_native.READ(self._read))
        self.handle = _native.make(lib.ckpt_source_create, structs, len(arrays),
                                   ctypes.byref(self.functions))

    def _add(self, struct, name, array):
        if array.dtype.name not in DTYPES:
            raise _native.UsageError(f"array '{name}' is {array.dtype}, expected one of "
                                     f"{', '.join(sorted(DTYPES))}")
        if array.ndim > _native.RANK_MAX:
            raise _native.UsageError(f"array '{name}' has {array.ndim} dimensions, expected at "
                                     f"most {_native.RANK_MAX}")
        struct.name = name.encode()
        struct.dtype = lib.ckpt_dtype_find(DTYPES[array.dtype.name].encode())
        struct.rank = array.ndim
        struct.shape[:array.ndim] = array.shape
        array = np.ascontiguousarray(array)
        row_bytes = (array.shape[-1] if array.ndim else 1) * array.itemsize
        self.rows.append((array, row_bytes))

    def _read(self, _context, tensor, _part, row, count, out, _err):
        array, row_bytes = self.rows[tensor]
        ctypes.memmove(out, array.ctypes.data + row * row_bytes, count * row_bytes)
        return 0

    def free(self):
        lib.ckpt_source_free(self.handle)


class OneTensor:
    """A source of one tensor of another source."""

    def __init__(self, source, index):
        self.struct = lib.ckpt_catalog_at(lib.ckpt_source_catalog(source), index)
        self.functions = _native.SourceFunctions(read=_native.READ(
            lambda _context, _tensor, part, row, count, out, err:
            lib.ckpt_source_read(source, index, part, row, count, out, err)))
        self.handle = _native.make(lib.ckpt_source_create, self.struct, 1,
                                   ctypes.byref(self.functions))

    def free(self):
        lib.ckpt_source_free(self.handle)
