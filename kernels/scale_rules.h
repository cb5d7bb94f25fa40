/*
 * scale_rules.h: the arithmetic of scale_rule (quantise_rows.h), branch-free, so that compilers
 * vectorise loops over it. Sources: DeepSeek-V4 inference/kernel.py (CEIL with floors on a), OCP
 * Microscaling Formats 1.0 section 6.3 (FLOOR), torchao prototype/mx_formats (RCEIL, EVEN),
 * NVIDIA Model-Optimizer qtensor/nvfp4_tensor.py (NVFP4), slime tools/convert_hf_to_fp8.py
 * (QUOTIENT), VeOmni deepseek_v4/act_quant.py (PRODUCT).
 */
#ifndef CKPT_KERNELS_SCALE_RULES_H
#define CKPT_KERNELS_SCALE_RULES_H

#include "internal.h"

#define FP8_LEAST_QUOTIENT f32_from_bits(0x2B8D0000u)       /* 1e-12 rounded to BF16 */
#define FP8_LEAST_PRODUCT 1e-4f
#define FP4_LEAST (6 * 0x1p-126f)

/* a > b ? a : b for b > 0, with masks: compilers would make a branch of it, since b is constant. */
static inline float f32_max(float a, float b)
{
    const uint32_t bits = f32_bits(a);
    const uint32_t least = f32_bits(b);
    const uint32_t larger = -(uint32_t)((bits > least) & (bits <= F32_INF_BITS));

    return f32_from_bits((bits & larger) | (least & ~larger));
}

/* CEIL: any mantissa bit rounds the exponent up. Subnormals (exponent field 0) round up to 2^-127,
 * whose bits are 0x400000, or to 2^-126: hence the limit. */
static inline uint32_t scale_ceil(float v)
{
    const uint32_t bits = f32_bits(v);
    const uint32_t limit = bits >= 0x800000u ? 0 : 0x400000u;

    return (bits >> 23) + ((bits & 0x7FFFFFu) > limit);
}

static inline uint32_t scale_floor(uint32_t bits, uint32_t k)
{
    const uint32_t exponent = bits >> 23;

    return exponent > k ? exponent - k : 0;
}

static inline uint32_t scale_fp8_ceil(float amax)
{
    return scale_ceil(f32_max(amax, FP8_LEAST_PRODUCT) * (1.0f / 448.0f));
}

static inline uint32_t scale_fp4_ceil(float amax)
{
    return scale_ceil(f32_max(amax, FP4_LEAST) * (1.0f / 6.0f));
}

/* As torchao: add 0.25 to the mantissa, so that 1.75 and more carry into the exponent; overflow
 * becomes NaN. */
static inline uint32_t scale_fp4_even(float amax)
{
    const uint32_t bits = f32_bits(amax) + 0x200000u;

    return bits >= F32_INF_BITS ? E8M0_NAN : scale_floor(bits, 2);
}

/* An E8M0 code other than NaN as F32. 2^-127 is subnormal: its bits are 0x400000. */
static inline float scale_power(uint32_t code)
{
    return f32_from_bits(code == 0 ? 0x400000u : code << 23);
}

#endif
