/* table.h: a hash table from strings to numbers. Keys are borrowed and must outlive it. */
#ifndef CKPT_TABLE_H
#define CKPT_TABLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    struct table_slot *slots;
    size_t slot_count;       /* a power of two, or 0 */
    size_t count;
    uint64_t seed;           /* random, so that nobody can construct colliding names */
} table;

void table_init(table *t);
void table_release(table *t);
uint64_t table_bytes(const table *t);       /* memory that it uses, as counted by memory.h */
enum { TABLE_ADDED = 1, TABLE_PRESENT = 0, TABLE_NO_MEMORY = -1 };
/* Add key -> value unless the key is there already. */
int table_add(table *t, const char *key, uint64_t value);
/* Write all keys, in arbitrary order, to an array of t->count. */
void table_keys(const table *t, const char **out);
/* 1 and *value when found. */
int table_find(const table *t, const char *key, uint64_t *value);

#endif
