/* test_encode.c: encodings change exactly or not at all, for every code. */
#include "libckpt/encode.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memory_source.h"
#include "libckpt/scale.h"

static const float fp4_values[8] = { 0, 0.5f, 1, 1.5f, 2, 3, 4, 6 };

static ckpt_tensor described(ckpt_dtype dtype, ckpt_dtype scale, uint64_t rows, uint64_t cols)
{
    const ckpt_dtype stored = dtype == CKPT_F4 ? CKPT_I8 : dtype;

    return (ckpt_tensor){
        .name = "t.weight",
        .dtype = dtype,
        .stored_dtype = stored,
        .scale_dtype = scale,
        .block_rows = scale == CKPT_NONE ? 0 : dtype == CKPT_F4 ? 1 : 128,
        .block_cols = scale == CKPT_NONE ? 0 : dtype == CKPT_F4 ? 32 : 128,
        .rank = 2,
        .shape = { rows, cols },
    };
}

/* A view of one tensor in another encoding, and what it stands on. */
typedef struct {
    memory_source *from;
    ckpt_catalog *targets;
    ckpt_source *view;
    encode_options options;
} bench;

static bench make(const ckpt_tensor *from)
{
    bench b = { .from = memory_source_create(), .targets = catalog_create() };

    assert_int_equal(memory_source_add_tensor(b.from, from), 0);
    return b;
}

static ckpt_code view_as(bench *b, const ckpt_tensor *to, ckpt_error *err)
{
    assert_int_equal(catalog_add(b->targets, to, err), CKPT_OK);
    return source_encode(memory_source_base(b->from), b->targets, &b->options, &b->view, err);
}

static void release(bench *b)
{
    ckpt_source_free(b->view);
    catalog_free(b->targets);
    memory_source_free(b->from);
}

/* All of one part of the view; malloc'd, or NULL and *err. */
static void *read_part(bench *b, ckpt_part part, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(b->targets, 0);
    void *out = malloc(ckpt_part_bytes(t, part));

    if (ckpt_source_read(b->view, 0, part, 0, ckpt_part_rows(t, part), out, err) == CKPT_OK)
        return out;
    free(out);
    return NULL;
}

static float e4m3(uint8_t code)
{
    const int e = code >> 3 & 15;
    const float m = (float)(code & 7);
    const float value = e == 0 ? ldexpf(m, -9) : ldexpf(8 + m, e - 10);

    return code >> 7 ? -value : value;
}

/* ---- FP4 -> FP8 ---- */

/* One block whose first group has scale code 120 and whose second is `distance` below, all 16
 * codes in the second. */
static bench distant(unsigned distance, unsigned only)
{
    const ckpt_tensor from = described(CKPT_F4, CKPT_F8_E8M0, 1, 64);
    bench b = make(&from);
    uint8_t *codes = memory_source_part(b.from, 0, CKPT_DATA);
    uint8_t *scales = memory_source_part(b.from, 0, CKPT_SCALE);

    scales[0] = 120;
    scales[1] = (uint8_t)(120 - distance);
    memset(codes, 0x77, 16);
    for (unsigned i = 0; i < 16; i++)
        codes[16 + i] = (uint8_t)(only < 16 ? only | only << 4 : i | (15 - i) << 4);
    return b;
}

static void test_fp4_codes_keep_their_values_in_fp8(void **state)
{
    const ckpt_tensor to = described(CKPT_F8_E4M3, CKPT_F8_E8M0, 1, 64);

    (void)state;
    for (unsigned d = 0; d <= 14; d++) {
        bench b = distant(d, 16);
        ckpt_error err;
        uint8_t *codes;
        uint8_t *scale;

        assert_int_equal(view_as(&b, &to, &err), CKPT_OK);
        codes = read_part(&b, CKPT_DATA, &err);
        scale = read_part(&b, CKPT_SCALE, &err);
        assert_non_null(codes);
        assert_int_equal(*scale, 114);
        for (unsigned i = 0; i < 32; i++) {
            const unsigned code = i % 2 == 0 ? i / 2 : 15 - i / 2;
            const float value = ldexpf(fp4_values[code & 7], 120 - (int)d - 127);
            const float got = ldexpf(e4m3(codes[32 + i]), 114 - 127);

            if (fabsf(got) != value || (signbit(got) != 0) != (code > 7))
                fail_msg("code %u at distance %u", code, d);
        }
        free(codes);
        free(scale);
        release(&b);
    }
}

