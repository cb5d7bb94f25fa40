/* test_statistics.c: figures of tensors, whatever the tiles and threads. */
#include "verify/statistics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memory_source.h"

static memory_source *source;
static source_statistics result;
static statistics_options options;
static ckpt_error err;

static int set_up(void **state)
{
    (void)state;
    source = memory_source_create();
    memset(&options, 0, sizeof options);
    memset(&result, 0, sizeof result);
    options.codes = 1;
    options.exponents = 1;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    statistics_release(&result);
    memory_source_free(source);
    return 0;
}

static void measure(unsigned threads)
{
    statistics_release(&result);
    options.run.thread_count = threads;
    assert_int_equal(statistics_of_source(memory_source_base(source), &options, &result, &err),
                     CKPT_OK);
}

static void *data(size_t tensor)
{
    return memory_source_part(source, tensor, CKPT_DATA);
}

static void test_values_are_counted_and_summed(void **state)
{
    static const float values[] = { 1, -0.0f, 0, -3, NAN, 5, INFINITY, 0.5f };
    const size_t i = memory_source_add(source, "x", CKPT_F32, 2, 4);
    const tensor_statistics *s;

    (void)state;
    memcpy(data(i), values, sizeof values);
    measure(1);
    s = &result.tensors[i];
    assert_int_equal(s->count, 8);
    assert_int_equal(s->zeros, 2);
    assert_int_equal(s->nans, 1);
    assert_int_equal(s->infinities, 1);
    assert_true(s->min == -3 && s->max == 5);
    assert_true(statistics_mean(s) == 3.5 / 6);
    assert_true(statistics_rms(s) == sqrt(35.25 / 6));
    assert_int_equal(s->bad_row, 1);
    assert_int_equal(s->bad_col, 0);
    assert_int_equal(s->zero_rows, 0);
    assert_int_equal(s->exponents[127], 1);
    assert_int_equal(s->exponents[128], 1);
    assert_int_equal(s->exponents[126], 1);
}

static void test_zero_rows_have_a_place(void **state)
{
    const size_t i = memory_source_add(source, "x", CKPT_BF16, 300, 64);
    uint16_t *values = data(i);

    (void)state;
    for (size_t k = 0; k < 300 * 64; k++)
        values[k] = k / 64 == 7 || k / 64 == 299 ? 0x8000 : 0x3f80;
    measure(3);
    assert_int_equal(result.tensors[i].zero_rows, 2);
    assert_int_equal(result.tensors[i].first_zero_row, 7);
    assert_int_equal(result.tensors[i].zeros, 128);
    assert_int_equal(result.tensors[i].bad_row, UINT64_MAX);
}

static void test_codes_and_scales_are_counted(void **state)
{
    const size_t fp8 = memory_source_add(source, "a", CKPT_F8_E4M3, 256, 256);
    const size_t fp4 = memory_source_add(source, "b", CKPT_F4, 2, 64);
    uint8_t *scales = memory_source_part(source, fp8, CKPT_SCALE);
    uint8_t *packed = data(fp4);

    (void)state;
    memset(data(fp8), 0x38, 256 * 256);            /* 1.0 */
    ((uint8_t *)data(fp8))[5] = 0xfe;
    memcpy(scales, (uint8_t[]){ 127, 120, 0, 255 }, 4);
    memset(packed, 0x2f, 64);
    memset(memory_source_part(source, fp4, CKPT_SCALE), 127, 4);
    measure(2);
    assert_int_equal(result.tensors[fp8].codes[0x38], 256 * 256 - 1);
    assert_int_equal(result.tensors[fp8].saturated, 1);
    assert_true(result.tensors[fp8].min == -448 && result.tensors[fp8].max == 1);
    assert_int_equal(result.tensors[fp8].nans, 128 * 128);
    assert_int_equal(result.tensors[fp8].scales.count, 4);
    assert_int_equal(result.tensors[fp8].scales.zeros, 1);
    assert_int_equal(result.tensors[fp8].scales.nans, 1);
    assert_true(result.tensors[fp8].scales.min == ldexpf(1, -127));
    assert_true(result.tensors[fp8].scales.max == 1);
    assert_int_equal(result.tensors[fp4].codes[15], 64);
    assert_int_equal(result.tensors[fp4].codes[2], 64);
    assert_int_equal(result.tensors[fp4].saturated, 64);
    assert_true(result.tensors[fp4].min == -6 && result.tensors[fp4].max == 1);
}

/* Brief figures are made another way; what they have must be the same. Sums of squares are then
 * exact; else those of a row are rounded, where its scales are far apart. `high` is the largest
 * scale: from 253 on a product may be infinite, and 255 is NaN. */
