/* test_kernels_codecs.c: element codecs against their definition, vector sets against scalar. */
#include "test_kernels.h"

/* ---- one view of all codecs ---- */

typedef struct {
    const char *name;
    unsigned src_bits;          /* of one element */
    unsigned dst_bits;
    void (*run)(const ckpt_kernels *k, const void *src, void *dst, size_t count);
} codec;

#define CODEC_RUN(kernel, src_type, dst_type) \
    static void run_##kernel(const ckpt_kernels *k, const void *src, void *dst, size_t count) \
    { \
        k->kernel((const src_type *)src, (dst_type *)dst, count); \
    }

CODEC_RUN(e4m3_to_f32, uint8_t, float)
CODEC_RUN(e5m2_to_f32, uint8_t, float)
CODEC_RUN(e8m0_to_f32, uint8_t, float)
CODEC_RUN(e2m1_to_f32, uint8_t, float)
CODEC_RUN(bf16_to_f32, uint16_t, float)
CODEC_RUN(f16_to_f32, uint16_t, float)
CODEC_RUN(f32_to_bf16, float, uint16_t)
CODEC_RUN(f32_to_f16, float, uint16_t)
CODEC_RUN(f32_to_e4m3, float, uint8_t)
CODEC_RUN(f32_to_e5m2, float, uint8_t)
CODEC_RUN(f32_to_e8m0, float, uint8_t)
CODEC_RUN(f32_to_e2m1, float, uint8_t)

static const codec decoders[] = {
    { "e4m3_to_f32", 8, 32, run_e4m3_to_f32 },
    { "e5m2_to_f32", 8, 32, run_e5m2_to_f32 },
    { "e8m0_to_f32", 8, 32, run_e8m0_to_f32 },
    { "e2m1_to_f32", 4, 32, run_e2m1_to_f32 },
    { "bf16_to_f32", 16, 32, run_bf16_to_f32 },
    { "f16_to_f32", 16, 32, run_f16_to_f32 }
};

static const codec encoders[] = {
    { "f32_to_bf16", 32, 16, run_f32_to_bf16 },
    { "f32_to_f16", 32, 16, run_f32_to_f16 },
    { "f32_to_e4m3", 32, 8, run_f32_to_e4m3 },
    { "f32_to_e5m2", 32, 8, run_f32_to_e5m2 },
    { "f32_to_e8m0", 32, 8, run_f32_to_e8m0 },
    { "f32_to_e2m1", 32, 4, run_f32_to_e2m1 }
};

static size_t codec_bytes(size_t count, unsigned bits)
{
    return count * bits / 8;
}

/* Every set must give scalar's bytes for `src`. */
static void codec_sets_agree(const codec *c, const void *src, size_t count)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    const size_t size = codec_bytes(count, c->dst_bits);
    uint8_t *expected = buffer_new(size);
    uint8_t *got = buffer_new(size);

    c->run(sets[0], src, expected, count);
    for (size_t s = 1; s < set_count; s++) {
        memset(got, GUARD_FILL, size);
        c->run(sets[s], src, got, count);
        for (size_t i = 0; i < size; i++)
            if (got[i] != expected[i])
                fail_msg("%s %s: byte %zu of %zu is %02x, scalar has %02x", sets[s]->name,
                         c->name, i, size, got[i], expected[i]);
    }
    free(got);
    free(expected);
}

/* ---- decoders ---- */

static void scalar_decode(const codec *c, const void *src, float *dst, size_t count)
{
    c->run(kernels_find("scalar"), src, dst, count);
}

