/*
 * avx512.c: the kernels for CPUs with AVX-512 F, BW, VL, DQ, VBMI and VBMI2. A register holds 16
 * F32 values or one FP4 group as BF16. Tails use masked loads and stores, which touch no byte
 * outside the mask, so tails need no separate code.
 */
#if defined(__x86_64__)
#include "avx512.h"
#include "group_scale.h"

/* ---- re-encode ---- */

/* For each byte, a mask with the bits of the magnitudes of its two codes. */
static inline __m512i fp4_byte_masks(const uint8_t *packed)
{
    const __m512i bit = _mm512_broadcast_i32x4(
        _mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, (char)-128, 1, 2, 4, 8, 16, 32, 64, (char)-128));
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i bytes = _mm512_loadu_si512(packed);
    const __m512i low = _mm512_and_si512(bytes, nibble);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble);

    return _mm512_or_si512(_mm512_shuffle_epi8(bit, low), _mm512_shuffle_epi8(bit, high));
}

/* OR the two halves of each 16-byte group of a and of b; a's result is in the lower eight bytes. */
static inline __m512i fold_halves(__m512i a, __m512i b)
{
    return _mm512_or_si512(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/*
 * 16 groups, four in each of four registers. Folding pairs of registers leaves one group in each
 * 32-bit lane: lane 4 * g + r has group 4 * r + g.
 */
static inline __m128i fp4_masks16(const uint8_t *packed)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512 ab = f32_of(fold_halves(fp4_byte_masks(packed), fp4_byte_masks(packed + 64)));
    const __m512 cd = f32_of(fold_halves(fp4_byte_masks(packed + 128),
                                         fp4_byte_masks(packed + 192)));
    __m512i fold = _mm512_or_si512(bits_of(_mm512_shuffle_ps(ab, cd, 0x88)),
                                   bits_of(_mm512_shuffle_ps(ab, cd, 0xDD)));

    fold = _mm512_or_si512(fold, _mm512_srli_epi32(fold, 16));
    fold = _mm512_or_si512(fold, _mm512_srli_epi32(fold, 8));
    return _mm512_cvtepi32_epi8(_mm512_permutexvar_epi32(order, fold));
}

static void fp4_group_masks(const uint8_t *packed, size_t group_count, uint8_t *masks)
{
    const size_t group_bytes = FP4_GROUP / 2;
    size_t g = 0;

    for (; g + 16 <= group_count; g += 16)
        _mm_storeu_si128((__m128i *)(masks + g), fp4_masks16(packed + g * group_bytes));
    if (g < group_count) {
        uint8_t tail[16 * FP4_GROUP / 2] = { 0 };

        memcpy(tail, packed + g * group_bytes, (group_count - g) * group_bytes);
        _mm_mask_storeu_epi8(masks + g, first16(group_count - g), fp4_masks16(tail));
    }
}

/* The E4M3 codes of a group's magnitudes, repeated for vpshufb: once for positive codes and once
 * for negative ones (the caller adds the signs), in both 16-byte lanes of the group's 32 codes. */
static inline __m256i fp4_fp8_table(unsigned distance)
{
    const uint8_t *row = fp4_fp8_codes[size_min(distance, FP4_DISTANCE_COUNT)];

    return _mm256_broadcastq_epi64(_mm_loadu_si64(row));
}

/* Two groups per register: the 32 codes of each are 16 packed bytes, unpacked to one per byte. */
static void fp4_row_to_fp8(const uint8_t *packed, const uint8_t *distance, size_t cols,
                           int positive_zero, uint8_t *codes)
{
    const char minus = (char)-128;
    const __m512i signs = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, positive_zero ? 0 : minus, minus, minus, minus,
                      minus, minus, minus, minus));
    const __m512i nibbles = _mm512_set1_epi8(15);
    const size_t group_count = cols / FP4_GROUP;

    for (size_t g = 0; g < group_count; g += 2) {
        const int pair = g + 2 <= group_count;
        const uint8_t *from = packed + g * (FP4_GROUP / 2);
        uint8_t *to = codes + g * FP4_GROUP;
        const __m256i first = fp4_fp8_table(distance[g]);
        const __m256i second = pair ? fp4_fp8_table(distance[g + 1]) : first;
        const __m512i table = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
        const __m256i bytes = pair
            ? _mm256_loadu_si256((const __m256i *)from)
            : _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)from));
        const __m512i wide = _mm512_cvtepu8_epi16(bytes);
        /* (wide | wide << 4) & nibbles */
        const __m512i index = _mm512_ternarylogic_epi32(wide, _mm512_slli_epi16(wide, 4),
                                                        nibbles, 0xA8);
        const __m512i out = _mm512_shuffle_epi8(_mm512_or_si512(table, signs), index);

        if (pair)
            _mm512_storeu_si512(to, out);
        else
            _mm256_storeu_si256((__m256i *)to, _mm512_castsi512_si256(out));
    }
}

/* ---- quantise ---- */

