/* A conversion divided into shares of several processes. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "convert_private.h"

/* ---- the last process ---- */

/* Sync the files of this share: other processes rely on them once it reports that it has
 * finished. */
static ckpt_code sync_share(job_output *output, ckpt_error *err)
{
    const ckpt_code code = store_sync_files(output->plan->store, err);

    return code == CKPT_OK && output->spill != NULL ? job_output_sync_spill(output, err) : code;
}

/* Write everything except tensor data again, whoever wrote it before: it is cheap. */
static ckpt_code write_around(const job_output *output, ckpt_error *err)
{
    const ckpt_store *store = output->plan->store;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < store->file_count && code == CKPT_OK; i++) {
        const store_file *f = &store->files[i];

        code = file_write_at(f->file, 0, f->header, f->header_bytes, err);
    }
    return code == CKPT_OK ? job_output_seal(output, NULL, err) : code;
}

/*
 * Read back what other shares wrote, as a resumed run does with its own: days and crashes may have
 * passed since. Tensors whose hash differs are written again.
 */
static ckpt_code check_others(convert_job *job, const convert_pipeline *p, journal_record *records,
                              ckpt_error *err)
{
    const job_plan *plan = job->plan;
    job_result *result = &job->result;
    const ckpt_run_options copy = pipeline_run_options(plan);
    const size_t count = ckpt_catalog_count(plan->targets);
    uint8_t *again = calloc(count + 1, 1);
    const file_sink_options options = { .store = plan->store, .layout = plan->layout,
                                        .digest = result->digest, .share = again };
    ckpt_sink *sink = NULL;
    size_t kept_count;
    ckpt_code code;

    if (again == NULL)
        return ckpt_fail_memory(err, "a share", count);
    for (size_t i = 0; i < count; i++)
        records[i].is_done &= !plan->share[i];
    if ((code = sink_files_create(&options, &sink, err)) != CKPT_OK ||
        (code = sink_files_verify(sink, records, &copy, &kept_count, err)) != CKPT_OK)
        goto out;
    for (size_t i = 0; i < count; i++) {
        again[i] = !plan->share[i] && !sink_files_kept(sink, i);
        result->kept[i] |= !plan->share[i] && !again[i];
        result->repaired_count += again[i];
    }
    if (result->repaired_count > 0)
        code = ckpt_copy(p->encoded, sink, &copy, err);
    if (code == CKPT_OK)
        code = write_around(&job->output, err);
out:
    sink_files_free(sink);
    free(again);
    return code;
}

ckpt_code convert_join(convert_job *job, const convert_pipeline *p, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(job->plan->targets);
    journal_record *records;
    uint64_t *side_bytes;
    int committer = 0;
    ckpt_code code;

    if (job->plan->share == NULL)
        return CKPT_OK;
    records = calloc(count + 1, sizeof *records);
    side_bytes = calloc(job->plan->options.share_count, sizeof *side_bytes);
    if (records == NULL || side_bytes == NULL) {
        code = ckpt_fail_memory(err, "a journal", count);
        goto out;
    }
    if ((code = sync_share(&job->output, err)) != CKPT_OK)
        goto out;
    code = output_join(job->output.partial, records, side_bytes, &committer, err);
    job->result.is_refused |= code == CKPT_E_USAGE;
    job->result.is_waiting = !committer;
    if (code != CKPT_OK || !committer)
        goto out;
    if (job->output.spill != NULL &&
        (code = side_data_join(job->output.spill, side_bytes, err)) != CKPT_OK)
        goto out;
    if (!job->plan->options.no_digest)         /* otherwise there is nothing to compare with */
        code = check_others(job, p, records, err);
out:
    free(records);
    free(side_bytes);
    return code;
}

/* ---- a share that starts when the whole job is done ---- */

/* Hashes the bytes that this share would write, as the journal does. */
typedef struct {
    ckpt_sink base;
    const uint8_t *share;
    journal_record *records;
    pthread_mutex_t lock;
} hash_sink;

static int hash_wants(const ckpt_sink *self, size_t tensor)
{
    return ((const hash_sink *)self)->share[tensor];
}

static ckpt_code hash_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                          arena *scratch, ckpt_error *err)
{
    hash_sink *s = (hash_sink *)self;
    const hash128 sum = tile_hash(range, tile);

    (void)scratch;
    (void)err;
    pthread_mutex_lock(&s->lock);
    hash128_add(&s->records[range->tensor].bytes, sum);
    s->records[range->tensor].is_done = 1;
    pthread_mutex_unlock(&s->lock);
    return CKPT_OK;
}

/* The latest modification time of the inputs' data. */
static int64_t newest_input(const job_plan *plan)
{
    const ckpt_checkpoint *inputs[] = { plan->source, plan->like, plan->fill };
    int64_t newest = INT64_MIN;

    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        for (size_t f = 0; inputs[i] != NULL && f < inputs[i]->store->file_count; f++) {
            const int64_t time =
                file_identity_of(inputs[i]->store->files[f].file)->modified_ns;

            newest = time > newest ? time : newest;
        }
    return newest;
}

