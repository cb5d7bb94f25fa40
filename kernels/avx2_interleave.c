/*
 * avx2_interleave.c: MXFP4 blocks, two at a time, and NVFP4 blocks: 32 bytes of codes each time.
 * Every step moves nibbles or bytes, so the bits are those of interleave.c.
 */
#if defined(__x86_64__)
#include "interleave_wide.h"

#include <immintrin.h>
#include <string.h>

enum { CODE_BYTES = 32, MXFP4_BYTES = 17, MXFP4_BLOCKS = 2, NVFP4_BYTES = 36, NVFP4_SCALES = 4 };

/* Codes of 32 bytes, one a byte: low and high nibbles. */
typedef struct {
    __m256i low;
    __m256i high;
} nibbles;

static inline nibbles take_nibbles(__m256i bytes)
{
    const __m256i mask = _mm256_set1_epi8(15);

    return (nibbles){ _mm256_and_si256(bytes, mask),
                      _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask) };
}

/* Of bytes with one code each, the high nibble is that of `high`. */
static inline __m256i put_nibbles(__m256i low, __m256i high)
{
    return _mm256_or_si256(low, _mm256_slli_epi16(high, 4));
}

/* Of two neighbouring codes the second one becomes the high nibble: 16 codes of each operand become
 * 8 bytes, in both lanes. */
static inline __m256i pack_codes(__m256i first, __m256i second)
{
    const __m256i pair = _mm256_set1_epi16(0x1001);

    return _mm256_packus_epi16(_mm256_maddubs_epi16(first, pair),
                               _mm256_maddubs_epi16(second, pair));
}

size_t mxfp4_join_avx2(const uint8_t *codes, const uint8_t *scales, size_t count, uint8_t *blocks)
{
    size_t done = 0;

    for (; done + MXFP4_BLOCKS <= count; done += MXFP4_BLOCKS) {
        const nibbles row = take_nibbles(
            _mm256_loadu_si256((const void *)(codes + done / MXFP4_BLOCKS * CODE_BYTES)));
        const __m256i joined = put_nibbles(_mm256_unpacklo_epi8(row.low, row.high),
                                           _mm256_unpackhi_epi8(row.low, row.high));
        uint8_t *to = blocks + done * MXFP4_BYTES;

        to[0] = scales[done];
        _mm_storeu_si128((void *)(to + 1), _mm256_castsi256_si128(joined));
        to[MXFP4_BYTES] = scales[done + 1];
        _mm_storeu_si128((void *)(to + MXFP4_BYTES + 1), _mm256_extracti128_si256(joined, 1));
    }
    return done;
}

size_t mxfp4_split_avx2(const uint8_t *blocks, size_t count, uint8_t *codes, uint8_t *scales)
{
    size_t done = 0;

    for (; done + MXFP4_BLOCKS <= count; done += MXFP4_BLOCKS) {
        const uint8_t *from = blocks + done * MXFP4_BYTES;
        const nibbles joined = take_nibbles(
            _mm256_loadu2_m128i((const void *)(from + MXFP4_BYTES + 1), (const void *)(from + 1)));

        _mm256_storeu_si256((void *)(codes + done / MXFP4_BLOCKS * CODE_BYTES),
                            pack_codes(joined.low, joined.high));
        scales[done] = from[0];
        scales[done + 1] = from[MXFP4_BYTES];
    }
    return done;
}

/* A lane has two groups of 16 codes, each in halves of 8. */
size_t nvfp4_join_avx2(const uint8_t *codes, const uint8_t *scales, size_t count, uint8_t *blocks)
{
    for (size_t i = 0; i < count; i++) {
        const nibbles row =
            take_nibbles(_mm256_loadu_si256((const void *)(codes + i * CODE_BYTES)));
        const __m256i first = _mm256_unpacklo_epi8(row.low, row.high);
        const __m256i second = _mm256_unpackhi_epi8(row.low, row.high);
        uint8_t *to = blocks + i * NVFP4_BYTES;

        memcpy(to, scales + i * NVFP4_SCALES, NVFP4_SCALES);
        _mm256_storeu_si256((void *)(to + NVFP4_SCALES),
                            put_nibbles(_mm256_unpacklo_epi64(first, second),
                                        _mm256_unpackhi_epi64(first, second)));
    }
    return count;
}

size_t nvfp4_split_avx2(const uint8_t *blocks, size_t count, uint8_t *codes, uint8_t *scales)
{
    for (size_t i = 0; i < count; i++) {
        const uint8_t *from = blocks + i * NVFP4_BYTES;
        const nibbles joined =
            take_nibbles(_mm256_loadu_si256((const void *)(from + NVFP4_SCALES)));

        _mm256_storeu_si256((void *)(codes + i * CODE_BYTES),
                            pack_codes(_mm256_unpacklo_epi64(joined.low, joined.high),
                                       _mm256_unpackhi_epi64(joined.low, joined.high)));
        memcpy(scales + i * NVFP4_SCALES, from, NVFP4_SCALES);
    }
    return count;
}

#endif
