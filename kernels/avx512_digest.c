/*
 * avx512_digest.c: unit hashes for CPUs with AVX-512. A whole unit of 1024 columns is 2048 bytes
 * as BF16, and XXH3 of a fixed length is short enough to run in registers: each stripe is decoded
 * from the stored codes and hashed without being written to memory. Other units (the end of a row,
 * values wider than BF16, rare codes) are decoded first and hashed by hash.c.
 *
 * Limit of speed: XXH3 needs 5.5 operations per stripe (xor, shift, multiply, two additions, half a
 * key). Intel's cores start two 512-bit operations per cycle, so a unit takes about 90 cycles.
 * Decoding comes on top and uses the same two ports: llvm-mca's model of Sapphire Rapids, where
 * vpermi2b is three operations and vpermw two, counts 372 operations or 186 cycles for FP4, 480 or
 * 240 for FP8 including the check for NaN. On Zen 4 both are one operation: 118 cycles for FP4.
 */
#if defined(__x86_64__)
#include "avx512.h"
#include "unit_hash.h"

enum {
    STRIPE_COLUMNS = 32,                /* 64 bytes */
    UNIT_SCALES = HASH_UNIT_COLUMNS / FP8_BLOCK
};

/* Functions of this set that digest_decoded_fp4 and digest_decoded_fp8 call. */
static const ckpt_kernels decoding = {
    .fp8_row_to_bf16 = fp8_row_to_bf16_avx512,
    .fp8_row_to_f32 = fp8_row_to_f32_avx512,
    .fp4_row_to_bf16 = fp4_row_to_bf16_avx512,
    .digest_row_bf16 = digest_row_bf16_avx512,
    .digest_row_f32 = digest_row_f32_avx512,
};

/* 64-bit lanes [first, first + 8) of the seeded secret. */
static inline __m512i secret_lanes(unsigned first, __m512i seeds)
{
    const __m512i lanes = _mm512_loadu_si512(secret_words + first);

    return first % 2 == 0 ? _mm512_add_epi64(lanes, seeds) : _mm512_sub_epi64(lanes, seeds);
}

/* 64 bytes of the seeded secret from byte `first` on. */
static inline __m512i secret_bytes(unsigned first, __m512i seeds)
{
    /* A vector of shift counts: Clang does not accept `first` as an immediate, though inlined. */
    const __m512i bits = _mm512_set1_epi64(first % 8 * 8);

    return _mm512_shrdv_epi64(secret_lanes(first / 8, seeds), secret_lanes(first / 8 + 1, seeds),
                              bits);
}

/*
 * What a block of stripes adds to the eight accumulators: products, and the data with neighbouring
 * lanes swapped. Addition is commutative, so the two blocks of a unit are summed in parallel, using
 * each key for both, and the lanes are swapped once at the end.
 */
typedef struct {
    __m512i data;
    __m512i products;
} block_sums;

static inline void accumulate(block_sums *sums, __m512i stripe, __m512i key)
{
    const __m512i mixed = _mm512_xor_si512(stripe, key);

    sums->data = _mm512_add_epi64(sums->data, stripe);
    sums->products = _mm512_add_epi64(
        sums->products, _mm512_mul_epu32(mixed, _mm512_srli_epi64(mixed, 32)));
    /* Keep this order: compilers turn long sums into trees and spill their leaves to memory. */
    __asm__("" : "+v"(sums->data), "+v"(sums->products));
}

static inline __m512i add_block(__m512i sums, const block_sums *block)
{
    const __m512i swapped = _mm512_shuffle_epi32(block->data, (_MM_PERM_ENUM)0x4E);

    return _mm512_add_epi64(sums, _mm512_add_epi64(swapped, block->products));
}

static inline __m512i scramble(__m512i sums, __m512i key)
{
    const __m512i mixed = _mm512_ternarylogic_epi64(sums, _mm512_srli_epi64(sums, 47), key, 0x96);

    return _mm512_mullo_epi64(mixed, _mm512_set1_epi64(XXH_PRIME32_1));
}

