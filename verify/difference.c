/* Computes sums and distances of pairs of rows. */
#include "difference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "libckpt/encoding.h"

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

/* The position of a finite value among all values of its dtype, sorted. */
static int64_t ordinal(float value, ckpt_dtype unit)
{
    uint32_t bits;
    int64_t place;

    memcpy(&bits, &value, sizeof bits);
    place = bits & 0x7fffffff;
    if (unit == CKPT_BF16)                     /* to nearest even */
        place = (place + 0x7fff + (place >> 16 & 1)) >> 16;
    return signbit(value) ? -place : place;
}

static unsigned bucket_of(float a, float b, ckpt_dtype unit)
{
    const uint64_t distance = (uint64_t)llabs(ordinal(a, unit) - ordinal(b, unit));

    return distance == 0 ? 0 : 64 - (unsigned)__builtin_clzll(distance);
}

/* Process a changed row element by element: distances, and the largest error with its position. */
static void add_changes(difference_tile *t, const float *a, const float *b, uint64_t row,
                        double max_error)
{
    difference_statistics *s = t->statistics;
    int is_new_max = max_error > s->max_error;

    for (uint64_t c = 0; c < t->cols; c++) {
        if (a[c] == b[c] || !isfinite(a[c]) || !isfinite(b[c]))
            continue;
        s->ulps[bucket_of(a[c], b[c], t->unit)]++;
        if (is_new_max && fabs((double)b[c] - (double)a[c]) == max_error) {
            s->max_error = max_error;
            s->max_row = row;
            s->max_col = c;
            is_new_max = 0;
        }
    }
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

void difference_add_row(difference_tile *t, const float *a, const float *b, uint64_t row)
{
    row_difference found;

    kernels_get()->f32_row_difference(a, b, t->cols, &found);
    add_sums(t, &found);
    if (found.changed > found.nonfinite)
        add_changes(t, a, b, row, found.max_error);
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
