/* test_catalog.c: tensors, their arithmetic, and catalogs of them. */
#include "libckpt/catalog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static ckpt_tensor plain(const char *name, ckpt_dtype dtype, uint64_t rows, uint64_t cols)
{
    return (ckpt_tensor){ .name = name, .dtype = dtype, .stored_dtype = dtype, .rank = 2,
                          .shape = { rows, cols } };
}

static ckpt_tensor scaled(ckpt_dtype dtype, uint64_t rows, uint64_t cols)
{
    ckpt_tensor t = plain("t", dtype, rows, cols);

    t.scale_dtype = CKPT_F8_E8M0;
    t.block_rows = dtype == CKPT_F4 ? 1 : 128;
    t.block_cols = dtype == CKPT_F4 ? 32 : 128;
    return t;
}

static void test_dtypes_stand_in_the_order_of_the_library(void **state)
{
    static const char *const names[] = {
        "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0",
        "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64",
        "F64", "I64", "U64", "I4"
    };

    (void)state;
    assert_int_equal(CKPT_DTYPE_COUNT, sizeof names / sizeof *names + 1);
    for (int i = 1; i < CKPT_DTYPE_COUNT; i++) {
        assert_string_equal(ckpt_dtype_name((ckpt_dtype)i), names[i - 1]);
        assert_int_equal(ckpt_dtype_find(names[i - 1]), i);
        assert_true(ckpt_dtype_bits((ckpt_dtype)i) >= 4);
    }
    assert_int_equal(ckpt_dtype_find("bf16"), CKPT_NONE);
    assert_int_equal(ckpt_dtype_find("NONE"), CKPT_NONE);
    assert_int_equal(ckpt_dtype_find(""), CKPT_NONE);
}

static void test_the_row_view(void **state)
{
    ckpt_tensor t = { .name = "t", .dtype = CKPT_F32, .rank = 0 };

    (void)state;
    assert_int_equal(ckpt_tensor_rows(&t), 1);
    assert_int_equal(ckpt_tensor_cols(&t), 1);
    assert_int_equal(ckpt_part_bytes(&t, CKPT_DATA), 4);
    t.rank = 1;
    t.shape[0] = 7;
    assert_int_equal(ckpt_tensor_rows(&t), 1);
    assert_int_equal(ckpt_tensor_cols(&t), 7);
    t.rank = 3;
    t.shape[1] = 5;
    t.shape[2] = 3;
    assert_int_equal(ckpt_tensor_rows(&t), 35);
    assert_int_equal(ckpt_tensor_cols(&t), 3);
    assert_int_equal(ckpt_part_bytes(&t, CKPT_SCALE), 0);
}

static void test_scale_grids_are_rounded_up(void **state)
{
    const ckpt_tensor fp8 = scaled(CKPT_F8_E4M3, 129, 257);
    const ckpt_tensor fp4 = scaled(CKPT_F4, 3, 64);

    (void)state;
    assert_int_equal(ckpt_part_rows(&fp8, CKPT_SCALE), 2);
    assert_int_equal(ckpt_part_cols(&fp8, CKPT_SCALE), 3);
    assert_int_equal(ckpt_part_bytes(&fp8, CKPT_SCALE), 6);
    assert_int_equal(ckpt_part_row_bytes(&fp4, CKPT_DATA), 32);
    assert_int_equal(ckpt_part_rows(&fp4, CKPT_SCALE), 3);
    assert_int_equal(ckpt_part_cols(&fp4, CKPT_SCALE), 2);
}

