/* Finds wrong and unusual values. */
#include "value_check.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"
#include "libckpt/config_number.h"
#include "libckpt/config_words.h"
#include "libckpt/plan.h"
#include "libckpt/scale.h"
#include "statistics_tile.h"
#include "value_mark.h"
#include "whole_scale.h"

/* Shares of codes with the largest magnitude that are unusual. With a fitting scale a block has
 * only one or a few: one of 16,384 in FP8, one of 32 in FP4, whose largest codes are far apart. */
#define SATURATED_FP8 0.01
#define SATURATED_FP4 0.20

/* ---- the pass ---- */

static int sink_wants(const ckpt_sink *self, size_t tensor)
{
    return statistics_wants(&((const value_check *)self)->statistics, tensor);
}

static ckpt_code sink_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                          arena *scratch, ckpt_error *err)
{
    value_check *check = (value_check *)self;
    const ckpt_tensor *t = ckpt_catalog_at(check->catalog, range->tensor);
    uint64_t scales[STATISTICS_EXPONENTS] = { 0 };
    const value_tile look = { t, range, tile, check->expert_count,
                              check->options.totals ? scales : NULL };
    value_mark mark;
    ckpt_code code;

    value_mark_init(&mark);
    if ((code = statistics_put_tile(&check->statistics, range, tile, scratch, err)) != CKPT_OK ||
        (code = value_mark_tile(&mark, &look, scratch, err)) != CKPT_OK)
        return code;
    pthread_mutex_lock(&check->lock);
    value_mark_merge(&check->marks[range->tensor], &mark);
    for (int e = 0; look.scales != NULL && e < STATISTICS_EXPONENTS; e++)
        check->scales[e] += scales[e];
    pthread_mutex_unlock(&check->lock);
    return CKPT_OK;
}

/* value_mark_tile needs no more scratch than statistics: a row. */
static uint64_t sink_need(const ckpt_sink *self, size_t tensor, uint64_t row_count)
{
    (void)row_count;
    return statistics_need(ckpt_catalog_at(((const value_check *)self)->catalog, tensor));
}

ckpt_code value_check_begin(const ckpt_catalog *catalog, const value_check_options *options,
                            value_check *out, ckpt_error *err)
{
    static const sink_ops ops = { sink_wants, sink_put, sink_need, NULL };
    const size_t count = ckpt_catalog_count(catalog);
    const statistics_options figures = { .wanted = options->wanted,
                                         .totals = options->totals ? &out->totals : NULL,
                                         .brief = 1 };
    ckpt_code code;

    memset(out, 0, sizeof *out);
    out->base.ops = &ops;
    out->catalog = catalog;
    out->options = *options;
    pthread_mutex_init(&out->lock, NULL);
    if (options->config != NULL)
        json_u64(config_member(options->config, CONFIG_EXPERT_COUNT), &out->expert_count);
    if ((code = statistics_begin(catalog, &figures, &out->statistics, err)) != CKPT_OK)
        return code;
    if ((out->marks = calloc(count + 1, sizeof *out->marks)) == NULL)
        return ckpt_fail_memory(err, "places", count);
    for (size_t i = 0; i < count; i++)
        value_mark_init(&out->marks[i]);
    out->bytes = out->statistics.bytes + count * sizeof *out->marks;
    return CKPT_OK;
}

void value_check_release(value_check *check)
{
    if (check->catalog == NULL)
        return;
    statistics_release(&check->statistics);
    free(check->marks);
    pthread_mutex_destroy(&check->lock);
    memset(check, 0, sizeof *check);
}

/* ---- findings ---- */

static ckpt_code add(void *context, const value_finding *finding, ckpt_error *err)
{
    value_findings *list = context;
    void *room = array_room(list->items, list->count, sizeof *list->items, "findings", err);

    if (room == NULL)
        return CKPT_E_MEMORY;
    list->items = room;
    list->items[list->count++] = *finding;
    list->fault_count += (size_t)value_kind_is_fault(finding->kind);
    return CKPT_OK;
}

static value_finding of(const ckpt_tensor *t, value_kind kind, double number)
{
    return (value_finding){ .kind = kind, .name = t->name, .number = number };
}

static ckpt_code add_place(value_findings *list, value_finding found, const value_place *place,
                           ckpt_error *err)
{
    found.row = place->row;
    found.col = place->col;
    found.count = place->count;
    return place->count == 0 ? CKPT_OK : add(list, &found, err);
}