static float f32_block_amax(const float *src, size_t rows, size_t cols, size_t pitch)
{
    const __m512i magnitude = set32(~F32_SIGN_BIT);
    __m512i largest = _mm512_setzero_si512();
    uint32_t bits;

    for (size_t r = 0; r < rows; r++) {
        const float *row = src + r * pitch;
        size_t c = 0;

        for (; c + LANES <= cols; c += LANES)
            largest = _mm512_max_epu32(largest, _mm512_and_si512(_mm512_loadu_si512(row + c),
                                                                 magnitude));
        if (c < cols)
            largest = _mm512_max_epu32(largest, _mm512_and_si512(
                _mm512_maskz_loadu_epi32(first16(cols - c), row + c), magnitude));
    }
    bits = _mm512_reduce_max_epu32(largest);
    return f32_from_bits(bits > F32_INF_BITS ? F32_NAN_BITS : bits);
}

/* The lanes that do not decode to the source bits, or whose quotient was NaN. */
static inline __mmask16 inexact_lanes(__m512 source, __m512 quotient, __m512 magnitude,
                                      __m512 scale)
{
    const __m512 value = f32_of(_mm512_ternarylogic_epi32(bits_of(magnitude), bits_of(quotient),
                                                          set32(F32_SIGN_BIT), 0xF8));
    const __m512 decoded = _mm512_mul_ps(value, scale);

    return _mm512_cmpneq_epi32_mask(bits_of(decoded), bits_of(source)) | nan_lanes(quotient);
}

/* For a power of two, multiplying by the reciprocal gives the same bits as dividing, and is faster:
 * both round the same real value. */
typedef struct {
    __m512 scale;
    __m512 reciprocal;
    int divide;
} divisor;

static divisor divisor_of(float scale)
{
    const int code = e8m0_exact(scale);
    divisor d;

    d.scale = _mm512_set1_ps(scale);
    d.divide = code < 0;
    d.reciprocal = _mm512_set1_ps(code < 0 ? 1.0f : e8m0_value((uint8_t)(254 - code)));
    return d;
}

/* 16 quotients to E4M3. After the clamp only NaN has a code that is not finite. */
static inline __m128i fp8_quantise(__m512 x, const divisor *d, __mmask16 *inexact)
{
    const __m512 q = d->divide ? _mm512_div_ps(x, d->scale) : _mm512_mul_ps(x, d->reciprocal);
    const __m512 magnitude = _mm512_min_ps(_mm512_abs_ps(q), _mm512_set1_ps(448.0f));
    const rounded r = round_small(magnitude, 3, 7);
    const __m512i code = with_sign(r.code, bits_of(q), 24, 0x80);

    *inexact = inexact_lanes(x, q, r.value, d->scale);
    return _mm512_cvtepi32_epi8(_mm512_mask_mov_epi32(code, nan_lanes(q), set32(E4M3_NAN)));
}

static encode_result f32_block_to_fp8(const float *src, size_t rows, size_t cols, size_t pitch,
                                      float scale, uint8_t *codes, size_t codes_pitch)
{
    const divisor d = divisor_of(scale);
    encode_result result = { 0, 0 };

    for (size_t r = 0; r < rows; r++) {
        const float *from = src + r * pitch;
        uint8_t *to = codes + r * codes_pitch;
        __mmask16 inexact;
        size_t c = 0;

        for (; c + LANES <= cols; c += LANES) {
            _mm_storeu_si128((__m128i *)(to + c),
                             fp8_quantise(_mm512_loadu_ps(from + c), &d, &inexact));
            encode_result_note_lanes(&result, inexact, r * cols + c);
        }
        if (c < cols) {
            const __mmask16 m = first16(cols - c);

            _mm_mask_storeu_epi8(to + c, m,
                                 fp8_quantise(_mm512_maskz_loadu_ps(m, from + c), &d, &inexact));
            encode_result_note_lanes(&result, inexact & m, r * cols + c);
        }
    }
    return result;
}

/* 16 quotients to E2M1, packed into eight bytes. */
static inline __m128i fp4_quantise(__m512 x, const divisor *d, __mmask16 *inexact)
{
    const __m512 q = _mm512_mul_ps(x, d->reciprocal);
    const __m512 magnitude = _mm512_min_ps(_mm512_abs_ps(q), _mm512_set1_ps(6.0f));
    const rounded r = round_small(magnitude, 1, 1);
    const __m512i code = with_sign(r.code, bits_of(q), 28, 8);

    *inexact = inexact_lanes(x, q, r.value, d->scale);
    return e2m1_pack(_mm512_mask_mov_epi32(code, nan_lanes(q), set32(7)));
}

static encode_result f32_row_to_fp4(const float *src, const uint8_t *scale, size_t cols,
                                    uint8_t *packed)
{
    encode_result result = { 0, 0 };

    for (size_t c = 0; c < cols; c += LANES) {
        const uint8_t code = scale[c / FP4_GROUP];
        const float s = e8m0_value(code);
        const divisor d = { _mm512_set1_ps(s),
                            _mm512_set1_ps(code == E8M0_NAN ? s
                                                            : e8m0_value((uint8_t)(254 - code))),
                            0 };
        __mmask16 inexact;

        _mm_storeu_si64(packed + c / 2, fp4_quantise(_mm512_loadu_ps(src + c), &d, &inexact));
        encode_result_note_lanes(&result, inexact, c);
    }
    return result;
}

