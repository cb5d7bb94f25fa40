/* test_compare.c: two sources, value by value. */
#include "verify/compare.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memory_source.h"

static memory_source *a;
static memory_source *b;
static compare_options options;
static ckpt_comparison result;
static ckpt_error err;

static int set_up(void **state)
{
    (void)state;
    a = memory_source_create();
    b = memory_source_create();
    memset(&options, 0, sizeof options);
    memset(&result, 0, sizeof result);
    options.asked.run.thread_count = 3;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    compare_release(&result);
    memory_source_free(a);
    memory_source_free(b);
    return 0;
}

static ckpt_code compare(void)
{
    compare_release(&result);
    return compare_sources(memory_source_base(a), memory_source_base(b), &options, &result, &err);
}

static int same(void)
{
    assert_int_equal(compare(), CKPT_OK);
    return ckpt_comparison_is_same(&result);
}

static size_t add_both(const char *name, ckpt_dtype dtype, uint64_t rows, uint64_t cols)
{
    const size_t i = memory_source_add(a, name, dtype, rows, cols);

    assert_int_equal(memory_source_add(b, name, dtype, rows, cols), i);
    return i;
}

static void *data(memory_source *source, size_t tensor)
{
    return memory_source_part(source, tensor, CKPT_DATA);
}

static void assert_sides(const ckpt_difference *d, const char *left, const char *right)
{
    char text[CKPT_DIFFERENCE_BYTES];

    ckpt_difference_text(d, 0, text);
    assert_string_equal(text, left);
    ckpt_difference_text(d, 1, text);
    assert_string_equal(text, right);
}

static void test_equal_bytes_are_the_same(void **state)
{
    (void)state;
    add_both("x", CKPT_BF16, 300, 500);
    add_both("y", CKPT_I64, 1, 7);
    add_both("z", CKPT_F4, 4, 64);
    assert_true(same());
    assert_int_equal(result.compared, 3);
    assert_int_equal(result.element_count, 300 * 500 + 7 + 256);
    assert_int_equal(result.re_encoded_count, 0);
    assert_int_equal(result.other_encoding_count, 0);
}

static void test_the_first_difference_is_told(void **state)
{
    const size_t x = add_both("x", CKPT_F32, 1000, 1000);
    float *left = data(a, x);
    float *right = data(b, x);

    (void)state;
    left[700 * 1000 + 3] = 1.0f;
    right[999 * 1000 + 1] = 2.0f;
    left[140 * 1000 + 999] = 0.1f;
    right[140 * 1000 + 999] = -1e-30f;
    for (options.asked.run.thread_count = 1; options.asked.run.thread_count <= 8;
         options.asked.run.thread_count++) {
        assert_false(same());
        assert_int_equal(result.differing_count, 1);
        assert_int_equal(result.differing[0].kind, CKPT_DIFFERENT_VALUES);
        assert_int_equal(result.differing[0].row, 140);
        assert_int_equal(result.differing[0].col, 999);
        assert_int_equal(result.differing[0].count, 3);
        assert_sides(&result.differing[0], "0.1", "-1e-30");
    }
}

static void test_differences_are_sorted_by_name(void **state)
{
    static const char *const names[] = { "m", "b", "z", "a", "k" };

    (void)state;
    for (size_t i = 0; i < 5; i++) {
        memory_source_add(a, names[i], CKPT_I8, 1, 3);
        memory_source_add(b, names[4 - i], CKPT_I8, 1, 3);
        ((int8_t *)data(a, i))[2] = (int8_t)-i;
    }
    assert_false(same());
    assert_int_equal(result.differing_count, 4);
    assert_string_equal(result.differing[0].a->name, "a");
    assert_string_equal(result.differing[1].a->name, "b");
    assert_string_equal(result.differing[2].a->name, "k");
    assert_string_equal(result.differing[3].a->name, "z");
    assert_int_equal(result.differing[0].col, 2);
    assert_sides(&result.differing[0], "-3", "0");
}

