/* test_common_pt.c: the options of a run, written, read, and damaged. */
#include "formats/torch_dist/common_pt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "temporary.h"

static const common_arg freq[] = { { .kind = COMMON_INT, .integer = 0 },
                                   { .kind = COMMON_INT, .integer = 1 } };
static const common_arg example_args[] = {
    { .name = "num_layers", .kind = COMMON_INT, .integer = 43 },
    { .name = "norm_epsilon", .kind = COMMON_FLOAT, .number = 1e-6 },
    { .name = "bf16", .kind = COMMON_BOOL, .integer = 1 },
    { .name = "tokenizer_type", .kind = COMMON_TEXT, .text = "HF" },
    { .name = "nothing", .kind = COMMON_NONE },
    { .name = "moe_layer_freq", .kind = COMMON_LIST, .items = freq, .item_count = 2 },
};
enum { ARG_COUNT = sizeof example_args / sizeof example_args[0] };
static const common_pt example = { .args = example_args, .arg_count = ARG_COUNT, .iteration = 1 };

static ckpt_code read_bytes(const unsigned char *bytes, size_t size, common_pt **out,
                            ckpt_error *err)
{
    ckpt_file *file = temporary_file(bytes, size, 0);
    const ckpt_code code = common_pt_read(file, 0, size, out, err);

    assert_int_equal(file_close(file, NULL), CKPT_OK);
    return code;
}

static void test_what_was_written_is_read_back(void **state)
{
    unsigned char *bytes;
    common_pt *common;
    ckpt_error err;
    size_t size;

    (void)state;
    assert_int_equal(common_pt_write(&example, &bytes, &size, &err), CKPT_OK);
    assert_int_equal(read_bytes(bytes, size, &common, &err), CKPT_OK);
    assert_true(common->has_args);
    assert_int_equal(common->arg_count, ARG_COUNT);
    assert_int_equal(common->iteration, 1);
    assert_true(common->checkpoint_version == 3.0);
    assert_int_equal(common_pt_find(common, "num_layers")->integer, 43);
    assert_true(common_pt_find(common, "norm_epsilon")->number == 1e-6);
    assert_int_equal(common_pt_find(common, "bf16")->kind, COMMON_BOOL);
    assert_string_equal(common_pt_find(common, "tokenizer_type")->text, "HF");
    assert_int_equal(common_pt_find(common, "nothing")->kind, COMMON_NONE);
    assert_int_equal(common_pt_find(common, "moe_layer_freq")->items[1].integer, 1);
    assert_null(common_pt_find(common, "absent"));
    common_pt_free(common);
    free(bytes);
}

static void test_the_bytes_are_always_the_same(void **state)
{
    unsigned char *a;
    unsigned char *b;
    size_t a_bytes;
    size_t b_bytes;
    ckpt_error err;

    (void)state;
    assert_int_equal(common_pt_write(&example, &a, &a_bytes, &err), CKPT_OK);
    assert_int_equal(common_pt_write(&example, &b, &b_bytes, &err), CKPT_OK);
    assert_int_equal(a_bytes, b_bytes);
    assert_memory_equal(a, b, a_bytes);
    free(a);
    free(b);
}

static void test_what_cannot_be_written_is_refused(void **state)
{
    static const common_arg other = { .name = "x", .kind = COMMON_OTHER };
    static const common_arg nested[] = { { .kind = COMMON_LIST } };
    static const common_arg list = { .name = "x", .kind = COMMON_LIST, .items = nested,
                                     .item_count = 1 };
    const common_pt bad[] = { { .args = &other, .arg_count = 1 },
                              { .args = &list, .arg_count = 1 } };
    unsigned char *bytes;
    ckpt_error err;
    size_t size;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(common_pt_write(&bad[i], &bytes, &size, &err), CKPT_E_USAGE);
        assert_null(bytes);
    }
}

/* The CRC of data.pkl finds every change of the values. */
static void test_a_flipped_bit_is_refused_or_harmless(void **state)
{
    unsigned char *bytes;
    unsigned refused = 0;
    ckpt_error err;
    size_t size;

    (void)state;
    assert_int_equal(common_pt_write(&example, &bytes, &size, &err), CKPT_OK);
    for (size_t bit = 0; bit < 8 * size; bit += 5) {
        common_pt *common;

        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        if (read_bytes(bytes, size, &common, &err) == CKPT_OK) {
            assert_int_equal(common->arg_count, ARG_COUNT);
            assert_int_equal(common_pt_find(common, "num_layers")->integer, 43);
            common_pt_free(common);
        } else {
            refused++;
        }
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    assert_true(refused > 500);
    free(bytes);
}

static void test_a_cut_file_is_refused(void **state)
{
    unsigned char *bytes;
    common_pt *common;
    ckpt_error err;
    size_t size;

    (void)state;
    assert_int_equal(common_pt_write(&example, &bytes, &size, &err), CKPT_OK);
    for (size_t cut = 0; cut < size; cut += 7) {
        assert_int_equal(read_bytes(bytes, cut, &common, &err), CKPT_E_FORMAT);
        assert_null(common);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_written_is_read_back),
        cmocka_unit_test(test_the_bytes_are_always_the_same),
        cmocka_unit_test(test_what_cannot_be_written_is_refused),
        cmocka_unit_test(test_a_flipped_bit_is_refused_or_harmless),
        cmocka_unit_test(test_a_cut_file_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
