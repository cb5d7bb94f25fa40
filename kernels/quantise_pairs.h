/*
 * quantise_pairs.h: whole chunks with AVX2 or AVX-512, for quantise_rows.c. Returns the same bits
 * as the loops there, which are easier to read. Include it below avx2_pairs.h or avx512_pairs.h.
 *
 * A vector of words is two vectors of F32, the lower and the upper half of each 128-bit lane, as
 * unpacking makes them. What BF16 can express, as magnitudes and exponents, is computed for all
 * words at once.
 */
#ifndef CKPT_KERNELS_QUANTISE_PAIRS_H
#define CKPT_KERNELS_QUANTISE_PAIRS_H

#include "quantise_chunk.h"
#include "quantise_products.h"

/* For which the compiler specialises. */
typedef struct {
    form f;
    int is_half;            /* values are BF16 */
    chunk_quotient quotient;
    int has_rest;           /* with QUOTIENT_NEAR: products need the rest of the inverse */
    int clamps;             /* some quotient may round to more than the largest code */
    int counts_saturated;   /* some is above the largest code */
    int finds_largest;      /* the largest error is looked for */
} pair_kind;

/* What belongs to the blocks of a vector; words are BF16 bits. */
typedef struct {
    pair_words least;       /* the smallest normal number times the divisor */
    pair_words magic;       /* what rounds numbers of that exponent, see round_to_small; times the
                               divisor with QUOTIENT_POWER */
    pair_words largest;     /* the largest BF16 value that does not saturate */
    pair_values limit;      /* of F32, the largest value that does not, with QUOTIENT_POWER */
    pair_values divisor;
    pair_values inverse;    /* with QUOTIENT_NEAR, as `rest`: see chunk_way */
    pair_values rest;
    pair_values scale;
} pair_block;

/* Sums of squares and the largest error over a chunk, and counts over some. */
typedef struct {
    pair_squares errors;
    pair_squares values;
    pair_floats largest;
    pair_count exact;
    pair_count underflowed;
    pair_count saturated;
    uint64_t minus_zeros;
} pair_sums;

/* The values of a vector. */
typedef struct {
    pair_words words;       /* their upper halves, which is all that BF16 has */
    pair_words magnitude;   /* the same without signs */
    pair_values values;     /* magnitudes */
    pair_values signed_values;  /* of F32 */
} pair_input;

/* Magic numbers, sums with them, and what was seen on the way. */
typedef struct {
    pair_values magic;
    pair_values sum;
    pair_word_marks saturated;
    pair_words signs;       /* the top bits of words */
} pair_rounded;

/* Results for the values of a vector: words. */
typedef struct {
    pair_words values;      /* the upper halves of the values */
    pair_words signs;
    pair_words codes;       /* without signs; those of `high` lie between those of `low` */
    pair_words errors;      /* 0 where there is none */
    pair_word_marks saturated;
} pair_codes;

/* ---- arithmetic ---- */

static inline pair_words pair_set16(uint32_t value)
{
    return PAIR_OP(set1_epi16)((short)value);
}

/* 32-bit lanes of 16-bit ones. */
static inline pair_values pair_unpack(pair_words lower, pair_words upper)
{
    return (pair_values){ pair_f32(PAIR_OP(unpacklo_epi16)(lower, upper)),
                          pair_f32(PAIR_OP(unpackhi_epi16)(lower, upper)) };
}

/* BF16 to F32. */
static inline pair_values pair_widen(pair_words halves)
{
    return pair_unpack(pair_zero(), halves);
}

/* The upper halves of F32. */
static inline pair_words pair_truncate(pair_values v)
{
    return PAIR_OP(packus_epi32)(PAIR_OP(srli_epi32)(pair_bits(v.low), 16),
                                 PAIR_OP(srli_epi32)(pair_bits(v.high), 16));
}