/* Does an open file begin with the planned header, but for the root, which is put there last? */
static int has_header(const store_file *f)
{
    char *bytes = malloc(f->header_bytes + 1);
    int same = bytes != NULL && file_read_at(f->file, 0, bytes, f->header_bytes, NULL) == CKPT_OK;

    if (same && f->root_at > 0)
        memcpy(bytes + f->root_at, f->header + f->root_at, CKPT_ROOT_HEX - 1);
    same = same && memcmp(bytes, f->header, f->header_bytes) == 0;
    free(bytes);
    return same;
}

/* Does DST open, and does its index or metadata tell of the planned tensors? */
static int has_tensors(const job_plan *plan)
{
    const ckpt_open_options any = { .lenient = 1, .incomplete = 1 };
    const ckpt_catalog *planned = store_names(plan->store);
    const ckpt_catalog *found;
    ckpt_checkpoint *c = NULL;
    int same = ckpt_open(plan->store->directory, &any, &c, NULL) == CKPT_OK;

    found = same ? store_names(c->store) : NULL;
    same = same && c->format == plan->options.format &&
           (c->has_index || !job_output_has_index(plan)) &&
           ckpt_catalog_count(found) == ckpt_catalog_count(planned);
    for (size_t i = 0; same && i < ckpt_catalog_count(planned); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(planned, i);
        const int64_t at = ckpt_catalog_find(found, t->name);

        same = at >= 0 && catalog_same_shape(t, ckpt_catalog_at(found, (size_t)at));
    }
    ckpt_close(c);
    return same;
}

/* Open the files of DST as this job would have written them; 0 if they differ before their data.
 * Files older than the inputs were made from something else. */
static int open_result(const job_plan *plan)
{
    const int64_t newest = newest_input(plan);
    int same = 1;

    for (size_t i = 0; i < plan->store->file_count && same; i++) {
        const store_file *f = &plan->store->files[i];

        same = store_open_file(plan->store, i, 0, NULL) == CKPT_OK &&
               file_size(f->file) == f->size_bytes &&
               file_identity_of(f->file)->modified_ns >= newest &&
               (f->header == NULL || has_header(f));
    }
    return same && job_output_has_others(plan) && has_tensors(plan);
}

static ckpt_code compare_result(const job_plan *plan, const convert_pipeline *p, int *is_there,
                                ckpt_error *err)
{
    static const sink_ops ops = { hash_wants, hash_put, NULL, NULL };
    const ckpt_run_options copy = pipeline_run_options(plan);
    const size_t count = ckpt_catalog_count(plan->targets);
    const file_sink_options options = { .store = plan->store, .layout = plan->layout };
    hash_sink hashes = { { &ops }, plan->share, calloc(count + 1, sizeof *hashes.records),
                         PTHREAD_MUTEX_INITIALIZER };
    ckpt_sink *sink = NULL;
    size_t kept_count = 0;
    size_t hashed_count = 0;
    ckpt_code code;

    if (hashes.records == NULL)
        return ckpt_fail_memory(err, "hashes", count);
    if ((code = ckpt_copy(p->encoded, &hashes.base, &copy, err)) != CKPT_OK ||
        (code = sink_files_create(&options, &sink, err)) != CKPT_OK ||
        (code = sink_files_verify(sink, hashes.records, &copy, &kept_count, err)) != CKPT_OK)
        goto out;
    for (size_t i = 0; i < count; i++) {
        hashed_count += hashes.records[i].is_done != 0;
        store_forget_tensor(plan->store, plan->layout, i);
    }
    *is_there = kept_count == hashed_count;
out:
    sink_files_free(sink);
    free(hashes.records);
    return code;
}

/* Look whether DST may be the result: only its values would tell more. Its files are left open. */
static ckpt_code look_at_result(const job_plan *plan, int *may_be, ckpt_error *err)
{
    const char *directory = plan->store->directory;
    journal_sight result;
    journal_sight partial;
    ckpt_code code;

    *may_be = 0;
    if ((code = journal_look(directory, plan->fingerprint, &result, err)) != CKPT_OK ||
        (code = output_look(directory, plan->fingerprint, &partial, err)) != CKPT_OK)
        return code;
    /* If all journals exist, the output is being renamed, or was when its process was killed. If
     * some exist, only their removal was left. */
    if (!result.is_other && result.same_count < plan->options.share_count &&
        partial.same_count == 0)
        *may_be = open_result(plan);
    return CKPT_OK;
}

ckpt_code convert_find_result(const job_plan *plan, const convert_pipeline *p, int *is_there,
                              ckpt_error *err)
{
    int may_be;
    ckpt_code code = look_at_result(plan, &may_be, err);

    if (code == CKPT_OK && may_be)
        code = compare_result(plan, p, is_there, err);
    store_close_files(plan->store, NULL);
    return code == CKPT_OK && *is_there ? journal_remove_all(plan->store->directory, err) : code;
}

ckpt_code convert_may_be_result(const job_plan *plan, int *may_be, ckpt_error *err)
{
    const ckpt_code code = look_at_result(plan, may_be, err);

    store_close_files(plan->store, NULL);
    return code;
}
