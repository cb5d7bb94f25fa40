/*
 * avx2_digest.c: unit hashes of BF16 values and FP4 codes for CPUs with AVX2.
 *
 * A whole unit, 2048 bytes, is hashed by an unrolled XXH3, which makes BF16 canonical on the way. A
 * table decodes FP4 codes directly to canonical values.
 */
#if defined(__x86_64__)
#include "avx2.h"
#include "unit_hash.h"

/* ---- a whole unit ---- */

/* What a block of stripes adds to the eight accumulators: products, and the data with neighbouring
 * lanes swapped, which is done once at the end. The two blocks of a unit are summed in parallel,
 * using each key for both. */
typedef struct {
    __m256i data[2];
    __m256i products[2];
} block_sums;

static inline __m256i bf16_canonical(__m256i words)
{
    const __m256i is_minus_zero = _mm256_cmpeq_epi16(words, set16(0x8000));
    const __m256i magnitude = _mm256_and_si256(words, set16(0x7FFF));
    const __m256i is_nan = _mm256_cmpgt_epi16(magnitude, set16(0x7F80));

    return choose(is_nan, set16(BF16_NAN), _mm256_andnot_si256(is_minus_zero, words));
}

static inline __attribute__((always_inline)) void accumulate(block_sums *sums,
                                                             const unsigned char *stripe,
                                                             const unsigned char *key,
                                                             int is_bf16)
{
    for (int half = 0; half < 2; half++) {
        const __m256i read = load256(stripe + 32 * half);
        const __m256i words = is_bf16 ? bf16_canonical(read) : read;
        const __m256i mixed = _mm256_xor_si256(words, load256(key + 32 * half));

        sums->data[half] = _mm256_add_epi64(sums->data[half], words);
        sums->products[half] = _mm256_add_epi64(
            sums->products[half], _mm256_mul_epu32(mixed, _mm256_srli_epi64(mixed, 32)));
        /* Keep this order: compilers turn long sums into trees and spill their leaves to memory. */
        __asm__("" : "+x"(sums->data[half]), "+x"(sums->products[half]));
    }
}

static inline __m256i add_block(__m256i sums, const block_sums *block, int half)
{
    const __m256i swapped = _mm256_shuffle_epi32(block->data[half], 0x4E);

    return _mm256_add_epi64(sums, _mm256_add_epi64(swapped, block->products[half]));
}

static inline __m256i scramble(__m256i sums, __m256i key)
{
    const __m256i prime = set32(XXH_PRIME32_1);
    const __m256i mixed = _mm256_xor_si256(_mm256_xor_si256(sums, _mm256_srli_epi64(sums, 47)),
                                           key);
    const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(mixed, 32), prime);

    return _mm256_add_epi64(_mm256_mul_epu32(mixed, prime), _mm256_slli_epi64(high, 32));
}

static inline uint64_t merge(const __m256i sums[2], const unsigned char *key, uint64_t start)
{
    _Alignas(32) uint64_t lane[8];

    store256(lane, _mm256_xor_si256(sums[0], load256(key)));
    store256(lane + 4, _mm256_xor_si256(sums[1], load256(key + 32)));
    /* Reload from memory: compilers would extract the register lane by lane, which is slower. */
    __asm__("" : "+m"(lane));
    return unit_merge(lane, start);
}

/* Of BF16, or of canonical values. Always inlined, once for each. */
static inline __attribute__((always_inline)) hash128 unit_hash(const void *unit, uint64_t seed,
                                                               int is_bf16)
{
    const unsigned char *first = unit;
    const unsigned char *second = first + UNIT_BYTES / 2;
    const __m256i seeds = _mm256_setr_epi64x((long long)seed, -(long long)seed, (long long)seed,
                                             -(long long)seed);
    block_sums blocks[2];
    _Alignas(32) unsigned char secret[SECRET_BYTES];
    __m256i sums[2];
    hash128 hash;

    for (unsigned word = 0; word < SECRET_WORDS; word += 4)
        store256(secret + 8 * word, _mm256_add_epi64(load256(secret_words + word), seeds));
    for (int block = 0; block < 2; block++)
        for (int half = 0; half < 2; half++)
            blocks[block].data[half] = blocks[block].products[half] = _mm256_setzero_si256();
#pragma GCC unroll 16
    for (unsigned s = 0; s < BLOCK_STRIPES; s++) {
        const unsigned last = s < BLOCK_STRIPES - 1 ? 8 * s : LAST_KEY;

        accumulate(&blocks[0], first + 64 * (size_t)s, secret + 8 * (size_t)s, is_bf16);
        accumulate(&blocks[1], second + 64 * (size_t)s, secret + last, is_bf16);
    }
    for (int half = 0; half < 2; half++) {
        sums[half] = add_block(load256(unit_begin + 4 * half), &blocks[0], half);
        sums[half] = scramble(sums[half], load256(secret + 8 * BLOCK_STRIPES + 32 * half));
        sums[half] = add_block(sums[half], &blocks[1], half);
    }
    hash.low64 = merge(sums, secret + LOW_KEY, UNIT_LOW_START);
    hash.high64 = merge(sums, secret + HIGH_KEY, UNIT_HIGH_START);
    return hash;
}

