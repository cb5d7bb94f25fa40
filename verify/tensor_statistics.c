/* The figures of one tensor: how they begin, add up, and what follows from them. */
#include "tensor_statistics.h"

#include <math.h>
#include <string.h>

void statistics_init(tensor_statistics *s)
{
    memset(s, 0, sizeof *s);
    s->first_zero_row = UINT64_MAX;
    s->bad_row = UINT64_MAX;
    s->min = INFINITY;
    s->max = -INFINITY;
    s->int_min = INT64_MAX;
    s->int_max = INT64_MIN;
    s->scales.min = INFINITY;
    s->scales.max = -INFINITY;
}

size_t statistics_code_count(const ckpt_tensor *tensor)
{
    switch (tensor->dtype) {
    case CKPT_F4:
        return 16;
    case CKPT_F8_E4M3:
    case CKPT_F8_E5M2:
        return 256;
    default:
        return 0;
    }
}

int statistics_is_largest(ckpt_dtype dtype, unsigned code)
{
    switch (dtype) {
    case CKPT_F4:
        return (code & 7) == 7;
    case CKPT_F8_E4M3:
        return (code & 0x7f) == 0x7e;
    case CKPT_F8_E5M2:
        return (code & 0x7f) == 0x7b;
    default:
        return 0;
    }
}

void statistics_merge_counters(uint64_t *to, const uint64_t *from, size_t count)
{
    for (size_t i = 0; i < count && to != NULL && from != NULL; i++)
        to[i] += from[i];
}

static void merge_bad(tensor_statistics *s, const tensor_statistics *other)
{
    if (other->bad_row < s->bad_row ||
        (other->bad_row == s->bad_row && other->bad_col < s->bad_col)) {
        s->bad_row = other->bad_row;
        s->bad_col = other->bad_col;
    }
}

void statistics_merge(tensor_statistics *s, const tensor_statistics *other, size_t code_count)
{
    s->count += other->count;
    s->zeros += other->zeros;
    s->nans += other->nans;
    s->infinities += other->infinities;
    s->zero_rows += other->zero_rows;
    s->first_zero_row = size_min(s->first_zero_row, other->first_zero_row);
    merge_bad(s, other);
    s->min = fminf(s->min, other->min);
    s->max = fmaxf(s->max, other->max);
    exact_sum_merge(&s->positive, &other->positive);
    exact_sum_merge(&s->negative, &other->negative);
    exact_sum_merge(&s->squares, &other->squares);
    s->int_min = other->int_min < s->int_min ? other->int_min : s->int_min;
    s->int_max = other->int_max > s->int_max ? other->int_max : s->int_max;
    s->scales.count += other->scales.count;
    s->scales.zeros += other->scales.zeros;
    s->scales.nans += other->scales.nans;
    s->scales.min = fminf(s->scales.min, other->scales.min);
    s->scales.max = fmaxf(s->scales.max, other->scales.max);
    s->saturated += other->saturated;
    statistics_merge_counters(s->codes, other->codes, code_count);
    statistics_merge_counters(s->exponents, other->exponents, STATISTICS_EXPONENTS);
}

static uint64_t finite_count(const tensor_statistics *s)
{
    return s->count - s->nans - s->infinities;
}

double statistics_mean(const tensor_statistics *s)
{
    const double sum = exact_sum_value(&s->positive) - exact_sum_value(&s->negative);

    return finite_count(s) == 0 ? NAN : sum / (double)finite_count(s);
}

double statistics_rms(const tensor_statistics *s)
{
    return finite_count(s) == 0
               ? NAN
               : sqrt(exact_sum_value(&s->squares) / (double)finite_count(s));
}
