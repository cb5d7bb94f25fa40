/* test_quantise.c: the table of rules, panels, losses, and the exact cast of FP4 to NVFP4. */
#include "libckpt/nearest.h"
#include "libckpt/quantise.h"
#include "test_kernels.h"

/* ---- the table ---- */

static void test_each_rule_is_found_by_both_names(void **state)
{
    size_t count = 0;

    (void)state;
    for (const quantise_rule *r; (r = quantise_rule_at(count)) != NULL; count++) {
        assert_ptr_equal(quantise_rule_find(r->name), r);
        if (r->short_name != NULL)
            assert_ptr_equal(quantise_rule_find(r->short_name), r);
    }
    assert_int_equal(count, 13);
    assert_null(quantise_rule_find("fp8"));
    assert_null(quantise_rule_find(""));
}

static void test_a_misspelt_rule_has_a_nearest_one(void **state)
{
    (void)state;
    assert_string_equal(quantise_rule_nearest("nvfp4-model-opt"), "nvfp4-modelopt");
    assert_string_equal(quantise_rule_nearest("fp8-b128-ue8m"), "fp8-b128-ue8m0");
    assert_string_equal(quantise_rule_nearest("mxpf4"), "mxfp4");
    assert_string_equal(quantise_rule_nearest("FP4"), "fp4");
    assert_string_equal(quantise_rule_nearest("fp8"), "fp8-f32");         /* no slip of fp4 */
}

static void test_distances_of_names(void **state)
{
    char longest[200];

    (void)state;
    assert_int_equal(name_distance("", ""), 0);
    assert_int_equal(name_distance("abc", ""), 3);
    assert_int_equal(name_distance("", "abc"), 3);
    assert_int_equal(name_distance("kitten", "sitting"), 3);
    assert_int_equal(name_distance("fp4", "fp4"), 0);
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(name_distance(longest, ""), 63);
}

static void test_groups_are_whole_and_blocks_need_not_be(void **state)
{
    (void)state;
    assert_true(quantise_rule_fits(quantise_rule_find("fp8-f32"), 1000));
    assert_true(quantise_rule_fits(quantise_rule_find("fp8-channel"), 1000));
    assert_false(quantise_rule_fits(quantise_rule_find("mxfp8"), 48));
    assert_true(quantise_rule_fits(quantise_rule_find("nvfp4"), 48));
    assert_false(quantise_rule_fits(quantise_rule_find("nvfp4"), 40));
}

/* ---- exact sums ---- */

static void test_sums_do_not_depend_on_order(void **state)
{
    enum { COUNT_OF_VALUES = 1000 };
    double values[COUNT_OF_VALUES];
    exact_sum first = { { 0 } };
    exact_sum parts[3] = { { { 0 } }, { { 0 } }, { { 0 } } };

    (void)state;
    for (size_t i = 0; i < COUNT_OF_VALUES; i++) {
        const double x = (double)random_float(-126, 127);

        values[i] = x * x;
        exact_sum_add(&first, values[i]);
    }
    for (size_t i = COUNT_OF_VALUES; i-- > 0;)
        exact_sum_add(&parts[i % 3], values[i]);
    exact_sum_merge(&parts[2], &parts[0]);
    exact_sum_merge(&parts[2], &parts[1]);
    assert_memory_equal(&first, &parts[2], sizeof first);
}

static void test_sums_keep_what_doubles_lose(void **state)
{
    exact_sum sum = { { 0 } };

    (void)state;
    assert_true(exact_sum_value(&sum) == 0.0);
    for (int e = -298; e < 256; e++)
        exact_sum_add(&sum, ldexp(1.0, e));
    exact_sum_add(&sum, ldexp(1.0, -298));      /* carries through all of them */
    assert_true(exact_sum_value(&sum) == ldexp(1.0, 256));
    exact_sum_add(&sum, 0.0);
    exact_sum_add(&sum, ldexp(3.0, 200));
    assert_true(exact_sum_value(&sum) == ldexp(1.0, 256));      /* cut to 53 bits */
    exact_sum_add(&sum, ldexp(1.0, 256 - 52));
    assert_true(exact_sum_value(&sum) == ldexp(1.0, 256) + ldexp(1.0, 256 - 52));
}

