/* download_hash.c: the hashing threads. */
#include "download_hash.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libckpt/sha256.h"
#include "libckpt/size.h"

enum { BUFFER_BYTES = 1 << 20, SYNC_BYTES = 256 << 20, THREADS_MAX = 64 };

/* A thread and its buffer, which is allocated before the thread starts. */
typedef struct {
    hash_pool *pool;
    unsigned char *buffer;
    pthread_t thread;
} hash_worker;

struct hash_pool {
    hash_options options;
    pthread_mutex_t mutex;
    pthread_cond_t work;         /* a job was queued, or the pool is closing */
    pthread_cond_t rest;         /* a job stopped running */
    hash_job *queue;
    hash_job **queue_end;
    hash_job *done;
    int is_closing;
    unsigned thread_count;
    hash_worker workers[THREADS_MAX];
};

ckpt_code hash_begin(hash_job *job, ckpt_error *err)
{
    job->fd = -1;
    job->hash = NULL;
    job->whole_bytes = job->hashed_bytes = job->synced_bytes = 0;
    job->is_queued = job->is_running = job->is_done = 0;
    if (job->file->algorithm == HUB_SHA256)
        return sha256_begin(&job->hash, err);
    return git_blob_begin(job->file->size_bytes, &job->hash, err);
}

/* ---- threads ---- */

/*
 * Hash bytes through a mapping of the page cache: they have just been received, and copying them
 * with read() would cost as much as hashing them. 0: nothing was hashed; the caller must read them.
 * A page that cannot be read would kill the process by SIGBUS at its first use; MADV_POPULATE_READ
 * reads all pages first and reports the failure instead.
 */
static int hash_in_place(hash_job *job, size_t size, ckpt_code *code)
{
#ifdef MADV_POPULATE_READ
    const size_t before = (size_t)(job->hashed_bytes % (uint64_t)sysconf(_SC_PAGESIZE));
    unsigned char *map = mmap(NULL, before + size, PROT_READ, MAP_SHARED, partial_fd(job->from),
                              (off_t)(job->hashed_bytes - before));
    int is_there;

    if (map == MAP_FAILED)
        return 0;
    is_there = madvise(map, before + size, MADV_POPULATE_READ) == 0;
    if (is_there)
        *code = sha256_add(job->hash, map + before, size, &job->err);
    munmap(map, before + size);
    return is_there;
#else
    (void)job, (void)size, (void)code;
    return 0;
#endif
}

static ckpt_code hash_piece(hash_job *job, unsigned char *buffer, size_t size)
{
    const int fd = job->from != NULL ? partial_fd(job->from) : job->fd;
    ckpt_code code = CKPT_OK;
    size_t got = 0;

    if (job->from != NULL && hash_in_place(job, size, &code))
        return code;
    while (got < size) {
        const ssize_t n = pread(fd, buffer + got, size - got, (off_t)(job->hashed_bytes + got));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return hub_fail(HUB_DISK, &job->err, "cannot read '%s' back: %s", job->file->path,
                            n < 0 ? strerror(errno) : "it ends early");
        got += (size_t)n;
    }
    return sha256_add(job->hash, buffer, size, &job->err);
}

/* Hash the available bytes; 1: there may be more now. Called without the lock. */
static ckpt_code hash_some(hash_pool *pool, hash_job *job, unsigned char *buffer, uint64_t whole)
{
    ckpt_code code = CKPT_OK;

    if (job->from == NULL && job->fd < 0)
        code = place_open_file(pool->options.place, job->file, &job->fd, &job->err);
    while (code == CKPT_OK && job->hashed_bytes < whole) {
        const size_t size = (size_t)size_min(whole - job->hashed_bytes, BUFFER_BYTES);

        if ((code = hash_piece(job, buffer, size)) != CKPT_OK)
            return code;
        pthread_mutex_lock(&pool->mutex);
        job->hashed_bytes += size;
        if (pool->is_closing)
            whole = job->hashed_bytes;
        pthread_mutex_unlock(&pool->mutex);
        if (job->from != NULL && job->hashed_bytes - job->synced_bytes >= SYNC_BYTES) {
            job->synced_bytes = job->hashed_bytes;
            code = partial_sync(job->from, &job->err);
        }
    }
    return code;
}

static void judge(hash_pool *pool, hash_job *job)
{
    ckpt_code code = sha256_end(job->hash, job->got, &job->err);

    job->hash = NULL;
    job->outcome = HASH_FAILED;
    if (code != CKPT_OK)
        return;
    if (strcmp(job->got, job->file->hash) != 0) {
        job->outcome = HASH_WRONG;
        return;
    }
    code = job->from != NULL ? place_commit(pool->options.place, job->file, job->from, &job->err)
                             : place_record(pool->options.place, job->file, &job->err);
    if (code == CKPT_OK)
        job->outcome = HASH_RIGHT;
}

static hash_job *take_queued(hash_pool *pool)
{
    hash_job *job = pool->queue;

    if (job == NULL)
        return NULL;
    pool->queue = job->next;
    if (pool->queue == NULL)
        pool->queue_end = &pool->queue;
    job->is_queued = 0;
    job->is_running = 1;
    return job;
}

