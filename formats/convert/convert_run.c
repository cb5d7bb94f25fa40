/* Running a planned conversion. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config_rewrite.h"
#include "convert_private.h"
#include "formats/hf.h"
#include "libckpt/json.h"

/* ---- the pipeline: picked inputs -> digest tap -> encodings ---- */

static void pipeline_free(convert_pipeline *p)
{
    if (p->written != p->encoded)
        ckpt_source_free(p->written);
    ckpt_source_free(p->encoded);
    ckpt_source_free(p->tap);
    side_data_close(p->spill);
    memset(p, 0, sizeof *p);
}

/*
 * May the result have other values than the inputs? By rounding where that is allowed; and with
 * scales that are no powers of two BF16 returns to the products that it was rounded from.
 */
static int values_may_change(const convert_job *job)
{
    int may = job->options.allow_lossy;

    for (size_t i = 0; job->like != NULL && i < ckpt_catalog_count(job->targets) && !may; i++) {
        const ckpt_tensor *to = ckpt_catalog_at(job->targets, i);

        may = ckpt_catalog_at(job->picked->catalog, i)->dtype == CKPT_BF16 &&
              to->scale_dtype != CKPT_NONE && to->scale_dtype != CKPT_F8_E8M0;
    }
    return may;
}

static ckpt_code tap_encoded(convert_job *job, convert_pipeline *p, ckpt_error *err)
{
    ckpt_source *tap = NULL;
    ckpt_code code;

    if (!job->options.verify || job->digest == NULL || !values_may_change(job))
        return CKPT_OK;
    if (job->encoded_digest == NULL &&
        (job->encoded_digest = digest_create(job->targets)) == NULL)
        return ckpt_fail_memory(err, "digests", ckpt_catalog_count(job->targets));
    if ((code = source_digest_tap(p->encoded, job->encoded_digest, &tap, err)) == CKPT_OK)
        p->written = tap;
    return code;
}

static ckpt_code pipeline_make(convert_job *job, convert_pipeline *p, ckpt_error *err)
{
    const convert_options *o = &job->options;
    encode_options encode = {
        .allow_lossy = o->allow_lossy,
        .allow_odd_scales = o->open.lenient,
        .match_reference = o->match_reference,
        .scales = job->like == NULL ? NULL : ckpt_logical(job->like),
        .exceptions_out = p->spill == NULL ? NULL : side_data_sink(p->spill),
        .exceptions_in = job->side == NULL ? NULL : side_data_table(job->side),
    };
    ckpt_source *from = job->picked;
    ckpt_code code;

    if (!o->no_digest) {
        if (job->digest == NULL && (job->digest = digest_create(from->catalog)) == NULL)
            return ckpt_fail_memory(err, "digests", ckpt_catalog_count(from->catalog));
        if ((code = source_digest_tap(from, job->digest, &p->tap, err)) != CKPT_OK)
            return code;
        from = p->tap;
    }
    if ((code = source_encode(from, job->targets, &encode, &p->encoded, err)) != CKPT_OK)
        return code;
    p->written = p->encoded;
    return tap_encoded(job, p, err);
}

ckpt_run_options convert_copy_with(const convert_job *job)
{
    ckpt_run_options copy = job->options.copy;

    copy.fixed_bytes = job->fixed_bytes;
    return copy;
}

static ckpt_code copy_tensors(convert_job *job, convert_pipeline *p, ckpt_error *err)
{
    const ckpt_run_options copy = convert_copy_with(job);
    const size_t count = ckpt_catalog_count(job->targets);
    uint8_t *ready = job->options.feed == NULL ? NULL : calloc(count + 1, 1);
    convert_spill_sync sync = { p->spill, output_journal(job->output) };
    const file_sink_options options = {
        .store = job->store,
        .layout = job->layout,
        .journal = job->options.no_digest ? NULL : output_journal(job->output),
        .digest = job->digest,
        .share = job->options.feed == NULL ? job->share : ready,
        .before_done = p->spill == NULL ? NULL : convert_sync_spill,
        .before_done_context = &sync,
    };
    ckpt_sink *sink = NULL;
    ckpt_code code;

    job->kept = calloc(count + 1, 1);
    if (job->kept == NULL || (job->options.feed != NULL && ready == NULL))
        code = ckpt_fail_memory(err, "a copy", count);
    else
        code = sink_files_create(&options, &sink, err);
    if (code != CKPT_OK)
        goto out;
    if (options.journal != NULL)
        code = sink_files_resume(sink, &copy, &job->kept_count, err);
    for (size_t i = 0; i < count; i++)
        job->kept[i] = (uint8_t)sink_files_kept(sink, i);
    if (code != CKPT_OK)
        goto out;
    code = job->options.feed == NULL
               ? ckpt_copy(p->written, sink, &copy, err)
               : convert_feed_copy(job, &(feed_copy){ p->written, sink, &copy, ready }, err);
    job->is_refused = code == CKPT_E_FORMAT || code == CKPT_E_INEXACT || code == CKPT_E_USAGE;
out:
    sink_files_free(sink);
    free(ready);
    return code;
}