/* Every code. Behind the last finite one comes infinity, if the format has it, then NaNs. */
static void check_small_decoder(const codec *c, small_format f, int has_inf, int keeps_payload)
{
    const unsigned code_bits = 1 + f.exponent_bits + f.mantissa_bits;
    const uint32_t code_count = 1u << code_bits;
    uint16_t *codes16 = buffer_new(code_count * sizeof *codes16);
    uint8_t *codes8 = buffer_new(code_count);
    float *values = buffer_new(code_count * sizeof *values);

    for (uint32_t i = 0; i < code_count; i++) {
        codes16[i] = (uint16_t)i;
        codes8[i] = (uint8_t)i;
    }
    scalar_decode(c, code_bits == 16 ? (const void *)codes16 : codes8, values, code_count);
    for (uint32_t i = 0; i < code_count; i++) {
        const uint32_t sign = i >> (code_bits - 1) << 31;
        const uint32_t magnitude = i & (code_count / 2 - 1);
        uint32_t expected;

        if (magnitude <= f.last)
            expected = bits_of((float)small_value(f, magnitude));
        else if (has_inf && magnitude == f.last + 1)
            expected = 0x7F800000u;
        else if (keeps_payload)
            expected = 0x7F800000u | (magnitude & ((1u << f.mantissa_bits) - 1))
                                         << (23 - f.mantissa_bits);
        else
            expected = 0x7FC00000u;
        if (c->run == run_f16_to_f32 && magnitude > f.last + 1)
            expected |= 0x7FC00000u;        /* F16 NaNs become quiet */
        if (bits_of(values[i]) != (sign | expected))
            fail_msg("%s: code %x gives %08x", c->name, i, bits_of(values[i]));
    }
    free(values);
    free(codes8);
    free(codes16);
}

static void test_small_floats_decode_to_their_values(void **state)
{
    (void)state;
    check_small_decoder(&decoders[0], FORMAT_E4M3, 0, 0);
    check_small_decoder(&decoders[1], FORMAT_E5M2, 1, 0);
    check_small_decoder(&decoders[5], FORMAT_F16, 1, 1);
}

static void test_bf16_widening_is_exact(void **state)   /* all 65536 values, NaNs included */
{
    (void)state;
    check_small_decoder(&decoders[4], FORMAT_BF16, 1, 1);
}

static void test_e8m0_decodes_to_powers_of_two(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 256; i++) {
        const uint8_t code = (uint8_t)i;
        float value;

        kernels_find("scalar")->e8m0_to_f32(&code, &value, 1);
        if (i == 255)
            assert_int_equal(bits_of(value), 0x7FC00000u);
        else
            assert_int_equal(bits_of(value), bits_of((float)e8m0_reference(i)));
    }
}

static void test_e2m1_decodes_low_nibble_first(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 256; i++) {
        const uint8_t packed = (uint8_t)i;
        float pair[2];

        kernels_find("scalar")->e2m1_to_f32(&packed, pair, 2);
        assert_int_equal(bits_of(pair[0]), bits_of((float)e2m1_reference(i & 15)));
        assert_int_equal(bits_of(pair[1]), bits_of((float)e2m1_reference(i >> 4)));
    }
}

static void test_all_sets_decode_every_code_alike(void **state)
{
    uint16_t *codes = buffer_new(65536 * 4);

    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        codes[i] = (uint16_t)i;
        codes[65536 + i] = (uint16_t)random32();
    }
    for (size_t d = 0; d < COUNT(decoders); d++)        /* pairs of bytes cover all FP4 bytes */
        codec_sets_agree(&decoders[d], codes, 65536);
    for (size_t d = 0; d < COUNT(decoders); d++)
        codec_sets_agree(&decoders[d], codes + 65536, 65536);
    free(codes);
}

/* ---- encoders ---- */

typedef struct {
    const codec *codec;
    small_format format;
    uint32_t (*overflow)(uint32_t magnitude_bits);  /* code of what does not fit, NaN included */
    int nan_has_sign;
} encoder;

static uint32_t bf16_overflow(uint32_t bits)
{
    return bits > 0x7F800000u ? 0x7FC0 : 0x7F80;
}

static uint32_t f16_overflow(uint32_t bits)
{
    return bits > 0x7F800000u ? 0x7E00 | (bits >> 13 & 0x3FF) : 0x7C00;
}

static uint32_t e4m3_overflow(uint32_t bits)
{
    (void)bits;
    return 0x7F;
}

static uint32_t e5m2_overflow(uint32_t bits)
{
    return bits > 0x7F800000u ? 0x7F : 0x7C;
}

static uint32_t e2m1_overflow(uint32_t bits)
{
    (void)bits;
    return 7;
}

