/*
 * avx2.c: the kernels for CPUs with AVX2, FMA, F16C and BMI2, in the order of avx512.c and with
 * the same methods. A register holds 8 F32 values or 16 BF16 ones. Scalar code does the tails.
 */
#if defined(__x86_64__)
#include "avx2.h"
#include "group_scale.h"

/* ---- dequantise ---- */

/* Constants to decode the up to 128 columns of one FP8 scale to BF16. */
typedef struct {
    __m256i rebias;         /* added to a normal code's bits after the shift to BF16's position */
    __m256i subnormals;     /* BF16 of the magnitude codes 0 .. 7, in both 128-bit halves */
    __m256 scale;           /* multiplies the BF16 values unless `exact` */
    int exact;              /* rebias and subnormals already contain the scale */
} fp8_block;

/*
 * If the scale is 2^k and every product is normal in BF16, multiplying is adding k to the exponent.
 * That holds for E4M3 subnormals, too, because they are normal in BF16, but not for zero. E4M3
 * spans 2^-9 .. 1.75 * 2^8, so scale codes 10 .. 246 qualify.
 */
static inline fp8_block fp8_block_of(float scale)
{
    const int code = e8m0_exact(scale);
    const int exact = code >= 10 && code <= 246;
    const uint32_t exponent = exact ? (uint32_t)(code - 127) << 7 : 0;
    const short k = (short)exponent;
    const __m128i subnormals = _mm_setr_epi16(0, 0x3B00, 0x3B80, 0x3BC0,
                                              0x3C00, 0x3C20, 0x3C40, 0x3C60);
    const __m128i shift = _mm_setr_epi16(0, k, k, k, k, k, k, k);
    fp8_block block;

    block.rebias = set16((120u << 7) + exponent);
    block.subnormals = _mm256_broadcastsi128_si256(_mm_add_epi16(subnormals, shift));
    block.scale = _mm256_set1_ps(scale);
    block.exact = exact;
    return block;
}

/* Multiply 16 BF16 values by an F32: each 32-bit lane has an even column in its low half and an odd
 * one in its high half. */
static inline __m256i bf16_words_scaled(__m256i words, __m256 scale)
{
    const __m256i high = set32(0xFFFF0000u);
    const __m256 even = _mm256_mul_ps(f32_of(_mm256_slli_epi32(words, 16)), scale);
    const __m256 odd = _mm256_mul_ps(f32_of(_mm256_and_si256(words, high)), scale);

    return _mm256_blend_epi16(_mm256_srli_epi32(round_even(bits_of(even), 16), 16),
                              round_even(bits_of(odd), 16), 0xAA);
}

/*
 * BF16 of 16 codes without NaN. pshufb selects bytes, and word m of `subnormals` is bytes 2m and
 * 2m + 1: the selector is m * 0x0202 + 0x0100.
 */
static inline __m256i e4m3_to_bf16_words(__m128i codes, const fp8_block *block)
{
    const __m256i wide = _mm256_cvtepi8_epi16(codes);
    const __m256i magnitude = _mm256_and_si256(_mm256_slli_epi16(wide, 4), set16(0x7F0));
    const __m256i is_tiny = _mm256_cmpeq_epi16(_mm256_and_si256(wide, set16(0x78)),
                                               _mm256_setzero_si256());
    const __m256i normal = _mm256_add_epi16(magnitude, block->rebias);
    const __m256i m = _mm256_and_si256(wide, set16(7));
    const __m256i bytes = _mm256_add_epi16(_mm256_mullo_epi16(m, set16(0x0202)), set16(0x0100));
    const __m256i tiny = _mm256_shuffle_epi8(block->subnormals, bytes);
    const __m256i words = _mm256_or_si256(choose(is_tiny, tiny, normal),
                                          _mm256_and_si256(wide, set16(0x8000)));

    return block->exact ? words : bf16_words_scaled(words, block->scale);
}

/* The columns of one scale; `cols` is a multiple of 16, no code is NaN. */
static inline void fp8_block_to_bf16(const uint8_t *codes, float scale, size_t cols, uint16_t *dst)
{
    const fp8_block block = fp8_block_of(scale);

    for (size_t c = 0; c < cols; c += 16)
        store256(dst + c, e4m3_to_bf16_words(load128(codes + c), &block));
}