static ckpt_code keep_stats(convert_job *job, const convert_pipeline *p, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(job->targets);

    if ((job->stats = calloc(count + 1, sizeof *job->stats)) == NULL)
        return ckpt_fail_memory(err, "statistics", count);
    for (size_t i = 0; i < count; i++)
        job->stats[i] = source_encode_stats(p->encoded, i);
    return CKPT_OK;
}

static ckpt_code take_roots(convert_job *job, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (job->digest != NULL &&
        (code = ckpt_digest_root(job->digest, 0, job->root, err)) == CKPT_OK)
        code = ckpt_digest_root(job->digest, 1, job->main_root, err);
    memcpy(job->source_root, job->root, sizeof job->root);
    memcpy(job->source_main_root, job->main_root, sizeof job->main_root);
    return code;
}

static ckpt_code finish_side_data(convert_job *job, side_data_writer *spill, ckpt_error *err)
{
    const ckpt_run_options copy = convert_copy_with(job);
    const char *const roots[2] = { job->root, job->main_root };

    return side_data_finish(spill, job->digest == NULL || job->options.allow_lossy ? NULL : roots,
                            copy_memory_left(&copy), err);
}

/* The scales that were taken from the side data are those of the values that were read. */
static ckpt_code check_side_data(convert_job *job, ckpt_error *err)
{
    const char *const roots[2] = { job->root, job->main_root };
    ckpt_code code = CKPT_OK;

    if (job->side != NULL && job->digest != NULL)
        code = side_data_check_roots(job->side, roots, err);
    job->is_refused |= code == CKPT_E_FORMAT;
    return code;
}

static ckpt_code run_pipeline(convert_job *job, ckpt_error *err)
{
    const side_data_options side = { convert_directory(job), job->targets, job->options.part,
                                     job->options.part_count,
                                     journal_side_bytes(output_journal(job->output)) };
    convert_pipeline p = { .tap = NULL };
    ckpt_code code = CKPT_OK;

    if (job->writes_side_data)
        code = side_data_begin(&side, &p.spill, err);
    if (code != CKPT_OK || (code = pipeline_make(job, &p, err)) != CKPT_OK ||
        (code = copy_tensors(job, &p, err)) != CKPT_OK ||
        (code = keep_stats(job, &p, err)) != CKPT_OK ||
        (code = convert_seal(job, job->share, err)) != CKPT_OK ||
        (code = convert_join(job, &p, err)) != CKPT_OK || job->is_waiting ||
        (code = take_roots(job, err)) != CKPT_OK ||
        (code = check_side_data(job, err)) != CKPT_OK)
        goto out;
    if (p.spill != NULL) {
        side_data_writer *spill = p.spill;

        p.spill = NULL;
        code = finish_side_data(job, spill, err);
    }
out:
    pipeline_free(&p);
    return code;
}

/* ---- reading the result back ---- */

static ckpt_code digest_written(convert_job *job, ckpt_error *err)
{
    const ckpt_run_options copy = convert_copy_with(job);
    ckpt_source *written = NULL;
    ckpt_code code;

    if ((code = source_stored(job->store, job->layout, &written, err)) == CKPT_OK)
        code = ckpt_digest_source(written, &copy, &job->written_digest, err);
    ckpt_source_free(written);
    return code;
}

/* What is known of the values that tensor `i` should have; 0: an earlier run or another process
 * wrote it with other values than it read, and its bytes were checked against the journal. */
static int find_expected(const convert_job *job, size_t i, hash128 *out)
{
    if (job->encoded_digest == NULL)
        *out = digest_get(job->digest, i);
    else if (!job->kept[i])
        *out = digest_get(job->encoded_digest, i);
    else
        return 0;
    return 1;
}

