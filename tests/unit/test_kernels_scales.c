/* test_kernels_scales.c: scale rules of all BF16 maxima, and codes of all BF16 values, against
 * arithmetic in double. */
#include "test_kernels.h"

enum { BF16_FINITE = 0x7F80 };      /* codes 0 .. 0x7F7F are the finite magnitudes */

static float bf16_value(uint32_t code)
{
    return float_of(code << 16);
}

/* The least code b with 2^(b - 127) >= v. */
static uint32_t ceil_reference(float v)
{
    uint32_t b = 0;

    while (ldexp(1.0, (int)b - 127) < (double)v)
        b++;
    return b;
}

/* The exponent of a, less k; 0 below. Mantissas from `carry` on count as the next power. */
static uint32_t floor_reference(float a, int k, double carry)
{
    int exponent = 0;
    double mantissa;

    if (a < 0x1p-126f)              /* subnormal: the field is 0, unless a carry makes it 1 */
        return 0;
    mantissa = 2 * frexp((double)a, &exponent);
    exponent += mantissa >= carry ? 0 : -1;
    return exponent > 127 ? 255 : exponent + 127 > k ? (uint32_t)(exponent + 127 - k) : 0;
}

static uint32_t code_reference(scale_rule rule, float a)
{
    switch (rule) {
    case SCALE_FP8_CEIL:
        return ceil_reference(fmaxf(a, 1e-4f) * (1.0f / 448.0f));
    case SCALE_MXFP8_CEIL:
        return ceil_reference(a * (1.0f / 448.0f));
    case SCALE_MXFP8_FLOOR:
        return floor_reference(a, 8, 4.0);
    case SCALE_FP4_CEIL:
        return ceil_reference(fmaxf(a, 6 * 0x1p-126f) * (1.0f / 6.0f));
    case SCALE_FP4_FLOOR:
        return floor_reference(a, 2, 4.0);
    default:
        return floor_reference(a, 2, 1.75);
    }
}

static float *all_bf16(size_t *count)
{
    float *values = buffer_new(BF16_FINITE * sizeof *values);

    for (uint32_t i = 0; i < BF16_FINITE; i++)
        values[i] = bf16_value(i);
    *count = BF16_FINITE;
    return values;
}

typedef struct {
    float scale[BF16_FINITE];
    float divisor[BF16_FINITE];
    float peak[BF16_FINITE];
    uint8_t code[BF16_FINITE];
} scales;

static const scale_rule powers[] = { SCALE_FP8_CEIL, SCALE_MXFP8_CEIL, SCALE_MXFP8_FLOOR,
                                     SCALE_FP4_CEIL, SCALE_FP4_FLOOR, SCALE_FP4_EVEN };

static void test_powers_of_every_bf16_maximum(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    size_t count;
    float *amax = all_bf16(&count);
    scales *got = buffer_new(sizeof *got);
    const block_scales out = { got->scale, got->divisor, got->peak, got->code };

    (void)state;
    for (size_t r = 0; r < COUNT(powers); r++)
        for (size_t s = 0; s < set_count; s++) {
            sets[s]->amax_to_scale(powers[r], amax, count, 1.0f, &out);
            for (size_t i = 0; i < count; i++) {
                const uint32_t code = code_reference(powers[r], amax[i]);

                if (got->code[i] != code)
                    fail_msg("%s: rule %d of %a is %u, not %u", sets[s]->name, (int)powers[r],
                             (double)amax[i], got->code[i], code);
                if (code < 255)
                    assert_true((double)got->scale[i] == e8m0_reference(code));
                assert_int_equal(bits_of(got->divisor[i]), bits_of(got->scale[i]));
            }
        }
    free(got);
    free(amax);
}

