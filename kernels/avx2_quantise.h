/*
 * avx2_quantise.h: AVX2 code for whole chunks of BF16 values, for quantise_rows.c. Returns the same
 * bits as the loops there, which are easier to read.
 *
 * 16 values are two vectors of F32, the lower and the upper half of each 128-bit lane, as unpacking
 * makes them. What BF16 can express, as magnitudes and exponents, is computed for all 16 at once.
 */
#ifndef CKPT_KERNELS_AVX2_QUANTISE_H
#define CKPT_KERNELS_AVX2_QUANTISE_H

#include "quantise_chunk.h"
#include "quantise_products.h"

enum {
    PAIRS = 16,             /* values of a vector */
    FUSES_PRODUCTS = 1      /* see products_differ: of E2M1 */
};

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

/* The largest magnitude of BF16 values, as bits. Four maxima, so that none waits for the other. */
static inline uint32_t halves_amax(const uint16_t *src, size_t rows, size_t cols, size_t pitch)
{
    const __m256i magnitude = set16(0x7FFF);
    __m256i largest[4] = { _mm256_setzero_si256() };
    uint16_t words[PAIRS];
    uint32_t all = 0;

    for (size_t r = 0; r < rows; r++, src += pitch) {
        size_t c = 0;

        for (; c + 4 * PAIRS <= cols; c += 4 * PAIRS)
            for (size_t i = 0; i < 4; i++)
                largest[i] = _mm256_max_epu16(largest[i], _mm256_and_si256(
                    load256(src + c + i * PAIRS), magnitude));
        for (; c < cols; c++)
            all = (src[c] & 0x7FFFu) > all ? src[c] & 0x7FFFu : all;
    }
    store256(words, _mm256_max_epu16(_mm256_max_epu16(largest[0], largest[1]),
                                     _mm256_max_epu16(largest[2], largest[3])));
    for (size_t i = 0; i < PAIRS; i++)
        all = words[i] > all ? words[i] : all;
    return all;
}

/* ---- codes ---- */

/* For which the compiler specialises. */
typedef struct {
    form f;
    chunk_quotient quotient;
    int clamps;             /* some quotient may round to more than the largest code */
    int counts_saturated;   /* some is above the largest code */
    int finds_largest;      /* the largest error is looked for */
} pair_kind;

/* What belongs to a block, in every lane; the first three are BF16 bits. */
typedef struct {
    __m256i least;          /* the smallest normal number times the divisor */
    __m256i magic;          /* what rounds numbers of that exponent, see round_to_small; times the
                               divisor with QUOTIENT_POWER */
    __m256i largest;        /* the largest value that does not saturate */
    __m256 divisor;
    __m256 inverse;         /* with QUOTIENT_NEAR, as `rest`: see chunk_way */
    __m256 rest;
    __m256 scale;
} pair_block;

/* Columns 0-3 and 8-11 of 16; 4-7 and 12-15. */
typedef struct {
    __m256 low;
    __m256 high;
} pair_values;

/* Sums of squares and the largest error over a chunk, and counts over some, in bytes. */
typedef struct {
    pair_values errors;
    pair_values values;
    __m256 largest;
    __m256i exact;
    __m256i underflowed;
    __m256i saturated;
    uint64_t minus_zeros;
} pair_sums;

/* Results for 16 values: words. */
typedef struct {
    __m256i values;         /* as they were */
    __m256i codes;          /* without signs; those of columns 4-7 lie between those of 0-3 */
    __m256i errors;         /* 0 where there is none */
    __m256i saturated;      /* all ones where it is so */
} pair_codes;

/* 32-bit lanes of 16-bit ones. */
static inline pair_values pair_unpack(__m256i lower, __m256i upper)
{
    return (pair_values){ f32_of(_mm256_unpacklo_epi16(lower, upper)),
                          f32_of(_mm256_unpackhi_epi16(lower, upper)) };
}

/* BF16 to F32. */
static inline pair_values pair_widen(__m256i halves)
{
    return pair_unpack(_mm256_setzero_si256(), halves);
}

/* BF16 bits of a power of two times a number: adding what one's bits are above those of 1. */
static inline __attribute__((always_inline))
__m256i pair_power_times(__m256i number, uint32_t exponent)
{
    return _mm256_add_epi16(number, set16((exponent - 127) << 7));
}

/*
 * The smallest normal number times the divisor is truncated to BF16. That makes the quotient of a
 * value that is a little less one of the octave above, where it rounds to the same number: the
 * power of two.
 */