static ckpt_code compare_written(const convert_job *job, ckpt_error *err)
{
    for (size_t i = 0; i < ckpt_catalog_count(job->targets); i++) {
        const hash128 got = digest_get(job->written_digest, i);
        hash128 expected;

        if (find_expected(job, i, &expected) && memcmp(&expected, &got, sizeof got) != 0)
            return ckpt_fail(err, CKPT_E_DIFFERENT,
                             "tensor '%s' does not read back as it was written",
                             ckpt_catalog_at(job->targets, i)->name);
    }
    return CKPT_OK;
}

/* Values that changed on purpose have digests of their own, which only the result can tell. */
static ckpt_code read_back(convert_job *job, ckpt_error *err)
{
    ckpt_code code;

    if (job->digest == NULL || (!job->options.verify && !values_may_change(job)))
        return CKPT_OK;
    if ((code = digest_written(job, err)) != CKPT_OK ||
        (code = ckpt_digest_root(job->written_digest, 0, job->root, err)) != CKPT_OK ||
        (code = ckpt_digest_root(job->written_digest, 1, job->main_root, err)) != CKPT_OK)
        return code;
    return job->options.verify ? compare_written(job, err) : CKPT_OK;
}

/* ---- the other files ---- */

static ckpt_code write_text(convert_job *job, const char *name, const char *text,
                            ckpt_error *err)
{
    char *path = file_join(convert_directory(job), name);
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    if ((code = file_make_parents(path, err)) == CKPT_OK &&
        (code = file_write_all(path, text, strlen(text), err)) == CKPT_OK)
        code = file_list_add(&job->written, name, err);
    free(path);
    return code;
}

static ckpt_code rewrite_inference(convert_job *job, const char *from, const char *to,
                                   ckpt_error *err)
{
    char *text = NULL;
    char *edited = NULL;
    size_t size;
    ckpt_code code;

    if ((code = file_read_all(from, CONFIG_BYTES_MAX, &text, &size, err)) == CKPT_OK &&
        (code = config_rewrite_inference(text, job->targets, &edited, err)) == CKPT_OK)
        code = file_write_all(to, edited, strlen(edited), err);
    free(text);
    free(edited);
    return code;
}

static ckpt_code carry_file(convert_job *job, const char *name, ckpt_error *err)
{
    char *from = file_join(job->source->path, name);
    char *to = file_join(convert_directory(job), name);
    ckpt_code code;

    if (from == NULL || to == NULL)
        code = ckpt_fail_memory(err, "a path", strlen(name));
    else if ((code = file_make_parents_below(convert_directory(job), name, err)) == CKPT_OK)
        code = strcmp(name, CONFIG_INFERENCE_FILE) == 0 && job->like == NULL
                   ? rewrite_inference(job, from, to, err)
                   : file_copy(from, to, err);
    if (code == CKPT_OK)
        code = file_list_add(&job->written, name, err);
    free(from);
    free(to);
    return code;
}

int convert_carries_side_data(const convert_job *job)
{
    char *path = file_join(job->source->path, SIDE_DATA_FILE);
    int carries = path != NULL && job->like == NULL && !job->source->is_partial &&
                  !job->writes_side_data && file_exists(path);

    for (size_t i = 0; carries && i < ckpt_catalog_count(job->targets); i++)
        carries = ckpt_catalog_at(job->targets, i)->dtype != CKPT_F4;
    free(path);
    return carries;
}

static ckpt_code write_index(convert_job *job, ckpt_error *err)
{
    const format_finish info = {
        .with_index = job->with_index,
        .config = job->source->config == NULL ? NULL : json_root(job->source->config),
        .targets = job->targets,
        .sharding = &job->options.sharding,
    };
    char *from;
    char *to;
    ckpt_code code;

    if (job->like == NULL)
        return job->options.format->finish(job->store, &info, err);
    if (!job->like->has_index)
        return CKPT_OK;
    from = file_join(job->like->store->directory, HF_INDEX_FILE);
    to = file_join(convert_directory(job), HF_INDEX_FILE);
    code = from == NULL || to == NULL ? ckpt_fail_memory(err, "a path", sizeof HF_INDEX_FILE)
                                      : file_copy(from, to, err);
    free(from);
    free(to);
    return code;
}

