/* Collects the FP4 scales that the canonical rule does not recover. */
#include "side_data.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/file.h"
#include "libckpt/journal.h"
#include "kernels/kernels.h"
#include "side_data_private.h"
#include "libckpt/size.h"
#include "libckpt/values.h"

#define SPILL_FILE ".fp4_scales.spill"

enum { SPILL_BATCH = 512, CHECKED_BYTES = offsetof(spill_record, check) };

static void make_check(const spill_record *record, uint8_t check[3])
{
    const uint64_t hash = kernels_get()->hash_bytes(record, CHECKED_BYTES, 0).low64;

    for (int i = 0; i < 3; i++)
        check[i] = (uint8_t)(hash >> 8 * i);
}

static int is_good(const side_data_writer *w, const spill_record *record)
{
    uint8_t check[3];

    make_check(record, check);
    return memcmp(check, record->check, sizeof check) == 0 &&
           record->tensor < ckpt_catalog_count(w->options.catalog);
}

/* Check the records up to the first damaged one; *good_bytes: its offset, or the end. */
static ckpt_code scan_spill(const side_data_writer *w, spill_visit *visit, void *context,
                            uint64_t *good_bytes, ckpt_error *err)
{
    spill_record batch[SPILL_BATCH];
    ckpt_code code;

    for (*good_bytes = 0; *good_bytes < w->spill_bytes;) {
        const size_t size = size_min(sizeof batch, w->spill_bytes - *good_bytes);

        if ((code = file_read_at(w->spill, *good_bytes, batch, size, err)) != CKPT_OK)
            return code;
        for (size_t i = 0; i < size / sizeof *batch; i++) {
            if (!is_good(w, &batch[i]))
                return CKPT_OK;
            if (visit != NULL && (code = visit(context, &batch[i], err)) != CKPT_OK)
                return code;
            *good_bytes += sizeof *batch;
        }
    }
    return CKPT_OK;
}

static ckpt_code fail_damaged(const side_data_writer *w, uint64_t offset, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is damaged at offset %" PRIu64
                     "; remove its folder and start over", w->spill_path, offset);
}

ckpt_code side_data_visit_spill(const side_data_writer *w, spill_visit *visit, void *context,
                                ckpt_error *err)
{
    uint64_t good_bytes;
    const ckpt_code code = scan_spill(w, visit, context, &good_bytes, err);

    if (code == CKPT_OK && good_bytes < w->spill_bytes)
        return fail_damaged(w, good_bytes, err);
    return code;
}

/*
 * Truncate the spill at the first incomplete record. Finished tensors rely on what was synced: if
 * that is damaged or missing, the run cannot be resumed, unless the result exists.
 */
static ckpt_code cut_spill(side_data_writer *w, ckpt_error *err)
{
    uint64_t good_bytes;
    ckpt_code code;

    w->spill_bytes = file_size(w->spill) / sizeof(spill_record) * sizeof(spill_record);
    if ((code = scan_spill(w, NULL, NULL, &good_bytes, err)) != CKPT_OK)
        return code;
    if (good_bytes < w->options.synced_bytes && !file_exists(w->path))
        return fail_damaged(w, good_bytes, err);
    w->spill_bytes = good_bytes;
    return file_set_size(w->spill, good_bytes, err);
}

static ckpt_code append_records(side_data_writer *w, size_t tensor,
                                const encode_exception *exceptions, size_t count, ckpt_error *err)
{
    spill_record batch[SPILL_BATCH];
    ckpt_code code = CKPT_OK;

    while (count > 0 && code == CKPT_OK) {
        const size_t step = size_min(count, SPILL_BATCH);

        for (size_t i = 0; i < step; i++) {
            batch[i].group = exceptions[i].group;
            batch[i].tensor = (uint32_t)tensor;
            batch[i].scale = exceptions[i].scale;
            make_check(&batch[i], batch[i].check);
        }
        pthread_mutex_lock(&w->lock);
        code = file_write_at(w->spill, w->spill_bytes, batch, step * sizeof *batch, err);
        if (code == CKPT_OK)
            w->spill_bytes += step * sizeof *batch;
        pthread_mutex_unlock(&w->lock);
        exceptions += step;
        count -= step;
    }
    return code;
}

static ckpt_code spill_put(encode_exception_sink *self, const source_range *range,
                           const encode_exception *exceptions, size_t count, ckpt_error *err)
{
    return append_records((side_data_writer *)self, range->tensor, exceptions, count, err);
}

ckpt_code side_data_sync(side_data_writer *writer, uint64_t *synced_bytes, ckpt_error *err)
{
    ckpt_code code;

    pthread_mutex_lock(&writer->lock);
    *synced_bytes = writer->spill_bytes;
    pthread_mutex_unlock(&writer->lock);
    if (*synced_bytes == writer->synced_bytes)
        return CKPT_OK;
    if ((code = file_sync(writer->spill, err)) == CKPT_OK)
        writer->synced_bytes = *synced_bytes;       /* called by one thread at a time */
    return code;
}

typedef struct {
    side_data_writer *writer;
    size_t tensor;
    encode_exception batch[SPILL_BATCH];
    size_t count;
} restoration;

static ckpt_code restore_batch(restoration *r, ckpt_error *err)
{
    const size_t count = r->count;

    r->count = 0;
    return append_records(r->writer, r->tensor, r->batch, count, err);
}

