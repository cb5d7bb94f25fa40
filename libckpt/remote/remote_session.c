/*
 * remote_session.c: readers of remote files: they ask for blocks and wait.
 *
 * A reader queues the block that it needs, then those behind it, as far as its call reaches or, if
 * it goes through the file, farther each time. Only then it waits.
 */
#include "remote_session.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"
#include "libckpt/safetensors_header.h"
#include "libckpt/size.h"
#include "libckpt/text.h"
#include "remote_network.h"

/* ---- entries ---- */

static void free_entry(remote_entry *entry)
{
    free(entry->own_path);
    free(entry->path);
    free(entry->failure);
    free(entry->refusal);
    free(entry->url);
    free(entry);
}

/* Add an entry for a file of the listing, or for a path to be tried. */
static ckpt_code add_entry(remote_session *s, const hub_file *listed, const char *path,
                           remote_entry **out, ckpt_error *err)
{
    remote_entry **entries = array_room(s->entries, s->entry_count, sizeof *entries,
                                        "remote files", err);
    remote_entry *entry;

    if (entries == NULL)
        return CKPT_E_MEMORY;
    s->entries = entries;
    if ((entry = calloc(1, sizeof *entry)) == NULL ||
        (entry->path = file_join(s->root, path)) == NULL ||
        (listed == NULL && (entry->own_path = strdup(path)) == NULL)) {
        if (entry != NULL)
            free_entry(entry);
        return ckpt_fail_memory(err, "a remote file", sizeof *entry);
    }
    if (listed != NULL)
        entry->file = *listed;
    else
        entry->file.path = entry->own_path;
    entry->is_known = listed != NULL;
    s->entries[s->entry_count++] = *out = entry;
    return CKPT_OK;
}

static remote_entry *find_entry(const remote_session *s, const char *path)
{
    for (size_t i = 0; i < s->entry_count; i++)
        if (strcmp(s->entries[i]->file.path, path) == 0)
            return s->entries[i];
    return NULL;
}

/* The entry of a path; NULL: the listing does not have it. Called with the lock held. */
static ckpt_code get_entry(remote_session *s, const char *path, remote_entry **out,
                           ckpt_error *err)
{
    const hub_file *listed = s->is_plain ? NULL : hub_listing_find(&s->listing, path);

    *out = find_entry(s, path);
    if (*out != NULL || (listed == NULL && !s->is_plain))
        return CKPT_OK;
    return add_entry(s, listed, path, out, err);
}

/* ---- blocks ---- */

/* The failure that ends a wait for this file, or NULL. */
static const ckpt_error *failure_of(const remote_session *s, const remote_entry *entry)
{
    return entry->failure != NULL           ? entry->failure
           : s->failure.code != CKPT_OK ? &s->failure
                                            : NULL;
}

static ckpt_code report(const ckpt_error *failure, ckpt_error *err)
{
    if (err != NULL)
        *err = *failure;
    return failure->code;
}

/* Queue blocks [number, end) of a file as far as there is room. 1 if one is new. */
static int ask_ahead(remote_session *s, const remote_entry *entry, uint64_t number, uint64_t end)
{
    int is_new = 0;

    for (; number < end && remote_block_size(entry, number) > 0; number++) {
        const remote_wish wish = { entry, number, remote_block_size(entry, number), 1 };

        if (remote_cache_find(&s->cache, entry, number) != NULL)
            continue;
        if (remote_cache_claim(&s->cache, &wish) == NULL)
            break;
        is_new = 1;
    }
    return is_new;
}

/* Ask for the headers of a file and of those that will be opened after it, because each of them
 * takes its time to come. */
static void ask_heads(remote_session *s, const remote_entry *first)
{
    const hub_file *at = s->is_plain ? NULL : hub_listing_find(&s->listing, first->file.path);
    const hub_file *end = s->listing.files + s->listing.count;
    unsigned count = 0;
    size_t i = 0;

    while (i < s->entry_count && s->entries[i] != first)
        i++;
    while (count < REMOTE_HEADS_AHEAD && (s->is_plain ? i < s->entry_count : at < end)) {
        remote_entry *entry = NULL;

        if (s->is_plain)
            entry = s->entries[i++];
        else if (text_ends_with(at->path, SAFETENSORS_SUFFIX))
            get_entry(s, at->path, &entry, NULL);
        at += !s->is_plain;
        if (entry == NULL || (entry != first && entry->head_was_asked) ||
            !text_ends_with(entry->file.path, SAFETENSORS_SUFFIX))
            continue;
        entry->head_was_asked = 1;
        ask_ahead(s, entry, 0, REMOTE_HEAD_BLOCKS);
        count++;
    }
}

