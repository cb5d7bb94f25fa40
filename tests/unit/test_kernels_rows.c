/* test_kernels_rows.c: dequantise and re-encode rows, against double arithmetic and scalar. */
#include "test_kernels.h"

/* ---- FP8 rows ---- */

typedef struct {
    uint8_t *codes;
    float *scale;
    size_t cols;
} fp8_row;

/* Block b holds the 256 codes in two blocks of 128 columns, both under scale b. */
static fp8_row fp8_row_new(size_t scale_count)
{
    fp8_row row;

    row.cols = scale_count * 256;
    row.codes = buffer_new(row.cols);
    row.scale = buffer_new(scale_count * 2 * sizeof *row.scale);
    for (size_t i = 0; i < row.cols; i++)
        row.codes[i] = (uint8_t)i;
    return row;
}

static void fp8_row_free(fp8_row row)
{
    free(row.codes);
    free(row.scale);
}

/* The double product of 4 and 24 mantissa bits is exact, so the cast is the only rounding. */
static float fp8_product(uint8_t code, float scale)
{
    const float product = (float)(e4m3_reference(code) * (double)scale);

    return isnan(product) ? float_of(0x7FC00000u) : product;
}

static void check_fp8_row(fp8_row row)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint16_t *bf16 = buffer_new(row.cols * sizeof *bf16);
    float *f32 = buffer_new(row.cols * sizeof *f32);

    for (size_t s = 0; s < set_count; s++) {
        sets[s]->fp8_row_to_bf16(row.codes, row.scale, row.cols, bf16);
        sets[s]->fp8_row_to_f32(row.codes, row.scale, row.cols, f32);
        for (size_t c = 0; c < row.cols; c++) {
            const float scale = row.scale[c / FP8_BLOCK];
            const float expected = fp8_product(row.codes[c], scale);

            if (bits_of(f32[c]) != bits_of(expected))
                fail_msg("%s fp8_row_to_f32: %02x * %08x is %08x, not %08x", sets[s]->name,
                         row.codes[c], bits_of(scale), bits_of(f32[c]), bits_of(expected));
            if (bf16[c] != bf16_reference(expected))
                fail_msg("%s fp8_row_to_bf16: %02x * %08x is %04x, not %04x", sets[s]->name,
                         row.codes[c], bits_of(scale), bf16[c], bf16_reference(expected));
        }
    }
    free(f32);
    free(bf16);
}

static void test_fp8_rows_are_exact_for_all_codes_and_e8m0_scales(void **state)
{
    const fp8_row row = fp8_row_new(256);

    (void)state;
    for (uint32_t i = 0; i < 256; i++) {
        row.scale[2 * i] = (float)e8m0_reference(i);
        row.scale[2 * i + 1] = (float)e8m0_reference(i);
    }
    check_fp8_row(row);
    fp8_row_free(row);
}

static void test_fp8_rows_round_products_of_any_scale(void **state)
{
    static const uint32_t special[] = {
        0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFC12345, 0x00000001,
        0x807FFFFF, 0x7F7FFFFF, 0xBF800000, 0x7B000000, 0x7AFFFFFF, 0x7B7FFFFF, 0x7B800000
    };
    const size_t count = 1500;
    const fp8_row row = fp8_row_new(count);

    (void)state;
    for (size_t i = 0; i < 2 * count; i++)
        row.scale[i] = i % 2 == 0 ? float_of(random32()) : random_float(-20, 5);
    memcpy(row.scale, special, sizeof special);
    check_fp8_row(row);
    fp8_row_free(row);
}

/* NaN codes are rare: one in an otherwise ordinary block must not disturb its neighbours. */
static void test_a_nan_code_changes_only_its_own_column(void **state)
{
    const fp8_row row = fp8_row_new(1);

    (void)state;
    for (size_t position = 0; position < row.cols; position++) {
        for (size_t i = 0; i < row.cols; i++)
            row.codes[i] = (uint8_t)(i % 0x7F);
        row.codes[position] = position % 2 == 0 ? 0x7F : 0xFF;
        row.scale[0] = 0x1p-3f;
        row.scale[1] = 0.3f;
        check_fp8_row(row);
    }
    fp8_row_free(row);
}