static inline int fp8_block_has_nan(const uint8_t *codes, size_t cols)
{
    const __m128i nan = _mm_set1_epi8(E4M3_NAN);
    __m128i found = _mm_setzero_si128();

    for (size_t c = 0; c < cols; c += 16) {
        const __m128i magnitude = _mm_and_si128(load128(codes + c), nan);

        found = _mm_or_si128(found, _mm_cmpeq_epi8(magnitude, nan));
    }
    return _mm_movemask_epi8(found) != 0;
}

/*
 * With a finite scale only NaN codes give NaN. Blocks with them are rare and go to scalar code, as
 * do the columns after the last multiple of 16.
 */
static void fp8_row_to_bf16(const uint8_t *codes, const float *scale, size_t cols, uint16_t *dst)
{
    for (size_t c = 0; c < cols; c += FP8_BLOCK) {
        const size_t count = size_min(cols - c, FP8_BLOCK);
        const float s = f32_load(scale, c / FP8_BLOCK);
        size_t fast = count / 16 * 16;

        if (!f32_is_finite(s) || fp8_block_has_nan(codes + c, fast))
            fast = 0;
        fp8_block_to_bf16(codes + c, s, fast, dst + c);
        if (fast < count)
            kernels_scalar.fp8_row_to_bf16(codes + c + fast, &s, count - fast, dst + c + fast);
    }
}

/* `scale256` is the scale times 2^8, because e4m3_as_f16 returns values times 2^-8. */
static inline void fp8_block_to_f32(const uint8_t *codes, __m256 scale256, size_t cols, float *dst)
{
    for (size_t c = 0; c < cols; c += LANES) {
        const __m128i half = e4m3_as_f16(_mm_cvtepi8_epi16(_mm_loadu_si64(codes + c)));

        _mm256_storeu_ps(dst + c, _mm256_mul_ps(_mm256_cvtph_ps(half), scale256));
    }
}

/* scale * 256 is exact unless it overflows, so the product is still rounded only once. */
static void fp8_row_to_f32(const uint8_t *codes, const float *scale, size_t cols, float *dst)
{
    for (size_t c = 0; c < cols; c += FP8_BLOCK) {
        const size_t count = size_min(cols - c, FP8_BLOCK);
        const float s = f32_load(scale, c / FP8_BLOCK);
        size_t fast = count / 16 * 16;

        if (!f32_is_finite(s * 256.0f) || fp8_block_has_nan(codes + c, fast))
            fast = 0;
        fp8_block_to_f32(codes + c, _mm256_set1_ps(s * 256.0f), fast, dst + c);
        if (fast < count)
            kernels_scalar.fp8_row_to_f32(codes + c + fast, &s, count - fast, dst + c + fast);
    }
}

/* BF16 of a group's eight magnitudes: exact (two mantissa bits, 2^-128 and above), inf or NaN. */
static inline __m128i fp4_products(uint8_t scale)
{
    const __m256 product = _mm256_mul_ps(e2m1_magnitudes(), _mm256_set1_ps(e8m0_value(scale)));
    const __m256i top = _mm256_srli_epi32(bits_of(product), 16);

    return _mm_packus_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
}

/*
 * The eight products are split into a table of low bytes and one of high bytes; pshufb looks up
 * both, and unpacking joins the bytes. Unpacking works in 16-byte halves, so quadwords are swapped
 * first. A NaN must have no sign, so with a NaN scale no sign bits are added.
 */
static void fp4_row_to_bf16(const uint8_t *packed, const uint8_t *scale, size_t cols,
                            uint16_t *dst)
{
    const __m128i signs = _mm_setr_epi32(0, 0, (int)0x80808080u, (int)0x80808080u);

    for (size_t g = 0; g < cols / FP4_GROUP; g++) {
        const __m128i words = fp4_products(scale[g]);
        const __m128i bytes = _mm_packus_epi16(_mm_and_si128(words, _mm_set1_epi16(0xFF)),
                                               _mm_srli_epi16(words, 8));
        const __m128i low = _mm_unpacklo_epi64(bytes, bytes);
        const __m128i high = _mm_or_si128(_mm_unpackhi_epi64(bytes, bytes),
                                          scale[g] == E8M0_NAN ? _mm_setzero_si128() : signs);
        const __m256i codes = _mm256_permute4x64_epi64(
            fp4_unpack(packed + g * (FP4_GROUP / 2)), 0xD8);
        const __m256i out_low = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(low), codes);
        const __m256i out_high = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(high), codes);
        uint16_t *to = dst + g * FP4_GROUP;

        store256(to, _mm256_unpacklo_epi8(out_low, out_high));
        store256(to + 16, _mm256_unpackhi_epi8(out_low, out_high));
    }
}

