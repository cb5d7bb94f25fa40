/*
 * avx512_rows.c: block-scaled rows to BF16 and F32, for CPUs with AVX-512. Tails use masked loads
 * and stores, which touch no byte outside the mask.
 */
#if defined(__x86_64__)
#include "avx512.h"

/* Constants to decode the up to 128 columns of one FP8 scale to BF16. */
typedef struct {
    __m512i rebias;         /* added to a normal code's bits after the shift to BF16's position */
    __m512i subnormals;     /* BF16 of the magnitude codes 0 .. 7, followed by zeros */
    __m512 scale;           /* multiplies the BF16 values unless `exact` */
    int exact;              /* rebias and subnormals already contain the scale */
} fp8_block;

/*
 * If the scale is 2^k and every product is normal in BF16, multiplying is adding k to the exponent.
 * That holds for E4M3 subnormals, too, because they are normal in BF16, but not for zero.
 */
static inline fp8_block fp8_block_of(float scale)
{
    const __m512i subnormals = _mm512_zextsi128_si512(
        _mm_setr_epi16(0, 0x3B00, 0x3B80, 0x3BC0, 0x3C00, 0x3C20, 0x3C40, 0x3C60));
    const int code = e8m0_exact(scale);
    const int exact = code >= FP8_BF16_LOW && code <= FP8_BF16_HIGH;
    const uint32_t exponent = exact ? (uint32_t)(code - 127) << 7 : 0;
    fp8_block block;

    block.rebias = set16((120u << 7) + exponent);
    block.subnormals = _mm512_mask_add_epi16(subnormals, 0xFE, subnormals, set16(exponent));
    block.scale = _mm512_set1_ps(scale);
    block.exact = exact;
    return block;
}

/* Multiply 32 BF16 values by an F32: each 32-bit lane has an even column in its low half and an odd
 * one in its high half. */
static inline __m512i bf16_words_scaled(__m512i words, __m512 scale)
{
    const __m512 even = _mm512_mul_ps(f32_of(_mm512_slli_epi32(words, 16)), scale);
    const __m512 odd = _mm512_mul_ps(f32_of(_mm512_and_si512(words, set32(0xFFFF0000u))), scale);

    return _mm512_mask_blend_epi16(0xAAAAAAAA,
                                   _mm512_srli_epi32(round_even(bits_of(even), 16), 16),
                                   round_even(bits_of(odd), 16));
}

/* BF16 of 32 codes without NaN. */
static inline __m512i e4m3_to_bf16_words(__m256i codes, const fp8_block *block)
{
    const __m512i wide = _mm512_cvtepi8_epi16(codes);
    const __m512i magnitude = _mm512_and_si512(_mm512_slli_epi16(wide, 4), set16(0x7F0));
    const __mmask32 tiny = _mm512_testn_epi16_mask(wide, set16(0x78));
    const __m512i normal = _mm512_add_epi16(magnitude, block->rebias);
    const __m512i words = _mm512_mask_permutexvar_epi16(normal, tiny, wide, block->subnormals);
    const __m512i with_signs = _mm512_ternarylogic_epi32(words, wide, set16(0x8000), 0xF8);

    return block->exact ? with_signs : bf16_words_scaled(with_signs, block->scale);
}

/* The columns of one scale; no code is NaN. */
static inline void fp8_block_to_bf16(const uint8_t *codes, float scale, size_t cols, uint16_t *dst)
{
    const fp8_block block = fp8_block_of(scale);
    size_t c = 0;

    for (; c + 32 <= cols; c += 32)
        _mm512_storeu_si512(dst + c, e4m3_to_bf16_words(
            _mm256_loadu_si256((const __m256i *)(codes + c)), &block));
    if (c < cols) {
        const __mmask32 m = first32(cols - c);

        _mm512_mask_storeu_epi16(dst + c, m, e4m3_to_bf16_words(
            _mm256_maskz_loadu_epi8(m, codes + c), &block));
    }
}

static inline int fp8_block_has_nan(const uint8_t *codes, size_t cols)
{
    const __m512i nan = _mm512_set1_epi8(E4M3_NAN);
    __mmask64 found = 0;

    for (size_t c = 0; c < cols; c += 64) {
        const __mmask64 m = _bzhi_u64(~(uint64_t)0, (unsigned)size_min(cols - c, 64));
        const __m512i bytes = _mm512_maskz_loadu_epi8(m, codes + c);

        found |= _mm512_cmpeq_epi8_mask(_mm512_and_si512(bytes, nan), nan);
    }
    return found != 0;
}

