/* table.c: open addressing with linear probing, at most two thirds full. */
#include "table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "memory.h"
#include "mix.h"

struct table_slot {
    const char *key;         /* NULL: free */
    uint64_t hash;           /* stored, so that growing and probing rarely read keys */
    uint64_t value;
};

static const size_t TABLE_SLOTS_MIN = 16;

/* Hash eight bytes per step. Without knowing the seed, nobody can choose keys that collide. */
static uint64_t hash_key(const char *key, uint64_t seed)
{
    const uint64_t k0 = UINT64_C(0x9e3779b97f4a7c15);
    const uint64_t k1 = UINT64_C(0xd6e8feb86659fd93);
    const size_t length = strlen(key);
    uint64_t hash = seed ^ k0;
    uint64_t word;
    size_t i;

    for (i = 0; i + sizeof word <= length; i += sizeof word) {
        memcpy(&word, key + i, sizeof word);
        hash = mix_words(hash ^ word, seed ^ k1);
    }
    word = 0;
    memcpy(&word, key + i, length - i);
    hash = mix_words(hash ^ word, seed ^ k1);
    return mix_words(hash ^ (uint64_t)length, k0);
}

/* The slot of `key`, or the free slot for it. */
static struct table_slot *probe(const table *t, const char *key, uint64_t hash)
{
    const size_t mask = t->slot_count - 1;
    size_t i = (size_t)hash & mask;

    while (t->slots[i].key != NULL) {
        if (t->slots[i].hash == hash && strcmp(t->slots[i].key, key) == 0)
            break;
        i = (i + 1) & mask;
    }
    return &t->slots[i];
}

static int grow(table *t)
{
    const size_t slot_count = t->slot_count == 0 ? TABLE_SLOTS_MIN : t->slot_count * 2;
    struct table_slot *slots;

    if (slot_count < t->slot_count || !memory_take(slot_count * sizeof *slots))
        return 0;
    slots = calloc(slot_count, sizeof *slots);
    if (slots == NULL) {
        memory_give(slot_count * sizeof *slots);
        return 0;
    }
    for (size_t i = 0; i < t->slot_count; i++) {
        size_t at = (size_t)t->slots[i].hash & (slot_count - 1);

        if (t->slots[i].key == NULL)
            continue;
        while (slots[at].key != NULL)
            at = (at + 1) & (slot_count - 1);
        slots[at] = t->slots[i];
    }
    memory_give(t->slot_count * sizeof *slots);
    free(t->slots);
    t->slots = slots;
    t->slot_count = slot_count;
    return 1;
}

void table_init(table *t)
{
    memset(t, 0, sizeof *t);
    if (getrandom(&t->seed, sizeof t->seed, GRND_NONBLOCK) != (ssize_t)sizeof t->seed) {
        struct timespec now = { 0 };    /* no randomness early in a boot: use the time */

        clock_gettime(CLOCK_MONOTONIC, &now);
        t->seed = mix_words((uint64_t)now.tv_nsec ^ (uint64_t)(uintptr_t)t,
                                UINT64_C(0x9e3779b97f4a7c15));
    }
}

uint64_t table_bytes(const table *t)
{
    return t->slot_count * sizeof *t->slots;
}

void table_release(table *t)
{
    memory_give(table_bytes(t));
    free(t->slots);
    t->slots = NULL;
    t->slot_count = 0;
    t->count = 0;
}

int table_add(table *t, const char *key, uint64_t value)
{
    const uint64_t hash = hash_key(key, t->seed);
    struct table_slot *slot;

    if (t->count >= t->slot_count / 3 * 2 && !grow(t))
        return TABLE_NO_MEMORY;
    slot = probe(t, key, hash);
    if (slot->key != NULL)
        return TABLE_PRESENT;
    slot->key = key;
    slot->hash = hash;
    slot->value = value;
    t->count++;
    return TABLE_ADDED;
}

int table_find(const table *t, const char *key, uint64_t *value)
{
    const struct table_slot *slot;

    if (t->count == 0)
        return 0;
    slot = probe(t, key, hash_key(key, t->seed));
    if (slot->key == NULL)
        return 0;
    *value = slot->value;
    return 1;
}

void table_keys(const table *t, const char **out)
{
    for (size_t i = 0; i < t->slot_count; i++)
        if (t->slots[i].key != NULL)
            *out++ = t->slots[i].key;
}
