/* What apply checks: roots of base and result, its inputs, the files that deltas carry. */
#include <stdlib.h>
#include <string.h>

#include "delta_apply_private.h"
#include "delta_names.h"
#include "delta_side.h"
#include "formats/notes.h"
#include "libckpt/sha256.h"

/* ---- roots ---- */

static ckpt_code result_roots(apply_job *job, ckpt_error *err)
{
    const ckpt_run_options run = delta_views_run(&job->views, &job->options->run, 0);
    ckpt_source *written = NULL;
    ckpt_digest *digest = NULL;
    ckpt_code code = CKPT_OK;

    if (job->views.digest != NULL)
        return delta_digest_roots(job->views.digest, &job->out->result, err);
    if (job->store == NULL || !delta_model_has_digest(&job->views.model))
        return note_add(&job->out->notes, err, "the root of the result is not known");
    /* With several logical tensors in a stored one, the root is computed from the written files. */
    if ((code = source_stored(job->store, job->views.checkpoint->layout, &written, err)) ==
            CKPT_OK &&
        (code = ckpt_digest_source(written, &run, &digest, err)) == CKPT_OK)
        code = delta_digest_roots(digest, &job->out->result, err);
    ckpt_digest_free(digest);
    ckpt_source_free(written);
    return code;
}

/* The base was read in the shape of the result, without the tensors that this lacks: the root of
 * all of it takes another pass. */
static ckpt_code real_roots(apply_job *job, const ckpt_run_options *run, ckpt_error *err)
{
    const delta_input in = delta_input_of(job->views.real);
    const delta_model all = { .in = in, .is_stored = 1 };

    return delta_model_roots(&all, run, &job->out->base, err);
}

static ckpt_code base_roots(apply_job *job, ckpt_error *err)
{
    const ckpt_run_options run = delta_views_run(&job->views, &job->options->run, 0);

    if (job->out->kept_count > 0)
        return CKPT_OK;            /* a resumed run does not read all of the base */
    return job->views.real != NULL
               ? real_roots(job, &run, err)
               : delta_model_roots(&job->views.model, &run, &job->out->base, err);
}

static ckpt_code fail_base(const apply_job *job, ckpt_error *err)
{
    const ckpt_delta *first = job->chain.deltas[0];

    return ckpt_fail(err, CKPT_E_DIFFERENT, "'%s' was not made from '%s': the tensors that it "
                     "changes are right, others are not: expected root %s, got %s", first->path,
                     job->chain.base, first->base.all, job->out->base.all);
}

static ckpt_code fail_result(const apply_job *job, ckpt_error *err)
{
    const ckpt_delta *last = job->chain.deltas[job->chain.count - 1];

    return ckpt_fail(err, CKPT_E_DIFFERENT, "the result is not what '%s' makes: expected root %s, "
                     "got %s: '%s' differs in a tensor that the deltas do not change", last->path,
                     last->result.all, job->out->result.all, job->chain.base);
}

/*
 * The changed tensors fit, before and after the change. Where all others are right, too, a wrong
 * root is that of a damaged delta: those of the result are right if its root is, those of the base
 * if that is. But a base in the shape of the result (views.real) has tensors that the result lacks.
 */
static ckpt_code judge_roots(apply_job *job, delta_root_verdict base, ckpt_error *err)
{
    const ckpt_delta *first = job->chain.deltas[0];
    const ckpt_delta *last = job->chain.deltas[job->chain.count - 1];
    const int tells_base = job->views.digest != NULL && job->views.real == NULL;
    delta_root_verdict result;
    ckpt_code code;

    if (base == DELTA_ROOT_WRONG && !tells_base)
        return fail_base(job, err);
    if ((code = result_roots(job, err)) != CKPT_OK)
        return code;
    result = delta_roots_judge(&last->result, &job->out->result);
    if (base == DELTA_ROOT_WRONG && result != DELTA_ROOT_RIGHT)
        return fail_base(job, err);
    if (base != DELTA_ROOT_RIGHT && result == DELTA_ROOT_WRONG)
        return fail_result(job, err);
    code = delta_roots_check(first->path, "base", &first->base, &job->out->base, err);
    return code == CKPT_OK
               ? delta_roots_check(last->path, "result", &last->result, &job->out->result, err)
               : code;
}

ckpt_code delta_apply_check_roots(apply_job *job, ckpt_error *err)
{
    const ckpt_delta *first = job->chain.deltas[0];
    ckpt_code code = CKPT_OK;

    if (job->options->check == DELTA_CHECK_NONE)
        return (code = result_roots(job, err)) != CKPT_OK
                   ? code
                   : note_add(&job->out->notes, err, "neither the base nor the root of the result "
                              "was compared with what the deltas say");
    if (job->options->check == DELTA_CHECK_FULL ||
        (job->views.model.digest != NULL && job->views.real == NULL))
        code = base_roots(job, err);
    if (code != CKPT_OK)
        return code;
    if (job->options->check == DELTA_CHECK_FULL && first->base.all[0] == '\0')
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' does not tell the root of its base: --base-check "
                         "full has nothing to compare with", first->path);
    return judge_roots(job, delta_roots_judge(&first->base, &job->out->base), err);
}

/* ---- files ---- */

ckpt_code delta_apply_check_carried(const ckpt_delta *d, const delta_file *f, ckpt_error *err)
{
    char *path = folder_path_of(d->place.folder, f->carried);
    char got[SHA256_HEX];
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(f->carried));
    if ((code = sha256_file(path, got, err)) == CKPT_OK)
        code = delta_side_check_hash(path, f->sha256, got, err);
    free(path);
    return code;
}

ckpt_code delta_apply_check_files(const apply_job *job, ckpt_error *err)
{
    const ckpt_checkpoint *real = delta_views_base(&job->views);
    const char *const base = folder_path(real->place.folder);
    const char *const target = job->options->in_place ? base : job->options->target;
    ckpt_code code = delta_names_check_base(&job->chain, real, target, err);

    for (size_t d = 0; d < job->chain.count && !job->options->dry_run; d++) {
        const ckpt_delta *delta = job->chain.deltas[d];

        for (size_t i = 0; i < delta->file_count && code == CKPT_OK; i++)
            if (delta->files[i].carried != NULL)
                code = delta_apply_check_carried(delta, &delta->files[i], err);
    }
    return code;
}

ckpt_code delta_apply_check_inputs(const apply_job *job, ckpt_error *err)
{
    int is_touched = 0;
    ckpt_code code =
        store_check_unchanged(delta_views_base(&job->views)->store, &is_touched, err);

    for (size_t i = 0; i < job->chain.count && code == CKPT_OK; i++)
        code = store_check_unchanged(job->chain.deltas[i]->store, &is_touched, err);
    return code;
}