static void test_encodings_in_words(void **state)
{
    ckpt_tensor t = scaled(CKPT_F8_E4M3, 1, 1);
    char text[64];

    (void)state;
    ckpt_tensor_encoding(&t, text, sizeof text);
    assert_string_equal(text, "F8_E4M3 128x128 F8_E8M0");
    t = scaled(CKPT_F4, 1, 32);
    ckpt_tensor_encoding(&t, text, sizeof text);
    assert_string_equal(text, "F4 1x32 F8_E8M0");
    t = plain("t", CKPT_BF16, 1, 1);
    ckpt_tensor_encoding(&t, text, sizeof text);
    assert_string_equal(text, "BF16");
    ckpt_tensor_encoding(&t, text, 3);
    assert_string_equal(text, "BF");
}

static void test_a_name_is_found_and_is_there_once(void **state)
{
    ckpt_catalog *catalog = catalog_create();
    ckpt_error err;
    char name[32];

    (void)state;
    for (int i = 0; i < 5000; i++) {
        const ckpt_tensor t = plain(name, CKPT_U8, 1, 1);

        snprintf(name, sizeof name, "tensor.%d", i);
        assert_int_equal(catalog_add(catalog, &t, &err), CKPT_OK);
    }
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "tensor.%d", i);
        assert_int_equal(ckpt_catalog_find(catalog, name), i);
    }
    assert_int_equal(ckpt_catalog_find(catalog, "tensor.5000"), CKPT_NOT_FOUND);
    assert_int_equal(ckpt_catalog_find(catalog, ""), CKPT_NOT_FOUND);
    const ckpt_tensor again = plain("tensor.17", CKPT_U8, 1, 1);

    assert_int_equal(catalog_add(catalog, &again, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "'tensor.17'"));
    catalog_free(catalog);
}

static void test_shapes_that_overflow_are_refused(void **state)
{
    ckpt_catalog *catalog = catalog_create();
    ckpt_tensor t = plain("t", CKPT_F32, UINT64_C(1) << 32, UINT64_C(1) << 32);
    ckpt_error err;

    (void)state;
    assert_int_equal(catalog_add(catalog, &t, &err), CKPT_E_FORMAT);
    t = plain("t", CKPT_BF16, 119537721, 77158673929);      /* 2^64 + 2 bytes */
    assert_int_equal(catalog_add(catalog, &t, &err), CKPT_E_FORMAT);
    t = plain("t", CKPT_F32, 1, 1);
    t.rank = CKPT_RANK_MAX + 1;
    assert_int_equal(catalog_add(catalog, &t, &err), CKPT_E_FORMAT);
    assert_int_equal(ckpt_catalog_count(catalog), 0);
    catalog_free(catalog);
}

static void test_rows_of_half_a_byte_are_refused(void **state)
{
    ckpt_tensor t = plain("t", CKPT_F4, 2, 3);
    ckpt_error err;

    (void)state;
    assert_int_equal(catalog_check_shape(&t, &err), CKPT_E_FORMAT);
    t.shape[1] = 4;
    assert_int_equal(catalog_check_shape(&t, &err), CKPT_OK);
    t.dtype = CKPT_F6_E2M3;
    assert_int_equal(catalog_check_shape(&t, &err), CKPT_OK);
    t.shape[1] = 2;
    assert_int_equal(catalog_check_shape(&t, &err), CKPT_E_FORMAT);
}

/* What kernels and tiles rely on: FP4 by whole groups, blocks that stay within one matrix. */
static void test_shapes_that_cannot_have_their_encoding_are_refused(void **state)
{
    static const uint64_t odd_columns[] = { 1, 16, 31, 33, 48, 80, 272 };
    ckpt_catalog *catalog = catalog_create();
    ckpt_error err;

    (void)state;
    for (size_t i = 0; i < sizeof odd_columns / sizeof *odd_columns; i++) {
        ckpt_tensor t = scaled(CKPT_F4, 16, odd_columns[i]);

        assert_int_equal(catalog_add(catalog, &t, &err), CKPT_E_FORMAT);
        assert_non_null(strstr(err.text, "'t' [16, "));
        assert_non_null(strstr(err.text, "F4 1x32 F8_E8M0"));
        t = scaled(CKPT_F8_E4M3, 16, odd_columns[i]);
        assert_int_equal(catalog_check_shape(&t, &err), CKPT_OK);
    }
    ckpt_tensor t = scaled(CKPT_F8_E4M3, 3, 128);

    t.rank = 3;
    t.shape[2] = 256;
    assert_int_equal(catalog_add(catalog, &t, &err), CKPT_OK);
    t.shape[1] = 100;       /* rows of two matrices in one block */
    assert_int_equal(catalog_check_shape(&t, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "[3, 100, 256]"));
    t.rank = 1;
    assert_int_equal(catalog_check_shape(&t, &err), CKPT_E_FORMAT);
    t.rank = 0;
    assert_int_equal(catalog_check_shape(&t, &err), CKPT_E_FORMAT);
    catalog_free(catalog);
}

