/*
 * avx2_codecs.c: element codecs. One function per direction and format decodes or encodes a
 * register; the loops around them differ only in types. The scalar code does the tails.
 */
#if defined(__x86_64__)
#include "avx2.h"

/* Lanes of `mask` become the quiet NaN with the lane's own sign. */
static inline __m256 nan_with_sign(__m256 value, __m256i mask)
{
    const __m256i sign = _mm256_and_si256(bits_of(value), set32(F32_SIGN_BIT));

    return f32_of(choose(mask, _mm256_or_si256(sign, set32(F32_NAN_BITS)), bits_of(value)));
}

static inline __m256 e4m3_decode(__m128i codes)
{
    const __m128i half = e4m3_as_f16(_mm_cvtepi8_epi16(codes));
    const __m256 value = _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
    const __m256 is_nan = _mm256_cmp_ps(magnitude_of(value), _mm256_set1_ps(480.0f), _CMP_EQ_OQ);

    return nan_with_sign(value, bits_of(is_nan));
}

/* E5M2 is the top byte of an F16. */
static inline __m256 e5m2_decode(__m128i codes)
{
    const __m256 value = _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(codes), 8));

    return nan_with_sign(value, nan_lanes(value));
}

static inline __m256 e8m0_decode(__m128i codes)
{
    const __m256i wide = _mm256_cvtepu8_epi32(codes);
    const __m256i is_nan = _mm256_cmpeq_epi32(wide, set32(E8M0_NAN));
    const __m256i is_zero = _mm256_cmpeq_epi32(wide, _mm256_setzero_si256());
    const __m256i bits = choose(is_zero, set32(0x00400000), _mm256_slli_epi32(wide, 23));

    return f32_of(choose(is_nan, set32(F32_NAN_BITS), bits));
}

void e4m3_to_f32_avx2(const uint8_t *src, float *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_ps(dst + i, e4m3_decode(_mm_loadu_si64(src + i)));
    kernels_scalar.e4m3_to_f32(src + i, dst + i, count - i);
}

void e5m2_to_f32_avx2(const uint8_t *src, float *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_ps(dst + i, e5m2_decode(_mm_loadu_si64(src + i)));
    kernels_scalar.e5m2_to_f32(src + i, dst + i, count - i);
}

void e8m0_to_f32_avx2(const uint8_t *src, float *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_ps(dst + i, e8m0_decode(_mm_loadu_si64(src + i)));
    kernels_scalar.e8m0_to_f32(src + i, dst + i, count - i);
}

void e2m1_to_f32_avx2(const uint8_t *packed, float *dst, size_t count)
{
    const __m256 table = e2m1_magnitudes();
    const __m256i sign = set32(F32_SIGN_BIT);
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_ps(dst + i, e2m1_lookup(packed + i / 2, table, sign));
    kernels_scalar.e2m1_to_f32(packed + i / 2, dst + i, count - i);
}

void bf16_to_f32_avx2(const uint16_t *src, float *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        store256(dst + i, _mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(src + i)), 16));
    kernels_scalar.bf16_to_f32(src + i, dst + i, count - i);
}

void f16_to_f32_avx2(const uint16_t *src, float *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(load128(src + i)));
    kernels_scalar.f16_to_f32(src + i, dst + i, count - i);
}

static inline __m256i bf16_encode(__m256 value)
{
    const __m256i bits = round_even(bits_of(value), 16);

    return _mm256_srli_epi32(choose(nan_lanes(value), set32(F32_NAN_BITS), bits), 16);
}

static inline __m256i e4m3_encode(__m256 value)
{
    const __m256 magnitude = magnitude_of(value);
    const __m256 is_nan = _mm256_cmp_ps(magnitude, _mm256_set1_ps(464.0f), _CMP_NLE_UQ);
    const __m256i code = round_small(magnitude, 3, 7).code;

    return with_sign(choose(bits_of(is_nan), set32(E4M3_NAN), code), bits_of(value), 24, 0x80);
}