static void compare_brief(size_t tensor, uint8_t high)
{
    const ckpt_tensor *t = ckpt_catalog_at(memory_source_catalog(source), tensor);
    uint8_t *scales = memory_source_part(source, tensor, CKPT_SCALE);
    tensor_statistics full;
    tensor_statistics brief;

    for (size_t g = 0; g < ckpt_part_bytes(t, CKPT_SCALE); g++)
        scales[g] = (uint8_t)(g % 7 == 0 ? high : 100 + g % 30);
    options.codes = options.exponents = options.brief = 0;
    measure(2);
    full = result.tensors[tensor];
    options.brief = 1;
    measure(2);
    brief = result.tensors[tensor];
    assert_int_equal(brief.count, full.count);
    assert_int_equal(brief.zeros, full.zeros);
    assert_int_equal(brief.nans, full.nans);
    assert_int_equal(brief.infinities, full.infinities);
    assert_int_equal(brief.zero_rows, full.zero_rows);
    assert_int_equal(brief.first_zero_row, full.first_zero_row);
    assert_int_equal(brief.bad_row, full.bad_row);
    assert_int_equal(brief.bad_col, full.bad_col);
    assert_int_equal(brief.saturated, full.saturated);
    assert_true(fabs(statistics_rms(&brief) / statistics_rms(&full) - 1) < 1e-14);
    assert_true(full.zero_rows == (high < 255) && full.saturated > 0);   /* 0 * NaN is NaN */
    assert_int_equal(full.infinities + full.nans > 0, high > 252);
}

static void test_brief_figures_of_fp8_are_those_of_the_values(void **state)
{
    const size_t i = memory_source_add(source, "x", CKPT_F8_E4M3, 256, 384);
    uint8_t *codes = data(i);

    (void)state;
    for (size_t k = 0; k < 256 * 384; k++)
        codes[k] = (uint8_t)(k / 384 == 9 ? 0x80 : (k * 37 + k / 5) % 127);
    compare_brief(i, 130);
    compare_brief(i, 255);
}

static void test_brief_figures_are_those_of_the_values(void **state)
{
    const size_t i = memory_source_add(source, "x", CKPT_F4, 40, 96);
    uint8_t *packed = data(i);

    (void)state;
    for (size_t k = 0; k < 40 * 48; k++)
        packed[k] = (uint8_t)(k / 48 == 9 ? (k & 1 ? 0x80 : 0x08) : k * 37 + k / 5);
    compare_brief(i, 130);
    compare_brief(i, 0);
    compare_brief(i, 252);
    compare_brief(i, 253);
    compare_brief(i, 255);
}

static void test_integers_have_a_range(void **state)
{
    static const int64_t values[] = { 4, -9, 0, 7 };
    static const uint64_t large[] = { UINT64_MAX, 3 };
    const size_t i = memory_source_add(source, "i", CKPT_I64, 2, 2);
    const size_t u = memory_source_add(source, "u", CKPT_U64, 1, 2);

    (void)state;
    memcpy(data(i), values, sizeof values);
    memcpy(data(u), large, sizeof large);
    measure(1);
    assert_int_equal(result.tensors[i].int_min, -9);
    assert_int_equal(result.tensors[i].int_max, 7);
    assert_int_equal(result.tensors[i].zeros, 1);
    assert_int_equal(result.tensors[u].int_min, INT64_MIN + 3);
    assert_int_equal(result.tensors[u].int_max, INT64_MAX);
}

static void test_threads_change_no_bit(void **state)
{
    const size_t i = memory_source_add(source, "x", CKPT_F32, 3000, 517);
    float *values = data(i);
    tensor_statistics one;
    uint64_t seed = 1;

    (void)state;
    for (size_t k = 0; k < 3000 * 517; k++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        values[k] = ldexpf((float)(int32_t)(seed >> 32), -31 - (int)(seed >> 13 & 31));
    }
    measure(1);
    one = result.tensors[i];
    for (unsigned threads = 2; threads < 6; threads++) {
        measure(threads);
        assert_memory_equal(&one.positive, &result.tensors[i].positive, sizeof one.positive);
        assert_memory_equal(&one.negative, &result.tensors[i].negative, sizeof one.negative);
        assert_memory_equal(&one.squares, &result.tensors[i].squares, sizeof one.squares);
        assert_true(one.min == result.tensors[i].min && one.max == result.tensors[i].max);
    }
}

static void test_unwanted_tensors_are_not_read(void **state)
{
    static const uint8_t wanted[] = { 0, 1 };
    const size_t no = memory_source_add(source, "no", CKPT_F32, 1, 4);
    const size_t yes = memory_source_add(source, "yes", CKPT_F32, 1, 4);

    (void)state;
    options.wanted = wanted;
    measure(1);
    assert_int_equal(result.tensors[no].count, 0);
    assert_true(isnan(statistics_mean(&result.tensors[no])));
    assert_int_equal(result.tensors[yes].count, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values_are_counted_and_summed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_zero_rows_have_a_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_codes_and_scales_are_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_brief_figures_are_those_of_the_values, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_brief_figures_of_fp8_are_those_of_the_values, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_integers_have_a_range, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_threads_change_no_bit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unwanted_tensors_are_not_read, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
