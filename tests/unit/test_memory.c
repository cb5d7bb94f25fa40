/* test_memory.c: the limit on what is read, and that all that grows with input asks it. */
#include "libckpt/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libckpt/array.h"
#include "libckpt/catalog.h"
#include "libckpt/json.h"

static const uint64_t LIMIT = 2 * (uint64_t)MEMORY_FLOOR_BYTES;

static ckpt_error err;

static int limit(void **state)
{
    (void)state;
    ckpt_set_memory_limit(LIMIT);
    return 0;
}

static int no_limit(void **state)
{
    (void)state;
    ckpt_set_memory_limit(0);
    return 0;
}

/* What was taken was given back: the whole limit can be had. */
static void assert_nothing_is_held(void)
{
    assert_true(memory_has(LIMIT));
}

static void test_what_is_over_the_limit_is_refused_and_what_is_needed_told(void **state)
{
    (void)state;
    assert_true(memory_take(1000));
    assert_true(memory_take(LIMIT - 1000));
    assert_false(memory_take(1));
    assert_int_equal(ckpt_fail_memory(&err, "x", 1), CKPT_E_MEMORY);
    assert_string_equal(err.text, "the memory limit of 33554432 bytes is too small for 'x': at "
                                  "least 33554433 bytes are needed (--memory)");
    ckpt_fail_memory(&err, "x", 1);               /* once: this one is of another cause */
    assert_string_equal(err.text, "out of memory for x: 1 bytes");
    memory_give(LIMIT);
    assert_false(memory_take(UINT64_MAX));
    assert_nothing_is_held();
}

static void test_a_small_limit_leaves_room_for_what_every_input_takes(void **state)
{
    (void)state;
    ckpt_set_memory_limit(1);
    assert_true(memory_has(MEMORY_FLOOR_BYTES));
    assert_false(memory_has(MEMORY_FLOOR_BYTES + 1));
}

static void test_without_a_limit_nothing_is_refused(void **state)
{
    (void)state;
    ckpt_set_memory_limit(0);
    assert_true(memory_has(UINT64_MAX / 2));
}

/* A million values of two bytes each would be a tree of 40 MB. */
static void test_a_tree_that_does_not_fit_is_refused_before_it_is_built(void **state)
{
    enum { COUNT = 1000000 };
    const size_t size = 2 * COUNT + 1;
    char *text = malloc(size);
    json_document *document;

    (void)state;
    for (size_t i = 0; i < COUNT; i++)
        memcpy(text + 2 * i, i == 0 ? "[1" : ",1", 2);
    text[size - 1] = ']';
    assert_int_equal(json_parse(text, size, "many.json", &document, &err), CKPT_E_MEMORY);
    assert_non_null(strstr(err.text, "too small for 'many.json'"));
    ckpt_set_memory_limit(64 << 20);
    assert_int_equal(json_parse(text, size, "many.json", &document, &err), CKPT_OK);
    assert_false(memory_has(40 << 20));
    json_free(document);
    assert_true(memory_has(64 << 20));
    free(text);
}

/* Keys are remembered to find those that occur twice: that counts, too. */
static void test_an_object_of_too_many_keys_is_refused(void **state)
{
    enum { COUNT = 1500000, ENTRY_BYTES = 12 };
    char *text = malloc((size_t)COUNT * ENTRY_BYTES + 2);
    json_document *document;
    size_t used = 1;

    (void)state;
    text[0] = '{';
    for (size_t i = 0; i < COUNT; i++)
        used += (size_t)snprintf(text + used, ENTRY_BYTES + 1, "%s\"%06zx\":0", i > 0 ? "," : "",
                                 i);
    text[used++] = '}';
    assert_int_equal(json_parse(text, used, "keys.json", &document, &err), CKPT_E_MEMORY);
    assert_nothing_is_held();
    free(text);
}

static void test_arrays_arenas_and_tables_count_and_give_back(void **state)
{
    arena a;
    table t;
    uint32_t *items = NULL;
    size_t count = 0;

    (void)state;
    arena_init(&a);
    while (arena_alloc(&a, 100000) != NULL)
        count++;
    assert_in_range(count, LIMIT / 100000 / 2, LIMIT / 100000);
    arena_release(&a);
    assert_nothing_is_held();
    for (count = 0;; count++) {
        uint32_t *grown = array_room_counted(items, count, sizeof *items, "items", &err);

        if (grown == NULL)
            break;
        items = grown;
        items[count] = 0;
    }
    assert_int_equal(err.code, CKPT_E_MEMORY);
    assert_in_range(count * sizeof *items, LIMIT / 4, LIMIT);
    array_free_counted(items, count, sizeof *items);
    assert_nothing_is_held();
    table_init(&t);
    items = calloc(1 << 21, sizeof *items);
    for (count = 0; count < 1 << 19; count++) {
        char *key = (char *)(items + 4 * count);

        snprintf(key, 4 * sizeof *items, "%zx", count);
        if (table_add(&t, key, 0) != TABLE_ADDED)
            break;
    }
    assert_in_range(count, 1000, (1 << 19) - 1);
    assert_true(table_bytes(&t) <= LIMIT);
    table_release(&t);
    free(items);
    assert_nothing_is_held();
}

static void test_a_catalog_gives_back_what_it_took(void **state)
{
    ckpt_catalog *catalog = catalog_create();

    (void)state;
    for (size_t i = 0; i < 10000; i++) {
        char name[32];
        ckpt_tensor t = { .name = name, .dtype = CKPT_F32, .rank = 1, .shape = { 1 } };

        snprintf(name, sizeof name, "tensor-%zu", i);
        assert_int_equal(catalog_add(catalog, &t, &err), CKPT_OK);
    }
    assert_false(memory_has(LIMIT - catalog_bytes(catalog) + 1));
    assert_true(memory_has(LIMIT - catalog_bytes(catalog)));
    catalog_free(catalog);
    assert_nothing_is_held();
}

#define LIMIT_TEST(f) cmocka_unit_test_setup_teardown(f, limit, no_limit)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIMIT_TEST(test_what_is_over_the_limit_is_refused_and_what_is_needed_told),
        LIMIT_TEST(test_a_small_limit_leaves_room_for_what_every_input_takes),
        LIMIT_TEST(test_without_a_limit_nothing_is_refused),
        LIMIT_TEST(test_a_tree_that_does_not_fit_is_refused_before_it_is_built),
        LIMIT_TEST(test_an_object_of_too_many_keys_is_refused),
        LIMIT_TEST(test_arrays_arenas_and_tables_count_and_give_back),
        LIMIT_TEST(test_a_catalog_gives_back_what_it_took),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