static void test_the_last_exact_distance_of_every_code(void **state)
{
    static const unsigned last[8] = { 254, 14, 15, 14, 16, 15, 17, 16 };
    const ckpt_tensor to = described(CKPT_F8_E4M3, CKPT_F8_E8M0, 1, 64);

    (void)state;
    for (unsigned code = 0; code < 16; code++)
        for (unsigned d = 0; d <= 40; d++) {
            bench b = distant(d, code);
            ckpt_error err;
            void *codes;

            assert_int_equal(view_as(&b, &to, &err), CKPT_OK);
            codes = read_part(&b, CKPT_DATA, &err);
            if ((codes != NULL) != (d <= last[code & 7]))
                fail_msg("code %u at distance %u", code, d);
            if (codes == NULL) {
                assert_int_equal(err.code, CKPT_E_INEXACT);
                assert_non_null(strstr(err.text, "'t.weight'"));
                assert_non_null(strstr(err.text, "block [0, 0]"));
                assert_non_null(strstr(err.text, "group 1"));
            }
            free(codes);
            release(&b);
        }
}

static void test_lossy_codes_are_counted_when_allowed(void **state)
{
    const ckpt_tensor to = described(CKPT_F8_E4M3, CKPT_F8_E8M0, 1, 64);
    bench b = distant(15, 1);
    ckpt_error err;
    void *codes;

    (void)state;
    b.options.allow_lossy = 1;
    assert_int_equal(view_as(&b, &to, &err), CKPT_OK);
    codes = read_part(&b, CKPT_DATA, &err);
    assert_non_null(codes);
    assert_int_equal(source_encode_stats(b.view, 0).inexact, 32);
    assert_int_equal(source_encode_stats(b.view, 0).spread, 15);
    free(codes);
    release(&b);
}

static void test_the_reference_has_no_negative_zero(void **state)
{
    const ckpt_tensor to = described(CKPT_F8_E4M3, CKPT_F8_E8M0, 1, 64);

    (void)state;
    for (int reference = 0; reference < 2; reference++) {
        bench b = distant(3, 8);
        ckpt_error err;
        uint8_t *codes;

        b.options.match_reference = reference;
        assert_int_equal(view_as(&b, &to, &err), CKPT_OK);
        codes = read_part(&b, CKPT_DATA, &err);
        for (int i = 32; i < 64; i++)
            assert_int_equal(codes[i], reference ? 0x00 : 0x80);
        free(codes);
        release(&b);
    }
}

/* Down to 2^-127 for FP8 as well: its codes move by less then. */
static void test_small_scales_are_exact_in_fp8(void **state)
{
    static const ckpt_dtype scale_dtypes[] = { CKPT_F8_E8M0, CKPT_F32, CKPT_BF16 };

    (void)state;
    for (unsigned i = 0; i < 3 * 9; i++) {
        const ckpt_tensor to = described(CKPT_F8_E4M3, scale_dtypes[i % 3], 1, 64);
        const int scale = (int)i / 3;
        bench b = distant(0, 16);
        uint8_t *scales = memory_source_part(b.from, 0, CKPT_SCALE);
        ckpt_error err;
        uint8_t *codes;
        uint8_t *fp8_scale;
        float got;

        scales[0] = scales[1] = (uint8_t)scale;
        assert_int_equal(view_as(&b, &to, &err), CKPT_OK);
        codes = read_part(&b, CKPT_DATA, &err);
        fp8_scale = read_part(&b, CKPT_SCALE, &err);
        assert_non_null(codes);
        got = scale_get(kernels_get(), to.scale_dtype, fp8_scale, 0);
        assert_true(got == ldexpf(1, (scale > 6 ? scale - 6 : 0) - 127));
        for (unsigned c = 0; c < 32; c++) {
            const unsigned code = c % 2 == 0 ? c / 2 : 15 - c / 2;

            if (fabsf(e4m3(codes[32 + c])) * got != ldexpf(fp4_values[code & 7], scale - 127))
                fail_msg("code %u at scale byte %d became 0x%02x", code, scale, codes[32 + c]);
        }
        free(codes);
        free(fp8_scale);
        release(&b);
    }
}

