/*
 * avx512_interleave.c: MXFP4 blocks, four at a time: 64 bytes of codes and 4 scales are 68 bytes of
 * blocks. Every step moves nibbles or bytes, so the bits are those of interleave.c.
 */
#if defined(__x86_64__)
#include "interleave_wide.h"

#include "avx512.h"

enum { BLOCK_BYTES = 17, CODE_BYTES = 16, BLOCKS = 4, TAIL = BLOCKS * BLOCK_BYTES - 64 };

/* Byte i of the first 64 bytes of four blocks: a code, or a scale of the second operand. */
#define BLOCK_INDEX(i)                                                                             \
    (uint8_t)((i) % BLOCK_BYTES == 0 ? 64 + (i) / BLOCK_BYTES                                      \
                                     : (i) / BLOCK_BYTES * CODE_BYTES + (i) % BLOCK_BYTES - 1)
/* Byte i of the codes of four blocks: the first operand is their bytes 0 to 63, the second one
 * their bytes 4 to 67. */
#define CODE_AT(i) ((i) + (i) / CODE_BYTES + 1)
#define CODE_INDEX(i) (uint8_t)(CODE_AT(i) < 64 ? CODE_AT(i) : 64 + CODE_AT(i) - TAIL)
#define FOUR(index, i) index(i), index((i) + 1), index((i) + 2), index((i) + 3)
#define SIXTEEN(index, i)                                                                          \
    FOUR(index, i), FOUR(index, (i) + 4), FOUR(index, (i) + 8), FOUR(index, (i) + 12)
#define SIXTY_FOUR(index)                                                                          \
    { SIXTEEN(index, 0), SIXTEEN(index, 16), SIXTEEN(index, 32), SIXTEEN(index, 48) }

static const _Alignas(64) uint8_t block_index[64] = SIXTY_FOUR(BLOCK_INDEX);
static const _Alignas(64) uint8_t code_index[64] = SIXTY_FOUR(CODE_INDEX);

size_t mxfp4_join_avx512(const uint8_t *codes, const uint8_t *scales, size_t count,
                         uint8_t *blocks)
{
    const __m512i index = _mm512_load_si512(block_index);
    const __m512i nibble = _mm512_set1_epi8(15);
    size_t done = 0;

    for (; done + BLOCKS <= count; done += BLOCKS) {
        const __m512i row = _mm512_loadu_si512(codes + done * CODE_BYTES);
        const __m512i low = _mm512_and_si512(row, nibble);
        const __m512i high = _mm512_and_si512(_mm512_srli_epi16(row, 4), nibble);
        const __m512i joined = _mm512_or_si512(
            _mm512_unpacklo_epi8(low, high),
            _mm512_slli_epi16(_mm512_unpackhi_epi8(low, high), 4));
        const __m128i last = _mm512_extracti32x4_epi32(joined, 3);
        const int tail = _mm_extract_epi32(last, 3);
        uint8_t *to = blocks + done * BLOCK_BYTES;
        int scale;

        memcpy(&scale, scales + done, sizeof scale);
        _mm512_storeu_si512(to, _mm512_permutex2var_epi8(joined, index,
                                                         _mm512_set1_epi32(scale)));
        memcpy(to + 64, &tail, TAIL);
    }
    return done;
}

size_t mxfp4_split_avx512(const uint8_t *blocks, size_t count, uint8_t *codes, uint8_t *scales)
{
    const __m512i index = _mm512_load_si512(code_index);
    const __m512i nibble = _mm512_set1_epi8(15);
    /* Of two neighbouring bytes the second one becomes the high nibble. */
    const __m512i pair = _mm512_set1_epi16(0x1001);
    size_t done = 0;

    for (; done + BLOCKS <= count; done += BLOCKS) {
        const uint8_t *from = blocks + done * BLOCK_BYTES;
        const __m512i joined = _mm512_permutex2var_epi8(_mm512_loadu_si512(from), index,
                                                        _mm512_loadu_si512(from + TAIL));
        const __m512i low = _mm512_and_si512(joined, nibble);
        const __m512i high = _mm512_and_si512(_mm512_srli_epi16(joined, 4), nibble);

        _mm512_storeu_si512(codes + done * CODE_BYTES,
                            _mm512_packus_epi16(_mm512_maddubs_epi16(low, pair),
                                                _mm512_maddubs_epi16(high, pair)));
        for (size_t b = 0; b < BLOCKS; b++)
            scales[done + b] = from[b * BLOCK_BYTES];
    }
    return done;
}

#endif