static inline pair_values pair_set(float value)
{
    return (pair_values){ PAIR_OP(set1_ps)(value), PAIR_OP(set1_ps)(value) };
}

static inline pair_values pair_add(pair_values a, pair_values b)
{
    return (pair_values){ PAIR_OP(add_ps)(a.low, b.low), PAIR_OP(add_ps)(a.high, b.high) };
}

static inline pair_values pair_sub(pair_values a, pair_values b)
{
    return (pair_values){ PAIR_OP(sub_ps)(a.low, b.low), PAIR_OP(sub_ps)(a.high, b.high) };
}

static inline pair_values pair_mul(pair_values a, pair_values b)
{
    return (pair_values){ PAIR_OP(mul_ps)(a.low, b.low), PAIR_OP(mul_ps)(a.high, b.high) };
}

static inline pair_values pair_div(pair_values a, pair_values b)
{
    return (pair_values){ PAIR_OP(div_ps)(a.low, b.low), PAIR_OP(div_ps)(a.high, b.high) };
}

static inline pair_values pair_min(pair_values a, pair_values b)
{
    return (pair_values){ PAIR_OP(min_ps)(a.low, b.low), PAIR_OP(min_ps)(a.high, b.high) };
}

/* a * b + c, rounded once. */
static inline pair_values pair_mul_add(pair_values a, pair_values b, pair_values c)
{
    return (pair_values){ PAIR_OP(fmadd_ps)(a.low, b.low, c.low),
                          PAIR_OP(fmadd_ps)(a.high, b.high, c.high) };
}

/* ---- blocks ---- */

/* The index in the call's scales of the blocks of `low` and `high`. */
typedef struct {
    size_t low;
    size_t high;
} pair_blocks;

/* One factor of each. */
static inline pair_values pair_factors(const float *factors, pair_blocks b)
{
    return (pair_values){ PAIR_OP(set1_ps)(f32_load(factors, b.low)),
                          PAIR_OP(set1_ps)(f32_load(factors, b.high)) };
}

/* The upper halves of one F32 of each. */
static inline pair_words pair_upper_halves(const float *factors, pair_blocks b)
{
    uint16_t low;
    uint16_t high;

    memcpy(&low, (const char *)&factors[b.low] + sizeof low, sizeof low);
    memcpy(&high, (const char *)&factors[b.high] + sizeof high, sizeof high);
    return b.low == b.high ? pair_set16(low) : pair_set_words(low, high);
}

/* BF16 bits of a power of two times a number: adding what one's bits are above those of 1. */
static inline __attribute__((always_inline))
pair_words pair_power_times(pair_words number, uint32_t exponent)
{
    return PAIR_OP(add_epi16)(number, pair_set16((exponent - 127) << 7));
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
    const pair_words one = pair_set16(127 << 7);
    const pair_blocks both = { block, kind.f.width < PAIRS ? block + 1 : block };
    const pair_blocks of_way = { both.low - p->way.first, both.high - p->way.first };
    const pair_words lanes = kind.quotient == QUOTIENT_DIVIDE
        ? one : pair_upper_halves(in->divisor, both);
    pair_block b;

    b.least = pair_power_times(lanes, small.least);
    b.magic = pair_power_times(kind.quotient == QUOTIENT_POWER ? lanes : one, small.least + shift);
    b.divisor = pair_factors(in->divisor, both);
    b.scale = pair_factors(in->scale, both);
    if (kind.quotient == QUOTIENT_POWER) {
        b.largest = PAIR_OP(add_epi16)(lanes, pair_set16((f32_bits(small.largest) >> 16) -
                                                         (127 << 7)));
        b.limit = pair_mul(b.divisor, pair_set(small.largest));
        return b;
    }
    if (!kind.is_half)
        return b;
    b.largest = of_way.low == of_way.high
        ? pair_set16(p->way.largest[of_way.low])
        : pair_set_words(p->way.largest[of_way.low], p->way.largest[of_way.high]);
    b.inverse = pair_factors(p->way.inverse, of_way);
    b.rest = pair_factors(p->way.rest, of_way);
    return b;
}