static void queue(hash_pool *pool, hash_job *job)
{
    job->next = NULL;
    job->is_queued = 1;
    *pool->queue_end = job;
    pool->queue_end = &job->next;
    pthread_cond_signal(&pool->work);
}

/* 1 when enough data is there to wake a thread for it: a full buffer, or the end of the file. */
static int is_worth_a_turn(const hash_job *job)
{
    return job->whole_bytes == job->file->size_bytes ||
           job->whole_bytes - job->hashed_bytes >= BUFFER_BYTES;
}

/* One turn of a job. The lock is held on entry and on return. */
static void work_on(hash_pool *pool, hash_job *job, unsigned char *buffer)
{
    const uint64_t whole = job->whole_bytes;
    int is_done;
    ckpt_code code;

    pthread_mutex_unlock(&pool->mutex);
    code = hash_some(pool, job, buffer, whole);
    is_done = code != CKPT_OK || job->hashed_bytes == job->file->size_bytes;
    if (code != CKPT_OK)
        job->outcome = HASH_FAILED;
    else if (is_done)
        judge(pool, job);
    pthread_mutex_lock(&pool->mutex);
    job->is_running = 0;
    job->is_done = is_done;
    if (is_done) {
        job->next = pool->done;
        pool->done = job;
        pthread_mutex_unlock(&pool->mutex);
        pool->options.wake(pool->options.context);
        pthread_mutex_lock(&pool->mutex);
    } else if (is_worth_a_turn(job) && !pool->is_closing) {
        queue(pool, job);
    }
    pthread_cond_broadcast(&pool->rest);
}

static void *run_thread(void *context)
{
    const hash_worker *worker = context;
    hash_pool *pool = worker->pool;

    pthread_mutex_lock(&pool->mutex);
    while (!pool->is_closing) {
        hash_job *job = take_queued(pool);

        if (job != NULL)
            work_on(pool, job, worker->buffer);
        else
            pthread_cond_wait(&pool->work, &pool->mutex);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

/* ---- the owner's side ---- */

ckpt_code hash_pool_open(const hash_options *options, hash_pool **out, ckpt_error *err)
{
    hash_pool *pool = calloc(1, sizeof *pool);

    *out = pool;
    if (pool == NULL)
        return ckpt_fail_memory(err, "hashing threads", sizeof *pool);
    pool->options = *options;
    pool->queue_end = &pool->queue;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->rest, NULL);
    for (unsigned i = 0; i < options->thread_count && i < THREADS_MAX; i++) {
        hash_worker *worker = &pool->workers[i];
        int error;

        worker->pool = pool;
        if ((worker->buffer = malloc(BUFFER_BYTES)) == NULL)
            return ckpt_fail_memory(err, "hashing threads", BUFFER_BYTES);
        if ((error = pthread_create(&worker->thread, NULL, run_thread, worker)) != 0)
            return ckpt_fail(err, CKPT_E_MEMORY, "cannot start a thread: %s", strerror(error));
        pool->thread_count++;
    }
    return CKPT_OK;
}

void hash_pool_close(hash_pool *pool)
{
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->is_closing = 1;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->workers[i].thread, NULL);
    for (unsigned i = 0; i < THREADS_MAX; i++)
        free(pool->workers[i].buffer);
    pthread_cond_destroy(&pool->rest);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

void hash_advance(hash_pool *pool, hash_job *job, uint64_t whole_bytes)
{
    pthread_mutex_lock(&pool->mutex);
    job->whole_bytes = whole_bytes;
    /* A complete file may be reported again while its result has not been taken. */
    if (!job->is_queued && !job->is_running && !job->is_done && is_worth_a_turn(job))
        queue(pool, job);
    pthread_mutex_unlock(&pool->mutex);
}

uint64_t hash_lag_bytes(hash_pool *pool, const hash_job *job)
{
    uint64_t lag;

    pthread_mutex_lock(&pool->mutex);
    lag = job->whole_bytes - job->hashed_bytes;
    pthread_mutex_unlock(&pool->mutex);
    return lag;
}

hash_job *hash_take_done(hash_pool *pool)
{
    hash_job *job;

    pthread_mutex_lock(&pool->mutex);
    job = pool->done;
    if (job != NULL)
        pool->done = job->next;
    pthread_mutex_unlock(&pool->mutex);
    return job;
}

static void remove_from(hash_job **at, const hash_job *job)
{
    while (*at != NULL && *at != job)
        at = &(*at)->next;
    if (*at != NULL)
        *at = job->next;
}

void hash_end(hash_pool *pool, hash_job *job)
{
    pthread_mutex_lock(&pool->mutex);
    while (job->is_running)
        pthread_cond_wait(&pool->rest, &pool->mutex);
    remove_from(&pool->queue, job);
    pool->queue_end = &pool->queue;
    while (*pool->queue_end != NULL)
        pool->queue_end = &(*pool->queue_end)->next;
    remove_from(&pool->done, job);
    pthread_mutex_unlock(&pool->mutex);
    sha256_abort(job->hash);
    job->hash = NULL;
    if (job->fd >= 0)
        close(job->fd);
    job->fd = -1;
}
