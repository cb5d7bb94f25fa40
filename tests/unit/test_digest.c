/* test_digest.c: the value digest against its definition, written here once more. */
#include "libckpt/digest.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "libckpt/sha256.h"
#include "memory_source.h"

enum { UNIT = 1024 };

static ckpt_error err;

/* ---- the definition ---- */

typedef unsigned __int128 u128;

static uint32_t bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Canonical bytes of a unit of floats; how many. */
static size_t float_bytes(const float *values, size_t count, unsigned char *out)
{
    int all_bf16 = 1;
    size_t size = 0;

    for (size_t i = 0; i < count; i++)
        all_bf16 &= isnan(values[i]) || (bits_of(values[i]) & 0xffff) == 0;
    for (size_t i = 0; i < count; i++) {
        const float value = values[i];
        const uint32_t code = isnan(value) ? 0x7fc00000 : value == 0 ? 0 : bits_of(value);

        for (int byte = all_bf16 ? 2 : 0; byte < 4; byte++)
            out[size++] = (unsigned char)(code >> 8 * byte);
    }
    return size;
}

static u128 hash_unit(const void *bytes, size_t size, uint64_t seed)
{
    const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes, size, seed);

    return (u128)hash.high64 << 64 | hash.low64;
}

/* `floats` or `ints`, rows x cols. */
static u128 define(const float *floats, const int64_t *ints, uint64_t rows, uint64_t cols)
{
    const uint64_t units = (cols + UNIT - 1) / UNIT;
    unsigned char bytes[UNIT * 8];
    u128 sum = 0;

    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t u = 0; u < units; u++) {
            const uint64_t begin = r * cols + u * UNIT;
            const uint64_t count = cols - u * UNIT < UNIT ? cols - u * UNIT : UNIT;
            size_t size = count * 8;

            if (ints != NULL)
                memcpy(bytes, ints + begin, size);       /* little endian, as this machine */
            else
                size = float_bytes(floats + begin, count, bytes);
            sum += hash_unit(bytes, size, r * units + u);
        }
    return sum;
}

static void assert_digest(const ckpt_digest *digest, size_t tensor, u128 expected)
{
    char got[CKPT_DIGEST_HEX];
    char text[CKPT_DIGEST_HEX];

    snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)(expected >> 64),
             (unsigned long long)expected);
    ckpt_digest_tensor(digest, tensor, got);
    assert_string_equal(got, text);
}

/* ---- tensors ---- */

static float *make_floats(uint64_t count, int exact)
{
    float *values = calloc(count + 1, sizeof *values);
    uint64_t random = 7;

    assert_non_null(values);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t code;

        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        code = (uint32_t)(random >> 32);
        if (exact)
            code &= 0xffff0000;
        memcpy(&values[i], &code, sizeof code);
    }
    return values;
}

static ckpt_digest *digest_of(memory_source *source, unsigned threads)
{
    const ckpt_run_options run = { .thread_count = threads };
    ckpt_digest *digest = NULL;

    assert_int_equal(ckpt_digest_source(memory_source_base(source), &run, &digest, &err),
                     CKPT_OK);
    return digest;
}

static const uint64_t widths[] = { 1, 2, 1023, 1024, 1025, 2048, 3000 };

static void test_floats_follow_the_definition(void **state)
{
    (void)state;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int exact = 0; exact < 2; exact++) {
            const uint64_t rows = 261;
            const uint64_t cols = widths[w];
            memory_source *source = memory_source_create();
            const size_t t = memory_source_add(source, "x", CKPT_F32, rows, cols);
            float *values = make_floats(rows * cols, exact);
            ckpt_digest *digest;

            values[0] = -0.0F;
            values[rows * cols - 1] = -NAN;
            memcpy(memory_source_part(source, t, CKPT_DATA), values, rows * cols * sizeof *values);
            digest = digest_of(source, 3);
            assert_digest(digest, t, define(values, NULL, rows, cols));
            ckpt_digest_free(digest);
            free(values);
            memory_source_free(source);
        }
}

/* The same values as BF16 and as F32 have one digest. */
static void test_an_encoding_that_holds_the_values_does_not_show(void **state)
{
    const uint64_t rows = 130;
    const uint64_t cols = 1500;
    memory_source *source = memory_source_create();
    const size_t wide = memory_source_add(source, "wide", CKPT_F32, rows, cols);
    const size_t narrow = memory_source_add(source, "narrow", CKPT_BF16, rows, cols);
    float *values = make_floats(rows * cols, 1);
    uint16_t *codes = memory_source_part(source, narrow, CKPT_DATA);
    ckpt_digest *digest;

    (void)state;
    memcpy(memory_source_part(source, wide, CKPT_DATA), values, rows * cols * sizeof *values);
    for (uint64_t i = 0; i < rows * cols; i++)
        codes[i] = (uint16_t)(bits_of(values[i]) >> 16);
    digest = digest_of(source, 1);
    assert_digest(digest, wide, define(values, NULL, rows, cols));
    assert_digest(digest, narrow, define(values, NULL, rows, cols));
    ckpt_digest_free(digest);
    free(values);
    memory_source_free(source);
}

static void test_integers_follow_the_definition(void **state)
{
    const uint64_t rows = 3;
    const uint64_t cols = 1100;
    memory_source *source = memory_source_create();
    const size_t bytes = memory_source_add(source, "i8", CKPT_I8, rows, cols);
    const size_t words = memory_source_add(source, "i64", CKPT_I64, rows, cols);
    int8_t *small = memory_source_part(source, bytes, CKPT_DATA);
    int64_t *large = memory_source_part(source, words, CKPT_DATA);
    ckpt_digest *digest;

    (void)state;
    for (uint64_t i = 0; i < rows * cols; i++)
        large[i] = small[i] = (int8_t)(i * 37);
    digest = digest_of(source, 2);
    assert_digest(digest, bytes, define(NULL, large, rows, cols));
    assert_digest(digest, words, define(NULL, large, rows, cols));
    ckpt_digest_free(digest);
    memory_source_free(source);
}

