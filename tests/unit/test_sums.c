/* test_sums.c: checksums of runs of bytes in files, of every size around the rows and tiles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "libckpt/crc32.h"
#include "libckpt/file.h"
#include "libckpt/sums.h"

enum { FILE_BYTES = (3 << 20) + 4567, SUM_COUNT = 11, TILE = 1 << 20, ROW = 8192 };

static const uint64_t sizes[SUM_COUNT] = {
    0,        1,    ROW - 1,  ROW,        ROW + 1,           TILE - 1,
    TILE + 1, TILE, ROW + TILE, 2 * TILE + 77, FILE_BYTES - 1000,
};
static ckpt_error err;
static char folder[] = "/tmp/ckpt-test-sums-XXXXXX";
static char path[sizeof folder + 8];
static unsigned char *bytes;

static int set_up(void **state)
{
    uint32_t draw = 1;

    (void)state;
    bytes = malloc(FILE_BYTES);
    if (bytes == NULL || mkdtemp(folder) == NULL)
        return 1;
    for (size_t i = 0; i < FILE_BYTES; i++) {
        draw = draw * 1664525 + 1013904223;
        bytes[i] = (unsigned char)(draw >> 24);
    }
    snprintf(path, sizeof path, "%s/data", folder);
    return file_write_all(path, bytes, FILE_BYTES, &err) != CKPT_OK;
}

static int tear_down(void **state)
{
    (void)state;
    free(bytes);
    return file_remove_tree(folder, NULL) != CKPT_OK;
}

/* Runs that begin at odd places; of those in `absent` the file has no checksum. */
static ckpt_store *open_store(unsigned absent)
{
    ckpt_store *store = store_create(folder);
    uint32_t file;

    assert_non_null(store);
    assert_int_equal(store_add_file(store, "data", &file, &err), CKPT_OK);
    assert_int_equal(store_open_file(store, file, 0, &err), CKPT_OK);
    for (size_t i = 0; i < SUM_COUNT; i++) {
        const uint64_t offset = 13 * i;
        const store_sum sum = { i, file, offset, sizes[i],
                                absent >> i & 1 ? 0 : crc32_add(0, bytes + offset, sizes[i]) };

        assert_int_equal(store_add_sum(store, &sum, &err), CKPT_OK);
    }
    return store;
}

static void check(unsigned absent, unsigned thread_count, sums_result *out)
{
    const ckpt_run_options options = { .thread_count = thread_count, .memory_bytes = 16 << 20 };
    ckpt_store *store = open_store(absent);

    assert_int_equal(sums_check(store, &options, out, &err), CKPT_OK);
    store_free(store);
}

static void test_runs_of_every_size_are_right(void **state)
{
    uint64_t total = 0;

    (void)state;
    for (size_t i = 0; i < SUM_COUNT; i++)
        total += sizes[i];
    for (unsigned threads = 1; threads <= 4; threads++) {
        sums_result result;

        check(0, threads, &result);
        assert_int_equal(result.checked_count, SUM_COUNT);
        assert_int_equal(result.checked_bytes, total);
        assert_int_equal(result.absent_count, 0);
        assert_int_equal(result.wrong_count, 0);
        sums_release(&result);
    }
}

/* Flip a bit of the file: exactly the runs that hold it are wrong. */
static void test_a_flipped_bit_is_found_by_every_run_that_holds_it(void **state)
{
    static const uint64_t places[] = { 0, 13, 14, 26 + ROW - 2, 26 + ROW - 1, TILE, TILE + 70,
                                       2 * TILE + 13 * 9 + 76, FILE_BYTES - 900, FILE_BYTES - 1 };

    (void)state;
    for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
        const unsigned char flipped = bytes[places[p]] ^ 16;
        ckpt_file *file;
        sums_result result;
        size_t wrong = 0;

        assert_int_equal(file_open_rw(folder, "data", &file, &err), CKPT_OK);
        assert_int_equal(file_write_at(file, places[p], &flipped, 1, &err), CKPT_OK);
        check(0, 3, &result);
        for (size_t i = 0; i < SUM_COUNT; i++)
            if (places[p] >= 13 * i && places[p] - 13 * i < sizes[i]) {
                assert_true(wrong < result.wrong_count);
                assert_int_equal(result.wrong[wrong].sum, i);
                wrong++;
            }
        assert_int_equal(result.wrong_count, wrong);
        sums_release(&result);
        assert_int_equal(file_write_at(file, places[p], &bytes[places[p]], 1, &err), CKPT_OK);
        assert_int_equal(file_close(file, &err), CKPT_OK);
    }
}

static void test_runs_without_a_checksum_are_counted(void **state)
{
    sums_result result;

    (void)state;
    check(1u << 0 | 1u << 4 | 1u << 9, 2, &result);
    assert_int_equal(result.absent_count, 2);              /* an empty one needs none */
    assert_int_equal(result.checked_count, SUM_COUNT - 2);
    assert_int_equal(result.wrong_count, 0);
    sums_release(&result);
}

static void test_a_limit_that_holds_no_tile_is_refused(void **state)
{
    const ckpt_run_options options = { .memory_bytes = 4096 };
    ckpt_store *store = open_store(0);
    sums_result result;

    (void)state;
    assert_int_equal(sums_check(store, &options, &result, &err), CKPT_E_MEMORY);
    store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_of_every_size_are_right),
        cmocka_unit_test(test_a_flipped_bit_is_found_by_every_run_that_holds_it),
        cmocka_unit_test(test_runs_without_a_checksum_are_counted),
        cmocka_unit_test(test_a_limit_that_holds_no_tile_is_refused),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
