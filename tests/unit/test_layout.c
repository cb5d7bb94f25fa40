/* test_layout.c: extents are proved to cover each tensor once and to stay inside. */
#include "libckpt/layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    ckpt_catalog *logical;
    ckpt_catalog *stored;
    ckpt_layout *layout;
} fixture;

static void add(ckpt_catalog *catalog, const char *name, ckpt_dtype dtype, uint64_t rows,
                uint64_t cols)
{
    const ckpt_tensor t = { .name = name, .dtype = dtype, .stored_dtype = dtype, .rank = 2,
                            .shape = { rows, cols } };

    assert_int_equal(catalog_add(catalog, &t, NULL), CKPT_OK);
}

/* One logical matrix of 4 x 6, and two stored ones. */
static fixture make(ckpt_dtype dtype, ckpt_dtype stored_dtype)
{
    fixture f = { catalog_create(), catalog_create(), NULL };

    add(f.logical, "t", dtype, 4, 6);
    add(f.stored, "a", stored_dtype, 4, stored_dtype == CKPT_I8 && dtype == CKPT_F4 ? 3 : 6);
    add(f.stored, "b", stored_dtype, 4, stored_dtype == CKPT_I8 && dtype == CKPT_F4 ? 3 : 6);
    f.layout = layout_create(f.logical, f.stored);
    return f;
}

static void release(fixture *f)
{
    layout_free(f->layout);
    catalog_free(f->logical);
    catalog_free(f->stored);
}

/* Seal a layout of `count` extents; the code. */
static ckpt_code seal(ckpt_dtype dtype, ckpt_dtype stored, const layout_extent *extents,
                      size_t count, ckpt_error *err)
{
    fixture f = make(dtype, stored);
    ckpt_code code;

    for (size_t i = 0; i < count; i++)
        assert_int_equal(layout_add(f.layout, &extents[i], err), CKPT_OK);
    code = layout_seal(f.layout, err);
    release(&f);
    return code;
}

static void test_halves_cover_a_tensor_by_rows_or_columns(void **state)
{
    const layout_extent rows[] = { { .stored = 1, .row = 2, .row_count = 2, .col_count = 6 },
                                   { .row_count = 2, .col_count = 6 } };
    const layout_extent cols[] = { { .row_count = 4, .col_count = 2 },
                                   { .stored = 1, .col = 2, .row_count = 4, .col_count = 4 } };
    ckpt_error err;

    (void)state;
    assert_int_equal(seal(CKPT_U8, CKPT_U8, rows, 2, &err), CKPT_OK);
    assert_int_equal(seal(CKPT_U8, CKPT_U8, cols, 2, &err), CKPT_OK);
}

static void test_a_gap_is_refused(void **state)
{
    const layout_extent gap[] = { { .row_count = 2, .col_count = 6 },
                                  { .stored = 1, .row = 3, .row_count = 1, .col_count = 6 } };
    ckpt_error err;

    (void)state;
    assert_int_equal(seal(CKPT_U8, CKPT_U8, gap, 2, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "'t'"));
    assert_non_null(strstr(err.text, "18 of 24"));
    assert_int_equal(seal(CKPT_U8, CKPT_U8, gap, 0, &err), CKPT_E_FORMAT);
}

static void test_an_overlap_is_refused_even_when_areas_add_up(void **state)
{
    const layout_extent twice[] = { { .row_count = 2, .col_count = 6 },
                                    { .stored = 1, .row = 1, .row_count = 2, .col_count = 6 } };
    ckpt_error err;

    (void)state;
    assert_int_equal(seal(CKPT_U8, CKPT_U8, twice, 2, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "row 1, column 0 is stored twice"));
}

static void test_a_copy_neither_fills_nor_overlaps(void **state)
{
    const layout_extent copied[] = { { .row_count = 4, .col_count = 6 },
                                     { .stored = 1, .copy = 1, .row_count = 4, .col_count = 6 } };
    ckpt_error err;

    (void)state;
    assert_int_equal(seal(CKPT_U8, CKPT_U8, copied, 2, &err), CKPT_OK);
    assert_int_equal(seal(CKPT_U8, CKPT_U8, copied + 1, 1, &err), CKPT_E_FORMAT);
}

static void test_rectangles_outside_are_refused(void **state)
{
    static const layout_extent outside[] = {
        { .row_count = 5, .col_count = 6 },
        { .row_count = 4, .col_count = 7 },
        { .stored_row = 1, .row_count = 4, .col_count = 6 },
        { .stored_col = 1, .row_count = 4, .col_count = 6 },
        { .row = UINT64_MAX, .row_count = 4, .col_count = 6 },
        { .stored_row = UINT64_MAX - 1, .row_count = 4, .col_count = 6 },
        { .row_count = UINT64_MAX, .col_count = 6 },
    };
    ckpt_error err;

    (void)state;
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        assert_int_equal(seal(CKPT_U8, CKPT_U8, &outside[i], 1, &err), CKPT_E_FORMAT);
        assert_non_null(strstr(err.text, "does not fit"));
    }
}

static void test_packed_codes_count_as_elements(void **state)
{
    const layout_extent whole = { .row_count = 4, .col_count = 6 };
    const layout_extent nibble[] = { { .row_count = 4, .col_count = 3 },
                                     { .col = 3, .stored_col = 3, .row_count = 4,
                                       .col_count = 3 } };
    ckpt_error err;

    (void)state;
    assert_int_equal(seal(CKPT_F4, CKPT_I8, &whole, 1, &err), CKPT_OK);
    assert_int_equal(seal(CKPT_F4, CKPT_I8, nibble, 2, &err), CKPT_E_FORMAT);
}

static void test_extents_are_found_by_part_originals_first(void **state)
{
    fixture f = make(CKPT_U8, CKPT_U8);
    const layout_extent extents[] = {
        { .stored = 1, .copy = 1, .row_count = 4, .col_count = 6 },
        { .stored = 1, .row = 2, .stored_row = 2, .row_count = 2, .col_count = 6 },
        { .row_count = 2, .col_count = 6 }
    };
    const layout_extent *begin;
    const layout_extent *end;
    ckpt_error err;

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(layout_add(f.layout, &extents[i], &err), CKPT_OK);
    assert_int_equal(layout_seal(f.layout, &err), CKPT_OK);
    layout_extents(f.layout, 0, CKPT_DATA, &begin, &end);
    assert_int_equal(end - begin, 3);
    assert_int_equal(begin[0].row, 0);
    assert_int_equal(begin[1].row, 2);
    assert_true(begin[2].copy);
    layout_extents(f.layout, 0, CKPT_SCALE, &begin, &end);
    assert_int_equal(end - begin, 0);
    release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halves_cover_a_tensor_by_rows_or_columns),
        cmocka_unit_test(test_a_gap_is_refused),
        cmocka_unit_test(test_an_overlap_is_refused_even_when_areas_add_up),
        cmocka_unit_test(test_a_copy_neither_fills_nor_overlaps),
        cmocka_unit_test(test_rectangles_outside_are_refused),
        cmocka_unit_test(test_packed_codes_count_as_elements),
        cmocka_unit_test(test_extents_are_found_by_part_originals_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
