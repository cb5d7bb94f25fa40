/*
 * interleave.h: convert between interleaved blocks (codes and scales of a fixed number of elements
 * side by side, as in GGUF) and separate rows of codes and of scales. It only moves nibbles and
 * bytes, so it is lossless. Plain C, but for FP4 with AVX2 and AVX-512, which give the same bytes.
 */
#ifndef CKPT_KERNELS_INTERLEAVE_H
#define CKPT_KERNELS_INTERLEAVE_H

#include <stddef.h>
#include <stdint.h>

/* The order of the codes of a group (the elements that share a scale) in its bytes. */
typedef enum {
    CODES_IN_ORDER,            /* as in rows: 4-bit codes two a byte, the first in the low nibble */
    CODES_IN_HALVES            /* low nibbles: first half of the group; high nibbles: second half */
} code_order;

/* Where scales and codes are in a block, which has no other bytes. */
typedef struct {
    uint32_t bytes;
    uint32_t scale_offset;
    uint32_t scale_bytes;      /* size of all scales of a block */
    uint32_t code_offset;
    uint32_t code_bytes;       /* size of all codes of a block */
    uint32_t group_bytes;      /* size of the codes of one group: a multiple of 8 */
    code_order order;
} block_shape;

/* The shapes of GGUF. The functions below have specialised code for these; others work, but more
 * slowly. */
extern const block_shape interleave_mxfp4;   /* 32 elements of 4 bits, a scale of 8 */
extern const block_shape interleave_q8_0;    /* 32 elements of 8 bits, a scale of 16 */
extern const block_shape interleave_nvfp4;   /* 64 elements of 4 bits, a scale of 8 for each 16 */

/* `count` consecutive blocks. `codes` or `scales` may be NULL if not wanted. */
void interleave_split(const block_shape *shape, const void *blocks, size_t count, void *codes,
                      void *scales);
void interleave_join(const block_shape *shape, const void *codes, const void *scales, size_t count,
                     void *blocks);

#endif
