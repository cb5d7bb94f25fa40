/*
 * quantise_chunk.h: shared by quantise_rows.c and quantise_pairs.h. A chunk is the columns of a
 * row, at most CHUNK, that are quantised at a time.
 */
#ifndef CKPT_KERNELS_QUANTISE_CHUNK_H
#define CKPT_KERNELS_QUANTISE_CHUNK_H

#include "internal.h"

enum {
    CHUNK = 128,            /* columns whose squares are summed in F32 */
    SUM_LANES = 16
};

typedef struct {
    float largest;
    uint32_t mantissa_bits;
    uint32_t least;         /* F32 exponent field of the smallest normal number */
} small_float;

#define SMALL_E4M3 ((small_float){ 448.0f, 3, 121 })
#define SMALL_E2M1 ((small_float){ 6.0f, 1, 127 })
#define SMALL_F16 ((small_float){ 65504.0f, 10, 113 })

typedef enum { CODE_E4M3, CODE_E2M1, CODE_INT8 } code_kind;

/* The constants of a call: the compiler specialises the code for each combination. */
typedef struct {
    code_kind kind;
    small_float small;      /* not used for int8 */
    size_t width;           /* columns of a block, or CHUNK if it has more */
    int is_nvfp4;           /* tensor scale; -0 becomes code 0; many blocks have saturated values */
} form;

/* How quotients are computed. QUOTIENT_POWER: divisors are powers of two, and nothing is divided.
 * QUOTIENT_NEAR: values are multiplied by the divisor's inverse, see products_differ. */
typedef enum { QUOTIENT_POWER, QUOTIENT_NEAR, QUOTIENT_DIVIDE } chunk_quotient;

enum { CHUNK_WAY_BLOCKS = CHUNK / 16 };

/* How the blocks of one or more chunks are quantised. */
typedef struct {
    size_t first;
    size_t end;             /* past the last block; 0: none yet */
    chunk_quotient quotient;
    _Alignas(32) float inverse[CHUNK_WAY_BLOCKS];   /* of the divisors, for QUOTIENT_NEAR */
    float rest[CHUNK_WAY_BLOCKS];       /* what the inverses lack */
    uint16_t largest[CHUNK_WAY_BLOCKS]; /* the largest BF16 value that does not saturate */
} chunk_way;

/* NVFP4: what belongs to scales of 1, 9/8, ... 15/8. */
typedef struct {
    _Alignas(32) float divisor[8];
    float inverse[8];
    float rest[8];
    float largest[8];       /* the largest BF16 value that does not saturate */
    int needs_rest;         /* products with `inverse` alone do not round as quotients */
} significands;

/* The call, the current row, and the sums so far. */
typedef struct {
    const quantise_input *in;
    size_t row;
    int is_wide;            /* squares are F64 */
    int saturates;          /* some block has values above the largest code */
    int clamps;             /* such that could round to more */
    int has_powers;         /* of two, for all divisors, far from the limits of F32 */
    int has_safe_divisors;  /* all are of a size that makes no quotient 0 */
    int finds_largest;      /* some error may be larger than in->known_error */
    chunk_way way;
    significands known;
    int has_open_place;     /* of the largest error: max_col is the first column of its chunk */
    _Alignas(64) double errors[SUM_LANES];
    _Alignas(64) double values[SUM_LANES];
    quantise_sums *sums;
} progress;

/* 1 if quotients by this divisor and products of codes are exact, and the numbers that round them
 * are finite and normal. */
static inline int is_safe_power(float divisor)
{
    const uint32_t bits = f32_bits(divisor);

    return ((bits & 0x7FFFFFu) == 0) & (bits - (32u << 23) <= 188u << 23);
}

/* 1 if no BF16 value but 0 has a quotient of 0, and all are normal where that matters. */
static inline int is_safe_divisor(float divisor)
{
    return f32_bits(divisor) - (32u << 23) <= 105u << 23;
}

/* The index in the call's scales of the block that contains column `col`. */
static inline __attribute__((always_inline))
size_t block_at(const quantise_input *in, size_t col, form f)
{
    if (f.width < CHUNK)
        return col / f.width;
    return col < in->block_cols ? 0 : col / in->block_cols;     /* dividing takes long */
}

/* The values of a chunk: in place, or widened into the buffer. */
static inline __attribute__((always_inline))
const float *chunk_values(const progress *p, size_t col, size_t count, float *restrict wide)
{
    const size_t at = p->row * p->in->pitch + col;

    if (p->in->values != NULL)
        return p->in->values + at;
    for (size_t i = 0; i < count; i++)
        wide[i] = f32_from_bits((uint32_t)p->in->halves[at + i] << 16);
    return wide;
}

static inline __attribute__((always_inline))
uint64_t count_minus_zeros(const float *values, size_t count)
{
    uint32_t found = 0;

    for (size_t i = 0; i < count; i++)
        found += f32_bits(f32_load(values, i)) == F32_SIGN_BIT;
    return found;
}

/* The first of errors that has the magnitude `largest`, which one has. */
static inline __attribute__((always_inline))
uint32_t first_place(const float *error, size_t count, uint32_t largest)
{
    uint32_t place = CHUNK;

    for (uint32_t i = 0; i < count; i++) {
        const int is_largest = (f32_bits(error[i]) & ~F32_SIGN_BIT) == largest;
        const uint32_t candidate = is_largest ? i : CHUNK;

        place = candidate < place ? candidate : place;
    }
    return place;
}

#endif
