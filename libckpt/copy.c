/* The tensor loop. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"
#include "options.h"
#include "sink.h"
#include "size.h"

enum { DEFAULT_MEMORY_BYTES = 1 << 30, THREADS_MAX = 1024 };

/*
 * A range of work: tensors [tensor, end) of the catalog, the first of them from `row` on. Every
 * thread has its own lane. Neighbours in a catalog are mostly in the same file, and a file is
 * written by one thread at a time (the file system locks it), so threads work far apart. A thread
 * whose lane is empty takes the second half of the longest remaining one; where all that remain
 * have one tensor, it takes tiles of the tensor that has the fewest threads and the most to do.
 */
typedef struct {
    size_t tensor;
    uint64_t row;
    size_t end;
    unsigned users;            /* threads whose last tile is from here */
} lane;

/* COPY_IN_ORDER: in lanes, but threads share a tensor only if they take turns. COPY_TOGETHER: all
 * threads take tiles from one lane. */
typedef enum { COPY_IN_LANES, COPY_IN_ORDER, COPY_TOGETHER } copy_order;

/* Shared by the threads; `lock` guards the members below it. */
typedef struct {
    ckpt_source *source;
    ckpt_sink *sink;
    const ckpt_run_options *options;
    copy_order order;
    copy_tiles tiles;
    uint64_t tile_bytes;
    uint64_t total_bytes;
    pthread_mutex_t done_lock; /* one call of the sink's tensor_done at a time */
    pthread_mutex_t lock;
    lane *lanes;               /* one per thread */
    unsigned lane_count;
    unsigned lanes_taken;
    uint64_t *rows_left;       /* indexed by tensor */
    uint64_t done_bytes;
    ckpt_code code;            /* of the first failure */
    ckpt_error error;
} copy_job;

/* Rows to copy. A tensor without columns has no data, whatever its number of rows. */
static uint64_t copied_rows(const ckpt_tensor *t)
{
    return ckpt_tensor_cols(t) == 0 ? 0 : ckpt_tensor_rows(t);
}