static ckpt_code judge_marks(const value_mark *m, const ckpt_tensor *t, value_findings *list,
                             ckpt_error *err)
{
    const struct {
        value_kind kind;
        const value_place *place;
        double number;
    } marks[] = {
        { VALUE_SCALE_NAN, &m->scale_nan, 0 },
        { VALUE_SCALE_ZERO, &m->scale_zero, 0 },
        { VALUE_SCALE_SPREAD, &m->spread, (double)m->spread_max },
        { VALUE_ID_RANGE, &m->id_range, (double)m->id_range.value },
        { VALUE_ID_REPEATED, &m->id_repeated, (double)m->id_repeated.value },
    };
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < sizeof marks / sizeof *marks && code == CKPT_OK; i++)
        code = add_place(list, of(t, marks[i].kind, marks[i].number), marks[i].place, err);
    return code;
}

static ckpt_code judge_zeros(const tensor_statistics *s, const ckpt_tensor *t,
                             value_findings *list, ckpt_error *err)
{
    const value_place rows = { s->zero_rows, s->first_zero_row, 0, 0 };
    const value_place all = { s->count, 0, 0, 0 };

    if (s->count == 0 || ckpt_tensor_is_int(t))
        return CKPT_OK;
    if (s->zeros == s->count && t->rank > 1)
        return add_place(list, of(t, VALUE_ZERO_TENSOR, 0), &all, err);
    return add_place(list, of(t, VALUE_ZERO_ROWS, 0), &rows, err);
}

static ckpt_code judge_statistics(const tensor_statistics *s, const ckpt_tensor *t,
                                  value_findings *list, ckpt_error *err)
{
    const double share = s->count == 0 ? 0 : (double)s->saturated / (double)s->count;
    const double most = t->dtype == CKPT_F4 ? SATURATED_FP4 : SATURATED_FP8;
    value_place place = { s->nans, s->bad_row, s->bad_col, 0 };
    ckpt_code code;

    if ((code = add_place(list, of(t, VALUE_NAN, 0), &place, err)) != CKPT_OK)
        return code;
    place.count = s->infinities;
    if ((code = add_place(list, of(t, VALUE_INFINITY, 0), &place, err)) != CKPT_OK)
        return code;
    place = (value_place){ share > most ? s->saturated : 0, UINT64_MAX, 0, 0 };
    if ((code = add_place(list, of(t, VALUE_SATURATED, share), &place, err)) != CKPT_OK)
        return code;
    return judge_zeros(s, t, list, err);
}

/* ---- scales of whole tensors ---- */

static ckpt_code judge_whole_scales(const value_mark *m, const ckpt_tensor *t,
                                    value_findings *list, ckpt_error *err)
{
    const struct {
        int is_there;
        const char *of;
        float scale;
    } scales[] = {
        { t->tensor_scale != CKPT_TENSOR_SCALE_NONE, "the whole tensor", m->whole_scale },
        { t->has_input_scale, "its activations", m->input_scale },
    };
    const value_place place = { 1, UINT64_MAX, 0, 0 };
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < sizeof scales / sizeof *scales && code == CKPT_OK; i++) {
        value_finding f = of(t, VALUE_WHOLE_SCALE, (double)scales[i].scale);

        f.other = scales[i].of;
        if (scales[i].is_there && !scale_is_fit(scales[i].scale))
            code = add_place(list, f, &place, err);
    }
    return code;
}

/* Servers give both weights of a gate the scale of one. */
static ckpt_code judge_pair(const value_check *check, size_t tensor, value_findings *list,
                            ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(check->catalog, tensor);
    const value_place place = { 1, UINT64_MAX, 0, 0 };
    char partner[WHOLE_SCALE_NAME_BYTES];
    int64_t other;
    value_finding f;

    if (t->tensor_scale == CKPT_TENSOR_SCALE_NONE || !whole_scale_partner(t->name, partner) ||
        (other = ckpt_catalog_find(check->catalog, partner)) < 0 ||
        !statistics_wants(&check->statistics, (size_t)other) ||
        ckpt_catalog_at(check->catalog, (size_t)other)->tensor_scale != t->tensor_scale ||
        check->marks[other].whole_scale == check->marks[tensor].whole_scale)
        return CKPT_OK;
    f = of(t, VALUE_UNEQUAL_PAIR, (double)check->marks[tensor].whole_scale);
    f.other = ckpt_catalog_at(check->catalog, (size_t)other)->name;
    return add_place(list, f, &place, err);
}

/* ---- dtypes ---- */

