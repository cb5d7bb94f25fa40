/* quantise_loss.h: the error made by quantising, summed without rounding. */
#ifndef CKPT_QUANTISE_LOSS_H
#define CKPT_QUANTISE_LOSS_H

#include "exact_sum.h"
#include "kernels/kernels.h"

/* Initialise with zeros. x is a value before, y the value after quantising. */
typedef struct {
    uint64_t elements;              /* quantised ones, and those of kept blocks that are counted */
    uint64_t blocks;
    uint64_t kept_blocks;           /* blocks with the original's bytes */
    uint64_t rounded;               /* elements with y != x */
    uint64_t saturated;
    uint64_t underflowed;           /* elements with x != 0 and code 0, or a scale of 0 */
    uint64_t dropped_signs;         /* elements with x = -0 and y = +0 */
    exact_sum error_squares;        /* of (y - x)^2 */
    exact_sum value_squares;        /* of x^2 */
    float max_error;                /* largest |y - x| */
    uint64_t max_row;               /* its first position; not valid if max_error is 0 */
    uint64_t max_col;
} quantise_loss;

/* Add the sums of some rows, whose first element is at `row`, `col`. */
void quantise_loss_note(quantise_loss *loss, const quantise_sums *sums, uint64_t row,
                        uint64_t col);

/* *loss += other, of other rows or other tensors. The result does not depend on the order. */
void quantise_loss_merge(quantise_loss *loss, const quantise_loss *other);

/* Relative Frobenius error, sqrt(sum (y - x)^2 / sum x^2); 0 when there is no error. */
double quantise_loss_relative(const quantise_loss *loss);

/* -20 log10 of that, in dB; infinity when there is no error. */
double quantise_loss_sqnr(const quantise_loss *loss);

#endif