static void test_fp8_rows_of_any_length_stay_inside(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    float scale[64];
    uint8_t *codes = buffer_new(4097);

    (void)state;
    random_fill(codes, 4097);
    for (size_t i = 0; i < 64; i++)
        scale[i] = i % 3 == 0 ? random_float(-10, 10) : ldexpf(1.0f, (int)i - 30);
    for (size_t l = 0; l < COUNT(odd_lengths); l++)
        for (size_t s = 0; s < set_count; s++) {
            const size_t cols = odd_lengths[l];
            uint16_t bf16[4097];
            float f32[4097];
            guarded to_bf16 = guarded_new(cols * 2, l % 4);
            guarded to_f32 = guarded_new(cols * 4, l % 4);
            uint8_t *codes_base;
            uint8_t *scale_base;
            const uint8_t *src = misaligned_copy(codes, cols, l % 3, &codes_base);
            const void *src_scale = misaligned_copy(scale, (cols + 127) / 128 * 4, 1,
                                                    &scale_base);

            sets[0]->fp8_row_to_bf16(codes, scale, cols, bf16);
            sets[0]->fp8_row_to_f32(codes, scale, cols, f32);
            sets[s]->fp8_row_to_bf16(src, src_scale, cols, (uint16_t *)(void *)to_bf16.dst);
            sets[s]->fp8_row_to_f32(src, src_scale, cols, (float *)(void *)to_f32.dst);
            guarded_check(to_bf16, bf16, "fp8_row_to_bf16");
            guarded_check(to_f32, f32, "fp8_row_to_f32");
            free(codes_base);
            free(scale_base);
        }
    free(codes);
}

/* ---- FP4 rows ---- */

/* 16 groups for each of 256 scales or distances: group r has code (column + r) % 16. */
enum { FP4_ROTATIONS = 16, FP4_ALL_GROUPS = 256 * FP4_ROTATIONS,
       FP4_ALL_COLUMNS = FP4_ALL_GROUPS * FP4_GROUP };

static uint32_t fp4_rotated_code(size_t column)
{
    return (uint32_t)(column % FP4_GROUP + column / FP4_GROUP) % 16;
}

static uint8_t *fp4_all_codes(void)
{
    uint8_t *packed = buffer_new(FP4_ALL_COLUMNS / 2);

    for (size_t c = 0; c < FP4_ALL_COLUMNS; c += 2)
        packed[c / 2] = (uint8_t)(fp4_rotated_code(c) | fp4_rotated_code(c + 1) << 4);
    return packed;
}

static void test_fp4_rows_are_exact_for_all_codes_scales_and_positions(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t *packed = fp4_all_codes();
    uint8_t *scale = buffer_new(FP4_ALL_GROUPS);
    uint16_t *bf16 = buffer_new(FP4_ALL_COLUMNS * sizeof *bf16);
    float *f32 = buffer_new(FP4_ALL_COLUMNS * sizeof *f32);

    (void)state;
    for (size_t g = 0; g < FP4_ALL_GROUPS; g++)
        scale[g] = (uint8_t)(g / FP4_ROTATIONS);
    for (size_t s = 0; s < set_count; s++) {
        sets[s]->fp4_row_to_bf16(packed, scale, FP4_ALL_COLUMNS, bf16);
        sets[s]->fp4_row_to_f32(packed, scale, FP4_ALL_COLUMNS, f32);
        for (size_t c = 0; c < FP4_ALL_COLUMNS; c++) {
            const double product = e2m1_reference(fp4_rotated_code(c)) *
                                   e8m0_reference(scale[c / FP4_GROUP]);
            const uint32_t expected = isnan(product) ? 0x7FC00000u : bits_of((float)product);

            if (bits_of(f32[c]) != expected)
                fail_msg("%s fp4_row_to_f32: column %zu is %08x, not %08x", sets[s]->name, c,
                         bits_of(f32[c]), expected);
            if (bf16[c] != bf16_reference(float_of(expected)))
                fail_msg("%s fp4_row_to_bf16: column %zu is %04x", sets[s]->name, c, bf16[c]);
        }
    }
    free(f32);
    free(bf16);
    free(scale);
    free(packed);
}