static inline uint64_t merge(__m512i sums, __m512i key, uint64_t start)
{
    _Alignas(64) uint64_t lane[8];

    _mm512_store_si512(lane, _mm512_xor_si512(sums, key));
    /* Reload from memory: compilers would extract the register lane by lane, which is slower. */
    __asm__("" : "+m"(lane));
    return unit_merge(lane, start);
}

/* Stripes 2 * pair and 2 * pair + 1 of a unit, in canonical BF16. */
typedef struct {
    __m512i first;
    __m512i second;
} stripe_pair;
typedef stripe_pair (*stripe_reader)(const void *unit, unsigned pair);

/* XXH3 of 2048 bytes: two blocks of 16 stripes with a scramble between them. The last stripe has a
 * separate key. Always inlined, so that the reader is, too. */
static inline __attribute__((always_inline)) hash128 unit_hash(stripe_reader read,
                                                               const void *unit, uint64_t seed)
{
    const __m512i zero = _mm512_setzero_si512();
    const __m512i seed_lanes = _mm512_set1_epi64((long long)seed);
    const __m512i seeds = _mm512_mask_sub_epi64(seed_lanes, 0xAA, zero, seed_lanes);
    block_sums blocks[2] = { { zero, zero }, { zero, zero } };
    __m512i sums = _mm512_loadu_si512(unit_begin);
    hash128 hash;

#pragma GCC unroll 8
    for (unsigned pair = 0; pair < BLOCK_PAIRS; pair++) {
        const stripe_pair a = read(unit, pair);
        const stripe_pair b = read(unit, BLOCK_PAIRS + pair);
        const __m512i key = secret_lanes(2 * pair, seeds);
        const __m512i next = secret_lanes(2 * pair + 1, seeds);

        accumulate(&blocks[0], a.first, key);
        accumulate(&blocks[1], b.first, key);
        accumulate(&blocks[0], a.second, next);
        accumulate(&blocks[1], b.second,
                   pair < BLOCK_PAIRS - 1 ? next : secret_bytes(LAST_KEY, seeds));
    }
    sums = scramble(add_block(sums, &blocks[0]), secret_lanes(2 * BLOCK_PAIRS, seeds));
    sums = add_block(sums, &blocks[1]);
    hash.low64 = merge(sums, secret_bytes(LOW_KEY, seeds), UNIT_LOW_START);
    hash.high64 = merge(sums, secret_bytes(HIGH_KEY, seeds), UNIT_HIGH_START);
    return hash;
}

/* ---- BF16 ---- */

static inline __m512i bf16_canonical(__m512i words)
{
    const __mmask32 keep = _mm512_test_epi16_mask(words, set16(0x7FFF));
    const __mmask32 is_nan = _mm512_cmpgt_epu16_mask(_mm512_add_epi16(words, words),
                                                     set16(0xFF00));

    return _mm512_mask_mov_epi16(_mm512_maskz_mov_epi16(keep, words), is_nan, set16(BF16_NAN));
}

static inline __attribute__((always_inline)) stripe_pair read_bf16(const void *unit, unsigned pair)
{
    const uint16_t *from = (const uint16_t *)unit + (size_t)pair * 2 * STRIPE_COLUMNS;
    const stripe_pair stripes = { bf16_canonical(_mm512_loadu_si512(from)),
                                  bf16_canonical(_mm512_loadu_si512(from + STRIPE_COLUMNS)) };

    return stripes;
}

/* A unit of fewer columns than 1024. */
static void digest_short_bf16(const uint16_t *src, size_t count, uint64_t seed, hash128 *sum)
{
    _Alignas(64) uint16_t unit[HASH_UNIT_COLUMNS];

    for (size_t i = 0; i < count; i += STRIPE_COLUMNS)
        _mm512_store_si512(unit + i, bf16_canonical(
            _mm512_maskz_loadu_epi16(first32(count - i), src + i)));
    hash128_add(sum, hash_bytes_avx512(unit, count * sizeof unit[0], seed));
}

