/*
 * changes.h: bytes that differ, as weight deltas carry them. Plain C, the same on every
 * instruction set.
 */
#ifndef CKPT_KERNELS_CHANGES_H
#define CKPT_KERNELS_CHANGES_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t byte_count;
    uint64_t element_count;
} difference_count;

/* into[i] ^= from[i]. The two do not overlap. */
void bytes_xor(void *into, const void *from, size_t size);

/*
 * Add what is not zero in `bytes`, the XOR of two arrays of elements: bytes, and elements of
 * element_bits (4, 8, 16, 32 or 64; others count as bytes). `size` is whole elements.
 */
void difference_add(const void *bytes, size_t size, unsigned element_bits,
                    difference_count *count);

#endif