/* With a finite scale only NaN codes give NaN. Blocks with them are rare and go to scalar code. */
void fp8_row_to_bf16_avx512(const uint8_t *codes, const float *scale, size_t cols, uint16_t *dst)
{
    for (size_t c = 0; c < cols; c += FP8_BLOCK) {
        const size_t count = size_min(cols - c, FP8_BLOCK);
        const float s = f32_load(scale, c / FP8_BLOCK);

        if (!f32_is_finite(s) || fp8_block_has_nan(codes + c, count))
            kernels_scalar.fp8_row_to_bf16(codes + c, &s, count, dst + c);
        else
            fp8_block_to_bf16(codes + c, s, count, dst + c);
    }
}

/* `scale256` is the scale times 2^8, because e4m3_as_f16 returns values times 2^-8. */
static inline void fp8_block_to_f32(const uint8_t *codes, __m512 scale256, size_t cols, float *dst)
{
    size_t c = 0;

    for (; c + LANES <= cols; c += LANES) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(codes + c));
        const __m256i half = e4m3_as_f16(_mm256_cvtepi8_epi16(bytes));

        _mm512_storeu_ps(dst + c, _mm512_mul_ps(_mm512_cvtph_ps(half), scale256));
    }
    if (c < cols) {
        const __mmask16 m = first16(cols - c);
        const __m128i bytes = _mm_maskz_loadu_epi8(m, codes + c);
        const __m256i half = e4m3_as_f16(_mm256_cvtepi8_epi16(bytes));

        _mm512_mask_storeu_ps(dst + c, m, _mm512_mul_ps(_mm512_cvtph_ps(half), scale256));
    }
}

/* scale * 256 is exact unless it overflows, so the product is still rounded only once. */
void fp8_row_to_f32_avx512(const uint8_t *codes, const float *scale, size_t cols, float *dst)
{
    for (size_t c = 0; c < cols; c += FP8_BLOCK) {
        const size_t count = size_min(cols - c, FP8_BLOCK);
        const float s = f32_load(scale, c / FP8_BLOCK);

        if (!f32_is_finite(s * 256.0f) || fp8_block_has_nan(codes + c, count))
            kernels_scalar.fp8_row_to_f32(codes + c, &s, count, dst + c);
        else
            fp8_block_to_f32(codes + c, _mm512_set1_ps(s * 256.0f), count, dst + c);
    }
}

/*
 * The 16 possible values of a group are multiplied once and then looked up by code: vpermw uses the
 * low five bits of a word, and both halves of the table are equal. Every product is exact in BF16
 * (two mantissa bits, at least 2^-128, infinity, or the quiet NaN), so the upper half of its F32
 * bits is the BF16 value.
 */
void fp4_row_to_bf16_avx512(const uint8_t *packed, const uint8_t *scale, size_t cols,
                            uint16_t *dst)
{
    const __m512 values = e2m1_values();

    for (size_t g = 0; g < cols / FP4_GROUP; g++) {
        const __m512 product = _mm512_mul_ps(values, _mm512_set1_ps(e8m0_value(scale[g])));
        const __m256i half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits_of(product), 16));
        const __m512i table = _mm512_broadcast_i64x4(half);
        const __m512i bytes = _mm512_cvtepu8_epi32(
            _mm_loadu_si128((const __m128i *)(packed + g * (FP4_GROUP / 2))));
        const __m512i index = _mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 12));

        _mm512_storeu_si512(dst + g * FP4_GROUP, _mm512_permutexvar_epi16(index, table));
    }
}

void fp4_row_to_f32_avx512(const uint8_t *packed, const uint8_t *scale, size_t cols, float *dst)
{
    const __m512 values = e2m1_values();

    for (size_t g = 0; g < cols / FP4_GROUP; g++) {
        const __m512 table = _mm512_mul_ps(values, _mm512_set1_ps(e8m0_value(scale[g])));
        const uint8_t *from = packed + g * (FP4_GROUP / 2);
        float *to = dst + g * FP4_GROUP;

        _mm512_storeu_ps(to, e2m1_lookup(_mm_loadu_si64(from), table));
        _mm512_storeu_ps(to + LANES, e2m1_lookup(_mm_loadu_si64(from + 8), table));
    }
}

