/*
 * quantise_products.h: when values may be multiplied by the inverse of a divisor instead of divided
 * by it, so that all have the same codes. For quantise_pairs.h.
 */
#ifndef CKPT_KERNELS_QUANTISE_PRODUCTS_H
#define CKPT_KERNELS_QUANTISE_PRODUCTS_H

#include "avx2.h"
#include "quantise_chunk.h"

/* What a quotient is computed with, in lanes. */
typedef struct {
    __m256 divisor;
    __m256 inverse;
    __m256 rest;            /* see chunk_way */
} product_factors;

/* A number times the divisors, plus 8 units in the last place: if it is within so many of a BF16
 * value, then that is the high word, and the low one is less than 16. */
static inline __m256i product_limit(__m256 divisor, __m256 number)
{
    return _mm256_add_epi32(bits_of(_mm256_mul_ps(divisor, number)), set32(8));
}

/*
 * The lanes in which a product of some BF16 value may round otherwise than the quotient. Both are
 * at most 5 * 2^-24 away from the exact quotient. So they can differ only if that is as close to a
 * number between two codes, or, in other words, if the value is as close to such a number times the
 * divisor. These numbers are odd integers of mantissa_bits + 2 bits times powers of two; powers of
 * two times a value give the same result. So for each integer find the BF16 value that is close, if
 * there is one, and compare. A quotient that is such a number rounds to the even code, the one
 * above it if the integer is 3 modulo 4: `rounds_up`. With is_fused, products are added to the
 * number that rounds them without being rounded before.
 */
static inline __attribute__((always_inline))
__m256 products_differ(product_factors f, __m256 odd, __m256 rounds_up, int is_fused)
{
    const __m256 zero = _mm256_setzero_ps();
    const __m256i bits = product_limit(f.divisor, odd);
    const __m256i is_near = _mm256_cmpeq_epi32(_mm256_and_si256(bits, set32(0xFFF0)),
                                               _mm256_setzero_si256());
    const __m256 value = f32_of(_mm256_and_si256(bits, set32(0xFFFF0000u)));
    const __m256 quotient = _mm256_sub_ps(_mm256_div_ps(value, f.divisor), odd);
    const __m256 product = is_fused
        ? _mm256_fmsub_ps(value, f.inverse, odd)
        : _mm256_sub_ps(_mm256_fmadd_ps(value, f.inverse, _mm256_mul_ps(value, f.rest)), odd);
    const __m256 above = _mm256_xor_ps(_mm256_cmp_ps(quotient, zero, _CMP_GT_OQ),
                                       _mm256_cmp_ps(product, zero, _CMP_GT_OQ));
    const __m256 not_below = _mm256_xor_ps(_mm256_cmp_ps(quotient, zero, _CMP_GE_OQ),
                                           _mm256_cmp_ps(product, zero, _CMP_GE_OQ));

    return _mm256_and_ps(f32_of(is_near), _mm256_blendv_ps(above, not_below, rounds_up));
}

/* The largest BF16 value whose quotient is at most the largest code, as F32 bits: the limit
 * truncated, or, if it is near a BF16 value, that one or the one below. */
static inline __m256i product_largest(__m256 divisor, form f)
{
    const __m256 largest = _mm256_set1_ps(f.small.largest);
    const __m256i value = _mm256_and_si256(product_limit(divisor, largest), set32(0xFFFF0000u));
    const __m256 is_above = _mm256_cmp_ps(_mm256_div_ps(f32_of(value), divisor), largest,
                                          _CMP_GT_OQ);

    return _mm256_sub_epi32(value, _mm256_srli_epi32(_mm256_slli_epi32(bits_of(is_above), 31),
                                                     15));
}

/* 1 / divisor, and what it lacks: together an inverse of almost twice as many bits. */
static inline product_factors product_inverse(__m256 divisor)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 near = _mm256_div_ps(one, divisor);

    return (product_factors){ divisor, near,
                              _mm256_mul_ps(_mm256_fnmadd_ps(near, divisor, one), near) };
}

/* products_differ for the codes of E2M1. */
static inline __m256 e2m1_products_differ(product_factors f, int is_fused)
{
    __m256 differ = _mm256_setzero_ps();

    for (int odd = 1; odd < 8; odd += 2)
        differ = _mm256_or_ps(differ, products_differ(
            f, _mm256_set1_ps((float)odd), f32_of(set32(odd % 4 == 3 ? ~0u : 0)), is_fused));
    return differ;
}

/*
 * Scales have 8 significands, and so have their products with the tensor's scale: what belongs to
 * each is found once. For most tensors, one of the numbers next to the inverse makes products round
 * as quotients, for each significand; else the rest is needed. Where two values are near that need
 * different numbers even so, the divisor is made one that no block has.
 */
static __attribute__((noinline))
void find_significands(float tensor_scale, form f, significands *known)
{
    static const int nearby[] = { 0, 1, -1, 2, -2 };
    const __m256i eighths = _mm256_slli_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), 20);
    const __m256 scale = f32_of(_mm256_or_si256(set32(127 << 23), eighths));
    const product_factors inverse = product_inverse(_mm256_mul_ps(
        scale, _mm256_set1_ps(tensor_scale)));
    product_factors a = inverse;
    __m256 differ = f32_of(set32(~0u));

    for (size_t i = 0; i < sizeof nearby / sizeof *nearby; i++) {
        const __m256i other = _mm256_add_epi32(bits_of(inverse.inverse),
                                               set32((uint32_t)nearby[i]));

        a.inverse = _mm256_blendv_ps(a.inverse, f32_of(other), differ);
        differ = e2m1_products_differ(a, 1);
        if (_mm256_movemask_ps(differ) == 0)
            break;
    }
    known->needs_rest = _mm256_movemask_ps(differ) != 0;
    if (known->needs_rest) {
        a = inverse;
        differ = e2m1_products_differ(a, 0);
    }
    store256(known->divisor, _mm256_xor_si256(
        bits_of(a.divisor), _mm256_srli_epi32(bits_of(differ), 31)));
    store256(known->inverse, bits_of(a.inverse));
    store256(known->rest, bits_of(a.rest));
    store256(known->largest, product_largest(a.divisor, f));
}

#endif
