/* test_kernels_quantise.c: maxima and encoders with given scales, and their count of exactness. */
#include "test_kernels.h"

/* ---- largest magnitude ---- */

static void check_amax(const float *src, size_t rows, size_t cols, size_t pitch)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    float largest = 0.0f;
    int any_nan = 0;

    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            any_nan |= isnan(src[r * pitch + c]);
            largest = fmaxf(largest, fabsf(src[r * pitch + c]));
        }
    for (size_t s = 0; s < set_count; s++) {
        const uint32_t got = bits_of(sets[s]->f32_block_amax(src, rows, cols, pitch));

        if (got != (any_nan ? 0x7FC00000u : bits_of(largest)))
            fail_msg("%s f32_block_amax of %zu x %zu is %08x", sets[s]->name, rows, cols, got);
    }
}

/* The same of BF16, against scalar code for the same values as F32. */
static void check_half_amax(const float *src, size_t rows, size_t cols, size_t pitch)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint16_t *halves = buffer_new((rows * pitch + 1) * sizeof *halves);
    float *values = buffer_new((rows * pitch + 1) * sizeof *values);

    for (size_t i = 0; i < rows * pitch; i++) {
        halves[i] = (uint16_t)(bits_of(src[i]) >> 16 | (isnan(src[i]) ? 0x40u : 0));
        values[i] = float_of((uint32_t)halves[i] << 16);
    }
    for (size_t s = 0; s < set_count; s++)
        assert_int_equal(bits_of(sets[s]->bf16_block_amax(halves, rows, cols, pitch)),
                         bits_of(sets[0]->f32_block_amax(values, rows, cols, pitch)));
    free(values);
    free(halves);
}

static void test_amax_finds_the_largest_magnitude_wherever_it_is(void **state)
{
    enum { ROWS = 5, PITCH = 80 };
    float src[ROWS * PITCH];

    (void)state;
    for (size_t cols = 0; cols <= 70; cols++)
        for (size_t position = 0; position < ROWS * cols; position++) {
            const size_t at = position / (cols > 0 ? cols : 1) * PITCH + position % cols;

            for (size_t i = 0; i < ROWS * PITCH; i++)
                src[i] = i % PITCH < cols ? random_float(-20, 1) : INFINITY;
            check_amax(src, ROWS, cols, PITCH);
            src[at] = position % 2 == 0 ? -100.0f : 100.0f;
            check_amax(src, ROWS, cols, PITCH);
            src[at] = float_of(position % 2 == 0 ? 0xFF800001u : 0x7FFFFFFFu);
            check_amax(src, ROWS, cols, PITCH);
            if (cols % 5 == 0 || cols % 32 == 0)
                check_half_amax(src, ROWS, cols, PITCH);
            src[at] = position % 2 == 0 ? -INFINITY : INFINITY;
            check_amax(src, ROWS, cols, PITCH);
            if (cols % 5 == 0 || cols % 32 == 0)
                check_half_amax(src, ROWS, cols, PITCH);
        }
}

static void test_amax_of_nothing_is_zero(void **state)
{
    const float src[2] = { 1.0f, -0.0f };

    (void)state;
    check_amax(src, 0, 0, 0);
    check_amax(src, 0, 2, 2);
    check_amax(src, 2, 0, 1);
    check_amax(src + 1, 1, 1, 1);
    check_half_amax(src, 0, 0, 0);
    check_half_amax(src, 2, 0, 1);
    check_half_amax(src + 1, 1, 1, 1);
}

/* ---- references ---- */

static uint32_t quantise_reference(small_format f, float quotient, uint32_t nan_code)
{
    const uint32_t sign = signbit(quotient) ? 1u << (f.exponent_bits + f.mantissa_bits) : 0;
    const double magnitude = fmin(fabs((double)quotient), small_value(f, f.last));

    if (isnan(quotient))
        return nan_code;
    return small_nearest(f, magnitude) | sign;
}

static int same_value(double code_value, float scale, float source)
{
    const float decoded = (float)(code_value * (double)scale);

    return !isnan(source) && !isnan(decoded) && bits_of(decoded) == bits_of(source);
}

static void result_note(encode_result *r, uint64_t index)
{
    if (r->inexact_count++ == 0)
        r->first_inexact = index;
}

