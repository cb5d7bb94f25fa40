/* What a person should know of a conversion: on the terminal, in --json, in the report. */
#include <string.h>

#include "convert_private.h"
#include "libckpt/digest.h"
#include "formats/notes.h"

/* Does --fill-from supply a block that the source was said to lack? */
static int fills_mtp(const convert_job *job)
{
    for (size_t i = 0; i < ckpt_catalog_count(job->picked->catalog); i++)
        if (job->origins[i] != NULL &&
            digest_is_mtp(ckpt_catalog_at(job->picked->catalog, i)->name))
            return 1;
    return 0;
}

/* What opening the source let pass, unless it holds no more. */
static ckpt_code take_source(convert_job *job, ckpt_error *err)
{
    const file_list *notes = &job->source->notes;
    const int has_mtp = fills_mtp(job);
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < notes->count && code == CKPT_OK; i++)
        if (!has_mtp || strcmp(notes->names[i], CHECKPOINT_NO_MTP) != 0)
            code = note_add(&job->notes, err, "%s", notes->names[i]);
    return code;
}

static ckpt_code take_filled(convert_job *job, ckpt_error *err)
{
    const ckpt_catalog *picked = job->picked->catalog;
    const char *first = NULL;
    size_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(picked); i++) {
        if (job->origins[i] == NULL)
            continue;
        count++;
        if (first == NULL)
            first = ckpt_catalog_at(picked, i)->name;
    }
    if (count == 0)
        return note_add(&job->notes, err, "nothing came from '%s': '%s' has all tensors",
                        job->options.fill_from, job->options.source);
    return note_add(&job->notes, err, "%zu tensors come from '%s', the first is '%s'", count,
                    job->options.fill_from, first);
}

/* --dtype is of quantised weights: a checkpoint in F16 comes out as it was. */
static ckpt_code take_halves(convert_job *job, ckpt_error *err)
{
    const char *first = NULL;
    size_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(job->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(job->targets, i);

        if (t->dtype != CKPT_F16)
            continue;
        count++;
        if (first == NULL)
            first = t->name;
    }
    if (count == 0 || job->like != NULL ||
        (job->options.policy.dtype == PLAN_KEEP && job->options.policy.experts == PLAN_KEEP))
        return CKPT_OK;
    return note_add(&job->notes, err, "%zu tensors are F16 and stay so, the first is '%s': only "
                    "quantised weights and BF16 are converted", count, first);
}

/* Experts that are stacked in one tensor have no number in their name. */
static ckpt_code take_no_experts(convert_job *job, ckpt_error *err)
{
    if (job->like != NULL || job->options.policy.experts == job->options.policy.dtype)
        return CKPT_OK;
    for (size_t i = 0; i < ckpt_catalog_count(job->targets); i++)
        if (plan_is_expert(ckpt_catalog_at(job->targets, i)->name))
            return CKPT_OK;
    return note_add(&job->notes, err, "no tensor is a numbered expert ('experts.0.'): --experts "
                    "changes nothing, and --dtype is about all weights");
}

ckpt_code convert_take_notes(convert_job *job, ckpt_error *err)
{
    const convert_options *o = &job->options;
    ckpt_code code;

    if ((code = take_source(job, err)) != CKPT_OK ||
        (job->like != NULL &&
         (code = note_add_all(&job->notes, &job->like->notes, o->like, err)) != CKPT_OK) ||
        (job->fill != NULL &&
         ((code = note_add_all(&job->notes, &job->fill->notes, o->fill_from, err)) != CKPT_OK ||
          (code = take_filled(job, err)) != CKPT_OK)))
        return code;
    if ((code = take_no_experts(job, err)) != CKPT_OK)
        return code;
    return take_halves(job, err);
}
