/*
 * Chunks of a packed checkpoint, decoded. Several threads read tiles whose ends are inside of
 * chunks: the last chunks are kept, so that each is decoded about once.
 */
#include "packed_index.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "zblock.h"

enum { SLOTS_MAX = 32, MEMORY_SHARE = 8 };

static const uint64_t no_chunk = UINT64_MAX;

typedef struct {
    uint64_t chunk;
    uint64_t used_at;
    unsigned readers;
    int is_loading;
    zblock_unpacker *unpacker;
    char *bytes;
    char *packed;
    char *planes;
} cache_slot;

struct packed_cache {
    const packed_index *index;
    pthread_mutex_t lock;
    pthread_cond_t changed;         /* a slot was loaded or let go */
    uint64_t clock;
    uint64_t held_bytes;
    size_t slot_count;
    cache_slot slots[SLOTS_MAX];
};

/* ---- memory ---- */

static uint64_t slot_bytes(const packed_index *index)
{
    enum { ZSTD_BYTES = 200 << 10 };        /* a decoder without a window of its own */

    return 2 * (uint64_t)index->chunk_bytes + zblock_bound(index->chunk_bytes) + ZSTD_BYTES;
}

static int make_slot(const packed_index *index, cache_slot *s)
{
    *s = (cache_slot){ .chunk = no_chunk, .unpacker = zblock_unpacker_create(),
                       .bytes = malloc(index->chunk_bytes + 1),
                       .packed = malloc(zblock_bound(index->chunk_bytes)),
                       .planes = malloc(index->chunk_bytes + 1) };
    return s->unpacker != NULL && s->bytes != NULL && s->packed != NULL && s->planes != NULL;
}

static void free_slot(cache_slot *s)
{
    zblock_unpacker_free(s->unpacker);
    free(s->bytes);
    free(s->packed);
    free(s->planes);
}

/* One slot is needed; more are taken while they leave most of the memory to others. */
ckpt_code packed_cache_create(const packed_index *index, packed_cache **out, ckpt_error *err)
{
    const uint64_t bytes = slot_bytes(index);
    packed_cache *c = calloc(1, sizeof *c);

    if (c == NULL)
        return ckpt_fail_memory(err, "a cache", sizeof *c);
    c->index = index;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    while (c->slot_count < SLOTS_MAX &&
           (c->slot_count == 0 || memory_has(MEMORY_SHARE * (c->slot_count + 1) * bytes))) {
        if (!memory_take(bytes))
            break;
        c->held_bytes += bytes;
        if (!make_slot(index, &c->slots[c->slot_count++])) {
            packed_cache_free(c);
            return ckpt_fail_memory(err, "a cache", bytes);
        }
    }
    if (c->slot_count == 0) {
        packed_cache_free(c);
        return ckpt_fail_memory(err, file_path(index->file), bytes);
    }
    *out = c;
    return CKPT_OK;
}

void packed_cache_free(packed_cache *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->slot_count; i++)
        free_slot(&c->slots[i]);
    memory_give(c->held_bytes);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

uint64_t packed_cache_bytes(const packed_cache *c)
{
    return c->held_bytes;
}

/* ---- chunks ---- */

static ckpt_code fail_chunk(const packed_index *index, uint64_t chunk, const char *why,
                            ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is damaged: the frame at byte %" PRIu64 " %s",
                     file_path(index->file), index->offsets[chunk], why);
}

static ckpt_code load(const packed_index *index, cache_slot *s, uint64_t chunk, ckpt_error *err)
{
    const packed_chunk *c = &index->chunks[chunk];
    char *to = c->kind == PLANES_NONE ? s->bytes : s->planes;
    hash128 hash;
    ckpt_code code = file_read_at(index->file, index->offsets[chunk], s->packed, c->packed_bytes,
                                  err);

    if (code != CKPT_OK)
        return code;
    if (!zblock_unpack(s->unpacker, s->packed, c->packed_bytes, to, c->bytes))
        return fail_chunk(index, chunk, "is not one zstd frame of its size", err);
    if (c->kind != PLANES_NONE)
        planes_join(c->kind, s->planes, s->bytes, c->bytes);
    hash = kernels_get()->hash_bytes(s->bytes, c->bytes, 0);
    if (hash.low64 != c->hash.low64 || hash.high64 != c->hash.high64)
        return fail_chunk(index, chunk, "has other bytes than its hash says", err);
    return CKPT_OK;
}

/* The slot that has the chunk, or else the free one that was not used for longest; NULL: all are
 * in use. Called with the lock held. */
static cache_slot *find_slot(packed_cache *c, uint64_t chunk)
{
    cache_slot *found = NULL;

    for (size_t i = 0; i < c->slot_count; i++) {
        cache_slot *s = &c->slots[i];

        if (s->chunk == chunk)
            return s;
        if (s->readers == 0 && (found == NULL || s->used_at < found->used_at))
            found = s;
    }
    return found;
}

/* A slot with the chunk, with one reader more. */
static ckpt_code take_slot(packed_cache *c, uint64_t chunk, cache_slot **out, ckpt_error *err)
{
    cache_slot *s;
    ckpt_code code = CKPT_OK;

    pthread_mutex_lock(&c->lock);
    while ((s = find_slot(c, chunk)) == NULL || (s->chunk == chunk && s->is_loading))
        pthread_cond_wait(&c->changed, &c->lock);
    s->readers++;
    s->used_at = ++c->clock;
    if (s->chunk != chunk) {
        s->chunk = chunk;
        s->is_loading = 1;
        pthread_mutex_unlock(&c->lock);
        code = load(c->index, s, chunk, err);
        pthread_mutex_lock(&c->lock);
        s->is_loading = 0;
        if (code != CKPT_OK) {
            s->chunk = no_chunk;
            s->readers--;
        }
        pthread_cond_broadcast(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
    *out = s;
    return code;
}

ckpt_code packed_cache_copy(packed_cache *c, uint64_t chunk, size_t begin, void *out, size_t size,
                            ckpt_error *err)
{
    cache_slot *s;
    const ckpt_code code = take_slot(c, chunk, &s, err);

    if (code != CKPT_OK)
        return code;
    memcpy(out, s->bytes + begin, size);
    pthread_mutex_lock(&c->lock);
    s->readers--;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    return CKPT_OK;
}
