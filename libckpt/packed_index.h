/* packed_index.h: the index of a packed checkpoint, and its chunks, decoded on demand; for
 * packed*.c. Shared by folders and files. */
#ifndef CKPT_PACKED_INDEX_H
#define CKPT_PACKED_INDEX_H

#include "json.h"
#include "packed.h"

typedef struct {
    const char *name;               /* in the document */
    uint64_t bytes;
    uint64_t first_chunk;
    uint64_t chunk_count;
} packed_entry;

typedef struct packed_cache packed_cache;

typedef struct {
    ckpt_file *file;
    json_document *document;
    const char *root;               /* in the document: 64 hex digits; or NULL */
    hash128 hash;                   /* of the index frame, which has the hashes of all chunks */
    packed_entry *entries;          /* sorted by name */
    size_t entry_count;
    packed_chunk *chunks;
    uint64_t *offsets;              /* of their frames */
    uint64_t *positions;            /* of their bytes in their files */
    uint64_t chunk_count;
    uint32_t chunk_bytes;           /* of the largest */
    uint64_t held_bytes;            /* as counted by memory.h */
    packed_cache *cache;
    unsigned references;            /* atomic */
} packed_index;

/* Open the file and check its index. *out has one reference. */
ckpt_code packed_index_open(const char *path, packed_index **out, ckpt_error *err);
packed_index *packed_index_share(packed_index *index);
void packed_index_release(packed_index *index);         /* NULL is fine */

/* The number of the first entry whose name is not below `name`. */
size_t packed_index_place(const packed_index *index, const char *name);
/* The entry of that name; NULL: there is none. */
const packed_entry *packed_index_find(const packed_index *index, const char *name);

/* Copy bytes of a file: those from `position` on. Thread-safe. */
ckpt_code packed_index_read(packed_index *index, const packed_entry *entry, uint64_t position,
                            void *out, size_t size, ckpt_error *err);

/* ---- packed_cache.c ---- */

ckpt_code packed_cache_create(const packed_index *index, packed_cache **out, ckpt_error *err);
void packed_cache_free(packed_cache *cache);            /* NULL is fine */
uint64_t packed_cache_bytes(const packed_cache *cache);
/* Copy `size` bytes of a chunk from `begin` on, which must be in it. Thread-safe. */
ckpt_code packed_cache_copy(packed_cache *cache, uint64_t chunk, size_t begin, void *out,
                            size_t size, ckpt_error *err);

#endif