static const encoder small_encoders[] = {
    { &encoders[0], { 8, 7, 0x7F7F }, bf16_overflow, 0 },
    { &encoders[1], { 5, 10, 0x7BFF }, f16_overflow, 1 },
    { &encoders[2], { 4, 3, 0x7E }, e4m3_overflow, 1 },
    { &encoders[3], { 5, 2, 0x7B }, e5m2_overflow, 1 },
    { &encoders[5], { 2, 1, 7 }, e2m1_overflow, 0 }
};

/* The code by definition: nearest value, ties to even, and each format's rule beyond that. */
static uint32_t encoder_reference(const encoder *e, float x)
{
    const uint32_t magnitude_bits = bits_of(x) & 0x7FFFFFFFu;
    const uint32_t sign = bits_of(x) >> 31 << (e->format.exponent_bits + e->format.mantissa_bits);
    uint32_t code;

    if (isnan(x))
        return e->overflow(magnitude_bits) | (e->nan_has_sign ? sign : 0);
    if (isinf(x))
        return e->overflow(magnitude_bits) | sign;
    code = small_nearest(e->format, fabs((double)x));
    return (code > e->format.last ? e->overflow(magnitude_bits) : code) | sign;
}

static uint32_t codec_output(const codec *c, const void *out, size_t i)
{
    const uint8_t *bytes = out;
    uint16_t wide;

    if (c->dst_bits == 4)
        return (unsigned)bytes[i / 2] >> (i % 2 * 4) & 15;
    if (c->dst_bits == 8)
        return bytes[i];
    memcpy(&wide, bytes + i * sizeof wide, sizeof wide);
    return wide;
}

static void check_encoder(const encoder *e, const float *x, size_t count)
{
    uint8_t *out = buffer_new(count * 2);

    e->codec->run(kernels_find("scalar"), x, out, count);
    for (size_t i = 0; i < count; i++) {
        const uint32_t expected = encoder_reference(e, x[i]);
        const uint32_t got = codec_output(e->codec, out, i);

        if (got != expected)
            fail_msg("%s(%08x) is %x, by definition %x", e->codec->name, bits_of(x[i]), got,
                     expected);
    }
    codec_sets_agree(e->codec, x, count);
    free(out);
}

/* For each code its value, the midpoint to the next, and one ulp to each side of both. */
static void test_encoders_round_to_nearest_even_at_every_boundary(void **state)
{
    (void)state;
    for (size_t n = 0; n < COUNT(small_encoders); n++) {
        const encoder *e = &small_encoders[n];
        const size_t total = ((size_t)e->format.last + 1) * 12;
        float *x = buffer_new(total * sizeof *x);
        size_t count = 0;

        for (uint32_t code = 0; code <= e->format.last; code++) {
            const double value = small_value(e->format, code);
            const double middle = (value + small_value(e->format, code + 1)) / 2;
            const float points[2] = { (float)value, (float)middle };

            for (size_t p = 0; p < 2; p++)
                for (int ulp = -1; ulp <= 1; ulp++) {
                    const uint32_t bits = bits_of(points[p]);
                    const float near = float_of(bits == 0 && ulp < 0 ? 0 : bits + (uint32_t)ulp);

                    x[count++] = near;
                    x[count++] = -near;
                }
        }
        assert_int_equal(count, total);
        check_encoder(e, x, count);
        free(x);
    }
}

static void test_encoders_handle_special_values(void **state)
{
    static const uint32_t special[] = {
        0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF,
        0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0xFF800001, 0x7FC00000, 0xFFC00000,
        0x7FFFFFFF, 0xFFFFFFFF, 0x7FA00000, 0xFFABCDEF, 0x47800000, 0x477FF000, 0x477FEFFF,
        0x43E80000, 0x43E80001, 0x43E7FFFF, 0x40C00000, 0x40A00000
    };
    float x[COUNT(special)];

    (void)state;
    memcpy(x, special, sizeof x);
    for (size_t n = 0; n < COUNT(small_encoders); n++)
        check_encoder(&small_encoders[n], x, COUNT(special));
}

