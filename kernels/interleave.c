/* interleave.c: interleaved blocks to rows of codes and scales, and back. */
#include "interleave.h"

#include <string.h>

#include "interleave_wide.h"
#include "internal.h"

/* Inlined into callers with a constant shape, so that its numbers become constants. */
#define INLINED static inline __attribute__((always_inline))

/* Pack the low nibbles of eight bytes into four: bytes 2j and 2j + 1 become byte j. */
static uint32_t pack_nibbles(uint64_t bytes)
{
    uint64_t x = bytes & UINT64_C(0x0f0f0f0f0f0f0f0f);

    x = (x | x >> 4) & UINT64_C(0x00ff00ff00ff00ff);
    x = (x | x >> 8) & UINT64_C(0x0000ffff0000ffff);
    return (uint32_t)(x | x >> 16);
}

/* The inverse of pack_nibbles. */
static uint64_t spread_nibbles(uint32_t packed)
{
    uint64_t x = packed;

    x = (x | x << 16) & UINT64_C(0x0000ffff0000ffff);
    x = (x | x << 8) & UINT64_C(0x00ff00ff00ff00ff);
    return (x | x << 4) & UINT64_C(0x0f0f0f0f0f0f0f0f);
}

/* A group of 16 bytes is processed at once; any x86-64 has instructions for these shuffles. */
typedef uint8_t bytes16 __attribute__((vector_size(16)));

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (bytes16){ __VA_ARGS__ })
#endif

/* Bytes of either half become nibbles of the row. */
INLINED void split_halves_of_16(const uint8_t *group, uint8_t *codes)
{
    bytes16 joined;
    bytes16 low;
    bytes16 high;
    bytes16 row;

    memcpy(&joined, group, sizeof joined);
    low = joined & 0x0f;
    high = joined >> 4;
    row = SHUFFLE(low, high, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) |
          SHUFFLE(low, high, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31) << 4;
    memcpy(codes, &row, sizeof row);
}

/* A group in CODES_IN_HALVES order to row order: the low nibbles of eight bytes become four bytes
 * of the row's first half, the high nibbles four bytes of its second half. */
INLINED void split_halves(const uint8_t *group, uint32_t group_bytes, uint8_t *codes)
{
    if (group_bytes == 16) {
        split_halves_of_16(group, codes);
        return;
    }
    for (uint32_t i = 0; i < group_bytes; i += 8) {
        uint64_t word;
        uint32_t first;
        uint32_t second;

        memcpy(&word, group + i, sizeof word);
        first = pack_nibbles(word);
        second = pack_nibbles(word >> 4);
        memcpy(codes + i / 2, &first, sizeof first);
        memcpy(codes + group_bytes / 2 + i / 2, &second, sizeof second);
    }
}

/* Nibbles of each half of the row become bytes. */
INLINED void join_halves_of_16(const uint8_t *codes, uint8_t *group)
{
    bytes16 row;
    bytes16 low;
    bytes16 high;
    bytes16 joined;

    memcpy(&row, codes, sizeof row);
    low = row & 0x0f;
    high = row >> 4;
    joined = SHUFFLE(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23) |
             SHUFFLE(low, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31) << 4;
    memcpy(group, &joined, sizeof joined);
}

INLINED void join_halves(const uint8_t *codes, uint32_t group_bytes, uint8_t *group)
{
    if (group_bytes == 16) {
        join_halves_of_16(codes, group);
        return;
    }
    for (uint32_t i = 0; i < group_bytes; i += 8) {
        uint32_t first;
        uint32_t second;
        uint64_t word;

        memcpy(&first, codes + i / 2, sizeof first);
        memcpy(&second, codes + group_bytes / 2 + i / 2, sizeof second);
        word = spread_nibbles(first) | spread_nibbles(second) << 4;
        memcpy(group + i, &word, sizeof word);
    }
}

INLINED void split_blocks(const block_shape *shape, const uint8_t *from, size_t count,
                          uint8_t *code, uint8_t *scale)
{
    for (size_t i = 0; i < count; i++, from += shape->bytes) {
        if (scale != NULL) {
            memcpy(scale, from + shape->scale_offset, shape->scale_bytes);
            scale += shape->scale_bytes;
        }
        if (code == NULL)
            continue;
        if (shape->order == CODES_IN_ORDER)
            memcpy(code, from + shape->code_offset, shape->code_bytes);
        else
            for (uint32_t g = 0; g < shape->code_bytes; g += shape->group_bytes)
                split_halves(from + shape->code_offset + g, shape->group_bytes, code + g);
        code += shape->code_bytes;
    }
}

