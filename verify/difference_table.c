/* Differences sorted and summed up. */
#include "difference_table.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_line.h"
#include "tensor_group.h"

/* ---- names of groups ---- */

static char *name_of(const char *name, difference_group group)
{
    char *out = malloc(tensor_group_bytes(name));

    if (out == NULL)
        return NULL;
    if (group == DIFFERENCE_LAYERS)
        tensor_layer(name, out);
    else if (group == DIFFERENCE_KINDS)
        tensor_kind(name, out);
    else
        memcpy(out, name, strlen(name) + 1);
    return out;
}

/* ---- order ---- */

/* The sort key: smallest first. NaN (no cosine) comes before all others. */
static double key_of(const difference_entry *e, difference_order order)
{
    double key = 0;

    switch (order) {
    case DIFFERENCE_BY_ERROR:
        key = -difference_relative(&e->statistics);
        break;
    case DIFFERENCE_BY_MAX:
        key = -e->statistics.max_error;
        break;
    case DIFFERENCE_BY_COSINE:
        key = difference_cosine(&e->statistics);
        break;
    case DIFFERENCE_BY_CHANGED:
        key = -difference_changed(&e->statistics);
        break;
    case DIFFERENCE_BY_NAME:
        break;
    }
    return isnan(key) ? -INFINITY : key;
}

static int compare_names(const void *left, const void *right)
{
    const difference_entry *a = left;
    const difference_entry *b = right;
    const int natural = strverscmp(a->name, b->name);

    return natural != 0 ? natural : strcmp(a->name, b->name);
}

static int compare_keys(const void *left, const void *right, void *context)
{
    const difference_order order = *(const difference_order *)context;
    const double a = key_of(left, order);
    const double b = key_of(right, order);

    if (a != b)
        return a < b ? -1 : 1;
    return compare_names(left, right);
}

/* ---- the table ---- */

static void add_total(difference_table *list, const compare_measured *m, ckpt_dtype unit)
{
    difference_merge(&list->total, &m->statistics);
    for (int i = 0; i < DIFFERENCE_ULPS; i++)
        *(unit == CKPT_BF16 ? &list->bf16_ulps[i] : &list->f32_ulps[i]) +=
            m->statistics.ulps[i];
}

static ckpt_code add_tensor(difference_entry *e, const compare_measured *m,
                            difference_group group, ckpt_dtype unit, ckpt_error *err)
{
    *e = (difference_entry){ .name = name_of(m->a->name, group), .tensor_count = 1,
                             .is_int = ckpt_tensor_is_int(m->a), .unit = unit,
                             .statistics = m->statistics };
    return e->name != NULL ? CKPT_OK : ckpt_fail_memory(err, "a table", strlen(m->a->name));
}

/* Merge entries of equal names, which are adjacent. */
static void join_groups(difference_table *list)
{
    size_t kept = 0;

    for (size_t i = 0; i < list->count; i++) {
        difference_entry *e = &list->entries[i];
        difference_entry *to = kept == 0 ? NULL : &list->entries[kept - 1];

        if (to == NULL || strcmp(to->name, e->name) != 0) {
            list->entries[kept++] = *e;
            continue;
        }
        to->tensor_count++;
        to->is_int &= e->is_int;
        to->unit = to->unit == e->unit ? to->unit : CKPT_NONE;
        difference_merge(&to->statistics, &e->statistics);
        free(e->name);
    }
    list->count = kept;
}

ckpt_code difference_table_make(const ckpt_comparison *comparison, difference_group group,
                                difference_order order, difference_table *out, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    memset(out, 0, sizeof *out);
    out->entries = calloc(comparison->measured_count + 1, sizeof *out->entries);
    if (out->entries == NULL)
        return ckpt_fail_memory(err, "a table", comparison->measured_count);
    for (size_t i = 0; i < comparison->measured_count && code == CKPT_OK; i++) {
        const compare_measured *m = &comparison->measured[i];
        const ckpt_dtype unit = compare_unit(m->a, m->b, comparison->form);

        code = add_tensor(&out->entries[out->count++], m, group, unit, err);
        add_total(out, m, unit);
    }
    if (code != CKPT_OK) {
        difference_table_release(out);
        return code;
    }
    qsort(out->entries, out->count, sizeof *out->entries, compare_names);
    if (group != DIFFERENCE_TENSORS)
        join_groups(out);
    qsort_r(out->entries, out->count, sizeof *out->entries, compare_keys, &order);
    return CKPT_OK;
}

void difference_table_release(difference_table *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->entries[i].name);
    free(list->entries);
    memset(list, 0, sizeof *list);
}

/* ---- words and JSON ---- */

void difference_ulp_text(unsigned bucket, char out[DIFFERENCE_ULP_TEXT_BYTES])
{
    const uint64_t low = bucket == 0 ? 0 : UINT64_C(1) << (bucket - 1);

    if (low < 2)
        snprintf(out, DIFFERENCE_ULP_TEXT_BYTES, "%" PRIu64, low);
    else
        snprintf(out, DIFFERENCE_ULP_TEXT_BYTES, "%" PRIu64 "-%" PRIu64, low, 2 * low - 1);
}

/* Put the non-empty buckets: the smallest distance and the count. */
static void put_ulps(json_writer *w, const char *key, const uint64_t ulps[DIFFERENCE_ULPS])
{
    json_member_object(w, key);
    for (unsigned i = 0; i < DIFFERENCE_ULPS; i++) {
        char low[DIFFERENCE_ULP_TEXT_BYTES];

        if (ulps[i] == 0)
            continue;
        difference_ulp_text(i, low);
        low[strcspn(low, "-")] = '\0';
        json_member_u64(w, low, ulps[i]);
    }
    json_put_object_end(w);
}

static void put_figures(json_writer *w, const difference_statistics *s, int is_int)
{
    json_member_u64(w, "elements", s->count);
    json_member_u64(w, "changed", s->changed);
    json_member_u64(w, "nonfinite", s->nonfinite);
    json_member_double(w, "max_abs", s->max_error);
    json_member_double(w, "relative_error", is_int ? NAN : difference_relative(s));
    json_member_double(w, "cosine", is_int ? NAN : difference_cosine(s));
}

static void put_entry(json_writer *w, const difference_entry *e)
{
    json_writer line;

    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "name", e->name);
    json_member_u64(&line, "tensor_count", e->tensor_count);
    put_figures(&line, &e->statistics, e->is_int);
    if (e->tensor_count == 1 && e->statistics.max_error > 0) {
        json_member_u64(&line, "row", e->statistics.max_row);
        json_member_u64(&line, "col", e->statistics.max_col);
    }
    if (e->unit != CKPT_NONE) {
        json_member_string(&line, "ulp_of", ckpt_dtype_name(e->unit));
        put_ulps(&line, "ulps", e->statistics.ulps);
    }
    json_put_object_end(&line);
    json_line_end(&line, w);
}

void difference_put_entries(json_writer *w, const difference_table *list)
{
    json_put_array(w);
    for (size_t i = 0; i < list->count; i++)
        put_entry(w, &list->entries[i]);
    json_put_array_end(w);
}

void difference_put_total(json_writer *w, const difference_table *list)
{
    json_put_object(w);
    put_figures(w, &list->total, 0);
    put_ulps(w, "bf16_ulps", list->bf16_ulps);
    put_ulps(w, "f32_ulps", list->f32_ulps);
    json_put_object_end(w);
}
