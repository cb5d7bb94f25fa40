/* test_synth.c: synthetic weights are the same everywhere and look like real ones. */
#include "libckpt/synth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libckpt/encoding.h"

/* A catalog of one tensor and its source. */
typedef struct {
    ckpt_catalog *catalog;
    ckpt_source *source;
} sample;

static ckpt_tensor make_tensor(const char *name, ckpt_dtype dtype, uint64_t rows, uint64_t cols)
{
    ckpt_tensor tensor = { .name = name, .dtype = dtype, .rank = 2, .shape = { rows, cols } };

    if (dtype == CKPT_I4)
        encoding_set(&tensor, ENCODING_INT4_32, CKPT_BF16);
    if (dtype == CKPT_F4 || dtype == CKPT_F8_E4M3) {
        tensor.scale_dtype = CKPT_F8_E8M0;
        tensor.block_rows = dtype == CKPT_F4 ? 1 : 128;
        tensor.block_cols = dtype == CKPT_F4 ? 32 : 128;
    }
    return tensor;
}

static ckpt_code try_open(const ckpt_tensor *tensor, uint64_t seed, sample *s, ckpt_error *err)
{
    const synth_options options = { .seed = seed, .expert_count = 16 };

    s->catalog = catalog_create();
    assert_non_null(s->catalog);
    if (catalog_add(s->catalog, tensor, err) != CKPT_OK)
        fail_msg("%s", err->text);
    return source_synth(s->catalog, &options, &s->source, err);
}

