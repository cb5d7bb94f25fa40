/* test_pair.c: what a stored weight and its scale mean together. */
#include "libckpt/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { OFFICIAL = 1u << ENCODING_FP8_128 | 1u << ENCODING_FP4_32 };

static const map_read_options strict = { .encodings = OFFICIAL };

static ckpt_tensor tensor(const char *name, ckpt_dtype dtype, uint64_t rows, uint64_t cols)
{
    return (ckpt_tensor){ .name = name, .dtype = dtype, .rank = 2, .shape = { rows, cols } };
}

static ckpt_code pair_up(const ckpt_tensor *weight, const ckpt_tensor *scale,
                         const map_read_options *options, ckpt_tensor *out, ckpt_error *err)
{
    return pair_encoding(&(pair_parts){ .data = weight, .scale = scale }, options, out, err);
}

static ckpt_code pair(ckpt_dtype dtype, ckpt_dtype scale_dtype, const uint64_t shapes[4],
                      ckpt_tensor *out)
{
    const ckpt_tensor w = tensor("x.weight", dtype, shapes[0], shapes[1]);
    const ckpt_tensor s = tensor("x.scale", scale_dtype, shapes[2], shapes[3]);
    ckpt_error err;
    const ckpt_code code = pair_up(&w, &s, &strict, out, &err);

    if (code != CKPT_OK)
        assert_non_null(strstr(err.text, "'x."));
    return code;
}

static void test_fp8_blocks(void **state)
{
    static const ckpt_dtype scales[] = { CKPT_F8_E8M0, CKPT_F32, CKPT_BF16 };
    ckpt_tensor t;

    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pair(CKPT_F8_E4M3, scales[i], (uint64_t[]){ 129, 256, 2, 2 }, &t),
                         CKPT_OK);
        assert_int_equal(t.dtype, CKPT_F8_E4M3);
        assert_int_equal(t.scale_dtype, scales[i]);
        assert_int_equal(t.block_rows, 128);
        assert_int_equal(t.block_cols, 128);
    }
}

static void test_fp4_groups_in_any_storage(void **state)
{
    ckpt_tensor t;

    (void)state;
    for (int i = 0; i < 3; i++) {
        const ckpt_dtype stored = i == 0 ? CKPT_I8 : i == 1 ? CKPT_U8 : CKPT_F4;
        const uint64_t cols = stored == CKPT_F4 ? 64 : 32;

        assert_int_equal(pair(stored, CKPT_F8_E8M0, (uint64_t[]){ 3, cols, 3, 2 }, &t), CKPT_OK);
        assert_int_equal(t.dtype, CKPT_F4);
        assert_int_equal(t.stored_dtype, stored);
        assert_int_equal(t.shape[1], 64);
        assert_int_equal(t.block_rows, 1);
        assert_int_equal(t.block_cols, 32);
    }
}

static void test_what_was_read_is_stored_again(void **state)
{
    static const struct {
        ckpt_dtype dtype;
        uint64_t shapes[4];
    } cases[] = { { CKPT_F8_E4M3, { 200, 300, 2, 3 } }, { CKPT_I8, { 3, 32, 3, 2 } },
                  { CKPT_U8, { 3, 32, 3, 2 } }, { CKPT_F4, { 3, 64, 3, 2 } } };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ckpt_tensor t;
        ckpt_tensor data;
        ckpt_tensor scale;

        assert_int_equal(pair(cases[i].dtype, CKPT_F8_E8M0, cases[i].shapes, &t), CKPT_OK);
        data = pair_stored_part(&t, CKPT_DATA);
        scale = pair_stored_part(&t, CKPT_SCALE);
        assert_int_equal(data.dtype, cases[i].dtype);
        assert_int_equal(data.scale_dtype, CKPT_NONE);
        assert_memory_equal(data.shape, cases[i].shapes, 2 * sizeof(uint64_t));
        assert_int_equal(scale.dtype, CKPT_F8_E8M0);
        assert_memory_equal(scale.shape, cases[i].shapes + 2, 2 * sizeof(uint64_t));
    }
}

static void test_grids_that_do_not_fit_are_refused(void **state)
{
    static const uint64_t fp8[][4] = { { 128, 128, 2, 1 }, { 129, 128, 1, 1 }, { 128, 128, 1, 0 },
                                       { 256, 128, 1, 2 }, { 128, 256, 128, 8 } };
    static const uint64_t fp4[][4] = { { 2, 16, 2, 2 }, { 2, 16, 1, 1 }, { 2, 8, 2, 1 },
                                       { 2, 24, 2, 2 }, { 128, 64, 1, 1 } };
    ckpt_tensor t;

    (void)state;
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(pair(CKPT_F8_E4M3, CKPT_F8_E8M0, fp8[i], &t), CKPT_E_FORMAT);
        assert_int_equal(pair(CKPT_I8, CKPT_F8_E8M0, fp4[i], &t), CKPT_E_FORMAT);
    }
}

