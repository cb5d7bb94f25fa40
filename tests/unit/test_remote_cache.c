/* test_remote_cache.c: which blocks of remote files are given up, and which never are. */
#include "libckpt/remote/remote_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "libckpt/ckpt.h"

/* The least limit: eight blocks. */
enum { LIMIT_BYTES = 16 << 20, BLOCKS = 8, SIZE = 1000 };

static const char file[] = "a file";

static int make_cache(void **state)
{
    remote_cache *cache = malloc(sizeof *cache);

    if (cache == NULL || remote_cache_open(cache, LIMIT_BYTES, NULL) != CKPT_OK)
        return -1;
    *state = cache;
    return 0;
}

static int drop_cache(void **state)
{
    remote_cache_close(*state);
    free(*state);
    return 0;
}

static remote_block *claim(remote_cache *cache, uint64_t number, int is_ahead)
{
    return remote_cache_claim(cache, &(remote_wish){ file, number, SIZE, is_ahead });
}

/* Blocks 0 to 7, loaded in this order. */
static void fill(remote_cache *cache)
{
    assert_int_equal(cache->count, BLOCKS);
    for (uint64_t i = 0; i < BLOCKS; i++) {
        remote_block *block = claim(cache, i, 1);

        assert_non_null(block);
        assert_int_equal(block->state, BLOCK_QUEUED);
        block->state = BLOCK_READY;
        block->filled_bytes = SIZE;
    }
}

static remote_block *at(const remote_cache *cache, uint64_t number)
{
    return remote_cache_find(cache, file, number);
}

static void test_what_is_still_to_be_read_stays_for_a_reader_ahead(void **state)
{
    remote_cache *cache = *state;

    fill(cache);
    assert_null(claim(cache, 8, 1));
    at(cache, 5)->read_bytes = SIZE - 1;
    assert_null(claim(cache, 8, 1));
    at(cache, 5)->read_bytes = SIZE;
    assert_non_null(claim(cache, 8, 1));
    assert_null(at(cache, 5));
    assert_int_equal(at(cache, 8)->read_bytes, 0);
}

static void test_who_needs_a_block_gets_what_was_used_longest_ago(void **state)
{
    remote_cache *cache = *state;

    fill(cache);
    remote_cache_touch(cache, at(cache, 0));
    assert_non_null(claim(cache, 8, 0));
    assert_null(at(cache, 1));
    at(cache, 6)->read_bytes = SIZE;                 /* read to the end: sooner than older ones */
    assert_non_null(claim(cache, 9, 0));
    assert_null(at(cache, 6));
    assert_non_null(at(cache, 0));
}

static void test_blocks_in_use_are_never_taken(void **state)
{
    remote_cache *cache = *state;

    fill(cache);
    for (uint64_t i = 0; i < BLOCKS; i++)
        if (i % 2 == 0)
            at(cache, i)->pin_count = 1;
        else
            at(cache, i)->state = BLOCK_LOADING;
    assert_null(claim(cache, 8, 0));
    at(cache, 4)->pin_count = 0;
    assert_non_null(claim(cache, 8, 0));
    assert_null(at(cache, 4));
}

static void test_of_what_nobody_waits_for_the_last_goes_first(void **state)
{
    remote_cache *cache = *state;

    for (uint64_t i = 0; i < BLOCKS; i++)
        assert_non_null(claim(cache, i, 1));
    assert_null(claim(cache, 8, 1));
    assert_non_null(claim(cache, 8, 0));
    assert_null(at(cache, BLOCKS - 1));
    assert_non_null(at(cache, 0));
}

static void test_a_block_is_of_one_file(void **state)
{
    static const char other[] = "another";
    remote_cache *cache = *state;

    fill(cache);
    assert_null(remote_cache_find(cache, other, 3));
    remote_cache_free(at(cache, 3));
    assert_null(at(cache, 3));
    assert_non_null(remote_cache_claim(cache, &(remote_wish){ other, 3, SIZE, 1 }));
    assert_null(at(cache, 3));
}

static void test_the_cache_is_a_part_of_the_limit(void **state)
{
    static const uint64_t limits[] = { 16 << 20, 64 << 20, 1 << 30, UINT64_C(1) << 40, 0 };
    static const uint64_t expected[] = { 2 << 20, 8 << 20, 128 << 20, 128 << 20, 128 << 20 };
    remote_cache cache;

    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        assert_int_equal(remote_cache_open(&cache, limits[i], NULL), CKPT_OK);
        assert_int_equal(cache.memory_bytes, expected[i]);
        remote_cache_close(&cache);
    }
    ckpt_set_memory_limit(16 << 20);                 /* counted, as everything else */
    assert_int_equal(remote_cache_open(&cache, 1 << 30, NULL), CKPT_E_MEMORY);
    remote_cache_close(&cache);
    ckpt_set_memory_limit(0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_cache, drop_cache)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_still_to_be_read_stays_for_a_reader_ahead),
        TEST(test_who_needs_a_block_gets_what_was_used_longest_ago),
        TEST(test_blocks_in_use_are_never_taken),
        TEST(test_of_what_nobody_waits_for_the_last_goes_first),
        TEST(test_a_block_is_of_one_file),
        cmocka_unit_test(test_the_cache_is_a_part_of_the_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
