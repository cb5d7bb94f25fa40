/* Growing arrays. The capacity is FIRST_CAPACITY, and is doubled when the array is full. */
#include "array.h"

#include <assert.h>
#include <stdlib.h>

#include "memory.h"
#include "size.h"

enum { FIRST_CAPACITY = 64 };

/* The array is full if its count is one of the capacities. An array that had more items before may
 * be larger than that: then realloc makes it smaller, to twice the count. */
static int is_full(size_t count)
{
    return count >= FIRST_CAPACITY && (count & (count - 1)) == 0;
}

static int needs_room(const void *items, size_t count)
{
    return items == NULL || is_full(count);
}

void *array_room(void *items, size_t count, size_t item_bytes, const char *what, ckpt_error *err)
{
    uint64_t capacity = FIRST_CAPACITY;
    uint64_t bytes;
    void *grown = NULL;

    assert(items != NULL || count == 0);
    if (!needs_room(items, count))
        return items;
    if ((items != NULL && !size_mul(count, 2, &capacity)) ||
        !size_mul(capacity, item_bytes, &bytes))
        bytes = UINT64_MAX;
    else
        grown = realloc(items, bytes);
    if (grown == NULL)
        ckpt_fail_memory(err, what, bytes);
    return grown;
}

uint64_t array_bytes(size_t count, size_t item_bytes)
{
    uint64_t capacity = FIRST_CAPACITY;

    while (capacity < count)
        capacity *= 2;
    return count == 0 ? 0 : capacity * item_bytes;
}

void *array_room_counted(void *items, size_t count, size_t item_bytes, const char *what,
                         ckpt_error *err)
{
    const uint64_t held = array_bytes(count, item_bytes);
    uint64_t more = held;          /* doubled */
    void *grown;

    if (!needs_room(items, count))
        return items;
    if (items == NULL)
        more = array_bytes(1, item_bytes);
    if (!memory_take(more)) {
        ckpt_fail_memory(err, what, more);
        return NULL;
    }
    if ((grown = array_room(items, count, item_bytes, what, err)) == NULL)
        memory_give(more);
    return grown;
}

void array_free_counted(void *items, size_t count, size_t item_bytes)
{
    if (items == NULL)
        return;
    memory_give(array_bytes(count == 0 ? 1 : count, item_bytes));
    free(items);
}
