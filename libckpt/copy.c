/* The tensor loop. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sink.h"
#include "size.h"

enum { DEFAULT_MEMORY_BYTES = 1 << 30, THREADS_MAX = 1024 };

/* What the threads share; everything below `lock` is guarded by it. */
typedef struct {
    ckpt_source *source;
    ckpt_sink *sink;
    const copy_options *options;
    uint64_t tile_bytes;
    uint64_t total_bytes;
    pthread_mutex_t lock;
    size_t next_tensor;
    uint64_t next_row;
    uint64_t *rows_left;       /* by tensor */
    uint64_t done_bytes;
    ckpt_code code;            /* of the first failure */
    ckpt_error error;
} copy_job;

uint64_t copy_tile_need(const ckpt_source *source, const ckpt_sink *sink)
{
    uint64_t largest = 0;

    for (size_t i = 0; i < ckpt_catalog_count(source->catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(source->catalog, i);
        const uint64_t rows = size_min(source_tile_rows(t), ckpt_tensor_rows(t));
        uint64_t need = source_need(source, i, rows);

        if (sink->ops->need != NULL)
            need += sink->ops->need(sink, i, rows);
        largest = size_max(largest, need);
    }
    return largest;
}

static int is_wanted(const ckpt_sink *sink, size_t tensor)
{
    return sink->ops->wants == NULL || sink->ops->wants(sink, tensor);
}

static uint64_t tensor_bytes(const ckpt_tensor *t)
{
    return ckpt_part_bytes(t, CKPT_DATA) + ckpt_part_bytes(t, CKPT_SCALE);
}

static void fail_job(copy_job *job, ckpt_code code, const ckpt_error *err)
{
    if (job->code != CKPT_OK)
        return;
    job->code = code;
    job->error = *err;
}

/* Called with the lock held. */
static void finish_tensor(copy_job *job, size_t tensor)
{
    ckpt_error err;
    ckpt_code code;

    if (job->sink->ops->tensor_done == NULL || job->code != CKPT_OK)
        return;
    if ((code = job->sink->ops->tensor_done(job->sink, tensor, &err)) != CKPT_OK)
        fail_job(job, code, &err);
}

/* The next tile to do; 0 when there is none. */
static int take_tile(copy_job *job, source_range *range)
{
    int found = 0;

    pthread_mutex_lock(&job->lock);
    if (job->options->stop != NULL && *job->options->stop && job->code == CKPT_OK)
        job->code = ckpt_fail(&job->error, CKPT_E_INTERRUPTED,
                              "interrupted; the same command goes on from here");
    while (!found && job->code == CKPT_OK &&
           job->next_tensor < ckpt_catalog_count(job->source->catalog)) {
        const ckpt_tensor *t = ckpt_catalog_at(job->source->catalog, job->next_tensor);
        const uint64_t rows = ckpt_tensor_rows(t);

        if (job->next_row == 0 && rows == 0 && is_wanted(job->sink, job->next_tensor))
            finish_tensor(job, job->next_tensor);
        if (job->next_row >= rows || !is_wanted(job->sink, job->next_tensor)) {
            job->next_tensor++;
            job->next_row = 0;
            continue;
        }
        range->tensor = job->next_tensor;
        range->row = job->next_row;
        range->row_count = size_min(source_tile_rows(t), rows - job->next_row);
        range->want = SOURCE_WANT_ALL;
        job->next_row += range->row_count;
        found = 1;
    }
    pthread_mutex_unlock(&job->lock);
    return found;
}

static void account_tile(copy_job *job, const source_range *range, const ckpt_tile *tile)
{
    pthread_mutex_lock(&job->lock);
    job->done_bytes += tile->part_bytes[CKPT_DATA] + tile->part_bytes[CKPT_SCALE];
    job->rows_left[range->tensor] -= range->row_count;
    if (job->rows_left[range->tensor] == 0)
        finish_tensor(job, range->tensor);
    if (job->options->progress != NULL)
        job->options->progress(job->options->progress_context, job->done_bytes,
                               job->total_bytes);
    pthread_mutex_unlock(&job->lock);
}

static void *copy_thread(void *context)
{
    copy_job *job = context;
    source_range range;
    ckpt_error err;
    ckpt_code code = CKPT_OK;
    arena scratch;

    if (!arena_init_fixed(&scratch, job->tile_bytes)) {
        code = ckpt_fail_memory(&err, "tile buffers", job->tile_bytes);
    } else {
        while (code == CKPT_OK && take_tile(job, &range)) {
            ckpt_tile tile;

            arena_rewind(&scratch, 0);
            code = source_read_tile(job->source, &range, &scratch, &tile, &err);
            if (code == CKPT_OK)
                code = job->sink->ops->put(job->sink, &range, &tile, &scratch, &err);
            if (code == CKPT_OK)
                account_tile(job, &range, &tile);
        }
        arena_release(&scratch);
    }
    if (code != CKPT_OK) {
        pthread_mutex_lock(&job->lock);
        fail_job(job, code, &err);
        pthread_mutex_unlock(&job->lock);
    }
    return NULL;
}

static uint64_t memory_left(const copy_options *o, uint64_t *limit)
{
    *limit = o->memory_bytes == 0 ? DEFAULT_MEMORY_BYTES : o->memory_bytes;
    return *limit > o->fixed_bytes ? *limit - o->fixed_bytes : 0;
}

ckpt_code copy_check_memory(uint64_t tile_bytes, const copy_options *options, ckpt_error *err)
{
    uint64_t limit;

    if (memory_left(options, &limit) >= tile_bytes)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_MEMORY,
                     "the memory limit of %llu bytes is too small: catalogs take %llu, one tile "
                     "takes %llu",
                     (unsigned long long)limit, (unsigned long long)options->fixed_bytes,
                     (unsigned long long)tile_bytes);
}