static void test_eight_int4_codes_are_a_word(void **state)
{
    static const map_read_options int4 = { .encodings = 1u << ENCODING_INT4_32 };
    const ckpt_tensor w = tensor("x.weight_packed", CKPT_I32, 5, 12);
    const ckpt_tensor s = tensor("x.weight_scale", CKPT_BF16, 5, 3);
    ckpt_tensor n = { .name = "x.weight_shape", .dtype = CKPT_I64, .rank = 1, .shape = { 2 } };
    const pair_parts parts = { .data = &w, .scale = &s, .shape = &n };
    ckpt_tensor stored[3];
    ckpt_error err;
    ckpt_tensor t;

    (void)state;
    assert_int_equal(pair_encoding(&parts, &int4, &t, &err), CKPT_OK);
    assert_int_equal(t.dtype, CKPT_I4);
    assert_int_equal(t.shape[0], 5);
    assert_int_equal(t.shape[1], 96);
    assert_int_equal(ckpt_part_bytes(&t, CKPT_DATA), 5 * 48);
    assert_int_equal(ckpt_part_bytes(&t, CKPT_SHAPE), 16);
    stored[0] = pair_stored_part(&t, CKPT_DATA);
    stored[1] = pair_stored_part(&t, CKPT_SCALE);
    stored[2] = pair_stored_part(&t, CKPT_SHAPE);
    assert_true(catalog_same_shape(&stored[0], &w) && stored[0].dtype == CKPT_I32);
    assert_true(catalog_same_shape(&stored[1], &s) && stored[1].dtype == CKPT_BF16);
    assert_true(catalog_same_shape(&stored[2], &n) && stored[2].dtype == CKPT_I64);
    n.shape[0] = 3;
    assert_int_equal(pair_encoding(&parts, &int4, &t, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "'x.weight_shape'"));
    assert_int_equal(pair_encoding(&(pair_parts){ .data = &w, .scale = &s, .unknown = &s }, &int4,
                                   &t, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "'x.weight_packed'"));
}

static void test_only_scales_scale(void **state)
{
    static const uint64_t shapes[4] = { 128, 128, 1, 1 };
    ckpt_tensor t;

    (void)state;
    for (int dtype = 1; dtype < CKPT_DTYPE_COUNT; dtype++) {
        const int is_scale = dtype == CKPT_F8_E8M0 || dtype == CKPT_F32 || dtype == CKPT_BF16;
        const int is_code = dtype == CKPT_F8_E4M3;

        assert_int_equal(pair(CKPT_F8_E4M3, (ckpt_dtype)dtype, shapes, &t) == CKPT_OK, is_scale);
        assert_int_equal(pair((ckpt_dtype)dtype, CKPT_F8_E8M0, shapes, &t) == CKPT_OK, is_code);
    }
    assert_int_equal(pair(CKPT_I8, CKPT_F32, (uint64_t[]){ 2, 16, 2, 1 }, &t), CKPT_E_FORMAT);
}

static void test_blocks_of_an_unknown_size_are_not_paired(void **state)
{
    const map_read_options unknown = { .bare_codes = BARE_CODES_UNFIT,
                                       .encodings = 0 };
    const ckpt_tensor w = tensor("x.weight", CKPT_F8_E4M3, 128, 128);
    const ckpt_tensor s = tensor("x.scale", CKPT_F8_E8M0, 1, 1);
    ckpt_error err;
    ckpt_tensor t;

    (void)state;
    assert_int_equal(pair_up(&w, &s, &unknown, &t, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "'x.weight'"));
}

static void test_u8_is_a_scale_when_told(void **state)
{
    const map_read_options told = { .u8_scales = 1, .encodings = OFFICIAL };
    const ckpt_tensor w = tensor("x.weight", CKPT_F8_E4M3, 128, 128);
    const ckpt_tensor s = tensor("x.scale", CKPT_U8, 1, 1);
    ckpt_error err;
    ckpt_tensor t;

    (void)state;
    assert_int_equal(pair_up(&w, &s, &strict, &t, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "--u8-scales"));
    assert_int_equal(pair_up(&w, &s, &told, &t, &err), CKPT_OK);
    assert_int_equal(t.scale_dtype, CKPT_F8_E8M0);
}