/* How many blocks behind this one the reader will probably need. */
static uint64_t note_stream(remote_session *s, remote_entry *entry, uint64_t number)
{
    remote_stream *oldest = &entry->streams[0];

    for (int i = 0; i < REMOTE_STREAMS; i++) {
        remote_stream *stream = &entry->streams[i];

        if (stream->used_at < oldest->used_at)
            oldest = stream;
        if (stream->used_at == 0 || (stream->next != number && stream->next != number + 1))
            continue;
        if (stream->next == number)
            stream->ahead_blocks = size_min(size_max(stream->ahead_blocks * 2, 2),
                                            REMOTE_AHEAD_BLOCKS);
        stream->next = number + 1;
        stream->used_at = ++s->cache.clock;
        return stream->ahead_blocks;
    }
    *oldest = (remote_stream){ number + 1, 0, ++s->cache.clock };
    return 0;
}

/* A block, pinned, that will be loaded; waits while no place is free. */
static ckpt_code pin_block(remote_session *s, remote_entry *entry, uint64_t number,
                           remote_block **out, ckpt_error *err)
{
    const remote_wish wish = { entry, number, remote_block_size(entry, number), 0 };

    for (;;) {
        remote_block *block = remote_cache_find(&s->cache, entry, number);

        if (failure_of(s, entry) != NULL)
            return report(failure_of(s, entry), err);
        if (block == NULL)
            block = remote_cache_claim(&s->cache, &wish);
        if (block != NULL) {
            block->pin_count++;
            *out = block;
            return CKPT_OK;
        }
        pthread_cond_wait(&s->changed, &s->lock);
    }
}

static void unpin(remote_session *s, remote_block *block)
{
    const remote_entry *entry = block->entry;

    if (--block->pin_count > 0)
        return;
    remote_cache_touch(&s->cache, block);
    if (block->state == BLOCK_QUEUED &&
        (failure_of(s, entry) != NULL || entry->is_absent || block->size_bytes == 0))
        remote_cache_free(block);
    pthread_cond_broadcast(&s->changed);         /* another reader may wait for its place */
}

/* Wait until the block is loaded, or its file turns out to have none there. */
static ckpt_code await(remote_session *s, const remote_entry *entry, const remote_block *block,
                       ckpt_error *err)
{
    while (block->state != BLOCK_READY && !entry->is_absent && block->size_bytes > 0 &&
           failure_of(s, entry) == NULL)
        pthread_cond_wait(&s->changed, &s->lock);
    if (block->state != BLOCK_READY && failure_of(s, entry) != NULL)
        return report(failure_of(s, entry), err);
    return CKPT_OK;
}

/* ---- reading ---- */

/* Pin the block of an offset, ask for it and for those up to `needed_end`, and wait for it. */
static ckpt_code take_block(remote_session *s, remote_entry *entry, const remote_range *at,
                            remote_block **out, ckpt_error *err)
{
    const uint64_t number = at->offset / REMOTE_BLOCK_BYTES;
    const uint64_t last = (at->needed_end - 1) / REMOTE_BLOCK_BYTES;
    const uint64_t ahead = note_stream(s, entry, number);
    ckpt_code code;

    if ((code = pin_block(s, entry, number, out, err)) != CKPT_OK)
        return code;
    if (number == 0 && !entry->head_was_asked)
        ask_heads(s, entry);
    if (ask_ahead(s, entry, number + 1, size_max(last, number + ahead) + 1) ||
        (*out)->state == BLOCK_QUEUED)
        remote_network_wake(s);
    if ((code = await(s, entry, *out, err)) != CKPT_OK)
        unpin(s, *out);
    return code;
}

