/*
 * changes.h: XOR of byte arrays and counts of what differs, for weight deltas. Plain C but for the
 * kernel that finds what differs (xor_marks).
 */
#ifndef CKPT_KERNELS_CHANGES_H
#define CKPT_KERNELS_CHANGES_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t byte_count;
    uint64_t element_count;
} difference_count;

/* into[i] ^= from[i]. The arrays must not overlap. */
void bytes_xor(void *into, const void *from, size_t size);

/*
 * The same; add to out->count the number of bytes that differed and of elements of element_bits (4,
 * 8, 16, 32 or 64; other sizes count as bytes). `size` is in bytes and a whole number of elements.
 */
typedef struct {
    difference_count *count;
    uint64_t *marks;                /* of the bytes that differed, as nonzero_marks */
} difference_found;
void difference_xor(void *into, const void *from, size_t size, unsigned element_bits,
                    const difference_found *out);

#endif