/* Four groups for each BF16 scale: code c of a column is (column + its group) % 16. */
enum { INT4_ROTATIONS = 4, INT4_GROUPS = 65536 * INT4_ROTATIONS,
       INT4_COLUMNS = INT4_GROUPS * INT4_GROUP };

static unsigned int4_code(size_t column)
{
    return (unsigned)(column % INT4_GROUP + column / INT4_GROUP * 5) % 16;
}

static double int4_product(size_t column, uint16_t scale)
{
    return ((double)int4_code(column) - 8) * (double)float_of((uint32_t)scale << 16);
}

static void test_int4_rows_are_exact_for_all_codes_and_bf16_scales(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t *packed = buffer_new(INT4_COLUMNS / 2);
    uint16_t *scale = buffer_new(INT4_GROUPS * sizeof *scale);
    float *f32 = buffer_new(INT4_COLUMNS * sizeof *f32);

    (void)state;
    for (size_t g = 0; g < INT4_GROUPS; g++)
        scale[g] = (uint16_t)(g / INT4_ROTATIONS);
    for (size_t c = 0; c < INT4_COLUMNS; c += 2)
        packed[c / 2] = (uint8_t)(int4_code(c) | int4_code(c + 1) << 4);
    for (size_t s = 0; s < set_count; s++) {
        sets[s]->int4_row_to_f32(packed, scale, INT4_COLUMNS, f32);
        for (size_t c = 0; c < INT4_COLUMNS; c++) {
            const double product = int4_product(c, scale[c / INT4_GROUP]);
            const uint32_t expected = isnan(product) ? 0x7FC00000u : bits_of((float)product);

            if (bits_of(f32[c]) != expected)
                fail_msg("%s int4_row_to_f32: column %zu is %08x, not %08x", sets[s]->name, c,
                         bits_of(f32[c]), expected);
        }
    }
    free(f32);
    free(scale);
    free(packed);
}

static void test_int4_rows_of_any_group_count_stay_inside(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);

    (void)state;
    for (size_t groups = 0; groups < 6; groups++) {
        const size_t cols = groups * INT4_GROUP;
        uint8_t packed[6 * INT4_GROUP / 2];
        uint16_t scale[6];
        float expected[6 * INT4_GROUP];

        random_fill(packed, sizeof packed);
        for (size_t g = 0; g < groups; g++)
            scale[g] = (uint16_t)(0x3C00 + random32() % 256);
        sets[0]->int4_row_to_f32(packed, scale, cols, expected);
        for (size_t s = 0; s < set_count; s++) {
            uint8_t *codes_base;
            uint8_t *scale_base;
            const uint8_t *codes = misaligned_copy(packed, cols / 2, 3, &codes_base);
            const uint8_t *scales = misaligned_copy(scale, groups * 2, 1, &scale_base);
            guarded out = guarded_new(cols * sizeof(float), 1);

            sets[s]->int4_row_to_f32(codes, (const void *)scales, cols, (void *)out.dst);
            guarded_check(out, expected, sets[s]->name);
            free(codes_base);
            free(scale_base);
        }
    }
}

enum { NVFP4_GROUPS = 256 };

/* Group g has the E4M3 code g as its scale, and all 16 codes, in an order of its own. */
static void check_nvfp4_rows(const ckpt_kernels *k, const float *scale, float factor,
                             const uint8_t *packed)
{
    const size_t cols = NVFP4_GROUPS * NVFP4_GROUP;
    guarded out = guarded_new(cols * sizeof(float), 1);
    float *got = (void *)out.dst;
    float *expected = buffer_new(cols * sizeof *expected);

    for (size_t c = 0; c < cols; c++) {
        const unsigned code = packed[c / 2] >> (c % 2 * 4) & 15;
        const double value = e2m1_reference(code);
        const float product = (float)(value * (double)scale[c / NVFP4_GROUP]);
        const double both = (double)product * (double)factor;

        expected[c] = isnan(both) ? float_of(0x7FC00000u) : (float)both;
    }
    k->nvfp4_row_to_f32(packed, scale, factor, cols, got);
    guarded_check(out, expected, k->name);
    free(expected);
}

