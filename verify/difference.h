/*
 * difference.h: how far the values of one tensor are from those of another.
 *
 * A pair of elements has changed when it differs for the digest: -0 is +0 and NaN is NaN. Pairs
 * with NaN or infinity on a side are counted, and are in no sum. Sums over tiles are exact, so that
 * threads and tiles change no bit of a result.
 *
 * The distance of a pair is counted in units in the last place (ULP): numbers of one dtype, sorted,
 * that lie between. Of BF16 both are rounded to BF16 first, so that a pair may differ by less than
 * one.
 */
#ifndef CKPT_DIFFERENCE_H
#define CKPT_DIFFERENCE_H

#include "libckpt/ckpt.h"
#include "libckpt/exact_sum.h"

/* Bucket 0 counts distances of 0 (less than one), bucket k those of 2^(k-1) to 2^k - 1. */
enum { DIFFERENCE_ULPS = 34 };

/* All zero is nothing compared. */
typedef struct {
    uint64_t count;                /* pairs */
    uint64_t changed;
    uint64_t nonfinite;            /* changed, with NaN or infinity on a side */
    exact_sum a_squares;
    exact_sum b_squares;
    exact_sum error_squares;       /* of b - a */
    exact_sum dot_positive;        /* of a . b of the tiles where that is above 0, */
    exact_sum dot_negative;        /* and of the others' amounts */
    double max_error;              /* largest |b - a| */
    uint64_t max_row;              /* its first place in the tensor; meaningless when it is 0 */
    uint64_t max_col;
    uint64_t ulps[DIFFERENCE_ULPS];   /* of changed finite pairs */
} difference_statistics;

/* Units of the distances: CKPT_BF16 where one side at least holds no more, else CKPT_F32. */
ckpt_dtype difference_unit(const ckpt_tensor *a, const ckpt_tensor *b);

/* One tile of two tensors, whose sums are F64, row by row, before they are added. */
typedef struct {
    difference_statistics *statistics;
    ckpt_dtype unit;
    uint64_t cols;
    double a_squares;
    double b_squares;
    double error_squares;
    double dot;
} difference_tile;

/* Set the first three members, the others to 0, add rows, and end with difference_end. */

/* Row `row` of the tensors. Rows come in ascending order. */
void difference_add_row(difference_tile *t, const float *a, const float *b, uint64_t row);
/* A row that has the same values on both sides. */
void difference_add_same(difference_tile *t, const float *a);
/* Integers: they have counts and a largest error, no sums and no distances. */
void difference_add_ints(difference_tile *t, const int64_t *a, const int64_t *b, uint64_t row);
void difference_end(difference_tile *t);

/* *s += other: other rows of the tensor, or other tensors (the place is then without meaning). */
void difference_merge(difference_statistics *s, const difference_statistics *other);

/* Relative Frobenius error: sqrt(sum (b - a)^2 / sum a^2). 0 when nothing changed, infinity when
 * only zeros did. */
double difference_relative(const difference_statistics *s);
/* a . b / (|a| |b|). 1 when nothing changed; NaN when one side is all 0 and the other is not. */
double difference_cosine(const difference_statistics *s);
/* Share of the elements that changed, 0 to 1. */
double difference_changed(const difference_statistics *s);
/* 1 when the relative error is at most `tolerance` and no NaN or infinity came or went. Of
 * integers nothing may change. */
int difference_is_within(const difference_statistics *s, double tolerance, int is_int);

#endif