INLINED void join_blocks(const block_shape *shape, const uint8_t *code, const uint8_t *scale,
                         size_t count, uint8_t *to)
{
    for (size_t i = 0; i < count; i++, to += shape->bytes) {
        memcpy(to + shape->scale_offset, scale, shape->scale_bytes);
        if (shape->order == CODES_IN_ORDER)
            memcpy(to + shape->code_offset, code, shape->code_bytes);
        else
            for (uint32_t g = 0; g < shape->code_bytes; g += shape->group_bytes)
                join_halves(code + g, shape->group_bytes, to + shape->code_offset + g);
        scale += shape->scale_bytes;
        code += shape->code_bytes;
    }
}

const block_shape interleave_mxfp4 = { .bytes = 17, .scale_offset = 0, .scale_bytes = 1,
                                       .code_offset = 1, .code_bytes = 16, .group_bytes = 16,
                                       .order = CODES_IN_HALVES };
const block_shape interleave_q8_0 = { .bytes = 34, .scale_offset = 0, .scale_bytes = 2,
                                      .code_offset = 2, .code_bytes = 32, .group_bytes = 32,
                                      .order = CODES_IN_ORDER };
const block_shape interleave_nvfp4 = { .bytes = 36, .scale_offset = 0, .scale_bytes = 4,
                                       .code_offset = 4, .code_bytes = 32, .group_bytes = 8,
                                       .order = CODES_IN_HALVES };

/* Functions with wider instructions, which leave some blocks to plain code; NULL: none. */
typedef struct {
    split_wide *split;
    join_wide *join;
} wide_functions;

static wide_functions find_wide(const block_shape *shape)
{
#if defined(__x86_64__)
    const ckpt_kernels *k = kernels_get();
    const int is_mxfp4 = shape == &interleave_mxfp4;

    if (k == &kernels_avx512 && is_mxfp4)
        return (wide_functions){ mxfp4_split_avx512, mxfp4_join_avx512 };
    if (k == &kernels_avx2 && is_mxfp4)
        return (wide_functions){ mxfp4_split_avx2, mxfp4_join_avx2 };
    if ((k == &kernels_avx2 || k == &kernels_avx512) && shape == &interleave_nvfp4)
        return (wide_functions){ nvfp4_split_avx2, nvfp4_join_avx2 };
#endif
    return (wide_functions){ NULL, NULL };
}

/* Inlined with a constant shape, too. */
INLINED void split_shape(const block_shape *shape, const uint8_t *blocks, size_t count,
                         uint8_t *codes, uint8_t *scales)
{
    split_wide *wide = find_wide(shape).split;
    const size_t done = wide == NULL ? 0 : wide(blocks, count, codes, scales);

    split_blocks(shape, blocks + done * shape->bytes, count - done,
                 codes + done * shape->code_bytes, scales + done * shape->scale_bytes);
}

INLINED void join_shape(const block_shape *shape, const uint8_t *codes, const uint8_t *scales,
                        size_t count, uint8_t *blocks)
{
    join_wide *wide = find_wide(shape).join;
    const size_t done = wide == NULL ? 0 : wide(codes, scales, count, blocks);

    join_blocks(shape, codes + done * shape->code_bytes, scales + done * shape->scale_bytes,
                count - done, blocks + done * shape->bytes);
}

void interleave_split(const block_shape *shape, const void *blocks, size_t count, void *codes,
                      void *scales)
{
    if (codes == NULL || scales == NULL)
        split_blocks(shape, blocks, count, codes, scales);
    else if (shape == &interleave_mxfp4)
        split_shape(&interleave_mxfp4, blocks, count, codes, scales);
    else if (shape == &interleave_q8_0)
        split_shape(&interleave_q8_0, blocks, count, codes, scales);
    else if (shape == &interleave_nvfp4)
        split_shape(&interleave_nvfp4, blocks, count, codes, scales);
    else
        split_blocks(shape, blocks, count, codes, scales);
}

void interleave_join(const block_shape *shape, const void *codes, const void *scales, size_t count,
                     void *blocks)
{
    if (shape == &interleave_mxfp4)
        join_shape(&interleave_mxfp4, codes, scales, count, blocks);
    else if (shape == &interleave_q8_0)
        join_shape(&interleave_q8_0, codes, scales, count, blocks);
    else if (shape == &interleave_nvfp4)
        join_shape(&interleave_nvfp4, codes, scales, count, blocks);
    else
        join_blocks(shape, codes, scales, count, blocks);
}