static void test_nvfp4_rows_are_exact_for_all_codes_and_scales(void **state)
{
    static const uint32_t factors[] = {
        0x3F800000u, 0x3803CF3Du, 0xB803CF3Du, 0x00000001u, 0x00800000u, 0x7F7FFFFFu, 0x7F800000u,
        0xFF800000u, 0x7FC00000u, 0x00000000u
    };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t packed[NVFP4_GROUPS * NVFP4_GROUP / 2];
    uint8_t scale_codes[NVFP4_GROUPS];
    float scale[NVFP4_GROUPS];

    (void)state;
    for (size_t c = 0; c < NVFP4_GROUPS * NVFP4_GROUP; c += 2) {
        const size_t turn = c / NVFP4_GROUP * 5;

        packed[c / 2] = (uint8_t)((c + turn) % 16 | (c + 1 + turn) % 16 << 4);
    }
    for (size_t g = 0; g < NVFP4_GROUPS; g++)
        scale_codes[g] = (uint8_t)g;
    sets[0]->e4m3_to_f32(scale_codes, scale, NVFP4_GROUPS);
    for (size_t s = 0; s < set_count; s++)
        for (size_t f = 0; f < sizeof factors / sizeof *factors; f++)
            check_nvfp4_rows(sets[s], scale, float_of(factors[f]), packed);
    for (size_t g = 0; g < NVFP4_GROUPS; g++)           /* of any value, which rounds twice */
        scale[g] = float_of(random32());
    for (size_t s = 0; s < set_count; s++)
        check_nvfp4_rows(sets[s], scale, 0x1.079e7ap-15f, packed);
}

/* The worked example of the layout document: codes -1 and 3, three below a block of 2^-3. */
static void test_fp4_example_of_the_layout_document(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t packed[FP4_GROUP / 2];
    const uint8_t scale = 121;
    const uint8_t distance = 3;

    (void)state;
    memset(packed, 0x5A, sizeof packed);
    for (size_t s = 0; s < set_count; s++) {
        uint16_t bf16[FP4_GROUP];
        uint8_t fp8[FP4_GROUP];

        sets[s]->fp4_row_to_bf16(packed, &scale, FP4_GROUP, bf16);
        sets[s]->fp4_row_to_fp8(packed, &distance, FP4_GROUP, 0, fp8);
        assert_int_equal(bf16[0], 0xBC80);
        assert_int_equal(bf16[31], 0x3D40);
        assert_int_equal(fp8[0], 0xD0);
        assert_int_equal(fp8[31], 0x5C);
    }
}

static void test_fp4_to_fp8_rounds_as_defined_at_every_distance(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t *packed = fp4_all_codes();
    uint8_t *distance = buffer_new(FP4_ALL_GROUPS);
    uint8_t *out = buffer_new(FP4_ALL_COLUMNS);

    (void)state;
    for (size_t g = 0; g < FP4_ALL_GROUPS; g++)
        distance[g] = (uint8_t)(g / FP4_ROTATIONS);
    for (size_t s = 0; s < 2 * set_count; s++) {
        const int positive_zero = s % 2 == 1;

        sets[s / 2]->fp4_row_to_fp8(packed, distance, FP4_ALL_COLUMNS, positive_zero, out);
        for (size_t c = 0; c < FP4_ALL_COLUMNS; c++) {
            const uint32_t code = fp4_rotated_code(c);
            const double x = ldexp(fabs(e2m1_reference(code)), 6 - distance[c / FP4_GROUP]);
            uint32_t expected = small_nearest(FORMAT_E4M3, x) | (code & 8) << 4;

            if (positive_zero && code == 8)
                expected = 0;
            if (out[c] != expected)
                fail_msg("%s: code %u at distance %u is %02x, not %02x", sets[s / 2]->name, code,
                         distance[c / FP4_GROUP], out[c], expected);
        }
    }
    free(out);
    free(distance);
    free(packed);
}