static void test_zeros_and_nans_are_alike_but_re_encoded(void **state)
{
    static const ckpt_dtype dtypes[] = { CKPT_BF16, CKPT_F16, CKPT_F32 };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        char name[] = { 't', (char)('0' + i), '\0' };
        const size_t t = add_both(name, dtypes[i], 130, 4);
        const size_t item = ckpt_dtype_bits(dtypes[i]) / 8;
        char *left = data(a, t);
        char *right = data(b, t);

        right[(129 * 4 + 1) * item + item - 1] = (char)0x80;           /* -0 */
        memset(left + (129 * 4 + 2) * item, 0xff, item);               /* NaNs */
        memset(right + (129 * 4 + 2) * item, 0xff, item);
        left[(129 * 4 + 3) * item - 1] = 0x7f;
    }
    assert_true(same());
    assert_int_equal(result.re_encoded_count, 3);
    assert_string_equal(result.re_encoded[2], "t2");
    options.asked.bits = 1;
    assert_false(same());
    assert_int_equal(result.differing_count, 3);
    assert_int_equal(result.differing[1].kind, CKPT_DIFFERENT_BITS);
    assert_int_equal(result.differing[1].row, 129);
    assert_int_equal(result.differing[1].col, 1);
    assert_int_equal(result.differing[2].count, 2);
    assert_sides(&result.differing[0], "null", "null");
}

