/* Computes tensor scales by rule. */
#include "compare_scales.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/values.h"
#include "statistics.h"

/* The largest magnitude, rounded to BF16 as the values are. */
static float amax_of(const tensor_statistics *s)
{
    const ckpt_kernels *k = kernels_get();
    float amax = s->min > s->max ? 0.0f : fmaxf(fabsf(s->min), fabsf(s->max));
    uint16_t code;

    k->f32_to_bf16(&amax, &code, 1);
    k->bf16_to_f32(&code, &amax, 1);
    return amax;
}

/* The length of X in the name X.w1.weight. */
static size_t parent_length(const char *name)
{
    size_t length = strlen(name);

    for (int dots = 0; length > 0; length--)
        if (name[length - 1] == '.' && ++dots == 2)
            break;
    return length;
}

static int are_siblings(const char *one, const char *other)
{
    const size_t length = parent_length(one);

    return length == parent_length(other) && strncmp(one, other, length) == 0;
}

/* 1 when the rule produces `scale` from this tensor, or from a sibling with a larger maximum. */
static int is_by_rule(const ckpt_catalog *catalog, const compare_scales *scales, const float *amax,
                      size_t i, float scale)
{
    const compare_scale *items = scales->items;
    const char *name = ckpt_catalog_at(catalog, items[i].a)->name;
    size_t j = i;

    while (j > 0 && are_siblings(name, ckpt_catalog_at(catalog, items[j - 1].a)->name))
        j--;
    for (; j < scales->count; j++) {
        if (!are_siblings(name, ckpt_catalog_at(catalog, items[j].a)->name))
            break;
        if (amax[j] >= amax[i] && quantise_tensor_scale(items[i].rule, amax[j]) == scale)
            return 1;
    }
    return 0;
}

static ckpt_code find_scales(ckpt_source *a, ckpt_source *b, const compare_scales *scales,
                             const float *amax, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < scales->count && code == CKPT_OK; i++) {
        compare_scale *item = &scales->items[i];
        float scale;

        code = ckpt_source_read(b, item->b, CKPT_TENSOR_SCALE, 0, 1, &scale, err);
        if (code == CKPT_OK)
            item->scale = is_by_rule(a->catalog, scales, amax, i, scale)
                              ? scale
                              : quantise_tensor_scale(item->rule, amax[i]);
    }
    return code;
}

ckpt_code compare_find_scales(ckpt_source *a, ckpt_source *b, const compare_scales *scales,
                              const ckpt_run_options *run, ckpt_error *err)
{
    const size_t tensor_count = ckpt_catalog_count(a->catalog);
    uint8_t *wanted = calloc(tensor_count + 1, sizeof *wanted);
    float *amax = calloc(scales->count + 1, sizeof *amax);
    statistics_options options = { .run = *run, .wanted = wanted };
    source_statistics statistics;
    ckpt_code code;

    if (wanted == NULL || amax == NULL) {
        code = ckpt_fail_memory(err, "scales", tensor_count);
        goto out;
    }
    for (size_t i = 0; i < scales->count; i++)
        wanted[scales->items[i].a] = 1;
    if ((code = statistics_of_source(a, &options, &statistics, err)) != CKPT_OK)
        goto out;
    for (size_t i = 0; i < scales->count; i++)
        amax[i] = amax_of(&statistics.tensors[scales->items[i].a]);
    code = find_scales(a, b, scales, amax, err);
    statistics_release(&statistics);
out:
    free(wanted);
    free(amax);
    return code;
}
