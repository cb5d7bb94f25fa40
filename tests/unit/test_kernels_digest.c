/* test_kernels_digest.c: XXH3-128 vectors, and the unit hashes as the digest defines them. */
#include "test_kernels.h"

#include <sys/mman.h>

static void assert_hash_equal(hash128 got, hash128 expected)
{
    assert_true(got.low64 == expected.low64 && got.high64 == expected.high64);
}

/* ---- hash ---- */

/* Outputs of the reference implementation for the bytes 0, 1, 2, ... of every length class. */
static void test_hash_matches_published_vectors(void **state)
{
    static const struct {
        size_t size;
        uint64_t seed;
        hash128 hash;
    } vectors[] = {
        { 0, 0, { 0x6001C324468D497F, 0x99AA06D3014798D8 } },
        { 0, 1, { 0x6131B78F753823CD, 0xD9265CC53BB2B9AE } },
        { 15, 0, { 0x0017EA4BE19BC787, 0x301A9F754E8F569A } },
        { 32, 0, { 0x457D9566B6FCD697, 0x25E7C9B3424CEED2 } },
        { 128, 0, { 0x05321A0B64D67B41, 0x14792FC3AF88DC6C } },
        { 129, 0, { 0xBC30B63382B09A3B, 0xDD5E74AC6B45F54E } },
        { 240, 0, { 0xC92B68E16F83BBB6, 0x65B5BE86DA5540E7 } },
        { 240, 1, { 0xDF63DACB5E824C67, 0xE56FED73D92C8AB1 } },
        { 241, 0, { 0x02E8CD95421C6D02, 0x1DA1CB61BCB8A2A1 } },
        { 241, 1, { 0xDA735D4F53476CB5, 0x55B1F41464EF8EE8 } },
        { 241, 42, { 0x26E3D358D4E0A1D6, 0xD591E680C65B77FF } },
        { 241, UINT64_MAX, { 0xB1F001885DC89E7C, 0x076E03DAB3F4B344 } },
        { 1024, 0, { 0xA870F92984398D22, 0x83885E853BB6640C } },
        { 4096, 0, { 0xEB4B7C3707879151, 0x03916578969F7A66 } },
        { 10000, 0, { 0x3EEE77440C4C3D08, 0xDDD880951F8AF004 } }
    };
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t *bytes = buffer_new(10000);

    (void)state;
    for (size_t i = 0; i < 10000; i++)
        bytes[i] = (uint8_t)i;
    for (size_t s = 0; s < set_count; s++)
        for (size_t i = 0; i < COUNT(vectors); i++)
            assert_hash_equal(sets[s]->hash_bytes(bytes, vectors[i].size, vectors[i].seed),
                              vectors[i].hash);
    free(bytes);
}

static void test_all_sets_hash_every_size_alike(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t *bytes = buffer_new(9000);

    (void)state;
    random_fill(bytes, 9000);
    for (size_t size = 0; size < 9000; size += size < 2100 ? 1 : 61) {
        const uint64_t seed = random64();
        const hash128 expected = sets[0]->hash_bytes(bytes, size, seed);
        uint8_t *base;
        const uint8_t *src = misaligned_copy(bytes, size, size % 7, &base);

        for (size_t s = 1; s < set_count; s++)
            assert_hash_equal(sets[s]->hash_bytes(src, size, seed), expected);
        free(base);
    }
    free(bytes);
}

static void test_hash_sums_carry_into_the_high_half(void **state)
{
    hash128 sum = { UINT64_MAX, UINT64_MAX - 1 };

    (void)state;
    hash128_add(&sum, (hash128){ 1, 0 });
    assert_hash_equal(sum, (hash128){ 0, UINT64_MAX });
    hash128_add(&sum, (hash128){ UINT64_MAX, 1 });
    assert_hash_equal(sum, (hash128){ UINT64_MAX, 0 });
    hash128_add(&sum, (hash128){ UINT64_MAX, UINT64_MAX });
    assert_hash_equal(sum, (hash128){ UINT64_MAX - 1, 0 });
}

/* ---- the digest by its definition ---- */