static int fp4_group_scale_exact(const float *src)
{
    __m512i any = _mm512_setzero_si512();
    __m512i largest = _mm512_setzero_si512();
    __m512i least = set32(INT32_MAX);

    for (size_t i = 0; i < FP4_GROUP; i += LANES) {
        const __m512i bits = _mm512_and_si512(_mm512_loadu_si512(src + i), set32(~F32_SIGN_BIT));
        const __m512i half = _mm512_and_si512(_mm512_srli_epi32(bits, 22), set32(1));
        const __m512i low = _mm512_sub_epi32(_mm512_srli_epi32(bits, 23), half);

        any = _mm512_or_si512(any, bits);
        largest = _mm512_max_epi32(largest, bits);
        least = _mm512_mask_min_epi32(least, _mm512_test_epi32_mask(bits, bits), least, low);
    }
    return fp4_group_scale_of(src, _mm512_test_epi32_mask(any, set32(0x3FFFFF)),
                              (uint32_t)_mm512_reduce_max_epi32(largest),
                              _mm512_reduce_min_epi32(least));
}

static uint64_t marks_64(const uint8_t *src)
{
    const __m512i word = _mm512_loadu_si512(src);

    return _mm512_test_epi8_mask(word, word);
}

static uint64_t xor_64(uint8_t *a, const uint8_t *b)
{
    const __m512i word = _mm512_xor_si512(_mm512_loadu_si512(a), _mm512_loadu_si512(b));

    _mm512_storeu_si512(a, word);
    return _mm512_test_epi8_mask(word, word);
}

static uint64_t busy_8(const uint64_t *marks)
{
    const __m512i words = _mm512_loadu_si512(marks);

    return _mm512_test_epi64_mask(words, words);
}

#include "marks_wide.h"

const ckpt_kernels kernels_avx512 = {
    .name = "avx512",
    .e4m3_to_f32 = e4m3_to_f32_avx512,
    .e5m2_to_f32 = e5m2_to_f32_avx512,
    .e8m0_to_f32 = e8m0_to_f32_avx512,
    .e2m1_to_f32 = e2m1_to_f32_avx512,
    .bf16_to_f32 = bf16_to_f32_avx512,
    .f16_to_f32 = f16_to_f32_avx512,
    .f32_to_bf16 = f32_to_bf16_avx512,
    .f32_to_f16 = f32_to_f16_avx512,
    .f32_to_e4m3 = f32_to_e4m3_avx512,
    .f32_to_e5m2 = f32_to_e5m2_avx512,
    .f32_to_e8m0 = f32_to_e8m0_avx512,
    .f32_to_e2m1 = f32_to_e2m1_avx512,
    .fp8_row_to_bf16 = fp8_row_to_bf16_avx512,
    .fp8_row_to_f32 = fp8_row_to_f32_avx512,
    .fp4_row_to_bf16 = fp4_row_to_bf16_avx512,
    .fp4_row_to_f32 = fp4_row_to_f32_avx512,
    .int4_row_to_f32 = int4_row_to_f32_avx512,
    .nvfp4_row_to_f32 = nvfp4_row_to_f32_avx512,
    .fp4_group_masks = fp4_group_masks,
    .fp4_row_to_fp8 = fp4_row_to_fp8,
    .f32_block_amax = f32_block_amax,
    .f32_block_to_fp8 = f32_block_to_fp8,
    .f32_row_to_fp4 = f32_row_to_fp4,
    .f32_group_amax = f32_group_amax_avx512,
    .bf16_block_amax = bf16_block_amax_avx512,
    .bf16_group_amax = bf16_group_amax_avx512,
    .amax_to_scale = amax_to_scale_avx512,
    .quantise_e4m3 = quantise_e4m3_avx512,
    .quantise_e2m1 = quantise_e2m1_avx512,
    .quantise_int8 = quantise_int8_avx512,
    .fp4_group_scale_exact = fp4_group_scale_exact,
    .digest_row_bf16 = digest_row_bf16_avx512,
    .digest_row_f32 = digest_row_f32_avx512,
    .digest_row_fp8 = digest_row_fp8_avx512,
    .digest_row_fp4 = digest_row_fp4_avx512,
    .digest_row_i64 = digest_row_i64_avx512,
    .f32_row_statistics = f32_row_statistics_avx512,
    .f32_row_squares = f32_row_squares_avx512,
    .f32_row_difference = f32_row_difference_avx512,
    .f32_row_distances = f32_row_distances_avx512,
    .fp4_row_counts = fp4_row_counts_avx512,
    .nonzero_marks = nonzero_marks,
    .mark_positions = mark_positions,
    .xor_marks = xor_marks,
    .hash_bytes = hash_bytes_avx512,
    .hash_begin = hash_begin_avx512,
    .hash_add = hash_add_avx512,
    .hash_end = hash_end_avx512,
};

#endif