static void test_encoders_round_to_nearest_even_on_random_bits(void **state)
{
    enum { N = 200000 };
    float *x = buffer_new(N * sizeof *x);

    (void)state;
    for (size_t n = 0; n < COUNT(small_encoders); n++) {
        const int bias = (1 << (small_encoders[n].format.exponent_bits - 1)) - 1;

        for (size_t i = 0; i < N; i++)
            x[i] = i % 4 == 0 || bias > 100
                ? float_of(random32())
                : random_float(-bias - 13, bias + 3);
        check_encoder(&small_encoders[n], x, N);
    }
    free(x);
}

/* By definition: up from 1.5 times a power of two; from just above 2^-127 below 2^-126. */
static uint8_t e8m0_encode_reference(float x)
{
    const double magnitude = fabs((double)x);
    int exponent;

    if (isnan(x) || isinf(x))
        return 255;
    if (magnitude < ldexp(1.0, -126))
        return magnitude > ldexp(1.0, -127);
    exponent = ilogb(magnitude);
    return (uint8_t)(exponent + 127 + (magnitude >= ldexp(1.5, exponent)));
}

static void test_e8m0_encoding_rounds_as_defined(void **state)
{
    enum { N = 300000 };
    float *x = buffer_new(N * sizeof *x);
    uint8_t *out = buffer_new(N);
    size_t count = 0;

    (void)state;
    for (uint32_t high = 0; high < 0x400; high++)      /* sign, exponent, top mantissa bit */
        for (int ulp = -2; ulp <= 2; ulp++)
            x[count++] = float_of((high << 22) + (uint32_t)ulp);
    while (count < N)
        x[count++] = float_of(random32());
    kernels_find("scalar")->f32_to_e8m0(x, out, count);
    for (size_t i = 0; i < count; i++)
        if (out[i] != e8m0_encode_reference(x[i]))
            fail_msg("f32_to_e8m0(%08x) is %02x", bits_of(x[i]), out[i]);
    codec_sets_agree(&encoders[4], x, count);
    free(out);
    free(x);
}

/* The vectors of the format documents, so that a wrong reference above cannot hide. */
static void test_encoders_match_published_vectors(void **state)
{
    static const struct {
        uint32_t bits;
        uint8_t code;
    } e8m0[] = {
        { 0x00000000, 0x00 }, { 0x00200000, 0x00 }, { 0x00400000, 0x00 }, { 0x00400001, 0x01 },
        { 0x00800000, 0x01 }, { 0x3F800000, 0x7F }, { 0x3FBFFFFF, 0x7F }, { 0x3FC00000, 0x80 },
        { 0x7F3FFFFF, 0xFE }, { 0x7F400000, 0xFF }
    };
    static const struct {
        float x;
        uint8_t code;
    } e4m3[] = {
        { 0.1f, 0x1D }, { 1.0f, 0x38 }, { 1.0625f, 0x38 }, { 1.1875f, 0x3A }, { -1.5f, 0xBC },
        { 17.0f, 0x58 }, { 19.0f, 0x5A }, { 0x1p-10f, 0x00 }, { 0x1p-9f, 0x01 },
        { 0x1.8p-9f, 0x02 }, { 463.9f, 0x7E }, { 464.0f, 0x7E }, { 464.00003f, 0x7F }
    };
    static const float e2m1[8] = { 0.25f, 0.3f, 1.25f, 1.7f, 2.5f, 3.4f, 5.0f, 5.1f };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);

    (void)state;
    for (size_t s = 0; s < set_count; s++) {
        uint8_t out[4];

        for (size_t i = 0; i < COUNT(e8m0); i++) {
            const float x = float_of(e8m0[i].bits);

            sets[s]->f32_to_e8m0(&x, out, 1);
            assert_int_equal(out[0], e8m0[i].code);
        }
        for (size_t i = 0; i < COUNT(e4m3); i++) {
            sets[s]->f32_to_e4m3(&e4m3[i].x, out, 1);
            assert_int_equal(out[0], e4m3[i].code);
        }
        sets[s]->f32_to_e2m1(e2m1, out, 8);
        assert_memory_equal(out, "\x10\x32\x54\x76", 4);
    }
}

