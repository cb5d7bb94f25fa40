/* Which tensor of the target comes from where: the source, --fill-from, or as --like has it. */
#include "convert_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/pick.h"

typedef struct {
    pick_entry *entries;
    size_t count;
} inputs;

static void add_input(inputs *in, const char **origins, const ckpt_checkpoint *from, size_t i,
                      const char *origin)
{
    in->entries[in->count].source = ckpt_logical(from);
    in->entries[in->count].tensor = i;
    origins[in->count++] = origin;
}

/* Why the target's layout omits this tensor (by default); NULL: it is stored. */
static const char *find_reason(const job_plan *plan, const char *name)
{
    const char *reason;

    if (plan->like != NULL)
        return NULL;
    reason = map_find_omit(plan->map, name);
    return reason == NULL && !plan->options.mtp ? map_find_spare(plan->map, name) : reason;
}

/* 1 when the target omits the tensor; the reason is kept for the report. */
static int omits(job_plan *plan, const char *name)
{
    const char *reason = find_reason(plan, name);

    if (reason == NULL)
        return 0;
    plan->drops[plan->drop_count].name = name;
    plan->drops[plan->drop_count++].reason = reason;
    return 1;
}

/* Take the source's tensors, then those that only --fill-from has. */
static void take_all(job_plan *plan, inputs *in)
{
    const ckpt_catalog *own = plan->source->reading.logical;
    const ckpt_catalog *more = plan->fill == NULL ? NULL : plan->fill->reading.logical;

    for (size_t i = 0; i < ckpt_catalog_count(own); i++)
        if (!omits(plan, ckpt_catalog_at(own, i)->name))
            add_input(in, plan->origins, plan->source, i, NULL);
    for (size_t i = 0; more != NULL && i < ckpt_catalog_count(more); i++)
        if (ckpt_catalog_find(own, ckpt_catalog_at(more, i)->name) < 0 &&
            !omits(plan, ckpt_catalog_at(more, i)->name))
            add_input(in, plan->origins, plan->fill, i, plan->options.fill_from);
}

static ckpt_code check_like_shape(const ckpt_tensor *got, const ckpt_tensor *like,
                                  ckpt_error *err)
{
    char got_shape[256];
    char like_shape[256];

    if (catalog_same_shape(got, like))
        return CKPT_OK;
    catalog_shape_text(got, got_shape, sizeof got_shape);
    catalog_shape_text(like, like_shape, sizeof like_shape);
    return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is %s, but %s in the --like model",
                     got->name, got_shape, like_shape);
}

/* Take exactly the tensors of --like, in its order. */
static ckpt_code take_like(job_plan *plan, inputs *in, ckpt_error *err)
{
    const ckpt_catalog *like = plan->like->reading.logical;
    const ckpt_catalog *own = plan->source->reading.logical;
    ckpt_code code;

    for (size_t i = 0; i < ckpt_catalog_count(own); i++)
        if (ckpt_catalog_find(like, ckpt_catalog_at(own, i)->name) < 0)
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' of '%s' is not in '%s'",
                             ckpt_catalog_at(own, i)->name, plan->options.source,
                             plan->options.like);
    for (size_t i = 0; i < ckpt_catalog_count(like); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(like, i);
        const ckpt_checkpoint *from = plan->source;
        int64_t found = ckpt_catalog_find(own, t->name);

        if (found < 0 && plan->fill != NULL) {
            from = plan->fill;
            found = ckpt_catalog_find(from->reading.logical, t->name);
        }
        if (found < 0)
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' of '%s' is not in '%s'%s", t->name,
                             plan->options.like, plan->options.source,
                             plan->fill != NULL ? ""
                                                : ": ckpt-convert --fill-from with the same path "
                                                  "adds it");
        code = check_like_shape(ckpt_catalog_at(from->reading.logical, (size_t)found), t, err);
        if (code != CKPT_OK)
            return code;
        add_input(in, plan->origins, from, (size_t)found,
                  from == plan->fill ? plan->options.fill_from : NULL);
    }
    return CKPT_OK;
}

