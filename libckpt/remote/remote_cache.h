/*
 * remote_cache.h: the blocks of files that are in memory. Which are replaced is decided here; the
 * session (remote_session.h) locks, loads and waits.
 */
#ifndef CKPT_REMOTE_CACHE_H
#define CKPT_REMOTE_CACHE_H

#include "libckpt/error.h"

enum { REMOTE_BLOCK_BYTES = 256 << 10 };

typedef enum {
    BLOCK_FREE,
    BLOCK_QUEUED,                /* to be loaded; its first filled_bytes are there */
    BLOCK_LOADING,               /* a request is running for it */
    BLOCK_READY
} remote_block_state;

typedef struct {
    const void *entry;           /* the file; NULL: free */
    uint64_t number;             /* of the block in the file */
    remote_block_state state;
    unsigned pin_count;          /* readers that wait for it or copy from it */
    uint64_t order;              /* queued: when it was asked for; else when it was last used */
    size_t size_bytes;
    size_t filled_bytes;
    uint64_t read_bytes;         /* by readers, in all; all of it: it is hardly needed again */
    unsigned char *bytes;
} remote_block;

typedef struct {
    remote_block *blocks;
    size_t count;
    unsigned char *memory;
    uint64_t memory_bytes;       /* counted by memory.h */
    uint64_t clock;
} remote_cache;

/* Of --memory, an eighth, but at most 128 MiB. */
ckpt_code remote_cache_open(remote_cache *cache, uint64_t limit_bytes, ckpt_error *err);
void remote_cache_close(remote_cache *cache);

/* NULL: it is not in memory. */
remote_block *remote_cache_find(const remote_cache *cache, const void *entry, uint64_t number);

/*
 * A block for that part of a file, queued. One that is asked for ahead of its reader takes the
 * place of none that is still to be read. NULL: there is no room now.
 */
typedef struct {
    const void *entry;
    uint64_t number;
    size_t size_bytes;
    int is_ahead;
} remote_wish;
remote_block *remote_cache_claim(remote_cache *cache, const remote_wish *wish);

void remote_cache_touch(remote_cache *cache, remote_block *block);
void remote_cache_free(remote_block *block);

#endif
