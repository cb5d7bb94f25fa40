/*
 * avx512_pairs.h: what quantise_pairs.h is written in, for AVX-512: vectors of 32 words, each of
 * which is two vectors of F32. avx2_pairs.h has the same names.
 */
#ifndef CKPT_KERNELS_AVX512_PAIRS_H
#define CKPT_KERNELS_AVX512_PAIRS_H

#include <immintrin.h>

#include "quantise_chunk.h"

enum { PAIRS = 32 };        /* words of a vector */

typedef __m512i pair_words;
typedef __m512 pair_floats;

/* An instruction that has the same name in both sets. */
#define PAIR_OP(name) _mm512_##name

/* Short loops are unrolled. */
#define PAIR_UNROLL _Pragma("GCC unroll 2")

/* Columns 0-15 and 16-31, in their order. The words of a vector have four of each in turns, as
 * packing 32-bit lanes to words gives them and unpacking takes them. */
typedef struct {
    pair_floats low;
    pair_floats high;
} pair_values;

/* ---- vectors ---- */

static inline pair_floats pair_f32(pair_words bits)
{
    return _mm512_castsi512_ps(bits);
}

static inline pair_words pair_bits(pair_floats value)
{
    return _mm512_castps_si512(value);
}

static inline pair_words pair_zero(void)
{
    return _mm512_setzero_si512();
}

static inline pair_words pair_and(pair_words a, pair_words b)
{
    return _mm512_and_si512(a, b);
}

/* The same in each 128-bit lane. */
static inline pair_words pair_repeat(__m128i lane)
{
    return _mm512_broadcast_i32x4(lane);
}

/* a | (b & c) */
static inline pair_words pair_or_and(pair_words a, pair_words b, pair_words c)
{
    return _mm512_ternarylogic_epi32(a, b, c, 0xF8);
}

static inline pair_floats pair_magnitude(pair_floats value)
{
    return _mm512_abs_ps(value);
}

static inline int pair_any_above(pair_floats value, pair_floats limit)
{
    return _mm512_cmp_ps_mask(value, limit, _CMP_GT_OQ) != 0;
}

/* The lower words of 32-bit lanes: those of `low` are even ones, those of `high` odd ones. */
static inline pair_words pair_join_words(pair_words low, pair_words high)
{
    return _mm512_mask_mov_epi16(low, 0xAAAAAAAA, _mm512_slli_epi32(high, 16));
}

/* One constant for the first 16 columns of a vector, one for the others. */
static inline pair_words pair_set_words(uint16_t first, uint16_t others)
{
    return _mm512_mask_set1_epi16(_mm512_set1_epi16((short)first), 0xF0F0F0F0, (short)others);
}

/* ---- loading and storing ---- */

static inline pair_words pair_load_halves(const uint16_t *src)
{
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7),
                                    _mm512_loadu_si512(src));
}

static inline pair_values pair_load_floats(const float *src)
{
    return (pair_values){ _mm512_loadu_ps(src), _mm512_loadu_ps(src + 16) };
}

static inline void pair_store_bytes(uint8_t *dst, pair_words bytes)
{
    _mm512_storeu_si512(dst, bytes);
}

/* Codes of 8 bits, packed from two vectors of words, in the order of columns. */
static inline pair_words pair_order_bytes(pair_words bytes)
{
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7,
                                                      11, 15), bytes);
}

/* Codes of 4 bits, packed from four. */
static inline pair_words pair_order_nibbles(pair_words bytes)
{
    const __m512i first = _mm512_setr_epi32(
        0x00080000, 0x00180010, 0x00090001, 0x00190011, 0x000A0002, 0x001A0012, 0x000B0003,
        0x001B0013, 0x000C0004, 0x001C0014, 0x000D0005, 0x001D0015, 0x000E0006, 0x001E0016,
        0x000F0007, 0x001F0017);

    return _mm512_permutexvar_epi16(first, bytes);
}

/* ---- marks ---- */

typedef __mmask64 pair_marks;       /* of 64 codes */
typedef __mmask32 pair_word_marks;
typedef uint64_t pair_count;

/* Without the asm, compilers move marks to other registers and back where they are combined. */
static inline pair_marks pair_mark_zeros(pair_words bytes)
{
    pair_marks zeros = _mm512_testn_epi8_mask(bytes, bytes);

    __asm__("" : "+Yk"(zeros));
    return zeros;
}

static inline pair_marks pair_both(pair_marks a, pair_marks b)
{
    return a & b;
}

static inline pair_marks pair_only_first(pair_marks a, pair_marks b)
{
    return _kandn_mask64(b, a);
}

static inline pair_word_marks pair_mark_above(pair_words value, pair_words limit)
{
    return _mm512_cmpgt_epi16_mask(value, limit);
}

/* The order of marks that are only counted does not matter. */
static inline pair_word_marks pair_mark_floats_above(pair_values v, pair_values limit)
{
    return _mm512_kunpackw(_mm512_cmp_ps_mask(v.high, limit.high, _CMP_GT_OQ),
                           _mm512_cmp_ps_mask(v.low, limit.low, _CMP_GT_OQ));
}

static inline pair_marks pair_join_marks(pair_word_marks a, pair_word_marks b)
{
    return _mm512_kunpackd(b, a);
}

/* The bytes without those that are marked. */
static inline pair_words pair_clear(pair_words bytes, pair_marks marks)
{
    return _mm512_maskz_mov_epi8(~marks, bytes);
}

/* How many bytes that are marked have the highest bit. */
static inline uint64_t pair_count_high_bits(pair_words bytes, pair_marks marks)
{
    return (uint64_t)_mm_popcnt_u64(marks & _mm512_movepi8_mask(bytes));
}

/* Compilers would join several counts to a vector, which takes longer than the rest. */
static inline void pair_count_marks(pair_count *count, pair_marks marks)
{
    *count += (uint64_t)_mm_popcnt_u64(marks);
    __asm__("" : "+r"(*count));
}

static inline pair_count pair_no_count(void)
{
    return 0;
}

static inline uint64_t pair_total(pair_count count)
{
    return count;
}

/* ---- sums of squares ---- */

typedef pair_floats pair_squares;   /* of columns modulo 16 */

static inline pair_squares pair_no_squares(void)
{
    return _mm512_setzero_ps();
}

static inline void pair_add_squares(pair_squares *sums, pair_values v)
{
    *sums = _mm512_fmadd_ps(v.low, v.low, *sums);
    *sums = _mm512_fmadd_ps(v.high, v.high, *sums);
}

/* Add F32 sums of columns that are 8 apart, and these to F64 lanes. */
static inline void pair_add_sums(double lanes[SUM_LANES], pair_squares sums)
{
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sums),
                                       _mm512_extractf32x8_ps(sums, 1));

    _mm512_store_pd(lanes, _mm512_add_pd(_mm512_load_pd(lanes), _mm512_cvtps_pd(eight)));
}

#endif
