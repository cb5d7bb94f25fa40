/*
 * Growing arrays. The capacity is FIRST_CAPACITY, and is raised in four equal steps to twice that,
 * then in four steps to four times, and so on: catalogs of large models have tens of thousands of
 * tensors, and doubling would leave up to half of their memory unused.
 */
#include "array.h"

#include <assert.h>
#include <stdlib.h>

#include "memory.h"
#include "size.h"

enum { FIRST_CAPACITY = 64, STEPS = 4 };

/* How far capacities are apart from `count` on, which is at least FIRST_CAPACITY. */
static uint64_t step_at(uint64_t count)
{
    return (UINT64_C(1) << (63 - __builtin_clzll(count))) / STEPS;
}

/* The smallest capacity that holds `count` items; 0: it is too large for a number. */
static uint64_t capacity_for(uint64_t count)
{
    const uint64_t step = count <= FIRST_CAPACITY ? FIRST_CAPACITY : step_at(count);

    return count == 0 ? FIRST_CAPACITY : size_div_up(count, step) * step;
}

/* The array is full if its count is one of the capacities. An array that had more items before may
 * be larger than that: then realloc makes it smaller, to the next capacity. */
static int needs_room(const void *items, size_t count)
{
    return items == NULL || (count > 0 && count == capacity_for(count));
}

void *array_room(void *items, size_t count, size_t item_bytes, const char *what, ckpt_error *err)
{
    const uint64_t capacity = capacity_for((uint64_t)count + 1);
    uint64_t bytes;
    void *grown = NULL;

    assert(items != NULL || count == 0);
    if (!needs_room(items, count))
        return items;
    if (capacity == 0 || !size_mul(capacity, item_bytes, &bytes))
        bytes = UINT64_MAX;
    else
        grown = realloc(items, bytes);
    if (grown == NULL)
        ckpt_fail_memory(err, what, bytes);
    return grown;
}

uint64_t array_bytes(size_t count, size_t item_bytes)
{
    return count == 0 ? 0 : capacity_for(count) * item_bytes;
}

void *array_room_counted(void *items, size_t count, size_t item_bytes, const char *what,
                         ckpt_error *err)
{
    uint64_t more;
    void *grown;

    if (!needs_room(items, count))
        return items;
    more = array_bytes(count + 1, item_bytes) - array_bytes(count, item_bytes);
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
