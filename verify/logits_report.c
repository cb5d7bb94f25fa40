/* Prints a comparison of logits as JSON. */
#include "logits.h"

#include <math.h>

#include "json_line.h"

static void put_place(json_writer *w, const logits_position *p)
{
    json_member_u64(w, "prompt", p->prompt);
    json_member_bool(w, "mtp", p->is_mtp);
    json_member_u64(w, "position", p->position);
}

static void put_measures(json_writer *w, const logits_comparison *c)
{
    const double *m = c->measures;

    json_member_object(w, "kl");
    json_member_double(w, "mean", m[LOGITS_KL_MEAN]);
    json_member_double(w, "p50", m[LOGITS_KL_P50]);
    json_member_double(w, "p99", m[LOGITS_KL_P99]);
    json_member_double(w, "max", m[LOGITS_KL_MAX]);
    json_member_bool(w, "is_lower_bound", c->is_lower_bound);
    json_member_object(w, "worst");
    put_place(w, &c->positions[c->worst]);
    json_put_object_end(w);
    json_put_object_end(w);
    json_member_object(w, "logits");
    json_member_double(w, "max_abs", m[LOGITS_ABS_MAX]);
    json_member_double(w, "mean_abs", m[LOGITS_ABS_MEAN]);
    json_put_object_end(w);
    json_member_object(w, "logprobs");
    json_member_double(w, "max_abs", m[LOGITS_LOGPROB_MAX]);
    json_member_double(w, "mean_abs", m[LOGITS_LOGPROB_MEAN]);
    json_put_object_end(w);
    json_member_double(w, "top1", m[LOGITS_TOP1]);
    json_member_double(w, "top5", m[LOGITS_TOP5]);
}

static void put_exceeded(json_writer *w, const logits_comparison *c, const logits_limits limits)
{
    json_member_array(w, "exceeded");
    for (int m = 0; m < LOGITS_MEASURE_COUNT; m++) {
        if (!logits_is_exceeded(c, limits, (logits_measure)m))
            continue;
        json_put_object(w);
        json_member_string(w, "limit", logits_limit_name((logits_measure)m));
        json_member_double(w, "expected", limits[m]);
        json_member_double(w, "got", c->measures[m]);
        json_put_object_end(w);
    }
    json_put_array_end(w);
}

static void put_first(json_writer *w, const logits_comparison *c)
{
    json_put_key(w, "first_difference");
    if (!c->has_first) {
        json_put_null(w);
        return;
    }
    json_put_object(w);
    put_place(w, &c->positions[c->first.position]);
    json_put_key(w, "id");
    if (c->first.id >= 0) {
        json_put_i64(w, c->first.id);
        json_member_double(w, "a", (double)c->first.a);
        json_member_double(w, "b", (double)c->first.b);
    } else {
        json_put_null(w);
    }
    json_put_object_end(w);
}

static void put_position(json_writer *w, const logits_comparison *c, const logits_position *p)
{
    const double count = (double)p->value_count;
    json_writer line;

    json_line_begin(&line, w);
    json_put_object(&line);
    put_place(&line, p);
    json_member_double(&line, "kl", p->kl);
    json_member_double(&line, "max_abs", p->abs_max);
    json_member_double(&line, "mean_abs", p->abs_sum / count);
    json_member_double(&line, "max_logprob", p->logprob_max);
    json_member_double(&line, "mean_logprob", p->logprob_sum / count);
    json_member_bool(&line, "top1", p->top1 != 0);
    json_member_double(&line, "top5", (double)p->top5 / c->top_count);
    json_member_u64(&line, "different", p->different_count);
    json_put_object_end(&line);
    json_line_end(&line, w);
}

static void put_point(json_writer *w, const char *key, const logits_point *p,
                      const logits_trace *cut)
{
    json_put_key(w, key);
    if (!p->is_found) {
        json_put_null(w);
        return;
    }
    json_put_object(w);
    json_member_u64(w, "sequence", p->sequence);
    json_member_u64(w, "layer", p->layer);
    json_member_string(w, "point", p->point);
    json_member_bool(w, "missing_in_b", p->is_missing);
    json_member_double(w, "rms_a", p->a_rms);
    json_member_double(w, "rms_b", p->b_rms);
    if (cut != NULL) {
        json_member_double(w, "gap", cut->gap);
        if (!isnan(cut->gap))
            json_member_u64(w, "gap_position", cut->gap_position);
        json_member_bool(w, "near_tie", cut->is_near_tie);
    }
    json_put_object_end(w);
}

void logits_put(json_writer *w, const logits_comparison *c, const logits_limits limits,
                const logits_trace *trace)
{
    json_put_object(w);
    json_member_bool(w, "same", logits_is_same(c, limits));
    json_member_bool(w, "bit_identical", c->bit_identical);
    json_member_u64(w, "compared", c->position_count);
    json_member_u64(w, "values", c->value_count);
    json_member_u64(w, "different", c->different_count);
    json_member_u64(w, "unmatched", c->unmatched_count);
    json_member_u64(w, "non_finite", c->non_finite_count);
    put_measures(w, c);
    json_put_key(w, "generated_same");
    if (c->has_generated)
        json_put_bool(w, c->is_generated_same);
    else
        json_put_null(w);
    put_exceeded(w, c, limits);
    put_first(w, c);
    json_put_key(w, "trace");
    if (trace != NULL) {
        json_put_object(w);
        json_member_u64(w, "points", trace->point_count);
        json_member_u64(w, "different", trace->different_count);
        put_point(w, "first", &trace->first, NULL);
        put_point(w, "first_selection", &trace->selection, trace);
        json_put_object_end(w);
    } else {
        json_put_null(w);
    }
    json_member_array(w, "positions");
    for (size_t i = 0; i < c->position_count; i++)
        put_position(w, c, &c->positions[i]);
    json_put_array_end(w);
    json_put_object_end(w);
}