static void test_errors_relative_to_values(void **state)
{
    const quantise_sums sums = { .rounded = 1, .error_squares = 4.0, .value_squares = 400.0,
                                 .max_error = 2.0f, .max_row = 3, .max_col = 5 };
    quantise_loss loss = { .elements = 1 };
    quantise_loss other = { .elements = 1 };

    (void)state;
    assert_true(quantise_loss_relative(&loss) == 0.0);
    assert_true(isinf(quantise_loss_sqnr(&loss)));
    quantise_loss_note(&loss, &sums, 10, 20);
    assert_true(fabs(quantise_loss_relative(&loss) - 0.1) < 1e-15);
    assert_true(fabs(quantise_loss_sqnr(&loss) - 20.0) < 1e-12);
    quantise_loss_note(&other, &sums, 9, 30);
    quantise_loss_merge(&loss, &other);
    assert_int_equal(loss.max_row, 12);         /* of two equal errors the first by rows */
    assert_int_equal(loss.max_col, 35);
    assert_int_equal(loss.rounded, 2);
}

/* ---- panels ---- */

/* The panels' edges and gaps between rows stay as they were; clipped blocks; every set alike. */
static void check_panel(const quantise_rule *rule, size_t rows, size_t cols, int least, int most)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    const size_t pitch = cols + 5;
    const size_t code_bytes = rule->codes == CKPT_F4 ? cols / 2 : cols;
    const size_t width = cols < rule->block_cols ? cols : rule->block_cols;
    const size_t scale_bytes = (cols + width - 1) / width * ckpt_dtype_bits(rule->scale_dtype) / 8;
    const size_t block_rows = (rows + rule->block_rows - 1) / rule->block_rows;
    float *values = buffer_new(rows * pitch * sizeof *values);
    uint8_t *expected = buffer_new(rows * (code_bytes + 3) + block_rows * (scale_bytes + 3));
    quantise_loss expected_loss;

    for (size_t i = 0; i < rows * pitch; i++)
        values[i] = i % 11 == 0 ? -0.0f : random_float(least, most);
    for (size_t s = 0; s < set_count; s++) {
        const size_t codes_size = rows * (code_bytes + 3);
        const size_t size = codes_size + block_rows * (scale_bytes + 3);
        const float tensor_scale = quantise_tensor_scale(rule, ldexpf(1, most + 1));
        const quantise_setup setup = { sets[s], rule, tensor_scale };
        const quantise_panel panel = { .values = values, .rows = rows, .cols = cols,
                                       .pitch = pitch };
        guarded g = guarded_new(size, 1);
        const quantise_target target = { g.dst, code_bytes + 3, g.dst + codes_size,
                                         scale_bytes + 3, rule->scale_dtype };
        quantise_loss loss;

        memset(&loss, 0, sizeof loss);
        assert_int_equal(quantise_panel_run(&setup, &panel, &target, &loss).outcome,
                         QUANTISE_DONE);
        assert_int_equal(loss.elements, rows * cols);
        if (s == 0) {
            memcpy(expected, g.dst, size);
            expected_loss = loss;
            for (size_t r = 0; r < rows; r++)
                for (size_t i = 0; i < 3; i++)
                    assert_int_equal(expected[r * (code_bytes + 3) + code_bytes + i], GUARD_FILL);
        }
        assert_memory_equal(&loss, &expected_loss, sizeof loss);
        guarded_check(g, expected, rule->name);
    }
    free(expected);
    free(values);
}

static void test_panels_of_every_size_are_the_same_in_every_set(void **state)
{
    (void)state;
    for (size_t i = 0; quantise_rule_at(i) != NULL; i++) {
        const quantise_rule *rule = quantise_rule_at(i);

        for (size_t cols = 1; cols <= 300 && !rule->from_fp4; cols++)
            if (quantise_rule_fits(rule, cols))
                check_panel(rule, 1 + cols % 5, cols, -12, 3);
        if (!rule->from_fp4)
            check_panel(rule, 128, 6144, -12, 3);
    }
}

