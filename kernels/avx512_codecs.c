/*
 * avx512_codecs.c: element codecs. One function per direction and format decodes or encodes a
 * register; the loops around them differ only in types.
 */
#if defined(__x86_64__)
#include "avx512.h"

static inline __m512 e4m3_decode(__m128i codes)
{
    const __m256i half = e4m3_as_f16(_mm256_cvtepi8_epi16(codes));
    const __m512 value = _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
    const __m512 magnitude = _mm512_abs_ps(value);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(480.0f), _CMP_EQ_OQ);

    return nan_with_sign(value, is_nan);
}

/* E5M2 is the top byte of an F16. */
static inline __m512 e5m2_decode(__m128i codes)
{
    const __m256i half = _mm256_slli_epi16(_mm256_cvtepu8_epi16(codes), 8);
    const __m512 value = _mm512_cvtph_ps(half);

    return nan_with_sign(value, nan_lanes(value));
}

static inline __m512 e8m0_decode(__m128i codes)
{
    const __m512i wide = _mm512_cvtepu8_epi32(codes);
    __m512i bits = _mm512_slli_epi32(wide, 23);

    bits = _mm512_mask_mov_epi32(bits, _mm512_testn_epi32_mask(wide, wide), set32(0x00400000));
    bits = _mm512_mask_mov_epi32(bits, _mm512_cmpeq_epi32_mask(wide, set32(E8M0_NAN)),
                                 set32(F32_NAN_BITS));
    return f32_of(bits);
}

void e4m3_to_f32_avx512(const uint8_t *src, float *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm512_storeu_ps(dst + i, e4m3_decode(_mm_loadu_si128((const __m128i *)(src + i))));
    if (i < count) {
        const __mmask16 m = first16(count - i);

        _mm512_mask_storeu_ps(dst + i, m, e4m3_decode(_mm_maskz_loadu_epi8(m, src + i)));
    }
}

void e5m2_to_f32_avx512(const uint8_t *src, float *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm512_storeu_ps(dst + i, e5m2_decode(_mm_loadu_si128((const __m128i *)(src + i))));
    if (i < count) {
        const __mmask16 m = first16(count - i);

        _mm512_mask_storeu_ps(dst + i, m, e5m2_decode(_mm_maskz_loadu_epi8(m, src + i)));
    }
}

void e8m0_to_f32_avx512(const uint8_t *src, float *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm512_storeu_ps(dst + i, e8m0_decode(_mm_loadu_si128((const __m128i *)(src + i))));
    if (i < count) {
        const __mmask16 m = first16(count - i);

        _mm512_mask_storeu_ps(dst + i, m, e8m0_decode(_mm_maskz_loadu_epi8(m, src + i)));
    }
}

void e2m1_to_f32_avx512(const uint8_t *packed, float *dst, size_t count)
{
    const __m512 table = e2m1_values();
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm512_storeu_ps(dst + i, e2m1_lookup(_mm_loadu_si64(packed + i / 2), table));
    if (i < count) {
        const __m128i bytes = _mm_maskz_loadu_epi8(first16((count - i) / 2), packed + i / 2);

        _mm512_mask_storeu_ps(dst + i, first16(count - i), e2m1_lookup(bytes, table));
    }
}

static inline __m512 bf16_decode(__m256i codes)
{
    return f32_of(_mm512_slli_epi32(_mm512_cvtepu16_epi32(codes), 16));
}

void bf16_to_f32_avx512(const uint16_t *src, float *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm512_storeu_ps(dst + i, bf16_decode(_mm256_loadu_si256((const __m256i *)(src + i))));
    if (i < count) {
        const __mmask16 m = first16(count - i);

        _mm512_mask_storeu_ps(dst + i, m, bf16_decode(_mm256_maskz_loadu_epi16(m, src + i)));
    }
}

void f16_to_f32_avx512(const uint16_t *src, float *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm512_storeu_ps(dst + i,
                         _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(src + i))));
    if (i < count) {
        const __mmask16 m = first16(count - i);

        _mm512_mask_storeu_ps(dst + i, m, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, src + i)));
    }
}

static inline __m256i bf16_encode(__m512 value)
{
    __m512i bits = round_even(bits_of(value), 16);

    bits = _mm512_mask_mov_epi32(bits, nan_lanes(value), set32(F32_NAN_BITS));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
}

