/* A sink that writes tiles to files and records finished tensors in a journal. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

typedef struct {
    ckpt_sink base;
    file_sink_options options;
    pthread_mutex_t lock;
    hash128 *written;        /* indexed by tensor: sum of tile_hash of its tiles */
    uint8_t *kept;           /* indexed by tensor: 1: correct on disk from an earlier run */
} file_sink;

static int files_wants(const ckpt_sink *self, size_t tensor)
{
    const file_sink *s = (const file_sink *)self;

    return !s->kept[tensor] && (s->options.share == NULL || s->options.share[tensor]);
}

static ckpt_code files_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                           arena *scratch, ckpt_error *err)
{
    file_sink *s = (file_sink *)self;
    const store_tile written = { s->options.layout, range, tile, scratch };
    const int is_there = s->options.there != NULL && s->options.there[range->tensor];
    /* Hashed first: writing replaces the tile in the caches by the pages of the file. */
    const hash128 sum = s->options.journal == NULL ? (hash128){ 0, 0 } : tile_hash(range, tile);
    const ckpt_code code =
        is_there ? CKPT_OK : store_write_tile(s->options.store, &written, err);

    if (code != CKPT_OK || s->options.journal == NULL)
        return code;
    pthread_mutex_lock(&s->lock);
    hash128_add(&s->written[range->tensor], sum);
    pthread_mutex_unlock(&s->lock);
    return CKPT_OK;
}

static uint64_t files_need(const ckpt_sink *self, size_t tensor, uint64_t row_count)
{
    return store_write_need(((const file_sink *)self)->options.layout, tensor, row_count);
}

static ckpt_code files_done(ckpt_sink *self, size_t tensor, ckpt_error *err)
{
    file_sink *s = (file_sink *)self;
    hash128 value = { 0, 0 };
    hash128 written;
    ckpt_code code;

    if (s->options.journal == NULL)
        return CKPT_OK;
    if (s->options.before_done != NULL &&
        (code = s->options.before_done(s->options.before_done_context, err)) != CKPT_OK)
        return code;
    if (s->options.digest != NULL)
        value = digest_get(s->options.digest, tensor);
    pthread_mutex_lock(&s->lock);
    written = s->written[tensor];
    pthread_mutex_unlock(&s->lock);
    return journal_append(s->options.journal, tensor, value, written, err);
}

ckpt_code sink_files_create(const file_sink_options *options, ckpt_sink **out, ckpt_error *err)
{
    static const sink_ops ops = { files_wants, files_put, files_need, files_done };
    const size_t count = ckpt_catalog_count(options->layout->logical);
    file_sink *s = calloc(1, sizeof *s);

    if (s == NULL)
        return ckpt_fail_memory(err, "a sink", sizeof *s);
    s->base.ops = &ops;
    s->options = *options;
    pthread_mutex_init(&s->lock, NULL);
    s->written = calloc(count + 1, sizeof *s->written);
    s->kept = calloc(count + 1, 1);
    if (s->written == NULL || s->kept == NULL) {
        sink_files_free(&s->base);
        return ckpt_fail_memory(err, "a sink", count);
    }
    *out = &s->base;
    return CKPT_OK;
}

void sink_files_free(ckpt_sink *sink)
{
    file_sink *s = (file_sink *)sink;

    if (s == NULL)
        return;
    pthread_mutex_destroy(&s->lock);
    free(s->written);
    free(s->kept);
    free(s);
}

/* ---- resuming: read back what the journal lists, and keep tensors whose hash is right ---- */

typedef struct {
    ckpt_sink base;
    file_sink *files;
    journal_record *records;
    size_t kept_count;
} verify_sink;

/*
 * Reads a tensor as it was written. If a copy differs from its original (its bytes did not reach
 * the disk before a crash), the tile is empty: its hash is wrong, and the tensor is written again.
 */
typedef struct {
    ckpt_source base;
    ckpt_source *from;
} lenient_source;

static ckpt_code lenient_read(ckpt_source *self, const source_range *range, arena *scratch,
                              ckpt_tile *tile, ckpt_error *err)
{
    ckpt_code code = source_read_tile(((lenient_source *)self)->from, range, scratch, tile, err);

    if (code == CKPT_E_FORMAT) {
        memset(tile, 0, sizeof *tile);
        code = CKPT_OK;
    }
    return code;
}

static uint64_t lenient_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    return source_need(((const lenient_source *)self)->from, tensor, row_count);
}

static int verify_wants(const ckpt_sink *self, size_t tensor)
{
    return ((const verify_sink *)self)->records[tensor].is_done;
}

static ckpt_code verify_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                            arena *scratch, ckpt_error *err)
{
    file_sink *s = ((verify_sink *)self)->files;
    const store_tile found = { s->options.layout, range, tile, scratch };
    const hash128 sum = tile_hash(range, tile);

    pthread_mutex_lock(&s->lock);
    hash128_add(&s->written[range->tensor], sum);
    pthread_mutex_unlock(&s->lock);
    return store_found_tile(s->options.store, &found, err);
}

static uint64_t verify_need(const ckpt_sink *self, size_t tensor, uint64_t row_count)
{
    return files_need(&((const verify_sink *)self)->files->base, tensor, row_count);
}

static ckpt_code verify_done(ckpt_sink *self, size_t tensor, ckpt_error *err)
{
    verify_sink *v = (verify_sink *)self;
    const journal_record *record = &v->records[tensor];
    const hash128 zero = { 0, 0 };

    (void)err;
    if (memcmp(&v->files->written[tensor], &record->bytes, sizeof record->bytes) == 0) {
        v->files->kept[tensor] = 1;
        v->kept_count++;
        if (v->files->options.digest != NULL)
            digest_set(v->files->options.digest, tensor, record->value);
    } else {
        store_forget_tensor(v->files->options.store, v->files->options.layout, tensor);
    }
    v->files->written[tensor] = zero;
    return CKPT_OK;
}

int sink_files_kept(const ckpt_sink *sink, size_t tensor)
{
    return ((const file_sink *)sink)->kept[tensor];
}

ckpt_code sink_files_verify(ckpt_sink *sink, journal_record *records,
                            const ckpt_run_options *options, size_t *kept_count, ckpt_error *err)
{
    static const sink_ops ops = { verify_wants, verify_put, verify_need, verify_done };
    static const source_ops lenient_ops = { lenient_read, lenient_need, NULL };
    file_sink *s = (file_sink *)sink;
    verify_sink verify = { { &ops }, s, records, 0 };
    lenient_source written = { { &lenient_ops, s->options.layout->logical }, NULL };
    ckpt_code code;

    if ((code = source_stored(s->options.store, s->options.layout, &written.from, err)) != CKPT_OK)
        return code;
    code = ckpt_copy(&written.base, &verify.base, options, err);
    ckpt_source_free(written.from);
    *kept_count = verify.kept_count;
    return code;
}

ckpt_code sink_files_resume(ckpt_sink *sink, const ckpt_run_options *options, size_t *kept_count,
                            ckpt_error *err)
{
    return sink_files_verify(sink, journal_records(((file_sink *)sink)->options.journal), options,
                             kept_count, err);
}
