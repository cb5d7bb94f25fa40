/* Arrays that grow: the capacity is FIRST_CAPACITY, doubled each time that it is full. */
#include "array.h"

#include <assert.h>
#include <stdlib.h>

#include "size.h"

enum { FIRST_CAPACITY = 64 };

/* No capacity is kept: a full array is one whose count is a capacity. One that was full with more
 * items, and lost some, is cut to twice what it has. */
static int is_full(size_t count)
{
    return count >= FIRST_CAPACITY && (count & (count - 1)) == 0;
}

void *array_room(void *items, size_t count, size_t item_bytes, const char *what, ckpt_error *err)
{
    uint64_t capacity = FIRST_CAPACITY;
    uint64_t bytes;
    void *grown = NULL;

    assert(items != NULL || count == 0);
    if (items != NULL && !is_full(count))
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
