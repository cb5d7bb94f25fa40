/* arena.c: memory that is allocated in many pieces and freed all at once. */
#include "arena.h"

#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "size.h"

enum { ARENA_ALIGN = 64, ARENA_ALIGN_SMALL = 8 };

static const size_t ARENA_BLOCK_MIN = (size_t)1 << 20;
static const size_t ARENA_BLOCK_MAX = (size_t)8 << 20;    /* larger only for a larger request */

/* Occupies the first ARENA_ALIGN bytes of its block, so that the rest is aligned. */
struct arena_block {
    arena_block *next;
    size_t size_bytes;
};

_Static_assert(sizeof(struct arena_block) <= ARENA_ALIGN, "the header must fit before the data");

static size_t align_of(size_t size_bytes)
{
    return size_bytes >= ARENA_ALIGN ? ARENA_ALIGN : ARENA_ALIGN_SMALL;
}

/* Allocate size_bytes, rounded up to a multiple of the alignment; NULL when there is no memory. */
static unsigned char *block_alloc(size_t size_bytes, size_t *rounded_bytes)
{
    if (size_bytes > SIZE_MAX - ARENA_ALIGN)
        return NULL;
    if (size_bytes == 0)
        size_bytes = 1;
    *rounded_bytes = (size_bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    return aligned_alloc(ARENA_ALIGN, *rounded_bytes);
}

void arena_init(arena *a)
{
    memset(a, 0, sizeof *a);
}

int arena_init_fixed(arena *a, size_t size_bytes)
{
    size_t rounded_bytes;

    arena_init(a);
    a->fixed = 1;
    a->base = block_alloc(size_bytes, &rounded_bytes);
    if (a->base == NULL)
        return 0;
    a->size_bytes = size_bytes;     /* not rounded up, so that limits are exact */
    a->total_bytes = rounded_bytes;
    return 1;
}

void arena_init_on(arena *a, void *memory, size_t size_bytes)
{
    arena_init(a);
    a->fixed = 1;
    a->base = memory;
    a->size_bytes = size_bytes;
}

void arena_release(arena *a)
{
    if (a->fixed)
        free(a->base);
    while (a->blocks != NULL) {
        arena_block *next = a->blocks->next;

        memory_give(a->blocks->size_bytes);
        free(a->blocks);
        a->blocks = next;
    }
    arena_init(a);
}

/* A new block for at least `size_bytes`; the rest of the old one stays unused. Blocks grow with the
 * arena, by a quarter of it, so that little of a large one is unused at the end. */
static int grow(arena *a, size_t size_bytes)
{
    size_t wanted = (size_t)size_min(size_max(a->total_bytes / 4, ARENA_BLOCK_MIN),
                                     ARENA_BLOCK_MAX);
    size_t rounded_bytes;
    arena_block *block;

    if (size_bytes > SIZE_MAX - ARENA_ALIGN)
        return 0;
    size_bytes += ARENA_ALIGN;
    if (wanted < size_bytes)
        wanted = size_bytes;
    rounded_bytes = (wanted + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (!memory_take(rounded_bytes))
        return 0;
    block = (arena_block *)(void *)block_alloc(wanted, &rounded_bytes);
    if (block == NULL) {
        memory_give(rounded_bytes);
        return 0;
    }
    block->next = a->blocks;
    block->size_bytes = rounded_bytes;
    a->blocks = block;
    a->base = (unsigned char *)block + ARENA_ALIGN;
    a->size_bytes = rounded_bytes - ARENA_ALIGN;
    a->used_bytes = 0;
    a->total_bytes += rounded_bytes;
    return 1;
}

/* Compute the position of an allocation in the block in use; 0 when it does not fit. */
static int place(const arena *a, size_t size_bytes, size_t *start)
{
    const size_t align = align_of(size_bytes);

    if (a->base == NULL)
        return 0;
    *start = (a->used_bytes + align - 1) / align * align;
    return *start <= a->size_bytes && size_bytes <= a->size_bytes - *start;
}

void *arena_alloc(arena *a, size_t size_bytes)
{
    size_t start;

    if (!place(a, size_bytes, &start)) {
        if (a->fixed || !grow(a, size_bytes))
            return NULL;
        start = 0;
    }
    a->used_bytes = start + size_bytes;
    return a->base + start;
}

void *arena_calloc(arena *a, size_t count, size_t item_bytes)
{
    uint64_t size_bytes;
    void *memory;

    if (!size_mul(count, item_bytes, &size_bytes) || size_bytes > SIZE_MAX)
        return NULL;
    memory = arena_alloc(a, (size_t)size_bytes);
    if (memory != NULL)
        memset(memory, 0, (size_t)size_bytes);
    return memory;
}

char *arena_strdup(arena *a, const char *text, size_t length)
{
    char *copy;

    if (length == SIZE_MAX)
        return NULL;
    copy = arena_alloc(a, length + 1);
    if (copy == NULL)
        return NULL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

uint64_t arena_cost(uint64_t size_bytes)
{
    const uint64_t padding = (size_bytes >= ARENA_ALIGN ? ARENA_ALIGN : ARENA_ALIGN_SMALL) - 1;
    uint64_t cost;

    return size_add(size_bytes, padding, &cost) ? cost : UINT64_MAX;
}