static uint32_t canonical_f32(uint32_t bits)
{
    if (isnan(float_of(bits)))
        return 0x7FC00000u;
    return bits == 0x80000000u ? 0 : bits;
}

/* One row of F32 bits: cut, canonicalise, choose BF16 or F32 by unit, hash, add. */
static void digest_reference(const uint32_t *bits, size_t cols, uint64_t first_unit, hash128 *sum)
{
    const ckpt_kernels *k = kernels_find("scalar");

    for (size_t unit = 0; unit * 1024 < cols; unit++) {
        const size_t count = cols - unit * 1024 < 1024 ? cols - unit * 1024 : 1024;
        uint8_t wide[4096];
        uint8_t narrow[2048];
        int is_bf16 = 1;

        for (size_t i = 0; i < count; i++) {
            const uint32_t value = canonical_f32(bits[unit * 1024 + i]);

            is_bf16 &= value % 65536 == 0;
            for (size_t b = 0; b < 4; b++)
                wide[4 * i + b] = (uint8_t)(value >> (8 * b));
            for (size_t b = 0; b < 2; b++)
                narrow[2 * i + b] = (uint8_t)(value >> (8 * b + 16));
        }
        hash128_add(sum, is_bf16 ? k->hash_bytes(narrow, 2 * count, first_unit + unit)
                                 : k->hash_bytes(wide, 4 * count, first_unit + unit));
    }
}

static const size_t digest_lengths[] = { 0, 1, 2, 15, 16, 17, 31, 33, 127, 129, 1023, 1024, 1025,
                                         2047, 2048, 2049, 4097 };

/* Normal values, now and then -0, +0, NaNs, infinities, subnormals. */
static uint32_t bf16_sample(void)
{
    static const uint32_t special[] = { 0x8000, 0x0000, 0x7FC0, 0xFFC0, 0x7F81, 0xFFFF, 0x7F80,
                                        0xFF80, 0x0001, 0x8001, 0x8080 };

    if (random32() % 8 == 0)
        return special[random32() % COUNT(special)];
    return random32() >> 16;
}

static void check_digest_f32(const uint32_t *bits, size_t cols, uint64_t first_unit)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    hash128 expected = { 3, 5 };

    digest_reference(bits, cols, first_unit, &expected);
    for (size_t s = 0; s < set_count; s++) {
        hash128 sum = { 3, 5 };
        uint8_t *base;
        const void *src = misaligned_copy(bits, cols * 4, cols % 5, &base);

        sets[s]->digest_row_f32(src, cols, first_unit, &sum);
        assert_hash_equal(sum, expected);
        free(base);
    }
}

static void check_digest_bf16(const uint16_t *codes, size_t cols, uint64_t first_unit)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint32_t *bits = buffer_new(cols * sizeof *bits);
    hash128 expected = { 3, 5 };

    for (size_t i = 0; i < cols; i++)
        bits[i] = (uint32_t)codes[i] << 16;
    digest_reference(bits, cols, first_unit, &expected);
    for (size_t s = 0; s < set_count; s++) {
        hash128 sum = { 3, 5 };
        uint8_t *base;
        const void *src = misaligned_copy(codes, cols * 2, cols % 5, &base);

        sets[s]->digest_row_bf16(src, cols, first_unit, &sum);
        assert_hash_equal(sum, expected);
        free(base);
    }
    check_digest_f32(bits, cols, first_unit);       /* the same values in another encoding */
    free(bits);
}

static void test_bf16_digest_follows_the_definition(void **state)
{
    uint16_t codes[4097];

    (void)state;
    for (size_t round = 0; round < 20; round++)
        for (size_t l = 0; l < COUNT(digest_lengths); l++) {
            for (size_t i = 0; i < digest_lengths[l]; i++)
                codes[i] = (uint16_t)bf16_sample();
            check_digest_bf16(codes, digest_lengths[l], round * 1000003);
        }
}

static void test_bf16_digest_sees_every_code_canonically(void **state)     /* all 65536 */
{
    uint16_t *codes = buffer_new(65536 * sizeof *codes);

    (void)state;
    for (size_t i = 0; i < 65536; i++)
        codes[i] = (uint16_t)i;
    check_digest_bf16(codes, 65536, 7);
    free(codes);
}