/* Groups with few different codes, so that bits are missing in most masks. */
static void test_group_masks_hold_exactly_the_magnitudes_present(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    const size_t group_bytes = FP4_GROUP / 2;

    (void)state;
    for (size_t count = 0; count < 70; count++) {
        uint8_t expected[70];
        uint8_t packed[70 * FP4_GROUP / 2];

        for (size_t g = 0; g < count; g++) {
            const uint8_t common = (uint8_t)random32();
            uint32_t mask = 0;

            memset(packed + g * group_bytes, common, group_bytes);
            if (g % 3 != 0)
                packed[g * group_bytes + random32() % group_bytes] = (uint8_t)random32();
            for (size_t i = 0; i < FP4_GROUP; i++)
                mask |= 1u << (((unsigned)packed[g * group_bytes + i / 2] >> (i % 2 * 4)) & 7);
            expected[g] = (uint8_t)mask;
        }
        for (size_t s = 0; s < set_count; s++) {
            guarded g = guarded_new(count, count % 5);
            uint8_t *base;

            sets[s]->fp4_group_masks(misaligned_copy(packed, count * group_bytes, 3, &base),
                                     count, g.dst);
            guarded_check(g, expected, "fp4_group_masks");
            free(base);
        }
    }
}

static void test_fp4_rows_of_any_group_count_stay_inside(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t packed[40 * FP4_GROUP / 2];
    uint8_t scale[40];
    uint8_t distance[40];

    (void)state;
    random_fill(packed, sizeof packed);
    random_fill(scale, sizeof scale);
    for (size_t i = 0; i < 40; i++)
        distance[i] = (uint8_t)(random32() % 24);
    for (size_t cols = 0; cols <= 40 * FP4_GROUP; cols += FP4_GROUP)
        for (size_t s = 0; s < set_count; s++) {
            const size_t misalign = cols / FP4_GROUP % 5;
            guarded to_bf16 = guarded_new(cols * 2, misalign);
            guarded to_f32 = guarded_new(cols * 4, misalign);
            guarded to_fp8 = guarded_new(cols, misalign);
            uint16_t bf16[40 * FP4_GROUP];
            float f32[40 * FP4_GROUP];
            uint8_t fp8[40 * FP4_GROUP];
            uint8_t *base;
            const uint8_t *src = misaligned_copy(packed, cols / 2, misalign, &base);

            sets[0]->fp4_row_to_bf16(packed, scale, cols, bf16);
            sets[0]->fp4_row_to_f32(packed, scale, cols, f32);
            sets[0]->fp4_row_to_fp8(packed, distance, cols, 1, fp8);
            sets[s]->fp4_row_to_bf16(src, scale, cols, (uint16_t *)(void *)to_bf16.dst);
            sets[s]->fp4_row_to_f32(src, scale, cols, (float *)(void *)to_f32.dst);
            sets[s]->fp4_row_to_fp8(src, distance, cols, 1, to_fp8.dst);
            guarded_check(to_bf16, bf16, "fp4_row_to_bf16");
            guarded_check(to_f32, f32, "fp4_row_to_f32");
            guarded_check(to_fp8, fp8, "fp4_row_to_fp8");
            free(base);
        }
}

static void test_a_xor_is_marked_and_counted_by_every_set(void **state)
{
    enum { MOST = 344 };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t before[MOST];
    uint8_t after[MOST];

    (void)state;
    for (size_t size = 0; size <= MOST; size += 8)
        for (size_t s = 0; s < set_count; s++)
            for (unsigned width = 1; width <= 8; width *= 2) {
                guarded got = guarded_new(size, size % 7);
                guarded marks = guarded_new((size + 63) / 64 * 8, 0);
                xor_found found = { .marks = (uint64_t *)(void *)marks.dst, .byte_count = 5 };
                uint64_t expected[(MOST + 63) / 64] = { 0 };
                uint64_t bytes = 5;
                uint64_t elements = 0;

                for (size_t i = 0; i < size; i++) {
                    before[i] = (uint8_t)random32();
                    after[i] = random32() % 5 == 0 ? (uint8_t)random32() : before[i];
                    bytes += before[i] != after[i];
                    expected[i / 64] |= (uint64_t)(before[i] != after[i]) << i % 64;
                }
                for (size_t i = 0; i < size; i += width)
                    elements += memcmp(before + i, after + i, width) != 0;
                memcpy(got.dst, before, size);
                sets[s]->xor_marks(got.dst, after, size, width, &found);
                for (size_t i = 0; i < size; i++)
                    before[i] ^= after[i];
                assert_int_equal(found.byte_count, bytes);
                assert_int_equal(found.element_count, elements);
                guarded_check(got, before, "xor_marks");
                guarded_check(marks, expected, "marks of xor_marks");
            }
}