/* Of what is around a language model, as a vision tower, no family says what it must be. */
static int is_around(const ckpt_checkpoint *source)
{
    return family_keeps_others(source->family) &&
           strcmp(family_names(source->family, json_root(source->config)), FAMILY_NATIVE) != 0;
}

/* A tensor of --fill-from must be one that the source's config requires. */
static ckpt_code check_filling(const job_plan *plan, const ckpt_tensor *t, ckpt_error *err)
{
    const ckpt_checkpoint *source = plan->source;
    const int64_t o = ckpt_catalog_find(source->official, t->name);
    char where[256];

    if (o < 0 && (is_around(source) ||
                  family_has_optional(source->family, json_root(source->config), t->name)))
        return CKPT_OK;
    if (o < 0)
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' of '%s' is not required by %s of '%s'",
                         t->name, plan->options.fill_from, checkpoint_config_name(source),
                         plan->options.source);
    snprintf(where, sizeof where, " of '%s'", plan->options.fill_from);
    return catalog_check_same(t, ckpt_catalog_at(source->official, (size_t)o), where, err);
}

/* Source and --fill-from together must have all tensors that the source's config requires, and the
 * layout stores. */
static ckpt_code check_filled(const job_plan *plan, ckpt_error *err)
{
    const ckpt_catalog *official = plan->source->official;
    const ckpt_catalog *picked = plan->picked->catalog;
    ckpt_code code = CKPT_OK;

    if (plan->fill == NULL || official == NULL || plan->options.open.lenient)
        return CKPT_OK;
    for (size_t i = 0; i < ckpt_catalog_count(picked) && code == CKPT_OK; i++)
        if (plan->origins[i] != NULL)
            code = check_filling(plan, ckpt_catalog_at(picked, i), err);
    for (size_t i = 0; i < ckpt_catalog_count(official) && code == CKPT_OK; i++) {
        const char *name = ckpt_catalog_at(official, i)->name;

        if (ckpt_catalog_find(picked, name) < 0 && find_reason(plan, name) == NULL)
            code = ckpt_fail(err, CKPT_E_USAGE,
                             "neither '%s' nor '%s' has tensor '%s', which %s requires",
                             plan->options.source, plan->options.fill_from, name,
                             checkpoint_config_name(plan->source));
    }
    return code;
}

/* Refuse --mtp if it adds no tensor: it was meant for another model or layout. */
static ckpt_code check_spare(const job_plan *plan, ckpt_error *err)
{
    const ckpt_catalog *picked = plan->picked->catalog;

    for (size_t i = 0; i < ckpt_catalog_count(picked); i++)
        if (map_find_spare(plan->map, ckpt_catalog_at(picked, i)->name) != NULL)
            return CKPT_OK;
    for (size_t i = 0; i < plan->map->rule_count; i++)
        if (plan->map->rules[i].kind == MAP_SPARE)
            return ckpt_fail(err, CKPT_E_USAGE, "--mtp: '%s' has no next-token block: leave it "
                             "out", plan->options.source);
    return ckpt_fail(err, CKPT_E_USAGE, "--mtp: %s of family %s carries no next-token block: leave "
                     "it out", plan->options.format->name, plan->map->family);
}

ckpt_code convert_pick_inputs(job_plan *plan, ckpt_error *err)
{
    const size_t most = ckpt_catalog_count(plan->source->reading.logical) +
                        (plan->fill == NULL ? 0 : ckpt_catalog_count(plan->fill->reading.logical));
    inputs in = { calloc(most + 1, sizeof *in.entries), 0 };
    ckpt_code code = CKPT_OK;

    plan->origins = calloc(most + 1, sizeof *plan->origins);
    plan->drops = calloc(most + 1, sizeof *plan->drops);
    if (in.entries == NULL || plan->origins == NULL || plan->drops == NULL)
        code = ckpt_fail_memory(err, "a plan", most);
    else if (plan->like != NULL)
        code = take_like(plan, &in, err);
    else
        take_all(plan, &in);
    if (code == CKPT_OK)
        code = source_pick(in.entries, in.count, &plan->picked, err);
    if (code == CKPT_OK)
        code = check_filled(plan, err);
    if (code == CKPT_OK && plan->options.mtp && plan->like == NULL)
        code = check_spare(plan, err);
    free(in.entries);
    return code;
}
