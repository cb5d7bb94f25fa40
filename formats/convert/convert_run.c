/* Runs a planned conversion. */
#include <stdlib.h>
#include <string.h>

#include "convert_feed_copy.h"
#include "convert_private.h"
#include "libckpt/clock.h"
#include "libckpt/options.h"

/* ---- phases ---- */

/* Bytes that are read back and synced after the tensors are written. */
static uint64_t bytes_afterwards(const job_plan *plan)
{
    return plan->options.verify ? 2 * plan->out_bytes : plan->out_bytes;
}

/* Bytes of tensors that the journal does not record as written. */
static uint64_t unwritten_bytes(const job_plan *plan, ckpt_journal *journal)
{
    const journal_record *records = journal_records(journal);
    uint64_t bytes = 0;

    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++)
        if (!records[i].is_done)
            bytes += ckpt_tensor_bytes(ckpt_catalog_at(plan->picked->catalog, i));
    return bytes;
}

/* ---- the tensors ---- */

static ckpt_code copy_tensors(convert_job *job, const convert_pipeline *p, ckpt_error *err)
{
    const job_plan *plan = job->plan;
    job_result *result = &job->result;
    const ckpt_run_options copy = pipeline_run_options(plan);
    const size_t count = ckpt_catalog_count(plan->targets);
    const int is_fed = plan->options.feed != NULL;
    uint8_t *ready = is_fed ? calloc(count + 1, 1) : NULL;
    ckpt_journal *journal = output_journal(job->output.partial);
    const file_sink_options options = {
        .store = plan->store,
        .layout = plan->layout,
        .journal = plan->options.no_digest ? NULL : journal,
        .digest = result->digest,
        .share = is_fed ? ready : plan->share,
        .before_done = job->output.spill == NULL ? NULL : job_output_sync_spill,
        .before_done_context = &job->output,
    };
    ckpt_sink *sink = NULL;
    ckpt_code code;

    result->kept = calloc(count + 1, 1);
    if (result->kept == NULL || (is_fed && ready == NULL))
        code = ckpt_fail_memory(err, "a copy", count);
    else
        code = sink_files_create(&options, &sink, err);
    if (code != CKPT_OK)
        goto out;
    if (options.journal != NULL) {
        run_begin_phase(&copy, "reading",
                        unwritten_bytes(plan, journal) + bytes_afterwards(plan));
        code = sink_files_resume(sink, &copy, &result->kept_count, err);
    }
    for (size_t i = 0; i < count; i++)
        result->kept[i] = (uint8_t)sink_files_kept(sink, i);
    if (code != CKPT_OK)
        goto out;
    run_begin_phase(&copy, "converting", bytes_afterwards(plan));
    code = is_fed ? convert_feed_copy(plan, &(feed_copy){ .from = p->written, .to = sink,
                                                          .options = &copy, .ready = ready,
                                                          .kept = result->kept,
                                                          .directory = job_output_directory(
                                                              &job->output) }, err)
                  : ckpt_copy(p->written, sink, &copy, err);
    result->is_refused = code == CKPT_E_FORMAT || code == CKPT_E_INEXACT || code == CKPT_E_USAGE;
out:
    sink_files_free(sink);
    free(ready);
    return code;
}

static ckpt_code keep_stats(job_result *result, const convert_pipeline *p, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(p->encoded->catalog);

    if ((result->stats = calloc(count + 1, sizeof *result->stats)) == NULL)
        return ckpt_fail_memory(err, "statistics", count);
    for (size_t i = 0; i < count; i++)
        result->stats[i] = source_encode_stats(p->encoded, i);
    return CKPT_OK;
}

/* Check that the side data belongs to the values that were read. */
static ckpt_code check_side_data(const job_plan *plan, job_result *result, ckpt_error *err)
{
    const char *const roots[2] = { result->root, result->main_root };
    ckpt_code code = CKPT_OK;

    if (plan->side != NULL && result->digest != NULL)
        code = side_data_check_roots(plan->side, roots, err);
    result->is_refused |= code == CKPT_E_FORMAT;
    return code;
}

static ckpt_code finish_side_data(const job_plan *plan, const job_result *result,
                                  job_output *output, ckpt_error *err)
{
    const ckpt_run_options copy = pipeline_run_options(plan);
    const char *const roots[2] = { result->root, result->main_root };
    const int has_roots = result->digest != NULL && !plan->options.allow_lossy;
    side_data_writer *spill = output->spill;

    if (spill == NULL)
        return CKPT_OK;
    output->spill = NULL;
    return side_data_finish(spill, has_roots ? roots : NULL, copy_memory_left(&copy), err);
}

