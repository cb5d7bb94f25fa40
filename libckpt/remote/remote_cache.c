/* remote_cache.c: the blocks of files that are in memory. */
#include "remote_cache.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/memory.h"
#include "libckpt/size.h"

/* The least number of blocks with which readers, and a request ahead of them, get along. */
enum { BLOCKS_MIN = 8 };
static const uint64_t CACHE_BYTES_MAX = 128 << 20;
static const uint64_t DEFAULT_LIMIT_BYTES = 1 << 30;

ckpt_code remote_cache_open(remote_cache *cache, uint64_t limit_bytes, ckpt_error *err)
{
    const uint64_t limit = limit_bytes == 0 ? DEFAULT_LIMIT_BYTES : limit_bytes;

    memset(cache, 0, sizeof *cache);
    cache->count = (size_t)size_max(size_min(limit / 8, CACHE_BYTES_MAX) / REMOTE_BLOCK_BYTES,
                                    BLOCKS_MIN);
    if (!memory_take(cache->count * REMOTE_BLOCK_BYTES))
        return ckpt_fail_memory(err, "blocks of remote files", cache->count * REMOTE_BLOCK_BYTES);
    cache->memory_bytes = cache->count * REMOTE_BLOCK_BYTES;
    cache->memory = malloc(cache->memory_bytes);
    cache->blocks = calloc(cache->count, sizeof *cache->blocks);
    if (cache->memory == NULL || cache->blocks == NULL)
        return ckpt_fail_memory(err, "blocks of remote files", cache->memory_bytes);
    for (size_t i = 0; i < cache->count; i++)
        cache->blocks[i].bytes = cache->memory + i * REMOTE_BLOCK_BYTES;
    return CKPT_OK;
}

void remote_cache_close(remote_cache *cache)
{
    memory_give(cache->memory_bytes);
    free(cache->memory);
    free(cache->blocks);
    memset(cache, 0, sizeof *cache);
}

remote_block *remote_cache_find(const remote_cache *cache, const void *entry, uint64_t number)
{
    for (size_t i = 0; i < cache->count; i++)
        if (cache->blocks[i].entry == entry && cache->blocks[i].number == number)
            return &cache->blocks[i];
    return NULL;
}

void remote_cache_touch(remote_cache *cache, remote_block *block)
{
    block->order = ++cache->clock;
}

void remote_cache_free(remote_block *block)
{
    unsigned char *bytes = block->bytes;

    memset(block, 0, sizeof *block);
    block->bytes = bytes;
}

/* The order in which blocks are given up: those that were read to the end, then the others that are
 * ready, then those that nobody waits for. 0: not now. */
static int rank_of(const remote_block *block, int is_ahead)
{
    if (block->state == BLOCK_FREE)
        return 4;
    if (block->pin_count > 0 || block->state == BLOCK_LOADING)
        return 0;
    if (block->state == BLOCK_READY && block->read_bytes >= block->size_bytes)
        return 3;
    if (is_ahead)
        return 0;
    return block->state == BLOCK_READY ? 2 : 1;
}

/* Of two equal ranks: what was used longest ago, or asked for last. */
static int is_better(const remote_block *a, const remote_block *b)
{
    return a->state == BLOCK_QUEUED ? a->order > b->order : a->order < b->order;
}

remote_block *remote_cache_claim(remote_cache *cache, const remote_wish *wish)
{
    remote_block *best = NULL;
    int best_rank = 0;

    for (size_t i = 0; i < cache->count && best_rank < 4; i++) {
        remote_block *block = &cache->blocks[i];
        const int rank = rank_of(block, wish->is_ahead);

        if (rank > best_rank || (rank > 0 && rank == best_rank && is_better(block, best))) {
            best = block;
            best_rank = rank;
        }
    }
    if (best == NULL)
        return NULL;
    remote_cache_free(best);
    best->entry = wish->entry;
    best->number = wish->number;
    best->state = BLOCK_QUEUED;
    best->size_bytes = wish->size_bytes;
    remote_cache_touch(cache, best);
    return best;
}
