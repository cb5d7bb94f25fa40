/* Statistics as JSON. */
#include "statistics_put.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static void put_int(json_writer *w, const char *key, const tensor_statistics *s,
                    const ckpt_tensor *t, int64_t value)
{
    json_put_key(w, key);
    if (s->count == 0)
        json_put_null(w);
    else if (t->dtype == CKPT_U64)
        json_put_u64(w, (uint64_t)(value ^ INT64_MIN));
    else
        json_put_i64(w, value);
}

static void put_range(json_writer *w, float min, float max)
{
    json_member_double(w, "min", min <= max ? (double)min : NAN);
    json_member_double(w, "max", min <= max ? (double)max : NAN);
}

static void put_first_nonfinite(json_writer *w, const tensor_statistics *s)
{
    json_put_key(w, "first_nonfinite");
    if (s->bad_row == UINT64_MAX) {
        json_put_null(w);
        return;
    }
    json_put_array(w);
    json_put_u64(w, s->bad_row);
    json_put_u64(w, s->bad_col);
    json_put_array_end(w);
}

static void put_codes(json_writer *w, const tensor_statistics *s, size_t code_count)
{
    json_member_u64(w, "saturated", s->saturated);
    if (s->codes == NULL)
        return;
    json_member_array(w, "codes");
    for (size_t c = 0; c < code_count; c++)
        json_put_u64(w, s->codes[c]);
    json_put_array_end(w);
}

static void put_exponents(json_writer *w, const uint64_t *exponents)
{
    json_member_object(w, "exponents");
    for (int e = 0; e < STATISTICS_EXPONENTS; e++) {
        char power[16];

        if (exponents[e] == 0)
            continue;
        snprintf(power, sizeof power, "%d", e - 127);
        json_member_u64(w, power, exponents[e]);
    }
    json_put_object_end(w);
}

static void put_floats(json_writer *w, const tensor_statistics *s, const ckpt_tensor *t)
{
    put_range(w, s->min, s->max);
    json_member_u64(w, "nans", s->nans);
    json_member_u64(w, "infinities", s->infinities);
    put_first_nonfinite(w, s);
    json_member_double(w, "mean", statistics_mean(s));
    json_member_double(w, "rms", statistics_rms(s));
    if (t->scale_dtype != CKPT_NONE) {
        json_member_object(w, "scales");
        json_member_u64(w, "count", s->scales.count);
        put_range(w, s->scales.min, s->scales.max);
        json_member_u64(w, "zeros", s->scales.zeros);
        json_member_u64(w, "nans", s->scales.nans);
        json_put_object_end(w);
    }
    if (statistics_code_count(t) > 0)
        put_codes(w, s, statistics_code_count(t));
    if (s->exponents != NULL)
        put_exponents(w, s->exponents);
}

void statistics_put(json_writer *w, const tensor_statistics *s, const ckpt_tensor *tensor)
{
    json_put_object(w);
    json_member_u64(w, "count", s->count);
    json_member_u64(w, "zeros", s->zeros);
    json_member_u64(w, "zero_rows", s->zero_rows);
    if (ckpt_tensor_is_int(tensor)) {
        put_int(w, "min", s, tensor, s->int_min);
        put_int(w, "max", s, tensor, s->int_max);
    } else {
        put_floats(w, s, tensor);
    }
    json_put_object_end(w);
}