static ckpt_code run_pipeline(convert_job *job, ckpt_error *err)
{
    const job_plan *plan = job->plan;
    job_output *output = &job->output;
    job_result *result = &job->result;
    convert_pipeline p = { .tap = NULL };
    ckpt_code code;

    if ((code = job_output_begin_spill(output, err)) != CKPT_OK)
        return code;
    if ((code = pipeline_make(plan, output->spill == NULL ? NULL : side_data_sink(output->spill),
                              result, &p, err)) == CKPT_OK &&
        (code = copy_tensors(job, &p, err)) == CKPT_OK &&
        (code = keep_stats(result, &p, err)) == CKPT_OK &&
        (code = convert_take_losses(plan, &p, result, err)) == CKPT_OK &&
        (code = job_output_seal(output, plan->share, err)) == CKPT_OK &&
        (code = convert_join(job, &p, err)) == CKPT_OK && !result->is_waiting &&
        (code = job_result_take_roots(result, err)) == CKPT_OK &&
        (code = convert_check_root(plan, result, err)) == CKPT_OK &&
        (code = check_side_data(plan, result, err)) == CKPT_OK)
        code = finish_side_data(plan, result, output, err);
    pipeline_free(&p);
    side_data_close(output->spill);            /* a later run resumes it */
    output->spill = NULL;
    return code;
}

/* ---- reading the result back ---- */

static ckpt_code digest_written(const job_plan *plan, job_result *result, ckpt_error *err)
{
    const ckpt_run_options copy = pipeline_run_options(plan);
    ckpt_source *written = NULL;
    ckpt_code code;

    run_begin_phase(&copy, "verifying", plan->out_bytes);
    if ((code = source_stored(plan->store, plan->layout, &written, err)) == CKPT_OK)
        code = ckpt_digest_source(written, &copy, &result->written_digest, err);
    ckpt_source_free(written);
    return code;
}

/* The digest that tensor `i` should have; 0: unknown, because an earlier run or another process
 * wrote it with changed values; its bytes were checked against the journal. */
static int find_expected(const job_result *result, size_t i, hash128 *out)
{
    if (result->encoded_digest == NULL)
        *out = digest_get(result->digest, i);
    else if (!result->kept[i])
        *out = digest_get(result->encoded_digest, i);
    else
        return 0;
    return 1;
}

static ckpt_code compare_written(const job_plan *plan, const job_result *result,
                                 ckpt_error *err)
{
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++) {
        const hash128 got = digest_get(result->written_digest, i);
        hash128 expected;

        if (find_expected(result, i, &expected) && memcmp(&expected, &got, sizeof got) != 0)
            return ckpt_fail(err, CKPT_E_DIFFERENT,
                             "tensor '%s' differs when read back",
                             ckpt_catalog_at(plan->targets, i)->name);
    }
    return CKPT_OK;
}

/* Find the digests of the written tensors: those computed while writing, if this run wrote all of
 * them and --verify is not given; else the files are read again. */
static ckpt_code find_written(const job_plan *plan, job_result *result, ckpt_error *err)
{
    if (plan->options.verify || result->encoded_digest == NULL || result->kept_count > 0 ||
        plan->share != NULL)
        return digest_written(plan, result, err);
    result->written_digest = result->encoded_digest;
    result->encoded_digest = NULL;
    return CKPT_OK;
}

/* Intentionally changed values have digests of their own. */
static ckpt_code read_back(const job_plan *plan, job_result *result, ckpt_error *err)
{
    ckpt_code code;

    if (result->digest == NULL || (!plan->options.verify && !pipeline_may_change(plan)))
        return CKPT_OK;
    if ((code = find_written(plan, result, err)) != CKPT_OK ||
        (code = ckpt_digest_root(result->written_digest, 0, result->root, err)) != CKPT_OK ||
        (code = ckpt_digest_root(result->written_digest, 1, result->main_root, err)) != CKPT_OK)
        return code;
    return plan->options.verify ? compare_written(plan, result, err) : CKPT_OK;
}

/* ---- the run ---- */

/* Read the source again and compare the digests. */
static ckpt_code digest_again(const job_plan *plan, const job_result *result, ckpt_error *err)
{
    const ckpt_run_options copy = pipeline_run_options(plan);
    ckpt_digest *digest = NULL;
    ckpt_code code;

    run_begin_phase(&copy, "reading again", bytes_afterwards(plan));
    code = ckpt_digest_source(plan->picked, &copy, &digest, err);
    for (size_t i = 0; code == CKPT_OK && i < ckpt_catalog_count(plan->targets); i++) {
        const hash128 before = digest_get(result->digest, i);
        const hash128 now = digest_get(digest, i);

        if ((plan->share == NULL || plan->share[i]) && memcmp(&before, &now, sizeof now) != 0)
            code = ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' of '%s' was changed while it was "
                             "being read", ckpt_catalog_at(plan->targets, i)->name,
                             plan->options.source);
    }
    ckpt_digest_free(digest);
    return code;
}