static ckpt_code write_others(convert_job *job, ckpt_error *err)
{
    const file_list *extras = &job->source->extras;
    ckpt_code code = CKPT_OK;

    if (job->config_text != NULL &&
        (code = write_text(job, "config.json", job->config_text, err)) != CKPT_OK)
        return code;
    if (job->inference_text != NULL &&
        (code = write_text(job, CONFIG_INFERENCE_FILE, job->inference_text, err)) != CKPT_OK)
        return code;
    for (size_t i = 0; i < extras->count && code == CKPT_OK; i++)
        code = carry_file(job, extras->names[i], err);
    if (code == CKPT_OK && convert_carries_side_data(job))
        code = carry_file(job, SIDE_DATA_FILE, err);
    return code;
}

/* ---- the run ---- */

const char *convert_directory(const convert_job *job)
{
    return output_directory(job->output);
}

ckpt_code convert_describe(convert_job *job, const char *directory, ckpt_error *err)
{
    char *copy = strdup(directory);
    ckpt_code code = copy == NULL ? ckpt_fail_memory(err, "a path", strlen(directory)) : CKPT_OK;

    if (code != CKPT_OK)
        return code;
    free(job->store->directory);
    job->store->directory = copy;
    for (size_t i = 0; i < job->store->file_count && code == CKPT_OK; i++) {
        char *path = file_join(copy, job->store->files[i].name);

        code = path == NULL ? ckpt_fail_memory(err, "a path", strlen(directory))
                            : file_make_parents(path, err);
        free(path);
    }
    return code == CKPT_OK ? write_index(job, err) : code;
}

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* The source has been read once: read it again, and compare what it says. */
static ckpt_code digest_again(convert_job *job, ckpt_error *err)
{
    const ckpt_run_options copy = convert_copy_with(job);
    ckpt_digest *digest = NULL;
    ckpt_code code = ckpt_digest_source(job->picked, &copy, &digest, err);

    for (size_t i = 0; code == CKPT_OK && i < ckpt_catalog_count(job->targets); i++) {
        const hash128 before = digest_get(job->digest, i);
        const hash128 now = digest_get(digest, i);

        if ((job->share == NULL || job->share[i]) && memcmp(&before, &now, sizeof now) != 0)
            code = ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' of '%s' was changed while it was "
                             "read", ckpt_catalog_at(job->targets, i)->name,
                             job->options.source);
    }
    ckpt_digest_free(digest);
    return code;
}

/*
 * A time that is another now is a change. Where only the time of the last change is another, in
 * this run or since an earlier one that is gone on with, the values decide: somebody may have
 * changed the mode, or the bytes, and then put the other time back.
 */
static ckpt_code check_unchanged(convert_job *job, ckpt_error *err)
{
    const ckpt_checkpoint *inputs[] = { job->source, job->like, job->fill };
    int is_touched = job->kept_count > 0 && journal_source_changed(output_journal(job->output));
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < sizeof inputs / sizeof *inputs && code == CKPT_OK; i++)
        if (inputs[i] != NULL)
            code = store_check_unchanged(inputs[i]->store, &is_touched, err);
    if (code == CKPT_OK && is_touched && job->digest != NULL && job->options.feed == NULL)
        code = digest_again(job, err);
    job->is_refused |= code == CKPT_E_FORMAT;
    return code;
}

/* The times of the last change of all that is read. */
static uint64_t source_times(const convert_job *job)
{
    const ckpt_checkpoint *inputs[] = { job->source, job->fill };
    uint64_t sum = 1;

    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        for (size_t f = 0; inputs[i] != NULL && f < inputs[i]->store->file_count; f++) {
            const int64_t time = file_ctime_ns(inputs[i]->store->files[f].file);

            sum = kernels_get()->hash_bytes(&time, sizeof time, sum).low64;
        }
    return sum;
}

/* Formats' own files have names that are known. */
ckpt_code convert_list_files(const convert_job *job, file_list *out, ckpt_error *err)
{
    const file_list *extras = &job->source->extras;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < job->store->file_count && code == CKPT_OK; i++)
        code = file_list_add(out, job->store->files[i].name, err);
    for (size_t i = 0; i < extras->count && code == CKPT_OK; i++)
        code = file_list_add(out, extras->names[i], err);
    return code;
}

