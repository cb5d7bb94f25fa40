/*
 * statistics_rows.h: results of the statistics functions in kernels.h, which includes it.
 *
 * Sums are F64, in an order that does not depend on the register width, so that all sets return the
 * same bits: lane l of 16 adds the columns c with c % 16 = l; then lane l + 8 is added to lane l,
 * then l + 4, l + 2 and l + 1.
 */
#ifndef CKPT_KERNELS_STATISTICS_ROWS_H
#define CKPT_KERNELS_STATISTICS_ROWS_H

#include <stddef.h>
#include <stdint.h>

/* Of one row; -0 counts as +0. min, max and the sums are over the finite values. */
typedef struct {
    uint64_t zeros;
    uint64_t nans;
    uint64_t infinities;
    float min;                     /* infinity if there is no finite value */
    float max;                     /* -infinity if there is none */
    double sum;
    double squares;
} row_statistics;

/* Of rows of FP4 codes with an E8M0 scale for each group of 32. */
typedef struct {
    uint64_t zeros;                /* codes 0 and 8 */
    uint64_t largest;              /* codes 7 and 15 */
    uint64_t squares[256];         /* by scale code: sum of 4 * magnitude^2 of the E2M1 values,
                                      without the scale (so it is an integer) */
} fp4_counts;

/* Of two rows, a and b. Sums are over the pairs in which both values are finite. */
typedef struct {
    uint64_t changed;              /* pairs that differ; +0 equals -0, NaN equals NaN */
    uint64_t nonfinite;            /* changed pairs with a NaN or an infinity */
    double a_squares;
    double b_squares;
    double error_squares;          /* of b - a */
    double dot;                    /* sum of the products a * b */
    double max_error;              /* largest |b - a| */
} row_difference;

/* Distances of values are counted in units in the last place: the number of values of a format from
 * one to the other. Bucket 0: none (less than one), k: 2^(k-1) to 2^k - 1. */
enum { ROW_DISTANCE_BUCKETS = 33, ROW_DISTANCE_NONE = 33 };

#endif
