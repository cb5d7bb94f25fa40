/*
 * avx2_digest.c: unit hashes of FP4 codes for CPUs with AVX2. A table decodes codes directly to
 * canonical values, so the unit need not be searched for -0 and NaN before it is hashed.
 */
#if defined(__x86_64__)
#include "avx2.h"

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
        hash128_add(sum, hash_bytes_avx2(unit, sizeof unit, first_unit));
    }
}

#endif