static void test_codes_without_a_scale_are_refused(void **state)
{
    static const ckpt_dtype codes[] = { CKPT_F8_E4M3, CKPT_F4, CKPT_I8, CKPT_U8 };
    const map_read_options lenient = { .lenient = 1, .encodings = OFFICIAL };
    ckpt_error err;
    ckpt_tensor t;

    (void)state;
    for (int i = 0; i < 4; i++) {
        const ckpt_tensor w = tensor("x.weight", codes[i], 4, 4);

        assert_int_equal(pair_up(&w, NULL, &strict, &t, &err), CKPT_E_FORMAT);
        assert_non_null(strstr(err.text, "'x.weight'"));
        assert_int_equal(pair_up(&w, NULL, &lenient, &t, &err), CKPT_OK);
        assert_int_equal(t.scale_dtype, CKPT_NONE);
    }
    for (int i = 0; i < 4; i++) {
        const map_read_options bare = { .bare_codes = BARE_CODES_UNFIT,
                                        .encodings = OFFICIAL };
        const ckpt_tensor w = tensor("x.weight", codes[i], 4, 4);

        assert_int_equal(pair_up(&w, NULL, &bare, &t, &err), CKPT_OK);
        assert_int_equal(t.dtype, codes[i]);
        assert_int_equal(t.scale_dtype, CKPT_NONE);
    }
    const ckpt_tensor mask = tensor("mask", CKPT_U8, 4, 4);

    assert_int_equal(pair_up(&mask, NULL, &strict, &t, &err), CKPT_OK);
}

static void test_names_of_scales(void **state)
{
    static const char *const names[][2] = {
        { "a.scale", "a.weight" }, { "a.weight_scale_inv", "a.weight" },
        { "a.up_scale_inv", "a.up" }, { "x.y.0.w1.scale", "x.y.0.w1.weight" },
    };
    static const char *const others[] = { "a.weight", "scale", ".scale", "hc_head_scale",
                                          "attn_hc_scale", "a.scale_inv2", "" };
    char weight[MAP_NAME_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_true(map_weight_of_scale(names[i][0], weight));
        assert_string_equal(weight, names[i][1]);
        assert_true(pair_is_scale_name(names[i][0]));
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_false(map_weight_of_scale(others[i], weight));
        assert_false(pair_is_scale_name(others[i]));
    }
    assert_true(pair_is_scale_name("a.weight_scale_2"));
    assert_string_equal(pair_scale_suffix("a.weight_scale_inv"), ".weight_scale_inv");
    assert_string_equal(pair_scale_suffix("a.weight_scale"), ".weight_scale");
    assert_string_equal(pair_scale_suffix("a.scale"), ".scale");
    assert_null(pair_scale_suffix("a.up_scale_inv"));
}

static void test_stacks_are_cut_between_matrices(void **state)
{
    ckpt_tensor w = { .name = "x.up", .dtype = CKPT_F8_E4M3, .rank = 3, .shape = { 2, 128, 128 } };
    ckpt_tensor s = { .name = "x.up_scale_inv", .dtype = CKPT_F32, .rank = 3,
                      .shape = { 2, 1, 1 } };
    ckpt_error err;
    ckpt_tensor t;

    (void)state;
    assert_int_equal(pair_up(&w, &s, &strict, &t, &err), CKPT_OK);
    w.shape[1] = 100;       /* a block would take rows of two matrices */
    assert_int_equal(pair_up(&w, &s, &strict, &t, &err), CKPT_E_FORMAT);
    w.shape[1] = 128;
    s.shape[0] = 3;
    assert_int_equal(pair_up(&w, &s, &strict, &t, &err), CKPT_E_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp8_blocks),
        cmocka_unit_test(test_fp4_groups_in_any_storage),
        cmocka_unit_test(test_what_was_read_is_stored_again),
        cmocka_unit_test(test_grids_that_do_not_fit_are_refused),
        cmocka_unit_test(test_eight_int4_codes_are_a_word),
        cmocka_unit_test(test_only_scales_scale),
        cmocka_unit_test(test_blocks_of_an_unknown_size_are_not_paired),
        cmocka_unit_test(test_u8_is_a_scale_when_told),
        cmocka_unit_test(test_codes_without_a_scale_are_refused),
        cmocka_unit_test(test_names_of_scales),
        cmocka_unit_test(test_stacks_are_cut_between_matrices),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