/* It stores 2^-127 beside codes for a smaller scale there. Zeros are zeros all the same. */
static void test_the_reference_is_not_matched_where_it_changes_values(void **state)
{
    const ckpt_tensor to = described(CKPT_F8_E4M3, CKPT_F8_E8M0, 1, 64);

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        const int is_small = i < 2;
        const int is_zero = i % 2 == 0;
        bench b = distant(0, is_zero ? 8 : 1);
        uint8_t *scales = memory_source_part(b.from, 0, CKPT_SCALE);
        ckpt_error err;
        void *codes;

        memset(memory_source_part(b.from, 0, CKPT_DATA), 0, 16);
        scales[0] = scales[1] = is_small ? 5 : 6;
        b.options.match_reference = 1;
        assert_int_equal(view_as(&b, &to, &err), CKPT_OK);
        codes = read_part(&b, CKPT_DATA, &err);
        assert_int_equal(codes != NULL, is_zero || !is_small);
        if (codes == NULL)
            assert_non_null(strstr(err.text, "group 1: its scale 0x05"));
        free(codes);
        release(&b);
    }
}

/* ---- dequantise and back ---- */

static void test_every_fp8_code_survives_bf16_and_given_scales(void **state)
{
    const ckpt_tensor fp8 = described(CKPT_F8_E4M3, CKPT_F8_E8M0, 2, 128);
    const ckpt_tensor bf16 = described(CKPT_BF16, CKPT_NONE, 2, 128);
    bench down = make(&fp8);
    uint8_t *codes = memory_source_part(down.from, 0, CKPT_DATA);
    bench up = make(&bf16);
    ckpt_error err;
    void *plain;
    uint8_t *again;

    (void)state;
    for (int i = 0; i < 256; i++)
        codes[i] = (i & 0x7F) == 0x7F ? 0x7E : (uint8_t)i;
    *(uint8_t *)memory_source_part(down.from, 0, CKPT_SCALE) = 119;
    assert_int_equal(view_as(&down, &bf16, &err), CKPT_OK);
    plain = read_part(&down, CKPT_DATA, &err);
    assert_non_null(plain);
    memcpy(memory_source_part(up.from, 0, CKPT_DATA), plain, 512);
    up.options.scales = memory_source_base(down.from);
    assert_int_equal(view_as(&up, &fp8, &err), CKPT_OK);
    again = read_part(&up, CKPT_DATA, &err);
    assert_non_null(again);
    assert_memory_equal(again, codes, 256);
    free(plain);
    free(again);
    release(&up);
    release(&down);
}

static void test_nan_codes_and_odd_scales_are_refused_unless_allowed(void **state)
{
    const ckpt_tensor fp8 = described(CKPT_F8_E4M3, CKPT_F8_E8M0, 2, 128);
    const ckpt_tensor bf16 = described(CKPT_BF16, CKPT_NONE, 2, 128);

    (void)state;
    for (int damage = 0; damage < 3; damage++)
        for (int allowed = 0; allowed < 2; allowed++) {
            bench b = make(&fp8);
            ckpt_error err;
            void *out;

            *(uint8_t *)memory_source_part(b.from, 0, CKPT_SCALE) =
                damage == 2 ? 0xFF : 120;
            if (damage < 2)
                ((uint8_t *)memory_source_part(b.from, 0, CKPT_DATA))[130] =
                    damage == 0 ? 0x7F : 0xFF;
            b.options.allow_odd_scales = allowed;
            assert_int_equal(view_as(&b, &bf16, &err), CKPT_OK);
            out = read_part(&b, CKPT_DATA, &err);
            assert_int_equal(out != NULL, allowed);
            if (out == NULL)
                assert_non_null(strstr(err.text, damage < 2 ? "row 1, column 2" : "[0, 0]"));
            free(out);
            release(&b);
        }
}

