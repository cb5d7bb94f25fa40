/* test_table.c: the hash table from strings to numbers. */
#include "libckpt/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { KEY_BYTES = 48 };

static char *numbered_keys(size_t count, const char *tail)
{
    char *keys = malloc(count * KEY_BYTES);

    assert_non_null(keys);
    for (size_t i = 0; i < count; i++)
        snprintf(keys + i * KEY_BYTES, KEY_BYTES, "layers.%zu%s", i, tail);
    return keys;
}

static void test_an_empty_table_finds_nothing(void **state)
{
    uint64_t value = 7;
    table t;

    (void)state;
    table_init(&t);
    assert_int_equal(table_find(&t, "", &value), 0);
    assert_int_equal(table_find(&t, "x", &value), 0);
    assert_int_equal(value, 7);
    table_release(&t);
}

static void test_a_key_is_added_once_and_keeps_its_first_value(void **state)
{
    uint64_t value = 0;
    table t;

    (void)state;
    table_init(&t);
    assert_int_equal(table_add(&t, "x", UINT64_MAX), TABLE_ADDED);
    assert_int_equal(table_add(&t, "x", 2), TABLE_PRESENT);
    assert_int_equal(t.count, 1);
    assert_int_equal(table_find(&t, "x", &value), 1);
    assert_true(value == UINT64_MAX);
    table_release(&t);
}

static void test_keys_are_compared_by_text_not_by_address(void **state)
{
    char first[] = "layers.0.norm";
    char second[] = "layers.0.norm";
    uint64_t value = 0;
    table t;

    (void)state;
    table_init(&t);
    assert_int_equal(table_add(&t, first, 5), TABLE_ADDED);
    assert_int_equal(table_find(&t, second, &value), 1);
    assert_int_equal(value, 5);
    table_release(&t);
}

static void test_the_empty_key_and_every_short_length_are_keys(void **state)
{
    static const char text[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const size_t length = sizeof text - 1;
    uint64_t value;
    table t;

    (void)state;
    table_init(&t);
    for (size_t i = 0; i <= length; i++)        /* text + i: one letter shorter each time */
        assert_int_equal(table_add(&t, text + i, i), TABLE_ADDED);
    for (size_t i = 0; i <= length; i++) {
        assert_int_equal(table_find(&t, text + i, &value), 1);
        assert_int_equal(value, i);
    }
    table_release(&t);
}

/* So many keys that slots collide at every fill, through many sizes of the table. */
static void test_150000_keys_are_all_found_and_no_other(void **state)
{
    enum { COUNT = 150000 };
    char *keys = numbered_keys(COUNT, ".ffn.experts.w1.weight");
    char *others = numbered_keys(COUNT, ".ffn.experts.w1.weighs");
    uint64_t value;
    table t;

    (void)state;
    table_init(&t);
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(table_add(&t, keys + i * KEY_BYTES, i), TABLE_ADDED);
    assert_int_equal(t.count, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        if (!table_find(&t, keys + i * KEY_BYTES, &value) || value != i)
            fail_msg("key %zu is lost", i);
        if (table_find(&t, others + i * KEY_BYTES, &value))
            fail_msg("'%s' was never added", others + i * KEY_BYTES);
    }
    table_release(&t);
    free(keys);
    free(others);
}

/* With few slots left, probing has to wrap around the end: any seed must do. */
static void test_every_seed_finds_every_key(void **state)
{
    enum { COUNT = 10 };
    char *keys = numbered_keys(COUNT, "");
    uint64_t value;

    (void)state;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        table t;

        table_init(&t);
        t.seed = seed;
        for (size_t i = 0; i < COUNT; i++)
            assert_int_equal(table_add(&t, keys + i * KEY_BYTES, i), TABLE_ADDED);
        assert_int_equal(t.slot_count, 16);
        for (size_t i = 0; i < COUNT; i++) {
            assert_int_equal(table_find(&t, keys + i * KEY_BYTES, &value), 1);
            assert_int_equal(value, i);
        }
        assert_int_equal(table_find(&t, "absent", &value), 0);
        table_release(&t);
    }
    free(keys);
}

static void test_two_tables_have_different_seeds(void **state)
{
    table a;
    table b;

    (void)state;
    table_init(&a);
    table_init(&b);
    assert_true(a.seed != b.seed);
}

static void test_a_released_table_is_empty(void **state)
{
    uint64_t value;
    table t;

    (void)state;
    table_init(&t);
    assert_int_equal(table_add(&t, "x", 1), TABLE_ADDED);
    table_release(&t);
    assert_int_equal(table_find(&t, "x", &value), 0);
    assert_int_equal(table_add(&t, "x", 1), TABLE_ADDED);
    table_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_table_finds_nothing),
        cmocka_unit_test(test_a_key_is_added_once_and_keeps_its_first_value),
        cmocka_unit_test(test_keys_are_compared_by_text_not_by_address),
        cmocka_unit_test(test_the_empty_key_and_every_short_length_are_keys),
        cmocka_unit_test(test_150000_keys_are_all_found_and_no_other),
        cmocka_unit_test(test_every_seed_finds_every_key),
        cmocka_unit_test(test_two_tables_have_different_seeds),
        cmocka_unit_test(test_a_released_table_is_empty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
