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