static void test_f32_scales_of_every_bf16_maximum(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    size_t count;
    float *amax = all_bf16(&count);
    scales *got = buffer_new(sizeof *got);
    const block_scales out = { got->scale, got->divisor, got->peak, got->code };

    (void)state;
    for (size_t s = 0; s < set_count; s++) {
        sets[s]->amax_to_scale(SCALE_FP8_QUOTIENT, amax, count, 1.0f, &out);
        for (size_t i = 0; i < count; i++) {
            const double a = fmax((double)amax[i], (double)bf16_value(0x2B8D));

            assert_true(got->scale[i] == (float)(a / 448.0));
            assert_true(got->peak[i] == (float)((double)amax[i] / (double)got->scale[i]));
        }
        sets[s]->amax_to_scale(SCALE_FP8_PRODUCT, amax, count, 1.0f, &out);
        for (size_t i = 0; i < count; i++) {
            const double a = fmax((double)amax[i], (double)1e-4f);

            assert_true(got->scale[i] == (float)(a * (double)float_of(0x3B124925)));
        }
    }
    free(got);
    free(amax);
}

static void test_nvfp4_scales_of_every_bf16_maximum(void **state)
{
    static const float tensor_scales[] = { 0x1p-10f, 1.0f, 0.0123f, 3e-30f, 5e20f };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    size_t count;
    float *amax = all_bf16(&count);
    scales *got = buffer_new(sizeof *got);
    const block_scales out = { got->scale, got->divisor, got->peak, got->code };

    (void)state;
    for (size_t s = 0; s < set_count; s++)
        for (size_t k = 0; k < COUNT(tensor_scales); k++) {
            const float t = tensor_scales[k];

            sets[s]->amax_to_scale(SCALE_NVFP4, amax, count, t, &out);
            for (size_t i = 0; i < count; i++) {
                const double q = (double)(float)((double)amax[i] / (double)(6.0f * t));
                const double clamped = q == 0 ? 1.0 : fmin(fmax(q, 0x1p-9), 448.0);

                assert_int_equal(got->code[i], small_nearest(FORMAT_E4M3, clamped));
                assert_true((double)got->scale[i] == e4m3_reference(got->code[i]));
                assert_true(got->divisor[i] == (float)((double)got->scale[i] * (double)t));
            }
        }
    free(got);
    free(amax);
}

static void test_q8_0_scales_of_every_bf16_maximum(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    size_t count;
    float *amax = all_bf16(&count);
    scales *got = buffer_new(sizeof *got);
    const block_scales out = { got->scale, got->divisor, got->peak, got->code };

    (void)state;
    for (size_t s = 0; s < set_count; s++) {
        sets[s]->amax_to_scale(SCALE_Q8_0, amax, count, 1.0f, &out);
        for (size_t i = 0; i < count; i++) {
            const float d = (float)((double)amax[i] / 127.0);
            const uint32_t f16 = small_nearest(FORMAT_F16, (double)d);

            assert_true(got->divisor[i] == (isinf(1.0f / d) ? 1.0f : d));
            assert_true(f16 > FORMAT_F16.last ? isinf(got->scale[i])
                                              : (double)got->scale[i] ==
                                                    small_value(FORMAT_F16, f16));
        }
    }
    free(got);
    free(amax);
}

/* ---- codes ---- */

typedef struct {
    small_format format;
    size_t block_cols;
    float scale;
    float tensor_scale;
} code_case;

static uint32_t expected_code(const code_case *c, float x, float divisor)
{
    const double q = (double)(float)((double)x / (double)divisor);
    const unsigned bits = c->format.exponent_bits + c->format.mantissa_bits;
    const uint32_t code = small_nearest(c->format, fmin(fabs(q), small_value(c->format,
                                                                            c->format.last)));
    const int is_minus = c->block_cols == 16 ? q < 0 : signbit(q) != 0;

    return code | (is_minus ? 1u << bits : 0);
}

/* Limits of the values of a case: all that are finite, those whose squares F32 can hold, and those
 * up to the largest code, exactly or not. */
static float value_limit(const code_case *c, unsigned i)
{
    const float limits[] = { float_of(0x7F7F0000), 0x1p59f,
                             (float)small_value(c->format, c->format.last) * c->scale *
                             c->tensor_scale };

    return limits[i];
}

enum { VALUE_LIMITS = 3 };

