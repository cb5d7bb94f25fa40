/* json_equal.c: compares two JSON values. */
#include "json.h"

#include <string.h>

#include "table.h"

/* Objects with fewer members than this are searched linearly; larger ones get a hash table. */
enum { JSON_TABLE_FROM = 12 };

/* A pair of containers being compared. */
typedef struct {
    const json_value *a_next;
    const json_value *b_next;        /* the partner if both have the same order */
    const json_value *b;
    size_t count;
    int has_table;
    table members;                   /* of b, by key; values are pointers */
} equal_level;

typedef struct {
    unsigned depth;
    equal_level levels[JSON_DEPTH_MAX + 1];
} equal_walk;

/* Build the table of b's members. Without memory, linear search is used instead. */
static void index_members(equal_level *level)
{
    table_init(&level->members);
    level->has_table = 1;
    for (const json_value *v = json_first(level->b); v != NULL; v = json_next(v)) {
        if (table_add(&level->members, json_key(v), (uint64_t)(uintptr_t)v) != TABLE_ADDED) {
            table_release(&level->members);
            level->has_table = 0;
            return;
        }
    }
}

/* The member of level->b called `key`, NULL when there is none. */
static const json_value *find_partner(equal_level *level, const char *key)
{
    uint64_t found;

    if (level->b_next != NULL && strcmp(json_key(level->b_next), key) == 0)
        return level->b_next;
    if (level->count >= JSON_TABLE_FROM && !level->has_table)
        index_members(level);
    if (!level->has_table)
        return json_member(level->b, key);
    if (!table_find(&level->members, key, &found))
        return NULL;
    return (const json_value *)(uintptr_t)found;
}

static int equal_scalars(const json_value *a, const json_value *b)
{
    double number_a;
    double number_b;
    int flag_a;
    int flag_b;

    if (json_string(a) != NULL)
        return json_string(b) != NULL && strcmp(json_string(a), json_string(b)) == 0;
    if (json_number(a, &number_a))
        return json_number(b, &number_b) && !(number_a < number_b) && !(number_a > number_b);
    if (json_bool(a, &flag_a))
        return json_bool(b, &flag_b) && flag_a == flag_b;
    return json_is_null(a) && json_is_null(b);
}

/* Compare one pair; containers of the same kind and size are pushed, to be compared later. */
static int equal_pair(equal_walk *walk, const json_value *a, const json_value *b)
{
    equal_level *level;

    if (!json_is_object(a) && !json_is_array(a))
        return equal_scalars(a, b);
    if (json_is_object(a) != json_is_object(b) || json_is_array(a) != json_is_array(b))
        return 0;
    if (json_count(a) != json_count(b))
        return 0;
    level = &walk->levels[walk->depth++];
    level->a_next = json_first(a);
    level->b_next = json_first(b);
    level->b = b;
    level->count = json_count(b);
    level->has_table = 0;
    return 1;
}

static void pop(equal_walk *walk)
{
    equal_level *level = &walk->levels[--walk->depth];

    if (level->has_table)
        table_release(&level->members);
}

int json_equal(const json_value *a, const json_value *b)
{
    equal_walk walk;
    int equal;

    walk.depth = 0;
    equal = equal_pair(&walk, a, b);
    while (equal && walk.depth > 0) {
        equal_level *level = &walk.levels[walk.depth - 1];
        const json_value *child = level->a_next;
        const json_value *partner = level->b_next;

        if (child == NULL) {
            pop(&walk);
            continue;
        }
        if (json_is_object(level->b))
            partner = find_partner(level, json_key(child));
        level->a_next = json_next(child);
        if (partner != NULL)
            level->b_next = json_next(partner);
        equal = partner != NULL && equal_pair(&walk, child, partner);
    }
    while (walk.depth > 0)
        pop(&walk);
    return equal;
}