static inline __attribute__((always_inline))
pair_block pair_block_of(const progress *p, size_t block, pair_kind kind)
{
    const quantise_input *const in = p->in;
    const small_float small = kind.f.small;
    const uint32_t shift = 23 - small.mantissa_bits;
    const __m256i one = set16(127 << 7);
    uint16_t high;
    pair_block b;
    __m256i lanes;

    memcpy(&high, (const char *)&in->divisor[block] + sizeof high, sizeof high);
    lanes = kind.quotient == QUOTIENT_DIVIDE ? one : set16(high);
    b.least = pair_power_times(lanes, small.least);
    b.magic = pair_power_times(kind.quotient == QUOTIENT_POWER ? lanes : one, small.least + shift);
    b.divisor = _mm256_set1_ps(f32_load(in->divisor, block));
    b.scale = _mm256_set1_ps(f32_load(in->scale, block));
    if (kind.quotient == QUOTIENT_POWER) {
        b.largest = _mm256_add_epi16(lanes, set16((f32_bits(small.largest) >> 16) - (127 << 7)));
        return b;
    }
    b.largest = set16(p->way.largest[block - p->way.first]);
    b.inverse = _mm256_set1_ps(p->way.inverse[block - p->way.first]);
    b.rest = _mm256_set1_ps(p->way.rest[block - p->way.first]);
    return b;
}

/* Without the asm, compilers add later, and have too few registers until then. */
static inline void pair_add_squares(pair_values *sums, pair_values v)
{
    sums->low = _mm256_fmadd_ps(v.low, v.low, sums->low);
    sums->high = _mm256_fmadd_ps(v.high, v.high, sums->high);
    __asm__("" : "+x"(sums->low), "+x"(sums->high));
}

static inline pair_values pair_add(pair_values a, pair_values b)
{
    return (pair_values){ _mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high) };
}

static inline pair_values pair_sub(pair_values a, pair_values b)
{
    return (pair_values){ _mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high) };
}

static inline pair_values pair_mul(pair_values a, __m256 b)
{
    return (pair_values){ _mm256_mul_ps(a.low, b), _mm256_mul_ps(a.high, b) };
}

/* a * b + c, rounded once. */
static inline pair_values pair_mul_add(pair_values a, __m256 b, pair_values c)
{
    return (pair_values){ _mm256_fmadd_ps(a.low, b, c.low), _mm256_fmadd_ps(a.high, b, c.high) };
}

/* The octave of round_to_small less the smallest one, by a subtraction that ends at 0. */
static inline __attribute__((always_inline))
__m256i pair_octave(__m256i number, const pair_block *b)
{
    return _mm256_and_si256(_mm256_subs_epu16(number, b->least), set16(0x7F80));
}

/*
 * round_to_small's magic number of each value, plus the code of the octave's first step, which is
 * even: adding a quotient rounds as without it, and then the low bits are the code.
 */
static inline __attribute__((always_inline))
pair_values pair_magic(__m256i octave, const pair_block *b, pair_kind kind)
{
    return pair_unpack(_mm256_srli_epi16(octave, 7 - (int)kind.f.small.mantissa_bits),
                       _mm256_add_epi16(octave, b->magic));
}

/* The magic numbers, and the sums with them. */
typedef struct {
    pair_values magic;
    pair_values sum;
} pair_rounded;

static inline __attribute__((always_inline))
pair_rounded pair_divide(pair_values values, const pair_block *b, pair_kind kind)
{
    const __m256 largest = _mm256_set1_ps(kind.f.small.largest);
    const pair_values q = { _mm256_min_ps(_mm256_div_ps(values.low, b->divisor), largest),
                            _mm256_min_ps(_mm256_div_ps(values.high, b->divisor), largest) };
    const __m256i octave = pair_octave(_mm256_packus_epi32(
        _mm256_srli_epi32(bits_of(q.low), 16), _mm256_srli_epi32(bits_of(q.high), 16)), b);
    const pair_values magic = pair_magic(octave, b, kind);

    return (pair_rounded){ magic, pair_add(q, magic) };
}