/* The finite BF16 value of this number, or 0 if it is beyond the limit. */
static uint16_t limited_half(uint32_t i, float limit)
{
    const uint16_t half = (uint16_t)(i / 2 | (i % 2) << 15);

    return fabsf(bf16_value(half)) <= limit ? half : 0;
}

/* All finite BF16 values up to the limit, both signs, 128 a row, each a block of its own kind of
 * divisor. */
static void check_codes(const ckpt_kernels *k, const code_case *c, float limit)
{
    enum { COLS = 256, ROWS = 2 * BF16_FINITE / COLS };
    const float divisor = c->scale * c->tensor_scale;
    float of_block[COLS];
    float of_divisor[COLS];
    float peak[COLS];
    float *values = buffer_new(ROWS * COLS * sizeof *values);
    uint8_t *codes = buffer_new(ROWS * COLS);
    const size_t pitch = c->format.mantissa_bits == 3 ? COLS : COLS / 2;
    const quantise_input in = { values, ROWS, COLS, COLS, of_block, of_divisor, peak,
                                c->block_cols, c->tensor_scale, NULL, 0 };
    quantise_sums sums;
    uint64_t saturated = 0;

    for (size_t i = 0; i < COLS; i++) {
        of_block[i] = c->scale;
        of_divisor[i] = divisor;
        peak[i] = limit / divisor;
    }
    for (uint32_t i = 0; i < ROWS * COLS; i++)
        values[i] = bf16_value(limited_half(i, limit));
    if (c->format.mantissa_bits == 3)
        k->quantise_e4m3(&in, codes, pitch, &sums);
    else
        k->quantise_e2m1(&in, codes, pitch, &sums);
    for (size_t i = 0; i < ROWS * COLS; i++) {
        const uint32_t got = c->format.mantissa_bits == 3 ? codes[i]
                                                          : codes[i / 2] >> (i % 2 * 4) & 15u;

        if (got != expected_code(c, values[i], divisor))
            fail_msg("%s: %a under %a is code %u, not %u", k->name, (double)values[i],
                     (double)divisor, got, expected_code(c, values[i], divisor));
        saturated += fabsf(values[i] / divisor) > (float)small_value(c->format, c->format.last);
    }
    assert_int_equal(sums.saturated, saturated);
    free(codes);
    free(values);
}

static void test_codes_of_every_bf16_value(void **state)
{
    static const float any_scales[] = { 1.0f, 0x1p-127f, 0x1p127f, 0x1p-20f, 0.00237f, 1e-12f,
                                        3e33f };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);

    (void)state;
    for (size_t s = 0; s < set_count; s++)
        for (size_t i = 0; i < COUNT(any_scales); i++) {
            const code_case cases[] = { { FORMAT_E4M3, 128, any_scales[i], 1.0f },
                                        { FORMAT_E4M3, 32, any_scales[i], 1.0f },
                                        { FORMAT_E2M1, 32, any_scales[i], 1.0f },
                                        { FORMAT_E2M1, 16, 1.75f, any_scales[i] } };

            for (size_t c = 0; c < COUNT(cases); c++)
                for (unsigned limit = 0; limit < VALUE_LIMITS; limit++)
                    check_codes(sets[s], &cases[c], value_limit(&cases[c], limit));
        }
}

static void quantise_by(const ckpt_kernels *k, const code_case *c, const quantise_input *in,
                        uint8_t *codes, quantise_sums *sums)
{
    if (c->format.mantissa_bits == 3)
        k->quantise_e4m3(in, codes, in->cols, sums);
    else
        k->quantise_e2m1(in, codes, in->cols / 2, sums);
}

/* Codes and sums of BF16 values, by every set, against scalar code for the same values as F32; and
 * without the largest error, if that is known. */