/* Products that are not numbers, replaced by the one NaN that all sets return. */
static inline __m512 one_nan(__m512 product)
{
    return f32_of(_mm512_mask_mov_epi32(bits_of(product), nan_lanes(product),
                                        set32(F32_NAN_BITS)));
}

/* The 16 products of a group are made once and then looked up by code. */
void int4_row_to_f32_avx512(const uint8_t *packed, const uint16_t *scale, size_t cols, float *dst)
{
    const __m512 values = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);

    for (size_t g = 0; g < cols / INT4_GROUP; g++) {
        const __m512 factor = _mm512_set1_ps(bf16_at(scale, g));
        const __m512 table = one_nan(_mm512_mul_ps(values, factor));
        const uint8_t *from = packed + g * (INT4_GROUP / 2);
        float *to = dst + g * INT4_GROUP;

        _mm512_storeu_ps(to, e2m1_lookup(_mm_loadu_si64(from), table));
        _mm512_storeu_ps(to + LANES, e2m1_lookup(_mm_loadu_si64(from + 8), table));
    }
}

void nvfp4_row_to_f32_avx512(const uint8_t *packed, const float *scale, float factor, size_t cols,
                             float *dst)
{
    const __m512 values = e2m1_values();
    const __m512 tensor_scale = _mm512_set1_ps(factor);

    for (size_t g = 0; g < cols / NVFP4_GROUP; g++) {
        const __m512 group_scale = _mm512_set1_ps(f32_load(scale, g));
        const __m512 table = one_nan(_mm512_mul_ps(_mm512_mul_ps(values, group_scale),
                                                   tensor_scale));

        _mm512_storeu_ps(dst + g * NVFP4_GROUP,
                         e2m1_lookup(_mm_loadu_si64(packed + g * (NVFP4_GROUP / 2)), table));
    }
}

/* Up to four groups: squares come from a table, and vpsadbw adds eight of them. A `count` of 4 is a
 * constant at the call, for which the compiler removes the loop. */
static inline __attribute__((always_inline))
void count_groups(const uint8_t *packed, const uint8_t *scale, size_t count, fp4_counts *counts)
{
    const __m512i squares = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 4, 9, 16, 36, 64, (char)144, 0, 0, 0, 0, 0, 0, 0, 0));
    const __m512i seven = _mm512_set1_epi8(7);
    const __m512i zero = _mm512_setzero_si512();
    const __mmask64 some = ~(__mmask64)0 >> (64 - count * (FP4_GROUP / 2));
    const __m512i bytes = _mm512_maskz_loadu_epi8(some, packed);
    const __m512i low = _mm512_and_si512(bytes, seven);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), seven);
    _Alignas(64) uint64_t sums[8];             /* GCC 13 with ASan aligns the store by itself */

    _mm512_storeu_si512(sums, _mm512_add_epi64(
        _mm512_sad_epu8(_mm512_shuffle_epi8(squares, low), zero),
        _mm512_sad_epu8(_mm512_shuffle_epi8(squares, high), zero)));
    for (size_t k = 0; k < count; k++)
        counts->squares[scale[k]] += sums[2 * k] + sums[2 * k + 1];
    counts->zeros += (uint64_t)_mm_popcnt_u64(_mm512_testn_epi8_mask(low, low) & some) +
                     (uint64_t)_mm_popcnt_u64(_mm512_testn_epi8_mask(high, high) & some);
    counts->largest += (uint64_t)_mm_popcnt_u64(_mm512_cmpeq_epi8_mask(low, seven)) +
                       (uint64_t)_mm_popcnt_u64(_mm512_cmpeq_epi8_mask(high, seven));
}

void fp4_row_counts_avx512(const uint8_t *packed, const uint8_t *scale, size_t cols,
                           fp4_counts *counts)
{
    const size_t groups = cols / FP4_GROUP;
    size_t g = 0;

    for (; g + 4 <= groups; g += 4)
        count_groups(packed + g * (FP4_GROUP / 2), scale + g, 4, counts);
    if (g < groups)
        count_groups(packed + g * (FP4_GROUP / 2), scale + g, groups - g, counts);
}

#endif