static void fp4_row_to_f32(const uint8_t *packed, const uint8_t *scale, size_t cols, float *dst)
{
    for (size_t g = 0; g < cols / FP4_GROUP; g++) {
        const __m256 table = _mm256_mul_ps(e2m1_magnitudes(),
                                           _mm256_set1_ps(e8m0_value(scale[g])));
        const __m256i sign = set32(scale[g] == E8M0_NAN ? 0 : F32_SIGN_BIT);

        for (size_t i = g * FP4_GROUP; i < (g + 1) * FP4_GROUP; i += LANES)
            _mm256_storeu_ps(dst + i, e2m1_lookup(packed + i / 2, table, sign));
    }
}

/* Products that are not numbers, replaced by the one NaN that all sets return. */
static inline __m256 one_nan(__m256 product)
{
    return f32_of(choose(nan_lanes(product), set32(F32_NAN_BITS), bits_of(product)));
}

/* Eight codes are a word, of which each lane takes its own nibble. */
static void int4_row_to_f32(const uint8_t *packed, const uint16_t *scale, size_t cols, float *dst)
{
    const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const __m256i nibble = set32(15);
    const __m256i offset = set32(8);

    for (size_t c = 0; c < cols; c += LANES) {
        const __m256 factor = _mm256_set1_ps(bf16_at(scale, c / INT4_GROUP));
        __m256i codes;
        uint32_t word;

        memcpy(&word, packed + c / 2, sizeof word);
        codes = _mm256_and_si256(_mm256_srlv_epi32(set32(word), shifts), nibble);
        codes = _mm256_sub_epi32(codes, offset);
        _mm256_storeu_ps(dst + c, one_nan(_mm256_mul_ps(_mm256_cvtepi32_ps(codes), factor)));
    }
}

/* Scales may be negative: the sign of a code changes that of the product. */
static void nvfp4_row_to_f32(const uint8_t *packed, const float *scale, float factor, size_t cols,
                             float *dst)
{
    const __m256 tensor_scale = _mm256_set1_ps(factor);

    for (size_t c = 0; c < cols; c += NVFP4_GROUP) {
        const __m256 group_scale = _mm256_set1_ps(f32_load(scale, c / NVFP4_GROUP));
        const __m256 table = _mm256_mul_ps(_mm256_mul_ps(e2m1_magnitudes(), group_scale),
                                           tensor_scale);

        for (size_t i = c; i < c + NVFP4_GROUP; i += LANES)
            _mm256_storeu_ps(dst + i, one_nan(e2m1_lookup(packed + i / 2, table,
                                                          set32(F32_SIGN_BIT))));
    }
}

/* ---- re-encode ---- */

/* For each byte, a mask with the bits of the magnitudes of its two codes. */
static inline __m256i fp4_byte_masks(const uint8_t *packed)
{
    const __m256i bit = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, (char)-128, 1, 2, 4, 8, 16, 32, 64, (char)-128));
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i bytes = load256(packed);
    const __m256i low = _mm256_and_si256(bytes, nibble);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);

    return _mm256_or_si256(_mm256_shuffle_epi8(bit, low), _mm256_shuffle_epi8(bit, high));
}

/* OR the two halves of each 16-byte group of a and of b; a's result is in the lower eight bytes. */
static inline __m256 fold_halves(__m256i a, __m256i b)
{
    return f32_of(_mm256_or_si256(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)));
}

/*
 * Eight groups, two in each of four registers. Folding pairs of registers leaves one group in each
 * 32-bit lane: lane 4 * g + r has group 2 * r + g.
 */
static inline __m128i fp4_masks8(const uint8_t *packed)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256 ab = fold_halves(fp4_byte_masks(packed), fp4_byte_masks(packed + 32));
    const __m256 cd = fold_halves(fp4_byte_masks(packed + 64), fp4_byte_masks(packed + 96));
    __m256i fold = bits_of(_mm256_or_ps(_mm256_shuffle_ps(ab, cd, 0x88),
                                        _mm256_shuffle_ps(ab, cd, 0xDD)));
    __m128i words;

    fold = _mm256_or_si256(fold, _mm256_srli_epi32(fold, 16));
    fold = _mm256_or_si256(fold, _mm256_srli_epi32(fold, 8));
    fold = _mm256_permutevar8x32_epi32(_mm256_and_si256(fold, set32(0xFF)), order);
    words = _mm_packus_epi32(_mm256_castsi256_si128(fold), _mm256_extracti128_si256(fold, 1));
    return _mm_packus_epi16(words, words);
}

