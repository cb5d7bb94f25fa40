/* Checkpoints in the layout of a delta. */
#include "delta_target.h"

#include <string.h>

#include "formats/hf.h"

int delta_layout_is_given(const delta_layout *layout)
{
    return layout->words.dtype != NULL || layout->words.experts != NULL ||
           layout->words.scale_dtype != NULL || layout->words.quantise != NULL ||
           layout->names != NULL || layout->like != NULL;
}

ckpt_code delta_target_open(const char *path, const ckpt_open_options *open, delta_target *out,
                            ckpt_error *err)
{
    ckpt_code code;

    *out = (delta_target){ .checkpoint = NULL };
    if ((code = ckpt_open(path, open, &out->checkpoint, err)) != CKPT_OK)
        return code;
    out->in = delta_input_of(out->checkpoint);
    out->source = out->checkpoint;
    out->config = out->checkpoint->config_text;
    return CKPT_OK;
}

/* Plan a conversion to a Hugging Face directory; its result is read but never written. */
ckpt_code delta_target_plan(const char *path, const delta_layout *layout,
                            const ckpt_open_options *open, delta_target *out, ckpt_error *err)
{
    convert_options options = {
        .source = path, .target = layout->target, .like = layout->like, .names = layout->names,
        .open = *open, .allow_lossy = layout->allow_lossy, .quantise = layout->quantise,
        .sticky_scale = layout->sticky_scale, .quantise_f32 = layout->quantise_f32,
        .no_digest = 1, .no_space_check = 1,
    };
    ckpt_code code;

    *out = (delta_target){ .checkpoint = NULL };
    if ((code = convert_take_words(&layout->words, &options, err)) != CKPT_OK ||
        (code = job_plan_make(&options, &out->plan, err)) != CKPT_OK ||
        (code = pipeline_make(out->plan, NULL, &out->result, &out->pipeline, err)) != CKPT_OK)
        return code;
    out->in = (delta_input){ path, out->pipeline.written, out->plan->layout,
                             out->plan->store->catalog, NULL, out->plan->fixed_bytes };
    out->source = out->plan->source;
    out->config = out->plan->config_text;
    return CKPT_OK;
}

ckpt_code delta_target_loss(delta_target *t, int *is_there, quantise_loss *out, ckpt_error *err)
{
    ckpt_code code;

    *out = (quantise_loss){ .elements = 0 };
    *is_there = t->plan != NULL && t->plan->rules != NULL;
    if (!*is_there ||
        (code = convert_take_losses(t->plan, &t->pipeline, &t->result, err)) != CKPT_OK)
        return *is_there ? code : CKPT_OK;
    for (size_t i = 0; i < ckpt_catalog_count(t->plan->targets); i++)
        if (t->plan->rules[i] != NULL)
            quantise_loss_merge(out, &t->result.losses[i]);
    return CKPT_OK;
}

ckpt_code delta_target_check_root(const delta_target *t, const char *root, file_list *notes,
                                  ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(ckpt_source_catalog(ckpt_logical(t->source)));
    const int has_all = count == ckpt_catalog_count(t->in.logical->catalog);
    const int may_round = t->plan != NULL && (t->plan->rules != NULL ||
                                              t->plan->options.allow_lossy);

    if (root[0] != '\0' && has_all && !may_round)
        return checkpoint_check_root(t->source, root, "ckpt-shard --layout hf --no-digest makes a "
                                     "copy of them as they are", err);
    return checkpoint_note_root(t->source, root[0] == '\0' ? "the values have no digest"
                                           : has_all ? "values may be rounded"
                                                     : "it counts tensors that are left out",
                                notes, err);
}

void delta_target_release(delta_target *t)
{
    if (t->plan != NULL) {
        pipeline_free(&t->pipeline);
        job_result_release(&t->result);
        job_plan_free(t->plan);
    }
    ckpt_close(t->checkpoint);
}
