/* difference_row.h: sums over two rows of values: the inner loop of differences. */
#ifndef CKPT_DIFFERENCE_ROW_H
#define CKPT_DIFFERENCE_ROW_H

#include <stddef.h>
#include <stdint.h>

/* Sums are of the pairs that are finite on both sides, in the lanes of statistics_row.h. */
typedef struct {
    uint64_t changed;              /* pairs that differ: +0 is -0, and NaN is NaN */
    uint64_t nonfinite;            /* of them: with NaN or infinity on one side or both */
    double a_squares;
    double b_squares;
    double error_squares;          /* of b - a */
    double dot_positive;           /* sum of the products a * b above 0 */
    double dot_negative;           /* sum of the others' amounts */
    double max_error;              /* largest |b - a| of a finite pair */
} row_difference;

void difference_row(const float *a, const float *b, size_t count, row_difference *out);

#endif