/* FP8 has one scale for the block: a group of NaN in it would become numbers. */
static void test_a_nan_scale_never_becomes_numbers_in_fp8(void **state)
{
    const ckpt_tensor to = described(CKPT_F8_E4M3, CKPT_F8_E8M0, 1, 64);
    bench b = distant(0, 16);
    uint8_t *scales = memory_source_part(b.from, 0, CKPT_SCALE);
    ckpt_error err;

    (void)state;
    scales[1] = 0xFF;
    b.options.allow_odd_scales = 1;
    b.options.allow_lossy = 1;
    assert_int_equal(view_as(&b, &to, &err), CKPT_OK);
    assert_null(read_part(&b, CKPT_DATA, &err));
    assert_non_null(strstr(err.text, "block [0, 0]: scale byte 0xFF is NaN"));
    release(&b);
}

static void test_the_smallest_scale_is_a_scale(void **state)
{
    const ckpt_tensor fp4 = described(CKPT_F4, CKPT_F8_E8M0, 1, 32);
    const ckpt_tensor bf16 = described(CKPT_BF16, CKPT_NONE, 1, 32);
    bench b = make(&fp4);
    uint8_t *codes = memory_source_part(b.from, 0, CKPT_DATA);
    ckpt_error err;
    uint16_t *out;

    (void)state;
    *(uint8_t *)memory_source_part(b.from, 0, CKPT_SCALE) = 0x00;
    for (unsigned i = 0; i < 16; i++)
        codes[i] = (uint8_t)(i | i << 4);
    assert_int_equal(view_as(&b, &bf16, &err), CKPT_OK);
    out = read_part(&b, CKPT_DATA, &err);
    assert_non_null(out);
    for (unsigned i = 0; i < 32; i++) {
        const uint32_t bits = (uint32_t)out[i] << 16;
        float value;

        memcpy(&value, &bits, sizeof value);
        assert_true(fabsf(value) == ldexpf(fp4_values[i / 2 & 7], -127));
        assert_int_equal(signbit(value) != 0, i / 2 > 7);
    }
    free(out);
    release(&b);
}

/* Of E4M3 at 2^-127, BF16 holds the multiples of 2^-133: those of 64 times the smallest code. */
static void test_subnormals_that_bf16_lacks_are_refused_by_code_and_scale(void **state)
{
    const ckpt_tensor fp8 = described(CKPT_F8_E4M3, CKPT_F8_E8M0, 1, 128);
    const ckpt_tensor bf16 = described(CKPT_BF16, CKPT_NONE, 1, 128);

    (void)state;
    for (unsigned code = 0; code < 127; code++) {
        bench b = make(&fp8);
        ckpt_error err;
        void *out;
        char text[32];

        *(uint8_t *)memory_source_part(b.from, 0, CKPT_SCALE) = 0x00;
        ((uint8_t *)memory_source_part(b.from, 0, CKPT_DATA))[77] = (uint8_t)code;
        assert_int_equal(view_as(&b, &bf16, &err), CKPT_OK);
        out = read_part(&b, CKPT_DATA, &err);
        assert_int_equal(out != NULL, fmodf(e4m3((uint8_t)code), ldexpf(1, -6)) == 0);
        if (out == NULL) {
            assert_int_equal(err.code, CKPT_E_INEXACT);
            snprintf(text, sizeof text, "code 0x%02X (%g)", code, (double)e4m3((uint8_t)code));
            assert_non_null(strstr(err.text, text));
            assert_non_null(strstr(err.text, "row 0, column 77"));
            assert_non_null(strstr(err.text, "5.87747175e-39 (0x00)"));
        }
        free(out);
        release(&b);
    }
}