static void result_check(encode_result got, encode_result expected, const char *set)
{
    if (got.inexact_count != expected.inexact_count)
        fail_msg("%s counts %llu inexact elements, not %llu", set,
                 (unsigned long long)got.inexact_count,
                 (unsigned long long)expected.inexact_count);
    if (expected.inexact_count > 0 && got.first_inexact != expected.first_inexact)
        fail_msg("%s finds the first inexact element at %llu, not %llu", set,
                 (unsigned long long)got.first_inexact,
                 (unsigned long long)expected.first_inexact);
}

/* ---- FP8 blocks ---- */

typedef struct {
    const float *src;
    size_t rows;
    size_t cols;
    size_t pitch;
    float scale;
} block;

/* Every set's codes, count and untouched gaps between rows, against division and search. */
static void check_fp8_block(block b)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    const size_t codes_pitch = b.cols + 3;
    const size_t size = b.rows * codes_pitch;
    uint8_t *expected = buffer_new(size);
    encode_result result = { 0, 0 };

    memset(expected, GUARD_FILL, size);
    for (size_t r = 0; r < b.rows; r++)
        for (size_t c = 0; c < b.cols; c++) {
            const float x = b.src[r * b.pitch + c];
            const uint32_t code = quantise_reference(FORMAT_E4M3, x / b.scale, 0x7F);

            expected[r * codes_pitch + c] = (uint8_t)code;
            if (!same_value(e4m3_reference(code), b.scale, x))
                result_note(&result, r * b.cols + c);
        }
    for (size_t s = 0; s < set_count; s++) {
        guarded g = guarded_new(size, 1);

        result_check(sets[s]->f32_block_to_fp8(b.src, b.rows, b.cols, b.pitch, b.scale, g.dst,
                                               codes_pitch), result, sets[s]->name);
        guarded_check(g, expected, "f32_block_to_fp8");
    }
    free(expected);
}

static void test_fp8_blocks_encode_random_values_under_any_scale(void **state)
{
    static const uint32_t scales[] = {
        0x3F800000, 0x3C000000, 0x00400000, 0x00800000, 0x7F000000, 0x3DCCCCCD, 0x00000000,
        0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xBF800000, 0x00000001, 0x7F7FFFFF,
        0x40400000, 0x00300000
    };
    enum { ROWS = 3, PITCH = 140 };
    float src[ROWS * PITCH];

    (void)state;
    for (size_t i = 0; i < 4000; i++) {
        const float scale = i < COUNT(scales) ? float_of(scales[i])
                            : i % 2 == 0 ? ldexpf(1.0f, (int)(i % 250) - 125)
                                         : random_float(-12, 3);
        const int exponent = ilogbf(scale);
        const int ordinary = exponent > -110 && exponent < 110;

        for (size_t j = 0; j < ROWS * PITCH; j++)
            src[j] = j % 8 == 0 ? float_of(random32())
                     : ordinary ? random_float(exponent - 12, exponent + 9)
                                : random_float(-126, 127);
        check_fp8_block((block){ src, ROWS, i % 133, PITCH, scale });
    }
}

/* Every code times the scale encodes to itself, or, for NaN, is the only inexact element. */
static void test_fp8_blocks_restore_every_code(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);

    (void)state;
    for (uint32_t e = 10; e <= 246; e++)
        for (size_t s = 0; s < set_count; s++) {
            const float scale = (float)e8m0_reference(e);
            uint8_t codes[256];
            float x[256];
            encode_result r;

            for (uint32_t i = 0; i < 256; i++)
                x[i] = (float)e4m3_reference(i) * scale;
            r = sets[s]->f32_block_to_fp8(x, 2, 128, 128, scale, codes, 128);
            assert_int_equal(r.inexact_count, 2);
            assert_int_equal(r.first_inexact, 127);
            for (uint32_t i = 0; i < 256; i++)
                assert_int_equal(codes[i], (i & 0x7F) == 0x7F ? 0x7F : i);
        }
}

