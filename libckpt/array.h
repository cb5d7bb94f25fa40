/* array.h: arrays that grow an item at a time. Their capacity follows from their count. */
#ifndef CKPT_ARRAY_H
#define CKPT_ARRAY_H

#include <stddef.h>

#include "error.h"

/*
 * `items` with room for one more behind `count`, to be kept in place of `items`: NULL before the
 * first, malloc'd, grown by this function alone. The count may fall in between, but without items
 * it is 0. NULL with *err (CKPT_E_MEMORY) when there is no memory; `items` is then as it was.
 */
void *array_room(void *items, size_t count, size_t item_bytes, const char *what, ckpt_error *err);

/*
 * The same for arrays that input makes large: memory.h counts them, or refuses. Their count never
 * falls, and they are freed with array_free_counted (NULL is fine), which has the same count.
 */
void *array_room_counted(void *items, size_t count, size_t item_bytes, const char *what,
                         ckpt_error *err);
void array_free_counted(void *items, size_t count, size_t item_bytes);

/* Bytes that such an array holds once it has grown to `count` items. */
uint64_t array_bytes(size_t count, size_t item_bytes);

#endif
