/*
 * rules.c: the arithmetic of scales: DeepSeek's quantiser rules, and what FP4 -> FP8 -> FP4
 * preserves. Called once per block or group, so written for clarity, not for speed.
 */
#include "scale_rules.h"

float fp8_scale_pow2(float amax)
{
    return scale_power(scale_fp8_ceil(amax));
}

uint8_t fp4_scale_code(float amax)
{
    return (uint8_t)scale_fp4_ceil(amax);
}

int e8m0_from_f32_exact(float scale)
{
    return e8m0_exact(scale);
}

/* E2M1 magnitudes in halves: value = 0.5 * halves. */
static const unsigned fp4_halves[8] = { 0, 1, 2, 3, 4, 6, 8, 12 };

/*
 * A code becomes halves * 2^(5 - distance). E4M3 always has enough mantissa bits for it, so it
 * is exact when it is a multiple of the smallest subnormal, 2^-9: when halves * 2^(14 - distance)
 * is an integer.
 */
uint8_t fp4_exact_mask(unsigned distance)
{
    const unsigned lost_bits = distance > FP4_DISTANCE_EXACT ? distance - FP4_DISTANCE_EXACT : 0;
    unsigned mask = 0;

    for (unsigned c = 0; c < 8; c++) {
        const unsigned lost = lost_bits > 4 ? fp4_halves[c]
                                            : fp4_halves[c] & ((1u << lost_bits) - 1);

        mask |= (unsigned)(lost == 0) << c;
    }
    return (uint8_t)mask;
}

/* The code of 0.5 * halves, or -1 if E2M1 has no such value. */
static int fp4_code_of_halves(unsigned halves)
{
    for (int c = 0; c < 8; c++)
        if (fp4_halves[c] == halves)
            return c;
    return -1;
}

/* The largest code of a group after its scale is multiplied by 2^k; -1 if a value has no code. */
static int fp4_largest_code_rescaled(uint8_t mask, int k)
{
    int largest = 0;

    for (int c = 0; c < 8; c++) {
        int code;

        if (((mask >> c) & 1) == 0)
            continue;
        if (k > 0 && (fp4_halves[c] & ((1u << k) - 1)) != 0)
            return -1;
        code = fp4_code_of_halves(k > 0 ? fp4_halves[c] >> k : fp4_halves[c] << -k);
        if (code < 0)
            return -1;
        largest = code > largest ? code : largest;
    }
    return largest;
}

/* DeepSeek's quantiser leaves amax / scale in (3, 6], which rounds to 3, 4 or 6. */
static int fp4_code_is_canonical_max(int code)
{
    return code == 5 || code == 6 || code == 7;
}

/* Doubling all values keeps them in E2M1 until the largest is 4 or 6, which takes at most three
 * steps. So the search always ends at k = -3 or before. */
int fp4_canonical_offset(uint8_t mask)
{
    if ((mask & 0xFEu) == 0)
        return FP4_SCALE_LOST;
    for (int k = 3; k > -3; k--)
        if (fp4_code_is_canonical_max(fp4_largest_code_rescaled(mask, k)))
            return k;
    return -3;
}

/* The E2M1 code of magnitude / 2^(scale - 127), or -1 if that is not an E2M1 value. */
static int fp4_code_exact(float magnitude, int scale)
{
    static const float values[8] = { 0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f };
    const double unit = (double)e8m0_value((uint8_t)scale);

    for (int c = 0; c < 8; c++)
        if ((double)magnitude == (double)values[c] * unit)
            return c;
    return -1;
}

/* The largest code of the group under one scale; -1 if a value has no code. */
static int fp4_largest_code(const float magnitude[FP4_GROUP], int scale)
{
    int largest = 0;

    for (size_t i = 0; i < FP4_GROUP; i++) {
        const int code = fp4_code_exact(magnitude[i], scale);

        if (code < 0)
            return -1;
        largest = code > largest ? code : largest;
    }
    return largest;
}

/*
 * The largest value divided by the scale must be in 0.5 .. 6. So the scale is 2^-2 .. 2^1 times
 * the power of two in the largest value: four candidates, tried from the largest down. The last
 * one that fits gives the largest code.
 */
int fp4_group_scale_exact_scalar(const float *src)
{
    float magnitude[FP4_GROUP];
    float largest = 0.0f;
    int exponent;
    int found = -1;

    for (size_t i = 0; i < FP4_GROUP; i++) {
        uint32_t bits;

        memcpy(&bits, (const unsigned char *)src + i * sizeof bits, sizeof bits);
        bits &= ~F32_SIGN_BIT;
        if (bits >= F32_INF_BITS)
            return -1;
        magnitude[i] = f32_from_bits(bits);
        largest = magnitude[i] > largest ? magnitude[i] : largest;
    }
    if (largest == 0.0f)
        return 1;
    exponent = (int)(f32_bits(largest) >> 23);
    for (int scale = exponent + 1; scale >= exponent - 2 && scale >= 0; scale--) {
        const int code = scale < E8M0_NAN ? fp4_largest_code(magnitude, scale) : -1;

        if (code < 0)
            continue;
        if (scale == 0 && found == 1)       /* many readers treat code 0x00 as 0, not 2^-127 */
            return 1;
        if (fp4_code_is_canonical_max(code))
            return scale;
        found = scale;
    }
    return found;
}
