/*
 * memory.h: counts the memory whose size depends on input, and enforces the limit on it.
 *
 * Input determines the size of texts, JSON, catalogs and layouts. Code that allocates such memory
 * asks here first, so that a hostile header is refused before it exhausts memory. There is one
 * limit for the process. Buffers for tiles are not counted: copy.c plans them within the same
 * limit.
 */
#ifndef CKPT_MEMORY_H
#define CKPT_MEMORY_H

#include "ckpt.h"

/* The least limit: ckpt_set_memory_limit (ckpt.h) raises smaller ones to this, because every input
 * needs that much. */
enum { MEMORY_FLOOR_BYTES = 16 << 20 };

/*
 * Call memory_take before allocating `bytes`, and memory_give after freeing them. 0: that would
 * exceed the limit; nothing was counted, and the next ckpt_fail_memory of this thread reports it.
 */
int memory_take(uint64_t bytes);
void memory_give(uint64_t bytes);
/* 1 if `bytes` more would be within the limit. For short-lived memory that is not counted. */
int memory_has(uint64_t bytes);

/* Return this thread's last refusal and forget it; 0 when there is none. */
typedef struct {
    uint64_t limit_bytes;
    uint64_t held_bytes;
    uint64_t wanted_bytes;
} memory_refusal;
int memory_take_refusal(memory_refusal *out);

#endif
