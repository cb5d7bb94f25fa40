/* test_values.c: what encoders and digests ask about scales, and products that are no values. */
#include "libckpt/values.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "libckpt/scale.h"

enum { CODES = 11 };      /* one word of eight and a rest */

/* Every bound that is allowed, every code, in the word, at its end and in the rest. */
static void test_e8m0_within_finds_every_code_outside(void **state)
{
    static const size_t places[] = { 0, 3, 7, CODES - 1 };

    (void)state;
    for (unsigned low = 0; low <= 127; low++)
        for (unsigned high = 127; high <= 254; high++)
            for (unsigned code = 0; code <= 255; code++)
                for (size_t p = 0; p < sizeof places / sizeof places[0]; p++) {
                    uint8_t codes[CODES];

                    memset(codes, 127, sizeof codes);
                    codes[places[p]] = (uint8_t)code;
                    if (scale_e8m0_within(codes, CODES, (uint8_t)low, (uint8_t)high) !=
                        (code >= low && code <= high))
                        fail_msg("code %u in [%u, %u] at %zu", code, low, high, places[p]);
                }
}

static void test_no_codes_lie_within_anything(void **state)
{
    (void)state;
    assert_true(scale_e8m0_within(NULL, 0, 1, 254));
}

/* ---- products ---- */

/* In the second row and column of blocks. */
enum { ROWS = 131, COLS = 160, ROW = 129, COL = 150 };

/* Tile rows 128.. of a tensor whose codes and scales are all 1, but for one code and its scale. */
typedef struct {
    ckpt_tensor tensor;
    uint8_t codes[(ROWS - 128) * COLS];
    uint8_t scales[(ROWS - 128) * COLS / 32 * 4];
    ckpt_tile tile;
} odd_tile;

static void fill_tile(odd_tile *o, ckpt_dtype dtype, ckpt_dtype scale_dtype)
{
    const int is_fp4 = dtype == CKPT_F4;
    const uint16_t one_bf16 = 0x3F80;
    const float one = 1.0f;

    o->tensor = (ckpt_tensor){ .name = "w", .dtype = dtype, .scale_dtype = scale_dtype,
                               .block_rows = is_fp4 ? 1 : 128, .block_cols = is_fp4 ? 32 : 128,
                               .rank = 2, .shape = { ROWS, COLS } };
    memset(o->codes, is_fp4 ? 0x22 : 0x38, sizeof o->codes);
    for (size_t i = 0; i < sizeof o->scales / 4; i++) {
        if (scale_dtype == CKPT_F8_E8M0)
            o->scales[i] = 127;
        else if (scale_dtype == CKPT_BF16)
            memcpy(o->scales + 2 * i, &one_bf16, sizeof one_bf16);
        else
            memcpy(o->scales + 4 * i, &one, sizeof one);
    }
    o->tile = (ckpt_tile){ .part = { o->codes, o->scales } };
}

static void set_scale(odd_tile *o, float scale)
{
    const uint64_t first = 128 / o->tensor.block_rows;
    const uint64_t cols = ckpt_part_cols(&o->tensor, CKPT_SCALE);
    const uint64_t i = (ROW / o->tensor.block_rows - first) * cols + COL / o->tensor.block_cols;
    uint32_t bits;
    uint16_t half;

    memcpy(&bits, &scale, sizeof bits);
    half = (uint16_t)(bits >> 16);
    if (o->tensor.scale_dtype == CKPT_F8_E8M0)
        o->scales[i] = isnan(scale) ? 255 : (uint8_t)(ilogbf(scale) + 127);
    else if (o->tensor.scale_dtype == CKPT_BF16)
        memcpy(o->scales + 2 * i, &half, sizeof half);
    else
        memcpy(o->scales + 4 * i, &scale, sizeof scale);
}

static void set_code(odd_tile *o, unsigned code)
{
    const size_t at = (ROW - 128) * COLS + COL;

    if (o->tensor.dtype == CKPT_F4)
        o->codes[at / 2] = (uint8_t)(0x20 | code);        /* COL is even */
    else
        o->codes[at] = (uint8_t)code;
}

static double value_of(ckpt_dtype dtype, unsigned code)
{
    static const double fp4[8] = { 0, 0.5, 1, 1.5, 2, 3, 4, 6 };
    const int e = (int)(code >> 3 & 15);
    const double m = code & 7;

    if (dtype == CKPT_F4)
        return code > 7 ? -fp4[code & 7] : fp4[code];
    if ((code & 0x7F) == 0x7F)
        return (double)NAN;
    return (code > 0x7F ? -1 : 1) * (e == 0 ? ldexp(m, -9) : ldexp(8 + m, e - 10));
}