/* One value off by an ulp, at each place: it must be counted, and located. */
static void test_an_inexact_element_is_found_at_every_position(void **state)
{
    enum { ROWS = 3, COLS = 45 };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    float x[ROWS * COLS];
    uint8_t codes[ROWS * COLS];

    (void)state;
    for (size_t i = 0; i < ROWS * COLS; i++)
        x[i] = (float)e4m3_reference((uint32_t)(i % 0x7E) + 1) * 0.25f;
    for (size_t i = 0; i < ROWS * COLS; i++)
        for (size_t s = 0; s < set_count; s++) {
            const float saved = x[i];
            encode_result r;

            x[i] = float_of(bits_of(saved) + 1);
            x[ROWS * COLS - 1] = 3.14159f;
            r = sets[s]->f32_block_to_fp8(x, ROWS, COLS, COLS, 0.25f, codes, COLS);
            assert_int_equal(r.inexact_count, i == ROWS * COLS - 1 ? 1 : 2);
            assert_int_equal(r.first_inexact, i);
            x[ROWS * COLS - 1] = 1.0f;
            x[i] = i == ROWS * COLS - 1 ? 1.0f : saved;
        }
}

/* ---- FP4 rows ---- */

static void check_fp4_row(const float *src, const uint8_t *scale, size_t cols)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t *expected = buffer_new(cols / 2);
    encode_result result = { 0, 0 };

    memset(expected, 0, cols / 2);
    for (size_t c = 0; c < cols; c++) {
        const float s = (float)e8m0_reference(scale[c / FP4_GROUP]);
        const uint32_t code = quantise_reference(FORMAT_E2M1, src[c] / s, 7);

        expected[c / 2] = (uint8_t)(expected[c / 2] | code << (c % 2 * 4));
        if (!same_value(e2m1_reference(code), s, src[c]))
            result_note(&result, c);
    }
    for (size_t s = 0; s < set_count; s++) {
        guarded g = guarded_new(cols / 2, 3);

        result_check(sets[s]->f32_row_to_fp4(src, scale, cols, g.dst), result, sets[s]->name);
        guarded_check(g, expected, "f32_row_to_fp4");
    }
    free(expected);
}

static void test_fp4_rows_encode_random_values_under_every_scale(void **state)
{
    enum { GROUPS = 256 * 8, COLS = GROUPS * FP4_GROUP };
    float *src = buffer_new(COLS * sizeof *src);
    uint8_t *scale = buffer_new(GROUPS);

    (void)state;
    for (size_t g = 0; g < GROUPS; g++)
        scale[g] = (uint8_t)(g / 8);
    for (size_t c = 0; c < COLS; c++) {
        const int e = (int)scale[c / FP4_GROUP] - 127;
        const int from = e - 4 < -126 ? -127 : e - 4;

        src[c] = c % 8 == 0 ? float_of(random32())
                 : c % 8 < 4 ? random_float(from, e + 3 > 127 ? 127 : e + 3)
                             : (float)(e2m1_reference(random32() & 15) * ldexp(1.0, e));
    }
    check_fp4_row(src, scale, COLS);
    for (size_t cols = 0; cols < 20 * FP4_GROUP; cols += FP4_GROUP)
        check_fp4_row(src + 4096, scale + 128, cols);
    free(scale);
    free(src);
}

static void test_fp4_rows_restore_every_code_under_every_finite_scale(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);

    (void)state;
    for (uint32_t e = 0; e <= 252; e++)
        for (size_t s = 0; s < set_count; s++) {
            const uint8_t scale = (uint8_t)e;
            uint8_t packed[FP4_GROUP / 2];
            float x[FP4_GROUP];

            for (uint32_t i = 0; i < FP4_GROUP; i++)
                x[i] = (float)(e2m1_reference(i % 16) * e8m0_reference(e));
            assert_int_equal(sets[s]->f32_row_to_fp4(x, &scale, FP4_GROUP, packed).inexact_count,
                             0);
            assert_memory_equal(packed, "\x10\x32\x54\x76\x98\xBA\xDC\xFE", 8);
            x[17] = float_of(bits_of(x[17]) ^ 1);
            assert_int_equal(sets[s]->f32_row_to_fp4(x, &scale, FP4_GROUP, packed).first_inexact,
                             17);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_amax_finds_the_largest_magnitude_wherever_it_is),
        cmocka_unit_test(test_amax_of_nothing_is_zero),
        cmocka_unit_test(test_fp8_blocks_encode_random_values_under_any_scale),
        cmocka_unit_test(test_fp8_blocks_restore_every_code),
        cmocka_unit_test(test_an_inexact_element_is_found_at_every_position),
        cmocka_unit_test(test_fp4_rows_encode_random_values_under_every_scale),
        cmocka_unit_test(test_fp4_rows_restore_every_code_under_every_finite_scale)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