/* ---- codes ---- */

static inline __attribute__((always_inline))
pair_input pair_load(const quantise_input *in, size_t at, pair_kind kind)
{
    const pair_words magnitude = pair_set16(0x7FFF);
    pair_input n;

    if (kind.is_half) {
        n.words = pair_load_halves(in->halves + at);
        n.magnitude = pair_and(n.words, magnitude);
        n.values = pair_widen(n.magnitude);
        n.signed_values = n.values;
    } else {
        n.signed_values = pair_load_floats(in->values + at);
        n.words = pair_truncate(n.signed_values);
        n.magnitude = pair_and(n.words, magnitude);
        n.values = (pair_values){ pair_magnitude(n.signed_values.low),
                                  pair_magnitude(n.signed_values.high) };
    }
    return n;
}

/* The octave of round_to_small less the smallest one, by a subtraction that ends at 0. */
static inline __attribute__((always_inline))
pair_words pair_octave(pair_words number, const pair_block *b)
{
    return pair_and(PAIR_OP(subs_epu16)(number, b->least), pair_set16(0x7F80));
}

/*
 * round_to_small's magic number of each value, plus the code of the octave's first step, which is
 * even: adding a quotient rounds as without it, and then the low bits are the code.
 */
static inline __attribute__((always_inline))
pair_values pair_magic(pair_words octave, const pair_block *b, pair_kind kind)
{
    return pair_unpack(PAIR_OP(srli_epi16)(octave, 7 - (int)kind.f.small.mantissa_bits),
                       PAIR_OP(add_epi16)(octave, b->magic));
}

/* NVFP4 has no sign for quotients of 0. Those of BF16 values are 0 only where the value is, for
 * which pair_count_codes leaves out signs. Adding 0 turns -0 into 0. */
static inline __attribute__((always_inline))
pair_words pair_signs(const pair_input *n, pair_values quotient, pair_kind kind)
{
    const pair_words sign = PAIR_OP(set1_epi32)((int)F32_SIGN_BIT);
    pair_values q;

    if (kind.is_half || !kind.f.is_nvfp4)
        return n->words;
    q.low = pair_f32(pair_or_and(pair_bits(quotient.low), pair_bits(n->signed_values.low), sign));
    q.high = pair_f32(pair_or_and(pair_bits(quotient.high), pair_bits(n->signed_values.high),
                                  sign));
    return pair_truncate(pair_add(q, pair_set(0.0f)));
}

static inline __attribute__((always_inline))
pair_rounded pair_divide(const pair_input *n, const pair_block *b, pair_kind kind)
{
    const pair_values largest = pair_set(kind.f.small.largest);
    const pair_values q = pair_div(n->values, b->divisor);
    const pair_values near = pair_min(q, largest);
    pair_rounded r;

    r.magic = pair_magic(pair_octave(pair_truncate(near), b), b, kind);
    r.sum = pair_add(near, r.magic);
    r.signs = pair_signs(n, q, kind);
    r.saturated = kind.is_half ? pair_mark_above(n->magnitude, b->largest)
                               : pair_mark_floats_above(q, largest);
    return r;
}

/* Quotients, or values with QUOTIENT_POWER, rounded. */
static inline __attribute__((always_inline))
pair_rounded pair_round(const pair_input *n, const pair_block *b, pair_kind kind)
{
    const pair_words near = kind.clamps ? PAIR_OP(min_epu16)(n->magnitude, b->largest)
                                        : n->magnitude;
    pair_values values = n->values;
    pair_rounded r;

    if (kind.quotient == QUOTIENT_DIVIDE)
        return pair_divide(n, b, kind);
    if (kind.clamps)
        values = kind.is_half ? pair_widen(near) : pair_min(n->values, b->limit);
    r.signs = n->words;
    r.saturated = kind.is_half ? pair_mark_above(n->magnitude, b->largest)
                               : pair_mark_floats_above(n->values, b->limit);
    r.magic = pair_magic(pair_octave(near, b), b, kind);
    if (kind.quotient == QUOTIENT_POWER)
        r.sum = pair_add(values, r.magic);
    else if (!kind.has_rest)
        r.sum = pair_mul_add(values, b->inverse, r.magic);
    else
        r.sum = pair_add(pair_mul_add(values, b->inverse, pair_mul(values, b->rest)), r.magic);
    return r;
}

