/*
 * arena.h: memory that is allocated in many pieces and freed all at once.
 *
 * A growing arena is for names and catalogs, and is counted by memory.h. A fixed arena is one block
 * that a tile loop resets before every tile; an allocation that does not fit fails, and never calls
 * malloc.
 */
#ifndef CKPT_ARENA_H
#define CKPT_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct arena_block arena_block;

typedef struct {
    arena_block *blocks;      /* newest first; growing arenas only */
    unsigned char *base;      /* block in use */
    size_t used_bytes;
    size_t size_bytes;
    size_t total_bytes;       /* all blocks */
    int fixed;
} arena;

void arena_init(arena *a);
/* A fixed arena of size_bytes; 0 when there is no memory. */
int arena_init_fixed(arena *a, size_t size_bytes);
/* A fixed arena in the caller's memory, aligned to 64 bytes. Do not release it. */
void arena_init_on(arena *a, void *memory, size_t size_bytes);
void arena_release(arena *a);

/* Aligned to 64 bytes if size >= 64, else to 8. NULL when there is no room. */
void *arena_alloc(arena *a, size_t size_bytes);
void *arena_calloc(arena *a, size_t count, size_t item_bytes);
char *arena_strdup(arena *a, const char *text, size_t length);

/* Bytes that an allocation takes at most, with padding. Add these up to size a fixed arena. */
uint64_t arena_cost(uint64_t size_bytes);

/* Fixed arenas: free everything allocated since the mark. */
static inline size_t arena_mark(const arena *a)
{
    return a->used_bytes;
}
static inline void arena_rewind(arena *a, size_t mark)
{
    a->used_bytes = mark;
}

#endif