static void check_half_codes_up_to(const code_case *c, float limit)
{
    enum { COLS = 256, ROWS = 2 * BF16_FINITE / COLS };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    const size_t codes_size = (size_t)ROWS * COLS / (c->format.mantissa_bits == 3 ? 1 : 2);
    const float divisor = c->scale * c->tensor_scale;
    float of_block[COLS];
    float of_divisor[COLS];
    float peak[COLS];
    float *values = buffer_new(ROWS * COLS * sizeof *values);
    uint16_t *halves = buffer_new(ROWS * COLS * sizeof *halves);
    uint8_t *codes[2] = { buffer_new(ROWS * COLS), buffer_new(ROWS * COLS) };
    quantise_input in = { values, ROWS, COLS, COLS, of_block, of_divisor, peak, c->block_cols,
                          c->tensor_scale, halves, 0 };
    quantise_sums sums[2];

    for (size_t i = 0; i < COLS; i++) {
        of_block[i] = c->scale;
        of_divisor[i] = divisor;
        peak[i] = limit / divisor;
    }
    for (uint32_t i = 0; i < ROWS * COLS; i++) {
        halves[i] = limited_half(i, limit);
        values[i] = bf16_value(halves[i]);
    }
    memset(sums, 0, sizeof sums);
    quantise_by(sets[0], c, &in, codes[0], &sums[0]);
    in.values = NULL;
    for (size_t s = 0; s < 2 * set_count; s++) {
        in.known_error = s % 2 == 0 ? 0 : sums[0].max_error;
        memset(codes[1], 0xFF, codes_size);
        quantise_by(sets[s / 2], c, &in, codes[1], &sums[1]);
        if (s % 2 == 1 && sums[1].max_error <= in.known_error) {
            sums[1].max_error = sums[0].max_error;
            sums[1].max_row = sums[0].max_row;
            sums[1].max_col = sums[0].max_col;
        }
        if (memcmp(codes[0], codes[1], codes_size) != 0 ||
            memcmp(&sums[0], &sums[1], sizeof sums[0]) != 0)
            fail_msg("%s: BF16 values up to %a under %a differ", sets[s / 2]->name, (double)limit,
                     (double)divisor);
    }
    free(codes[0]);
    free(codes[1]);
    free(halves);
    free(values);
}

static void check_half_codes(const code_case *c)
{
    for (unsigned i = 0; i < VALUE_LIMITS; i++)
        check_half_codes_up_to(c, value_limit(c, i));
}

/* With the least and the largest that are treated as such, and their neighbours. */
static void test_codes_of_every_bf16_value_under_powers_of_two(void **state)
{
    static const int exponents[] = { -126, -96, -95, -94, -60, -30, -7, -1, 0, 1, 8, 50, 55, 92, 93,
                                     94, 120 };

    (void)state;
    for (size_t i = 0; i < COUNT(exponents); i++) {
        const float scale = ldexpf(1.0f, exponents[i]);

        check_half_codes(&(code_case){ FORMAT_E4M3, 128, scale, 1.0f });
        check_half_codes(&(code_case){ FORMAT_E4M3, 32, scale, 1.0f });
        check_half_codes(&(code_case){ FORMAT_E2M1, 32, scale, 1.0f });
    }
}

/* Squares of errors below 2^-40 need F64, which is known from the sum if the largest error is not
 * looked for. */
static void test_small_errors_count_even_if_a_larger_one_is_known(void **state)
{
    enum { COLS = 256 };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    float scale[COLS / 32];
    float peak[COLS / 32];
    uint16_t halves[COLS];
    uint8_t codes[COLS / 2];
    const quantise_input in = { NULL, 1, COLS, COLS, scale, scale, peak, 32, 1.0f, halves, 2.0f };

    (void)state;
    for (size_t i = 0; i < COLS / 32; i++) {
        scale[i] = 1.0f;
        peak[i] = 6.0f;
    }
    for (int exponent = -30; exponent >= -120; exponent -= 10)
        for (size_t s = 0; s < set_count; s++) {
            quantise_sums sums;

            for (size_t i = 0; i < COLS; i++)
                halves[i] = 0x40C0;
            halves[77] = (uint16_t)((exponent + 127) << 7);
            sets[s]->quantise_e2m1(&in, codes, sizeof codes, &sums);
            assert_int_equal(sums.rounded, 1);
            assert_int_equal(sums.underflowed, 1);
            assert_true(sums.error_squares == ldexp(1.0, 2 * exponent));
        }
}

