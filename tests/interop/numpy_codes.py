"""What codes and scale bytes stand for, by NumPy: float64 values of arrays of bytes."""
import numpy as np


def e2m1(codes):
    values = np.array([0, .5, 1, 1.5, 2, 3, 4, 6])
    return np.where(codes > 7, -1.0, 1.0) * values[codes & 7]


def e4m3(codes):
    codes = codes.astype(int)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    values = np.where(exponent == 0, mantissa * 2.0 ** -9,
                      (8 + mantissa) * 2.0 ** (exponent - 10.0))
    values[codes & 127 == 127] = np.nan
    return np.where(codes > 127, -1.0, 1.0) * values


def e8m0(codes):
    return np.where(codes == 255, np.nan, 2.0 ** (np.minimum(codes, 254) - 127.0))


def decoded(model, name):
    """The values of a weight of the official layout, by NumPy."""
    weight = model[name]
    codes = np.frombuffer(weight.data, np.uint8)
    rows = weight.shape[0]
    if weight.dtype == "BF16":
        return (codes.view("<u2").astype("<u4") << 16).view("<f4").reshape(rows, -1)
    scale = e8m0(np.frombuffer(model[name[:-6] + "scale"].data, np.uint8))
    if weight.dtype == "F8_E4M3":
        values = e4m3(codes).reshape(rows, -1)
        scale = scale.reshape((rows + 127) // 128, -1).repeat(128, 0)[:rows]
        return values * scale.repeat(128, 1)[:, :values.shape[1]]
    values = e2m1(np.stack([codes & 15, codes >> 4], -1)).reshape(rows, -1)
    return values * scale.reshape(rows, -1).repeat(32, 1)