/* Quantise a vector. */
static inline __attribute__((always_inline))
pair_codes pair_step(const quantise_input *in, size_t at, const pair_block *b, pair_kind kind,
                     pair_sums *s)
{
    const pair_input n = pair_load(in, at, kind);
    const pair_rounded r = pair_round(&n, b, kind);
    pair_values y = pair_sub(r.sum, r.magic);
    pair_values error;
    pair_codes c = { .values = n.words, .signs = r.signs, .saturated = r.saturated };

    if (kind.quotient != QUOTIENT_POWER)
        y = pair_mul(y, b->scale);
    if (kind.f.is_nvfp4)
        y = pair_mul(y, pair_set(in->tensor_scale));
    error = pair_sub(y, n.values);
    c.codes = pair_join_words(pair_bits(r.sum.low), pair_bits(r.sum.high));
    c.errors = PAIR_OP(packs_epi32)(pair_bits(error.low), pair_bits(error.high));
    pair_add_squares(&s->errors, error);
    pair_add_squares(&s->values, n.values);
    if (kind.finds_largest)
        s->largest = PAIR_OP(max_ps)(s->largest, PAIR_OP(max_ps)(pair_magnitude(error.low),
                                                                 pair_magnitude(error.high)));
    return c;
}

/* Count the codes of two vectors, and return them with their signs, as bytes. */
static inline __attribute__((always_inline))
pair_words pair_count_codes(const pair_codes *a, const pair_codes *b, pair_kind kind,
                            pair_sums *s)
{
    const __m128i order_of_lane = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13,
                                                15);
    const pair_words order = pair_repeat(order_of_lane);
    const pair_words codes = PAIR_OP(shuffle_epi8)(PAIR_OP(packus_epi16)(a->codes, b->codes),
                                                   order);
    const pair_marks exact = pair_mark_zeros(PAIR_OP(packs_epi16)(a->errors, b->errors));
    const pair_marks is_zero = pair_mark_zeros(codes);
    pair_words sign = PAIR_OP(packs_epi16)(a->signs, b->signs);

    pair_count_marks(&s->exact, exact);
    pair_count_marks(&s->underflowed, pair_only_first(is_zero, exact));
    if (kind.f.is_nvfp4) {                      /* only values of 0 have code 0 without an error */
        const pair_marks no_sign = pair_both(exact, is_zero);

        s->minus_zeros += pair_count_high_bits(PAIR_OP(packs_epi16)(a->values, b->values),
                                               no_sign);
        sign = pair_clear(sign, no_sign);
    }
    if (kind.counts_saturated)
        pair_count_marks(&s->saturated, pair_join_marks(a->saturated, b->saturated));
    if (kind.f.kind == CODE_E4M3)
        return pair_or_and(codes, sign, PAIR_OP(set1_epi8)(-128));
    return pair_or_and(codes, PAIR_OP(srli_epi16)(sign, 4), PAIR_OP(set1_epi8)(8));
}

/* Store codes that pair_count_codes returned. */
static inline __attribute__((always_inline))
void pair_store(pair_words first, pair_words second, code_kind kind, uint8_t *codes)
{
    const pair_words pairs = pair_set16(0x1001);

    if (kind == CODE_E4M3) {
        pair_store_bytes(codes, pair_order_bytes(first));
        pair_store_bytes(codes + 2 * PAIRS, pair_order_bytes(second));
        return;
    }
    pair_store_bytes(codes, pair_order_nibbles(PAIR_OP(packus_epi16)(
        PAIR_OP(maddubs_epi16)(first, pairs), PAIR_OP(maddubs_epi16)(second, pairs))));
}