/* Divisors with which some BF16 value is as near as can be to the largest code or to a number
 * between two codes: products with the inverse and quotients are then on different sides. */
static void test_codes_of_bf16_values_next_to_a_limit(void **state)
{
    (void)state;
    for (uint32_t odd = 1; odd < 32; odd += 2)
        for (int ulps = -9; ulps <= 9; ulps++) {
            const float value = bf16_value(0x3F80 + random32() % 128);
            const float scale = float_of(bits_of(value / (float)odd) + (uint32_t)ulps);

            check_half_codes(&(code_case){ FORMAT_E4M3, 128, scale, 1.0f });
            check_half_codes(&(code_case){ FORMAT_E2M1, 16, 1.0f, scale });
            if (ulps % 9 == 0)
                check_half_codes(&(code_case){ FORMAT_E4M3, 32, ldexpf(scale, -20), 1.0f });
        }
}

/* One row with scales of all 8 significands of E4M3, each for a block of 16 equal magnitudes. */
static void check_significands(float tensor_scale, uint16_t magnitude, float scale)
{
    enum { BLOCKS = 8, COLS = 16 * BLOCKS };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    float of_block[BLOCKS];
    float of_divisor[BLOCKS];
    float peak[BLOCKS];
    float values[COLS];
    uint16_t halves[COLS];
    uint8_t codes[2][COLS / 2];
    quantise_sums sums[2];
    quantise_input in = { values, 1, COLS, COLS, of_block, of_divisor, peak, 16, tensor_scale,
                          halves, 0 };

    for (size_t i = 0; i < COLS; i++) {
        halves[i] = (uint16_t)(magnitude | i % 2 << 15);
        values[i] = bf16_value(halves[i]);
    }
    for (size_t b = 0; b < BLOCKS; b++) {
        of_block[b] = scale * (1 + (float)b / 8);
        of_divisor[b] = of_block[b] * tensor_scale;
        peak[b] = fabsf(values[0]) / of_divisor[b];
    }
    sets[0]->quantise_e2m1(&in, codes[0], COLS / 2, &sums[0]);
    in.values = NULL;
    for (size_t s = 0; s < set_count; s++) {
        sets[s]->quantise_e2m1(&in, codes[1], COLS / 2, &sums[1]);
        if (memcmp(codes[0], codes[1], sizeof codes[0]) != 0 ||
            memcmp(&sums[0], &sums[1], sizeof sums[0]) != 0)
            fail_msg("%s: BF16 %04x under %a times scales from %a on differs", sets[s]->name,
                     (unsigned)magnitude, (double)tensor_scale, (double)scale);
    }
}

/* Tensor scales as a maximum gives them: many values are then as near as can be to numbers between
 * codes, because 21 of 2688 = 21 * 2^7 is a product of odd numbers of few bits. */
static void test_nvfp4_codes_under_scales_of_every_significand(void **state)
{
    (void)state;
    for (uint16_t mantissa = 0; mantissa < 128; mantissa++) {
        const float tensor_scale = bf16_value((uint16_t)(0x3F80 + mantissa)) / 2688.0f;

        for (uint16_t of_value = 0; of_value < 128; of_value++)
            for (int exponent = -4; exponent <= 3; exponent++)
                check_significands(tensor_scale, (uint16_t)(0x3F80 + of_value),
                                   ldexpf(1, 11 - exponent));
    }
}

/* Every quotient in steps of 1/64, both signs and both neighbours of each, so that every half and
 * what is next to it is there: C's roundf, as ggml calls it. Scales of 1 and, in odd blocks, 0. */