static inline __m256i f16_encode(__m512 value)
{
    return _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline __m128i e4m3_encode(__m512 value)
{
    const __m512 magnitude = _mm512_abs_ps(value);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(464.0f), _CMP_NLE_UQ);
    const __m512i code = round_small(magnitude, 3, 7).code;

    return _mm512_cvtepi32_epi8(with_sign(_mm512_mask_mov_epi32(code, is_nan, set32(E4M3_NAN)),
                                          bits_of(value), 24, 0x80));
}

static inline __m128i e5m2_encode(__m512 value)
{
    __m512i code = round_small(_mm512_abs_ps(value), 2, 15).code;

    code = _mm512_min_epu32(code, set32(0x7C));
    code = _mm512_mask_mov_epi32(code, nan_lanes(value), set32(0x7F));
    return _mm512_cvtepi32_epi8(with_sign(code, bits_of(value), 24, 0x80));
}

/* The cap keeps exponent 255 (NaN) from rounding up to 256. */
static inline __m128i e8m0_encode(__m512 value)
{
    const __m512i bits = bits_of(value);
    const __m512i exponent = _mm512_and_si512(_mm512_srli_epi32(bits, 23), set32(255));
    const __mmask16 half = _mm512_test_epi32_mask(bits, set32(0x400000));
    const __mmask16 more = _mm512_test_epi32_mask(bits, set32(0x7FBFFFFF));
    const __m512i up = _mm512_mask_add_epi32(exponent, half & more, exponent, set32(1));

    return _mm512_cvtepi32_epi8(_mm512_min_epu32(up, set32(E8M0_NAN)));
}

/* Codes of 16 values, sign included. */
static inline __m512i e2m1_encode(__m512 value)
{
    const __m512i code = _mm512_min_epu32(round_small(_mm512_abs_ps(value), 1, 1).code, set32(7));

    return _mm512_mask_mov_epi32(with_sign(code, bits_of(value), 28, 8), nan_lanes(value),
                                 set32(7));
}

void f32_to_bf16_avx512(const float *src, uint16_t *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_si256((__m256i *)(dst + i), bf16_encode(_mm512_loadu_ps(src + i)));
    if (i < count) {
        const __mmask16 m = first16(count - i);

        _mm256_mask_storeu_epi16(dst + i, m, bf16_encode(_mm512_maskz_loadu_ps(m, src + i)));
    }
}

void f32_to_f16_avx512(const float *src, uint16_t *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_si256((__m256i *)(dst + i), f16_encode(_mm512_loadu_ps(src + i)));
    if (i < count) {
        const __mmask16 m = first16(count - i);

        _mm256_mask_storeu_epi16(dst + i, m, f16_encode(_mm512_maskz_loadu_ps(m, src + i)));
    }
}

void f32_to_e4m3_avx512(const float *src, uint8_t *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm_storeu_si128((__m128i *)(dst + i), e4m3_encode(_mm512_loadu_ps(src + i)));
    if (i < count) {
        const __mmask16 m = first16(count - i);

        _mm_mask_storeu_epi8(dst + i, m, e4m3_encode(_mm512_maskz_loadu_ps(m, src + i)));
    }
}

void f32_to_e5m2_avx512(const float *src, uint8_t *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm_storeu_si128((__m128i *)(dst + i), e5m2_encode(_mm512_loadu_ps(src + i)));
    if (i < count) {
        const __mmask16 m = first16(count - i);

        _mm_mask_storeu_epi8(dst + i, m, e5m2_encode(_mm512_maskz_loadu_ps(m, src + i)));
    }
}

void f32_to_e8m0_avx512(const float *src, uint8_t *dst, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm_storeu_si128((__m128i *)(dst + i), e8m0_encode(_mm512_loadu_ps(src + i)));
    if (i < count) {
        const __mmask16 m = first16(count - i);

        _mm_mask_storeu_epi8(dst + i, m, e8m0_encode(_mm512_maskz_loadu_ps(m, src + i)));
    }
}

void f32_to_e2m1_avx512(const float *src, uint8_t *packed, size_t count)
{
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        _mm_storeu_si64(packed + i / 2, e2m1_pack(e2m1_encode(_mm512_loadu_ps(src + i))));
    if (i < count) {
        const __m512 value = _mm512_maskz_loadu_ps(first16(count - i), src + i);

        _mm_mask_storeu_epi8(packed + i / 2, first16((count - i) / 2),
                             e2m1_pack(e2m1_encode(value)));
    }
}

#endif
