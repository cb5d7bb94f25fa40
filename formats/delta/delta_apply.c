/* Applies deltas to a base and writes a checkpoint. */
#include "delta_apply.h"

#include <stdlib.h>
#include <string.h>

#include "delta_apply_private.h"
#include "formats/hf.h"
#include "formats/notes.h"
#include "libckpt/packed.h"

/* ---- the proof of the deltas' files, beside the work ---- */

static int should_stop(void *context)
{
    const apply_job *job = context;
    const ckpt_run_options *run = &job->options->run;

    return delta_proof_has_failed(job->proof) ||
           (run->cancel != NULL && run->cancel(run->context));
}

static void tell_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    const ckpt_run_options *run = &((const apply_job *)context)->options->run;

    if (run->progress != NULL)
        run->progress(run->context, done_bytes, total_bytes);
}

static void tell_phase(void *context, const char *name, uint64_t later_bytes)
{
    const ckpt_run_options *run = &((const apply_job *)context)->options->run;

    if (run->phase != NULL)
        run->phase(run->context, name, later_bytes);
}

static ckpt_code begin_proof(apply_job *job, ckpt_error *err)
{
    job->run = job->options->run;
    job->run.fixed_bytes += DELTA_PROOF_BYTES;
    job->run.cancel = should_stop;
    job->run.progress = tell_progress;
    job->run.phase = tell_phase;
    job->run.context = job;
    return delta_proof_begin(&job->chain, &job->options->run, &job->proof, err);
}

/* The result of the work becomes that of the proof if this fails: frames of a damaged file may well
 * have failed first. */
static ckpt_code end_proof(apply_job *job, ckpt_code code, ckpt_error *err)
{
    const int is_needed = code == CKPT_OK || code == CKPT_E_FORMAT || code == CKPT_E_DIFFERENT;
    delta_proof *proof = job->proof;
    ckpt_code proven = CKPT_OK;

    job->proof = NULL;
    if (proof == NULL)
        return code;
    if (is_needed || delta_proof_has_failed(proof))
        proven = delta_proof_end(proof, err);
    else
        delta_proof_abort(proof);
    return proven == CKPT_OK ? code : proven;
}

/* ---- tensors ---- */

static ckpt_code check_tensors(apply_job *job, ckpt_error *err)
{
    static const sink_ops ops = { NULL, sink_put_nothing, NULL, NULL };
    const ckpt_run_options run = delta_views_run(&job->views, &job->run, 0);
    const copy_tiles tiles = { .turns = &job->turns };
    ckpt_sink nowhere = { &ops };

    return ckpt_copy_in_order(job->views.result, &nowhere, &tiles, &run, err);
}

static ckpt_code write_tensors(apply_job *job, ckpt_error *err)
{
    const ckpt_run_options run = delta_views_run(&job->views, &job->run, 0);
    const copy_tiles tiles = { .turns = &job->turns };
    const file_sink_options options = {
        .store = job->store,
        .layout = job->views.model.layout,
        .journal = output_journal(job->output),
        .digest = job->views.digest,
        .there = job->there,
    };
    ckpt_sink *sink = NULL;
    ckpt_code code;

    if ((code = sink_files_create(&options, &sink, err)) == CKPT_OK &&
        (code = sink_files_resume(sink, &run, &job->out->kept_count, err)) == CKPT_OK)
        code = ckpt_copy_in_order(job->views.result, sink, &tiles, &run, err);
    sink_files_free(sink);
    return code;
}

/* ---- files beside the weights ---- */

static ckpt_code copy_beside(apply_job *job, const ckpt_folder *from, const char *name,
                             const char *as, ckpt_error *err)
{
    const char *directory = output_directory(job->output);
    char *to = file_join(directory, as);
    ckpt_code code;

    if (to == NULL)
        return ckpt_fail_memory(err, "a path", strlen(as));
    if ((code = file_make_parents_below(directory, as, err)) == CKPT_OK)
        code = folder_copy(from, name, to, err);
    free(to);
    return code;
}

static ckpt_code put_delta_files(apply_job *job, const ckpt_delta *d, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < d->file_count && code == CKPT_OK; i++) {
        const delta_file *f = &d->files[i];
        char *gone;

        if (f->carried != NULL) {
            if ((code = delta_apply_check_carried(d, f, err)) == CKPT_OK)
                code = copy_beside(job, d->place.folder, f->carried, f->name, err);
            continue;
        }
        if ((gone = file_join(output_directory(job->output), f->name)) == NULL)
            return ckpt_fail_memory(err, "a path", strlen(f->name));
        code = file_remove(gone, err);
        free(gone);
    }
    return code;
}

static ckpt_code write_beside(apply_job *job, ckpt_error *err)
{
    static const char *const always[] = { "config.json", HF_INDEX_FILE };
    const ckpt_checkpoint *base = job->views.checkpoint;
    const ckpt_folder *folder = base->place.folder;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < 2 && code == CKPT_OK; i++)
        if (folder_has(folder, always[i]))
            code = copy_beside(job, folder, always[i], always[i], err);
    for (size_t i = 0; i < base->extras.count && code == CKPT_OK; i++)
        code = copy_beside(job, folder, base->extras.names[i], base->extras.names[i], err);
    for (size_t d = 0; d < job->chain.count && code == CKPT_OK; d++)
        code = put_delta_files(job, job->chain.deltas[d], err);
    return code;
}

/* ---- the whole job ---- */

/* Add notes on what cannot be verified with deltas that have no side file. */
static ckpt_code note_foreign(apply_job *job, ckpt_error *err)
{
    for (size_t d = 0; d < job->chain.count; d++)
        if (!job->chain.deltas[d]->has_side)
            return note_add(&job->out->notes, err, "'%s' has no %s: only what the changed tensors "
                            "become is checked, and config.json and other files are those of the "
                            "base", job->chain.deltas[d]->path, DELTA_SIDE_FILE);
    return CKPT_OK;
}

