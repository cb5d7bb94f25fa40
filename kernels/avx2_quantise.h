/*
 * avx2_quantise.h: AVX2 code for whole chunks of BF16 values, for quantise_rows.c. Returns the same
 * bits as the loops there, which are easier to read.
 *
 * 16 values are two vectors of F32, the even columns and the odd ones, so that widening them and
 * joining their results are shifts and masks. What BF16 can express, as magnitudes, exponents and
 * codes, is computed for all 16 at once.
 */
#ifndef CKPT_KERNELS_AVX2_QUANTISE_H
#define CKPT_KERNELS_AVX2_QUANTISE_H

#include "avx2.h"
#include "quantise_chunk.h"

enum { PAIRS = 16 };        /* values of a vector */

/* ---- maxima ---- */

/* The magnitudes of 16 or 32 values, reduced to 16. */
static inline __attribute__((always_inline))
__m256i pair_magnitudes(const uint16_t *src, size_t group)
{
    const __m256i magnitude = set16(0x7FFF);
    const __m256i first = _mm256_and_si256(load256(src), magnitude);

    return group == 16 ? first : _mm256_max_epu16(
        first, _mm256_and_si256(load256(src + PAIRS), magnitude));
}

/*
 * The maxima of 8 groups of BF16 values. Each fold joins the groups of two vectors in one, by the
 * larger of each lower and upper half of a 128-bit lane; at last every word of a lane is a group.
 */
static inline __attribute__((always_inline))
void pair_groups8_amax(const uint16_t *src, size_t group, float *amax)
{
    __m256i v[8];
    __m128i all;
    __m256i bits;

    for (size_t i = 0; i < 8; i++)
        v[i] = pair_magnitudes(src + i * group, group);
    for (size_t i = 0; i < 8; i += 2)
        v[i] = _mm256_max_epu16(_mm256_unpacklo_epi16(v[i], v[i + 1]),
                                _mm256_unpackhi_epi16(v[i], v[i + 1]));
    for (size_t i = 0; i < 8; i += 4)
        v[i] = _mm256_max_epu16(_mm256_unpacklo_epi32(v[i], v[i + 2]),
                                _mm256_unpackhi_epi32(v[i], v[i + 2]));
    v[0] = _mm256_max_epu16(_mm256_unpacklo_epi64(v[0], v[4]),
                            _mm256_unpackhi_epi64(v[0], v[4]));
    all = _mm_max_epu16(_mm256_castsi256_si128(v[0]), _mm256_extracti128_si256(v[0], 1));
    bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(all), 16);
    store256(amax, choose(_mm256_cmpgt_epi32(bits, set32(F32_INF_BITS)), set32(F32_NAN_BITS),
                          bits));
}

/* ---- codes ---- */

/* For which the compiler specialises. */
typedef struct {
    form f;
    int divides;            /* some divisor is not a power of two */
    int clamps;             /* some quotient is above the largest code */
    int finds_largest;      /* the largest error is looked for */
} pair_kind;

/* What belongs to a block, in every lane; the first three are BF16 bits. With divides, they are
 * those of quotients, else quotients times the divisor. */
typedef struct {
    __m256i least;          /* the smallest normal number */
    __m256i magic;          /* what rounds numbers of that exponent, see round_to_small */
    __m256i largest;        /* the largest number */
    __m256 divisor;         /* with divides */
    __m256 scale;
} pair_block;

/* Even and odd columns. */
typedef struct {
    __m256 even;
    __m256 odd;
} pair_values;

/* Sums of squares and the largest error over a chunk, and counts over some, in bytes. */
typedef struct {
    pair_values errors;
    pair_values values;
    __m256 largest;
    __m256i exact;
    __m256i underflowed;
    __m256i not_saturated;
    uint64_t minus_zeros;
} pair_sums;

/* Results for 16 values: words. */
typedef struct {
    __m256i values;         /* as they were */
    __m256i codes;          /* without signs */
    __m256i errors;         /* 0 where there is none */
    __m256i not_saturated;  /* all ones where it is so */
} pair_codes;

/* BF16 to F32. */
static inline pair_values pair_widen(__m256i halves)
{
    const pair_values wide = { f32_of(_mm256_slli_epi32(halves, 16)),
                               f32_of(_mm256_and_si256(halves, set32(0xFFFF0000u))) };

    return wide;
}

/* The low words of even and odd lanes in the order of columns. */
static inline __m256i pair_join_low(__m256 even, __m256 odd)
{
    return _mm256_blend_epi16(bits_of(even), _mm256_slli_epi32(bits_of(odd), 16), 0xAA);
}