void digest_row_bf16_avx512(const uint16_t *src, size_t cols, uint64_t first_unit, hash128 *sum)
{
    size_t begin = 0;

    for (; begin + HASH_UNIT_COLUMNS <= cols; begin += HASH_UNIT_COLUMNS)
        hash128_add(sum, unit_hash(read_bf16, src + begin, first_unit++));
    if (begin < cols)
        digest_short_bf16(src + begin, cols - begin, first_unit, sum);
}

/* ---- FP4 ---- */

typedef struct {
    const uint8_t *packed;
    const uint8_t *scale;
    __m512i nibbles[4];     /* rows of fp4_nibbles */
} fp4_unit;

/* Indices for vpermi2b that select the nibbles of a group from 64 packed bytes and from the same
 * bytes shifted by one nibble. The lookup that follows ignores the high byte of each word. */
#define FP4_BYTE(b) b, 0, 64 + (b), 0
#define FP4_BYTES_4(b) FP4_BYTE(b), FP4_BYTE((b) + 1), FP4_BYTE((b) + 2), FP4_BYTE((b) + 3)
#define FP4_BYTES_16(b) \
    { FP4_BYTES_4(b), FP4_BYTES_4((b) + 4), FP4_BYTES_4((b) + 8), FP4_BYTES_4((b) + 12) }
static const _Alignas(64) uint8_t fp4_nibbles[4][64] = {
    FP4_BYTES_16(0), FP4_BYTES_16(16), FP4_BYTES_16(32), FP4_BYTES_16(48)
};

static inline __m512i fp4_stripe(const fp4_unit *unit, unsigned group)
{
    const __m512i bytes = _mm512_loadu_si512(unit->packed + (size_t)(group / 4) * 64);
    const __m512i index = _mm512_permutex2var_epi8(bytes, unit->nibbles[group % 4],
                                                   _mm512_srli_epi16(bytes, 4));

    /* vpermw uses the low five bits of a word; a row has the values twice, so bit 4 may be set. */
    return _mm512_permutexvar_epi16(index, _mm512_load_si512(fp4_bf16[unit->scale[group]]));
}

static inline __attribute__((always_inline)) stripe_pair read_fp4(const void *unit, unsigned pair)
{
    const stripe_pair stripes = { fp4_stripe(unit, 2 * pair), fp4_stripe(unit, 2 * pair + 1) };

    return stripes;
}

/* 1 if all products are normal BF16 numbers, which the table fp4_bf16 requires: 2^-1 .. 2^2 * 1.5
 * times 2^(code - 127). */
static inline int fp4_unit_is_normal(const uint8_t *scale)
{
    const __m256i codes = _mm256_loadu_si256((const __m256i *)scale);

    return _mm256_cmpgt_epu8_mask(_mm256_sub_epi8(codes, _mm256_set1_epi8(FP4_BF16_LOW)),
                                  _mm256_set1_epi8((char)(FP4_BF16_HIGH - FP4_BF16_LOW))) == 0;
}

void digest_row_fp4_avx512(const uint8_t *packed, const uint8_t *scale, size_t cols,
                           uint64_t first_unit, hash128 *sum)
{
    fp4_unit unit;

    for (int i = 0; i < 4; i++) {
        unit.nibbles[i] = _mm512_load_si512(fp4_nibbles[i]);
        /* Keep it in a register: the compiler would reload a constant for each stripe. */
        __asm__("" : "+v"(unit.nibbles[i]));
    }
    for (size_t begin = 0; begin < cols; begin += HASH_UNIT_COLUMNS, first_unit++) {
        const size_t count = size_min(cols - begin, HASH_UNIT_COLUMNS);

        unit.packed = packed + begin / 2;
        unit.scale = scale + begin / FP4_GROUP;
        if (count == HASH_UNIT_COLUMNS && fp4_unit_is_normal(unit.scale))
            hash128_add(sum, unit_hash(read_fp4, &unit, first_unit));
        else
            hash128_add(sum, digest_decoded_fp4(&decoding, unit.packed, unit.scale, count,
                                                first_unit));
    }
}