/* Scales of every size; quotients of subnormals and far below the smallest code. */
static void test_panels_of_every_magnitude_are_the_same_in_every_set(void **state)
{
    (void)state;
    for (size_t i = 0; quantise_rule_at(i) != NULL; i++)
        for (int most = -126; most < 126 && !quantise_rule_at(i)->from_fp4; most++)
            if ((!quantise_rule_at(i)->has_tensor_scale || most > -100) &&
                (quantise_rule_at(i)->scale_dtype != CKPT_F16 || most < 22))
                check_panel(quantise_rule_at(i), 3, 256, most < -96 ? -126 : most - 30, most);
}

/* A panel of BF16 values, by every set, against scalar code for the same values as F32. */
static void check_halves(const quantise_rule *rule, size_t rows, size_t cols, int most)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    const size_t pitch = cols + 5;
    const size_t codes_size = rows * cols;
    const size_t size = codes_size + rows * cols * sizeof(float);
    float *values = buffer_new(rows * pitch * sizeof *values);
    uint16_t *halves = buffer_new(rows * pitch * sizeof *halves);
    uint8_t *out[2] = { buffer_new(size), buffer_new(size) };
    quantise_loss loss[2];

    for (size_t i = 0; i < rows * pitch; i++) {
        const float x = random_float(most - 30, most);

        halves[i] = (uint16_t)(i % 11 == 0 ? 0x8000u : bits_of(x) >> 16);
        values[i] = float_of((uint32_t)halves[i] << 16);
    }
    for (size_t s = 0; s <= set_count; s++) {
        const quantise_setup setup = { sets[s == 0 ? 0 : s - 1], rule,
                                       quantise_tensor_scale(rule, ldexpf(1, most + 1)) };
        const int is_other = s > 0;
        const quantise_panel panel = { .values = is_other ? NULL : values, .halves = halves,
                                       .rows = rows, .cols = cols, .pitch = pitch };
        const quantise_target target = { out[is_other], cols, out[is_other] + codes_size,
                                         cols * sizeof(float), rule->scale_dtype };

        memset(out[is_other], GUARD_FILL, size);
        memset(&loss[is_other], 0, sizeof *loss);
        assert_int_equal(quantise_panel_run(&setup, &panel, &target, &loss[is_other]).outcome,
                         QUANTISE_DONE);
        if (memcmp(out[is_other], out[0], size) != 0 ||
            memcmp(&loss[is_other], &loss[0], sizeof *loss) != 0)
            fail_msg("%s: %s of %zu x %zu BF16 values differs", setup.kernels->name, rule->name,
                     rows, cols);
    }
    free(out[0]);
    free(out[1]);
    free(halves);
    free(values);
}

static void test_panels_of_bf16_are_those_of_the_same_values(void **state)
{
    (void)state;
    for (size_t i = 0; quantise_rule_at(i) != NULL; i++) {
        const quantise_rule *rule = quantise_rule_at(i);

        for (size_t cols = 1; cols <= 300 && !rule->from_fp4; cols++)
            if (quantise_rule_fits(rule, cols))
                check_halves(rule, 1 + cols % 5, cols, 3);
        for (int most = -96; most < 126 && !rule->from_fp4; most += 3)
            if (rule->scale_dtype != CKPT_F16 || most < 22)
                check_halves(rule, 3, 256, most);
        if (!rule->from_fp4)
            check_halves(rule, 128, 1536, 3);
    }
}

static void test_a_bf16_value_that_is_not_finite_is_refused_with_its_place(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint16_t halves[3 * 64] = { [64 + 7] = 0xFF81, [2 * 64 + 5] = 0x7F80 };
    uint8_t out[3 * 64];
    uint8_t scales[3 * 64];

    (void)state;
    for (size_t i = 0; quantise_rule_at(i) != NULL; i++)
        for (size_t s = 0; s < set_count && !quantise_rule_at(i)->from_fp4; s++) {
            const quantise_rule *rule = quantise_rule_at(i);
            const quantise_setup setup = { sets[s], rule, 1.0f };
            const quantise_panel panel = { .halves = halves, .rows = 3, .cols = 64, .pitch = 64 };
            const quantise_target target = { out, 64, scales, 64, rule->scale_dtype };
            quantise_loss loss = { 0 };
            const quantise_result result = quantise_panel_run(&setup, &panel, &target, &loss);

            assert_int_equal(result.outcome, QUANTISE_NOT_FINITE);
            assert_int_equal(result.row, 1);
            assert_int_equal(result.col, 7);
        }
}

