/*
 * blake3.h: BLAKE3 with 256 bits of output and no key, a checksum used by some weight deltas.
 * Portable C after the specification (github.com/BLAKE3-team/BLAKE3-specs, sections 2.1 to 2.6).
 */
#ifndef CKPT_BLAKE3_H
#define CKPT_BLAKE3_H

#include <stddef.h>
#include <stdint.h>

enum { BLAKE3_OUT_BYTES = 32, BLAKE3_BLOCK_BYTES = 64, BLAKE3_DEPTH_MAX = 54 };

/* The state of a hash. Input may be added in pieces of any size; nothing is allocated. */
typedef struct {
    uint32_t chain[8];                  /* chaining value of the current chunk */
    uint64_t chunk;                     /* number of the current chunk */
    unsigned block_count;               /* blocks of the chunk that were compressed */
    unsigned block_used;                /* bytes in `block` */
    unsigned char block[BLAKE3_BLOCK_BYTES];
    uint32_t stack[BLAKE3_DEPTH_MAX][8];    /* subtrees that wait for their right sibling */
    unsigned stack_count;
} blake3;

/* blake3_end leaves the state as it was: more input may follow. */
void blake3_begin(blake3 *h);
void blake3_add(blake3 *h, const void *bytes, size_t size);
void blake3_end(const blake3 *h, unsigned char out[BLAKE3_OUT_BYTES]);

#endif
