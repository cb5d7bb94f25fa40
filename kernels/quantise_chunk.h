/*
 * quantise_chunk.h: what quantise_rows.c and its vector versions of one chunk share. A chunk is
 * some columns of a row on their way from values to codes.
 */
#ifndef CKPT_KERNELS_QUANTISE_CHUNK_H
#define CKPT_KERNELS_QUANTISE_CHUNK_H

#include "internal.h"

enum {
    CHUNK = 128,            /* columns whose errors are kept at hand */
    SUM_LANES = 16
};

typedef struct {
    float largest;
    uint32_t mantissa_bits;
    uint32_t least;         /* F32 exponent field of the smallest normal number */
} small_float;

#define SMALL_E4M3 ((small_float){ 448.0f, 3, 121 })
#define SMALL_E2M1 ((small_float){ 6.0f, 1, 127 })

/* What the compiler knows of a call: each combination is a function of its own. */
typedef struct {
    small_float small;
    size_t width;           /* columns of a block, at most CHUNK */
    int is_nvfp4;           /* a tensor scale; -0 becomes code 0; saturation in every other block */
} form;

/* The call, the row, and what was summed so far. */
typedef struct {
    const quantise_input *in;
    size_t row;
    _Alignas(64) double errors[SUM_LANES];
    _Alignas(64) double values[SUM_LANES];
    quantise_sums *sums;
} progress;

/* The block of the call's arrays that has column `col`. */
static inline __attribute__((always_inline))
size_t block_at(const quantise_input *in, size_t col, form f)
{
    return col / (f.width < CHUNK ? f.width : in->block_cols);
}

static inline __attribute__((always_inline))
uint64_t count_minus_zeros(const float *values, size_t count)
{
    uint32_t found = 0;

    for (size_t i = 0; i < count; i++)
        found += f32_bits(f32_load(values, i)) == F32_SIGN_BIT;
    return found;
}

/* The place of the largest error is looked for only where it is larger than all before. */
static inline __attribute__((always_inline))
void note_place(const float *error, size_t count, uint32_t largest, progress *p, size_t col)
{
    uint32_t place = CHUNK;

    for (uint32_t i = 0; i < count; i++) {
        const int is_largest = (f32_bits(error[i]) & ~F32_SIGN_BIT) == largest;
        const uint32_t candidate = is_largest ? i : CHUNK;

        place = candidate < place ? candidate : place;
    }
    p->sums->max_error = f32_from_bits(largest);
    p->sums->max_row = p->row;
    p->sums->max_col = col + place;
}

#endif
