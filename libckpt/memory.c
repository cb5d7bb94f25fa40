/* memory.c: counts memory; thread-safe. */
#include "memory.h"

#include <stdatomic.h>
#include <string.h>

#include "size.h"

static _Atomic uint64_t limit_bytes;
static _Atomic uint64_t held_bytes;
static _Thread_local memory_refusal refusal;

void ckpt_set_memory_limit(uint64_t bytes)
{
    limit_bytes = bytes == 0 ? 0 : size_max(bytes, MEMORY_FLOOR_BYTES);
}

int memory_take(uint64_t bytes)
{
    const uint64_t limit = limit_bytes;
    uint64_t held = held_bytes;
    uint64_t sum;

    do {
        if (!size_add(held, bytes, &sum) || (limit != 0 && sum > limit)) {
            refusal = (memory_refusal){ limit, held, bytes };
            return 0;
        }
    } while (!atomic_compare_exchange_weak(&held_bytes, &held, sum));
    return 1;
}

void memory_give(uint64_t bytes)
{
    held_bytes -= bytes;
}

int memory_has(uint64_t bytes)
{
    if (!memory_take(bytes))
        return 0;
    memory_give(bytes);
    return 1;
}

int memory_take_refusal(memory_refusal *out)
{
    *out = refusal;
    memset(&refusal, 0, sizeof refusal);
    return out->limit_bytes != 0;
}
