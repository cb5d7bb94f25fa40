/* test_array.c: arrays that grow an item at a time. */
#include "libckpt/array.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void *room(void *items, size_t count, size_t item_bytes)
{
    ckpt_error err;
    void *grown = array_room(items, count, item_bytes, "items", &err);

    assert_non_null(grown);
    return grown;
}

/* Under a sanitizer this also proves that the room is there. */
static void test_items_stay_while_the_array_grows(void **state)
{
    enum { COUNT = 10000 };
    uint32_t *items = NULL;

    (void)state;
    for (uint32_t i = 0; i < COUNT; i++) {
        items = room(items, i, sizeof *items);
        items[i] = i;
    }
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(items[i], i);
    free(items);
}

static void test_the_capacity_doubles_in_four_steps_and_is_what_array_bytes_says(void **state)
{
    size_t capacity = 64;
    size_t doubled = 128;

    (void)state;
    assert_int_equal(array_bytes(0, 24), 0);
    for (size_t count = 1; count < 5000; count++) {
        if (count > capacity)
            capacity += doubled / 8;
        if (capacity == doubled)
            doubled *= 2;
        assert_int_equal(array_bytes(count, 24), capacity * 24);
    }
}

/* malloc_usable_size is at least what was asked for. */
static void test_an_array_has_the_room_that_array_bytes_says(void **state)
{
    uint64_t *items = NULL;

    (void)state;
    for (size_t count = 0; count < 3000; count++) {
        items = room(items, count, sizeof *items);
        items[count] = count;
        assert_true(malloc_usable_size(items) >= array_bytes(count + 1, sizeof *items));
    }
    free(items);
}

static void test_an_array_with_room_stays_where_it_is(void **state)
{
    char *items = room(NULL, 0, 1);

    (void)state;
    for (size_t count = 0; count < 64; count++)
        assert_ptr_equal(room(items, count, 1), items);
    free(items);
}

static void test_an_array_that_lost_items_has_room_again(void **state)
{
    uint64_t *items = NULL;

    (void)state;
    for (size_t from = 0; from < 600; from += 7) {
        for (size_t count = from; count < 600; count++) {
            items = room(items, count, sizeof *items);
            items[count] = count;
        }
        assert_int_equal(items[599], 599);
    }
    free(items);
}

/* `items` is none that was allocated: to touch it would crash. */
static void refuse(size_t count, size_t item_bytes)
{
    char first;
    ckpt_error err = { 0 };

    assert_null(array_room(&first, count, item_bytes, "items", &err));
    assert_int_equal(err.code, CKPT_E_MEMORY);
    assert_string_equal(err.text, "out of memory for items: 18446744073709551615 bytes");
    assert_null(array_room(&first, count, item_bytes, "items", NULL));
}

static void test_sizes_that_overflow_are_refused_and_the_items_stay(void **state)
{
    (void)state;
    refuse((size_t)7 << 61, 1);                /* the next capacity: 2^64 */
    refuse((size_t)7 << 58, 8);                /* its product with the item: 2^61 * 8 */
    refuse((size_t)1 << 62, 4);                /* 5 * 2^60 * 4: 2^62 after wrapping */
    refuse(64, SIZE_MAX / 80 + 1);
    assert_null(array_room(NULL, 0, SIZE_MAX / 64 + 1, "items", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items_stay_while_the_array_grows),
        cmocka_unit_test(test_the_capacity_doubles_in_four_steps_and_is_what_array_bytes_says),
        cmocka_unit_test(test_an_array_has_the_room_that_array_bytes_says),
        cmocka_unit_test(test_an_array_with_room_stays_where_it_is),
        cmocka_unit_test(test_an_array_that_lost_items_has_room_again),
        cmocka_unit_test(test_sizes_that_overflow_are_refused_and_the_items_stay),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
