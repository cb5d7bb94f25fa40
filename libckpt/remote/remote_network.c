/*
 * remote_network.c: the session's thread: it decides which blocks are asked for in one request, and
 * when.
 *
 * What was asked for first is fetched first, with the queued blocks behind it in the file. While
 * the hub is asked where a file is, no other request for this file starts.
 */
#include "remote_network.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/clock.h"
#include "remote_transfer.h"

enum { IDLE_MS = 1000, BLOCKED_MS = 20 };

struct remote_network {
    remote_transfer transfers[REMOTE_CONNECTIONS];
};

static remote_transfer *free_transfer(remote_network *n)
{
    for (size_t i = 0; i < REMOTE_CONNECTIONS; i++)
        if (!n->transfers[i].in_use)
            return &n->transfers[i];
    return NULL;
}

static int may_start(const remote_entry *entry)
{
    return entry->failure == NULL && !entry->is_absent && !entry->is_resolving &&
           entry->not_before <= clock_seconds();
}

/* The queued block that was asked for first, of those whose file can be asked for now. *is_blocked
 * becomes 1 if there are others. */
static remote_block *first_queued(const remote_session *s, int *is_blocked)
{
    remote_block *first = NULL;

    for (size_t i = 0; i < s->cache.count; i++) {
        remote_block *block = &s->cache.blocks[i];

        if (block->state != BLOCK_QUEUED || block->size_bytes == 0)
            continue;
        if (!may_start(block->entry))
            *is_blocked = 1;
        else if (first == NULL || block->order < first->order)
            first = block;
    }
    return first;
}

static remote_entry *first_probe(const remote_session *s, int *is_blocked)
{
    for (size_t i = 0; i < s->entry_count; i++) {
        if (s->entries[i]->probe != PROBE_WANTED)
            continue;
        if (may_start(s->entries[i]))
            return s->entries[i];
        *is_blocked = 1;
    }
    return NULL;
}

/* The entry of a block is const there, because the cache does not know what it is. */
static remote_entry *entry_of(const remote_session *s, const remote_block *block)
{
    for (size_t i = 0; i < s->entry_count; i++)
        if (s->entries[i] == block->entry)
            return s->entries[i];
    return NULL;
}

/* Take the block and those behind it, as far as they are queued and empty. */
static void take_blocks(const remote_session *s, remote_transfer *t, remote_block *block)
{
    while (block != NULL && block->state == BLOCK_QUEUED && block->size_bytes > 0 &&
           (t->block_count == 0 || block->filled_bytes == 0)) {
        block->state = BLOCK_LOADING;
        t->blocks[t->block_count++] = block;
        block = t->block_count == REMOTE_SEGMENT_BLOCKS
                    ? NULL : remote_cache_find(&s->cache, block->entry, block->number + 1);
    }
}

/* Start one request; 0: none can start now. */
static int start_one(remote_session *s, int *is_blocked, ckpt_error *err)
{
    remote_transfer *t = free_transfer(s->network);
    remote_entry *entry = t == NULL ? NULL : first_probe(s, is_blocked);
    remote_block *block = t == NULL || entry != NULL ? NULL : first_queued(s, is_blocked);

    if (entry == NULL && block == NULL)
        return 0;
    if (hub_delay(s->h, (entry == NULL ? entry_of(s, block) : entry)->url == NULL
                            ? HUB_RESOLVERS : HUB_DATA) > 0) {
        *is_blocked = 1;
        return 0;
    }
    *t = (remote_transfer){ .s = s, .entry = entry == NULL ? entry_of(s, block) : entry,
                            .in_use = 1, .is_probe = entry != NULL };
    if (t->is_probe)
        entry->probe = PROBE_RUNNING;
    else
        take_blocks(s, t, block);
    if (remote_transfer_start(t, err) == CKPT_OK)
        return 1;
    remote_state_fail(s, NULL, err);
    remote_transfer_release(t);
    return 0;
}

static void cancel_all(remote_session *s)
{
    for (size_t i = 0; i < REMOTE_CONNECTIONS; i++) {
        remote_transfer *t = &s->network->transfers[i];

        if (!t->in_use)
            continue;
        http_cancel(s->h->http, t->http);
        remote_transfer_release(t);
    }
}

static void *run_network(void *session)
{
    remote_session *s = session;
    ckpt_error err;

    pthread_mutex_lock(&s->lock);
    while (!s->is_closing && s->failure.code == CKPT_OK) {
        int is_blocked = 0;
        ckpt_code code;

        if (*s->options.stop) {
            ckpt_fail(&err, CKPT_E_INTERRUPTED, "interrupted");
            remote_state_fail(s, NULL, &err);
            break;
        }
        while (start_one(s, &is_blocked, &err))
            ;
        pthread_mutex_unlock(&s->lock);
        code = http_poll(s->h->http, is_blocked ? BLOCKED_MS : IDLE_MS, &err);
        pthread_mutex_lock(&s->lock);
        if (code != CKPT_OK)
            remote_state_fail(s, NULL, &err);
    }
    cancel_all(s);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

ckpt_code remote_network_open(remote_session *s, ckpt_error *err)
{
    s->network = calloc(1, sizeof *s->network);
    if (s->network == NULL)
        return ckpt_fail_memory(err, "transfers", sizeof *s->network);
    if (pthread_create(&s->thread, NULL, run_network, s) != 0)
        return ckpt_fail(err, CKPT_E_MEMORY, "cannot start a thread for '%s'", s->root);
    s->is_started = 1;
    return CKPT_OK;
}

void remote_network_wake(remote_session *s)
{
    http_wake(s->h->http);
}

void remote_network_close(remote_session *s)
{
    free(s->network);
}
