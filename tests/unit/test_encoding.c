/* The table of encodings: what it says of each is true, code by code and scale by scale. */
#include "libckpt/encoding.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static ckpt_tensor tensor_of(encoding_id id, ckpt_dtype scale, uint64_t rows, uint64_t cols)
{
    ckpt_tensor t = { .name = "t", .rank = 2, .shape = { rows, cols } };

    encoding_set(&t, id, scale);
    return t;
}

/* By the formats' definitions, without the kernels. NaN codes are left out. */
static int code_value(ckpt_dtype codes, unsigned code, double *out)
{
    static const double e2m1[] = { 0, .5, 1, 1.5, 2, 3, 4, 6 };
    const unsigned exponent = code >> 3 & 15;

    if (codes == CKPT_F4) {
        *out = e2m1[code & 7];
        return code < 8;
    }
    *out = exponent == 0 ? ldexp(code & 7, -9) : ldexp(8 + (code & 7), (int)exponent - 10);
    return code < 0x7F;
}

static int is_bf16(double value)
{
    const float narrow = (float)value;
    uint32_t bits;

    memcpy(&bits, &narrow, sizeof bits);
    return (double)narrow == value && bits << 16 == 0;
}

static void test_every_tensor_made_by_the_table_is_found_in_it(void **state)
{
    (void)state;
    for (int id = 0; id < ENCODING_COUNT; id++) {
        const ckpt_encoding *e = encoding_at((encoding_id)id);

        if (e->tensor_scale == CKPT_TENSOR_SCALE_NONE)
            assert_int_equal(encoding_find(e->codes, e->block_rows, e->block_cols), id);
        for (int scale = 1; scale < CKPT_DTYPE_COUNT; scale++) {
            const ckpt_tensor t = tensor_of((encoding_id)id, (ckpt_dtype)scale, 128, 128);
            const int is_known = (e->scales >> scale & 1) != 0;

            assert_int_equal(encoding_id_of(&t), id);
            assert_ptr_equal(encoding_of(&t), is_known ? e : NULL);
            assert_int_equal(encoding_problem(&t) == NULL, is_known);
            for (int other = 0; other < ENCODING_COUNT; other++)
                assert_int_equal(encoding_is(&t, (encoding_id)other), is_known && other == id);
        }
    }
}

static void test_limits_of_scales_are_those_of_all_products(void **state)
{
    (void)state;
    for (int id = 0; id < ENCODING_COUNT; id++) {
        const ckpt_encoding *e = encoding_at((encoding_id)id);
        double largest = 0;

        if (e->finite_high == 0)                    /* it never has E8M0 scales */
            continue;

        for (unsigned scale = 0; scale < 255; scale++) {
            int is_finite = 1;
            int is_exact = 1;

            for (unsigned code = 0; code < 256; code++) {
                double value;

                if (!code_value(e->codes, code, &value))
                    continue;
                largest = fmax(largest, value);
                value = ldexp(value, (int)scale - 127);
                is_finite &= isfinite((float)value);
                is_exact &= is_bf16(value);
            }
            assert_int_equal(is_finite, scale <= e->finite_high);
            if (scale >= e->exact_low && scale <= e->exact_high)
                assert_true(is_exact);
        }
        assert_true(largest == (double)e->largest);
    }
}

static void test_shapes_that_an_encoding_cannot_have_are_told(void **state)
{
    ckpt_tensor t = tensor_of(ENCODING_FP4_32, CKPT_F8_E8M0, 2, 48);

    (void)state;
    assert_string_equal(encoding_problem(&t), "its columns are not whole groups of 32");
    t = tensor_of(ENCODING_FP8_128, CKPT_F32, 3, 5);
    assert_null(encoding_problem(&t));
    t.rank = 1;
    assert_string_equal(encoding_problem(&t), "only matrices have blocks");
    t.rank = 3;
    t.shape[2] = 7;
    assert_string_equal(encoding_problem(&t), "blocks would cross its matrices");
    t.block_cols = 64;
    assert_string_equal(encoding_problem(&t), "there is no such encoding");
}

static void test_plain_dtypes_without_values_are_not_in_the_table(void **state)
{
    static const ckpt_dtype none[] = { CKPT_NONE,        CKPT_F6_E2M3,     CKPT_F6_E3M2, CKPT_C64,
                                       CKPT_F8_E4M3FNUZ, CKPT_F8_E5M2FNUZ, CKPT_F64,
                                       CKPT_I4 };

    (void)state;
    for (int dtype = 0; dtype < CKPT_DTYPE_COUNT; dtype++) {
        const ckpt_tensor t = { .name = "t", .dtype = (ckpt_dtype)dtype };
        int is_known = 1;

        for (size_t i = 0; i < sizeof none / sizeof *none; i++)
            is_known &= none[i] != (ckpt_dtype)dtype;
        assert_int_equal(encoding_of(&t) != NULL, is_known);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_tensor_made_by_the_table_is_found_in_it),
        cmocka_unit_test(test_limits_of_scales_are_those_of_all_products),
        cmocka_unit_test(test_shapes_that_an_encoding_cannot_have_are_told),
        cmocka_unit_test(test_plain_dtypes_without_values_are_not_in_the_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