static void test_int8_codes_are_rounded_away_from_zero(void **state)
{
    enum { STEPS = 127 * 64 + 1, COLS = 6 * STEPS / 32 * 32 };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    float *values = buffer_new(COLS * sizeof *values);
    float *scale = buffer_new(3 * COLS / 32 * sizeof *scale);
    int8_t *codes = buffer_new(COLS);

    (void)state;
    for (size_t i = 0; i < COLS; i++) {
        const float q = (float)(i / 6) / 64;
        const float near = i % 3 == 0 ? q : i % 3 == 1 ? nextafterf(q, 0) : nextafterf(q, 200);

        values[i] = i % 6 < 3 ? near : -near;
    }
    for (size_t b = 0; b < COLS / 32; b++) {
        scale[b] = b % 2 == 0;
        scale[COLS / 32 + b] = 1;
        scale[2 * COLS / 32 + b] = 127;
    }
    for (size_t s = 0; s < set_count; s++) {
        const quantise_input in = { values, 1, COLS, COLS, scale, scale + COLS / 32,
                                    scale + 2 * COLS / 32, 32, 1, NULL, 0 };
        quantise_sums sums;
        uint64_t underflowed = 0;
        uint64_t rounded = 0;

        sets[s]->quantise_int8(&in, (uint8_t *)codes, COLS, &sums);
        for (size_t i = 0; i < COLS; i++) {
            const float expected = fmaxf(fminf(roundf(values[i]), 127), -127);

            if ((float)codes[i] != expected)
                fail_msg("%s: %a is %d", sets[s]->name, (double)values[i], codes[i]);
            rounded += expected * scale[i / 32] != values[i];
            underflowed += values[i] != 0 && expected * scale[i / 32] == 0;
        }
        assert_int_equal(sums.saturated, 0);
        assert_int_equal(sums.rounded, rounded);
        assert_int_equal(sums.underflowed, underflowed);
        assert_int_equal(sums.dropped_signs, 2);
    }
    free(codes);
    free(scale);
    free(values);
}

static void test_group_maxima(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    enum { GROUPS = 37 };
    float src[GROUPS * 48];
    uint16_t halves[GROUPS * 48];
    float amax[GROUPS];

    (void)state;
    for (size_t group = 1; group <= 48; group++)
        for (size_t s = 0; s < set_count; s++) {
            for (size_t i = 0; i < COUNT(src); i++)
                src[i] = i % 37 == 5 ? float_of(0xFF800001u) : random_float(-20, 5);
            sets[s]->f32_group_amax(src, GROUPS, group, amax);
            for (size_t g = 0; g < GROUPS; g++)
                assert_int_equal(bits_of(amax[g]),
                                 bits_of(sets[0]->f32_block_amax(src + g * group, 1, group,
                                                                 group)));
            for (size_t i = 0; i < COUNT(src); i++) {
                halves[i] = (uint16_t)(i % 37 == 5 ? 0xFF81 : i % 41 == 7 ? 0xFF80 :
                                       bits_of(src[i]) >> 16);
                src[i] = float_of((uint32_t)halves[i] << 16);
            }
            sets[s]->bf16_group_amax(halves, GROUPS, group, amax);
            for (size_t g = 0; g < GROUPS; g++)
                assert_int_equal(bits_of(amax[g]),
                                 bits_of(sets[0]->f32_block_amax(src + g * group, 1, group,
                                                                 group)));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_powers_of_every_bf16_maximum),
        cmocka_unit_test(test_f32_scales_of_every_bf16_maximum),
        cmocka_unit_test(test_nvfp4_scales_of_every_bf16_maximum),
        cmocka_unit_test(test_q8_0_scales_of_every_bf16_maximum),
        cmocka_unit_test(test_codes_of_every_bf16_value),
        cmocka_unit_test(test_codes_of_every_bf16_value_under_powers_of_two),
        cmocka_unit_test(test_small_errors_count_even_if_a_larger_one_is_known),
        cmocka_unit_test(test_codes_of_bf16_values_next_to_a_limit),
        cmocka_unit_test(test_nvfp4_codes_under_scales_of_every_significand),
        cmocka_unit_test(test_int8_codes_are_rounded_away_from_zero),
        cmocka_unit_test(test_group_maxima)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
