/*
 * wide_amax.h: maxima of BF16 and F32 values in vectors of 32 bytes, for quantise_rows.c.
 */
#ifndef CKPT_KERNELS_WIDE_AMAX_H
#define CKPT_KERNELS_WIDE_AMAX_H

#include "avx2.h"

enum { HALVES = 16 };       /* BF16 values of a vector */

/* The magnitudes of 16 or 32 values, reduced to 16. */
static inline __attribute__((always_inline))
__m256i halves_magnitudes(const uint16_t *src, size_t group)
{
    const __m256i magnitude = set16(0x7FFF);
    const __m256i first = _mm256_and_si256(load256(src), magnitude);

    return group == 16 ? first : _mm256_max_epu16(
        first, _mm256_and_si256(load256(src + HALVES), magnitude));
}

/* Store the maxima of 8 groups. */
static inline void store_amax8(__m256i bits, float *amax)
{
    store256(amax, choose(_mm256_cmpgt_epi32(bits, set32(F32_INF_BITS)), set32(F32_NAN_BITS),
                          bits));
}

/*
 * The maxima of 8 groups of BF16 values. Each fold joins the groups of two vectors in one, by the
 * larger of each lower and upper half of a 128-bit lane; at last every word of a lane is a group.
 */
static inline __attribute__((always_inline))
void halves_groups8_amax(const uint16_t *src, size_t group, float *amax)
{
    __m256i v[8];
    __m128i all;
    __m256i bits;

    for (size_t i = 0; i < 8; i++)
        v[i] = halves_magnitudes(src + i * group, group);
    for (size_t i = 0; i < 8; i += 2)
        v[i] = _mm256_max_epu16(_mm256_unpacklo_epi16(v[i], v[i + 1]),
                                _mm256_unpackhi_epi16(v[i], v[i + 1]));
    for (size_t i = 0; i < 8; i += 4)
        v[i] = _mm256_max_epu16(_mm256_unpacklo_epi32(v[i], v[i + 2]),
                                _mm256_unpackhi_epi32(v[i], v[i + 2]));
    v[0] = _mm256_max_epu16(_mm256_unpacklo_epi64(v[0], v[4]),
                            _mm256_unpackhi_epi64(v[0], v[4]));
    all = _mm_max_epu16(_mm256_castsi256_si128(v[0]), _mm256_extracti128_si256(v[0], 1));
    bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(all), 16);
    store_amax8(bits, amax);
}

/* The magnitudes of 16 or 32 F32 values, reduced to 8. */
static inline __attribute__((always_inline))
__m256i floats_magnitudes(const float *src, size_t group)
{
    const __m256i magnitude = set32(~F32_SIGN_BIT);
    __m256i largest = _mm256_and_si256(load256(src), magnitude);

    for (size_t i = LANES; i < group; i += LANES)
        largest = _mm256_max_epu32(largest, _mm256_and_si256(load256(src + i), magnitude));
    return largest;
}

/* The maxima of 8 groups of F32 values, by such folds; the last one joins the two 128-bit lanes. */
static inline __attribute__((always_inline))
void floats_groups8_amax(const float *src, size_t group, float *amax)
{
    __m256i v[8];

    for (size_t i = 0; i < 8; i++)
        v[i] = floats_magnitudes(src + i * group, group);
    for (size_t i = 0; i < 8; i += 2)
        v[i] = _mm256_max_epu32(_mm256_unpacklo_epi32(v[i], v[i + 1]),
                                _mm256_unpackhi_epi32(v[i], v[i + 1]));
    for (size_t i = 0; i < 8; i += 4)
        v[i] = _mm256_max_epu32(_mm256_unpacklo_epi64(v[i], v[i + 2]),
                                _mm256_unpackhi_epi64(v[i], v[i + 2]));
    store_amax8(_mm256_max_epu32(_mm256_permute2x128_si256(v[0], v[4], 0x20),
                                 _mm256_permute2x128_si256(v[0], v[4], 0x31)), amax);
}

/* The largest magnitude of BF16 values, as bits. Four maxima, so that none waits for the other. */
static inline uint32_t halves_amax(const uint16_t *src, size_t rows, size_t cols, size_t pitch)
{
    const __m256i magnitude = set16(0x7FFF);
    __m256i largest[4] = { _mm256_setzero_si256() };
    uint16_t words[HALVES];
    uint32_t all = 0;

    for (size_t r = 0; r < rows; r++, src += pitch) {
        size_t c = 0;

        for (; c + 4 * HALVES <= cols; c += 4 * HALVES)
            for (size_t i = 0; i < 4; i++)
                largest[i] = _mm256_max_epu16(largest[i], _mm256_and_si256(
                    load256(src + c + i * HALVES), magnitude));
        for (; c < cols; c++)
            all = (src[c] & 0x7FFFu) > all ? src[c] & 0x7FFFu : all;
    }
    store256(words, _mm256_max_epu16(_mm256_max_epu16(largest[0], largest[1]),
                                     _mm256_max_epu16(largest[2], largest[3])));
    for (size_t i = 0; i < HALVES; i++)
        all = words[i] > all ? words[i] : all;
    return all;
}

#endif
