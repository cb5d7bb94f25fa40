/*
 * codecs.cuh: the element codecs of scalar.c and the scale rules of rules.c for the device. The
 * same code compiles for the host, where the tests compare it with scalar.c bit for bit.
 */
#ifndef CKPT_CUDA_CODECS_CUH
#define CKPT_CUDA_CODECS_CUH

#include <cstdint>
#include <cstring>

#define CUDA_BOTH static __host__ __device__ __forceinline__

CUDA_BOTH uint32_t cuda_bits(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

CUDA_BOTH float cuda_float(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- decode ---- */

/*
 * If a small float's exponent and mantissa bits are moved to those of an F32, the result is its
 * value times a power of two, also for subnormals; one exact multiplication corrects it. The code
 * is in the top bits of `word`; lower bits are ignored. E4M3's NaN becomes 480.
 */
CUDA_BOTH float cuda_e4m3_top(uint32_t word)
{
    return cuda_float((word & 0x80000000u) | (word >> 4 & 0x07F00000u)) * 0x1p120f;
}

CUDA_BOTH float cuda_e2m1_top(uint32_t word)
{
    return cuda_float((word & 0x80000000u) | (word >> 6 & 0x01C00000u)) * 0x1p126f;
}

CUDA_BOTH float cuda_e4m3(uint32_t code)
{
    if ((code & 0x7F) == 0x7F)
        return cuda_float((code & 0x80) << 24 | 0x7FC00000u);
    return cuda_e4m3_top(code << 24);
}

CUDA_BOTH float cuda_e5m2(uint32_t code)
{
    const uint32_t sign = (code & 0x80) << 24;
    const uint32_t magnitude = code & 0x7F;

    if (magnitude > 0x7C)
        return cuda_float(sign | 0x7FC00000u);
    if (magnitude == 0x7C)
        return cuda_float(sign | 0x7F800000u);
    if (magnitude < 4)
        return cuda_float(sign | cuda_bits((float)magnitude * 0x1p-16f));
    return cuda_float(sign | ((magnitude << 21) + (112u << 23)));
}

CUDA_BOTH float cuda_e2m1(uint32_t code)
{
    return cuda_e2m1_top(code << 28);
}

/* 2^-127 (code 0) is the only E8M0 value that is subnormal in F32. */
CUDA_BOTH float cuda_e8m0(uint32_t code)
{
    return cuda_float(code == 0 ? 0x00400000u : code == 0xFF ? 0x7FC00000u : code << 23);
}

CUDA_BOTH float cuda_f16(uint32_t code)
{
    const uint32_t sign = (code & 0x8000) << 16;
    const uint32_t magnitude = code & 0x7FFF;

    if (magnitude > 0x7C00)
        return cuda_float(sign | 0x7FC00000u | (magnitude & 0x3FF) << 13);
    if (magnitude == 0x7C00)
        return cuda_float(sign | 0x7F800000u);
    if (magnitude < 0x400)
        return cuda_float(sign | cuda_bits((float)magnitude * 0x1p-24f));
    return cuda_float(sign | ((magnitude << 13) + (112u << 23)));
}

CUDA_BOTH float cuda_bf16(uint32_t code)
{
    return cuda_float(code << 16);
}

/* Value of a code times scale; NaN becomes 0x7FC00000. */
CUDA_BOTH float cuda_product(float code, float scale)
{
    const float product = code * scale;

    return product != product ? cuda_float(0x7FC00000u) : product;
}

/* ---- encode ---- */

CUDA_BOTH uint32_t cuda_shift_even(uint32_t value, uint32_t shift)
{
    const uint32_t half = 1u << (shift - 1);

    return (value + half - 1 + ((value >> shift) & 1)) >> shift;
}

/* Round a finite magnitude to nearest even; overflow gives codes beyond the format's range. */
CUDA_BOTH uint32_t cuda_small(uint32_t magnitude, uint32_t mantissa_bits, uint32_t bias)
{
    const uint32_t exponent = magnitude >> 23;
    const uint32_t smallest_normal = 128 - bias;
    const uint32_t shift = 23 - mantissa_bits;

    if (exponent >= smallest_normal)
        return cuda_shift_even(magnitude - ((127 - bias) << 23), shift);
    if (shift + smallest_normal - exponent > 24)
        return 0;
    return cuda_shift_even((magnitude & 0x7FFFFFu) | 0x800000u,
                           shift + smallest_normal - exponent);
}

CUDA_BOTH uint32_t cuda_to_bf16(float value)
{
    const uint32_t bits = cuda_bits(value);

    return (bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0 : cuda_shift_even(bits, 16);
}

CUDA_BOTH uint32_t cuda_to_e4m3(float value)
{
    const uint32_t bits = cuda_bits(value);
    const uint32_t sign = bits >> 31 << 7;
    const uint32_t magnitude = bits & 0x7FFFFFFFu;

    return sign | (magnitude > 0x43E80000u ? 0x7F : cuda_small(magnitude, 3, 7));    /* 464 */
}

CUDA_BOTH uint32_t cuda_to_e2m1(float value)
{
    const uint32_t bits = cuda_bits(value);
    const uint32_t sign = bits >> 31 << 3;
    const uint32_t magnitude = bits & 0x7FFFFFFFu;

    if (magnitude > 0x7F800000u)
        return 7;
    return sign | (magnitude >= 0x40C00000u ? 7 : cuda_small(magnitude, 1, 1));      /* 6 */
}

/* ---- scale rules ---- */

CUDA_BOTH uint32_t cuda_ceil_log2(float x)
{
    const uint32_t bits = cuda_bits(x);

    return (bits >> 23) + ((bits & 0x7FFFFFu) != 0);
}

CUDA_BOTH float cuda_fp8_scale(float amax)
{
    return cuda_float(cuda_ceil_log2((amax > 1e-4f ? amax : 1e-4f) * (1.0f / 448.0f)) << 23);
}

CUDA_BOTH uint32_t cuda_fp4_scale(float amax)
{
    const float floor = 6 * 0x1p-126f;

    return cuda_ceil_log2((amax > floor ? amax : floor) * (1.0f / 6.0f));
}

#endif