static ckpt_code begin_output(convert_job *job, ckpt_error *err)
{
    const convert_options *o = &job->options;
    file_list files = { NULL, 0 };
    const output_options options = {
        .path = o->target,
        .overwrite = o->overwrite,
        .fingerprint = job->fingerprint,
        .tensor_count = ckpt_catalog_count(job->targets),
        .part = o->part,
        .part_count = o->part_count,
        .restart = o->restart,
        .keep_others = o->feed != NULL,       /* the source of what it has may be gone */
        .files = &files,
        .named = o->feed == NULL ? NULL : convert_feed_named,
        .named_context = job,
        .source_times = source_times(job),
    };
    char *directory;
    ckpt_code code;

    if ((code = convert_list_files(job, &files, err)) == CKPT_OK)
        code = output_begin(&options, &job->output, err);
    file_list_free(&files);
    if (code != CKPT_OK)
        return code;
    if ((directory = strdup(convert_directory(job))) == NULL)
        return ckpt_fail_memory(err, "a path", 0);
    free(job->store->directory);
    job->store->directory = directory;
    return output_make_files(job->store, err);
}

/* A part that comes late, or again, may find the result of all of them. */
static ckpt_code look_for_result(convert_job *job, ckpt_error *err)
{
    convert_pipeline p = { .tap = NULL };
    ckpt_code code;

    if (job->share == NULL || !file_is_directory(job->options.target))
        return CKPT_OK;
    if ((code = pipeline_make(job, &p, err)) == CKPT_OK)
        code = convert_find_result(job, &p, err);
    pipeline_free(&p);
    ckpt_digest_free(job->digest);             /* of what was only looked at */
    job->digest = NULL;
    return code;
}

/* A run that has not begun leaves nothing, but what an earlier one has finished stays. */
static ckpt_code check_room(convert_job *job, ckpt_error *err)
{
    const journal_record *records = journal_records(output_journal(job->output));
    ckpt_code code;

    if (job->options.feed != NULL || job->options.no_space_check ||
        (code = convert_check_room(job, err)) == CKPT_OK)
        return CKPT_OK;
    job->is_refused = job->share == NULL;
    for (size_t i = 0; i < ckpt_catalog_count(job->targets); i++)
        job->is_refused &= !records[i].is_done;
    return code;
}

static ckpt_code run_steps(convert_job *job, ckpt_error *err)
{
    ckpt_code code;

    if ((code = look_for_result(job, err)) != CKPT_OK || job->is_there)
        return code;
    if ((code = begin_output(job, err)) != CKPT_OK || (code = check_room(job, err)) != CKPT_OK ||
        (code = run_pipeline(job, err)) != CKPT_OK ||
        (code = check_unchanged(job, err)) != CKPT_OK || job->is_waiting)
        return code;
    if ((code = read_back(job, err)) != CKPT_OK || (code = write_index(job, err)) != CKPT_OK ||
        (code = store_close_files(job->store, err)) != CKPT_OK)
        return code;
    return write_others(job, err);
}

/* Where the source goes away file by file, what has been converted is all there is of it. */
ckpt_code convert_run(convert_job *job, ckpt_error *err)
{
    const double begin = seconds_now();
    const ckpt_code code = run_steps(job, err);
    ckpt_output *output = job->output;

    job->seconds = seconds_now() - begin;
    if (code == CKPT_E_INEXACT && !job->options.allow_lossy && err != NULL &&
        strstr(err->text, "--allow-lossy") == NULL)
        ckpt_fail(err, code, "%s; --allow-lossy rounds", err->text);
    /* The journal keeps what is done, but without digests nothing proves it. */
    if (code == CKPT_E_INTERRUPTED && !job->options.no_digest)
        return ckpt_fail(err, code, "%s; run the same command again to resume", err->text);
    if (code == CKPT_OK || !job->is_refused || job->options.feed != NULL)
        return code;
    job->output = NULL;
    store_close_files(job->store, NULL);
    output_discard(output, NULL);              /* the refusal is what is told */
    return code;
}

ckpt_code convert_commit(convert_job *job, ckpt_error *err)
{
    ckpt_output *output = job->output;

    job->output = NULL;
    return output_commit(output, err);
}

ckpt_code convert_tile_bytes(convert_job *job, uint64_t *out, ckpt_error *err)
{
    static const sink_ops nothing = { NULL, NULL, NULL, NULL };
    const ckpt_sink sink = { &nothing };
    convert_pipeline p = { .tap = NULL };
    const ckpt_code code = pipeline_make(job, &p, err);

    if (code == CKPT_OK)
        *out = copy_tile_need(p.written, &sink);
    pipeline_free(&p);
    return code;
}