static void fp4_group_masks(const uint8_t *packed, size_t group_count, uint8_t *masks)
{
    const size_t group_bytes = FP4_GROUP / 2;
    size_t g = 0;

    for (; g + 8 <= group_count; g += 8)
        _mm_storeu_si64(masks + g, fp4_masks8(packed + g * group_bytes));
    kernels_scalar.fp4_group_masks(packed + g * group_bytes, group_count - g, masks + g);
}

static void fp4_row_to_fp8(const uint8_t *packed, const uint8_t *distance, size_t cols,
                           int positive_zero, uint8_t *codes)
{
    const char minus = (char)-128;
    const __m128i signs = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, positive_zero ? 0 : minus, minus,
                                        minus, minus, minus, minus, minus, minus);

    for (size_t g = 0; g < cols / FP4_GROUP; g++) {
        const uint8_t *row = fp4_fp8_codes[size_min(distance[g], FP4_DISTANCE_COUNT)];
        const __m128i magnitudes = _mm_loadu_si64(row);
        const __m128i table = _mm_or_si128(_mm_unpacklo_epi64(magnitudes, magnitudes), signs);

        store256(codes + g * FP4_GROUP,
                 _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table),
                                     fp4_unpack(packed + g * (FP4_GROUP / 2))));
    }
}

/* ---- quantise ---- */

static uint32_t largest_lane(__m256i lanes)
{
    uint32_t values[LANES];
    uint32_t largest = 0;

    store256(values, lanes);
    for (size_t i = 0; i < LANES; i++)
        largest = values[i] > largest ? values[i] : largest;
    return largest;
}

/* Compares bits as integers: that is the order of magnitudes, with NaN above every number. */
static float f32_block_amax(const float *src, size_t rows, size_t cols, size_t pitch)
{
    const size_t whole = cols / LANES * LANES;
    const uint32_t rest = f32_bits(kernels_scalar.f32_block_amax(src + whole, rows, cols - whole,
                                                                 pitch));
    __m256i largest = set32(rest);
    uint32_t bits;

    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < whole; c += LANES)
            largest = _mm256_max_epu32(largest, _mm256_and_si256(load256(src + r * pitch + c),
                                                                 set32(~F32_SIGN_BIT)));
    bits = largest_lane(largest);
    return f32_from_bits(bits > F32_INF_BITS ? F32_NAN_BITS : bits);
}

/* Bit i is set if lane i does not decode to the source bits, or its quotient was NaN. */
static inline unsigned inexact_lanes(__m256 source, __m256 quotient, __m256 magnitude,
                                     __m256 scale)
{
    const __m256 sign = _mm256_and_ps(quotient, f32_of(set32(F32_SIGN_BIT)));
    const __m256 decoded = _mm256_mul_ps(_mm256_or_ps(magnitude, sign), scale);
    const __m256i same = _mm256_cmpeq_epi32(bits_of(decoded), bits_of(source));

    return (unsigned)_mm256_movemask_ps(f32_of(_mm256_andnot_si256(nan_lanes(quotient), same)))
           ^ 0xFFu;
}

/* For a power of two, multiplying by the reciprocal gives the same bits as dividing, and is faster:
 * both round the same real value. */
typedef struct {
    __m256 scale;
    __m256 reciprocal;
    int divide;
} divisor;

static inline divisor divisor_of(float scale)
{
    const int code = e8m0_exact(scale);
    divisor d;

    d.scale = _mm256_set1_ps(scale);
    d.divide = code < 0;
    d.reciprocal = _mm256_set1_ps(code < 0 ? 1.0f : e8m0_value((uint8_t)(254 - code)));
    return d;
}

static inline __m256 divide(__m256 x, const divisor *d)
{
    return d->divide ? _mm256_div_ps(x, d->scale) : _mm256_mul_ps(x, d->reciprocal);
}

