/*
 * quantise_rows.h: arguments and results of the quantisers in kernels.h, which includes it.
 *
 * Quantising has three steps: find the largest magnitude of each block, compute the block's scale
 * from it by a rule, encode the elements with that scale. The last step also measures the loss.
 */
#ifndef CKPT_KERNELS_QUANTISE_ROWS_H
#define CKPT_KERNELS_QUANTISE_ROWS_H

#include <stddef.h>
#include <stdint.h>

/*
 * How the largest magnitude a of a block becomes its scale. fl(): one F32 rounding.
 * R448 = fl(1/448) = 0x3B124925, R6 = fl(1/6) = 0x3E2AAAAB. CEIL(v): the least code b with
 * 2^(b - 127) >= v. FLOOR(v, k): the exponent field of v, less k, at least 0.
 */
typedef enum {
    SCALE_FP8_QUOTIENT,     /* F32: fl(max(a, bf16(1e-12)) / 448) */
    SCALE_FP8_PRODUCT,      /* F32: fl(max(a, 1e-4) * R448) */
    SCALE_FP8_CEIL,         /* E8M0: CEIL(fl(max(a, 1e-4) * R448)) */
    SCALE_MXFP8_CEIL,       /* E8M0: CEIL(fl(a * R448)) */
    SCALE_MXFP8_FLOOR,      /* E8M0: FLOOR(a, 8), OCP MX */
    SCALE_FP4_CEIL,         /* E8M0: CEIL(fl(max(a, 6 * 2^-126) * R6)) */
    SCALE_FP4_FLOOR,        /* E8M0: FLOOR(a, 2), OCP MX */
    SCALE_FP4_EVEN,         /* E8M0: as FLOOR, but a mantissa of 1.75 or more counts as the next
                               power of two; 255 (NaN) if that power is beyond F32 */
    SCALE_NVFP4,            /* E4M3 of clamp(fl(a / fl(6 * t)), 2^-9, 448), or of 1 if that
                               quotient is 0; t: the tensor's scale */
    SCALE_Q8_0              /* F16 of fl(a / 127), infinite if that is too large */
} scale_rule;

/* Scales of `count` blocks. The arrays belong to the caller. */
typedef struct {
    float *scale;           /* the stored scale as F32 */
    float *divisor;         /* elements are divided by it: `scale`; NVFP4: fl(scale * t); Q8_0:
                               fl(a / 127), or 1 if that is 2^-128 or less */
    float *peak;            /* amax / divisor */
    uint8_t *code;          /* the stored E8M0 or E4M3 code; meaningless for F32 and F16 scales */
} block_scales;

/* Values, with rows `pitch` elements apart, and scales, which all rows share. */
typedef struct {
    const float *values;
    size_t rows;
    size_t cols;
    size_t pitch;
    const float *scale;     /* one per block_cols columns; so are divisor and peak */
    const float *divisor;
    const float *peak;
    size_t block_cols;
    float tensor_scale;     /* NVFP4 only */
    const uint16_t *halves; /* the values as BF16, if `values` is NULL */
    float known_error;      /* errors up to this need not be found */
} quantise_input;

/*
 * What quantising lost. With x the value and y = fl(code * scale), for NVFP4
 * fl(fl(code * scale) * tensor_scale), the error is fl(y - x). Lane l of 16 adds the squares of the
 * columns c with c % 16 = l, row by row; then lane l + 8 is added to lane l, then l + 4, l + 2 and
 * l + 1. Sums over 128 columns, of 8 squares in a lane, each added with one rounding (fmaf), and
 * the sums of two lanes that are 8 apart, are F32, which costs at most 9 * 2^-24 of the sum; all
 * other sums are F64. So are all squares if the largest of fl(peak * divisor) or max_error is not
 * in [2^-40, 2^60]: smaller ones would underflow in F32.
 */
typedef struct {
    uint64_t rounded;       /* elements with y != x */
    uint64_t saturated;     /* elements with fl(|x / divisor|) above the largest code */
    uint64_t underflowed;   /* elements with x != 0 and code 0, or, in int8, scale 0 */
    uint64_t dropped_signs; /* elements with x = -0 and code 0 */
    double error_squares;
    double value_squares;
    float max_error;        /* largest |error|; if that is at most known_error, it, less or 0 */
    uint64_t max_row;       /* where it is first, by rows; meaningless if max_error is not it or
                               0 */
    uint64_t max_col;
} quantise_sums;

#endif