/* Quotients, or values with QUOTIENT_POWER, rounded. */
static inline __attribute__((always_inline))
pair_rounded pair_round(__m256i magnitude, const pair_block *b, pair_kind kind)
{
    const __m256i near = kind.clamps ? _mm256_min_epu16(magnitude, b->largest) : magnitude;
    const pair_values values = pair_widen(near);
    pair_values magic;

    if (kind.quotient == QUOTIENT_DIVIDE)
        return pair_divide(pair_widen(magnitude), b, kind);
    magic = pair_magic(pair_octave(near, b), b, kind);
    if (kind.quotient == QUOTIENT_POWER)
        return (pair_rounded){ magic, pair_add(values, magic) };
    if (kind.f.kind == CODE_E2M1)
        return (pair_rounded){ magic, pair_mul_add(values, b->inverse, magic) };
    return (pair_rounded){ magic, pair_add(pair_mul_add(values, b->inverse,
                                                        pair_mul(values, b->rest)), magic) };
}

/* Quantise 16 values. */
static inline __attribute__((always_inline))
pair_codes pair_step(const quantise_input *in, const uint16_t *src, const pair_block *b,
                     pair_kind kind, pair_sums *s)
{
    const __m256i x = load256(src);
    const __m256i magnitude = _mm256_and_si256(x, set16(0x7FFF));
    const pair_values values = pair_widen(magnitude);
    const pair_rounded r = pair_round(magnitude, b, kind);
    pair_values y = pair_sub(r.sum, r.magic);
    pair_values error;
    pair_codes c = { .values = x };

    if (kind.quotient != QUOTIENT_POWER)
        y = pair_mul(y, b->scale);
    if (kind.f.is_nvfp4)
        y = pair_mul(y, _mm256_set1_ps(in->tensor_scale));
    error = pair_sub(y, values);
    c.codes = _mm256_blend_epi16(bits_of(r.sum.low), _mm256_slli_epi32(bits_of(r.sum.high), 16),
                                 0xAA);
    c.errors = _mm256_packs_epi32(bits_of(error.low), bits_of(error.high));
    if (kind.counts_saturated)
        c.saturated = _mm256_cmpgt_epi16(magnitude, b->largest);
    pair_add_squares(&s->errors, error);
    pair_add_squares(&s->values, values);
    if (kind.finds_largest)
        s->largest = _mm256_max_ps(s->largest, _mm256_max_ps(magnitude_of(error.low),
                                                             magnitude_of(error.high)));
    return c;
}

/* Count 32 codes, and return them with their signs. Packing words to bytes exchanges the middle
 * quarters. */
static inline __attribute__((always_inline))
__m256i pair_count_codes(const pair_codes *a, const pair_codes *b, pair_kind kind, pair_sums *s)
{
    const __m256i zero = _mm256_setzero_si256();
    const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    const __m256i codes = _mm256_shuffle_epi8(_mm256_packus_epi16(a->codes, b->codes), order);
    const __m256i exact = _mm256_cmpeq_epi8(_mm256_packs_epi16(a->errors, b->errors), zero);
    const __m256i is_zero = _mm256_cmpeq_epi8(codes, zero);
    __m256i sign = _mm256_packs_epi16(a->values, b->values);

    s->exact = _mm256_sub_epi8(s->exact, exact);
    s->underflowed = _mm256_sub_epi8(s->underflowed, _mm256_andnot_si256(exact, is_zero));
    if (kind.f.is_nvfp4) {                      /* only values of 0 have code 0 without an error */
        const __m256i no_sign = _mm256_and_si256(exact, is_zero);

        if (!_mm256_testz_si256(no_sign, sign))
            s->minus_zeros += (uint64_t)__builtin_popcount(
                (unsigned)_mm256_movemask_epi8(_mm256_and_si256(no_sign, sign)));
        sign = _mm256_andnot_si256(no_sign, sign);
    }
    if (kind.counts_saturated)
        s->saturated = _mm256_sub_epi8(s->saturated,
                                       _mm256_packs_epi16(a->saturated, b->saturated));
    if (kind.f.kind == CODE_E4M3)
        return _mm256_or_si256(codes, _mm256_and_si256(sign, _mm256_set1_epi8(-128)));
    return _mm256_or_si256(codes, _mm256_and_si256(_mm256_srli_epi16(sign, 4),
                                                   _mm256_set1_epi8(8)));
}