/* Refused when the product leaves F32, and only then; the other codes of the block are 1. */
static void check_product(odd_tile *o, unsigned code, float scale)
{
    const source_range range = { 0, 128, ROWS - 128, SOURCE_WANT_ALL };
    const float value = (float)value_of(o->tensor.dtype, code);
    const int is_wrong = isfinite(value) && isfinite(scale) && isinf(value * scale);
    char expected[96];
    ckpt_error err;
    ckpt_code got;

    set_code(o, code);
    set_scale(o, scale);
    got = values_check(&o->tensor, &range, &o->tile, &err);
    if ((got != CKPT_OK) != is_wrong)
        fail_msg("%s code 0x%02x, scale %a", ckpt_dtype_name(o->tensor.dtype), code, (double)scale);
    if (got == CKPT_OK)
        return;
    assert_int_equal(got, CKPT_E_FORMAT);
    snprintf(expected, sizeof expected, "row %d, column %d: code 0x%02X (%g) x scale %.9g", ROW,
             COL, code, (double)value, (double)scale);
    if (strstr(err.text, "'w'") == NULL || strstr(err.text, expected) == NULL)
        fail_msg("%s", err.text);
}

static void test_products_beyond_f32_are_refused_for_every_code_and_scale_byte(void **state)
{
    static const ckpt_dtype dtypes[] = { CKPT_F4, CKPT_F8_E4M3 };
    odd_tile o;

    (void)state;
    for (size_t d = 0; d < 2; d++) {
        fill_tile(&o, dtypes[d], CKPT_F8_E8M0);
        for (unsigned byte = 0; byte < 256; byte++)
            for (unsigned code = 0; code < (dtypes[d] == CKPT_F4 ? 16 : 256); code++)
                check_product(&o, code, byte == 255 ? NAN : ldexpf(1, (int)byte - 127));
    }
}

static void test_products_beyond_f32_are_refused_under_any_scale(void **state)
{
    static const ckpt_dtype scale_dtypes[] = { CKPT_F32, CKPT_BF16 };
    /* 448, 256 and 1 x s around the end of F32; what is no finite scale is no product. */
    static const float scales[] = {
        0x1.249248p119f, 0x1.24924ap119f, 0x1.26p119f, 0x1.fffffep119f, 0x1p120f, 0x1.fffffep127f,
        0x1p127f, 0x1p-127f, 0x1p-149f, 0, INFINITY, NAN, 1,
    };
    odd_tile o;

    (void)state;
    for (size_t d = 0; d < 2; d++) {
        fill_tile(&o, CKPT_F8_E4M3, scale_dtypes[d]);
        for (size_t i = 0; i < 2 * sizeof scales / sizeof *scales; i++)
            for (unsigned code = 0; code < 256; code++) {
                const float scale = i % 2 == 0 ? scales[i / 2] : -scales[i / 2];
                uint32_t bits;

                memcpy(&bits, &scale, sizeof bits);
                if (d == 0 || (bits & 0xFFFF) == 0)       /* BF16 lacks the others */
                    check_product(&o, code, scale);
            }
    }
}

static void test_elements_in_words(void **state)
{
    static const int32_t whole[2] = { 7, 8 };
    static const uint16_t halves[2] = { 0x3F80, 0x3FC0 };
    ckpt_tensor t = { .name = "w", .rank = 2, .shape = { 1, 2 } };
    ckpt_tile tile = { .part = { NULL } };
    char text[VALUES_TEXT_BYTES];
    odd_tile o;

    (void)state;
    t.dtype = CKPT_BF16;
    tile.part[CKPT_DATA] = (void *)(uintptr_t)halves;
    values_text(&t, &tile, 0, 1, text);
    assert_string_equal(text, "1.5");
    t.dtype = CKPT_I32;
    tile.part[CKPT_DATA] = (void *)(uintptr_t)whole;
    values_text(&t, &tile, 0, 1, text);
    assert_string_equal(text, "element");
    fill_tile(&o, CKPT_F4, CKPT_F8_E8M0);
    set_code(&o, 15);
    values_text(&o.tensor, &o.tile, ROW - 128, COL, text);
    assert_string_equal(text, "code 0x0F (-6) x scale 1 (0x7F)");
    values_text(&o.tensor, &o.tile, ROW - 128, COL + 1, text);
    assert_string_equal(text, "code 0x02 (1) x scale 1 (0x7F)");
    fill_tile(&o, CKPT_F8_E4M3, CKPT_BF16);
    values_text(&o.tensor, &o.tile, ROW - 128, COL, text);
    assert_string_equal(text, "code 0x38 (1) x scale 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_e8m0_within_finds_every_code_outside),
        cmocka_unit_test(test_no_codes_lie_within_anything),
        cmocka_unit_test(test_products_beyond_f32_are_refused_for_every_code_and_scale_byte),
        cmocka_unit_test(test_products_beyond_f32_are_refused_under_any_scale),
        cmocka_unit_test(test_elements_in_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