/* The chunk with the largest error is remembered; find_place looks for the column. */
static inline __attribute__((always_inline))
void pair_note_largest(progress *p, size_t col, pair_floats largest)
{
    float lanes[PAIRS / 2];

    if (!pair_any_above(largest, PAIR_OP(set1_ps)(p->sums->max_error)))
        return;
    PAIR_OP(storeu_ps)(lanes, largest);
    for (int i = 0; i < PAIRS / 2; i++)
        p->sums->max_error = lanes[i] > p->sums->max_error ? lanes[i] : p->sums->max_error;
    p->sums->max_row = p->row;
    p->sums->max_col = col;
    p->has_open_place = 1;
}

/* Quantise two vectors from column `col` on. `block` is theirs if blocks are as long as a chunk. */
static inline __attribute__((always_inline))
pair_words pair_quantise_two(const progress *p, size_t col, pair_block block, pair_kind kind,
                             pair_sums *s)
{
    const form f = kind.f;
    const quantise_input *const in = p->in;
    const size_t at = p->row * in->pitch + col;
    pair_codes a;
    pair_codes b;

    if (f.width < CHUNK)
        block = pair_block_of(p, block_at(in, col, f), kind);
    a = pair_step(in, at, &block, kind, s);
    if (f.width <= PAIRS)
        block = pair_block_of(p, block_at(in, col + PAIRS, f), kind);
    b = pair_step(in, at + PAIRS, &block, kind, s);
    return pair_count_codes(&a, &b, kind, s);
}

/* Quantise one chunk. */
static inline __attribute__((always_inline))
void pair_quantise_chunk(progress *p, size_t col, pair_kind kind, pair_sums *s, uint8_t *codes)
{
    const form f = kind.f;
    const pair_block block = pair_block_of(p, block_at(p->in, col, f), kind);

    s->errors = pair_no_squares();
    s->values = pair_no_squares();
    s->largest = PAIR_OP(setzero_ps)();
    for (size_t at = 0; at < CHUNK; at += 4 * PAIRS) {
        pair_words bytes[2];

        PAIR_UNROLL
        for (size_t half = 0; half < 2; half++)
            bytes[half] = pair_quantise_two(p, col + at + half * 2 * PAIRS, block, kind, s);
        pair_store(bytes[0], bytes[1], f.kind, codes + (f.kind == CODE_E2M1 ? at / 2 : at));
    }
    pair_add_sums(p->errors, s->errors);
    pair_add_sums(p->values, s->values);
    if (kind.finds_largest)
        pair_note_largest(p, col, s->largest);
}

/* ---- the way of a chunk ---- */

/* For a chunk of one block of E4M3. A lane is one of the integers from 1 to 15; adding 16 does not
 * change how they round. */