/* ---- FP8 ---- */

typedef struct {
    const uint8_t *codes;
    _Alignas(32) uint32_t exponents[UNIT_SCALES];   /* added to two BF16 values: 16 bits twice */
} fp8_unit;

/* BF16 of the 128 E4M3 magnitude codes: low bytes and high bytes. */
typedef struct {
    _Alignas(64) uint8_t low[128];
    _Alignas(64) uint8_t high[128];
} fp8_tables;

#define FP8_LOW_ROW 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, \
                    0x80, 0x90, 0xA0, 0xB0, 0xC0, 0xD0, 0xE0, 0xF0
#define FP8_HIGH_ROW(byte) byte, byte, byte, byte, byte, byte, byte, byte, \
                           byte, byte, byte, byte, byte, byte, byte, byte
/* Codes 1 .. 7, subnormal in E4M3, are multiples of 2^-9 and so normal in BF16. */
static const fp8_tables fp8_bf16 = {
    .low = { 0x00, 0x00, 0x80, 0xC0, 0x00, 0x20, 0x40, 0x60,
             0x80, 0x90, 0xA0, 0xB0, 0xC0, 0xD0, 0xE0, 0xF0,
             FP8_LOW_ROW, FP8_LOW_ROW, FP8_LOW_ROW, FP8_LOW_ROW, FP8_LOW_ROW, FP8_LOW_ROW,
             FP8_LOW_ROW },
    .high = { 0x00, 0x3B, 0x3B, 0x3B, 0x3C, 0x3C, 0x3C, 0x3C,
              0x3C, 0x3C, 0x3C, 0x3C, 0x3C, 0x3C, 0x3C, 0x3C,
              FP8_HIGH_ROW(0x3D), FP8_HIGH_ROW(0x3E), FP8_HIGH_ROW(0x3F), FP8_HIGH_ROW(0x40),
              FP8_HIGH_ROW(0x41), FP8_HIGH_ROW(0x42), FP8_HIGH_ROW(0x43) }
};

/* vpermi2b uses the low seven bits of a code, so the signs are added afterwards. Unpacking works
 * within 128-bit lanes, so the codes are permuted first to come out in order. */
static inline __attribute__((always_inline)) stripe_pair read_fp8(const void *unit, unsigned pair)
{
    const fp8_unit *u = unit;
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    const __m512i codes = _mm512_permutexvar_epi64(
        order, _mm512_loadu_si512(u->codes + (size_t)pair * 2 * STRIPE_COLUMNS));
    const __m512i low = _mm512_permutex2var_epi8(
        _mm512_load_si512(fp8_bf16.low), codes, _mm512_load_si512(fp8_bf16.low + 64));
    const __m512i high = _mm512_ternarylogic_epi32(
        _mm512_permutex2var_epi8(_mm512_load_si512(fp8_bf16.high), codes,
                                 _mm512_load_si512(fp8_bf16.high + 64)),
        codes, _mm512_set1_epi8((char)0x80), 0xF8);
    const __m512i first = _mm512_unpacklo_epi8(low, high);
    const __m512i second = _mm512_unpackhi_epi8(low, high);
    const __m512i exponent = set32(u->exponents[pair / 2]);
    const __m512i magnitude = set16(0x7FFF);
    const stripe_pair stripes = {
        _mm512_maskz_add_epi16(_mm512_test_epi16_mask(first, magnitude), first, exponent),
        _mm512_maskz_add_epi16(_mm512_test_epi16_mask(second, magnitude), second, exponent)
    };

    return stripes;
}

/* 1 if all products are zero or normal BF16 numbers: no NaN codes, and all scales powers of two in
 * the range. Fills *unit. */