/* 1.5 * 2^-3 in FP4 (code 3), FP8 (0x3c), BF16 and F32. */
static void fill(memory_source *source, size_t t)
{
    const ckpt_tensor *tensor = ckpt_catalog_at(memory_source_catalog(source), t);
    const uint64_t count = ckpt_tensor_rows(tensor) * ckpt_tensor_cols(tensor);
    void *out = data(source, t);

    if (tensor->scale_dtype != CKPT_NONE) {
        memset(out, tensor->dtype == CKPT_F4 ? 0x33 : 0x3c, ckpt_part_bytes(tensor, CKPT_DATA));
        memset(memory_source_part(source, t, CKPT_SCALE), 124,
               ckpt_part_bytes(tensor, CKPT_SCALE));
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        if (tensor->dtype == CKPT_BF16)
            ((uint16_t *)out)[i] = 0x3e40;
        else
            ((float *)out)[i] = 0.1875f;
}

static void test_encodings_make_no_difference(void **state)
{
    static const ckpt_dtype dtypes[] = { CKPT_F4, CKPT_F8_E4M3, CKPT_BF16, CKPT_F32 };

    (void)state;
    for (size_t i = 0; i < 16; i++) {
        char name[] = { 't', (char)('a' + i), '\0' };

        fill(a, memory_source_add(a, name, dtypes[i / 4], 200, 1088));
        fill(b, memory_source_add(b, name, dtypes[i % 4], 200, 1088));
    }
    assert_true(same());
    assert_int_equal(result.compared, 16);
    assert_int_equal(result.other_encoding_count, 12);
    assert_int_equal(result.re_encoded_count, 0);
    ((uint8_t *)data(a, 1))[0] = 0x34;          /* FP4 code 4 at 0, FP8 0x3c in B */
    assert_false(same());
    assert_int_equal(result.differing[0].count, 1);
    assert_sides(&result.differing[0], "0.25", "0.1875");
}

static void test_bits_calls_for_the_same_encoding(void **state)
{
    (void)state;
    fill(a, memory_source_add(a, "x", CKPT_F4, 4, 64));
    fill(b, memory_source_add(b, "x", CKPT_BF16, 4, 64));
    options.asked.bits = 1;
    assert_false(same());
    assert_int_equal(result.differing[0].kind, CKPT_DIFFERENT_ENCODING);
    assert_sides(&result.differing[0], "\"F4 1x32 F8_E8M0\"", "\"BF16\"");
}

static void test_the_scale_of_a_zero_group_is_told_as_its_place(void **state)
{
    const size_t x = add_both("x", CKPT_F4, 200, 128);

    (void)state;
    memset(memory_source_part(a, x, CKPT_SCALE), 7, 800);
    memset(memory_source_part(b, x, CKPT_SCALE), 7, 800);
    ((uint8_t *)memory_source_part(b, x, CKPT_SCALE))[4 * 150 + 2] = 8;
    assert_true(same());
    assert_int_equal(result.re_encoded_count, 1);
    options.asked.bits = 1;
    assert_false(same());
    assert_int_equal(result.differing[0].row, 150);
    assert_int_equal(result.differing[0].col, 64);
    assert_int_equal(result.differing[0].count, 1);
}

static void test_what_is_missing_is_listed(void **state)
{
    (void)state;
    add_both("m", CKPT_U8, 2, 2);
    memory_source_add(a, "z", CKPT_U8, 2, 2);
    memory_source_add(a, "c", CKPT_U8, 2, 2);
    memory_source_add(b, "d", CKPT_U8, 2, 2);
    assert_false(same());
    assert_int_equal(result.compared, 1);
    assert_int_equal(result.differing_count, 0);
    assert_int_equal(result.missing_in_a_count, 1);
    assert_string_equal(result.missing_in_a[0], "d");
    assert_int_equal(result.missing_in_b_count, 2);
    assert_string_equal(result.missing_in_b[0], "c");
    assert_string_equal(result.missing_in_b[1], "z");
}

static void test_main_leaves_out_mtp(void **state)
{
    (void)state;
    add_both("m", CKPT_U8, 2, 2);
    add_both("mtpx", CKPT_U8, 2, 2);
    memory_source_add(a, "mtp.0.a", CKPT_U8, 2, 2);
    memory_source_add(b, "mtp.0.b", CKPT_U8, 2, 2);
    ((uint8_t *)data(a, add_both("mtp.0.c", CKPT_U8, 2, 2)))[0] = 1;
    assert_false(same());
    assert_int_equal(result.compared, 3);
    options.asked.main_only = 1;
    assert_true(same());
    assert_int_equal(result.compared, 2);
}

static void test_shapes_and_classes_must_match(void **state)
{
    (void)state;
    memory_source_add(a, "s", CKPT_F32, 2, 6);
    memory_source_add(b, "s", CKPT_F32, 3, 4);
    memory_source_add(a, "c", CKPT_F32, 2, 6);
    memory_source_add(b, "c", CKPT_I32, 2, 6);
    assert_false(same());
    assert_int_equal(result.compared, 2);
    assert_int_equal(result.element_count, 0);
    assert_int_equal(result.differing[0].kind, CKPT_DIFFERENT_CLASS);
    assert_sides(&result.differing[0], "\"float\"", "\"int\"");
    assert_int_equal(result.differing[1].kind, CKPT_DIFFERENT_SHAPE);
    assert_sides(&result.differing[1], "[2, 6]", "[3, 4]");
}

static void test_integers_of_other_widths_are_values(void **state)
{
    const size_t x = memory_source_add(a, "x", CKPT_I8, 1, 3);
    const size_t y = memory_source_add(b, "x", CKPT_I64, 1, 3);

    (void)state;
    ((int8_t *)data(a, x))[1] = -5;
    ((int64_t *)data(b, y))[1] = -5;
    assert_true(same());
    ((int64_t *)data(b, y))[2] = INT64_MIN;
    assert_false(same());
    assert_sides(&result.differing[0], "0", "-9223372036854775808");
}

static void test_numbers_are_the_shortest_that_read_back(void **state)
{
    static const struct {
        float value;
        const char *text;
    } cases[] = {
        { 0.1f, "0.1" },
        { 16777216.0f, "16777216" },
        { 1e-45f, "1e-45" },
        { -3.4028235e38f, "-3.4028235e+38" },
        { 0.333333343f, "0.33333334" },
        { __builtin_inff(), "\"Infinity\"" },
        { -__builtin_inff(), "\"-Infinity\"" },
        { __builtin_nanf(""), "\"NaN\"" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[] = { 't', (char)('0' + i), '\0' };

        ((float *)data(a, add_both(name, CKPT_F32, 1, 1)))[0] = cases[i].value;
    }
    assert_false(same());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_sides(&result.differing[i], cases[i].text, "0");
}

static void test_nothing_to_compare_is_an_error(void **state)
{
    (void)state;
    memory_source_add(a, "x", CKPT_U8, 2, 2);
    memory_source_add(b, "y", CKPT_U8, 2, 2);
    assert_int_equal(compare(), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "nothing to compare"));
    add_both("mtp.0.x", CKPT_U8, 2, 2);
    options.asked.main_only = 1;
    assert_int_equal(compare(), CKPT_E_USAGE);
}

static void test_tensors_without_elements_are_the_same(void **state)
{
    (void)state;
    add_both("x", CKPT_BF16, 0, 5);
    add_both("y", CKPT_BF16, 5, 0);
    assert_int_equal(compare(), CKPT_E_USAGE);         /* alone they are nothing to compare */
    add_both("z", CKPT_BF16, 1, 1);
    assert_true(same());
    assert_int_equal(result.compared, 3);
}

/* The memory plan counts what B takes: just enough works, less is refused before anything runs. */
static void test_memory_is_planned_for_both(void **state)
{
    uint64_t low = 0;
    uint64_t high = UINT64_C(1) << 30;

    (void)state;
    fill(a, memory_source_add(a, "x", CKPT_F8_E4M3, 300, 5000));
    fill(b, memory_source_add(b, "x", CKPT_F32, 300, 5000));
    while (high - low > 1) {
        options.asked.run.memory_bytes = low + (high - low) / 2;
        if (compare() == CKPT_OK) {
            assert_true(ckpt_comparison_is_same(&result));
            high = options.asked.run.memory_bytes;
        } else {
            assert_int_equal(err.code, CKPT_E_MEMORY);
            assert_non_null(strstr(err.text, "memory limit"));
            low = options.asked.run.memory_bytes;
        }
    }
    assert_in_range(high, 128 * 5000 * 5, 128 * 5000 * 5 + 300000);
}

static int stop_at_once(void *context)
{
    (void)context;
    return 1;
}

static void test_a_stop_is_heeded(void **state)
{
    (void)state;
    add_both("x", CKPT_BF16, 10, 10);
    options.asked.run.cancel = stop_at_once;
    assert_int_equal(compare(), CKPT_E_INTERRUPTED);
}

/* ---- JSON ---- */

static int write_text(void *context, const char *bytes, size_t size)
{
    return fwrite(bytes, 1, size, context) != size;
}

static json_document *to_json(void)
{
    json_document *document;
    json_writer w;
    char *text;
    size_t size;
    FILE *file = open_memstream(&text, &size);

    json_writer_begin(&w, write_text, file, 1);
    json_put_object(&w);
    compare_put_members(&w, &result);
    json_put_object_end(&w);
    assert_true(json_writer_end(&w));
    fclose(file);
    assert_int_equal(json_parse(text, size, "result", &document, &err), CKPT_OK);
    free(text);
    return document;
}

static void test_the_document_has_the_members_of_the_contract(void **state)
{
    const size_t x = add_both("x", CKPT_F32, 2, 2);
    json_document *document;
    const json_value *first;
    uint64_t number;
    double value;
    int flag;

    (void)state;
    add_both("y", CKPT_F32, 2, 2);
    memory_source_add(a, "only a", CKPT_F32, 2, 2);
    ((float *)data(a, x))[3] = 0.5f;
    assert_false(same());
    document = to_json();
    assert_true(json_bool(json_member(json_root(document), "same"), &flag));
    assert_false(flag);
    assert_true(json_u64(json_member(json_root(document), "compared"), &number));
    assert_int_equal(number, 2);
    assert_int_equal(json_count(json_member(json_root(document), "differing")), 1);
    assert_int_equal(json_count(json_member(json_root(document), "missing_in_a")), 0);
    assert_string_equal(json_string(json_first(json_member(json_root(document),
                                                           "missing_in_b"))), "only a");
    assert_int_equal(json_count(json_member(json_root(document), "re_encoded")), 0);
    first = json_member(json_root(document), "first_difference");
    assert_true(json_equal(first, json_first(json_member(json_root(document), "differing"))));
    assert_string_equal(json_string(json_member(first, "name")), "x");
    assert_true(json_u64(json_member(first, "row"), &number));
    assert_int_equal(number, 1);
    assert_true(json_u64(json_member(first, "col"), &number));
    assert_int_equal(number, 1);
    assert_true(json_u64(json_member(first, "count"), &number));
    assert_int_equal(number, 1);
    assert_true(json_number(json_member(first, "a"), &value));
    assert_true(value == 0.5);
    assert_true(json_number(json_member(first, "b"), &value));
    assert_true(value == 0);
    json_free(document);
}

static void test_the_document_of_equals_has_no_first_difference(void **state)
{
    json_document *document;
    int flag;

    (void)state;
    add_both("x", CKPT_F32, 2, 2);
    assert_true(same());
    document = to_json();
    assert_true(json_bool(json_member(json_root(document), "same"), &flag));
    assert_true(flag);
    assert_true(json_is_null(json_member(json_root(document), "first_difference")));
    json_free(document);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_equal_bytes_are_the_same),
        TEST(test_the_first_difference_is_told),
        TEST(test_differences_are_sorted_by_name),
        TEST(test_zeros_and_nans_are_alike_but_re_encoded),
        TEST(test_encodings_make_no_difference),
        TEST(test_bits_calls_for_the_same_encoding),
        TEST(test_the_scale_of_a_zero_group_is_told_as_its_place),
        TEST(test_what_is_missing_is_listed),
        TEST(test_main_leaves_out_mtp),
        TEST(test_shapes_and_classes_must_match),
        TEST(test_integers_of_other_widths_are_values),
        TEST(test_numbers_are_the_shortest_that_read_back),
        TEST(test_nothing_to_compare_is_an_error),
        TEST(test_tensors_without_elements_are_the_same),
        TEST(test_memory_is_planned_for_both),
        TEST(test_a_stop_is_heeded),
        TEST(test_the_document_has_the_members_of_the_contract),
        TEST(test_the_document_of_equals_has_no_first_difference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
