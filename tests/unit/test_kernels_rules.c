/* test_kernels_rules.c: scale rules, exactness masks and dispatch, against brute force. */
#include "test_kernels.h"

/* ---- scale rules ---- */

/* The smallest power of two that is at least x, found without logarithms. */
static double power_at_least(float x)
{
    double power = ldexp(1.0, -140);

    while (power < (double)x)
        power *= 2;
    return power;
}

static void check_scale_rules(float amax)
{
    const float fp8 = fmaxf(amax, 1e-4f) * (1.0f / 448.0f);
    const float fp4 = fmaxf(amax, 0x1.8p-124f) * (1.0f / 6.0f);

    assert_true((double)fp8_scale_pow2(amax) == power_at_least(fp8));
    assert_true(e8m0_reference(fp4_scale_code(amax)) == power_at_least(fp4));
}

static void test_scale_rules_take_the_next_power_of_two(void **state)
{
    (void)state;
    for (int i = 0; i < 200000; i++)
        check_scale_rules(float_of(random32() % 0x7F800000u));
    check_scale_rules(0.0f);
    check_scale_rules(float_of(1));
    check_scale_rules(1e-4f);
    check_scale_rules(0x1.8p-124f);
    check_scale_rules(float_of(0x7F7FFFFF));
}

/* Block maxima of the quantisers' own making: the float product hits the power exactly. */
static void test_scale_rules_are_not_off_by_one_at_block_maxima(void **state)
{
    (void)state;
    for (int j = -22; j < 119; j++) {
        assert_true((double)fp8_scale_pow2(ldexpf(448.0f, j)) == ldexp(1.0, j));
        assert_true((double)fp8_scale_pow2(nextafterf(ldexpf(448.0f, j), INFINITY)) >=
                    ldexp(1.0, j));
        assert_true((double)fp8_scale_pow2(ldexpf(449.0f, j)) == ldexp(1.0, j + 1));
    }
    for (int j = -126; j < 125; j++) {
        assert_int_equal(fp4_scale_code(ldexpf(6.0f, j)), j + 127);
        assert_int_equal(fp4_scale_code(ldexpf(3.0f, j)), j > -126 ? j + 126 : 1);
        assert_int_equal(fp4_scale_code(ldexpf(4.0f, j)), j + 127);
    }
    assert_int_equal(fp4_scale_code(0.0f), 1);
    assert_true((double)fp8_scale_pow2(0.0f) == ldexp(1.0, -22));
}

static void test_e8m0_from_f32_accepts_powers_of_two_only(void **state)
{
    (void)state;
    for (uint32_t e = 0; e < 255; e++) {
        const uint32_t bits = bits_of((float)e8m0_reference(e));

        assert_int_equal(e8m0_from_f32_exact(float_of(bits)), e);
        assert_int_equal(e8m0_from_f32_exact(float_of(bits | 0x80000000u)), -1);
        assert_int_equal(e8m0_from_f32_exact(float_of(bits + 1)), -1);
        assert_int_equal(e8m0_from_f32_exact(float_of(bits - 1)), -1);
    }
    assert_int_equal(e8m0_from_f32_exact(0.0f), -1);
    assert_int_equal(e8m0_from_f32_exact(-0.0f), -1);
    assert_int_equal(e8m0_from_f32_exact(0x1p-128f), -1);
    assert_int_equal(e8m0_from_f32_exact(INFINITY), -1);
    assert_int_equal(e8m0_from_f32_exact(NAN), -1);
    for (int i = 0; i < 100000; i++) {
        const float x = float_of(random32());
        const int code = e8m0_from_f32_exact(x);

        assert_true(code < 0 ? frexp((double)x, &(int){ 0 }) != 0.5 || isinf(x)
                             : e8m0_reference((uint32_t)code) == (double)x);
    }
}

/* ---- what FP4 -> FP8 keeps ---- */

