/*
 * A source that holds the root of its values, as GGUF files and packed checkpoints do, is compared
 * with it: a result made of damaged values would get a root of its own, and no later check could
 * find the damage.
 */
#include <stdio.h>
#include <stdlib.h>

#include "convert_private.h"
#include "libckpt/text.h"

/* Tensors of one input that are converted: of the source, or of --fill-from. */
static size_t count_taken(const job_plan *plan, int is_fill)
{
    size_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(plan->picked->catalog); i++)
        count += (plan->origins[i] != NULL) == is_fill;
    return count;
}

static size_t count_left_out(const job_plan *plan)
{
    return ckpt_catalog_count(plan->source->reading.logical) - count_taken(plan, 0);
}

/* --fill-from gives only what the source lacks. */
static ckpt_code note_fill(job_plan *plan, ckpt_error *err)
{
    char why[128];

    if (plan->fill == NULL)
        return CKPT_OK;
    snprintf(why, sizeof why, "of the %s that it counts %zu are taken",
             text_count(ckpt_catalog_count(plan->fill->reading.logical), "tensor", "tensors").text,
             count_taken(plan, 1));
    return checkpoint_note_root(plan->fill, why, &plan->notes, err);
}

ckpt_code convert_note_root(job_plan *plan, ckpt_error *err)
{
    const size_t left_out = count_left_out(plan);
    char why[TEXT_COUNT_BYTES + 24];
    ckpt_code code = CKPT_OK;

    if (plan->options.no_digest)
        return CKPT_OK;
    snprintf(why, sizeof why, "it counts %s left out",
             text_count(left_out, "tensor that is", "tensors that are").text);
    if (left_out > 0)
        code = checkpoint_note_root(plan->source, why, &plan->notes, err);
    return code == CKPT_OK ? note_fill(plan, err) : code;
}

ckpt_code convert_check_root(const job_plan *plan, job_result *result, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(plan->picked->catalog);
    char root[CKPT_ROOT_HEX];
    uint8_t *own;
    ckpt_code code;

    if (checkpoint_stored_root(plan->source) == NULL || result->digest == NULL ||
        count_left_out(plan) > 0)
        return CKPT_OK;
    if ((own = calloc(count + 1, 1)) == NULL)
        return ckpt_fail_memory(err, "the root digest", count);
    for (size_t i = 0; i < count; i++)
        own[i] = plan->origins[i] == NULL;
    code = digest_root_of(result->digest, own, root, err);
    free(own);
    if (code != CKPT_OK)
        return code;
    code = checkpoint_check_root(plan->source, root, "--no-digest converts them unchecked", err);
    result->is_refused = code != CKPT_OK;
    return code;
}
