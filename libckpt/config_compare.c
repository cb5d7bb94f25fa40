/* Members that differ by name or value. */
#include "config_compare.h"

#include <stdlib.h>
#include <string.h>

#include "config_names.h"

static int same_text(const char *a, const char *b)
{
    char *a_end;
    char *b_end;
    const double x = strtod(a, &a_end);
    const double y = strtod(b, &b_end);

    return strcmp(a, b) == 0 ||
           (a_end != a && b_end != b && *a_end == '\0' && *b_end == '\0' && x == y);
}

/* 1 when the two differ in spelling, or one is unknown, as in records of earlier versions. */
static int is_spelled_alike(const config_meaning *a, const config_meaning *b)
{
    const config_member *x = config_meaning_find(a, CONFIG_SPELLING);
    const config_member *y = config_meaning_find(b, CONFIG_SPELLING);

    return x != NULL && y != NULL && strcmp(x->text, y->text) == 0;
}

/* 1 for a member that every spelling can express. */
static int is_in_all(const char *name)
{
    static const char scaling[] = "rope_scaling.";

    return config_name_find(name) != NULL || strcmp(name, "compress_ratios") == 0 ||
           strncmp(name, scaling, sizeof scaling - 1) == 0;
}

/* The bytes of a list up to the end of its first entries: 5 for 2 entries of "[1,23,4]". */
static size_t begin_bytes(const char *list, uint64_t entries)
{
    size_t i = 0;

    while (list[i] != '\0' && list[i] != ']' && (list[i] != ',' || --entries > 0))
        i++;
    return i;
}

/* 1 when the values of a member that both have are the same. layers: as many entries of
 * compress_ratios are compared; 0: all. */
static int is_same(const config_member *x, const config_member *y, uint64_t layers)
{
    if (layers > 0 && strcmp(x->name, "compress_ratios") == 0) {
        const size_t bytes = begin_bytes(x->text, layers);

        return bytes == begin_bytes(y->text, layers) && strncmp(x->text, y->text, bytes) == 0;
    }
    return same_text(x->text, y->text);
}

/* 1 for members that are not compared. */
static int is_left_out(const char *name, int main_only)
{
    return strcmp(name, CONFIG_SPELLING) == 0 ||
           (main_only && strcmp(name, "num_nextn_predict_layers") == 0);
}

/* Add a member that only one side has: as a difference, or as one that cannot be compared. */
static void add_lone(config_comparison *out, config_difference d, int may_lack)
{
    if (may_lack && !is_in_all(d.name))
        out->lone[out->lone_count++] = d.name;
    else
        out->differing[out->count++] = d;
}

ckpt_code config_meaning_compare(const config_meaning *a, const config_meaning *b, int main_only,
                                 config_comparison *out, ckpt_error *err)
{
    const size_t most = a->count + b->count + 1;
    const int may_lack =
        config_meaning_is_v4(a) && config_meaning_is_v4(b) && !is_spelled_alike(a, b);
    const config_member *layer_count = config_meaning_find(a, "num_hidden_layers");
    const uint64_t layers =
        main_only && layer_count != NULL ? strtoull(layer_count->text, NULL, 10) : 0;

    memset(out, 0, sizeof *out);
    out->differing = calloc(most, sizeof *out->differing);
    out->lone = calloc(most, sizeof *out->lone);
    if (out->differing == NULL || out->lone == NULL)
        return ckpt_fail_memory(err, "a comparison", most);
    for (size_t i = 0; i < a->count; i++) {
        const config_member *x = &a->members[i];
        const config_member *y = config_meaning_find(b, x->name);

        if (is_left_out(x->name, main_only))
            continue;
        out->compared += y != NULL;
        if (y == NULL)
            add_lone(out, (config_difference){ x->name, x->text, NULL }, may_lack);
        else if (!is_same(x, y, layers))
            out->differing[out->count++] = (config_difference){ x->name, x->text, y->text };
    }
    for (size_t i = 0; i < b->count; i++) {
        const config_member *y = &b->members[i];

        if (!is_left_out(y->name, main_only) && config_meaning_find(a, y->name) == NULL)
            add_lone(out, (config_difference){ y->name, NULL, y->text }, may_lack);
    }
    return CKPT_OK;
}

void config_comparison_release(config_comparison *comparison)
{
    free(comparison->differing);
    free(comparison->lone);
    memset(comparison, 0, sizeof *comparison);
}
