/*
 * marks_wide.h: marks of bytes that are not 0, for the vector sets. Not for files outside kernels/.
 *
 * Include it below marks_64 (marks of 64 bytes), xor_64 (XOR 64 bytes into `a`, their marks) and
 * busy_8 (bit i: the i-th of eight words is not 0).
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

/* Most words are 0, but not so many that a branch would guess which: they are skipped by the bits
 * of the others. Few of these have more than two marks, so that two are written in any case. */
static size_t mark_positions(const uint64_t *marks, uint32_t first, uint32_t *positions)
{
    uint32_t *to = positions;
    uint64_t busy = 0;

    for (unsigned word = 0; word < MARK_WORDS; word += 8)
        busy |= busy_8(marks + word) << word;
    for (; busy != 0; busy &= busy - 1) {
        const unsigned word = (unsigned)__builtin_ctzll(busy);
        const uint32_t base = first + 64 * word;
        const unsigned count = (unsigned)_mm_popcnt_u64(marks[word]);
        uint64_t left = marks[word];

        to[0] = base + (uint32_t)__builtin_ctzll(left);
        left &= left - 1;
        to[1] = base + (uint32_t)__builtin_ctzll(left | 1ull << 63);
        for (unsigned i = 2; i < count; i++) {
            left &= left - 1;
            to[i] = base + (uint32_t)__builtin_ctzll(left);
        }
        to += count;
    }
    return (size_t)(to - positions);
}

/* Inline, for each of the sizes of elements. */
static inline __attribute__((always_inline)) void xor_whole(uint8_t *a, const uint8_t *b,
                                                            size_t whole, unsigned element_bytes,
                                                            xor_found *out)
{
    uint64_t bytes = 0;
    uint64_t elements = 0;

    for (size_t i = 0; i < whole; i++) {
        const uint64_t marks = xor_64(a + 64 * i, b + 64 * i);

        out->marks[i] = marks;
        bytes += (uint64_t)_mm_popcnt_u64(marks);
        elements += (uint64_t)_mm_popcnt_u64(element_marks(marks, element_bytes));
        /* Compilers would join the two sums to a vector, which takes longer than the rest. */
        __asm__("" : "+r"(bytes), "+r"(elements));
    }
    out->byte_count += bytes;
    out->element_count += elements;
}

static void xor_marks(void *into, const void *from, size_t size, unsigned element_bytes,
                      xor_found *out)
{
    uint8_t *a = into;
    const uint8_t *b = from;
    const size_t whole = size / 64;
    xor_found found = { .marks = out->marks };

    switch (element_bytes) {
    case 1:  xor_whole(a, b, whole, 1, &found); break;
    case 2:  xor_whole(a, b, whole, 2, &found); break;
    case 4:  xor_whole(a, b, whole, 4, &found); break;
    default: xor_whole(a, b, whole, 8, &found); break;
    }
    found.marks += whole;
    kernels_scalar.xor_marks(a + 64 * whole, b + 64 * whole, size % 64, element_bytes, &found);
    out->byte_count += found.byte_count;
    out->element_count += found.element_count;
}

#endif