/* A set may look for the codes that are not canonical in many at once. */
static void test_bf16_digest_sees_a_code_among_others(void **state)     /* all 65536 */
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint16_t unit[HASH_UNIT_COLUMNS];
    uint16_t canonical[HASH_UNIT_COLUMNS];

    (void)state;
    for (uint32_t code = 0; code < 65536; code++) {
        const size_t at = random32() % HASH_UNIT_COLUMNS;
        const int is_nan = (code & 0x7FFF) > 0x7F80;
        hash128 expected;

        for (size_t i = 0; i < HASH_UNIT_COLUMNS; i++)
            unit[i] = canonical[i] = (uint16_t)(code / 256 * (i % 3) % 0x7F80);
        unit[at] = (uint16_t)code;
        canonical[at] = (uint16_t)(is_nan ? 0x7FC0 : code == 0x8000 ? 0 : code);
        expected = sets[0]->hash_bytes(canonical, sizeof canonical, code);
        for (size_t s = 0; s < set_count; s++) {
            hash128 sum = { 0, 0 };

            sets[s]->digest_row_bf16(unit, HASH_UNIT_COLUMNS, code, &sum);
            assert_hash_equal(sum, expected);
        }
    }
}

static void test_f32_digest_follows_the_definition(void **state)
{
    uint32_t bits[4097];

    (void)state;
    for (size_t round = 0; round < 20; round++)
        for (size_t l = 0; l < COUNT(digest_lengths); l++) {
            for (size_t i = 0; i < digest_lengths[l]; i++)
                bits[i] = bf16_sample() << 16 | (random32() % 4 == 0 ? random32() >> 16 : 0);
            check_digest_f32(bits, digest_lengths[l], UINT64_MAX - round);
        }
}

/* A single low bit, or a NaN whose payload is only low bits, at each place of a unit. */
static void test_one_wide_element_makes_its_unit_f32_and_a_nan_does_not(void **state)
{
    uint32_t bits[2060];

    (void)state;
    for (size_t i = 0; i < 2060; i++)
        bits[i] = bf16_sample() << 16;
    for (size_t i = 0; i < 2060; i += 7) {
        const uint32_t saved = bits[i];

        bits[i] = 0x3F800001;
        check_digest_f32(bits, 2060, 11);
        bits[i] = 0xFF800001;
        check_digest_f32(bits, 2060, 11);
        bits[i] = 0x80000001;
        check_digest_f32(bits, 2060, 11);
        bits[i] = saved;
    }
}

static void test_values_that_are_equal_digest_equally(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);

    (void)state;
    for (size_t s = 0; s < set_count; s++) {
        const uint16_t a[4] = { 0x8000, 0x7FC1, 0x3F80, 0xFFFF };
        const uint16_t b[4] = { 0x0000, 0xFFC0, 0x3F80, 0x7F81 };
        const uint16_t c[4] = { 0x0000, 0xFFC0, 0xBF80, 0x7F81 };
        hash128 sum_a = { 0, 0 };
        hash128 sum_b = { 0, 0 };
        hash128 sum_c = { 0, 0 };

        sets[s]->digest_row_bf16(a, 4, 0, &sum_a);
        sets[s]->digest_row_bf16(b, 4, 0, &sum_b);
        sets[s]->digest_row_bf16(c, 4, 0, &sum_c);
        assert_hash_equal(sum_a, sum_b);
        assert_true(sum_a.low64 != sum_c.low64);
    }
}

/* ---- the digest of codes is that of the values they stand for ---- */

/* What every set must return for codes: decoded by the scalar definition, then digested. */
static void check_digest_fp4(const uint8_t *packed, const uint8_t *scale, size_t cols)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    float *values = buffer_new(cols * sizeof *values);
    hash128 expected = { 3, 5 };

    sets[0]->fp4_row_to_f32(packed, scale, cols, values);
    digest_reference((const uint32_t *)(const void *)values, cols, 77, &expected);
    for (size_t s = 0; s < set_count; s++) {
        hash128 sum = { 3, 5 };
        uint8_t *base;
        uint8_t *scale_base;

        sets[s]->digest_row_fp4(misaligned_copy(packed, cols / 2, cols % 5, &base),
                                misaligned_copy(scale, cols / 32, 3, &scale_base), cols, 77,
                                &sum);
        assert_hash_equal(sum, expected);
        free(base);
        free(scale_base);
    }
    free(values);
}

