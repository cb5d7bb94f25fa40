/* test_logits.c: limits, and two small files of logits. */
#include "verify/logits.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { WIDTH = 4, ROWS = 2 };

static char folder[] = "/tmp/test_logits.XXXXXX";
static char a_path[64];
static char b_path[64];
static logits_limits limits;
static logits_comparison result;
static ckpt_error err;

static int set_up_group(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return 1;
    snprintf(a_path, sizeof a_path, "%s/a.safetensors", folder);
    snprintf(b_path, sizeof b_path, "%s/b.safetensors", folder);
    return 0;
}

static int tear_down_group(void **state)
{
    (void)state;
    unlink(a_path);
    unlink(b_path);
    return rmdir(folder);
}

static int set_up(void **state)
{
    (void)state;
    for (int m = 0; m < LOGITS_MEASURE_COUNT; m++)
        limits[m] = (double)NAN;
    return 0;
}

static void write_file(const char *path, const char *header, const void *data, size_t size)
{
    const uint64_t length = strlen(header);
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(&length, sizeof length, 1, f), 1);
    assert_int_equal(fwrite(header, length, 1, f), 1);
    assert_int_equal(fwrite(data, size, 1, f), 1);
    assert_int_equal(fclose(f), 0);
}

/* Two positions of a prompt of two tokens. */
static void write_logits(const char *path, const float rows[ROWS * WIDTH])
{
    static const int32_t tokens[] = { 3, 1 };
    char data[sizeof tokens + ROWS * WIDTH * sizeof *rows];

    memcpy(data, rows, ROWS * WIDTH * sizeof *rows);
    memcpy(data + ROWS * WIDTH * sizeof *rows, tokens, sizeof tokens);
    write_file(path, "{\"logits\":{\"dtype\":\"F32\",\"shape\":[2,4],\"data_offsets\":[0,32]},"
               "\"tokens\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[32,40]}}",
               data, sizeof data);
}

static void compare(const float a[ROWS * WIDTH], const float b[ROWS * WIDTH])
{
    const logits_input left = { a_path, NULL };
    const logits_input right = { b_path, NULL };

    write_logits(a_path, a);
    write_logits(b_path, b);
    assert_int_equal(logits_compare(&left, &right, &result, &err), CKPT_OK);
}

static const float some[ROWS * WIDTH] = { 0, 1, 2, 3, 5, 5, -1, 0.5f };

static void test_the_same_logits_are_the_same(void **state)
{
    (void)state;
    compare(some, some);
    assert_true(result.bit_identical);
    assert_true(logits_is_same(&result, limits));
    assert_int_equal(result.position_count, ROWS);
    assert_int_equal(result.value_count, ROWS * WIDTH);
    assert_true(result.measures[LOGITS_KL_MAX] == 0);
    assert_true(result.measures[LOGITS_TOP1] == 1);
    assert_true(result.measures[LOGITS_TOP5] == 1);
    assert_int_equal(result.top_count, WIDTH);
    logits_release(&result);
}

static void test_one_flipped_bit_is_found(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROWS * WIDTH; i++)
        for (unsigned bit = 0; bit < 32; bit++) {
            float other[ROWS * WIDTH];
            uint32_t code;

            memcpy(other, some, sizeof other);
            memcpy(&code, &other[i], sizeof code);
            code ^= UINT32_C(1) << bit;
            memcpy(&other[i], &code, sizeof code);
            compare(some, other);
            assert_false(logits_is_same(&result, limits));
            assert_int_equal(result.different_count, 1);
            assert_int_equal(result.first.position, i / WIDTH);
            assert_int_equal(result.first.id, i % WIDTH);
            logits_release(&result);
        }
}

static void test_a_nan_is_beyond_every_limit(void **state)
{
    float other[ROWS * WIDTH];

    (void)state;
    memcpy(other, some, sizeof other);
    other[6] = NAN;
    compare(other, other);
    assert_true(result.bit_identical);
    assert_int_equal(result.non_finite_count, 2);
    assert_false(logits_is_same(&result, limits));
    for (int m = 0; m < LOGITS_TOP1; m++) {
        limits[m] = 1e300;
        assert_true(logits_is_exceeded(&result, limits, (logits_measure)m));
    }
    logits_release(&result);
}

static void test_limits_hold_at_their_value(void **state)
{
    const float other[ROWS * WIDTH] = { 0, 1, 2, 3.5f, 5, 5, -1, 0.5f };

    (void)state;
    compare(some, other);
    for (int m = 0; m < LOGITS_TOP1; m++) {
        limits[m] = result.measures[m];
        assert_false(logits_is_exceeded(&result, limits, (logits_measure)m));
        if (result.measures[m] > 0)
            limits[m] = nextafter(result.measures[m], 0);
        assert_int_equal(logits_is_exceeded(&result, limits, (logits_measure)m),
                         result.measures[m] > 0);
        limits[m] = (double)NAN;
    }
    assert_true(result.measures[LOGITS_ABS_MAX] == 0.5);
    assert_true(result.measures[LOGITS_ABS_MEAN] == 0.5 / 8);
    assert_false(logits_is_same(&result, limits));
    limits[LOGITS_ABS_MAX] = 0.5;
    assert_true(logits_is_same(&result, limits));
    logits_release(&result);
}

static void test_of_equal_logits_the_lower_id_is_best(void **state)
{
    const float other[ROWS * WIDTH] = { 0, 1, 2, 3, 5, 5.5f, -1, 0.5f };

    (void)state;
    compare(some, other);
    assert_int_equal(result.positions[0].top1, 1);
    assert_int_equal(result.positions[1].top1, 0);
    assert_true(result.measures[LOGITS_TOP1] == 0.5);
    logits_release(&result);
}

static void test_a_lower_limit_is_one(void **state)
{
    const float other[ROWS * WIDTH] = { 0, 1, 2, 3, 5, 5.5f, -1, 0.5f };

    (void)state;
    compare(some, other);
    limits[LOGITS_TOP1] = 0.5;
    assert_true(logits_is_same(&result, limits));
    limits[LOGITS_TOP1] = 0.51;
    assert_false(logits_is_same(&result, limits));
    logits_release(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_the_same_logits_are_the_same, set_up),
        cmocka_unit_test_setup(test_one_flipped_bit_is_found, set_up),
        cmocka_unit_test_setup(test_a_nan_is_beyond_every_limit, set_up),
        cmocka_unit_test_setup(test_limits_hold_at_their_value, set_up),
        cmocka_unit_test_setup(test_of_equal_logits_the_lower_id_is_best, set_up),
        cmocka_unit_test_setup(test_a_lower_limit_is_one, set_up),
    };

    return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