static ckpt_code take_counts(apply_job *job, ckpt_error *err)
{
    const ckpt_catalog *stored = job->views.model.in.stored;
    delta_outcome *out = job->out;

    out->tensor_count = ckpt_catalog_count(stored);
    for (size_t i = 0; i < out->tensor_count; i++) {
        const char *name = ckpt_catalog_at(stored, i)->name;
        int is_changed = 0;

        out->bytes += ckpt_part_bytes(ckpt_catalog_at(stored, i), CKPT_DATA);
        for (size_t d = 0; d < job->chain.count; d++)
            is_changed |= delta_find(job->chain.deltas[d], name) != NULL;
        out->changed_count += (size_t)is_changed;
    }
    for (size_t d = 0; d < job->chain.count; d++)
        out->packed_bytes += delta_packed_bytes(job->chain.deltas[d]);
    memcpy(out->version, job->chain.deltas[job->chain.count - 1]->version, sizeof out->version);
    return note_foreign(job, err);
}

/* Refuse what cannot be changed in place. */
static ckpt_code check_in_place(const apply_job *job, ckpt_error *err)
{
    if (job->views.real != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' adds or removes tensors, for which its base "
                         "cannot be changed in place: apply to a new DST",
                         job->chain.deltas[0]->path);
    return CKPT_OK;
}

/* The same of the base, before it is opened. */
static ckpt_code check_base_in_place(const apply_job *job, ckpt_error *err)
{
    const char *base = job->chain.base;

    if (strcmp(base, job->options->base) != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' is a whole checkpoint, which replaces '%s': give "
                         "it as the base to change it in place", base, job->options->base);
    if (packed_detect(base))
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' is a packed checkpoint, which cannot be changed "
                         "in place: give DST, or unpack it first (ckpt-delta apply --base none)",
                         base);
    return CKPT_OK;
}

static ckpt_code open_job(apply_job *job, ckpt_error *err)
{
    const delta_apply_options *o = job->options;
    const delta_patch_options patch = { .skip_before = o->check == DELTA_CHECK_NONE,
                                        .turns = &job->turns };
    ckpt_open_options open = o->open;
    ckpt_code code;

    open.interrupted = o->in_place;
    if ((code = delta_chain_open_unproven(o->base, o->deltas, o->delta_count, &job->chain, err)) !=
            CKPT_OK ||
        (o->in_place && (code = check_base_in_place(job, err)) != CKPT_OK) ||
        (code = begin_proof(job, err)) != CKPT_OK ||
        (code = delta_views_open(&job->chain, &open, &patch, &job->views, err)) != CKPT_OK ||
        (code = take_counts(job, err)) != CKPT_OK ||
        (code = delta_apply_check_files(job, err)) != CKPT_OK)
        return code;
    return o->in_place ? check_in_place(job, err) : CKPT_OK;
}

/* All that is read and checked; without a target nothing is written. */
static ckpt_code run_tensors(apply_job *job, ckpt_error *err)
{
    const int writes = job->options->target != NULL;
    ckpt_code code;

    if (writes && (code = delta_apply_begin(job, err)) != CKPT_OK)
        return code;
    if ((code = writes ? write_tensors(job, err) : check_tensors(job, err)) == CKPT_OK &&
        (code = delta_apply_check_roots(job, err)) == CKPT_OK && writes)
        code = delta_apply_check_inputs(job, err);
    code = end_proof(job, code, err);
    job->is_refused = code == CKPT_E_FORMAT || code == CKPT_E_DIFFERENT || code == CKPT_E_USAGE;
    return code;
}

static ckpt_code run_job(apply_job *job, ckpt_error *err)
{
    const delta_apply_options *o = job->options;
    ckpt_code code = open_job(job, err);

    /* In place the first write is to the base. */
    if (code != CKPT_OK || o->dry_run || o->in_place)
        code = end_proof(job, code, err);
    if (code != CKPT_OK)
        return code;
    if (o->dry_run && o->in_place)
        return delta_apply_check_in_place(job, err);
    if (o->dry_run)
        return o->target == NULL ? CKPT_OK : delta_apply_check_begin(job, err);
    if (o->in_place)
        return delta_apply_in_place(job, err);
    if ((code = run_tensors(job, err)) != CKPT_OK || o->target == NULL ||
        (code = write_beside(job, err)) != CKPT_OK)
        return code;
    return store_close_files(job->store, err);
}

static ckpt_code end_job(apply_job *job, ckpt_code code, ckpt_error *err)
{
    ckpt_output *output = job->output;

    job->output = NULL;
    if (output == NULL)
        return code;
    if (code == CKPT_OK)
        return output_commit(output, err);
    if (job->store != NULL)
        store_close_files(job->store, NULL);
    if (job->is_refused)
        output_discard(output, NULL);              /* an earlier error is reported */
    else
        output_close(output);
    return code;
}

ckpt_code delta_apply(const delta_apply_options *options, delta_outcome *out, ckpt_error *err)
{
    apply_job job = { .options = options, .out = out };
    ckpt_code code;

    *out = (delta_outcome){ .tensor_count = 0 };
    turns_init(&job.turns);
    code = end_job(&job, run_job(&job, err), err);
    delta_proof_abort(job.proof);
    store_free(job.store);
    delta_views_release(&job.views);
    delta_chain_release(&job.chain);
    turns_release(&job.turns);
    file_list_free(&job.names);
    free(job.shared);
    free(job.there);
    return code;
}

void delta_outcome_release(delta_outcome *outcome)
{
    file_list_free(&outcome->notes);
}