static inline __m256i pair_join_high(__m256 even, __m256 odd)
{
    return _mm256_blend_epi16(_mm256_srli_epi32(bits_of(even), 16), bits_of(odd), 0xAA);
}

/* For divisors 2^k: the high word of one, less that of 1, moves an exponent by k. */
static inline __attribute__((always_inline))
pair_block pair_block_of(const quantise_input *in, size_t block, pair_kind kind)
{
    const small_float small = kind.f.small;
    const uint32_t shift = 23 - small.mantissa_bits;
    uint16_t power = 127 << 7;
    pair_block b;
    __m256i lanes;

    if (!kind.divides)
        memcpy(&power, (const char *)&in->divisor[block] + sizeof power, sizeof power);
    lanes = set16(power);
    b.least = _mm256_add_epi16(lanes, set16((small.least - 127) << 7));
    b.magic = _mm256_add_epi16(lanes, set16((small.least - 127 + shift) << 7));
    b.largest = _mm256_add_epi16(lanes, set16((f32_bits(small.largest) >> 16) - (127 << 7)));
    b.divisor = _mm256_set1_ps(f32_load(in->divisor, block));
    b.scale = _mm256_set1_ps(f32_load(in->scale, block));
    return b;
}

static inline void pair_add_squares(pair_values *sums, pair_values v)
{
    sums->even = _mm256_add_ps(sums->even, _mm256_mul_ps(v.even, v.even));
    sums->odd = _mm256_add_ps(sums->odd, _mm256_mul_ps(v.odd, v.odd));
}

static inline pair_values pair_add(pair_values a, pair_values b)
{
    return (pair_values){ _mm256_add_ps(a.even, b.even), _mm256_add_ps(a.odd, b.odd) };
}

static inline pair_values pair_sub(pair_values a, pair_values b)
{
    return (pair_values){ _mm256_sub_ps(a.even, b.even), _mm256_sub_ps(a.odd, b.odd) };
}

static inline pair_values pair_mul(pair_values a, __m256 b)
{
    return (pair_values){ _mm256_mul_ps(a.even, b), _mm256_mul_ps(a.odd, b) };
}

/* Words of all ones where the comparison with `predicate` is true. */
#define PAIR_COMPARE(a, b, predicate)                                                              \
    _mm256_blend_epi16(bits_of(_mm256_cmp_ps((a).even, (b).even, predicate)),                      \
                       bits_of(_mm256_cmp_ps((a).odd, (b).odd, predicate)), 0xAA)

/* The numbers that are rounded, and their high words. */
typedef struct {
    pair_values q;
    __m256i high;
} pair_numbers;

/* Magnitudes or their quotients, at most the largest number. */
static inline __attribute__((always_inline))
pair_numbers pair_numbers_of(__m256i magnitude, const pair_block *b, pair_kind kind, pair_codes *c)
{
    const pair_values values = pair_widen(magnitude);
    const pair_values largest = pair_widen(b->largest);
    pair_values q;
    pair_values near;

    if (!kind.divides) {
        const __m256i high = kind.clamps ? _mm256_min_epu16(magnitude, b->largest) : magnitude;

        c->not_saturated = _mm256_cmpeq_epi16(high, magnitude);
        return (pair_numbers){ pair_widen(high), high };
    }
    q = (pair_values){ _mm256_div_ps(values.even, b->divisor),
                       _mm256_div_ps(values.odd, b->divisor) };
    near = !kind.clamps ? q : (pair_values){ _mm256_min_ps(q.even, largest.even),
                                             _mm256_min_ps(q.odd, largest.odd) };
    c->not_saturated = PAIR_COMPARE(near, q, _CMP_EQ_OQ);
    return (pair_numbers){ near, pair_join_high(near.even, near.odd) };
}

/*
 * Quantise 16 values. The octave of round_to_small less the smallest one is found by a subtraction
 * that ends at 0. With powers of two, an error is a difference of multiples of a step that fits
 * BF16: its high word is 0 only if it is 0.
 */