ckpt_code remote_session_read(remote_session *s, remote_entry *entry, const remote_range *range,
                              void *out, ckpt_error *err)
{
    unsigned char *to = out;
    remote_range at = *range;
    ckpt_code code = CKPT_OK;

    pthread_mutex_lock(&s->lock);
    while (at.size_bytes > 0) {
        const size_t inside = (size_t)(at.offset % REMOTE_BLOCK_BYTES);
        remote_block *block;
        size_t size;

        if ((code = take_block(s, entry, &at, &block, err)) != CKPT_OK)
            break;
        size = (size_t)size_min(at.size_bytes, block->size_bytes - inside);
        pthread_mutex_unlock(&s->lock);
        memcpy(to, block->bytes + inside, size);
        to += size;
        at.offset += size;
        at.size_bytes -= size;
        pthread_mutex_lock(&s->lock);
        block->read_bytes += size;
        unpin(s, block);
    }
    pthread_mutex_unlock(&s->lock);
    return code;
}

/* ---- finding ---- */

/* Try a file that no listing has: its head tells whether it exists, and its size. */
static ckpt_code try_entry(remote_session *s, remote_entry *entry, ckpt_error *err)
{
    remote_block *block;
    ckpt_code code;

    if (entry->is_known || entry->is_absent)
        return CKPT_OK;
    if ((code = pin_block(s, entry, 0, &block, err)) != CKPT_OK)
        return code;
    if (!entry->head_was_asked)
        ask_heads(s, entry);
    ask_ahead(s, entry, 1, REMOTE_HEAD_BLOCKS);
    remote_network_wake(s);
    code = await(s, entry, block, err);
    unpin(s, block);
    return code;
}

/*
 * Stores whose content may not be listed answer 403 for names that do not exist, others only for
 * files that may not be read. A name that nobody has shows which of them this is. Called with the
 * lock held.
 */
static ckpt_code settle_refusal(remote_session *s, const remote_entry *entry, ckpt_error *err)
{
    static const char nowhere[] = "ckpt-no-file-has-this-name";
    remote_entry *other;
    ckpt_code code;

    if (entry->refusal == NULL || s->hides_absent)
        return CKPT_OK;
    if ((code = get_entry(s, nowhere, &other, err)) != CKPT_OK ||
        (code = try_entry(s, other, err)) != CKPT_OK)
        return code;
    if (other->refusal == NULL)
        return report(entry->refusal, err);
    s->hides_absent = 1;
    return CKPT_OK;
}

ckpt_code remote_session_find(remote_session *s, const char *path, remote_entry **out,
                              ckpt_error *err)
{
    ckpt_code code;

    pthread_mutex_lock(&s->lock);
    if ((code = get_entry(s, path, out, err)) == CKPT_OK && *out != NULL &&
        (code = try_entry(s, *out, err)) == CKPT_OK && (*out)->is_absent) {
        code = settle_refusal(s, *out, err);
        *out = NULL;
    }
    pthread_mutex_unlock(&s->lock);
    return code;
}

ckpt_code remote_session_fail_absent(const remote_session *s, const char *path, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_IO, "'%s/%s' does not exist%s", s->root, path,
                     s->hides_absent ? ", or may not be read: its server answers 403 in both cases"
                     : s->is_plain   ? ": its server has no such file"
                                     : "");
}

ckpt_code remote_session_expect(remote_session *s, const char *path, ckpt_error *err)
{
    remote_entry *entry;
    ckpt_code code;

    pthread_mutex_lock(&s->lock);
    if ((code = get_entry(s, path, &entry, err)) == CKPT_OK && !entry->is_known) {
        ask_ahead(s, entry, 0, REMOTE_HEAD_BLOCKS);
        remote_network_wake(s);
    }
    pthread_mutex_unlock(&s->lock);
    return code;
}

/* ---- the end ---- */

void remote_session_hold(remote_session *s)
{
    pthread_mutex_lock(&s->lock);
    s->reference_count++;
    pthread_mutex_unlock(&s->lock);
}

void remote_session_drop(remote_session *s)
{
    int is_last;

    pthread_mutex_lock(&s->lock);
    is_last = --s->reference_count == 0;
    s->is_closing = is_last;
    pthread_mutex_unlock(&s->lock);
    if (!is_last)
        return;
    if (s->is_started) {
        remote_network_wake(s);
        pthread_join(s->thread, NULL);
    }
    remote_network_close(s);
    hub_close(s->h);
    hub_listing_release(&s->listing);
    remote_cache_close(&s->cache);
    for (size_t i = 0; i < s->entry_count; i++)
        free_entry(s->entries[i]);
    free(s->entries);
    for (size_t i = 0; i < sizeof s->texts / sizeof *s->texts; i++)
        free(s->texts[i]);
    free(s->root);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
