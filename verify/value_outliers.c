/*
 * Finds tensors that differ much from the same tensors of other layers, by a robust z-score of
 * log2(rms), that is (x - median) / (1.4826 * median of |x - median|), among all tensors whose
 * names differ only in numbers. (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993.)
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/size.h"
#include "median.h"
#include "tensor_group.h"
#include "value_mark.h"

/* If siblings are nearly equal, any difference would be an outlier. So the spread is at least
 * DEVIATION_MIN (a tenth of a power of two). */
#define DEVIATION_MIN 0.1
#define DEVIATIONS_MAX 10.0

enum { SIBLINGS_MIN = 4 };

typedef struct {
    char *kind;
    size_t tensor;
    double x;
} sibling;

static int compare_kinds(const void *left, const void *right)
{
    const sibling *a = left;
    const sibling *b = right;
    const int order = strcmp(a->kind, b->kind);

    return order != 0 ? order : (a->tensor > b->tensor) - (a->tensor < b->tensor);
}

typedef struct {
    const ckpt_catalog *catalog;
    double *room;                  /* scratch for one number per tensor */
    value_add *add;
    void *context;
} judge;

static ckpt_code judge_group(const judge *j, const sibling *group, size_t count, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    double middle;
    double deviation;

    if (count < SIBLINGS_MIN)
        return CKPT_OK;
    for (size_t i = 0; i < count; i++)
        j->room[i] = group[i].x;
    middle = median(j->room, count);
    for (size_t i = 0; i < count; i++)
        j->room[i] = fabs(group[i].x - middle);
    deviation = fmax(1.4826 * median(j->room, count), DEVIATION_MIN);
    for (size_t i = 0; i < count && code == CKPT_OK; i++) {
        const value_finding found = {
            .kind = VALUE_OUTLIER, .name = ckpt_catalog_at(j->catalog, group[i].tensor)->name,
            .row = UINT64_MAX, .count = count, .number = (group[i].x - middle) / deviation
        };

        if (fabs(found.number) > DEVIATIONS_MAX)
            code = j->add(j->context, &found, err);
    }
    return code;
}

/* Collect the tensors with an rms above 0. */
static ckpt_code collect(const source_statistics *s, sibling *out, size_t *count, ckpt_error *err)
{
    for (size_t i = 0; i < s->count; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(s->catalog, i);
        const double rms = statistics_rms(&s->tensors[i]);

        if (ckpt_tensor_is_int(t) || !(rms > 0))
            continue;
        out[*count] = (sibling){ malloc(tensor_group_bytes(t->name)), i, log2(rms) };
        if (out[*count].kind == NULL)
            return ckpt_fail_memory(err, "a list of tensors", s->count);
        tensor_kind(t->name, out[(*count)++].kind);
    }
    return CKPT_OK;
}

ckpt_code value_find_outliers(const source_statistics *statistics, value_add *add, void *context,
                              ckpt_error *err)
{
    sibling *all = calloc(statistics->count + 1, sizeof *all);
    const judge j = { statistics->catalog, calloc(statistics->count + 1, sizeof *j.room), add,
                      context };
    size_t count = 0;
    size_t end;
    ckpt_code code = CKPT_OK;

    if (all == NULL || j.room == NULL)
        code = ckpt_fail_memory(err, "a list of tensors", statistics->count);
    else
        code = collect(statistics, all, &count, err);
    if (code == CKPT_OK)
        qsort(all, count, sizeof *all, compare_kinds);
    for (size_t i = 0; i < count && code == CKPT_OK; i = end) {
        for (end = i + 1; end < count && strcmp(all[end].kind, all[i].kind) == 0; end++)
            ;
        code = judge_group(&j, all + i, end - i, err);
    }
    for (size_t i = 0; i < count; i++)
        free(all[i].kind);
    free(all);
    free(j.room);
    return code;
}