/*
 * A different modification time is a change. If only the ctime differs, in this run or since the
 * run that is resumed, the values decide: somebody may have changed just the mode, or the data and
 * then restored the mtime.
 */
static ckpt_code check_unchanged(const job_plan *plan, job_result *result,
                                 const ckpt_journal *journal, ckpt_error *err)
{
    const ckpt_checkpoint *inputs[] = { plan->source, plan->like, plan->fill };
    int is_touched = result->kept_count > 0 && journal_source_changed(journal);
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < sizeof inputs / sizeof *inputs && code == CKPT_OK; i++)
        if (inputs[i] != NULL)
            code = store_check_unchanged(inputs[i]->store, &is_touched, err);
    if (code == CKPT_OK && is_touched && result->digest != NULL && plan->options.feed == NULL)
        code = digest_again(plan, result, err);
    result->is_refused |= code == CKPT_E_FORMAT;
    return code;
}

/* Inputs by URL, with config.json, the index and what is carried along, which is read until the
 * end. */
static ckpt_code check_folders(const job_plan *plan, job_result *result, ckpt_error *err)
{
    const ckpt_checkpoint *inputs[] = { plan->source, plan->like, plan->fill };
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < sizeof inputs / sizeof *inputs && code == CKPT_OK; i++)
        if (inputs[i] != NULL)
            code = checkpoint_check_unchanged(inputs[i], err);
    result->is_refused |= code == CKPT_E_FORMAT;
    return code;
}

/* A share that starts late or again may find the complete result. */
static ckpt_code look_for_result(convert_job *job, ckpt_error *err)
{
    convert_pipeline p = { .tap = NULL };
    job_result looked_at = { .digest = NULL };
    ckpt_code code;

    if (job->plan->share == NULL || !file_is_directory(job->plan->options.target))
        return CKPT_OK;
    if ((code = pipeline_make(job->plan, NULL, &looked_at, &p, err)) == CKPT_OK)
        code = convert_find_result(job->plan, &p, &job->result.is_there, err);
    pipeline_free(&p);
    job_result_release(&looked_at);
    return code;
}

/* A run that is refused here leaves no output, except what an earlier run has finished. */
static ckpt_code check_room(const job_plan *plan, job_output *output, ckpt_error *err)
{
    ckpt_code code;

    if (plan->options.feed != NULL || plan->options.no_space_check ||
        (code = convert_check_room(plan, job_output_directory(output), err)) == CKPT_OK)
        return CKPT_OK;
    job_output_withdraw(output);
    return code;
}

static ckpt_code run_steps(convert_job *job, ckpt_error *err)
{
    const job_plan *plan = job->plan;
    job_output *output = &job->output;
    job_result *result = &job->result;
    ckpt_code code;

    if ((code = look_for_result(job, err)) != CKPT_OK || result->is_there)
        return code;
    if ((code = convert_check_ids(plan, err)) != CKPT_OK ||
        (code = job_output_begin(output, err)) != CKPT_OK ||
        (code = check_room(plan, output, err)) != CKPT_OK ||
        (code = run_pipeline(job, err)) != CKPT_OK ||
        (code = check_unchanged(plan, result, output_journal(output->partial), err)) != CKPT_OK)
        return code;
    if (result->is_waiting)
        return check_folders(plan, result, err);
    if ((code = read_back(plan, result, err)) != CKPT_OK ||
        (code = job_output_write_index(output, result->root[0] == '\0' ? NULL : result->root,
                                       err)) != CKPT_OK ||
        (code = store_close_files(plan->store, err)) != CKPT_OK ||
        (code = job_output_write_others(output, err)) != CKPT_OK)
        return code;
    return check_folders(plan, result, err);
}

/* If the source is deleted file by file, the converted data is all that is left of it. */
ckpt_code convert_run(convert_job *job, ckpt_error *err)
{
    const convert_options *o = &job->plan->options;
    const double begin = clock_seconds();
    const ckpt_code code = run_steps(job, err);

    job->result.seconds = clock_seconds() - begin;
    if (code == CKPT_E_INEXACT && !o->allow_lossy && err != NULL &&
        strstr(err->text, "--allow-lossy") == NULL && strstr(err->text, "--max-relf") == NULL)
        ckpt_fail(err, code, "%s; --allow-lossy rounds", err->text);
    /* The journal records finished tensors, but without digests they cannot be verified. */
    if (code == CKPT_E_INTERRUPTED && !o->no_digest)
        return ckpt_fail(err, code, "%s; run the same command again to resume", err->text);
    if (code != CKPT_OK && job->result.is_refused && o->feed == NULL)
        job_output_discard(&job->output);
    return code;
}
