"""The value digest as ckpt-digest(7) defines it, in Python: no code of the tools, but libxxhash."""
import ctypes
import hashlib

import torch

UNIT = 1024
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32,
            torch.int64, torch.uint64, torch.bool)


class Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


xxhash = ctypes.CDLL("libxxhash.so.0")
xxhash.XXH3_128bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
xxhash.XXH3_128bits_withSeed.restype = Hash128


def floats(t):
    """F32 values, -0 as +0, one NaN."""
    f = t.to(torch.float32).clone()
    f[f == 0] = 0.0
    bits = f.view(torch.int32)
    bits[f.isnan()] = 0x7FC00000
    return f


def units(t, kind):
    """(its number, its bytes) of every unit."""
    columns = t.shape[-1] if t.dim() > 0 else 1
    per_row = (columns + UNIT - 1) // UNIT
    if columns == 0:
        return
    if kind == "int":
        whole = t.to(torch.int64).reshape(-1, columns).numpy()
    else:
        whole = floats(t).reshape(-1, columns).numpy().view("<u4")
        short = (whole >> 16).astype("<u2")
        is_short = whole & 0xFFFF == 0
    for u in range(per_row):
        part = slice(UNIT * u, UNIT * (u + 1))
        exact = None if kind == "int" else is_short[:, part].all(axis=1)
        for row in range(len(whole)):
            from_ = whole if exact is None or not exact[row] else short
            yield row * per_row + u, from_[row, part].tobytes()


def tensor_line(name, t):
    """(name, class, shape, hex) of a tensor that is not block-scaled."""
    kind = "int" if t.dtype in INTEGERS else "float"
    total = 0
    for number, data in units(t, kind):
        h = xxhash.XXH3_128bits_withSeed(data, len(data), number)
        total += h.high << 64 | h.low
    return name, kind, list(t.shape), f"{total % (1 << 128):032x}"


def digest(tensors):
    """What `ckpt-verify digest --json` should say: root and tensors."""
    lines = sorted((tensor_line(n, t) for n, t in tensors.items()), key=lambda x: x[0].encode())
    text = "".join(f"{n}\t{kind}\t{','.join(map(str, shape))}\t{value}\n"
                   for n, kind, shape, value in lines)
    return hashlib.sha256(text.encode()).hexdigest(), lines