static void test_bytes_that_are_not_zero_are_marked(void **state)
{
    enum { MOST = 300 };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t bytes[MOST];

    (void)state;
    for (size_t size = 0; size <= MOST; size++)
        for (size_t s = 0; s < set_count; s++) {
            const size_t words = (size + 63) / 64;
            guarded got = guarded_new(words * 8, size % 3 * 8);
            uint64_t expected[(MOST + 63) / 64] = { 0 };
            uint8_t *base;
            const uint8_t *src;

            for (size_t i = 0; i < size; i++) {
                bytes[i] = random32() % 3 == 0 ? (uint8_t)(1u << random32() % 8) : 0;
                expected[i / 64] |= (uint64_t)(bytes[i] != 0) << i % 64;
            }
            src = misaligned_copy(bytes, size, size % 5, &base);
            sets[s]->nonzero_marks(src, size, (uint64_t *)(void *)got.dst);
            guarded_check(got, expected, "nonzero_marks");
            free(base);
        }
}

static void test_marks_of_any_density_have_their_positions(void **state)
{
    enum { MOST = 64 * MARK_WORDS, UNTOUCHED = 0x5A5A5A5A };
    static const uint32_t gaps[] = { 1, 2, 5, 60, 200, 5000 };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint64_t marks[MARK_WORDS];
    uint32_t expected[MOST];
    uint32_t got[MOST + 2];

    (void)state;
    for (int trial = 0; trial < 60; trial++) {
        const uint32_t gap = gaps[trial % 6];
        const uint32_t first = random32() % 2 * MOST;
        size_t count = 0;

        memset(marks, 0, sizeof marks);
        for (uint32_t i = 0; i < MOST; i++)
            if (random32() % gap == 0) {
                marks[i / 64] |= 1ull << i % 64;
                expected[count++] = first + i;
            }
        for (size_t s = 0; s < set_count; s++) {
            for (size_t i = 0; i < MOST + 2; i++)
                got[i] = UNTOUCHED;
            assert_int_equal(sets[s]->mark_positions(marks, first, got), count);
            assert_memory_equal(got, expected, count * sizeof *got);
            assert_int_equal(got[count + 1], UNTOUCHED);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marks_of_any_density_have_their_positions),
        cmocka_unit_test(test_fp8_rows_are_exact_for_all_codes_and_e8m0_scales),
        cmocka_unit_test(test_fp8_rows_round_products_of_any_scale),
        cmocka_unit_test(test_a_nan_code_changes_only_its_own_column),
        cmocka_unit_test(test_fp8_rows_of_any_length_stay_inside),
        cmocka_unit_test(test_fp4_rows_are_exact_for_all_codes_scales_and_positions),
        cmocka_unit_test(test_int4_rows_are_exact_for_all_codes_and_bf16_scales),
        cmocka_unit_test(test_int4_rows_of_any_group_count_stay_inside),
        cmocka_unit_test(test_nvfp4_rows_are_exact_for_all_codes_and_scales),
        cmocka_unit_test(test_fp4_example_of_the_layout_document),
        cmocka_unit_test(test_fp4_to_fp8_rounds_as_defined_at_every_distance),
        cmocka_unit_test(test_group_masks_hold_exactly_the_magnitudes_present),
        cmocka_unit_test(test_fp4_rows_of_any_group_count_stay_inside),
        cmocka_unit_test(test_bytes_that_are_not_zero_are_marked),
        cmocka_unit_test(test_a_xor_is_marked_and_counted_by_every_set)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
