/*
 * avx2_pairs.h: what quantise_pairs.h is written in, for AVX2: vectors of 16 words, each of which
 * is two vectors of F32. avx512_pairs.h has the same names.
 */
#ifndef CKPT_KERNELS_AVX2_PAIRS_H
#define CKPT_KERNELS_AVX2_PAIRS_H

#include "avx2.h"
#include "quantise_chunk.h"

enum { PAIRS = 16 };        /* words of a vector */

typedef __m256i pair_words;
typedef __m256 pair_floats;

/* An instruction that has the same name in both sets. */
#define PAIR_OP(name) _mm256_##name

/* Loops stay loops: there are too few registers. */
#define PAIR_UNROLL _Pragma("GCC unroll 1")

/* Columns 0-3 and 8-11 of 16; 4-7 and 12-15. */
typedef struct {
    pair_floats low;
    pair_floats high;
} pair_values;

/* ---- vectors ---- */

static inline pair_floats pair_f32(pair_words bits)
{
    return _mm256_castsi256_ps(bits);
}

static inline pair_words pair_bits(pair_floats value)
{
    return _mm256_castps_si256(value);
}

static inline pair_words pair_zero(void)
{
    return _mm256_setzero_si256();
}

static inline pair_words pair_and(pair_words a, pair_words b)
{
    return _mm256_and_si256(a, b);
}

/* The same in each 128-bit lane. */
static inline pair_words pair_repeat(__m128i lane)
{
    return _mm256_broadcastsi128_si256(lane);
}

/* a | (b & c) */
static inline pair_words pair_or_and(pair_words a, pair_words b, pair_words c)
{
    return _mm256_or_si256(a, _mm256_and_si256(b, c));
}

static inline pair_floats pair_magnitude(pair_floats value)
{
    return magnitude_of(value);
}

static inline int pair_any_above(pair_floats value, pair_floats limit)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(value, limit, _CMP_GT_OQ)) != 0;
}

/* The lower words of 32-bit lanes: those of `low` are even ones, those of `high` odd ones. */
static inline pair_words pair_join_words(pair_words low, pair_words high)
{
    return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xAA);
}

/* One constant for the first 16 columns of a vector, one for the others, of which it has none. */
static inline pair_words pair_set_words(uint16_t first, uint16_t others)
{
    (void)others;
    return set16(first);
}

/* ---- loading and storing ---- */

static inline pair_words pair_load_halves(const uint16_t *src)
{
    return load256(src);
}

static inline pair_values pair_load_floats(const float *src)
{
    const pair_floats first = _mm256_castps128_ps256(_mm_loadu_ps(src));
    const pair_floats second = _mm256_castps128_ps256(_mm_loadu_ps(src + 4));

    return (pair_values){ _mm256_insertf128_ps(first, _mm_loadu_ps(src + 8), 1),
                          _mm256_insertf128_ps(second, _mm_loadu_ps(src + 12), 1) };
}

static inline void pair_store_bytes(uint8_t *dst, pair_words bytes)
{
    store256(dst, bytes);
}

/* Codes of 8 bits, packed from two vectors of words, in the order of columns. */
static inline pair_words pair_order_bytes(pair_words bytes)
{
    return _mm256_permute4x64_epi64(bytes, _MM_SHUFFLE(3, 1, 2, 0));
}

/* Codes of 4 bits, packed from four. */
static inline pair_words pair_order_nibbles(pair_words bytes)
{
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* ---- marks ---- */

typedef __m256i pair_marks;         /* a byte, 0 or all ones, for each of 32 codes */
typedef __m256i pair_word_marks;    /* a word for each of 16 */
typedef __m256i pair_count;         /* of marks, a byte for each code of a vector */

static inline pair_marks pair_mark_zeros(pair_words bytes)
{
    return _mm256_cmpeq_epi8(bytes, pair_zero());
}

static inline pair_marks pair_both(pair_marks a, pair_marks b)
{
    return _mm256_and_si256(a, b);
}

static inline pair_marks pair_only_first(pair_marks a, pair_marks b)
{
    return _mm256_andnot_si256(b, a);
}

static inline pair_word_marks pair_mark_above(pair_words value, pair_words limit)
{
    return _mm256_cmpgt_epi16(value, limit);
}

static inline pair_word_marks pair_mark_floats_above(pair_values v, pair_values limit)
{
    return _mm256_packs_epi32(pair_bits(_mm256_cmp_ps(v.low, limit.low, _CMP_GT_OQ)),
                              pair_bits(_mm256_cmp_ps(v.high, limit.high, _CMP_GT_OQ)));
}

static inline pair_marks pair_join_marks(pair_word_marks a, pair_word_marks b)
{
    return _mm256_packs_epi16(a, b);
}

/* The bytes without those that are marked. */
static inline pair_words pair_clear(pair_words bytes, pair_marks marks)
{
    return _mm256_andnot_si256(marks, bytes);
}

/* How many bytes that are marked have the highest bit. */
static inline uint64_t pair_count_high_bits(pair_words bytes, pair_marks marks)
{
    if (_mm256_testz_si256(marks, bytes))
        return 0;
    return (uint64_t)__builtin_popcount(
        (unsigned)_mm256_movemask_epi8(_mm256_and_si256(marks, bytes)));
}

/* At most 255 times. */
static inline void pair_count_marks(pair_count *count, pair_marks marks)
{
    *count = _mm256_sub_epi8(*count, marks);
}

static inline pair_count pair_no_count(void)
{
    return pair_zero();
}

static inline uint64_t pair_total(pair_count count)
{
    const __m256i four = _mm256_sad_epu8(count, pair_zero());
    const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(four),
                                      _mm256_extracti128_si256(four, 1));

    return (uint64_t)_mm_cvtsi128_si64(two) + (uint64_t)_mm_extract_epi64(two, 1);
}

/* ---- sums of squares ---- */

typedef pair_values pair_squares;

static inline pair_squares pair_no_squares(void)
{
    return (pair_squares){ _mm256_setzero_ps(), _mm256_setzero_ps() };
}

/* Without the asm, compilers add later, and have too few registers until then. */
static inline void pair_add_squares(pair_squares *sums, pair_values v)
{
    sums->low = _mm256_fmadd_ps(v.low, v.low, sums->low);
    sums->high = _mm256_fmadd_ps(v.high, v.high, sums->high);
    __asm__("" : "+x"(sums->low), "+x"(sums->high));
}

/* Add F32 sums of columns that are 8 apart, and these to F64 lanes. */
static inline void pair_add_sums(double lanes[SUM_LANES], pair_squares sums)
{
    const __m128 low = _mm_add_ps(_mm256_castps256_ps128(sums.low),
                                  _mm256_extractf128_ps(sums.low, 1));
    const __m128 high = _mm_add_ps(_mm256_castps256_ps128(sums.high),
                                   _mm256_extractf128_ps(sums.high, 1));

    _mm256_store_pd(lanes, _mm256_add_pd(_mm256_load_pd(lanes), _mm256_cvtps_pd(low)));
    _mm256_store_pd(lanes + 4, _mm256_add_pd(_mm256_load_pd(lanes + 4), _mm256_cvtps_pd(high)));
    __asm__ volatile("" : : : "memory");    /* no register for them while there are too few */
}

#endif