/* 65519 * 127 still has a finite F16 scale, 65520 * 127 has not. */
static void test_scales_beyond_f16_are_refused_with_their_place(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);

    (void)state;
    for (size_t s = 0; s < set_count; s++) {
        const quantise_setup setup = { sets[s], quantise_rule_find("q8_0"), 1.0f };
        float values[2 * 64] = { [64 + 40] = -65519.0f * 127.0f };
        uint8_t codes[2 * 64];
        uint16_t scales[2 * 2];
        const quantise_panel panel = { .values = values, .rows = 2, .cols = 64, .pitch = 64,
                                       .first_row = 7, .first_col = 1024 };
        const quantise_target target = { codes, 64, (uint8_t *)scales, 4, CKPT_F16 };
        quantise_loss loss = { 0 };
        quantise_result result = quantise_panel_run(&setup, &panel, &target, &loss);

        assert_int_equal(result.outcome, QUANTISE_DONE);
        assert_int_equal(scales[3], 0x7BFF);
        assert_int_equal((int8_t)codes[64 + 40], -127);
        assert_int_equal(loss.saturated, 0);
        values[64 + 40] = -65520.0f * 127.0f;
        result = quantise_panel_run(&setup, &panel, &target, &loss);
        assert_int_equal(result.outcome, QUANTISE_TOO_LARGE);
        assert_int_equal(result.row, 8);
        assert_int_equal(result.col, 1024 + 40);
    }
}

/* Blocks in any order give what the whole matrix gives, and kept ones are not touched. */
static void test_kept_blocks_are_left_alone(void **state)
{
    enum { ROWS = 3, COLS = 384, GROUPS = COLS / FP4_GROUP };
    const quantise_setup setup = { kernels_get(), quantise_rule_find("fp4"), 1.0f };
    float values[ROWS * COLS];
    uint8_t whole[ROWS * (COLS / 2 + GROUPS)];
    uint8_t got[sizeof whole];
    uint8_t kept[ROWS * GROUPS];
    quantise_panel panel = { .values = values, .rows = ROWS, .cols = COLS, .pitch = COLS };
    quantise_target target = { whole, COLS / 2, whole + ROWS * COLS / 2, GROUPS, CKPT_F8_E8M0 };
    quantise_loss all = { 0 };
    quantise_loss halves = { 0 };

    (void)state;
    for (size_t i = 0; i < ROWS * COLS; i++)
        values[i] = random_float(-12, 3);
    assert_int_equal(quantise_panel_run(&setup, &panel, &target, &all).outcome, QUANTISE_DONE);
    memset(got, GUARD_FILL, sizeof got);
    target.codes = got;
    target.scales = got + ROWS * COLS / 2;
    panel.kept = kept;
    for (int half = 0; half < 2; half++) {
        for (size_t i = 0; i < sizeof kept; i++)
            kept[i] = (uint8_t)((i / 3 + i % 7 == 1) == half);
        assert_int_equal(quantise_panel_run(&setup, &panel, &target, &halves).outcome,
                         QUANTISE_DONE);
        for (size_t i = 0; half == 0 && i < sizeof kept; i++)
            assert_int_equal(target.scales[i] == GUARD_FILL, kept[i]);
    }
    assert_memory_equal(got, whole, sizeof whole);
    assert_int_equal(halves.elements, all.elements);
    assert_int_equal(halves.kept_blocks, ROWS * GROUPS);
    assert_int_equal(halves.rounded, all.rounded);
    assert_true(halves.max_error == all.max_error && halves.max_row == all.max_row &&
                halves.max_col == all.max_col);
}

/* Values of which each row has one with the largest error that its block can have: as F32 and as
 * BF16, in the order of rows and against it. */
