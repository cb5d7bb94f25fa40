/*
 * A source that holds the root of its values, as GGUF files and packed checkpoints do, is compared
 * with it: a result made of damaged values would get a root of its own, and no later check could
 * find the damage.
 */
#include <stdlib.h>
#include <string.h>

#include "convert_private.h"
#include "formats/notes.h"

/* Tensors of the source that are converted. The others are left out by rules of the layout. */
static size_t count_own(const job_plan *plan)
{
    size_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(plan->picked->catalog); i++)
        count += plan->origins[i] == NULL;
    return count;
}

static size_t count_left_out(const job_plan *plan)
{
    return ckpt_catalog_count(plan->source->reading.logical) - count_own(plan);
}

ckpt_code convert_note_root(job_plan *plan, ckpt_error *err)
{
    const size_t left_out = count_left_out(plan);

    if (plan->options.no_digest || left_out == 0 || checkpoint_stored_root(plan->source) == NULL)
        return CKPT_OK;
    return note_add(&plan->notes, err, "the root in the key %s of '%s' is not compared: it counts "
                    "%zu tensors that are left out", checkpoint_root_key(plan->source),
                    plan->options.source, left_out);
}

ckpt_code convert_check_root(const job_plan *plan, job_result *result, ckpt_error *err)
{
    const char *stored = checkpoint_stored_root(plan->source);
    const size_t count = ckpt_catalog_count(plan->picked->catalog);
    char root[CKPT_ROOT_HEX];
    uint8_t *own;
    ckpt_code code;

    if (stored == NULL || result->digest == NULL || count_left_out(plan) > 0)
        return CKPT_OK;
    if ((own = calloc(count + 1, 1)) == NULL)
        return ckpt_fail_memory(err, "the root digest", count);
    for (size_t i = 0; i < count; i++)
        own[i] = plan->origins[i] == NULL;
    code = digest_root_of(result->digest, own, root, err);
    free(own);
    if (code != CKPT_OK || strcmp(stored, root) == 0)
        return code;
    result->is_refused = 1;
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s': its key %s says %s, but its values have the root "
                     "%s: they changed since it was written; --no-digest converts them unchecked",
                     plan->options.source, checkpoint_root_key(plan->source), stored, root);
}