static void check_digest_fp8(const uint8_t *codes, const float *scale, size_t cols)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    float *values = buffer_new(cols * sizeof *values);
    hash128 expected = { 3, 5 };

    sets[0]->fp8_row_to_f32(codes, scale, cols, values);
    digest_reference((const uint32_t *)(const void *)values, cols, UINT64_MAX - 1, &expected);
    for (size_t s = 0; s < set_count; s++) {
        hash128 sum = { 3, 5 };
        uint8_t *base;
        uint8_t *scale_base;
        const void *scales = misaligned_copy(scale, (cols + 127) / 128 * sizeof *scale, 3,
                                             &scale_base);

        sets[s]->digest_row_fp8(misaligned_copy(codes, cols, cols % 5, &base), scales, cols,
                                UINT64_MAX - 1, &sum);
        assert_hash_equal(sum, expected);
        free(base);
        free(scale_base);
    }
    free(values);
}

/* Each of the 256 scales over whole units and a short one, with every code in every place. */
static void test_fp4_digest_is_that_of_the_values(void **state)
{
    uint8_t packed[1056];
    uint8_t scale[66];

    (void)state;
    for (unsigned code = 0; code < 256; code++) {
        for (size_t i = 0; i < COUNT(packed); i++)
            packed[i] = (uint8_t)(i + code);
        memset(scale, (int)code, sizeof scale);
        check_digest_fp4(packed, scale, 2112);
        random_fill(packed, sizeof packed);
        for (size_t i = 0; i < COUNT(scale); i++)
            scale[i] = (uint8_t)(100 + random32() % 50);
        scale[random32() % COUNT(scale)] = (uint8_t)code;
        for (size_t cols = 0; cols <= 2112; cols += 352)
            check_digest_fp4(packed, scale, cols);
    }
}

/* Every code under every power of two, other scales, and a NaN, infinity or zero among them. */
static void test_fp8_digest_is_that_of_the_values(void **state)
{
    static const uint32_t odd_scales[] = { 0x3F800001, 0x00000000, 0x80000000, 0x7F800000,
                                           0xFF800000, 0x7FC00000, 0xBF800000, 0x00000001,
                                           0x00400000, 0x3FC00000 };
    uint8_t codes[2180];
    float scale[18];

    (void)state;
    for (unsigned code = 0; code < 256 + COUNT(odd_scales); code++) {
        const float odd = code < 256 ? ldexpf(1.0f, (int)code - 127)
                                     : float_of(odd_scales[code - 256]);

        for (size_t i = 0; i < COUNT(codes); i++)       /* without NaN, then with one */
            codes[i] = (uint8_t)((i + code) % 128 == 127 ? 0x80 : i + code);
        for (size_t i = 0; i < COUNT(scale); i++)
            scale[i] = odd;
        check_digest_fp8(codes, scale, 2180);
        for (size_t i = 0; i < COUNT(scale); i++)
            scale[i] = ldexpf(1.0f, (int)(random32() % 40) - 20);
        scale[random32() % COUNT(scale)] = odd;
        for (size_t cols = 0; cols <= 2180; cols += 109)
            check_digest_fp8(codes, scale, cols);
        codes[random32() % COUNT(codes)] = code % 2 == 0 ? 0x7F : 0xFF;
        check_digest_fp8(codes, scale, 2180);
    }
}