static inline __attribute__((always_inline))
pair_codes pair_step(const quantise_input *in, const uint16_t *src, const pair_block *b,
                     pair_kind kind, pair_sums *s)
{
    const pair_values zero = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    const __m256i x = load256(src);
    const __m256i magnitude = _mm256_and_si256(x, set16(0x7FFF));
    const pair_values values = pair_widen(magnitude);
    pair_codes c = { .values = x };
    const pair_numbers n = pair_numbers_of(magnitude, b, kind, &c);
    const __m256i octave = _mm256_subs_epu16(_mm256_and_si256(n.high, set16(0x7F80)), b->least);
    const pair_values magic = pair_widen(_mm256_add_epi16(octave, b->magic));
    const pair_values sum = pair_add(n.q, magic);
    pair_values y = pair_sub(sum, magic);
    pair_values error;

    if (kind.divides)
        y = pair_mul(y, b->scale);
    if (kind.f.is_nvfp4)
        y = pair_mul(y, _mm256_set1_ps(in->tensor_scale));
    error = pair_sub(y, values);
    c.errors = kind.divides ? PAIR_COMPARE(error, zero, _CMP_NEQ_UQ)
                            : pair_join_high(error.even, error.odd);
    c.codes = _mm256_add_epi16(pair_join_low(sum.even, sum.odd),
                               _mm256_srli_epi16(octave, 7 - (int)kind.f.small.mantissa_bits));
    pair_add_squares(&s->errors, error);
    pair_add_squares(&s->values, values);
    if (kind.finds_largest)
        s->largest = _mm256_max_ps(s->largest, _mm256_max_ps(magnitude_of(error.even),
                                                             magnitude_of(error.odd)));
    return c;
}

/* Count and store 32 codes. Packing words to bytes exchanges the middle quarters. */
static inline __attribute__((always_inline))
void pair_store(const pair_codes *a, const pair_codes *b, pair_kind kind, pair_sums *s,
                uint8_t *codes)
{
    const __m256i zero = _mm256_setzero_si256();
    const __m256i bytes = _mm256_packus_epi16(a->codes, b->codes);
    const __m256i exact = _mm256_cmpeq_epi8(_mm256_packs_epi16(a->errors, b->errors), zero);
    const __m256i is_zero = _mm256_cmpeq_epi8(bytes, zero);
    __m256i sign = _mm256_packs_epi16(a->values, b->values);

    s->exact = _mm256_sub_epi8(s->exact, exact);
    s->underflowed = _mm256_sub_epi8(s->underflowed, _mm256_andnot_si256(exact, is_zero));
    if (kind.f.is_nvfp4) {                      /* only values of 0 have code 0 without an error */
        const __m256i no_sign = _mm256_and_si256(exact, is_zero);

        s->minus_zeros += (uint64_t)__builtin_popcount(
            (unsigned)_mm256_movemask_epi8(_mm256_and_si256(no_sign, sign)));
        sign = _mm256_andnot_si256(no_sign, sign);
    }
    if (kind.clamps)
        s->not_saturated = _mm256_sub_epi8(s->not_saturated,
                                           _mm256_packs_epi16(a->not_saturated, b->not_saturated));
    if (kind.f.kind == CODE_E4M3)
        store256(codes, _mm256_permute4x64_epi64(
            _mm256_or_si256(bytes, _mm256_and_si256(sign, _mm256_set1_epi8(-128))),
            _MM_SHUFFLE(3, 1, 2, 0)));
    else
        _mm_storeu_si128((__m128i *)codes, _mm_shuffle_epi32(
            e2m1_pack(_mm256_or_si256(bytes, _mm256_and_si256(_mm256_srli_epi16(sign, 4),
                                                              _mm256_set1_epi8(8)))),
            _MM_SHUFFLE(3, 1, 2, 0)));
}

/* Add F32 sums to lanes, which are in the order of columns. */
static inline void pair_add_sums(double lanes[SUM_LANES], pair_values sums)
{
    const __m256 low = _mm256_unpacklo_ps(sums.even, sums.odd);     /* columns 0-3, 8-11 */
    const __m256 high = _mm256_unpackhi_ps(sums.even, sums.odd);    /* 4-7, 12-15 */
    const __m128 fours[4] = { _mm256_castps256_ps128(low), _mm256_castps256_ps128(high),
                              _mm256_extractf128_ps(low, 1), _mm256_extractf128_ps(high, 1) };

    for (int i = 0; i < 4; i++)
        _mm256_store_pd(lanes + 4 * i, _mm256_add_pd(_mm256_load_pd(lanes + 4 * i),
                                                     _mm256_cvtps_pd(fours[i])));
}

/* The sum of bytes. */
static inline uint64_t pair_count(__m256i counts)
{
    const __m256i four = _mm256_sad_epu8(counts, _mm256_setzero_si256());
    const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(four),
                                      _mm256_extracti128_si256(four, 1));

    return (uint64_t)_mm_cvtsi128_si64(two) + (uint64_t)_mm_extract_epi64(two, 1);
}