/* Eight codes, one a lane. After the clamp only NaN has a code that is not finite. */
static inline __m256i fp8_quantise(__m256 x, const divisor *d, unsigned *inexact)
{
    const __m256 q = divide(x, d);
    const rounded_lanes r = round_small(_mm256_min_ps(magnitude_of(q), _mm256_set1_ps(448.0f)), 3,
                                        7);

    *inexact = inexact_lanes(x, q, r.value, d->scale);
    return choose(nan_lanes(q), set32(E4M3_NAN), with_sign(r.code, bits_of(q), 24, 0x80));
}

static inline __m256i fp4_quantise(__m256 x, const divisor *d, unsigned *inexact)
{
    const __m256 q = divide(x, d);
    const rounded_lanes r = round_small(_mm256_min_ps(magnitude_of(q), _mm256_set1_ps(6.0f)), 1, 1);

    *inexact = inexact_lanes(x, q, r.value, d->scale);
    return choose(nan_lanes(q), set32(7), with_sign(r.code, bits_of(q), 28, 8));
}

/* Add the result of later elements; their indices are relative to `index`. */
static void encode_result_append(encode_result *result, encode_result part, uint64_t index)
{
    if (result->inexact_count == 0)
        result->first_inexact = index + part.first_inexact;
    result->inexact_count += part.inexact_count;
}

static encode_result f32_block_to_fp8(const float *src, size_t rows, size_t cols, size_t pitch,
                                      float scale, uint8_t *codes, size_t codes_pitch)
{
    const divisor d = divisor_of(scale);
    encode_result result = { 0, 0 };

    for (size_t r = 0; r < rows; r++) {
        const float *from = src + r * pitch;
        uint8_t *to = codes + r * codes_pitch;
        size_t c = 0;

        for (; c + LANES <= cols; c += LANES) {
            unsigned inexact;
            const __m256i lanes = fp8_quantise(_mm256_loadu_ps(from + c), &d, &inexact);
            const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(lanes),
                                                   _mm256_extracti128_si256(lanes, 1));

            _mm_storeu_si64(to + c, _mm_packus_epi16(words, words));
            encode_result_note_lanes(&result, inexact, r * cols + c);
        }
        encode_result_append(&result, kernels_scalar.f32_block_to_fp8(
            from + c, 1, cols - c, pitch, scale, to + c, codes_pitch), r * cols + c);
    }
    return result;
}

static encode_result f32_row_to_fp4(const float *src, const uint8_t *scale, size_t cols,
                                    uint8_t *packed)
{
    encode_result result = { 0, 0 };

    for (size_t c = 0; c < cols; c += FP4_GROUP) {
        const divisor d = divisor_of(e8m0_value(scale[c / FP4_GROUP]));
        __m256i codes[4];

        for (size_t k = 0; k < 4; k++) {
            unsigned inexact;

            codes[k] = fp4_quantise(_mm256_loadu_ps(src + c + k * LANES), &d, &inexact);
            encode_result_note_lanes(&result, inexact, c + k * LANES);
        }
        _mm_storeu_si128((__m128i *)(packed + c / 2), e2m1_pack(narrow_to_bytes(codes)));
    }
    return result;
}

/* ---- digest ---- */

static inline __m256i f32_canonical(__m256i bits)
{
    const __m256i is_minus_zero = _mm256_cmpeq_epi32(bits, set32(F32_SIGN_BIT));

    return choose(nan_lanes(f32_of(bits)), set32(F32_NAN_BITS),
                  _mm256_andnot_si256(is_minus_zero, bits));
}

/* Write the canonical values of `count` <= 1024 elements; returns 1 if all are exact in BF16. */
static inline int f32_unit_canonical(const float *src, size_t count, uint32_t *unit)
{
    __m256i seen = _mm256_setzero_si256();

    for (size_t i = 0; i < count; i += LANES) {
        const __m256i bits = f32_canonical(
            i + LANES <= count ? load256(src + i)
                               : load_tail(src + i, (count - i) * sizeof *src));

        seen = _mm256_or_si256(seen, bits);
        store256(unit + i, bits);
    }
    return _mm256_testz_si256(seen, set32(0xFFFF));
}

