/* test_kernels_statistics.c: sums over rows: by definition, and the same bits from every set. */
#include "test_kernels.h"

enum { MOST = 1100, LANES = 16 };

#define F32_MINUS 0x80000000u

static float a[MOST];
static float b[MOST];

/* Finite values of many sizes with some zeros; `odd`: one in so many is NaN or infinite. */
static void fill(float *out, size_t count, unsigned odd)
{
    static const float specials[] = { NAN, INFINITY, -INFINITY, -NAN };

    for (size_t i = 0; i < count; i++) {
        const uint32_t draw = random32();

        out[i] = random_float(-126, 100);
        if (odd > 0 && draw % odd == 0)
            out[i] = specials[draw >> 30];
        if (draw % 13 == 1)
            out[i] = (draw >> 31) != 0 ? 0.0f : -0.0f;
    }
}

static double sum_of(const double lanes[LANES])
{
    double l[LANES];

    memcpy(l, lanes, sizeof l);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            l[i] += l[i + half];
    return l[0];
}

/* As statistics_rows.h defines it, one element after the other. */
static row_statistics statistics_of(const float *x, size_t count)
{
    row_statistics s = { .min = INFINITY, .max = -INFINITY };
    double sums[LANES] = { 0 };
    double squares[LANES] = { 0 };

    for (size_t c = 0; c < count; c++) {
        s.zeros += x[c] == 0;
        s.nans += isnan(x[c]) != 0;
        s.infinities += isinf(x[c]) != 0;
        if (!isfinite(x[c]))
            continue;
        s.min = fminf(s.min, x[c] + 0.0f);
        s.max = fmaxf(s.max, x[c] + 0.0f);
        sums[c % LANES] += (double)x[c];
        squares[c % LANES] += (double)x[c] * (double)x[c];
    }
    s.sum = sum_of(sums);
    s.squares = sum_of(squares);
    return s;
}

static row_difference difference_of(const float *x, const float *y, size_t count)
{
    row_difference d = { .changed = 0 };
    double sums[4][LANES] = { { 0 } };

    for (size_t c = 0; c < count; c++) {
        const int changed = !(x[c] == y[c] || (isnan(x[c]) && isnan(y[c])));
        const double error = (double)y[c] - (double)x[c];

        d.changed += (uint64_t)changed;
        if (!isfinite(x[c]) || !isfinite(y[c])) {
            d.nonfinite += (uint64_t)changed;
            continue;
        }
        sums[0][c % LANES] += (double)x[c] * (double)x[c];
        sums[1][c % LANES] += (double)y[c] * (double)y[c];
        sums[2][c % LANES] += error * error;
        sums[3][c % LANES] += (double)x[c] * (double)y[c];
        d.max_error = fmax(d.max_error, fabs(error));
    }
    d.a_squares = sum_of(sums[0]);
    d.b_squares = sum_of(sums[1]);
    d.error_squares = sum_of(sums[2]);
    d.dot = sum_of(sums[3]);
    return d;
}

static void check_row(const ckpt_kernels *k, size_t count)
{
    const row_statistics expected = statistics_of(a, count);
    row_statistics got;

    k->f32_row_statistics(a, count, &got);
    assert_int_equal(got.zeros, expected.zeros);
    assert_int_equal(got.nans, expected.nans);
    assert_int_equal(got.infinities, expected.infinities);
    assert_memory_equal(&got.min, &expected.min, sizeof got.min);
    assert_memory_equal(&got.max, &expected.max, sizeof got.max);
    assert_true(got.sum == expected.sum && got.squares == expected.squares);
    k->f32_row_squares(a, count, &got);
    assert_int_equal(got.zeros, expected.zeros);
    assert_int_equal(got.nans, expected.nans);
    assert_int_equal(got.infinities, expected.infinities);
    assert_true(got.squares == expected.squares && got.sum == 0 && got.min > got.max);
}

static void check_pair(const ckpt_kernels *k, size_t count)
{
    const row_difference expected = difference_of(a, b, count);
    row_difference got;

    k->f32_row_difference(a, b, count, &got);
    assert_int_equal(got.changed, expected.changed);
    assert_int_equal(got.nonfinite, expected.nonfinite);
    assert_true(got.a_squares == expected.a_squares && got.b_squares == expected.b_squares);
    assert_true(got.error_squares == expected.error_squares && got.dot == expected.dot);
    assert_true(got.max_error == expected.max_error);
}

static void test_rows_are_summed_as_defined_by_every_set(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);

    (void)state;
    for (size_t s = 0; s < set_count; s++)
        for (size_t count = 0; count < MOST; count += count < 70 ? 1 : 97)
            for (unsigned odd = 0; odd < 30; odd += 9) {
                fill(a, count, odd);
                check_row(sets[s], count);
            }
}

static void test_pairs_are_summed_as_defined_by_every_set(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);

    (void)state;
    for (size_t s = 0; s < set_count; s++)
        for (size_t count = 0; count < MOST; count += count < 70 ? 1 : 97)
            for (unsigned odd = 0; odd < 30; odd += 9) {
                fill(a, count, odd);
                fill(b, count, odd);
                for (size_t c = 0; c < count; c++)
                    b[c] = c % 3 == 0 ? a[c] : b[c];
                check_pair(sets[s], count);
            }
}