static void test_i64_digest_hashes_little_endian_bytes(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    int64_t values[2500];
    uint8_t bytes[2500 * 8];

    (void)state;
    for (size_t i = 0; i < COUNT(values); i++) {
        const uint64_t bits = random64();

        memcpy(&values[i], &bits, sizeof bits);
        for (size_t b = 0; b < 8; b++)
            bytes[8 * i + b] = (uint8_t)(bits >> (8 * b));
    }
    for (size_t cols = 0; cols <= COUNT(values); cols += 125)
        for (size_t s = 0; s < set_count; s++) {
            hash128 expected = { 0, 0 };
            hash128 sum = { 0, 0 };
            uint8_t *base;
            const void *src = misaligned_copy(values, cols * 8, 3, &base);

            for (size_t unit = 0; unit * 1024 < cols; unit++)
                hash128_add(&expected, sets[0]->hash_bytes(
                    bytes + unit * 8192, 8 * (cols - unit * 1024 < 1024 ? cols - unit * 1024
                                                                       : 1024), 99 + unit));
            sets[s]->digest_row_i64(src, cols, 99, &sum);
            assert_hash_equal(sum, expected);
            free(base);
        }
}

/* ---- nothing behind a row is read ---- */

enum { PAGE_BYTES = 4096, ROOM_BYTES = 4 * PAGE_BYTES };

/* Memory in front of a page that must not be touched; unmapped when the test ends. */
static uint8_t *guarded_room(void)
{
    uint8_t *room = mmap(NULL, ROOM_BYTES + PAGE_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true(room != MAP_FAILED);
    assert_int_equal(mprotect(room + ROOM_BYTES, PAGE_BYTES, PROT_NONE), 0);
    return room;
}

static const void *at_end(uint8_t *room, const void *src, size_t size)
{
    return memcpy(room + ROOM_BYTES - size, src, size);
}

/* Sanitizers do not see every masked load of a vector. */
static void test_digests_of_codes_end_with_the_row(void **state)
{
    const ckpt_kernels *sets[3];
    const size_t set_count = kernel_sets(sets);
    uint8_t *code_room = guarded_room();
    uint8_t *scale_room = guarded_room();
    uint8_t codes[2200];
    uint8_t groups[70];
    float scale[18];

    (void)state;
    memset(groups, 120, sizeof groups);
    for (size_t i = 0; i < COUNT(scale); i++)
        scale[i] = 0.25f;
    for (size_t i = 0; i < COUNT(codes); i++)
        codes[i] = (uint8_t)(i % 127);
    for (size_t cols = 1; cols <= sizeof codes; cols++) {
        hash128 expected[2] = { { 0, 0 }, { 0, 0 } };

        for (size_t s = 0; s < set_count; s++) {
            hash128 sums[2] = { { 0, 0 }, { 0, 0 } };

            sets[s]->digest_row_fp8(at_end(code_room, codes, cols),
                                    at_end(scale_room, scale, (cols + 127) / 128 * 4), cols, 7,
                                    &sums[0]);
            if (cols % 32 == 0)
                sets[s]->digest_row_fp4(at_end(code_room, codes, cols / 2),
                                        at_end(scale_room, groups, cols / 32), cols, 7, &sums[1]);
            for (size_t i = 0; s > 0 && i < 2; i++)
                assert_hash_equal(sums[i], expected[i]);
            memcpy(expected, sums, sizeof expected);
        }
    }
    munmap(code_room, ROOM_BYTES + PAGE_BYTES);
    munmap(scale_room, ROOM_BYTES + PAGE_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_matches_published_vectors),
        cmocka_unit_test(test_all_sets_hash_every_size_alike),
        cmocka_unit_test(test_hash_sums_carry_into_the_high_half),
        cmocka_unit_test(test_bf16_digest_follows_the_definition),
        cmocka_unit_test(test_bf16_digest_sees_every_code_canonically),
        cmocka_unit_test(test_bf16_digest_sees_a_code_among_others),
        cmocka_unit_test(test_f32_digest_follows_the_definition),
        cmocka_unit_test(test_one_wide_element_makes_its_unit_f32_and_a_nan_does_not),
        cmocka_unit_test(test_values_that_are_equal_digest_equally),
        cmocka_unit_test(test_fp4_digest_is_that_of_the_values),
        cmocka_unit_test(test_fp8_digest_is_that_of_the_values),
        cmocka_unit_test(test_digests_of_codes_end_with_the_row),
        cmocka_unit_test(test_i64_digest_hashes_little_endian_bytes)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
