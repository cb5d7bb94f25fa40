/*
 * statistics_rows.h: sums over rows of values, for kernels.h, which includes it.
 *
 * Sums are F64, in an order that does not depend on the width of registers: lane l of 16 takes the
 * columns c with c % 16 = l; then lanes l and l + 8 are added, l and l + 4, l + 2, l + 1.
 */
#ifndef CKPT_KERNELS_STATISTICS_ROWS_H
#define CKPT_KERNELS_STATISTICS_ROWS_H

#include <stddef.h>
#include <stdint.h>

/* Of one row; -0 is +0. Ranges and sums are those of the finite values. */
typedef struct {
    uint64_t zeros;
    uint64_t nans;
    uint64_t infinities;
    float min;                     /* infinity when there is no finite value */
    float max;                     /* -infinity then */
    double sum;
    double squares;
} row_statistics;

/* Of rows of FP4 codes with an E8M0 scale for each group of 32. */
typedef struct {
    uint64_t zeros;                /* codes 0 and 8 */
    uint64_t largest;              /* codes 7 and 15 */
    uint64_t squares[256];         /* by the byte of the scale: sum of the squares of its codes, in
                                      quarters; the scale itself is not in it */
} fp4_counts;

/* Of two rows, a and b. Sums are of the pairs that are finite on both sides. */
typedef struct {
    uint64_t changed;              /* pairs that differ: +0 is -0, and NaN is NaN */
    uint64_t nonfinite;            /* of them: with NaN or infinity on a side */
    double a_squares;
    double b_squares;
    double error_squares;          /* of b - a */
    double dot;                    /* sum of the products a * b */
    double max_error;              /* largest |b - a| */
} row_difference;

#endif