static void test_of_equal_errors_the_first_by_rows_is_told(void **state)
{
    enum { ROWS = 3, COLS = 4096, FIRST = 2500 };
    static const char *const names[] = { "fp4-b32-deepseek", "fp4-b32-floor", "mxfp8-rceil" };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint16_t *halves = buffer_new(ROWS * COLS * sizeof *halves);
    uint8_t *codes = buffer_new(2 * ROWS * COLS);

    (void)state;
    for (size_t i = 0; i < ROWS * COLS; i++)
        halves[i] = i % 32 == 0 ? 0x40C0 : 0;           /* 6 */
    for (size_t row = 0; row < ROWS; row++)
        halves[row * COLS + FIRST - row * 600 + 1] = 0x40A0;    /* 5: between 4 and 6 */
    for (size_t i = 0; i < 2 * COUNT(names) * set_count; i++) {
        const quantise_setup setup = { sets[i % set_count],
                                       quantise_rule_find(names[i / 2 / set_count]), 1.0f };
        const size_t row_bytes = setup.rule->codes == CKPT_F4 ? COLS / 2 : COLS;
        quantise_loss loss = { 0 };

        if (setup.rule->codes != CKPT_F4)
            halves[1] = 0x3CA1;                         /* an error in the first row alone */
        for (size_t k = 0; k < ROWS; k++) {
            const size_t row = i / set_count % 2 == 0 ? k : ROWS - 1 - k;
            const quantise_panel panel = { .halves = halves + row * COLS, .rows = 1, .cols = COLS,
                                           .pitch = COLS, .first_row = 70 + row };
            const quantise_target target = { codes, row_bytes, codes + row_bytes, COLS / 32,
                                             CKPT_F8_E8M0 };

            assert_int_equal(quantise_panel_run(&setup, &panel, &target, &loss).outcome,
                             QUANTISE_DONE);
        }
        assert_int_equal(loss.max_row, 70);
        assert_int_equal(loss.max_col, setup.rule->codes == CKPT_F4 ? FIRST + 1 : 1);
        halves[1] = 0;
    }
    free(codes);
    free(halves);
}

/* ---- nvfp4-cast ---- */

/* Every E8M0 code beside every largest one: the value of the group's scale is kept, or refused. */
static void test_the_cast_keeps_every_scale_within_its_window(void **state)
{
    (void)state;
    for (unsigned largest = 0; largest < 255; largest++) {
        const float tensor_scale = nvfp4_cast_tensor_scale((uint8_t)largest);

        for (unsigned code = 0; code <= largest; code++) {
            const uint8_t e8m0 = (uint8_t)code;
            const uint8_t only_zeros = 1;
            const uint8_t with_others = 0x81;
            uint8_t scales[2] = { 0x7F, 0x7F };
            const int fits = code != 0 && largest - code <= 17;

            assert_int_equal(nvfp4_cast_scales(&e8m0, &with_others, 1, (uint8_t)largest, scales),
                             fits);
            if (fits)
                assert_true(e4m3_reference(scales[0]) * (double)tensor_scale ==
                            e8m0_reference(code));
            assert_int_equal(nvfp4_cast_scales(&e8m0, &only_zeros, 1, (uint8_t)largest, scales),
                             1);
            assert_int_equal(scales[0], scales[1]);
            assert_true(e4m3_reference(scales[0]) > 0);
        }
    }
    assert_int_equal(nvfp4_cast_scales((const uint8_t *)"\xFF", (const uint8_t *)"\x02", 1, 254,
                                       (uint8_t[2]){ 0 }), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_rule_is_found_by_both_names),
        cmocka_unit_test(test_a_misspelt_rule_has_a_nearest_one),
        cmocka_unit_test(test_distances_of_names),
        cmocka_unit_test(test_groups_are_whole_and_blocks_need_not_be),
        cmocka_unit_test(test_sums_do_not_depend_on_order),
        cmocka_unit_test(test_sums_keep_what_doubles_lose),
        cmocka_unit_test(test_errors_relative_to_values),
        cmocka_unit_test(test_panels_of_every_size_are_the_same_in_every_set),
        cmocka_unit_test(test_panels_of_every_magnitude_are_the_same_in_every_set),
        cmocka_unit_test(test_panels_of_bf16_are_those_of_the_same_values),
        cmocka_unit_test(test_a_bf16_value_that_is_not_finite_is_refused_with_its_place),
        cmocka_unit_test(test_scales_beyond_f16_are_refused_with_their_place),
        cmocka_unit_test(test_kept_blocks_are_left_alone),
        cmocka_unit_test(test_of_equal_errors_the_first_by_rows_is_told),
        cmocka_unit_test(test_the_cast_keeps_every_scale_within_its_window)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