/* Store 64 codes that pair_count_codes returned. */
static inline __attribute__((always_inline))
void pair_store(__m256i first, __m256i second, code_kind kind, uint8_t *codes)
{
    const __m256i pairs = set16(0x1001);

    if (kind == CODE_E4M3) {
        store256(codes, _mm256_permute4x64_epi64(first, _MM_SHUFFLE(3, 1, 2, 0)));
        store256(codes + 32, _mm256_permute4x64_epi64(second, _MM_SHUFFLE(3, 1, 2, 0)));
        return;
    }
    store256(codes, _mm256_permutevar8x32_epi32(
        _mm256_packus_epi16(_mm256_maddubs_epi16(first, pairs),
                            _mm256_maddubs_epi16(second, pairs)),
        _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}

/* Add F32 sums of columns that are 8 apart, and these to F64 lanes. */
static inline void pair_add_sums(double lanes[SUM_LANES], pair_values sums)
{
    const __m128 low = _mm_add_ps(_mm256_castps256_ps128(sums.low),
                                  _mm256_extractf128_ps(sums.low, 1));
    const __m128 high = _mm_add_ps(_mm256_castps256_ps128(sums.high),
                                   _mm256_extractf128_ps(sums.high, 1));

    _mm256_store_pd(lanes, _mm256_add_pd(_mm256_load_pd(lanes), _mm256_cvtps_pd(low)));
    _mm256_store_pd(lanes + 4, _mm256_add_pd(_mm256_load_pd(lanes + 4), _mm256_cvtps_pd(high)));
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
    pair_block block = pair_block_of(p, block_at(in, col, f), kind);

    s->errors = (pair_values){ _mm256_setzero_ps(), _mm256_setzero_ps() };
    s->values = s->errors;
    s->largest = _mm256_setzero_ps();
    for (size_t at = 0; at < CHUNK; at += 4 * PAIRS) {
        __m256i bytes[2];

        for (size_t half = 0; half < 2; half++) {
            const size_t from = at + half * 2 * PAIRS;
            pair_codes a;
            pair_codes b;

            if (f.width < CHUNK)
                block = pair_block_of(p, block_at(in, col + from, f), kind);
            a = pair_step(in, src + from, &block, kind, s);
            if (f.width == PAIRS)
                block = pair_block_of(p, block_at(in, col + from + PAIRS, f), kind);
            b = pair_step(in, src + from + PAIRS, &block, kind, s);
            bytes[half] = pair_count_codes(&a, &b, kind, s);
        }
        pair_store(bytes[0], bytes[1], f.kind, codes + (f.kind == CODE_E2M1 ? at / 2 : at));
    }
    pair_add_sums(p->errors, s->errors);
    pair_add_sums(p->values, s->values);
    __asm__ volatile("" : : : "memory");    /* no register for them while there are too few */
    if (kind.finds_largest)
        pair_note_largest(p, col, s->largest);
}

/* ---- the way of a chunk ---- */

/* For a chunk of one block of E4M3. A lane is one of the integers from 1 to 15; adding 16 does not
 * change how they round. */
static __attribute__((noinline))
void pair_find_way(const quantise_input *in, size_t block, form f, chunk_way *way)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 odd = _mm256_setr_ps(1, 3, 5, 7, 9, 11, 13, 15);
    const __m256 rounds_up = f32_of(_mm256_setr_epi32(0, -1, 0, -1, 0, -1, 0, -1));
    product_factors a;
    __m256 differ;

    a.divisor = _mm256_set1_ps(in->divisor[block]);
    a.inverse = _mm256_div_ps(one, a.divisor);
    a.rest = _mm256_mul_ps(_mm256_fnmadd_ps(a.inverse, a.divisor, one), a.inverse);
    differ = _mm256_or_ps(products_differ(a, odd, rounds_up, 0),
                          products_differ(a, _mm256_add_ps(odd, _mm256_set1_ps(16)), rounds_up,
                                          0));
    way->first = block;
    way->end = block + 1;
    way->quotient = _mm256_movemask_ps(differ) == 0 ? QUOTIENT_NEAR : QUOTIENT_DIVIDE;
    way->inverse[0] = _mm256_cvtss_f32(a.inverse);
    way->rest[0] = _mm256_cvtss_f32(a.rest);
    way->largest[0] = (uint16_t)_mm256_extract_epi16(product_largest(a.divisor, f), 1);
}

/* ---- the way of NVFP4 ---- */

/* For a chunk of 8 blocks. Divisors that are not what is known of their scales' significands are
 * divided by. */
static inline __attribute__((always_inline))
void pair_find_ways(const progress *p, size_t block, form f, chunk_way *way)
{
    const __m256i divisor = load256(p->in->divisor + block);
    const __m256i which = _mm256_srli_epi32(load256(p->in->scale + block), 20);
    const __m256i power = _mm256_sub_epi32(
        _mm256_permutevar8x32_epi32(load256(p->known.divisor), which), divisor);
    const int is_known = _mm256_testz_si256(power, set32(0x7FFFFF));
    const __m256i largest = is_known ? _mm256_sub_epi32(_mm256_permutevar8x32_epi32(
                                           load256(p->known.largest), which), power)
                                     : product_largest(f32_of(divisor), f);
    const __m256i high = _mm256_srli_epi32(largest, 16);

    way->first = block;
    way->end = block + LANES;
    way->quotient = is_known ? QUOTIENT_NEAR : QUOTIENT_DIVIDE;
    store256(way->inverse, _mm256_add_epi32(
        _mm256_permutevar8x32_epi32(load256(p->known.inverse), which), power));
    _mm_storeu_si128((__m128i *)way->largest, _mm_packus_epi32(_mm256_castsi256_si128(high),
                                                               _mm256_extracti128_si256(high, 1)));
}

/* How the chunk at `col` is quantised. */
static inline __attribute__((always_inline))
chunk_quotient pair_way(progress *p, size_t col, form f)
{
    const size_t block = block_at(p->in, col, f);

    if (p->has_powers)
        return QUOTIENT_POWER;
    if (f.is_nvfp4)
        pair_find_ways(p, block, f, &p->way);
    else if (block < p->way.first || block >= p->way.end)
        pair_find_way(p->in, block, f, &p->way);
    return p->way.quotient;
}

/* ---- rows ---- */

/* Quantise whole chunks of a row from `col` to `end`, as many as go the way of `kind`. Returns the
 * column after them. Specialised for `kind`. */
static inline __attribute__((always_inline))
size_t pair_quantise_run(progress *p, size_t col, size_t end, pair_kind kind, uint8_t *codes)
{
    pair_sums s = { .exact = _mm256_setzero_si256() };
    const size_t first = col;

    for (; col < end && pair_way(p, col, kind.f) == kind.quotient; col += CHUNK)
        pair_quantise_chunk(p, col, kind, &s, codes + (kind.f.kind == CODE_E2M1 ? col / 2 : col));
    p->sums->rounded += col - first - pair_count(s.exact);
    p->sums->underflowed += pair_count(s.underflowed);
    if (kind.counts_saturated)
        p->sums->saturated += pair_count(s.saturated);
    p->sums->dropped_signs += s.minus_zeros;
    return col;
}

/* Quantise chunks whose quotients need a division. */
static __attribute__((noinline))
size_t pair_divide_run(progress *p, size_t col, size_t end, form f, uint8_t *codes)
{
    if (f.is_nvfp4)
        return pair_quantise_run(p, col, end, (pair_kind){
            { CODE_E2M1, SMALL_E2M1, PAIRS, 1 }, QUOTIENT_DIVIDE, 1, 1, 1 }, codes);
    return pair_quantise_run(p, col, end, (pair_kind){
        { CODE_E4M3, SMALL_E4M3, CHUNK, 0 }, QUOTIENT_DIVIDE, 1, 1, 1 }, codes);
}

/* Quantise the whole chunks of a row. Returns the column after them. */
static inline __attribute__((always_inline))
size_t pair_quantise_row(progress *p, pair_kind kind, uint8_t *codes)
{
    enum { COUNTED = 32 * CHUNK };      /* a byte counts 4 of each chunk */
    const size_t end = p->in->cols / CHUNK * CHUNK;
    size_t col = 0;

    while (col < end) {
        const size_t stop = col + size_min(end - col, COUNTED);

        col = pair_quantise_run(p, col, stop, kind, codes);
        if (kind.quotient != QUOTIENT_POWER && col < stop)
            col = pair_divide_run(p, col, stop, kind.f, codes);
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
    if (p->in->values != NULL || p->is_wide)
        return 0;
    if (p->has_powers && p->saturates)
        return pair_choose(p, (pair_kind){ f, QUOTIENT_POWER, 1, 1, 1 }, codes);
    if (p->has_powers)
        return pair_choose(p, (pair_kind){ f, QUOTIENT_POWER, 0, 0, 1 }, codes);
    if (f.width == 32 || !p->has_safe_divisors)         /* no rule's divisors with that width */
        return 0;
    if (p->clamps)
        return pair_choose(p, (pair_kind){ f, QUOTIENT_NEAR, 1, 1, 1 }, codes);
    if (f.is_nvfp4 || p->saturates)
        return pair_choose(p, (pair_kind){ f, QUOTIENT_NEAR, 0, 1, 1 }, codes);
    return pair_choose(p, (pair_kind){ f, QUOTIENT_NEAR, 0, 0, 1 }, codes);
}

#endif