/* The chunk with the largest error is remembered; find_place looks for the column. */
static inline __attribute__((always_inline))
void pair_note_largest(progress *p, size_t col, __m256 largest)
{
    const __m256 known = _mm256_set1_ps(p->sums->max_error);
    float lanes[LANES];

    if (_mm256_movemask_ps(_mm256_cmp_ps(largest, known, _CMP_GT_OQ)) == 0)
        return;
    _mm256_storeu_ps(lanes, largest);
    for (int i = 0; i < LANES; i++)
        p->sums->max_error = lanes[i] > p->sums->max_error ? lanes[i] : p->sums->max_error;
    p->sums->max_row = p->row;
    p->sums->max_col = col;
    p->has_open_place = 1;
}

/* Quantise one chunk. */
static inline __attribute__((always_inline))
void pair_quantise_chunk(progress *p, size_t col, pair_kind kind, pair_sums *s, uint8_t *codes)
{
    const form f = kind.f;
    const quantise_input *const in = p->in;
    const uint16_t *const src = in->halves + p->row * in->pitch + col;
    pair_block block = pair_block_of(in, block_at(in, col, f), kind);

    s->errors = (pair_values){ _mm256_setzero_ps(), _mm256_setzero_ps() };
    s->values = s->errors;
    s->largest = _mm256_setzero_ps();
    for (size_t at = 0; at < CHUNK; at += 2 * PAIRS) {
        pair_codes a;
        pair_codes b;

        if (f.width < CHUNK)
            block = pair_block_of(in, block_at(in, col + at, f), kind);
        a = pair_step(in, src + at, &block, kind, s);
        if (f.width == PAIRS)
            block = pair_block_of(in, block_at(in, col + at + PAIRS, f), kind);
        b = pair_step(in, src + at + PAIRS, &block, kind, s);
        pair_store(&a, &b, kind, s, codes + (f.kind == CODE_E2M1 ? at / 2 : at));
    }
    pair_add_sums(p->errors, s->errors);
    pair_add_sums(p->values, s->values);
    __asm__ volatile("" : : : "memory");    /* no register for them while there are too few */
    if (kind.finds_largest)
        pair_note_largest(p, col, s->largest);
}

/* Quantise the whole chunks of a row. Returns the column after them. Specialised for `kind`. */
static inline __attribute__((always_inline))
size_t pair_quantise_row(progress *p, pair_kind kind, uint8_t *codes)
{
    enum { COUNTED = 32 * CHUNK };      /* a byte counts 4 of each chunk */
    const size_t end = p->in->cols / CHUNK * CHUNK;
    size_t col = 0;

    while (col < end) {
        const size_t count = size_min(end - col, COUNTED);
        const size_t stop = col + count;
        pair_sums s = { .exact = _mm256_setzero_si256() };

        for (; col < stop; col += CHUNK)
            pair_quantise_chunk(p, col, kind, &s,
                                codes + (kind.f.kind == CODE_E2M1 ? col / 2 : col));
        p->sums->rounded += count - pair_count(s.exact);
        p->sums->underflowed += pair_count(s.underflowed);
        if (kind.clamps)
            p->sums->saturated += count - pair_count(s.not_saturated);
        p->sums->dropped_signs += s.minus_zeros;
    }
    return col;
}

static inline __attribute__((always_inline))
size_t pair_choose(progress *p, pair_kind kind, uint8_t *codes)
{
    kind.finds_largest = 1;
    if (p->finds_largest)
        return pair_quantise_row(p, kind, codes);
    kind.finds_largest = 0;
    return pair_quantise_row(p, kind, codes);
}

/* Quantise the whole chunks of a row, if they are of such a kind. Returns the column after them. */
static inline __attribute__((always_inline))
size_t quantise_whole_chunks(progress *p, form f, uint8_t *codes)
{
    if (p->in->values != NULL || p->is_wide || !(p->has_powers || p->has_safe_divisors))
        return 0;
    if (f.is_nvfp4 || (!p->has_powers && p->saturates))
        return pair_choose(p, (pair_kind){ f, 1, 1, 1 }, codes);
    if (!p->has_powers)
        return pair_choose(p, (pair_kind){ f, 1, 0, 1 }, codes);
    if (p->saturates)
        return pair_choose(p, (pair_kind){ f, 0, 1, 1 }, codes);
    return pair_choose(p, (pair_kind){ f, 0, 0, 1 }, codes);
}

#endif
