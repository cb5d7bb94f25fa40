/* test_source.c: reading rows of any range, through tiles and views. */
#include "libckpt/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memory_source.h"
#include "libckpt/pick.h"

static void fill(memory_source *m, size_t tensor, ckpt_part part)
{
    const uint64_t size =
        ckpt_part_bytes(ckpt_catalog_at(memory_source_catalog(m), tensor), part);
    uint8_t *bytes = memory_source_part(m, tensor, part);

    for (uint64_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 131 + i / 251 + tensor);
}

static void test_any_rows_of_any_part_can_be_read(void **state)
{
    memory_source *m = memory_source_create();
    const size_t t = memory_source_add(m, "a.weight", CKPT_F8_E4M3, 300, 130);
    static const uint64_t ranges[][2] = { { 0, 300 }, { 0, 1 },   { 299, 1 }, { 127, 2 },
                                          { 128, 128 }, { 5, 200 }, { 7, 0 } };
    ckpt_error err;
    uint8_t out[300 * 130];

    (void)state;
    fill(m, t, CKPT_DATA);
    fill(m, t, CKPT_SCALE);
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        const uint8_t *all = memory_source_part(m, t, CKPT_DATA);

        assert_int_equal(ckpt_source_read(memory_source_base(m), t, CKPT_DATA, ranges[i][0],
                                          ranges[i][1], out, &err), CKPT_OK);
        assert_memory_equal(out, all + 130 * ranges[i][0], 130 * ranges[i][1]);
    }
    for (uint64_t row = 0; row < 3; row++) {        /* the grid is 3 x 2 */
        const uint8_t *all = memory_source_part(m, t, CKPT_SCALE);

        assert_int_equal(ckpt_source_read(memory_source_base(m), t, CKPT_SCALE, row, 3 - row,
                                          out, &err), CKPT_OK);
        assert_memory_equal(out, all + 2 * row, 2 * (3 - row));
    }
    memory_source_free(m);
}

static void test_rows_that_are_not_there_are_refused(void **state)
{
    memory_source *m = memory_source_create();
    const size_t t = memory_source_add(m, "a.weight", CKPT_BF16, 4, 2);
    static const uint64_t ranges[][2] = { { 0, 5 }, { 4, 1 }, { UINT64_MAX, 2 },
                                          { 2, UINT64_MAX } };
    ckpt_error err;
    uint8_t out[64];

    (void)state;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        assert_int_not_equal(ckpt_source_read(memory_source_base(m), t, CKPT_DATA, ranges[i][0],
                                              ranges[i][1], out, &err), CKPT_OK);
    memory_source_free(m);
}

static void test_tiles_begin_at_bands_whatever_the_shape(void **state)
{
    static const uint64_t cols[] = { 0, 1, 100, 7168, 1 << 20, UINT64_C(1) << 40 };

    (void)state;
    for (size_t i = 0; i < sizeof cols / sizeof *cols; i++) {
        const ckpt_tensor t = { .name = "t", .dtype = CKPT_F32, .rank = 2,
                                .shape = { 1000, cols[i] } };
        const uint64_t rows = source_tile_rows(&t);

        assert_true(rows >= SOURCE_BAND_ROWS);
        assert_int_equal(rows % SOURCE_BAND_ROWS, 0);
    }
}

static void test_scale_rows_cover_the_data_rows(void **state)
{
    const ckpt_tensor t = { .name = "t", .dtype = CKPT_F8_E4M3, .scale_dtype = CKPT_F32,
                            .block_rows = 128, .block_cols = 128, .rank = 2,
                            .shape = { 300, 130 } };
    static const uint64_t cases[][4] = { { 0, 128, 0, 1 }, { 0, 129, 0, 2 }, { 128, 128, 1, 1 },
                                         { 256, 44, 2, 1 }, { 0, 300, 0, 3 } };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const source_range range = { .row = cases[i][0], .row_count = cases[i][1] };
        uint64_t row;
        uint64_t rows;

        source_scale_rows(&t, &range, &row, &rows);
        assert_int_equal(row, cases[i][2]);
        assert_int_equal(rows, cases[i][3]);
    }
}

static void test_a_pick_reads_what_it_picked(void **state)
{
    memory_source *one = memory_source_create();
    memory_source *two = memory_source_create();
    pick_entry entries[3];
    ckpt_source *picked;
    ckpt_error err;
    uint8_t out[8];

    (void)state;
    memory_source_add(one, "a", CKPT_U8, 2, 4);
    memory_source_add(one, "b", CKPT_U8, 2, 4);
    memory_source_add(two, "c", CKPT_U8, 2, 4);
    memset(memory_source_part(one, 0, CKPT_DATA), 'a', 8);
    memset(memory_source_part(one, 1, CKPT_DATA), 'b', 8);
    memset(memory_source_part(two, 0, CKPT_DATA), 'c', 8);
    entries[0] = (pick_entry){ .source = memory_source_base(two), .tensor = 0 };
    entries[1] = (pick_entry){ .source = memory_source_base(one), .tensor = 1 };
    entries[2] = (pick_entry){ .source = memory_source_base(one), .tensor = 0 };
    assert_int_equal(source_pick(entries, 3, &picked, &err), CKPT_OK);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(ckpt_source_read(picked, i, CKPT_DATA, 0, 2, out, &err), CKPT_OK);
        assert_int_equal(out[7], "cba"[i]);
        assert_int_equal(ckpt_catalog_at(picked->catalog, i)->name[0], "cba"[i]);
    }
    ckpt_source_free(picked);
    entries[1] = entries[0];
    assert_int_not_equal(source_pick(entries, 2, &picked, &err), CKPT_OK);
    memory_source_free(one);
    memory_source_free(two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_rows_of_any_part_can_be_read),
        cmocka_unit_test(test_rows_that_are_not_there_are_refused),
        cmocka_unit_test(test_tiles_begin_at_bands_whatever_the_shape),
        cmocka_unit_test(test_scale_rows_cover_the_data_rows),
        cmocka_unit_test(test_a_pick_reads_what_it_picked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