static void test_all_sets_encode_ten_million_random_values_alike(void **state)
{
    enum { N = 100000, ROUNDS = 100 };
    float *x = buffer_new(N * sizeof *x);

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < N; i++)
            x[i] = float_of(round % 2 == 0 ? random32()
                                           : (random32() & 0x8FFFFFFFu) | 0x38000000u);
        for (size_t e = 0; e < COUNT(encoders); e++)
            codec_sets_agree(&encoders[e], x, N);
    }
    free(x);
}

/* ---- lengths ---- */

static void check_lengths(const codec *c, const void *random_bytes)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);

    for (size_t l = 0; l < COUNT(odd_lengths); l++) {
        const size_t even = odd_lengths[l] / 2 * 2;
        const int packed = c->src_bits == 4 || c->dst_bits == 4;
        const size_t count = packed ? even : odd_lengths[l];
        const size_t size = codec_bytes(count, c->dst_bits);
        uint8_t *expected = buffer_new(size);

        c->run(sets[0], random_bytes, expected, count);
        for (size_t s = 0; s < set_count; s++)
            for (size_t misalign = 0; misalign < 4; misalign++) {
                guarded g = guarded_new(size, misalign);
                uint8_t *base;
                const void *src = misaligned_copy(random_bytes, codec_bytes(count, c->src_bits),
                                                  misalign, &base);

                c->run(sets[s], src, g.dst, count);
                guarded_check(g, expected, c->name);
                free(base);
            }
        free(expected);
    }
}

static void test_any_length_and_alignment_stays_inside(void **state)
{
    uint8_t *bytes = buffer_new(5000 * 4);

    (void)state;
    random_fill(bytes, 5000 * 4);
    for (size_t i = 0; i < COUNT(decoders); i++)
        check_lengths(&decoders[i], bytes);
    for (size_t i = 0; i < COUNT(encoders); i++)
        check_lengths(&encoders[i], bytes);
    free(bytes);
}

static void test_codes_survive_a_round_trip(void **state)
{
    const ckpt_kernels *k = kernels_find("scalar");
    uint16_t code16 = 0;

    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        const uint16_t code = (uint16_t)i;
        float value;

        k->f16_to_f32(&code, &value, 1);
        k->f32_to_f16(&value, &code16, 1);
        assert_int_equal(code16, (code & 0x7FFF) > 0x7C00 ? code | 0x200 : code);
        k->bf16_to_f32(&code, &value, 1);
        k->f32_to_bf16(&value, &code16, 1);
        assert_int_equal(code16, (code & 0x7FFF) > 0x7F80 ? 0x7FC0 : code);
    }
    for (uint32_t i = 0; i < 255; i++) {
        const uint8_t code = (uint8_t)i;
        uint8_t back;
        float value;

        k->e8m0_to_f32(&code, &value, 1);
        k->f32_to_e8m0(&value, &back, 1);
        assert_int_equal(back, code);
        k->e4m3_to_f32(&code, &value, 1);
        k->f32_to_e4m3(&value, &back, 1);
        assert_int_equal(back, code);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_floats_decode_to_their_values),
        cmocka_unit_test(test_bf16_widening_is_exact),
        cmocka_unit_test(test_e8m0_decodes_to_powers_of_two),
        cmocka_unit_test(test_e2m1_decodes_low_nibble_first),
        cmocka_unit_test(test_all_sets_decode_every_code_alike),
        cmocka_unit_test(test_encoders_round_to_nearest_even_at_every_boundary),
        cmocka_unit_test(test_encoders_handle_special_values),
        cmocka_unit_test(test_encoders_round_to_nearest_even_on_random_bits),
        cmocka_unit_test(test_e8m0_encoding_rounds_as_defined),
        cmocka_unit_test(test_encoders_match_published_vectors),
        cmocka_unit_test(test_all_sets_encode_ten_million_random_values_alike),
        cmocka_unit_test(test_any_length_and_alignment_stays_inside),
        cmocka_unit_test(test_codes_survive_a_round_trip)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