/* As statistics_rows.h defines it, from the values that the codes stand for. */
static fp4_counts counts_of(const uint8_t *packed, const uint8_t *scale, size_t cols)
{
    fp4_counts counts;
    float values[MOST];

    memset(&counts, 0, sizeof counts);
    kernels_find("scalar")->e2m1_to_f32(packed, values, cols);
    for (size_t c = 0; c < cols; c++) {
        counts.zeros += values[c] == 0;
        counts.largest += fabsf(values[c]) == 6;
        counts.squares[scale[c / 32]] += (uint64_t)(4 * values[c] * values[c]);
    }
    return counts;
}

static void test_fp4_is_counted_as_defined_by_every_set(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t packed[MOST / 2 + 1];
    uint8_t scale[MOST / 32 + 1];

    (void)state;
    for (size_t s = 0; s < set_count; s++)
        for (size_t cols = 0; cols <= 1024; cols += 32)
            for (unsigned kind = 0; kind < 3; kind++) {
                fp4_counts expected;
                fp4_counts got;

                for (size_t i = 0; i < sizeof packed; i++)
                    packed[i] = kind == 0 ? (uint8_t)random32() : kind == 1 ? 0xFF : 0x80;
                for (size_t g = 0; g < sizeof scale; g++)
                    scale[g] = (uint8_t)(random32() % (kind == 0 ? 256 : 2));
                expected = counts_of(packed + 1, scale + 1, cols);
                memset(&got, 0, sizeof got);
                sets[s]->fp4_row_counts(packed + 1, scale + 1, cols, &got);
                assert_memory_equal(&got, &expected, sizeof got);
                sets[s]->fp4_row_counts(packed + 1, scale + 1, cols, &got);
                assert_int_equal(got.zeros, 2 * expected.zeros);
                assert_int_equal(got.squares[scale[1]], 2 * expected.squares[scale[1]]);
            }
}

static int64_t place_of(float value, int is_bf16)
{
    int64_t place = bits_of(value) & 0x7fffffff;

    if (is_bf16)
        place = (place + 0x7fff + (place >> 16 & 1)) >> 16;
    return signbit(value) ? -place : place;
}

/* As statistics_rows.h defines it. */
static unsigned bucket_of(float x, float y, int is_bf16)
{
    int64_t distance = llabs(place_of(x, is_bf16) - place_of(y, is_bf16));
    unsigned bucket = 0;

    if (x == y || !isfinite(x) || !isfinite(y))
        return ROW_DISTANCE_NONE;
    for (; distance > 0; distance /= 2)
        bucket++;
    return bucket;
}

/* Random pairs; every power of two, its neighbours and all bits below it, as a distance from 0 and
 * between two numbers; zeros, signs, the extremes. */
static void fill_distances(size_t i)
{
    const uint32_t power = 1u << i % 31;
    const uint32_t near = power + (uint32_t)(i / 31 % 3) - 1;
    const uint32_t start = i / 93 % 2 == 0 ? 0 : random32() & 0x3fffffff;
    const uint32_t largest = 0x7f7fffff;

    a[i] = float_of((start < largest ? start : largest) | (i / 186 % 2 == 0 ? 0 : F32_MINUS));
    b[i] = float_of((start + near < largest ? start + near : largest) |
                    (i / 372 % 2 == 0 ? 0 : F32_MINUS));
    if (i % 50 == 0)
        b[i] = a[i];
    if (i % 50 == 1)
        a[i] = i % 100 == 1 ? NAN : -INFINITY;
    if (i % 50 == 2) {
        a[i] = -0.0f;
        b[i] = i % 100 == 2 ? 0.0f : float_of(1);
    }
}

static void test_distances_are_counted_as_defined_by_every_set(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t got[MOST];

    (void)state;
    for (size_t i = 0; i < MOST; i++)
        fill_distances(i);
    for (size_t s = 0; s < set_count; s++)
        for (size_t count = 0; count < MOST; count += count < 70 ? 1 : 97)
            for (int is_bf16 = 0; is_bf16 < 2; is_bf16++) {
                memset(got, 0xEE, sizeof got);
                sets[s]->f32_row_distances(a, b, count, is_bf16, got);
                for (size_t c = 0; c < count; c++)
                    if (got[c] != bucket_of(a[c], b[c], is_bf16))
                        fail_msg("%s: %a and %a are in bucket %u, not %u", sets[s]->name,
                                 (double)a[c], (double)b[c], got[c],
                                 bucket_of(a[c], b[c], is_bf16));
                assert_int_equal(got[count], 0xEE);
            }
}

static void test_extremes_do_not_overflow(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    row_statistics s;
    row_difference d;

    (void)state;
    for (size_t c = 0; c < MOST; c++) {
        a[c] = 0x1.fffffep127f;
        b[c] = -0x1.fffffep127f;
    }
    for (size_t i = 0; i < set_count; i++) {
        sets[i]->f32_row_statistics(a, MOST, &s);
        sets[i]->f32_row_difference(a, b, MOST, &d);
        assert_true(s.infinities == 0 && isfinite(s.squares) && s.min == s.max);
        assert_true(d.changed == MOST && d.nonfinite == 0 && isfinite(d.error_squares));
        assert_true(d.max_error == 2 * (double)0x1.fffffep127f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_summed_as_defined_by_every_set),
        cmocka_unit_test(test_pairs_are_summed_as_defined_by_every_set),
        cmocka_unit_test(test_fp4_is_counted_as_defined_by_every_set),
        cmocka_unit_test(test_distances_are_counted_as_defined_by_every_set),
        cmocka_unit_test(test_extremes_do_not_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