/* Bits of the significand including the hidden one; 0: not a float. */
static unsigned precision(ckpt_dtype dtype)
{
    switch (dtype) {
    case CKPT_F32:
        return 24;
    case CKPT_F16:
        return 11;
    case CKPT_BF16:
        return 8;
    case CKPT_F8_E4M3:
        return 4;
    case CKPT_F8_E5M2:
        return 3;
    case CKPT_F4:
        return 2;
    default:
        return 0;
    }
}

static ckpt_code judge_dtype(const ckpt_catalog *official, const ckpt_tensor *t,
                             value_findings *list, ckpt_error *err)
{
    const int64_t o = official == NULL ? CKPT_NOT_FOUND : ckpt_catalog_find(official, t->name);
    const unsigned got = precision(t->dtype);
    const value_place place = { got, UINT64_MAX, 0, 0 };
    unsigned expected;

    if (o == CKPT_NOT_FOUND)
        return CKPT_OK;
    expected = precision(ckpt_catalog_at(official, (size_t)o)->dtype);
    return got == 0 || got >= expected
               ? CKPT_OK
               : add_place(list, of(t, VALUE_NARROW, (double)expected), &place, err);
}

/* ---- experts ---- */

typedef struct {
    hash128 bytes;
    const char *name;
} expert;

static int compare_experts(const void *left, const void *right)
{
    const expert *a = left;
    const expert *b = right;
    const int order = memcmp(&a->bytes, &b->bytes, sizeof a->bytes);

    return order != 0 ? order : strverscmp(a->name, b->name);
}

static ckpt_code find_same_experts(const value_check *check, value_findings *list,
                                   ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(check->catalog);
    expert *experts = calloc(count + 1, sizeof *experts);
    size_t found = 0;
    ckpt_code code = CKPT_OK;

    if (experts == NULL)
        return ckpt_fail_memory(err, "a list of experts", count);
    for (size_t i = 0; i < count; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(check->catalog, i);
        const tensor_statistics *s = &check->statistics.tensors[i];

        if (plan_is_expert(t->name) && s->count > s->zeros)
            experts[found++] = (expert){ check->marks[i].bytes, t->name };
    }
    qsort(experts, found, sizeof *experts, compare_experts);
    for (size_t i = 1, first = 0; i < found && code == CKPT_OK; i++) {
        const value_finding same = { VALUE_SAME_EXPERTS, experts[i].name, experts[first].name,
                                     UINT64_MAX, 0, 1, 0 };

        if (memcmp(&experts[i].bytes, &experts[first].bytes, sizeof experts[i].bytes) == 0)
            code = add(list, &same, err);
        else
            first = i;
    }
    free(experts);
    return code;
}

/* ---- all of them ---- */

static int compare_findings(const void *left, const void *right)
{
    const value_finding *a = left;
    const value_finding *b = right;
    const int order = a->kind == b->kind ? strverscmp(a->name, b->name)
                                         : (a->kind > b->kind) - (a->kind < b->kind);

    return order != 0 ? order : strcmp(a->name, b->name);
}

ckpt_code value_check_end(const value_check *check, value_findings *out, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < ckpt_catalog_count(check->catalog) && code == CKPT_OK; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(check->catalog, i);

        if (!statistics_wants(&check->statistics, i))
            continue;
        out->tensor_count++;
        if ((code = judge_statistics(&check->statistics.tensors[i], t, out, err)) == CKPT_OK &&
            (code = judge_marks(&check->marks[i], t, out, err)) == CKPT_OK &&
            (code = judge_whole_scales(&check->marks[i], t, out, err)) == CKPT_OK &&
            (code = judge_pair(check, i, out, err)) == CKPT_OK)
            code = judge_dtype(check->options.official, t, out, err);
    }
    if (code == CKPT_OK && (code = find_same_experts(check, out, err)) == CKPT_OK)
        code = value_find_outliers(&check->statistics, add, out, err);
    if (code != CKPT_OK)
        value_findings_release(out);
    else if (out->count > 0)
        qsort(out->items, out->count, sizeof *out->items, compare_findings);
    return code;
}

void value_findings_release(value_findings *findings)
{
    free(findings->items);
    memset(findings, 0, sizeof *findings);
}

ckpt_code value_check_source(ckpt_source *source, const value_check_options *options,
                             value_check *check, value_findings *out, ckpt_error *err)
{
    ckpt_run_options run = options->run;
    ckpt_code code = value_check_begin(source->catalog, options, check, err);

    run.fixed_bytes += check->bytes;
    if (code == CKPT_OK && (code = ckpt_copy(source, &check->base, &run, err)) == CKPT_OK)
        code = value_check_end(check, out, err);
    if (code != CKPT_OK)
        value_check_release(check);
    return code;
}
