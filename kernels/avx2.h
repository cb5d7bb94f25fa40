/*
 * avx2.h: helpers that the AVX2 files share: lanes, rounding to small floats, FP4 nibbles.
 */
#ifndef CKPT_KERNELS_AVX2_H
#define CKPT_KERNELS_AVX2_H

#include <immintrin.h>

#include "internal.h"

/* avx2_codecs.c */
void e4m3_to_f32_avx2(const uint8_t *src, float *dst, size_t count);
void e5m2_to_f32_avx2(const uint8_t *src, float *dst, size_t count);
void e8m0_to_f32_avx2(const uint8_t *src, float *dst, size_t count);
void e2m1_to_f32_avx2(const uint8_t *packed, float *dst, size_t count);
void bf16_to_f32_avx2(const uint16_t *src, float *dst, size_t count);
void f16_to_f32_avx2(const uint16_t *src, float *dst, size_t count);
void f32_to_bf16_avx2(const float *src, uint16_t *dst, size_t count);
void f32_to_f16_avx2(const float *src, uint16_t *dst, size_t count);
void f32_to_e4m3_avx2(const float *src, uint8_t *dst, size_t count);
void f32_to_e5m2_avx2(const float *src, uint8_t *dst, size_t count);
void f32_to_e8m0_avx2(const float *src, uint8_t *dst, size_t count);
void f32_to_e2m1_avx2(const float *src, uint8_t *packed, size_t count);

/* avx2_digest.c */
void digest_row_bf16_avx2(const uint16_t *src, size_t cols, uint64_t first_unit, hash128 *sum);
void digest_row_fp4_avx2(const uint8_t *packed, const uint8_t *scale, size_t cols,
                         uint64_t first_unit, hash128 *sum);

enum { LANES = 8 };     /* F32 values in one register */

static inline __m256i bits_of(__m256 value)
{
    return _mm256_castps_si256(value);
}

static inline __m256 f32_of(__m256i bits)
{
    return _mm256_castsi256_ps(bits);
}

static inline __m256i set32(uint32_t value)
{
    return _mm256_set1_epi32((int)value);
}

static inline __m256i set16(uint32_t value)
{
    return _mm256_set1_epi16((short)value);
}

static inline __m256i load256(const void *src)
{
    return _mm256_loadu_si256((const __m256i *)src);
}

static inline __m128i load128(const void *src)
{
    return _mm_loadu_si128((const __m128i *)src);
}

static inline void store256(void *dst, __m256i value)
{
    _mm256_storeu_si256((__m256i *)dst, value);
}

/* Load the last `size` bytes of a unit, fewer than a register, followed by zeros. */
static inline __m256i load_tail(const void *src, size_t size)
{
    uint8_t bytes[32] = { 0 };

    memcpy(bytes, src, size);
    return load256(bytes);
}

static inline __m256 magnitude_of(__m256 value)
{
    return f32_of(_mm256_and_si256(bits_of(value), set32(~F32_SIGN_BIT)));
}

/* All ones in the lanes that hold NaN. */
static inline __m256i nan_lanes(__m256 value)
{
    return bits_of(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
}

/* `yes` in the lanes where `mask` is all ones, `no` elsewhere. */
static inline __m256i choose(__m256i mask, __m256i yes, __m256i no)
{
    return _mm256_blendv_epi8(no, yes, mask);
}

/*
 * E4M3 shifted left by 7 is the F16 of the same value times 2^-8, subnormals included, because
 * the exponent bias is 15 instead of 7. Only the NaN codes come out as the number 480.
 */
static inline __m128i e4m3_as_f16(__m128i sign_extended)
{
    return _mm_and_si128(_mm_slli_epi16(sign_extended, 7), _mm_set1_epi16((short)0xBFFF));
}

static inline __m256 e2m1_magnitudes(void)
{
    return _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
}

/* Four packed bytes select eight table entries, whose signs change where a code has one; `sign` is
 * the sign bit, or 0 to keep them. */
static inline __m256 e2m1_lookup(const uint8_t *packed, __m256 table, __m256i sign)
{
    const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    uint32_t bytes;
    __m256i code;

    memcpy(&bytes, packed, sizeof bytes);
    code = _mm256_srlv_epi32(set32(bytes), shifts);     /* vpermps looks at three bits */
    return _mm256_xor_ps(_mm256_permutevar8x32_ps(table, code),
                         f32_of(_mm256_and_si256(_mm256_slli_epi32(code, 28), sign)));
}

/* Round to nearest even in the upper `32 - shift` bits; lower bits of the result are garbage. */
static inline __m256i round_even(__m256i bits, int shift)
{
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, shift), set32(1));

    return _mm256_add_epi32(_mm256_add_epi32(bits, set32((1u << (shift - 1)) - 1)), odd);
}

/* The result of rounding to a small float: the code, and its value. */
typedef struct {
    __m256i code;
    __m256 value;
} rounded_lanes;

/*
 * Round a magnitude that is not NaN to nearest even. Subnormals of the target are multiples of a
 * fixed step: adding 2^23 steps makes the F32 addition round to a multiple of it.
 */
static inline rounded_lanes round_small(__m256 magnitude, unsigned mantissa_bits, unsigned bias)
{
    const int shift = (int)(23 - mantissa_bits);
    const __m256 magic = f32_of(set32((151 - bias - mantissa_bits) << 23));
    const __m256 lifted = _mm256_add_ps(magnitude, magic);
    const __m256i normal = round_even(bits_of(magnitude), shift);
    const __m256i rebias = set32((127 - bias) << 23);
    const __m256i tiny = bits_of(_mm256_cmp_ps(magnitude, f32_of(set32((128 - bias) << 23)),
                                               _CMP_LT_OQ));
    rounded_lanes r;

    r.code = choose(tiny, _mm256_sub_epi32(bits_of(lifted), bits_of(magic)),
                    _mm256_srli_epi32(_mm256_sub_epi32(normal, rebias), shift));
    r.value = f32_of(choose(tiny, bits_of(_mm256_sub_ps(lifted, magic)),
                            _mm256_and_si256(normal, set32(~0u << shift))));
    return r;
}

/* code | (bits >> shift & sign_bit): put the sign of `bits` on top of a code. */
static inline __m256i with_sign(__m256i code, __m256i bits, int shift, uint32_t sign_bit)
{
    return _mm256_or_si256(code, _mm256_and_si256(_mm256_srli_epi32(bits, shift),
                                                  set32(sign_bit)));
}

/* 32 lanes of at most 255 to bytes. Packs work in 16-byte halves; the permute restores order. */
static inline __m256i narrow_to_bytes(const __m256i lanes[4])
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i low = _mm256_packus_epi32(lanes[0], lanes[1]);
    const __m256i high = _mm256_packus_epi32(lanes[2], lanes[3]);

    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
}

/* Pack 32 codes, one per byte, into 16 bytes: even + 16 * odd. */
static inline __m128i e2m1_pack(__m256i codes)
{
    const __m256i pairs = _mm256_maddubs_epi16(codes, set16(0x1001));

    return _mm_packus_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
}

/* Unpack 16 bytes to 32 codes, one per byte. */
static inline __m256i fp4_unpack(const uint8_t *packed)
{
    const __m256i wide = _mm256_cvtepu8_epi16(load128(packed));

    return _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi16(wide, 4)),
                            _mm256_set1_epi8(15));
}

#endif
