/* weights_keep.c: a thread that makes host memory ahead of its use. */
#include "weights_keep.h"

#include <pthread.h>
#include <stdlib.h>

#include "libckpt/size.h"

enum { LOTS_AHEAD = 2 };

struct keep_pool {
    run_backend *backend;
    pthread_t thread;
    int has_thread;
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    void **lots;               /* the members from here on are guarded by the lock */
    size_t lot_max;
    size_t made_count;
    size_t taken_count;
    int closing;
    uint64_t used_bytes;       /* of the last lot that was taken; not guarded */
};

static int make_lot(const keep_pool *pool, void **out)
{
    ckpt_error err;

    return pool->backend->ops->host_create(pool->backend, KEEP_LOT_BYTES, out, &err) == CKPT_OK;
}

static void *work(void *context)
{
    keep_pool *pool = context;

    pthread_mutex_lock(&pool->lock);
    while (!pool->closing && pool->made_count < pool->lot_max) {
        void *lot = NULL;
        int is_made;

        if (pool->made_count - pool->taken_count >= LOTS_AHEAD) {
            pthread_cond_wait(&pool->wanted, &pool->lock);
            continue;
        }
        pthread_mutex_unlock(&pool->lock);
        is_made = make_lot(pool, &lot);
        pthread_mutex_lock(&pool->lock);
        if (is_made)
            pool->lots[pool->made_count++] = lot;
        else
            pool->lot_max = pool->made_count;      /* do with what there is */
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

keep_pool *keep_open(run_backend *backend, uint64_t limit_bytes)
{
    keep_pool *pool = calloc(1, sizeof *pool);

    if (pool == NULL)
        return NULL;
    pool->backend = backend;
    pool->lot_max = limit_bytes / KEEP_LOT_BYTES;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wanted, NULL);
    pool->lots = calloc(pool->lot_max + 1, sizeof *pool->lots);
    pool->used_bytes = KEEP_LOT_BYTES;
    if (pool->lots == NULL || pool->lot_max == 0 || !make_lot(pool, &pool->lots[0])) {
        keep_close(pool);
        return NULL;
    }
    pool->made_count = 1;
    pool->has_thread = pthread_create(&pool->thread, NULL, work, pool) == 0;
    return pool;
}

void keep_close(keep_pool *pool)
{
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->closing = 1;
    pthread_cond_signal(&pool->wanted);
    pthread_mutex_unlock(&pool->lock);
    if (pool->has_thread)
        pthread_join(pool->thread, NULL);
    for (size_t i = 0; i < pool->made_count; i++)
        pool->backend->ops->host_free(pool->backend, pool->lots[i], KEEP_LOT_BYTES);
    pthread_cond_destroy(&pool->wanted);
    pthread_mutex_destroy(&pool->lock);
    free(pool->lots);
    free(pool);
}

/* Go on to the next lot that was made; 0 if there is none. */
static int next_lot(keep_pool *pool)
{
    int found;

    pthread_mutex_lock(&pool->lock);
    found = pool->taken_count < pool->made_count;
    if (found) {
        pool->taken_count++;
        pthread_cond_signal(&pool->wanted);
    }
    pthread_mutex_unlock(&pool->lock);
    if (found)
        pool->used_bytes = 0;
    return found;
}

void *keep_take(keep_pool *pool, uint64_t bytes)
{
    const uint64_t whole = size_div_up(size_max(bytes, 1), KEEP_ALIGNMENT) * KEEP_ALIGNMENT;
    char *lot;

    if (bytes > KEEP_LOT_BYTES ||
        (pool->used_bytes + whole > KEEP_LOT_BYTES && !next_lot(pool)))
        return NULL;
    lot = pool->lots[pool->taken_count - 1];
    pool->used_bytes += whole;
    return lot + pool->used_bytes - whole;
}