/* allow_lossy is for rounding: a number is never an infinity, and NaN is never a number. */
static void test_what_has_no_code_is_refused_even_when_lossy(void **state)
{
    static const struct {
        float value;
        ckpt_dtype to;
        const char *says;
    } cases[] = {
        { 3.4028235e38f, CKPT_BF16, "row 1, column 5: F32 3.40282347e+38 is beyond" },
        { -65520.0f, CKPT_F16, "row 1, column 5: F32 -65520 is beyond the range of F16" },
        { NAN, CKPT_F4, "row 1, group 0: a value is NaN" },
        { INFINITY, CKPT_F4, "row 1, group 0: a value is NaN or infinite" },
        { NAN, CKPT_F8_E4M3, "a value is NaN or infinite" },
        /* 3.98 * 2^126: rounded to 4 or to 256, it leaves F32. */
        { 3.3895314e38f, CKPT_F4, "row 1, column 5: code 0x06 (4) x scale 8.50705917e+37 (0xFD)" },
        { 3.3895314e38f, CKPT_F8_E4M3, "row 1, column 5: code 0x78 (256) x scale" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int is_scaled = cases[i].to == CKPT_F4 || cases[i].to == CKPT_F8_E4M3;
        const ckpt_tensor from = described(CKPT_F32, CKPT_NONE, 2, 64);
        const ckpt_tensor to =
            described(cases[i].to, is_scaled ? CKPT_F8_E8M0 : CKPT_NONE, 2, 64);
        bench b = make(&from);
        ckpt_error err;

        ((float *)memory_source_part(b.from, 0, CKPT_DATA))[64 + 5] = cases[i].value;
        b.options.allow_lossy = 1;
        assert_int_equal(view_as(&b, &to, &err), CKPT_OK);
        assert_null(read_part(&b, CKPT_DATA, &err));
        assert_int_equal(err.code, CKPT_E_FORMAT);
        if (strstr(err.text, cases[i].says) == NULL)
            fail_msg("%s", err.text);
        release(&b);
    }
}

/* ---- scales ---- */

static void test_scale_dtypes_change_for_powers_of_two_alone(void **state)
{
    const ckpt_tensor f32 = described(CKPT_F8_E4M3, CKPT_F32, 1, 128);
    const ckpt_tensor e8m0 = described(CKPT_F8_E4M3, CKPT_F8_E8M0, 1, 128);

    (void)state;
    for (int code = 0; code < 255; code++) {
        bench b = make(&f32);
        float *scale = memory_source_part(b.from, 0, CKPT_SCALE);
        ckpt_error err;
        uint8_t *out;

        *scale = ldexpf(1, code - 127);
        assert_int_equal(view_as(&b, &e8m0, &err), CKPT_OK);
        out = read_part(&b, CKPT_SCALE, &err);
        assert_non_null(out);
        assert_int_equal(*out, code);
        free(out);
        *scale *= 1.5f;
        assert_null(read_part(&b, CKPT_SCALE, &err));
        assert_int_equal(err.code, CKPT_E_INEXACT);
        release(&b);
    }
}

/* ---- -> FP4 ---- */

static void test_every_group_of_one_value_finds_an_exact_scale(void **state)
{
    const ckpt_tensor bf16 = described(CKPT_BF16, CKPT_NONE, 1, 32);
    const ckpt_tensor fp4 = described(CKPT_F4, CKPT_F8_E8M0, 1, 32);

    (void)state;
    for (unsigned bits = 0; bits < 65536; bits += 16) {      /* mantissas 0, 16, 32 ... */
        const uint32_t wide = bits << 16;
        bench b = make(&bf16);
        float value;
        ckpt_error err;
        uint8_t *codes;
        uint8_t *scale;
        int mantissa = (int)(bits & 0x7F);

        memcpy(&value, &wide, sizeof value);
        if (!(fabsf(value) >= 0x1p-120f && fabsf(value) <= 0x1p120f)) {
            release(&b);
            continue;
        }
        ((uint16_t *)memory_source_part(b.from, 0, CKPT_DATA))[5] = (uint16_t)bits;
        assert_int_equal(view_as(&b, &fp4, &err), CKPT_OK);
        codes = read_part(&b, CKPT_DATA, &err);
        /* 1 and 1.5 times a power of two are FP4; nothing else is. */
        if ((codes != NULL) != (mantissa == 0 || mantissa == 0x40))
            fail_msg("BF16 0x%04X: %s", bits, codes == NULL ? err.text : "accepted");
        if (codes != NULL) {
            scale = read_part(&b, CKPT_SCALE, &err);
            const float back = ldexpf(fp4_values[codes[2] >> 4 & 7], *scale - 127);

            assert_true(back == fabsf(value));
            assert_int_equal(codes[2] >> 7, bits >> 15);
            free(scale);
        }
        free(codes);
        release(&b);
    }
}

static void test_encodings_that_have_no_way_are_refused(void **state)
{
    const ckpt_tensor from = described(CKPT_I64, CKPT_NONE, 1, 32);
    const ckpt_tensor to = described(CKPT_BF16, CKPT_NONE, 1, 32);
    bench b = make(&from);
    ckpt_error err;

    (void)state;
    assert_int_equal(view_as(&b, &to, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "from I64 to BF16"));
    release(&b);
}

static void test_f32_becomes_bf16_only_where_it_is_bf16(void **state)
{
    const ckpt_tensor from = described(CKPT_F32, CKPT_NONE, 2, 3);
    const ckpt_tensor to = described(CKPT_BF16, CKPT_NONE, 2, 3);
    bench b = make(&from);
    float *values = memory_source_part(b.from, 0, CKPT_DATA);
    ckpt_error err;
    void *out;

    (void)state;
    values[0] = 1.5f;
    values[1] = -0.0f;
    assert_int_equal(view_as(&b, &to, &err), CKPT_OK);
    assert_non_null(out = read_part(&b, CKPT_DATA, &err));
    assert_int_equal(((uint16_t *)out)[1], 0x8000);
    free(out);
    values[4] = 1.00390625f;
    assert_null(read_part(&b, CKPT_DATA, &err));
    assert_non_null(strstr(err.text, "row 1, column 1"));
    release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp4_codes_keep_their_values_in_fp8),
        cmocka_unit_test(test_the_last_exact_distance_of_every_code),
        cmocka_unit_test(test_lossy_codes_are_counted_when_allowed),
        cmocka_unit_test(test_the_reference_has_no_negative_zero),
        cmocka_unit_test(test_small_scales_are_exact_in_fp8),
        cmocka_unit_test(test_the_reference_is_not_matched_where_it_changes_values),
        cmocka_unit_test(test_every_fp8_code_survives_bf16_and_given_scales),
        cmocka_unit_test(test_nan_codes_and_odd_scales_are_refused_unless_allowed),
        cmocka_unit_test(test_a_nan_scale_never_becomes_numbers_in_fp8),
        cmocka_unit_test(test_the_smallest_scale_is_a_scale),
        cmocka_unit_test(test_subnormals_that_bf16_lacks_are_refused_by_code_and_scale),
        cmocka_unit_test(test_what_has_no_code_is_refused_even_when_lossy),
        cmocka_unit_test(test_scale_dtypes_change_for_powers_of_two_alone),
        cmocka_unit_test(test_every_group_of_one_value_finds_an_exact_scale),
        cmocka_unit_test(test_encodings_that_have_no_way_are_refused),
        cmocka_unit_test(test_f32_becomes_bf16_only_where_it_is_bf16),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
