/* ckpt_convert: plan, run and commit in one call. */
#include <stdlib.h>

#include "convert_private.h"
#include "libckpt/options.h"

struct ckpt_conversion {
    convert_job *job;
    ckpt_outcome outcome;
};

static void take_options(const ckpt_convert_options *from, convert_options *out)
{
    out->open = from->open;
    out->names = from->names;
    out->mtp = from->mtp;
    out->force_names = from->force_names;
    out->like = from->like;
    out->fill_from = from->fill_from;
    out->file_bytes_max = from->file_bytes_max;
    out->many_files = from->many_files;
    out->sharding.mp = from->mp;
    out->sharding.tp = from->tp;
    out->sharding.pp = from->pp;
    out->sharding.ep = from->ep;
    out->sharding.etp = from->etp;
    out->sharding.first_stage_layers = from->first_stage_layers;
    out->sharding.last_stage_layers = from->last_stage_layers;
    out->sharding.per_rank_files = from->per_rank_files;
    out->sharding.extra_state = from->extra_state;
    out->match_reference = from->match_reference;
    out->allow_lossy = from->allow_lossy;
    out->no_digest = from->no_digest;
    out->verify = from->verify;
    out->overwrite = from->overwrite;
    out->restart = from->restart;
    out->no_space_check = from->no_space_check;
    out->copy = from->run;
}

ckpt_code ckpt_convert(const char *source, const char *target, const ckpt_convert_options *options,
                       ckpt_conversion **out, ckpt_error *err)
{
    static const ckpt_convert_options defaults = { .layout = NULL };
    const ckpt_convert_options *o = options == NULL ? &defaults : options;
    const convert_words words = { .layout = o->layout, .dtype = o->dtype, .experts = o->experts,
                                  .scale_dtype = o->scale_dtype, .key_style = o->key_style,
                                  .layer_keys = o->layer_keys,
                                  .quantise = o->quantise, .max_relf = o->max_relf };
    convert_options with = { .source = source, .target = target };
    ckpt_conversion *done = calloc(1, sizeof *done);
    ckpt_code code;

    if (done == NULL)
        return ckpt_fail_memory(err, "a conversion", sizeof *done);
    take_options(o, &with);
    if ((code = options_check_reserved(o->reserved, CKPT_RESERVED, err)) != CKPT_OK ||
        (code = convert_take_words(&words, &with, err)) != CKPT_OK ||
        (code = convert_plan(&with, &done->job, err)) != CKPT_OK ||
        (code = convert_run(done->job, err)) != CKPT_OK ||
        (convert_state_of(done->job) == CONVERT_WRITTEN &&
         ((code = convert_outcome(done->job, &done->outcome, err)) != CKPT_OK ||
          (code = convert_commit(done->job, err)) != CKPT_OK)) ||
        out == NULL)
        ckpt_conversion_free(done);
    else
        *out = done;
    return code;
}

void ckpt_conversion_free(ckpt_conversion *conversion)
{
    if (conversion == NULL)
        return;
    convert_free(conversion->job);
    free(conversion);
}

const char *ckpt_conversion_root(const ckpt_conversion *conversion)
{
    return conversion->outcome.root;
}

const char *ckpt_conversion_source_root(const ckpt_conversion *conversion)
{
    return conversion->outcome.source_root;
}

size_t ckpt_conversion_tensors(const ckpt_conversion *conversion)
{
    return ckpt_catalog_count(conversion->outcome.target_logical);
}

uint64_t ckpt_conversion_rounded(const ckpt_conversion *conversion)
{
    return conversion->outcome.rounded;
}

const char *ckpt_conversion_note(const ckpt_conversion *conversion, size_t i)
{
    return i < conversion->outcome.note_count ? conversion->outcome.notes[i] : NULL;
}