/* ---- BF16 ---- */

/* A unit of fewer columns than 1024. */
static void digest_short_bf16(const uint16_t *src, size_t count, uint64_t seed, hash128 *sum)
{
    _Alignas(32) uint16_t unit[HASH_UNIT_COLUMNS];

    for (size_t i = 0; i < count; i += 16)
        store256(unit + i, bf16_canonical(
            i + 16 <= count ? load256(src + i) : load_tail(src + i, (count - i) * sizeof *src)));
    hash128_add(sum, hash_bytes_avx2(unit, count * sizeof unit[0], seed));
}

void digest_row_bf16_avx2(const uint16_t *src, size_t cols, uint64_t first_unit, hash128 *sum)
{
    size_t begin = 0;

    for (; begin + HASH_UNIT_COLUMNS <= cols; begin += HASH_UNIT_COLUMNS)
        hash128_add(sum, unit_hash(src + begin, first_unit++, 1));
    if (begin < cols)
        digest_short_bf16(src + begin, cols - begin, first_unit, sum);
}

/* ---- FP4 ---- */

/* 1 if all 32 scales of a unit are in the valid range of the table fp4_bf16. */
static inline int fp4_unit_is_normal(const uint8_t *scale)
{
    const __m256i most = _mm256_set1_epi8((char)(FP4_BF16_HIGH - FP4_BF16_LOW));
    const __m256i above = _mm256_sub_epi8(load256(scale), _mm256_set1_epi8(FP4_BF16_LOW));

    return _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(above, most), most)) == -1;
}

/*
 * A row of the table is split into low and high bytes; pshufb looks up both, and unpacking joins
 * them. Unpacking works in 16-byte halves, so quadwords are swapped first.
 */
static inline void fp4_group_decode(const uint8_t *packed, const uint16_t *row, uint16_t *to)
{
    const __m256i words = load256(row);
    const __m256i bytes = _mm256_packus_epi16(_mm256_and_si256(words, set16(0xFF)),
                                              _mm256_srli_epi16(words, 8));
    const __m256i codes = _mm256_permute4x64_epi64(fp4_unpack(packed), 0xD8);
    const __m256i low = _mm256_shuffle_epi8(_mm256_permute4x64_epi64(bytes, 0x88), codes);
    const __m256i high = _mm256_shuffle_epi8(_mm256_permute4x64_epi64(bytes, 0xDD), codes);

    store256(to, _mm256_unpacklo_epi8(low, high));
    store256(to + 16, _mm256_unpackhi_epi8(low, high));
}

void digest_row_fp4_avx2(const uint8_t *packed, const uint8_t *scale, size_t cols,
                         uint64_t first_unit, hash128 *sum)
{
    _Alignas(32) uint16_t unit[HASH_UNIT_COLUMNS];

    for (size_t begin = 0; begin < cols; begin += HASH_UNIT_COLUMNS, first_unit++) {
        const size_t count = size_min(cols - begin, HASH_UNIT_COLUMNS);
        const uint8_t *codes = packed + begin / 2;
        const uint8_t *scales = scale + begin / FP4_GROUP;

        if (count < HASH_UNIT_COLUMNS || !fp4_unit_is_normal(scales)) {
            hash128_add(sum, digest_decoded_fp4(&kernels_avx2, codes, scales, count, first_unit));
            continue;
        }
        for (size_t g = 0; g < HASH_UNIT_COLUMNS / FP4_GROUP; g++)
            fp4_group_decode(codes + g * (FP4_GROUP / 2), fp4_bf16[scales[g]],
                             unit + g * FP4_GROUP);
        hash128_add(sum, unit_hash(unit, first_unit, 0));
    }
}

#endif