static void test_exact_mask_is_what_e4m3_can_hold(void **state)
{
    (void)state;
    for (unsigned d = 0; d < 300; d++) {
        unsigned expected = 0;

        for (uint32_t c = 0; c < 8; c++) {
            const double x = ldexp(e2m1_reference(c), 6 - (int)d);

            if (small_value(FORMAT_E4M3, small_nearest(FORMAT_E4M3, x)) == x)
                expected |= 1u << c;
        }
        assert_int_equal(fp4_exact_mask(d), expected);
    }
    assert_int_equal(fp4_exact_mask(FP4_DISTANCE_EXACT), 0xFF);
    assert_int_not_equal(fp4_exact_mask(FP4_DISTANCE_EXACT + 1), 0xFF);
    assert_int_equal(fp4_exact_mask(UINT32_MAX), 1);
}

/* fp4_row_to_fp8 keeps a code exactly when the mask says so. */
static void test_exact_mask_agrees_with_the_kernel(void **state)
{
    const ckpt_kernels *k = kernels_find("scalar");

    (void)state;
    for (unsigned d = 0; d < 256; d++)
        for (uint32_t c = 0; c < 8; c++) {
            const uint8_t distance = (uint8_t)d;
            uint8_t packed[FP4_GROUP / 2];
            uint8_t codes[FP4_GROUP];
            int kept;

            memset(packed, (int)(c | c << 4), sizeof packed);
            k->fp4_row_to_fp8(packed, &distance, FP4_GROUP, 0, codes);
            kept = ldexp(e4m3_reference(codes[5]), (int)d - 6) == e2m1_reference(c);
            assert_int_equal(fp4_exact_mask(d) >> c & 1, kept);
        }
}

static int e2m1_code_of(double magnitude)
{
    for (int c = 0; c < 8; c++)
        if (e2m1_reference((uint32_t)c) == magnitude)
            return c;
    return -1;
}

/* Largest code of the group under another scale, -1 if a value does not fit. */
static int largest_code(const double *magnitudes, size_t count, double scale)
{
    int largest = 0;

    for (size_t i = 0; i < count; i++) {
        const int code = e2m1_code_of(magnitudes[i] / scale);

        if (code < 0)
            return -1;
        largest = code > largest ? code : largest;
    }
    return largest;
}

static void test_canonical_offset_is_where_the_rule_lands_for_all_masks(void **state)
{
    (void)state;
    for (unsigned mask = 0; mask < 256; mask++) {
        double magnitudes[8];
        size_t count = 0;
        int expected = FP4_SCALE_LOST;

        for (uint32_t c = 1; c < 8; c++)
            if ((mask >> c & 1) != 0)
                magnitudes[count++] = e2m1_reference(c);
        for (int k = -8; k <= 8 && count > 0; k++)
            if (largest_code(magnitudes, count, ldexp(1.0, k)) >= 5)
                expected = k;
        assert_int_equal(fp4_canonical_offset((uint8_t)mask), expected);
    }
    assert_int_equal(fp4_canonical_offset(1 << 7), 1);       /* 6 alone is read as 3 */
    assert_int_equal(fp4_canonical_offset(1 << 7 | 1 << 1), 0);
    assert_int_equal(fp4_canonical_offset(1 << 5), 0);
    assert_int_equal(fp4_canonical_offset(1 << 6), 0);
    assert_int_equal(fp4_canonical_offset(1 << 1), -3);
}

/* By trying all 255 scales. */
static int group_scale_brute(const float *x)
{
    double magnitudes[FP4_GROUP];
    int all_zero = 1;
    int canonical = -1;
    int best = -1;
    int best_code = -1;

    for (size_t i = 0; i < FP4_GROUP; i++) {
        magnitudes[i] = fabs((double)x[i]);
        all_zero &= magnitudes[i] == 0.0;
    }
    for (uint32_t e = 0; e < 255; e++) {
        const int code = largest_code(magnitudes, FP4_GROUP, e8m0_reference(e));

        if (code >= 5)
            canonical = (int)e;
        if (code > best_code) {
            best_code = code;
            best = (int)e;
        }
    }
    if (all_zero)
        return 1;
    best = canonical >= 0 ? canonical : best;
    return best == 0 && largest_code(magnitudes, FP4_GROUP, e8m0_reference(1)) >= 0 ? 1 : best;
}

