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

/* Add a member that only one side has: as a difference, or as one that cannot be compared. */
static void add_lone(config_comparison *out, config_difference d, int may_lack)
{
    if (may_lack && !is_in_all(d.name))
        out->lone[out->lone_count++] = d.name;
    else
        out->differing[out->count++] = d;
}

ckpt_code config_meaning_compare(const config_meaning *a, const config_meaning *b,
                                 config_comparison *out, ckpt_error *err)
{
    const size_t most = a->count + b->count + 1;
    const int may_lack =
        config_meaning_is_v4(a) && config_meaning_is_v4(b) && !is_spelled_alike(a, b);

    memset(out, 0, sizeof *out);
    out->differing = calloc(most, sizeof *out->differing);
    out->lone = calloc(most, sizeof *out->lone);
    if (out->differing == NULL || out->lone == NULL)
        return ckpt_fail_memory(err, "a comparison", most);
    for (size_t i = 0; i < a->count; i++) {
        const config_member *x = &a->members[i];
        const config_member *y = config_meaning_find(b, x->name);

        if (strcmp(x->name, CONFIG_SPELLING) == 0)
            continue;
        out->compared += y != NULL;
        if (y == NULL)
            add_lone(out, (config_difference){ x->name, x->text, NULL }, may_lack);
        else if (!same_text(x->text, y->text))
            out->differing[out->count++] = (config_difference){ x->name, x->text, y->text };
    }
    for (size_t i = 0; i < b->count; i++) {
        const config_member *y = &b->members[i];

        if (strcmp(y->name, CONFIG_SPELLING) != 0 && config_meaning_find(a, y->name) == NULL)
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