uint64_t copy_tile_need(const ckpt_source *source, const ckpt_sink *sink)
{
    uint64_t largest = 0;

    for (size_t i = 0; i < ckpt_catalog_count(source->catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(source->catalog, i);
        const uint64_t rows = size_min(source_tile_rows(t), copied_rows(t));
        uint64_t need = rows == 0 ? 0 : source_need(source, i, rows);

        if (rows > 0 && sink->ops->need != NULL)
            need += sink->ops->need(sink, i, rows);
        largest = size_max(largest, need);
    }
    return largest;
}

static int is_wanted(const ckpt_sink *sink, size_t tensor)
{
    return sink->ops->wants == NULL || sink->ops->wants(sink, tensor);
}

static void fail_job(copy_job *job, ckpt_code code, const ckpt_error *err)
{
    if (job->code != CKPT_OK)
        return;
    job->code = code;
    job->error = *err;
    turns_stop(job->tiles.turns);
}

/* Called without the loop's lock: the sink may wait for a disk, and only threads that finish a
 * tensor at the same time wait with it. */
static void finish_tensor(copy_job *job, size_t tensor)
{
    ckpt_error err;
    ckpt_code code;

    if (job->sink->ops->tensor_done == NULL)
        return;
    pthread_mutex_lock(&job->done_lock);
    code = job->sink->ops->tensor_done(job->sink, tensor, &err);
    pthread_mutex_unlock(&job->done_lock);
    if (code == CKPT_OK)
        return;
    pthread_mutex_lock(&job->lock);
    fail_job(job, code, &err);
    pthread_mutex_unlock(&job->lock);
}

/* Divide the catalog into lanes of about equal bytes. COPY_TOGETHER uses the first lane only. */
static void cut_lanes(copy_job *job)
{
    const size_t count = ckpt_catalog_count(job->source->catalog);
    const uint64_t share = job->order == COPY_TOGETHER ? UINT64_MAX / THREADS_MAX
                                                       : job->total_bytes / job->lane_count + 1;
    uint64_t bytes = 0;
    size_t i = 0;

    for (unsigned l = 0; l < job->lane_count; l++) {
        job->lanes[l].tensor = i;
        for (; i < count && bytes < (l + 1) * share; i++)
            if (is_wanted(job->sink, i))
                bytes += ckpt_tensor_bytes(ckpt_catalog_at(job->source->catalog, i));
        job->lanes[l].end = i;
    }
    job->lanes[job->lane_count - 1].end = count;
}

/* Bytes of the lane's first tensor whose tiles nobody has taken. */
static uint64_t bytes_left(const copy_job *job, const lane *l)
{
    const ckpt_tensor *t = ckpt_catalog_at(job->source->catalog, l->tensor);
    const uint64_t rows = copied_rows(t);

    return l->row >= rows ? 0 : ckpt_tensor_bytes(t) / rows * (rows - l->row);
}

/* The lane, of those with one tensor, whose tensor is best shared by one more thread; NULL: all
 * are empty. Turns (turns.h) let few threads be of use to one tensor. */
static lane *find_shared(copy_job *job)
{
    lane *best = NULL;
    uint64_t best_left = 0;

    for (unsigned l = 0; l < job->lane_count; l++) {
        lane *at = &job->lanes[l];
        const uint64_t left = at->tensor < at->end ? bytes_left(job, at) : 0;

        if (at->tensor == at->end)
            continue;
        if (best == NULL || at->users < best->users ||
            (at->users == best->users && left > best_left)) {
            best = at;
            best_left = left;
        }
    }
    return best;
}

/* The lane where a thread whose own lane is empty continues; NULL if all are empty. Called with
 * the lock held. */
static lane *find_lane(copy_job *job, lane *own)
{
    lane *longest = own;
    size_t left;

    if (job->order == COPY_TOGETHER)
        return job->lanes->tensor < job->lanes->end ? job->lanes : NULL;
    for (unsigned l = 0; l < job->lane_count; l++)
        if (job->lanes[l].end - job->lanes[l].tensor > longest->end - longest->tensor)
            longest = &job->lanes[l];
    left = longest->end - longest->tensor;
    if (left < 2)
        return job->order == COPY_IN_ORDER && job->tiles.turns == NULL ? NULL : find_shared(job);
    own->tensor = longest->end - left / 2;
    own->row = 0;
    own->end = longest->end;
    longest->end = own->tensor;
    return own;
}

/* The next tile of a lane; 0 when there is none. Called with the lock held. */
static int take_from(copy_job *job, lane *from, source_range *range)
{
    for (; from->tensor < from->end && job->code == CKPT_OK; from->tensor++, from->row = 0) {
        const ckpt_tensor *t = ckpt_catalog_at(job->source->catalog, from->tensor);
        const uint64_t rows = copied_rows(t);

        if (!is_wanted(job->sink, from->tensor))
            continue;
        if (from->row >= rows)
            continue;
        range->tensor = from->tensor;
        range->row = from->row;
        range->row_count = size_min(job->tiles.rows != NULL ? job->tiles.rows[from->tensor]
                                                            : source_tile_rows(t),
                                    rows - from->row);
        range->want = SOURCE_WANT_ALL;
        from->row += range->row_count;
        return 1;
    }
    return 0;
}

/* The next tile, from the thread's own lane unless that is empty; 0 when there is none. *last: the
 * lane of its last tile. */
static int take_tile(copy_job *job, lane *own, lane **last, source_range *range)
{
    lane *from = own;
    int found = 0;

    pthread_mutex_lock(&job->lock);
    (*last)->users--;
    if (job->code == CKPT_OK && job->options->cancel != NULL &&
        job->options->cancel(job->options->context))
        job->code = ckpt_fail(&job->error, CKPT_E_INTERRUPTED, "interrupted");
    while (!found && from != NULL && job->code == CKPT_OK) {
        found = take_from(job, from, range);
        if (!found)
            from = find_lane(job, own);
    }
    *last = found ? from : own;
    (*last)->users++;
    pthread_mutex_unlock(&job->lock);
    return found;
}

/* Bytes of progress for a tile. */
static uint64_t tile_bytes(const source_range *range, const ckpt_tile *tile)
{
    uint64_t bytes = 0;

    for (int part = 0; part < CKPT_PART_COUNT; part++)
        bytes += source_has_part(range, (ckpt_part)part) ? tile->part_bytes[part] : 0;
    return bytes;
}

static void account_tile(copy_job *job, const source_range *range, const ckpt_tile *tile)
{
    int is_last;

    pthread_mutex_lock(&job->lock);
    job->done_bytes += tile_bytes(range, tile);
    job->rows_left[range->tensor] -= range->row_count;
    is_last = job->rows_left[range->tensor] == 0 && job->code == CKPT_OK;
    if (job->options->progress != NULL)
        job->options->progress(job->options->context, job->done_bytes, job->total_bytes);
    pthread_mutex_unlock(&job->lock);
    if (is_last)
        finish_tensor(job, range->tensor);
}

static void *copy_thread(void *context)
{
    copy_job *job = context;
    source_range range;
    ckpt_error err;
    ckpt_code code = CKPT_OK;
    arena scratch;
    lane *own;
    lane *last;

    pthread_mutex_lock(&job->lock);
    last = own = &job->lanes[job->lanes_taken++];
    own->users++;
    pthread_mutex_unlock(&job->lock);
    if (!arena_init_fixed(&scratch, job->tile_bytes)) {
        code = ckpt_fail_memory(&err, "tile buffers", job->tile_bytes);
    } else {
        while (code == CKPT_OK && take_tile(job, own, &last, &range)) {
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

static uint64_t memory_limit(const ckpt_run_options *o)
{
    return o->memory_bytes == 0 ? DEFAULT_MEMORY_BYTES : o->memory_bytes;
}

uint64_t copy_memory_left(const ckpt_run_options *o)
{
    return memory_limit(o) > o->fixed_bytes ? memory_limit(o) - o->fixed_bytes : 0;
}

ckpt_code copy_check_memory(uint64_t tile_bytes, const ckpt_run_options *options, ckpt_error *err)
{
    if (copy_memory_left(options) >= tile_bytes)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_MEMORY,
                     "the memory limit of %llu bytes is too small: at least %llu are needed, for "
                     "catalogs %llu and one tile %llu",
                     (unsigned long long)memory_limit(options),
                     (unsigned long long)(options->fixed_bytes + tile_bytes),
                     (unsigned long long)options->fixed_bytes,
                     (unsigned long long)tile_bytes);
}

uint64_t copy_thread_count(const ckpt_run_options *o, uint64_t thread_bytes)
{
    uint64_t threads = o->thread_count != 0 ? o->thread_count : machine_cores();

    threads = size_min(threads, THREADS_MAX);
    if (thread_bytes > 0)
        threads = size_min(threads, copy_memory_left(o) / thread_bytes);
    return threads;
}

/* The number of threads for which the memory limit has room. */
static ckpt_code plan_threads(const copy_job *job, unsigned *out, ckpt_error *err)
{
    const ckpt_code code = copy_check_memory(job->tile_bytes, job->options, err);

    if (code == CKPT_OK)
        *out = (unsigned)copy_thread_count(job->options, job->tile_bytes);
    return code;
}

static ckpt_code run_threads(copy_job *job, ckpt_error *err)
{
    const unsigned thread_count = job->lane_count;
    pthread_t *threads = calloc(thread_count, sizeof *threads);
    unsigned started = 0;

    if (threads == NULL)
        return ckpt_fail_memory(err, "threads", thread_count);
    while (started + 1 < thread_count &&
           pthread_create(&threads[started], NULL, copy_thread, job) == 0)
        started++;                 /* with fewer threads the result is the same */
    copy_thread(job);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    if (job->code != CKPT_OK && err != NULL)
        *err = job->error;
    return job->code;
}

/* `job` has a source, a sink, options and an order. */
static ckpt_code copy_tensors(copy_job *job, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(job->source->catalog);
    ckpt_code code;

    if ((code = options_check_reserved(job->options->reserved, CKPT_RESERVED - 1, err)) != CKPT_OK)
        return code;
    job->tile_bytes = copy_tile_need(job->source, job->sink);
    if ((code = plan_threads(job, &job->lane_count, err)) != CKPT_OK)
        return code;
    job->rows_left = calloc(count + 1, sizeof *job->rows_left);
    job->lanes = calloc(job->lane_count, sizeof *job->lanes);
    if (job->rows_left == NULL || job->lanes == NULL) {
        code = ckpt_fail_memory(err, "the tensor loop", count);
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(job->source->catalog, i);

        job->rows_left[i] = copied_rows(t);
        job->total_bytes += is_wanted(job->sink, i) ? ckpt_tensor_bytes(t) : 0;
    }
    cut_lanes(job);
    pthread_mutex_init(&job->lock, NULL);
    pthread_mutex_init(&job->done_lock, NULL);
    for (size_t i = 0; i < count; i++)         /* tensors without rows have no last tile */
        if (job->rows_left[i] == 0 && is_wanted(job->sink, i) && job->code == CKPT_OK)
            finish_tensor(job, i);
    code = run_threads(job, err);
    pthread_mutex_destroy(&job->done_lock);
    pthread_mutex_destroy(&job->lock);
out:
    free(job->lanes);
    free(job->rows_left);
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

ckpt_code sink_put_nothing(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                           arena *scratch, ckpt_error *err)
{
    (void)self;
    (void)range;
    (void)tile;
    (void)scratch;
    (void)err;
    return CKPT_OK;
}

/* ---- digesting a source: copy it into a sink that computes digests ---- */

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

ckpt_code ckpt_digest_source(ckpt_source *source, const ckpt_run_options *options,
                             ckpt_digest **out, ckpt_error *err)
{
    static const ckpt_run_options defaults = { 0 };
    static const sink_ops ops = { NULL, digest_put, digest_sink_need, NULL };
    digest_sink sink = { { &ops }, digest_create(source->catalog), source->catalog };
    ckpt_code code;

    if (sink.digest == NULL)
        return ckpt_fail_memory(err, "digests", ckpt_catalog_count(source->catalog));
    code = ckpt_copy(source, &sink.base, options == NULL ? &defaults : options, err);
    if (code != CKPT_OK)
        ckpt_digest_free(sink.digest);
    else
        *out = sink.digest;
    return code;
}

ckpt_code ckpt_copy(ckpt_source *source, ckpt_sink *sink, const ckpt_run_options *options,
                    ckpt_error *err)
{
    copy_job job = { .source = source, .sink = sink, .options = options, .order = COPY_IN_LANES };

    return copy_tensors(&job, err);
}

ckpt_code ckpt_copy_in_order(ckpt_source *source, ckpt_sink *sink, const copy_tiles *tiles,
                             const ckpt_run_options *options, ckpt_error *err)
{
    copy_job job = { .source = source, .sink = sink, .options = options, .order = COPY_IN_ORDER };

    if (tiles != NULL)
        job.tiles = *tiles;
    return copy_tensors(&job, err);
}

ckpt_code ckpt_copy_together(ckpt_source *source, ckpt_sink *sink, const ckpt_run_options *options,
                             ckpt_error *err)
{
    copy_job job = { .source = source, .sink = sink, .options = options, .order = COPY_TOGETHER };

    return copy_tensors(&job, err);
}