static void test_encodings_that_nothing_decodes_are_refused(void **state)
{
    ckpt_tensor wrong[] = { scaled(CKPT_F4, 8, 32),   scaled(CKPT_F4, 8, 32),
                            scaled(CKPT_BF16, 8, 32), scaled(CKPT_F8_E4M3, 8, 32),
                            scaled(CKPT_F8_E4M3, 8, 32) };

    (void)state;
    wrong[0].scale_dtype = CKPT_F32;
    wrong[1].block_cols = 16;
    wrong[3].scale_dtype = CKPT_F16;
    wrong[4].block_rows = 0;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ckpt_error err;

        assert_int_equal(catalog_check_shape(&wrong[i], &err), CKPT_E_FORMAT);
        assert_non_null(strstr(err.text, "there is no such encoding"));
    }
}

static void test_integers_are_integers_unless_they_are_codes(void **state)
{
    ckpt_tensor t = plain("t", CKPT_I64, 1, 1);

    (void)state;
    assert_true(ckpt_tensor_is_int(&t));
    t.dtype = CKPT_BOOL;
    assert_true(ckpt_tensor_is_int(&t));
    t.dtype = CKPT_F8_E8M0;
    assert_false(ckpt_tensor_is_int(&t));
    t = scaled(CKPT_F4, 1, 32);
    t.stored_dtype = CKPT_I8;
    assert_false(ckpt_tensor_is_int(&t));
}

static void test_names_are_copied_or_borrowed(void **state)
{
    const char name[] = "model.t";
    const ckpt_tensor t = plain(name, CKPT_F32, 2, 2);
    ckpt_catalog *own = catalog_create();
    ckpt_catalog *borrowing = catalog_create_borrowing();
    ckpt_error err;

    (void)state;
    assert_int_equal(catalog_add(own, &t, &err), CKPT_OK);
    assert_int_equal(catalog_add(borrowing, &t, &err), CKPT_OK);
    assert_ptr_not_equal(ckpt_catalog_at(own, 0)->name, name);
    assert_ptr_equal(ckpt_catalog_at(borrowing, 0)->name, name);
    assert_int_equal(ckpt_catalog_find(borrowing, "model.t"), 0);
    assert_true(catalog_bytes(borrowing) < catalog_bytes(own));
    catalog_free(own);
    catalog_free(borrowing);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtypes_stand_in_the_order_of_the_library),
        cmocka_unit_test(test_the_row_view),
        cmocka_unit_test(test_scale_grids_are_rounded_up),
        cmocka_unit_test(test_encodings_in_words),
        cmocka_unit_test(test_a_name_is_found_and_is_there_once),
        cmocka_unit_test(test_shapes_that_overflow_are_refused),
        cmocka_unit_test(test_rows_of_half_a_byte_are_refused),
        cmocka_unit_test(test_shapes_that_cannot_have_their_encoding_are_refused),
        cmocka_unit_test(test_encodings_that_nothing_decodes_are_refused),
        cmocka_unit_test(test_integers_are_integers_unless_they_are_codes),
        cmocka_unit_test(test_names_are_copied_or_borrowed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