static __attribute__((noinline)) int fp8_unit_of(const uint8_t *codes, const float *scale,
                                                 fp8_unit *unit)
{
    const __m512i nan = _mm512_set1_epi8(E4M3_NAN);
    const __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)scale);
    const __m256i exponent = _mm256_srli_epi32(bits, 23);
    const __m256i word = _mm256_and_si256(
        _mm256_slli_epi32(_mm256_sub_epi32(exponent, _mm256_set1_epi32(127)), 7),
        _mm256_set1_epi32(0xFFFF));
    const __mmask8 outside =
        _mm256_cmplt_epu32_mask(exponent, _mm256_set1_epi32(FP8_BF16_LOW)) |
        _mm256_cmpgt_epu32_mask(exponent, _mm256_set1_epi32(FP8_BF16_HIGH)) |
        _mm256_test_epi32_mask(bits, _mm256_set1_epi32(0x7FFFFF));
    __m512i largest = _mm512_setzero_si512();

    for (size_t c = 0; c < HASH_UNIT_COLUMNS; c += 64)
        largest = _mm512_max_epu8(largest, _mm512_and_si512(_mm512_loadu_si512(codes + c), nan));
    if (outside != 0 || _mm512_cmpeq_epi8_mask(largest, nan) != 0)
        return 0;
    unit->codes = codes;
    _mm256_store_si256((__m256i *)unit->exponents,
                       _mm256_or_si256(word, _mm256_slli_epi32(word, 16)));
    return 1;
}

void digest_row_fp8_avx512(const uint8_t *codes, const float *scale, size_t cols,
                           uint64_t first_unit, hash128 *sum)
{
    fp8_unit unit;

    for (size_t begin = 0; begin < cols; begin += HASH_UNIT_COLUMNS, first_unit++) {
        const size_t count = size_min(cols - begin, HASH_UNIT_COLUMNS);

        if (count == HASH_UNIT_COLUMNS &&
            fp8_unit_of(codes + begin, scale + begin / FP8_BLOCK, &unit))
            hash128_add(sum, unit_hash(read_fp8, &unit, first_unit));
        else
            hash128_add(sum, digest_decoded_fp8(&decoding, codes + begin,
                                                scale + begin / FP8_BLOCK, count, first_unit));
    }
}

/* ---- F32 ---- */

static inline __m512i f32_canonical(__m512i bits)
{
    const __mmask16 keep = _mm512_cmpneq_epi32_mask(bits, set32(F32_SIGN_BIT));

    return _mm512_mask_mov_epi32(_mm512_maskz_mov_epi32(keep, bits), nan_lanes(f32_of(bits)),
                                 set32(F32_NAN_BITS));
}

/* Write the canonical values of `count` <= 1024 elements; returns the OR of all their bits. */
static inline uint32_t f32_unit_canonical(const float *src, size_t count, uint32_t *unit)
{
    __m512i seen = _mm512_setzero_si512();

    for (size_t i = 0; i < count; i += LANES) {
        const __m512i bits = f32_canonical(
            _mm512_maskz_loadu_epi32(first16(count - i), src + i));

        seen = _mm512_or_si512(seen, bits);
        _mm512_store_si512(unit + i, bits);
    }
    return (uint32_t)_mm512_reduce_or_epi32(seen);
}

void digest_row_f32_avx512(const float *src, size_t cols, uint64_t first_unit, hash128 *sum)
{
    _Alignas(64) uint32_t unit[HASH_UNIT_COLUMNS];
    _Alignas(64) uint16_t narrow[HASH_UNIT_COLUMNS];

    for (size_t begin = 0; begin < cols; begin += HASH_UNIT_COLUMNS, first_unit++) {
        const size_t count = size_min(cols - begin, HASH_UNIT_COLUMNS);

        if ((f32_unit_canonical(src + begin, count, unit) & 0xFFFF) != 0) {
            hash128_add(sum, hash_bytes_avx512(unit, count * sizeof unit[0], first_unit));
            continue;
        }
        for (size_t i = 0; i < count; i += LANES)
            _mm256_store_si256((__m256i *)(narrow + i), _mm512_cvtepi32_epi16(
                _mm512_srli_epi32(_mm512_load_si512(unit + i), 16)));
        hash128_add(sum, hash_bytes_avx512(narrow, count * sizeof narrow[0], first_unit));
    }
}

#endif