/* Of every instruction set, also where a vector does not lie on its own boundary. */
static void assert_group_scale(const float *x, int expected)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    unsigned char bytes[FP4_GROUP * sizeof(float) + 1];
    void *at = bytes + 1;

    memcpy(at, x, FP4_GROUP * sizeof *x);
    for (size_t s = 0; s < set_count; s++)
        assert_int_equal(sets[s]->fp4_group_scale_exact(at), expected);
}

static void test_group_scale_is_the_canonical_one_among_all_scales(void **state)
{
    float x[FP4_GROUP];
    int refused = 0;
    int found = 0;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        const int top = 1 + (int)(random32() % 7);
        const int e = round % 4 == 0 ? (int)(random32() % 6) : (int)(random32() % 255);
        int scale;

        for (size_t i = 0; i < FP4_GROUP; i++) {
            const uint32_t code = random32() % (uint32_t)(top + 1);

            x[i] = (float)(e2m1_reference(code) * e8m0_reference((uint32_t)e));
            x[i] = random32() % 2 == 0 ? x[i] : -x[i];
        }
        if (round % 5 == 0)
            x[round / 5 % FP4_GROUP] *= round % 10 == 0 ? 0.25f : 1.25f;
        scale = group_scale_brute(x);
        assert_group_scale(x, scale);
        refused += scale < 0;
        found += scale >= 0;
    }
    assert_true(refused > 1000 && found > 1000);
}

static void test_group_scale_of_special_groups(void **state)
{
    float x[FP4_GROUP] = { 0 };

    (void)state;
    assert_group_scale(x, 1);
    x[7] = -0.0f;
    assert_group_scale(x, 1);
    x[31] = NAN;
    assert_group_scale(x, -1);
    x[31] = -INFINITY;
    assert_group_scale(x, -1);
    x[31] = 0x1p-128f;
    assert_group_scale(x, 0);
    x[31] = 0x1p-129f;
    assert_group_scale(x, -1);
    x[31] = 0x1.8p-129f;
    assert_group_scale(x, -1);
    x[31] = 0x1.8p+127f;
    assert_group_scale(x, 253);
}

