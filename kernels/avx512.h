/*
 * avx512.h: helpers that the AVX-512 files share: lanes, rounding to small floats, FP4 nibbles.
 */
#ifndef CKPT_KERNELS_AVX512_H
#define CKPT_KERNELS_AVX512_H

#include <immintrin.h>

#include "internal.h"

/* avx512_codecs.c */
void e4m3_to_f32_avx512(const uint8_t *src, float *dst, size_t count);
void e5m2_to_f32_avx512(const uint8_t *src, float *dst, size_t count);
void e8m0_to_f32_avx512(const uint8_t *src, float *dst, size_t count);
void e2m1_to_f32_avx512(const uint8_t *packed, float *dst, size_t count);
void bf16_to_f32_avx512(const uint16_t *src, float *dst, size_t count);
void f16_to_f32_avx512(const uint16_t *src, float *dst, size_t count);
void f32_to_bf16_avx512(const float *src, uint16_t *dst, size_t count);
void f32_to_f16_avx512(const float *src, uint16_t *dst, size_t count);
void f32_to_e4m3_avx512(const float *src, uint8_t *dst, size_t count);
void f32_to_e5m2_avx512(const float *src, uint8_t *dst, size_t count);
void f32_to_e8m0_avx512(const float *src, uint8_t *dst, size_t count);
void f32_to_e2m1_avx512(const float *src, uint8_t *packed, size_t count);

/* avx512_rows.c */
void fp8_row_to_bf16_avx512(const uint8_t *codes, const float *scale, size_t cols, uint16_t *dst);
void fp8_row_to_f32_avx512(const uint8_t *codes, const float *scale, size_t cols, float *dst);
void fp4_row_to_bf16_avx512(const uint8_t *packed, const uint8_t *scale, size_t cols,
                            uint16_t *dst);
void fp4_row_to_f32_avx512(const uint8_t *packed, const uint8_t *scale, size_t cols, float *dst);
void int4_row_to_f32_avx512(const uint8_t *packed, const uint16_t *scale, size_t cols, float *dst);
void nvfp4_row_to_f32_avx512(const uint8_t *packed, const float *scale, float factor, size_t cols,
                             float *dst);
void fp4_row_counts_avx512(const uint8_t *packed, const uint8_t *scale, size_t cols,
                           fp4_counts *counts);

/* avx512_digest.c */
void digest_row_bf16_avx512(const uint16_t *src, size_t cols, uint64_t first_unit, hash128 *sum);
void digest_row_f32_avx512(const float *src, size_t cols, uint64_t first_unit, hash128 *sum);
void digest_row_fp8_avx512(const uint8_t *codes, const float *scale, size_t cols,
                           uint64_t first_unit, hash128 *sum);
void digest_row_fp4_avx512(const uint8_t *packed, const uint8_t *scale, size_t cols,
                           uint64_t first_unit, hash128 *sum);

enum { LANES = 16 };    /* F32 values in one register */

/* A mask of the first min(count, 16) lanes. */
static inline __mmask16 first16(size_t count)
{
    return (__mmask16)_bzhi_u32(0xFFFF, (unsigned)size_min(count, 16));
}

static inline __mmask32 first32(size_t count)
{
    return (__mmask32)_bzhi_u32(~0u, (unsigned)size_min(count, 32));
}

static inline __m512i bits_of(__m512 value)
{
    return _mm512_castps_si512(value);
}

static inline __m512 f32_of(__m512i bits)
{
    return _mm512_castsi512_ps(bits);
}

static inline __m512i set32(uint32_t value)
{
    return _mm512_set1_epi32((int)value);
}

static inline __m512i set16(uint32_t value)
{
    return _mm512_set1_epi16((short)value);
}

static inline __mmask16 nan_lanes(__m512 value)
{
    return _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
}

/* Lanes of `mask` become the quiet NaN with the lane's own sign: (value & sign) | NaN. */
static inline __m512 nan_with_sign(__m512 value, __mmask16 mask)
{
    return f32_of(_mm512_mask_ternarylogic_epi32(bits_of(value), mask, set32(F32_SIGN_BIT),
                                                 set32(F32_NAN_BITS), 0xEA));
}

/*
 * E4M3 shifted left by 7 is the F16 of the same value times 2^-8, subnormals included, because
 * the exponent bias is 15 instead of 7. Only the NaN codes come out as the number 480.
 */
static inline __m256i e4m3_as_f16(__m256i sign_extended)
{
    return _mm256_and_si256(_mm256_slli_epi16(sign_extended, 7),
                            _mm256_set1_epi16((short)0xBFFF));
}

static inline __m512 e2m1_values(void)
{
    return _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f,
                          -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
}

/* Eight packed bytes select 16 table entries; vpermps uses the low four bits of a lane. */
static inline __m512 e2m1_lookup(__m128i packed, __m512 table)
{
    const __m512i bytes = _mm512_cvtepu8_epi64(packed);
    const __m512i index = _mm512_or_si512(bytes, _mm512_slli_epi64(bytes, 28));

    return _mm512_permutexvar_ps(index, table);
}

/* Round to nearest even in the upper `32 - shift` bits; lower bits of the result are garbage. */
static inline __m512i round_even(__m512i bits, unsigned shift)
{
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, shift), set32(1));

    return _mm512_add_epi32(_mm512_add_epi32(bits, set32((1u << (shift - 1)) - 1)), odd);
}

/* The result of rounding to a small float: the code, and its value. */
typedef struct {
    __m512i code;
    __m512 value;
} rounded;

/*
 * Round a magnitude that is not NaN to nearest even. Subnormals of the target are multiples of a
 * fixed step: adding 2^23 steps makes the F32 addition round to a multiple of it.
 */
static inline rounded round_small(__m512 magnitude, unsigned mantissa_bits, unsigned bias)
{
    const unsigned shift = 23 - mantissa_bits;
    const __m512 magic = f32_of(set32((151 - bias - mantissa_bits) << 23));
    const __m512 lifted = _mm512_add_ps(magnitude, magic);
    const __m512i normal = round_even(bits_of(magnitude), shift);
    const __m512i rebias = set32((127 - bias) << 23);
    const __mmask16 tiny = _mm512_cmp_ps_mask(magnitude, f32_of(set32((128 - bias) << 23)),
                                              _CMP_LT_OQ);
    rounded r;

    r.code = _mm512_srli_epi32(_mm512_sub_epi32(normal, rebias), shift);
    r.code = _mm512_mask_sub_epi32(r.code, tiny, bits_of(lifted), bits_of(magic));
    r.value = f32_of(_mm512_and_si512(normal, set32(~0u << shift)));
    r.value = _mm512_mask_sub_ps(r.value, tiny, lifted, magic);
    return r;
}

/* code | (bits >> shift & sign_bit): put the sign of `bits` on top of a code. */
static inline __m512i with_sign(__m512i code, __m512i bits, unsigned shift, uint32_t sign_bit)
{
    return _mm512_ternarylogic_epi32(code, _mm512_srli_epi32(bits, shift), set32(sign_bit), 0xF8);
}

/* Pack 16 codes, one per lane, into eight bytes. */
static inline __m128i e2m1_pack(__m512i code)
{
    return _mm512_cvtepi64_epi8(_mm512_or_si512(code, _mm512_srli_epi64(code, 28)));
}

#endif