static ckpt_code restore_tensor(void *context, const char *name, ckpt_error *err)
{
    restoration *r = context;
    const int64_t tensor = ckpt_catalog_find(r->writer->options.catalog, name);
    const ckpt_code code = restore_batch(r, err);

    if (code == CKPT_OK && tensor == CKPT_NOT_FOUND)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s' lists tensor '%s', which this conversion does not have",
                         r->writer->path, name);
    r->tensor = (size_t)tensor;
    return code;
}

static ckpt_code restore_group(void *context, const encode_exception *entry, ckpt_error *err)
{
    restoration *r = context;

    r->batch[r->count++] = *entry;
    return r->count < SPILL_BATCH ? CKPT_OK : restore_batch(r, err);
}

/* A run that was stopped after side_data_finish has left the result but no spill. Duplicates do no
 * harm. */
static ckpt_code restore_spill(side_data_writer *w, ckpt_error *err)
{
    restoration r = { .writer = w };
    const side_data_visit visit = { NULL, restore_tensor, restore_group, &r };
    zfile_reader *text;
    ckpt_code code;

    if (!file_exists(w->path))
        return CKPT_OK;
    if ((code = zfile_open(w->path, &text, err)) != CKPT_OK)
        return code;
    if ((code = side_data_walk(text, w->path, &visit, err)) == CKPT_OK)
        code = restore_batch(&r, err);
    zfile_close(text);
    return code;
}

/* A share's spill has a journal's name, so that it is removed with the journals. NULL: out of
 * memory. */
static char *spill_path(const side_data_options *options, unsigned share)
{
    char name[64];

    if (options->share_count <= 1)
        return file_join(options->directory, SPILL_FILE);
    snprintf(name, sizeof name, "%s.%u-of-%u.fp4_scales", journal_name, share,
             options->share_count);
    return file_join(options->directory, name);
}

ckpt_code side_data_begin(const side_data_options *options, side_data_writer **out,
                          ckpt_error *err)
{
    side_data_writer *w;
    ckpt_code code;

    *out = NULL;
    if ((code = kernels_require(err)) != CKPT_OK)
        return code;
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return ckpt_fail_memory(err, "side data", sizeof *w);
    w->base.put = spill_put;
    w->options = *options;
    pthread_mutex_init(&w->lock, NULL);
    w->path = file_join(options->directory, SIDE_DATA_FILE);
    w->spill_path = spill_path(options, options->share);
    if (w->path == NULL || w->spill_path == NULL) {
        code = ckpt_fail_memory(err, "a path", strlen(options->directory));
        goto out;
    }
    if ((code = file_open_rw(options->directory, strrchr(w->spill_path, '/') + 1, &w->spill,
                             err)) != CKPT_OK ||
        (code = cut_spill(w, err)) != CKPT_OK)
        goto out;
    /* Shares wait until all are done: one of them may be writing the result now. */
    if (options->share_count <= 1)
        code = restore_spill(w, err);
out:
    if (code == CKPT_OK)
        *out = w;
    else
        side_data_close(w);
    return code;
}

static ckpt_code append_bytes(side_data_writer *w, const side_data_writer *from, ckpt_error *err)
{
    spill_record batch[SPILL_BATCH];
    ckpt_code code = CKPT_OK;

    for (uint64_t at = 0; at < from->spill_bytes && code == CKPT_OK; at += sizeof batch) {
        const size_t size = size_min(sizeof batch, from->spill_bytes - at);

        if ((code = file_read_at(from->spill, at, batch, size, err)) == CKPT_OK &&
            (code = file_write_at(w->spill, w->spill_bytes, batch, size, err)) == CKPT_OK)
            w->spill_bytes += size;
    }
    return code;
}

/* The spill of another share. It may be missing if the result exists, which was restored. */
static ckpt_code take_over(side_data_writer *w, unsigned share, uint64_t synced_bytes,
                           ckpt_error *err)
{
    side_data_writer other = { .options = w->options, .path = w->path };
    ckpt_code code = CKPT_OK;

    if ((other.spill_path = spill_path(&w->options, share)) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(w->options.directory));
    if (file_exists(other.spill_path)) {
        if ((code = file_open(other.spill_path, &other.spill, err)) == CKPT_OK) {
            other.spill_bytes = size_min(file_size(other.spill), synced_bytes) /
                                sizeof(spill_record) * sizeof(spill_record);
            if (other.spill_bytes < synced_bytes && !file_exists(w->path))
                code = fail_damaged(&other, other.spill_bytes, err);
        }
        if (code == CKPT_OK && (code = side_data_visit_spill(&other, NULL, NULL, err)) == CKPT_OK)
            code = append_bytes(w, &other, err);
    } else if (synced_bytes > 0 && !file_exists(w->path)) {
        code = fail_damaged(&other, 0, err);
    }
    file_close(other.spill, NULL);
    free(other.spill_path);
    return code;
}

ckpt_code side_data_join(side_data_writer *writer, const uint64_t *synced_bytes, ckpt_error *err)
{
    const side_data_options *o = &writer->options;
    ckpt_code code = restore_spill(writer, err);

    for (unsigned share = 1; share <= o->share_count && code == CKPT_OK; share++)
        if (share != o->share)
            code = take_over(writer, share, synced_bytes[share - 1], err);
    return code;
}

encode_exception_sink *side_data_sink(side_data_writer *writer)
{
    return &writer->base;
}

void side_data_close(side_data_writer *writer)
{
    if (writer == NULL)
        return;
    file_close(writer->spill, NULL);
    pthread_mutex_destroy(&writer->lock);
    free(writer->spill_path);
    free(writer->path);
    free(writer);
}
