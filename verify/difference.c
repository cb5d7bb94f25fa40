/* Computes sums and distances of pairs of rows. */
#include "difference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "libckpt/encoding.h"
#include "libckpt/size.h"

/* ---- units in the last place ---- */

/* 1 when every value of this encoding, except subnormal ones, is exact in BF16. */
static int is_bf16_at_most(const ckpt_tensor *t)
{
    if (t->scale_dtype != CKPT_NONE)
        return t->scale_dtype == CKPT_F8_E8M0;
    return t->dtype != CKPT_F32 && t->dtype != CKPT_F16;
}

ckpt_dtype difference_unit(const ckpt_tensor *a, const ckpt_tensor *b)
{
    return is_bf16_at_most(a) || is_bf16_at_most(b) ? CKPT_BF16 : CKPT_F32;
}

enum { DISTANCES_AT_ONCE = 2048 };

/* Add to the histogram. Neighbours are often equal: see count_bytes in statistics_tile.c. */
static void count_buckets(const uint8_t *buckets, size_t count, uint64_t ulps[DIFFERENCE_ULPS])
{
    uint32_t lanes[4][ROW_DISTANCE_NONE + 1] = { { 0 } };

    for (size_t i = 0; i < count; i++)
        lanes[i % 4][buckets[i]]++;
    for (int k = 0; k < ROW_DISTANCE_BUCKETS; k++)
        ulps[k] += (uint64_t)lanes[0][k] + lanes[1][k] + lanes[2][k] + lanes[3][k];
}

static void add_distances(difference_tile *t, const float *a, const float *b)
{
    uint8_t buckets[DISTANCES_AT_ONCE];

    for (uint64_t c = 0; c < t->cols; c += DISTANCES_AT_ONCE) {
        const size_t count = (size_t)size_min(DISTANCES_AT_ONCE, t->cols - c);

        kernels_get()->f32_row_distances(a + c, b + c, count, t->unit == CKPT_BF16, buckets);
        count_buckets(buckets, count, t->statistics->ulps);
    }
}

/* Record the first place of the largest error of a row. Few rows exceed all before them. */
static void note_largest(difference_tile *t, const float *a, const float *b, uint64_t row,
                         double max_error)
{
    uint64_t c = 0;

    while (!isfinite(a[c]) || !isfinite(b[c]) || fabs((double)b[c] - (double)a[c]) != max_error)
        c++;
    t->statistics->max_error = max_error;
    t->statistics->max_row = row;
    t->statistics->max_col = c;
}

/* ---- rows ---- */

static void add_sums(difference_tile *t, const row_difference *found)
{
    t->statistics->count += t->cols;
    t->statistics->changed += found->changed;
    t->statistics->nonfinite += found->nonfinite;
    t->a_squares += found->a_squares;
    t->b_squares += found->b_squares;
    t->error_squares += found->error_squares;
    t->dot += found->dot;
}

uint64_t difference_add_row(difference_tile *t, const float *a, const float *b, uint64_t row)
{
    row_difference found;

    kernels_get()->f32_row_difference(a, b, t->cols, &found);
    add_sums(t, &found);
    if (found.changed > found.nonfinite)
        add_distances(t, a, b);
    if (found.max_error > t->statistics->max_error)
        note_largest(t, a, b, row, found.max_error);
    return found.changed;
}

void difference_add_same(difference_tile *t, const float *a)
{
    row_statistics found;

    kernels_get()->f32_row_statistics(a, t->cols, &found);
    t->statistics->count += t->cols;
    t->a_squares += found.squares;
    t->b_squares += found.squares;
    t->dot += found.squares;
}

void difference_add_ints(difference_tile *t, const int64_t *a, const int64_t *b, uint64_t row)
{
    difference_statistics *s = t->statistics;

    s->count += t->cols;
    for (uint64_t c = 0; c < t->cols; c++) {
        const double error = fabs((double)b[c] - (double)a[c]);

        s->changed += a[c] != b[c];
        if (error > s->max_error) {
            s->max_error = error;
            s->max_row = row;
            s->max_col = c;
        }
    }
}

void difference_end(difference_tile *t)
{
    difference_statistics *s = t->statistics;

    exact_sum_add(&s->a_squares, t->a_squares);
    exact_sum_add(&s->b_squares, t->b_squares);
    exact_sum_add(&s->error_squares, t->error_squares);
    exact_sum_add(t->dot < 0 ? &s->dot_negative : &s->dot_positive, fabs(t->dot));
}

void difference_merge(difference_statistics *s, const difference_statistics *other)
{
    const int is_earlier = other->max_row < s->max_row ||
                           (other->max_row == s->max_row && other->max_col < s->max_col);

    s->count += other->count;
    s->changed += other->changed;
    s->nonfinite += other->nonfinite;
    exact_sum_merge(&s->a_squares, &other->a_squares);
    exact_sum_merge(&s->b_squares, &other->b_squares);
    exact_sum_merge(&s->error_squares, &other->error_squares);
    exact_sum_merge(&s->dot_positive, &other->dot_positive);
    exact_sum_merge(&s->dot_negative, &other->dot_negative);
    if (other->max_error > s->max_error ||
        (other->max_error > 0 && other->max_error == s->max_error && is_earlier)) {
        s->max_error = other->max_error;
        s->max_row = other->max_row;
        s->max_col = other->max_col;
    }
    for (int i = 0; i < DIFFERENCE_ULPS; i++)
        s->ulps[i] += other->ulps[i];
}

/* ---- measures ---- */

double difference_relative(const difference_statistics *s)
{
    const double error = exact_sum_value(&s->error_squares);

    return error == 0.0 ? 0.0 : sqrt(error) / sqrt(exact_sum_value(&s->a_squares));
}

double difference_cosine(const difference_statistics *s)
{
    const double a = exact_sum_value(&s->a_squares);
    const double b = exact_sum_value(&s->b_squares);
    const double dot = exact_sum_value(&s->dot_positive) - exact_sum_value(&s->dot_negative);

    if (s->changed == 0)
        return 1.0;
    return a == 0.0 || b == 0.0 ? NAN : dot / (sqrt(a) * sqrt(b));
}

double difference_changed(const difference_statistics *s)
{
    return s->count == 0 ? 0.0 : (double)s->changed / (double)s->count;
}

int difference_is_within(const difference_statistics *s, double tolerance, int is_int)
{
    if (is_int)
        return s->changed == 0;
    return s->nonfinite == 0 && difference_relative(s) <= tolerance;
}