/* How many threads the limit leaves room for. */
static ckpt_code plan_threads(const copy_job *job, unsigned *out, ckpt_error *err)
{
    const copy_options *o = job->options;
    const ckpt_code code = copy_check_memory(job->tile_bytes, o, err);
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t threads = o->thread_count != 0 ? o->thread_count : cores > 0 ? (uint64_t)cores : 1;
    uint64_t limit;

    if (code != CKPT_OK)
        return code;
    threads = size_min(threads, THREADS_MAX);
    if (job->tile_bytes > 0)
        threads = size_min(threads, memory_left(o, &limit) / job->tile_bytes);
    *out = (unsigned)threads;
    return CKPT_OK;
}

static ckpt_code run_threads(copy_job *job, unsigned thread_count, ckpt_error *err)
{
    pthread_t *threads = calloc(thread_count, sizeof *threads);
    unsigned started = 0;

    if (threads == NULL)
        return ckpt_fail_memory(err, "threads", thread_count);
    while (started + 1 < thread_count &&
           pthread_create(&threads[started], NULL, copy_thread, job) == 0)
        started++;                 /* fewer threads do the same work */
    copy_thread(job);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    if (job->code != CKPT_OK && err != NULL)
        *err = job->error;
    return job->code;
}

ckpt_code ckpt_copy(ckpt_source *source, ckpt_sink *sink, const copy_options *options,
                    ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(source->catalog);
    copy_job job = { .source = source, .sink = sink, .options = options };
    unsigned thread_count = 0;
    ckpt_code code;

    job.tile_bytes = copy_tile_need(source, sink);
    if ((code = plan_threads(&job, &thread_count, err)) != CKPT_OK)
        return code;
    job.rows_left = calloc(count + 1, sizeof *job.rows_left);
    if (job.rows_left == NULL)
        return ckpt_fail_memory(err, "the tensor loop", count);
    for (size_t i = 0; i < count; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(source->catalog, i);

        job.rows_left[i] = ckpt_tensor_rows(t);
        job.total_bytes += is_wanted(sink, i) ? tensor_bytes(t) : 0;
    }
    pthread_mutex_init(&job.lock, NULL);
    code = run_threads(&job, thread_count, err);
    pthread_mutex_destroy(&job.lock);
    free(job.rows_left);
    return code;
}

hash128 tile_hash(const source_range *range, const ckpt_tile *tile)
{
    const ckpt_kernels *kernels = kernels_get();
    hash128 sum = { 0, 0 };

    for (int part = 0; part < CKPT_PART_COUNT; part++)
        if (tile->part[part] != NULL)
            hash128_add(&sum, kernels->hash_bytes(tile->part[part], tile->part_bytes[part],
                                                  range->row * CKPT_PART_COUNT + (uint64_t)part));
    return sum;
}

/* ---- digesting a source is copying it into a sink that digests ---- */

typedef struct {
    ckpt_sink base;
    ckpt_digest *digest;
    const ckpt_catalog *catalog;
} digest_sink;

static ckpt_code digest_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                            arena *scratch, ckpt_error *err)
{
    digest_sink *s = (digest_sink *)self;

    return digest_add(s->digest, range, tile, scratch, err);
}

static uint64_t digest_sink_need(const ckpt_sink *self, size_t tensor, uint64_t row_count)
{
    const digest_sink *s = (const digest_sink *)self;

    (void)row_count;
    return digest_need(ckpt_catalog_at(s->catalog, tensor));
}

ckpt_code copy_to_digest(ckpt_source *source, const copy_options *options, ckpt_digest **out,
                         ckpt_error *err)
{
    static const sink_ops ops = { NULL, digest_put, digest_sink_need, NULL };
    digest_sink sink = { { &ops }, digest_create(source->catalog), source->catalog };
    ckpt_code code;

    if (sink.digest == NULL)
        return ckpt_fail_memory(err, "digests", ckpt_catalog_count(source->catalog));
    code = ckpt_copy(source, &sink.base, options, err);
    if (code != CKPT_OK)
        ckpt_digest_free(sink.digest);
    else
        *out = sink.digest;
    return code;
}

ckpt_code ckpt_digest_source(ckpt_source *source, unsigned thread_count, uint64_t memory_bytes,
                             ckpt_digest **out, ckpt_error *err)
{
    const copy_options options = { .thread_count = thread_count, .memory_bytes = memory_bytes };

    return copy_to_digest(source, &options, out, err);
}
