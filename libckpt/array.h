/* array.h: arrays that grow by one item. The capacity is not stored: it follows from the count. */
#ifndef CKPT_ARRAY_H
#define CKPT_ARRAY_H

#include <stddef.h>

#include "error.h"

/*
 * Make room for one more item after `count` and return the array, which replaces `items` (NULL for
 * an empty array). The array is malloc'd and must grow by this function alone. `count` may become
 * smaller between calls, but must be 0 while items is NULL. When there is no memory: NULL, *err
 * (CKPT_E_MEMORY), and `items` is unchanged.
 */
void *array_room(void *items, size_t count, size_t item_bytes, const char *what, ckpt_error *err);

/*
 * The same for arrays whose size depends on input: memory.h counts them and may refuse. Their count
 * must never become smaller. Free them with array_free_counted and the same count (NULL is fine).
 */
void *array_room_counted(void *items, size_t count, size_t item_bytes, const char *what,
                         ckpt_error *err);
void array_free_counted(void *items, size_t count, size_t item_bytes);

/* Bytes that memory.h counts for such an array of `count` items. */
uint64_t array_bytes(size_t count, size_t item_bytes);

#endif