static sample open_sample(const ckpt_tensor *tensor, uint64_t seed)
{
    sample s;
    ckpt_error err;

    if (try_open(tensor, seed, &s, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    return s;
}

static void close_sample(sample *s)
{
    ckpt_source_free(s->source);
    catalog_free(s->catalog);
}

/* All bytes of one part, through the tile size that libckpt chooses. */
static void *read_part(const sample *s, ckpt_part part)
{
    const ckpt_tensor *tensor = ckpt_catalog_at(s->catalog, 0);
    void *out = malloc(ckpt_part_bytes(tensor, part));
    ckpt_error err;

    assert_non_null(out);
    if (ckpt_source_read(s->source, 0, part, 0, ckpt_part_rows(tensor, part), out, &err) !=
        CKPT_OK)
        fail_msg("%s", err.text);
    return out;
}

static void *make_part(const ckpt_tensor *tensor, uint64_t seed, ckpt_part part)
{
    sample s = open_sample(tensor, seed);
    void *out = read_part(&s, part);

    close_sample(&s);
    return out;
}

static uint64_t fnv1a(const void *bytes, size_t size)
{
    const unsigned char *byte = bytes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* ---- the same everywhere ---- */

static const struct {
    const char *name;
    ckpt_dtype dtype;
    uint64_t rows;
    uint64_t cols;
    uint64_t data_hash;
    uint64_t scale_hash;
} shapes[] = {
    { "layers.0.ffn.experts.7.w1.weight", CKPT_F4, 300, 96,
      UINT64_C(0xc6aa9973b88e2bed), UINT64_C(0xf2158d6dad490544) },
    { "layers.0.attn.wq_a.weight", CKPT_F8_E4M3, 300, 203,
      UINT64_C(0x24045402614e9960), UINT64_C(0xdb884330ca5b1112) },
    { "embed.weight", CKPT_BF16, 300, 77,
      UINT64_C(0xbe2883cc3722d005), UINT64_C(0xcbf29ce484222325) },
    { "attn_norm.weight", CKPT_BF16, 1, 77,
      UINT64_C(0xf08debeaa733c412), UINT64_C(0xcbf29ce484222325) },
    { "hc_attn_fn", CKPT_F32, 300, 5,
      UINT64_C(0x66dd26383743dc65), UINT64_C(0xcbf29ce484222325) },
    { "layers.0.ffn.gate.tid2eid", CKPT_I64, 300, 6,
      UINT64_C(0xd7daf47b5c44378d), UINT64_C(0xcbf29ce484222325) },
};

enum { SHAPE_COUNT = sizeof shapes / sizeof shapes[0] };

static ckpt_tensor shape_tensor(size_t i)
{
    return make_tensor(shapes[i].name, shapes[i].dtype, shapes[i].rows, shapes[i].cols);
}

/* Read one tile into memory of exactly its need, and compare it with the whole tensor. */
static void compare_tile(const sample *s, const source_range *range, unsigned char *const whole[])
{
    const ckpt_tensor *tensor = ckpt_catalog_at(s->catalog, 0);
    ckpt_error err;
    ckpt_tile tile;
    arena scratch;

    assert_int_equal(
        arena_init_fixed(&scratch, (size_t)source_need(s->source, 0, range->row_count)), 1);
    if (source_read_tile(s->source, range, &scratch, &tile, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    for (int part = CKPT_DATA; part < CKPT_PART_COUNT; part++) {
        const uint64_t row_bytes = ckpt_part_row_bytes(tensor, (ckpt_part)part);
        uint64_t row = range->row;
        uint64_t row_count = range->row_count;

        if (whole[part] == NULL || (range->want & 1u << part) == 0) {
            assert_null(tile.part[part]);
            continue;
        }
        if (part == CKPT_SCALE)
            source_scale_rows(tensor, range, &row, &row_count);
        assert_int_equal(tile.part_bytes[part], row_count * row_bytes);
        assert_memory_equal(tile.part[part], whole[part] + row * row_bytes,
                            row_count * row_bytes);
    }
    arena_release(&scratch);
}

static void test_values_do_not_depend_on_tiles(void **state)
{
    static const uint64_t bands[][2] = { { 0, 128 }, { 128, 128 }, { 256, 44 }, { 0, 256 },
                                         { 128, 172 }, { 0, 300 } };

    (void)state;
    for (size_t i = 0; i < SHAPE_COUNT; i++) {
        const ckpt_tensor tensor = shape_tensor(i);
        sample s = open_sample(&tensor, 1);
        unsigned char *whole[CKPT_PART_COUNT] = { read_part(&s, CKPT_DATA), NULL };

        if (tensor.scale_dtype != CKPT_NONE)
            whole[CKPT_SCALE] = read_part(&s, CKPT_SCALE);
        for (size_t j = 0; j < sizeof bands / sizeof bands[0] && tensor.shape[0] == 300; j++) {
            source_range range = { .row = bands[j][0], .row_count = bands[j][1] };

            for (range.want = 1; range.want <= SOURCE_WANT_ALL; range.want++)
                compare_tile(&s, &range, whole);
        }
        free(whole[CKPT_SCALE]);
        free(whole[CKPT_DATA]);
        close_sample(&s);
    }
}

static void test_values_are_those_of_every_other_machine(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHAPE_COUNT; i++) {
        const ckpt_tensor tensor = shape_tensor(i);
        void *data = make_part(&tensor, 1, CKPT_DATA);
        void *scales = make_part(&tensor, 1, CKPT_SCALE);
        const uint64_t data_hash = fnv1a(data, ckpt_part_bytes(&tensor, CKPT_DATA));
        const uint64_t scale_hash = fnv1a(scales, ckpt_part_bytes(&tensor, CKPT_SCALE));

        if (data_hash != shapes[i].data_hash || scale_hash != shapes[i].scale_hash)
            fail_msg("%s: got 0x%016llx, 0x%016llx", tensor.name, (unsigned long long)data_hash,
                     (unsigned long long)scale_hash);
        free(scales);
        free(data);
    }
}

static void test_seed_and_name_change_the_values(void **state)
{
    const ckpt_tensor tensor = make_tensor("a.weight", CKPT_BF16, 8, 64);
    const ckpt_tensor renamed = make_tensor("b.weight", CKPT_BF16, 8, 64);
    const size_t bytes = ckpt_part_bytes(&tensor, CKPT_DATA);
    void *first = make_part(&tensor, 1, CKPT_DATA);
    void *again = make_part(&tensor, 1, CKPT_DATA);
    void *seeded = make_part(&tensor, 2, CKPT_DATA);
    void *named = make_part(&renamed, 1, CKPT_DATA);

    (void)state;
    assert_memory_equal(first, again, bytes);
    assert_memory_not_equal(first, seeded, bytes);
    assert_memory_not_equal(first, named, bytes);
    free(named);
    free(seeded);
    free(again);
    free(first);
}

static void test_f32_scales_are_the_e8m0_scales(void **state)
{
    ckpt_tensor tensor = make_tensor("a.weight", CKPT_F8_E4M3, 300, 320);
    uint8_t *codes = make_part(&tensor, 1, CKPT_SCALE);
    const uint64_t count =
        ckpt_part_rows(&tensor, CKPT_SCALE) * ckpt_part_cols(&tensor, CKPT_SCALE);
    uint32_t *bits;

    (void)state;
    tensor.scale_dtype = CKPT_F32;
    bits = make_part(&tensor, 1, CKPT_SCALE);
    for (uint64_t j = 0; j < count; j++)
        assert_int_equal(bits[j], (uint32_t)codes[j] << 23);
    free(bits);
    free(codes);
}

/* ---- FP4 ---- */

static const double magnitudes[8] = { 0, 0.5, 1, 1.5, 2, 3, 4, 6 };

/* What one FP4 tensor looks like, group by group. */
typedef struct {
    uint64_t groups;
    uint64_t zero_groups;
    uint64_t largest[8];       /* groups by their largest magnitude */
    uint64_t codes[16];
    double square_sum;         /* of values */
    int widest;                /* spread of the exponents of a 128x128 block */
} fp4_look;

static fp4_look look_at_fp4(const uint8_t *data, const uint8_t *scales, uint64_t rows,
                            uint64_t cols)
{
    const uint64_t row_groups = cols / 32;
    fp4_look look = { .groups = rows * row_groups };

    for (uint64_t g = 0; g < look.groups; g++) {
        const double scale = 1.0 / (double)(UINT64_C(1) << (127 - scales[g]) % 64);
        int largest = 0;

        for (int i = 0; i < 32; i++) {
            const int code = data[g * 16 + (uint64_t)i / 2] >> (i % 2 * 4) & 15;

            look.codes[code]++;
            look.square_sum += magnitudes[code & 7] * magnitudes[code & 7] * scale * scale;
            if ((code & 7) > largest)
                largest = code & 7;
        }
        look.largest[largest]++;
        look.zero_groups += largest == 0;
        assert_int_equal(scales[g] == 1, largest == 0);
        if (largest != 0)
            assert_in_range(scales[g], 115, 126);
    }
    for (uint64_t block = 0; block < rows / 128 * (cols / 128); block++) {
        int low = 255;
        int high = 0;

        for (uint64_t i = 0; i < 512; i++) {
            const uint64_t row = block / (cols / 128) * 128 + i / 4;
            const int scale = scales[row * row_groups + block % (cols / 128) * 4 + i % 4];

            low = scale != 1 && scale < low ? scale : low;
            high = scale > high ? scale : high;
        }
        look.widest = high - low > look.widest ? high - low : look.widest;
    }
    return look;
}

static void assert_near(double got, double want, double tolerance)
{
    if (got < want - tolerance || got > want + tolerance)
        fail_msg("got %g, expected %g +- %g", got, want, tolerance);
}

static void test_fp4_looks_like_quantised_gaussian_weights(void **state)
{
    enum { ROWS = 2048, COLS = 8192 };
    const ckpt_tensor tensor = make_tensor("layers.3.ffn.experts.0.w1.weight", CKPT_F4, ROWS,
                                           COLS);
    uint8_t *data = make_part(&tensor, 1, CKPT_DATA);
    uint8_t *scales = make_part(&tensor, 1, CKPT_SCALE);
    const fp4_look look = look_at_fp4(data, scales, ROWS, COLS);
    const double groups = (double)look.groups;
    const double variance = look.square_sum / (groups * 32);

    (void)state;
    assert_near((double)look.largest[5] / groups, 0.280, 0.003);
    assert_near((double)look.largest[6] / groups, 0.366, 0.003);
    assert_near((double)look.largest[7] / groups, 0.354, 0.003);
    assert_int_equal(look.largest[0] + look.largest[5] + look.largest[6] + look.largest[7],
                     look.groups);
    assert_in_range(look.zero_groups, 1, 16);      /* 5.2 are expected */
    assert_near((double)look.codes[8] / (groups * 32), 0.055, 0.005);
    assert_near(variance, 0.03 * 0.03, 0.03 * 0.03 - 0.015 * 0.015);
    assert_in_range(look.widest, 2, 4);
    free(scales);
    free(data);
}

/* ---- FP8 ---- */

static void check_fp8_block(const uint8_t *data, uint64_t rows, uint64_t cols, uint64_t pitch)
{
    int large = 0;

    for (uint64_t i = 0; i < rows; i++) {
        for (uint64_t j = 0; j < cols; j++) {
            const int code = data[i * pitch + j] & 0x7f;

            assert_int_not_equal(code, 0x7f);
            large += code >= 0x77;
        }
    }
    assert_int_equal(large, 1);
}

static void test_fp8_blocks_have_one_largest_code_and_no_nan(void **state)
{
    enum { ROWS = 300, COLS = 1100 };
    const ckpt_tensor tensor = make_tensor("layers.3.attn.wq_a.weight", CKPT_F8_E4M3, ROWS,
                                           COLS);
    uint8_t *data = make_part(&tensor, 1, CKPT_DATA);
    uint8_t *scales = make_part(&tensor, 1, CKPT_SCALE);

    (void)state;
    for (uint64_t i = 0; i < ROWS; i += 128)
        for (uint64_t j = 0; j < COLS; j += 128)
            check_fp8_block(data + i * COLS + j, ROWS - i < 128 ? ROWS - i : 128,
                            COLS - j < 128 ? COLS - j : 128, COLS);
    for (uint64_t i = 0; i < ckpt_part_bytes(&tensor, CKPT_SCALE); i++)
        assert_in_range(scales[i], 115, 118);
    free(scales);
    free(data);
}

static double e4m3_value(uint8_t code)
{
    const int exponent = code >> 3 & 15;
    const int mantissa = code & 7;
    const double units = exponent == 0 ? mantissa : (8 + mantissa) * (double)(1 << (exponent - 1));

    return (code & 0x80 ? -units : units) / 512;
}

static void test_fp8_codes_are_gaussian(void **state)
{
    enum { COUNT = 1024 * 1024 };
    const ckpt_tensor tensor = make_tensor("w.weight", CKPT_F8_E4M3, 1024, 1024);
    uint8_t *data = make_part(&tensor, 1, CKPT_DATA);
    uint64_t seen[256] = { 0 };
    double sum = 0;
    double square_sum = 0;
    uint64_t within = 0;
    int different = 0;

    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        const double value = e4m3_value(data[i]);

        different += seen[data[i]]++ == 0;
        sum += value;
        square_sum += value * value;
        within += value > -65 && value < 65;
    }
    assert_near(sum / COUNT, 0, 0.3);
    assert_near(square_sum / COUNT, 64.7 * 64.7, 64.7 * 64.7 * 0.02);
    assert_near((double)within / COUNT, 0.68, 0.02);
    assert_in_range(different, 100, 254);
    free(data);
}

/* ---- plain tensors ---- */

static float bf16_value(uint16_t code)
{
    const uint32_t bits = (uint32_t)code << 16;
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static void test_bf16_weights_are_gaussian_and_norms_near_one(void **state)
{
    enum { COUNT = 256 * 1024 };
    const ckpt_tensor weight = make_tensor("embed.weight", CKPT_BF16, 256, 1024);
    const ckpt_tensor norm = make_tensor("layers.0.attn_norm.weight", CKPT_BF16, 1, 4096);
    uint16_t *data = make_part(&weight, 1, CKPT_DATA);
    double sum = 0;
    double square_sum = 0;
    uint64_t within = 0;

    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        const double value = (double)bf16_value(data[i]);

        sum += value;
        square_sum += value * value;
        within += value > -0.0361 && value < 0.0361;
    }
    assert_near(sum / COUNT, 0, 0.0003);
    assert_near(square_sum / COUNT, 0.0361 * 0.0361, 0.00003);
    assert_near((double)within / COUNT, 0.669, 0.005);
    free(data);
    data = make_part(&norm, 1, CKPT_DATA);
    for (size_t i = 0; i < 4096; i++)
        assert_near((double)bf16_value(data[i]), 1, 0.3);
    free(data);
}

static void test_f32_values_do_not_fit_bf16(void **state)
{
    static const char *const names[] = { "hc_attn_fn", "hc_attn_base", "attn.attn_sink",
                                         "attn.compressor.ape", "ffn.gate.bias",
                                         "hc_head_scale" };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const ckpt_tensor tensor = make_tensor(names[i], CKPT_F32, 4, 1024);
        uint32_t *bits = make_part(&tensor, 1, CKPT_DATA);
        int exact = 0;

        for (size_t j = 0; j < 4 * 1024; j++) {
            assert_in_range(bits[j] >> 23 & 255, 1, 129);     /* normal, below 8 */
            exact += (bits[j] & 0xffff) == 0;
        }
        assert_in_range(exact, 0, 40);
        free(bits);
    }
}

static void test_a_single_f32_scale_does_not_fit_bf16(void **state)
{
    ckpt_tensor tensor = make_tensor("hc_head_scale", CKPT_F32, 1, 1);
    uint32_t *bits;

    (void)state;
    tensor.rank = 1;
    for (uint64_t seed = 0; seed < 100; seed++) {
        bits = make_part(&tensor, seed, CKPT_DATA);
        assert_int_not_equal(*bits & 0xffff, 0);
        free(bits);
    }
}

static void test_expert_ids_are_distinct_and_in_range(void **state)
{
    enum { ROWS = 4096, COLS = 6, EXPERTS = 16 };
    const ckpt_tensor tensor = make_tensor("gate.tid2eid", CKPT_I64, ROWS, COLS);
    int64_t *ids = make_part(&tensor, 1, CKPT_DATA);
    uint64_t seen[EXPERTS] = { 0 };

    (void)state;
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t j = 0; j < COLS; j++) {
            assert_in_range(ids[i * COLS + j], 0, EXPERTS - 1);
            seen[ids[i * COLS + j]]++;
            for (size_t k = 0; k < j; k++)
                assert_int_not_equal(ids[i * COLS + j], ids[i * COLS + k]);
        }
    }
    for (size_t i = 0; i < EXPERTS; i++)
        assert_near((double)seen[i] / ROWS, (double)COLS / EXPERTS, 0.03);
    free(ids);
}