static void digest_row_f32(const float *src, size_t cols, uint64_t first_unit, hash128 *sum)
{
    _Alignas(32) uint32_t unit[HASH_UNIT_COLUMNS];
    _Alignas(32) uint16_t narrow[HASH_UNIT_COLUMNS];

    for (size_t begin = 0; begin < cols; begin += HASH_UNIT_COLUMNS) {
        const size_t count = size_min(cols - begin, HASH_UNIT_COLUMNS);
        const uint64_t seed = first_unit + begin / HASH_UNIT_COLUMNS;

        if (!f32_unit_canonical(src + begin, count, unit)) {
            hash128_add(sum, hash_bytes_avx2(unit, count * sizeof unit[0], seed));
            continue;
        }
        for (size_t i = 0; i < count; i += LANES) {
            const __m256i top = _mm256_srli_epi32(load256(unit + i), 16);

            _mm_storeu_si128((__m128i *)(narrow + i),
                             _mm_packus_epi32(_mm256_castsi256_si128(top),
                                              _mm256_extracti128_si256(top, 1)));
        }
        hash128_add(sum, hash_bytes_avx2(narrow, count * sizeof narrow[0], seed));
    }
}

static uint32_t reduce_max(__m256i x)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));

    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

static int fp4_group_scale_exact(const float *src)
{
    __m256i odd = _mm256_setzero_si256();       /* mantissa bits that no FP4 value has */
    __m256i largest = _mm256_setzero_si256();
    __m256i least = set32(INT32_MAX);

    for (size_t i = 0; i < FP4_GROUP; i += LANES) {
        const __m256i bits = _mm256_and_si256(load256(src + i), set32(~F32_SIGN_BIT));
        const __m256i half = _mm256_and_si256(_mm256_srli_epi32(bits, 22), set32(1));
        const __m256i low = _mm256_sub_epi32(_mm256_srli_epi32(bits, 23), half);
        const __m256i zero = _mm256_cmpeq_epi32(bits, _mm256_setzero_si256());

        odd = _mm256_or_si256(odd, _mm256_and_si256(bits, set32(0x3FFFFF)));
        largest = _mm256_max_epi32(largest, bits);
        least = _mm256_min_epi32(least, _mm256_blendv_epi8(low, set32(INT32_MAX), zero));
    }
    return fp4_group_scale_of(src, !_mm256_testz_si256(odd, odd), reduce_max(largest),
                              ~(int32_t)reduce_max(_mm256_xor_si256(least, set32(~0u))));
}

static void digest_row_fp8(const uint8_t *codes, const float *scale, size_t cols,
                           uint64_t first_unit, hash128 *sum)
{
    hash128_add(sum, digest_decoded_fp8(&kernels_avx2, codes, scale, cols, first_unit));
}

/* ---- counts ---- */

/* The number of bytes set in `mask`, among those whose bits are set in `some`. */
static inline uint64_t count_bytes(__m256i mask, uint32_t some)
{
    return (uint64_t)__builtin_popcount((uint32_t)_mm256_movemask_epi8(mask) & some);
}

/* Two groups at a time: squares come from a table, and vpsadbw adds eight of them. */
static void fp4_row_counts(const uint8_t *packed, const uint8_t *scale, size_t cols,
                           fp4_counts *counts)
{
    const __m256i squares = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 9, 16, 36, 64, (char)144, 0, 0, 0, 0, 0, 0, 0, 0));
    const __m256i seven = _mm256_set1_epi8(7);
    const __m256i zero = _mm256_setzero_si256();

    for (size_t g = 0; g < cols / FP4_GROUP; g += 2) {
        const size_t count = cols / FP4_GROUP - g < 2 ? 1 : 2;
        const uint32_t some = count == 2 ? 0xFFFFFFFFu : 0xFFFFu;
        const uint8_t *from = packed + g * (FP4_GROUP / 2);
        const __m256i bytes = count == 2
            ? _mm256_loadu_si256((const __m256i *)from)
            : _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)from));
        const __m256i low = _mm256_and_si256(bytes, seven);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), seven);
        uint64_t sums[4];

        _mm256_storeu_si256((__m256i *)sums, _mm256_add_epi64(
            _mm256_sad_epu8(_mm256_shuffle_epi8(squares, low), zero),
            _mm256_sad_epu8(_mm256_shuffle_epi8(squares, high), zero)));
        for (size_t k = 0; k < count; k++)
            counts->squares[scale[g + k]] += sums[2 * k] + sums[2 * k + 1];
        counts->zeros += count_bytes(_mm256_cmpeq_epi8(low, zero), some) +
                         count_bytes(_mm256_cmpeq_epi8(high, zero), some);
        counts->largest += count_bytes(_mm256_cmpeq_epi8(low, seven), some) +
                           count_bytes(_mm256_cmpeq_epi8(high, seven), some);
    }
}

