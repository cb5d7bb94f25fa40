/*
 * marks_wide.h: marks of bytes that are not 0, for the vector sets. Not for files outside kernels/.
 *
 * Include it below marks_64 (marks of 64 bytes) and xor_64 (XOR 64 bytes into `a`, their marks).
 */
#ifndef CKPT_KERNELS_MARKS_WIDE_H
#define CKPT_KERNELS_MARKS_WIDE_H

#include <immintrin.h>

#include "internal.h"

static void nonzero_marks(const void *src, size_t size, uint64_t *marks)
{
    const uint8_t *bytes = src;
    const size_t whole = size / 64;

    for (size_t i = 0; i < whole; i++)
        marks[i] = marks_64(bytes + 64 * i);
    kernels_scalar.nonzero_marks(bytes + 64 * whole, size % 64, marks + whole);
}

static void xor_marks(void *into, const void *from, size_t size, unsigned element_bytes,
                      xor_found *out)
{
    uint8_t *a = into;
    const uint8_t *b = from;
    const size_t whole = size / 64;
    xor_found rest = { .byte_count = 0 };

    for (size_t i = 0; i < whole; i++) {
        out->marks[i] = xor_64(a + 64 * i, b + 64 * i);
        rest.byte_count += (uint64_t)_mm_popcnt_u64(out->marks[i]);
        rest.element_count += (uint64_t)_mm_popcnt_u64(element_marks(out->marks[i],
                                                                     element_bytes));
    }
    rest.marks = out->marks + whole;
    kernels_scalar.xor_marks(a + 64 * whole, b + 64 * whole, size % 64, element_bytes, &rest);
    out->byte_count += rest.byte_count;
    out->element_count += rest.element_count;
}

#endif
