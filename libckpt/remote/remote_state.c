/* remote_state.c: what the network's thread tells those who wait for blocks. */
#include "remote_state.h"

#include <stdlib.h>

#include "libckpt/size.h"

uint64_t remote_block_size(const remote_entry *entry, uint64_t number)
{
    const uint64_t begin = number * REMOTE_BLOCK_BYTES;

    if (!entry->is_known)
        return number < REMOTE_HEAD_BLOCKS ? REMOTE_BLOCK_BYTES : 0;
    return begin >= entry->file.size_bytes
               ? 0 : size_min(entry->file.size_bytes - begin, REMOTE_BLOCK_BYTES);
}

void remote_state_learn(remote_session *s, remote_entry *entry, uint64_t size_bytes)
{
    entry->file.size_bytes = size_bytes;
    entry->is_known = 1;
    for (size_t i = 0; i < s->cache.count; i++) {
        remote_block *block = &s->cache.blocks[i];
        const uint64_t size = block->entry == entry ? remote_block_size(entry, block->number) : 0;

        if (block->entry != entry)
            continue;
        block->size_bytes = size;
        if (size == 0 && block->state == BLOCK_QUEUED && block->pin_count == 0)
            remote_cache_free(block);
    }
    pthread_cond_broadcast(&s->changed);
}

void remote_state_fail(remote_session *s, remote_entry *entry, const ckpt_error *err)
{
    if (entry != NULL && entry->failure == NULL &&
        (entry->failure = malloc(sizeof *entry->failure)) != NULL)
        *entry->failure = *err;
    else if ((entry == NULL || entry->failure == NULL) && s->failure.code == CKPT_OK)
        s->failure = *err;
    for (size_t i = 0; i < s->cache.count; i++) {
        remote_block *block = &s->cache.blocks[i];

        if (block->entry == entry && block->state == BLOCK_QUEUED && block->pin_count == 0)
            remote_cache_free(block);
    }
    pthread_cond_broadcast(&s->changed);
}
