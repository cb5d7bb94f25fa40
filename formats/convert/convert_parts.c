/* Several processes that share a conversion. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "convert_private.h"

ckpt_code convert_sync_spill(void *context, ckpt_error *err)
{
    const convert_spill_sync *sync = context;
    uint64_t synced_bytes;
    const ckpt_code code = side_data_sync(sync->spill, &synced_bytes, err);

    return code == CKPT_OK ? journal_append_side(sync->journal, synced_bytes, err) : code;
}

ckpt_code convert_seal(convert_job *job, const uint8_t *tensors, ckpt_error *err)
{
    uint8_t *owned;
    ckpt_code code;

    if (job->options.format->seal == NULL)
        return CKPT_OK;
    owned = calloc(ckpt_catalog_count(job->store->catalog) + 1, 1);
    if (owned == NULL)
        return ckpt_fail_memory(err, "a share", ckpt_catalog_count(job->store->catalog));
    for (size_t i = 0; i < job->layout->count; i++)
        owned[job->layout->extents[i].stored] |=
            tensors == NULL || tensors[job->layout->extents[i].logical];
    code = job->options.format->seal(job->store, owned, err);
    free(owned);
    return code;
}

/* ---- the last part ---- */

/* What others rely on when this process says that it has finished. */
static ckpt_code sync_share(convert_job *job, side_data_writer *spill, ckpt_error *err)
{
    convert_spill_sync sync = { spill, output_journal(job->output) };
    const ckpt_code code = store_sync_files(job->store, err);

    return code == CKPT_OK && spill != NULL ? convert_sync_spill(&sync, err) : code;
}

/* Everything around the tensors again, from what is known here: it costs little. */
static ckpt_code write_around(convert_job *job, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < job->store->file_count && code == CKPT_OK; i++) {
        store_file *f = &job->store->files[i];

        code = file_write_at(f->file, 0, f->header, f->header_bytes, err);
    }
    return code == CKPT_OK ? convert_seal(job, NULL, err) : code;
}

/*
 * What other parts finished is read back, as a resumed run reads its own: days and crashes may lie
 * between their end and this moment. What does not hash to what they wrote is written again.
 */
static ckpt_code check_others(convert_job *job, const convert_pipeline *p, journal_record *records,
                              ckpt_error *err)
{
    const ckpt_run_options copy = convert_copy_with(job);
    const size_t count = ckpt_catalog_count(job->targets);
    uint8_t *again = calloc(count + 1, 1);
    const file_sink_options options = { .store = job->store, .layout = job->layout,
                                        .digest = job->digest, .share = again };
    ckpt_sink *sink = NULL;
    size_t kept_count;
    ckpt_code code;

    if (again == NULL)
        return ckpt_fail_memory(err, "a share", count);
    for (size_t i = 0; i < count; i++)
        records[i].is_done &= !job->share[i];
    if ((code = sink_files_create(&options, &sink, err)) != CKPT_OK ||
        (code = sink_files_verify(sink, records, &copy, &kept_count, err)) != CKPT_OK)
        goto out;
    for (size_t i = 0; i < count; i++) {
        again[i] = !job->share[i] && !sink_files_kept(sink, i);
        job->kept[i] |= !job->share[i] && !again[i];
        job->repaired_count += again[i];
    }
    if (job->repaired_count > 0)
        code = ckpt_copy(p->encoded, sink, &copy, err);
    if (code == CKPT_OK)
        code = write_around(job, err);
out:
    sink_files_free(sink);
    free(again);
    return code;
}

ckpt_code convert_join(convert_job *job, const convert_pipeline *p, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(job->targets);
    journal_record *records;
    uint64_t *side_bytes;
    int committer = 0;
    ckpt_code code;

    if (job->share == NULL)
        return CKPT_OK;
    records = calloc(count + 1, sizeof *records);
    side_bytes = calloc(job->options.part_count, sizeof *side_bytes);
    if (records == NULL || side_bytes == NULL) {
        code = ckpt_fail_memory(err, "a journal", count);
        goto out;
    }
    if ((code = sync_share(job, p->spill, err)) != CKPT_OK)
        goto out;
    code = output_join(job->output, records, side_bytes, &committer, err);
    job->is_refused |= code == CKPT_E_USAGE;
    job->is_waiting = !committer;
    if (code != CKPT_OK || !committer)
        goto out;
    if (p->spill != NULL && (code = side_data_join(p->spill, side_bytes, err)) != CKPT_OK)
        goto out;
    if (!job->options.no_digest)         /* else there is nothing to check with */
        code = check_others(job, p, records, err);
out:
    free(records);
    free(side_bytes);
    return code;
}

/* ---- a part that comes when all is done ---- */

/* What this part would write, hashed as a journal has it. */
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

/* The time of the last change of the inputs' data. */
static int64_t newest_input(const convert_job *job)
{
    const ckpt_checkpoint *inputs[] = { job->source, job->like, job->fill };
    int64_t newest = INT64_MIN;

    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        for (size_t f = 0; inputs[i] != NULL && f < inputs[i]->store->file_count; f++) {
            const int64_t time = file_mtime_ns(inputs[i]->store->files[f].file);

            newest = time > newest ? time : newest;
        }
    return newest;
}

/* Open the files of DST as this job would have made them; 0 when they are others. What is older
 * than the inputs was made of something else, whatever this part would write. */
static int open_result(convert_job *job)
{
    const int64_t newest = newest_input(job);
    int same = 1;

    for (size_t i = 0; i < job->store->file_count && same; i++)
        same = store_open_file(job->store, i, 0, NULL) == CKPT_OK &&
               file_size(job->store->files[i].file) == job->store->files[i].size_bytes &&
               file_mtime_ns(job->store->files[i].file) >= newest;
    return same;
}

static ckpt_code compare_result(convert_job *job, const convert_pipeline *p, ckpt_error *err)
{
    static const sink_ops ops = { hash_wants, hash_put, NULL, NULL };
    const ckpt_run_options copy = convert_copy_with(job);
    const size_t count = ckpt_catalog_count(job->targets);
    const file_sink_options options = { .store = job->store, .layout = job->layout };
    hash_sink hashes = { { &ops }, job->share, calloc(count + 1, sizeof *hashes.records),
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
        store_forget_tensor(job->store, job->layout, i);
    }
    job->is_there = kept_count == hashed_count;
out:
    sink_files_free(sink);
    free(hashes.records);
    return code;
}

ckpt_code convert_find_result(convert_job *job, const convert_pipeline *p, ckpt_error *err)
{
    const ckpt_store *store = job->store;
    journal_sight result;
    journal_sight partial;
    ckpt_code code;

    if ((code = journal_look(store->directory, job->fingerprint, &result, err)) != CKPT_OK ||
        (code = output_look(store->directory, job->fingerprint, &partial, err)) != CKPT_OK)
        return code;
    /* With all journals it is still being given its name, or was when its process was killed. With
     * some of them only the rest was left to remove. */
    if (result.is_other || result.same_count >= job->options.part_count || partial.same_count > 0)
        return CKPT_OK;
    if (open_result(job))
        code = compare_result(job, p, err);
    store_close_files(job->store, NULL);
    return code == CKPT_OK && job->is_there ? journal_remove_all(store->directory, err) : code;
}