static inline __m256i e5m2_encode(__m256 value)
{
    const __m256i code = round_small(magnitude_of(value), 2, 15).code;
    const __m256i finite = _mm256_min_epu32(code, set32(0x7C));

    return with_sign(choose(nan_lanes(value), set32(0x7F), finite), bits_of(value), 24, 0x80);
}

/* The cap keeps exponent 255 (NaN) from rounding up to 256. True in a comparison is -1. */
static inline __m256i e8m0_encode(__m256 value)
{
    const __m256i zero = _mm256_setzero_si256();
    const __m256i bits = bits_of(value);
    const __m256i exponent = _mm256_and_si256(_mm256_srli_epi32(bits, 23), set32(255));
    const __m256i half = _mm256_and_si256(bits, set32(0x400000));
    const __m256i more = _mm256_and_si256(bits, set32(0x7FBFFFFF));
    const __m256i down = _mm256_or_si256(_mm256_cmpeq_epi32(half, zero),
                                         _mm256_cmpeq_epi32(more, zero));
    const __m256i up = _mm256_add_epi32(_mm256_add_epi32(exponent, set32(1)), down);

    return _mm256_min_epu32(up, set32(E8M0_NAN));
}

static inline __m256i e2m1_encode(__m256 value)
{
    const __m256i code = _mm256_min_epu32(round_small(magnitude_of(value), 1, 1).code, set32(7));

    return choose(nan_lanes(value), set32(7), with_sign(code, bits_of(value), 28, 8));
}

void f32_to_bf16_avx2(const float *src, uint16_t *dst, size_t count)
{
    size_t i = 0;

    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        const __m256i low = bf16_encode(_mm256_loadu_ps(src + i));
        const __m256i high = bf16_encode(_mm256_loadu_ps(src + i + LANES));

        store256(dst + i, _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8));
    }
    kernels_scalar.f32_to_bf16(src + i, dst + i, count - i);
}

void f32_to_f16_avx2(const float *src, uint16_t *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm_storeu_si128((__m128i *)(dst + i), _mm256_cvtps_ph(_mm256_loadu_ps(src + i),
                                                               _MM_FROUND_TO_NEAREST_INT));
    kernels_scalar.f32_to_f16(src + i, dst + i, count - i);
}

void f32_to_e4m3_avx2(const float *src, uint8_t *dst, size_t count)
{
    size_t i = 0;

    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        __m256i codes[4];

        for (size_t k = 0; k < 4; k++)
            codes[k] = e4m3_encode(_mm256_loadu_ps(src + i + k * LANES));
        store256(dst + i, narrow_to_bytes(codes));
    }
    kernels_scalar.f32_to_e4m3(src + i, dst + i, count - i);
}

void f32_to_e5m2_avx2(const float *src, uint8_t *dst, size_t count)
{
    size_t i = 0;

    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        __m256i codes[4];

        for (size_t k = 0; k < 4; k++)
            codes[k] = e5m2_encode(_mm256_loadu_ps(src + i + k * LANES));
        store256(dst + i, narrow_to_bytes(codes));
    }
    kernels_scalar.f32_to_e5m2(src + i, dst + i, count - i);
}

void f32_to_e8m0_avx2(const float *src, uint8_t *dst, size_t count)
{
    size_t i = 0;

    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        __m256i codes[4];

        for (size_t k = 0; k < 4; k++)
            codes[k] = e8m0_encode(_mm256_loadu_ps(src + i + k * LANES));
        store256(dst + i, narrow_to_bytes(codes));
    }
    kernels_scalar.f32_to_e8m0(src + i, dst + i, count - i);
}

void f32_to_e2m1_avx2(const float *src, uint8_t *packed, size_t count)
{
    size_t i = 0;

    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        __m256i codes[4];

        for (size_t k = 0; k < 4; k++)
            codes[k] = e2m1_encode(_mm256_loadu_ps(src + i + k * LANES));
        _mm_storeu_si128((__m128i *)(packed + i / 2), e2m1_pack(narrow_to_bytes(codes)));
    }
    kernels_scalar.f32_to_e2m1(src + i, packed + i / 2, count - i);
}

#endif
