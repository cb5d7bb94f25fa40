/*
 * difference.h: measures how much the values of two tensors differ.
 *
 * A pair of elements has changed if the value digest tells them apart: -0 equals +0, and NaN equals
 * NaN. Pairs with NaN or infinity are counted but not included in sums. Sums over tiles are exact,
 * so results do not depend on threads or on the division into tiles.
 *
 * The distance of a pair is measured in units in the last place (ULP): the number of steps between
 * them in the sorted values of a dtype. For BF16 both are rounded to BF16 first, so different
 * values may have distance 0.
 */
#ifndef CKPT_DIFFERENCE_H
#define CKPT_DIFFERENCE_H

#include "kernels/kernels.h"
#include "libckpt/ckpt.h"
#include "libckpt/exact_sum.h"

/* Bucket 0 counts distances of 0 (less than one), bucket k those of 2^(k-1) to 2^k - 1. */
enum { DIFFERENCE_ULPS = ROW_DISTANCE_BUCKETS + 1 };

/* All zero: nothing compared yet. */
typedef struct {
    uint64_t count;                /* pairs */
    uint64_t changed;
    uint64_t nonfinite;            /* changed pairs with NaN or infinity */
    exact_sum a_squares;
    exact_sum b_squares;
    exact_sum error_squares;       /* of b - a */
    exact_sum dot_positive;        /* sum of a . b over the tiles where it is above 0, */
    exact_sum dot_negative;        /* and of -(a . b) over the others */
    double max_error;              /* largest |b - a| */
    uint64_t max_row;              /* its first position in the tensor; undefined if it is 0 */
    uint64_t max_col;
    uint64_t ulps[DIFFERENCE_ULPS];   /* of changed finite pairs */
} difference_statistics;

/* The unit of distances: CKPT_BF16 if the values of a side all fit it, else CKPT_F32. */
ckpt_dtype difference_unit(const ckpt_tensor *a, const ckpt_tensor *b);

/* Sums over one tile, in F64 and in the order of rows, before they are added exactly. */
typedef struct {
    difference_statistics *statistics;
    ckpt_dtype unit;
    uint64_t cols;
    double a_squares;
    double b_squares;
    double error_squares;
    double dot;
} difference_tile;

/* Set the first three members, zero the others, add rows, then call difference_end. */

/* Add row `row` of the tensors, and return how many of its pairs differ. Rows must be added in
 * ascending order. */
uint64_t difference_add_row(difference_tile *t, const float *a, const float *b, uint64_t row);
/* Add a row with the same values on both sides. */
void difference_add_same(difference_tile *t, const float *a);
/* Add a row of integers, which have counts and a largest error, but no sums and distances. */
void difference_add_ints(difference_tile *t, const int64_t *a, const int64_t *b, uint64_t row);
void difference_end(difference_tile *t);

/* *s += other: other rows of the tensor, or other tensors (then max_row and max_col are
 * undefined). */
void difference_merge(difference_statistics *s, const difference_statistics *other);

/* Relative Frobenius error: sqrt(sum (b - a)^2 / sum a^2). 0 if nothing changed, infinity if only
 * zeros changed. */
double difference_relative(const difference_statistics *s);
/* a . b / (|a| |b|). 1 if nothing changed; NaN if only one side is all 0. */
double difference_cosine(const difference_statistics *s);
/* Share of the elements that changed, 0 to 1. */
double difference_changed(const difference_statistics *s);
/* 1 when the relative error is at most `tolerance` and no changed pair has NaN or infinity.
 * Integers must be equal. */
int difference_is_within(const difference_statistics *s, double tolerance, int is_int);

#endif