/* Readers take the scale byte 0x00 for 0: it is the last resort. */
static void test_group_scale_is_0x00_only_where_0x01_does_not_fit(void **state)
{
    static const struct {
        float value;
        int scale;
    } cases[] = {
        { 0x1p-125f, 1 }, { 0x1.8p-126f, 1 }, { 0x1p-126f, 1 }, { 0x1p-127f, 1 },
        { 0x1.8p-127f, 0 }, { 0x1p-128f, 0 }, { 0x1.8p-125f, 1 }, { 0x1p-124f, 1 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float x[FP4_GROUP] = { 0 };

        x[i] = cases[i].value;
        assert_group_scale(x, cases[i].scale);
    }
}

/* What decides is the largest value and the smallest one: all pairs of what FP4 can hold, of all
 * exponents, subnormals and infinity included, wherever they stand. */
static void test_group_scale_is_the_same_in_all_sets_for_all_pairs(void **state)
{
    const ckpt_kernels *scalar = kernels_find("scalar");
    float x[FP4_GROUP] = { 0 };

    (void)state;
    for (uint32_t a = 0; a < 512; a++)
        for (uint32_t b = 0; b <= a; b++) {
            const size_t i = (a + 3 * b) % FP4_GROUP;
            const size_t j = (i + 1 + b % (FP4_GROUP - 1)) % FP4_GROUP;

            x[i] = float_of(a << 22);
            x[j] = float_of(b << 22 | 0x80000000u);
            assert_group_scale(x, scalar->fp4_group_scale_exact(x));
            x[i] = 0;
            x[j] = 0;
        }
}

static void test_group_scale_is_the_same_in_all_sets_for_all_bf16_values(void **state)
{
    const ckpt_kernels *scalar = kernels_find("scalar");
    float x[FP4_GROUP] = { 0 };

    (void)state;
    for (uint32_t code = 0; code < 65536; code++) {
        const size_t i = code % FP4_GROUP;

        x[i] = float_of(code << 16);
        assert_group_scale(x, scalar->fp4_group_scale_exact(x));
        x[(i + 5) % FP4_GROUP] = 1.5f;
        assert_group_scale(x, scalar->fp4_group_scale_exact(x));
        memset(x, 0, sizeof x);
    }
}

/* The offset and the group scale tell the same story about a group of known scale. */
static void test_group_scale_is_true_scale_plus_offset(void **state)
{
    (void)state;
    for (unsigned mask = 2; mask < 256; mask++) {
        float x[FP4_GROUP] = { 0 };

        for (uint32_t c = 1; c < 8; c++)
            if ((mask >> c & 1) != 0)
                x[c * 3] = (float)e2m1_reference(c) * 0x1p-7f;
        assert_group_scale(x, 120 + ((mask & 0xFE) == 0 ? 0 : fp4_canonical_offset((uint8_t)mask)));
    }
}

/* ---- dispatch ---- */

static void test_sets_are_complete_and_know_their_names(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);

    (void)state;
    for (size_t s = 0; s < set_count; s++) {
        const unsigned char *bytes = (const unsigned char *)sets[s];

        assert_ptr_equal(kernels_find(sets[s]->name), sets[s]);
        for (size_t at = 0; at < sizeof *sets[s]; at += sizeof(void (*)(void))) {
            uintptr_t pointer;

            memcpy(&pointer, bytes + at, sizeof pointer);
            assert_true(pointer != 0);
        }
    }
    assert_null(kernels_find("sse9"));
    assert_null(kernels_find(""));
}

static void test_the_environment_forces_a_set_or_is_refused(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);

    (void)state;
    for (size_t s = 0; s < set_count; s++) {
        assert_int_equal(setenv("CKPT_KERNELS", sets[s]->name, 1), 0);
        assert_ptr_equal(kernels_get(), sets[s]);
    }
    assert_int_equal(setenv("CKPT_KERNELS", "Scalar", 1), 0);
    assert_null(kernels_get());
    assert_int_equal(unsetenv("CKPT_KERNELS"), 0);
    assert_ptr_equal(kernels_get(), sets[set_count - 1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scale_rules_take_the_next_power_of_two),
        cmocka_unit_test(test_scale_rules_are_not_off_by_one_at_block_maxima),
        cmocka_unit_test(test_e8m0_from_f32_accepts_powers_of_two_only),
        cmocka_unit_test(test_exact_mask_is_what_e4m3_can_hold),
        cmocka_unit_test(test_exact_mask_agrees_with_the_kernel),
        cmocka_unit_test(test_canonical_offset_is_where_the_rule_lands_for_all_masks),
        cmocka_unit_test(test_group_scale_is_the_canonical_one_among_all_scales),
        cmocka_unit_test(test_group_scale_of_special_groups),
        cmocka_unit_test(test_group_scale_is_0x00_only_where_0x01_does_not_fit),
        cmocka_unit_test(test_group_scale_is_the_same_in_all_sets_for_all_pairs),
        cmocka_unit_test(test_group_scale_is_the_same_in_all_sets_for_all_bf16_values),
        cmocka_unit_test(test_group_scale_is_true_scale_plus_offset),
        cmocka_unit_test(test_sets_are_complete_and_know_their_names),
        cmocka_unit_test(test_the_environment_forces_a_set_or_is_refused)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
