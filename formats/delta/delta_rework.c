/* Makes a delta between a base and the result of applying deltas to it. */
#include "delta_rework.h"

#include <stdlib.h>
#include <string.h>

#include "delta_names.h"
#include "delta_views.h"
#include "formats/hf.h"
#include "libckpt/output.h"

typedef struct {
    const delta_rework_options *options;
    delta_chain chain;
    delta_views views;
    file_list names;
} rework_job;

/* ---- other files ---- */

/* The last change of a file in the chain; NULL if delta `d` is not the first to change it. */
static const delta_file *find_last(const delta_chain *chain, size_t d, size_t i,
                                   const ckpt_delta **from)
{
    const delta_file *found = &chain->deltas[d]->files[i];

    *from = chain->deltas[d];
    for (size_t before = 0; before < d; before++)
        for (size_t n = 0; n < chain->deltas[before]->file_count; n++)
            if (strcmp(chain->deltas[before]->files[n].name, found->name) == 0)
                return NULL;
    for (size_t after = d + 1; after < chain->count; after++)
        for (size_t n = 0; n < chain->deltas[after]->file_count; n++)
            if (strcmp(chain->deltas[after]->files[n].name, found->name) == 0) {
                found = &chain->deltas[after]->files[n];
                *from = chain->deltas[after];
            }
    return found;
}

/* Carry a changed file: the content in the last delta, or that in the base for a reverse delta. */
static ckpt_code carry_file(const rework_job *job, const ckpt_delta *from, const delta_file *f,
                            const char *directory, delta_carried *out, ckpt_error *err)
{
    const ckpt_folder *base = job->views.checkpoint->place.folder;
    const int is_back = job->options->is_reverse;
    const delta_content_of content = { NULL, is_back ? base : from->place.folder,
                                       is_back ? f->name : f->carried };

    if (is_back ? !folder_has(base, f->name) : f->carried == NULL)
        return delta_carried_remove(out, f->name, err);
    return delta_carried_put(out, directory, f->name, &content, err);
}

static ckpt_code carry_all(void *context, const char *directory, delta_carried *out,
                           ckpt_error *err)
{
    const rework_job *job = context;
    ckpt_code code = delta_carried_begin(out, job->names.count, err);

    for (size_t d = 0; d < job->chain.count; d++)
        for (size_t i = 0; i < job->chain.deltas[d]->file_count && code == CKPT_OK; i++) {
            const ckpt_delta *from;
            const delta_file *f = find_last(&job->chain, d, i, &from);

            if (f != NULL)
                code = carry_file(job, from, f, directory, out, err);
        }
    return code;
}

static ckpt_code list_names(rework_job *job, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t d = 0; d < job->chain.count; d++)
        for (size_t i = 0; i < job->chain.deltas[d]->file_count && code == CKPT_OK; i++)
            code = delta_carried_name(job->chain.deltas[d]->files[i].name, &job->names, err);
    return code;
}

/* ---- the delta ---- */

static ckpt_code check_apart(const rework_job *job, ckpt_error *err)
{
    const char *target = job->options->make.target;
    ckpt_code code;

    if ((code = output_check(target, NULL, OUTPUT_NEVER_REPLACES, err)) != CKPT_OK)
        return code;
    code = output_check_apart(target, job->chain.base, err);
    for (size_t i = 0; i < job->chain.count && code == CKPT_OK; i++)
        code = output_check_apart(target, job->chain.deltas[i]->path, err);
    return code;
}

static ckpt_code run_job(rework_job *job, delta_made *out, ckpt_error *err)
{
    const delta_patch_options patch = { .delta = NULL };
    const delta_rework_options *o = job->options;
    delta_views *v = &job->views;
    delta_makings from = { .carry = carry_all, .carry_context = job, .names = &job->names,
                           .model = &v->model };
    const ckpt_delta *first;
    const ckpt_delta *last;
    ckpt_code code;

    if ((code = delta_chain_open(o->base, o->deltas, o->delta_count, &job->chain, err)) !=
            CKPT_OK ||
        (code = check_apart(job, err)) != CKPT_OK ||
        (code = delta_views_open(&job->chain, &o->make.open, &patch, v, err)) != CKPT_OK ||
        (code = delta_names_check_base(&job->chain, v->checkpoint, NULL, err)) != CKPT_OK ||
        (code = list_names(job, err)) != CKPT_OK)
        return code;
    first = job->chain.deltas[0];
    last = job->chain.deltas[job->chain.count - 1];
    /* The patches read the base through its digest; read it a second time without digesting it. */
    from.before = v->model.is_stored ? v->model.in.stored_source : v->model.in.logical;
    from.after = v->result;
    from.before_digest = v->model.digest;
    from.after_digest = v->digest;
    from.told[0] = &first->base;
    from.told[1] = &last->result;
    from.base_version = first->base_version;
    if (o->is_reverse) {
        from = (delta_makings){ from.model, from.after, from.before, from.after_digest,
                                from.before_digest, { NULL, NULL }, from.carry,
                                from.carry_context, from.names, { from.told[1], from.told[0] },
                                last->version, from.fingerprint, 0, 0 };
    }
    store_mix_files(v->checkpoint->store, &from.fingerprint);
    checkpoint_mix_beside(v->checkpoint, &from.fingerprint);
    for (size_t i = 0; i < job->chain.count; i++)
        delta_mix(job->chain.deltas[i], &from.fingerprint);
    hash128_mix(&from.fingerprint, &o->is_reverse, sizeof o->is_reverse);
    from.fixed_bytes = v->model.in.fixed_bytes + delta_model_bytes(&v->model);
    from.thread_bytes = v->patch_count * (uint64_t)DELTA_PATCH_THREAD_BYTES;
    return delta_make_from(&from, &o->make, out, err);
}

ckpt_code delta_rework(const delta_rework_options *options, delta_made *out, ckpt_error *err)
{
    rework_job job = { .options = options };
    ckpt_code code;

    *out = (delta_made){ .carried_count = 0 };
    code = run_job(&job, out, err);
    delta_views_release(&job.views);
    delta_chain_release(&job.chain);
    file_list_free(&job.names);
    return code;
}
