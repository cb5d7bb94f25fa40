/*
 * memory.h: the limit on what a process holds of what it reads.
 *
 * Input decides how large texts, JSON, catalogs and layouts become. What grows with input asks here
 * before it grows, so that a hostile header is refused and not read. The limit is one for the
 * process, as its memory is. Tiles are not counted: copy.c plans them within the same limit.
 */
#ifndef CKPT_MEMORY_H
#define CKPT_MEMORY_H

#include "ckpt.h"

/* ckpt_set_memory_limit (ckpt.h) takes less than this for this: what every input takes is no reason
 * to refuse one. */
enum { MEMORY_FLOOR_BYTES = 16 << 20 };

/*
 * Ask for `bytes` more before allocating them; give them back when they are freed. 0: that is over
 * the limit, nothing was taken, and the next ckpt_fail_memory of this thread tells that limit.
 */
int memory_take(uint64_t bytes);
void memory_give(uint64_t bytes);
/* Would they fit? For what is freed before long. */
int memory_has(uint64_t bytes);

/* What this thread was refused last, once: 0 when there is nothing to tell. */
typedef struct {
    uint64_t limit_bytes;
    uint64_t held_bytes;
    uint64_t wanted_bytes;
} memory_refusal;
int memory_take_refusal(memory_refusal *out);

#endif