static __attribute__((noinline))
void pair_find_way(const quantise_input *in, size_t block, form f, chunk_way *way)
{
    const __m256 odd = _mm256_setr_ps(1, 3, 5, 7, 9, 11, 13, 15);
    const __m256 rounds_up = f32_of(_mm256_setr_epi32(0, -1, 0, -1, 0, -1, 0, -1));
    const product_factors a = product_inverse(_mm256_set1_ps(in->divisor[block]));
    __m256 differ;

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
    const __m256 factor = f32_of(_mm256_add_epi32(power, set32(127 << 23)));

    way->first = block;
    way->end = block + CHUNK_WAY_BLOCKS;
    way->quotient = is_known ? QUOTIENT_NEAR : QUOTIENT_DIVIDE;
    _mm256_storeu_ps(way->inverse, _mm256_mul_ps(factor, f32_of(
        _mm256_permutevar8x32_epi32(load256(p->known.inverse), which))));
    if (p->known.needs_rest)
        _mm256_storeu_ps(way->rest, _mm256_mul_ps(factor, f32_of(
            _mm256_permutevar8x32_epi32(load256(p->known.rest), which))));
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
    if (p->in->values != NULL)
        return QUOTIENT_DIVIDE;
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
    pair_sums s = { .exact = pair_no_count(), .underflowed = pair_no_count(),
                    .saturated = pair_no_count() };
    const size_t first = col;

    for (; col < end && pair_way(p, col, kind.f) == kind.quotient; col += CHUNK)
        pair_quantise_chunk(p, col, kind, &s, codes + (kind.f.kind == CODE_E2M1 ? col / 2 : col));
    p->sums->rounded += col - first - pair_total(s.exact);
    p->sums->underflowed += pair_total(s.underflowed);
    if (kind.counts_saturated)
        p->sums->saturated += pair_total(s.saturated);
    p->sums->dropped_signs += s.minus_zeros;
    return col;
}

/* Quantise chunks of BF16 values whose quotients need a division. */
static __attribute__((noinline))
size_t pair_divide_run(progress *p, size_t col, size_t end, form f, uint8_t *codes)
{
    if (f.is_nvfp4)
        return pair_quantise_run(p, col, end, (pair_kind){
            { CODE_E2M1, SMALL_E2M1, 16, 1 }, 1, QUOTIENT_DIVIDE, 0, 1, 1, 1 }, codes);
    return pair_quantise_run(p, col, end, (pair_kind){
        { CODE_E4M3, SMALL_E4M3, CHUNK, 0 }, 1, QUOTIENT_DIVIDE, 0, 1, 1, 1 }, codes);
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
        if (kind.quotient == QUOTIENT_NEAR && col < stop)
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

static inline __attribute__((always_inline))
size_t pair_choose_clamps(progress *p, pair_kind kind, uint8_t *codes)
{
    kind.clamps = 1;
    if (p->clamps)
        return pair_choose(p, kind, codes);
    kind.clamps = 0;
    if (kind.f.is_nvfp4 || p->saturates)
        return pair_choose(p, kind, codes);
    kind.counts_saturated = 0;
    return pair_choose(p, kind, codes);
}

static inline __attribute__((always_inline))
size_t pair_choose_powers(progress *p, form f, int is_half, uint8_t *codes)
{
    if (p->saturates)
        return pair_choose(p, (pair_kind){ f, is_half, QUOTIENT_POWER, 0, 1, 1, 1 }, codes);
    return pair_choose(p, (pair_kind){ f, is_half, QUOTIENT_POWER, 0, 0, 0, 1 }, codes);
}

/* Quantise the whole chunks of a row, if they are of such a kind. Returns the column after them. */
static inline __attribute__((always_inline))
size_t quantise_whole_chunks(progress *p, form f, uint8_t *codes)
{
    const int is_half = p->in->values == NULL;

    if (p->is_wide || (!p->has_powers && (f.width == 32 || !p->has_safe_divisors)))
        return 0;                           /* no rule has other divisors with a width of 32 */
    if (p->has_powers && is_half)
        return pair_choose_powers(p, f, 1, codes);
    if (p->has_powers)
        return pair_choose_powers(p, f, 0, codes);
    if (!is_half)
        return pair_choose(p, (pair_kind){ f, 0, QUOTIENT_DIVIDE, 0, 1, 1, 1 }, codes);
    if (f.is_nvfp4 && !p->known.needs_rest)
        return pair_choose_clamps(p, (pair_kind){ f, 1, QUOTIENT_NEAR, 0, 0, 1, 1 }, codes);
    return pair_choose_clamps(p, (pair_kind){ f, 1, QUOTIENT_NEAR, 1, 0, 1, 1 }, codes);
}

#endif
