/*
 * interleave.h: blocks that hold the codes of a fixed number of elements and their scales side by
 * side, taken apart into rows of codes and rows of scales, and put together. A permutation of
 * nibbles and bytes: nothing is decoded, nothing lost. Plain C, the same on every instruction set.
 */
#ifndef CKPT_KERNELS_INTERLEAVE_H
#define CKPT_KERNELS_INTERLEAVE_H

#include <stddef.h>
#include <stdint.h>

/* Where the codes of a group, the elements that share a scale, are in its bytes. In rows two codes
 * of 4 bits are in a byte, the first of them in the low nibble. */
typedef enum {
    CODES_IN_ORDER,            /* as in rows */
    CODES_IN_HALVES            /* low nibbles: first half of the group; high nibbles: second half */
} code_order;

/* A block has its scales at scale_offset, its codes at code_offset, and no other bytes. */
typedef struct {
    uint32_t bytes;
    uint32_t scale_offset;
    uint32_t scale_bytes;      /* of all its scales */
    uint32_t code_offset;
    uint32_t code_bytes;       /* of all its codes */
    uint32_t group_bytes;      /* of the codes of one group: a multiple of 8 */
    code_order order;
} block_shape;

/* Those of GGUF. Of these two the functions below are compiled for their numbers; any other shape
 * works, more slowly. */
extern const block_shape interleave_mxfp4;   /* 32 elements of 4 bits, a scale of 8 */
extern const block_shape interleave_q8_0;    /* 32 elements of 8 bits, a scale of 16 */

/* `count` blocks that follow each other. Codes or scales that are not wanted are NULL. */
void interleave_split(const block_shape *shape, const void *blocks, size_t count, void *codes,
                      void *scales);
void interleave_join(const block_shape *shape, const void *codes, const void *scales, size_t count,
                     void *blocks);

#endif