/* A zero is a value: which row it stands in matters. */
static void test_where_a_value_stands_matters(void **state)
{
    float values[4] = { 1, 2, 3, 4 };
    const u128 sum = define(values, NULL, 2, 2);

    (void)state;
    assert_true(sum != define((float[4]){ 3, 4, 1, 2 }, NULL, 2, 2));
    assert_true(sum != define(values, NULL, 1, 4));
    assert_true(sum != define(values, NULL, 4, 1));
}

static void test_no_rows_sum_up_to_nothing(void **state)
{
    memory_source *source = memory_source_create();
    const size_t t = memory_source_add(source, "none", CKPT_BF16, 0, 5);
    ckpt_digest *digest = digest_of(source, 1);

    (void)state;
    assert_digest(digest, t, 0);
    ckpt_digest_free(digest);
    memory_source_free(source);
}

static void test_dtypes_without_values_are_refused(void **state)
{
    static const ckpt_dtype refused[] = { CKPT_F64, CKPT_C64, CKPT_F6_E2M3 };

    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        memory_source *source = memory_source_create();
        ckpt_digest *digest = NULL;

        memory_source_add(source, "odd.one", refused[i], 2, 4);
        assert_int_not_equal(
            ckpt_digest_source(memory_source_base(source), NULL, &digest, &err), CKPT_OK);
        assert_non_null(strstr(err.text, "odd.one"));
        memory_source_free(source);
    }
}

/* ---- the root ---- */

static void add_line(char text[512], const char *begin, u128 sum)
{
    const size_t used = strlen(text);

    snprintf(text + used, 512 - used, "%s\t%016llx%016llx\n", begin,
             (unsigned long long)(sum >> 64), (unsigned long long)sum);
}

static void test_the_root_is_the_hash_of_sorted_lines(void **state)
{
    const ckpt_tensor vector = { .name = "mtp.0.v", .dtype = CKPT_BF16, .rank = 1, .shape = { 5 } };
    const ckpt_tensor scalar = { .name = "s", .dtype = CKPT_F32, .rank = 0 };
    static const float zeros[16];
    static const int64_t none[16];
    memory_source *source = memory_source_create();
    char expected[SHA256_HEX];
    char root[CKPT_ROOT_HEX];
    ckpt_digest *digest;

    (void)state;
    memory_source_add_tensor(source, &scalar);
    memory_source_add_tensor(source, &vector);
    memory_source_add(source, "b", CKPT_BF16, 2, 3);
    memory_source_add(source, "a.10", CKPT_I64, 1, 4);
    memory_source_add(source, "a.9", CKPT_F32, 1, 4);
    digest = digest_of(source, 2);
    for (int main_only = 0; main_only < 2; main_only++) {
        char text[512] = "";
        sha256 *hash;

        add_line(text, "a.10\tint\t1,4", define(NULL, none, 1, 4));
        add_line(text, "a.9\tfloat\t1,4", define(zeros, NULL, 1, 4));
        add_line(text, "b\tfloat\t2,3", define(zeros, NULL, 2, 3));
        if (!main_only)
            add_line(text, "mtp.0.v\tfloat\t5", define(zeros, NULL, 1, 5));
        add_line(text, "s\tfloat\t", define(zeros, NULL, 1, 1));
        assert_int_equal(sha256_begin(&hash, &err), CKPT_OK);
        assert_int_equal(sha256_add(hash, text, strlen(text), &err), CKPT_OK);
        assert_int_equal(sha256_end(hash, expected, &err), CKPT_OK);
        assert_int_equal(ckpt_digest_root(digest, main_only, root, &err), CKPT_OK);
        assert_string_equal(root, expected);
    }
    ckpt_digest_free(digest);
    memory_source_free(source);
}

/* ---- hexadecimal ---- */

static void test_hexadecimal_goes_both_ways(void **state)
{
    const hash128 hash = { UINT64_C(0x0123456789abcdef), UINT64_C(0xfedcba9876543210) };
    char hex[CKPT_DIGEST_HEX];
    hash128 back;

    (void)state;
    hash128_hex(hash, hex);
    assert_string_equal(hex, "fedcba98765432100123456789abcdef");
    assert_int_equal(hash128_from_hex(hex, &back), 1);
    assert_memory_equal(&back, &hash, sizeof hash);
}

static void test_what_is_no_digest_is_refused(void **state)
{
    static const char *const wrong[] = {
        "", "0", "fedcba98765432100123456789abcde", "fedcba98765432100123456789abcdef0",
        "fedcba98765432100123456789abcdeg", "FEDCBA98765432100123456789ABCDEF",
        " edcba98765432100123456789abcdef", "0xdcba98765432100123456789abcdef",
        "fedcba9876543210",
    };
    hash128 out;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(hash128_from_hex(wrong[i], &out), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats_follow_the_definition),
        cmocka_unit_test(test_an_encoding_that_holds_the_values_does_not_show),
        cmocka_unit_test(test_integers_follow_the_definition),
        cmocka_unit_test(test_where_a_value_stands_matters),
        cmocka_unit_test(test_no_rows_sum_up_to_nothing),
        cmocka_unit_test(test_dtypes_without_values_are_refused),
        cmocka_unit_test(test_the_root_is_the_hash_of_sorted_lines),
        cmocka_unit_test(test_hexadecimal_goes_both_ways),
        cmocka_unit_test(test_what_is_no_digest_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