/* ---- what is refused ---- */

static void test_int4_groups_reach_an_end_of_the_range(void **state)
{
    const ckpt_tensor tensor = make_tensor("layers.0.ffn.experts.0.w1.weight", CKPT_I4, 256, 1024);
    sample s = open_sample(&tensor, 1);
    uint8_t *codes = read_part(&s, CKPT_DATA);
    uint16_t *scales = read_part(&s, CKPT_SCALE);
    uint64_t seen[16] = { 0 };
    double sum = 0;

    (void)state;
    for (size_t g = 0; g < 256 * 32; g++) {
        int has_end = 0;

        for (size_t i = 0; i < 32; i++) {
            const unsigned code = codes[g * 16 + i / 2] >> i % 2 * 4 & 15;

            has_end |= code == 0 || code == 15;
            seen[code]++;
            sum += (double)code - 8;
        }
        assert_true(has_end);
        assert_true(scales[g] >= 0x3B80 && scales[g] < 0x3C00);
    }
    for (int code = 0; code < 16; code++)
        assert_true(seen[code] > 0);
    assert_true(sum > -131072 && sum < 131072);       /* a mean within half a step of 0 */
    free(scales);
    free(codes);
    close_sample(&s);
}

static void test_tensors_without_a_rule_are_refused(void **state)
{
    ckpt_tensor wrong[] = {
        make_tensor("a", CKPT_F16, 8, 8),       make_tensor("b", CKPT_U8, 8, 8),
        make_tensor("c", CKPT_I64, 8, 17),      make_tensor("d", CKPT_F4, 8, 32),
        make_tensor("e", CKPT_F8_E4M3, 8, 32),
    };

    (void)state;
    wrong[3].scale_dtype = CKPT_NONE;
    wrong[4].scale_dtype = CKPT_BF16;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ckpt_error err;
        sample s;

        assert_int_equal(try_open(&wrong[i], 1, &s, &err), CKPT_E_USAGE);
        assert_non_null(strstr(err.text, wrong[i].name));
        catalog_free(s.catalog);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_do_not_depend_on_tiles),
        cmocka_unit_test(test_values_are_those_of_every_other_machine),
        cmocka_unit_test(test_seed_and_name_change_the_values),
        cmocka_unit_test(test_f32_scales_are_the_e8m0_scales),
        cmocka_unit_test(test_fp4_looks_like_quantised_gaussian_weights),
        cmocka_unit_test(test_fp8_blocks_have_one_largest_code_and_no_nan),
        cmocka_unit_test(test_fp8_codes_are_gaussian),
        cmocka_unit_test(test_bf16_weights_are_gaussian_and_norms_near_one),
        cmocka_unit_test(test_f32_values_do_not_fit_bf16),
        cmocka_unit_test(test_a_single_f32_scale_does_not_fit_bf16),
        cmocka_unit_test(test_expert_ids_are_distinct_and_in_range),
        cmocka_unit_test(test_int4_groups_reach_an_end_of_the_range),
        cmocka_unit_test(test_tensors_without_a_rule_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