static inline uint64_t marks_of(__m256i low, __m256i high)
{
    const __m256i zero = _mm256_setzero_si256();
    const uint32_t zeros = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, zero));
    const uint32_t more = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, zero));

    return ~(zeros | (uint64_t)more << 32);
}

static uint64_t marks_64(const uint8_t *src)
{
    return marks_of(load256(src), load256(src + 32));
}

static uint64_t xor_64(uint8_t *a, const uint8_t *b)
{
    const __m256i low = _mm256_xor_si256(load256(a), load256(b));
    const __m256i high = _mm256_xor_si256(load256(a + 32), load256(b + 32));

    store256(a, low);
    store256(a + 32, high);
    return marks_of(low, high);
}

static unsigned busy_4(const uint64_t *marks)
{
    const __m256i is_zero = _mm256_cmpeq_epi64(load256(marks), _mm256_setzero_si256());

    return ~(unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(is_zero)) & 0xF;
}

static uint64_t busy_8(const uint64_t *marks)
{
    return busy_4(marks) | busy_4(marks + 4) << 4;
}

#include "marks_wide.h"

const ckpt_kernels kernels_avx2 = {
    .name = "avx2",
    .e4m3_to_f32 = e4m3_to_f32_avx2,
    .e5m2_to_f32 = e5m2_to_f32_avx2,
    .e8m0_to_f32 = e8m0_to_f32_avx2,
    .e2m1_to_f32 = e2m1_to_f32_avx2,
    .bf16_to_f32 = bf16_to_f32_avx2,
    .f16_to_f32 = f16_to_f32_avx2,
    .f32_to_bf16 = f32_to_bf16_avx2,
    .f32_to_f16 = f32_to_f16_avx2,
    .f32_to_e4m3 = f32_to_e4m3_avx2,
    .f32_to_e5m2 = f32_to_e5m2_avx2,
    .f32_to_e8m0 = f32_to_e8m0_avx2,
    .f32_to_e2m1 = f32_to_e2m1_avx2,
    .fp8_row_to_bf16 = fp8_row_to_bf16,
    .fp8_row_to_f32 = fp8_row_to_f32,
    .fp4_row_to_bf16 = fp4_row_to_bf16,
    .fp4_row_to_f32 = fp4_row_to_f32,
    .int4_row_to_f32 = int4_row_to_f32,
    .nvfp4_row_to_f32 = nvfp4_row_to_f32,
    .fp4_group_masks = fp4_group_masks,
    .fp4_row_to_fp8 = fp4_row_to_fp8,
    .f32_block_amax = f32_block_amax,
    .f32_block_to_fp8 = f32_block_to_fp8,
    .f32_row_to_fp4 = f32_row_to_fp4,
    .f32_group_amax = f32_group_amax_avx2,
    .bf16_block_amax = bf16_block_amax_avx2,
    .bf16_group_amax = bf16_group_amax_avx2,
    .amax_to_scale = amax_to_scale_avx2,
    .quantise_e4m3 = quantise_e4m3_avx2,
    .quantise_e2m1 = quantise_e2m1_avx2,
    .quantise_int8 = quantise_int8_avx2,
    .fp4_group_scale_exact = fp4_group_scale_exact,
    .digest_row_bf16 = digest_row_bf16_avx2,
    .digest_row_f32 = digest_row_f32,
    .digest_row_fp8 = digest_row_fp8,
    .digest_row_fp4 = digest_row_fp4_avx2,
    .digest_row_i64 = digest_row_i64_avx2,
    .f32_row_statistics = f32_row_statistics_avx2,
    .f32_row_squares = f32_row_squares_avx2,
    .f32_row_difference = f32_row_difference_avx2,
    .f32_row_distances = f32_row_distances_avx2,
    .fp4_row_counts = fp4_row_counts,
    .nonzero_marks = nonzero_marks,
    .mark_positions = mark_positions,
    .xor_marks = xor_marks,
    .hash_bytes = hash_bytes_avx2,
    .hash_begin = hash_begin_avx2,
    .hash_add = hash_add_avx2,
    .hash_end = hash_end_avx2,
};

#endif
