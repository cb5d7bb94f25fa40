/*
 * avx512_quantise.h: AVX-512 code for one whole chunk, for quantise_rows.c. Returns the same bits
 * as the loops there, which are easier to read, in fewer instructions.
 */
#ifndef CKPT_KERNELS_AVX512_QUANTISE_H
#define CKPT_KERNELS_AVX512_QUANTISE_H

#include <immintrin.h>

#include "quantise_chunk.h"
#include "quantise_products.h"

/* ---- maxima ---- */

/* In each 128-bit lane, reduce four elements of a and of b to two maxima each: a, b, a, b. */
static inline __m512i fold_maxima(__m512i a, __m512i b)
{
    return _mm512_max_epu32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

/* Constants for which the compiler specialises. */
typedef struct {
    size_t group;           /* 16 or 32 elements */
    int is_half;            /* BF16, not F32 */
} amax_kind;

/* Reduce the magnitudes of a group, as bits, to 16 candidates. Those of BF16 are in the low half of
 * a lane; 32 of them are read as 16 pairs, of which the larger one is taken. */
static inline __attribute__((always_inline))
__m512i group_lanes(const char *src, amax_kind kind)
{
    const __m512i magnitude = _mm512_set1_epi32(kind.is_half ? 0x7FFF : 0x7FFFFFFF);
    __m512i first;
    __m512i second;

    if (kind.is_half && kind.group == 16)
        return _mm512_and_si512(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)src)),
                                magnitude);
    first = _mm512_loadu_si512(src);
    if (kind.group == 16)
        return _mm512_and_si512(first, magnitude);
    second = kind.is_half ? _mm512_srli_epi32(first, 16) : _mm512_loadu_si512(src + 64);
    return _mm512_max_epu32(_mm512_and_si512(first, magnitude),
                            _mm512_and_si512(second, magnitude));
}

/*
 * The maxima of 16 groups, four groups per register. Two folds within 128-bit lanes leave one
 * candidate of each of the four groups in every lane; then the lanes of the four registers are
 * reduced together.
 */
static inline __attribute__((always_inline))
void groups16_amax(const void *src, amax_kind kind, float *amax)
{
    const size_t group_bytes = kind.group * (kind.is_half ? 2 : 4);
    __m512i four[4];
    __m512i ab;
    __m512i cd;
    __m512i all;
    __mmask16 odd;

    for (size_t r = 0; r < 4; r++) {
        const char *from = (const char *)src + r * 4 * group_bytes;

        four[r] = fold_maxima(fold_maxima(group_lanes(from, kind),
                                          group_lanes(from + 2 * group_bytes, kind)),
                              fold_maxima(group_lanes(from + group_bytes, kind),
                                          group_lanes(from + 3 * group_bytes, kind)));
    }
    ab = _mm512_max_epu32(_mm512_shuffle_i32x4(four[0], four[1], 0x88),
                          _mm512_shuffle_i32x4(four[0], four[1], 0xDD));
    cd = _mm512_max_epu32(_mm512_shuffle_i32x4(four[2], four[3], 0x88),
                          _mm512_shuffle_i32x4(four[2], four[3], 0xDD));
    all = _mm512_max_epu32(_mm512_shuffle_i32x4(ab, cd, 0x88),
                           _mm512_shuffle_i32x4(ab, cd, 0xDD));
    if (kind.is_half)
        all = _mm512_slli_epi32(all, 16);
    odd = _mm512_cmpgt_epu32_mask(all, _mm512_set1_epi32(F32_INF_BITS));
    _mm512_storeu_si512(amax, _mm512_mask_mov_epi32(all, odd, _mm512_set1_epi32(F32_NAN_BITS)));
}

/* The largest magnitude of BF16 values, as bits; cols is a multiple of 32. */
static inline uint32_t halves_amax(const uint16_t *src, size_t rows, size_t cols, size_t pitch)
{
    const __m512i magnitude = _mm512_set1_epi16(0x7FFF);
    __m512i largest = _mm512_setzero_si512();

    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c += 32)
            largest = _mm512_max_epu16(largest, _mm512_and_si512(
                _mm512_loadu_si512(src + r * pitch + c), magnitude));
    largest = _mm512_max_epu32(_mm512_srli_epi32(largest, 16),
                               _mm512_and_si512(largest, _mm512_set1_epi32(0xFFFF)));
    return _mm512_reduce_max_epu32(largest);
}

/* ---- codes ---- */

enum { FUSES_PRODUCTS = 0 };    /* see products_differ */

/* Immediates of vrangeps: the smaller or larger magnitude with the sign of the first operand, or
 * the larger magnitude without a sign. */
enum { RANGE_LEAST = 0x2, RANGE_LARGEST = 0x3, RANGE_LARGEST_MAGNITUDE = 0xB };

/* Further constants for which the compiler specialises. */
typedef struct {
    int is_half;            /* the values are BF16 */
    chunk_quotient quotient;
    int clamps;             /* some quotient is above the largest code */
    int finds_largest;      /* the largest error is looked for */
} chunk_kind;

/* One chunk. */
typedef struct {
    const quantise_input *in;
    size_t first;           /* index of its first value */
    size_t block;           /* the block of its first column */
    form f;
    chunk_kind kind;
    const chunk_way *way;
} chunk_task;

/*
 * Results for 64 columns. chunk_round returns an integer whose lowest byte is the code plus a
 * constant of the block (chunk_surplus).
 */
typedef struct {
    __m512i codes;          /* these lowest bytes, in the order of lanes, as all members */
    __m512i signs;          /* the top bytes of values or, for NVFP4, quotients */
    __mmask64 rounded;
    __mmask64 saturated;
    __mmask64 zero;         /* codes with magnitude 0 */
} chunk_codes;

/* What a chunk loses, by columns modulo 16. */
typedef struct {
    __m512 errors;          /* sums of squares */
    __m512 values;
    __m512 largest;         /* magnitude of an error */
} chunk_loss;

/* Constants that should stay in registers. Compilers would create constants again for each use, and
 * masks in wider registers than needed; passing them through an asm prevents that. */
typedef struct {
    __m512i low_bytes;      /* indices of the lowest byte of 16 lanes, repeated four times */
    __m512i high_bytes;
    __m512i widen;          /* bytes of BF16 values in 128-bit lanes */
    __mmask64 quarter[4];
} chunk_constants;

static inline __m512i chunk_set32(uint32_t value)
{
    return _mm512_set1_epi32((int)value);
}

static inline __m512 chunk_f32(__m512i bits)
{
    return _mm512_castsi512_ps(bits);
}

static inline chunk_constants make_chunk_constants(void)
{
    const __m128i lanes = _mm_setr_epi8(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56,
                                        60);
    const __m128i first = _mm_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7);
    const __m256i last = _mm256_broadcastsi128_si256(_mm_add_epi8(first, _mm_set1_epi64x(
        0x0808000008080000)));
    chunk_constants c = { _mm512_broadcast_i32x4(lanes),
                          _mm512_broadcast_i32x4(_mm_add_epi8(lanes, _mm_set1_epi8(3))),
                          _mm512_inserti64x4(_mm512_broadcast_i32x4(first), last, 1),
                          { ~0ull, 0xFFFFull << 16, 0xFFFFull << 32, 0xFFFFull << 48 } };

    for (int i = 1; i < 4; i++)
        __asm__("" : "+Yk"(c.quarter[i]));
    return c;
}

/*
 * round_to_small (quantise_rows.c) without removing the sign: octave and sum have the sign of q.
 * The magic number octave * 2^shift is a power of two, so the lowest byte of the sum is the number
 * of steps, and neither product rounds. `least` is the smallest normal number. For a divisor 2^k no
 * division is needed: q is then the value, and its steps are those of the quotient times 2^k.
 */
static inline __attribute__((always_inline))
__m512 chunk_round(__m512 q, __m512 least, form f, __m512i *code)
{
    const unsigned shift = 23 - f.small.mantissa_bits;
    const __m512 step = _mm512_set1_ps((float)(1u << shift));
    const __m512 exponent = chunk_f32(_mm512_and_si512(_mm512_castps_si512(q),
                                                       chunk_set32(0xFF800000u)));
    const __m512 octave = _mm512_range_ps(exponent, least, RANGE_LARGEST);
    const __m512 sum = _mm512_fmadd_ps(octave, step, q);

    *code = _mm512_add_epi32(_mm512_castps_si512(sum),
                             _mm512_srli_epi32(_mm512_castps_si512(octave), shift));
    return _mm512_fnmadd_ps(octave, step, sum);
}

/*
 * BF16 values are widened by one shuffle within 128-bit lanes, so that vectors have the columns
 * 0-3, 8-11, 4-7 and 12-15 of 16. Exchanging the middle ones restores the order, here of numbers,
 * in chunk_store of bytes.
 */
static inline __attribute__((always_inline))
__m512 chunk_in_order(__m512 lanes, int is_half)
{
    return is_half ? _mm512_shuffle_f32x4(lanes, lanes, _MM_SHUFFLE(3, 1, 2, 0)) : lanes;
}

/* Add F32 sums of columns that are 8 apart, and these to F64 lanes. */
static inline void chunk_add_sums(double lanes[SUM_LANES], __m512 sums)
{
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sums),
                                       _mm512_extractf32x8_ps(sums, 1));

    _mm512_store_pd(lanes, _mm512_add_pd(_mm512_load_pd(lanes), _mm512_cvtps_pd(eight)));
}

/* 1 / divisor, and what is missing. */
typedef struct {
    __m512 near;
    __m512 rest;
} chunk_inverse;

/* For E4M3 with the rest, because most blocks would be refused without it: their largest value is
 * that times the divisor whose code is the largest. */
static inline __attribute__((always_inline))
__m512 chunk_multiply(__m512 x, const chunk_inverse *inverse, form f)
{
    if (f.kind == CODE_E4M3)
        return _mm512_fmadd_ps(x, inverse->near, _mm512_mul_ps(x, inverse->rest));
    return _mm512_mul_ps(x, inverse->near);
}

/* The number to round (the value or its quotient), and the range of the small float in its unit. */
typedef struct {
    __m512 q;
    __m512 least;
    __m512 largest;
} chunk_operand;

/* NVFP4 has no sign for quotients of 0. Where none but 0 has such, chunk_store leaves out the signs
 * of values that are 0. */
static inline __attribute__((always_inline))
int drops_signs(const chunk_task *t)
{
    return t->f.is_nvfp4 && t->kind.quotient == QUOTIENT_DIVIDE;
}

static inline __attribute__((always_inline))
chunk_operand chunk_divide(const chunk_task *t, __m512 x, size_t block)
{
    const __m512 divisor = _mm512_set1_ps(f32_load(t->in->divisor, block));
    chunk_operand o = { x, chunk_f32(chunk_set32(t->f.small.least << 23)),
                        _mm512_set1_ps(t->f.small.largest) };

    if (t->kind.quotient == QUOTIENT_DIVIDE) {
        o.q = _mm512_div_ps(x, divisor);
    } else if (t->kind.quotient == QUOTIENT_NEAR) {
        const chunk_inverse inverse = { _mm512_set1_ps(t->way->inverse[block - t->way->first]),
                                        _mm512_set1_ps(t->way->rest[block - t->way->first]) };

        o.q = chunk_multiply(x, &inverse, t->f);
    } else {
        o.least = _mm512_mul_ps(o.least, divisor);
        o.largest = _mm512_mul_ps(o.largest, divisor);
    }
    if (drops_signs(t))     /* turns -0 into +0 and changes nothing else */
        o.q = _mm512_add_ps(o.q, _mm512_setzero_ps());
    return o;
}

/* 16 values from column `at` of the chunk on. */
static inline __attribute__((always_inline))
__m512 chunk_load(const chunk_task *t, size_t at, const chunk_constants *constants)
{
    if (!t->kind.is_half)
        return _mm512_loadu_ps(t->in->values + t->first + at);
    return chunk_f32(_mm512_shuffle_epi8(_mm512_broadcast_i64x4(
        _mm256_loadu_si256((const void *)(t->in->halves + t->first + at))), constants->widen));
}

static inline __attribute__((always_inline))
void chunk_add_loss(chunk_loss *loss, chunk_kind kind, __m512 x, __m512 error)
{
    loss->errors = _mm512_fmadd_ps(error, error, loss->errors);
    loss->values = _mm512_fmadd_ps(x, x, loss->values);
    if (kind.finds_largest)
        loss->largest = _mm512_range_ps(loss->largest, error, RANGE_LARGEST_MAGNITUDE);
}

/* Quantise 64 columns from column `at` of the chunk on. */
static inline __attribute__((always_inline))
chunk_codes chunk_step(const chunk_task *t, size_t at, const chunk_constants *constants,
                       chunk_loss *loss)
{
    __mmask16 rounded[4];
    __mmask16 saturated[4];
    chunk_codes c = { _mm512_setzero_si512(), _mm512_setzero_si512(), 0, 0, 0 };

    for (unsigned v = 0; v < 4; v++) {
        const size_t block = t->block + (at + v * 16) / t->f.width;
        const __m512 x = chunk_load(t, at + v * 16, constants);
        const chunk_operand o = chunk_divide(t, x, block);
        const __m512 q = t->kind.clamps ? _mm512_range_ps(o.q, o.largest, RANGE_LEAST) : o.q;
        const __m512i sign = _mm512_castps_si512(drops_signs(t) ? o.q : x);
        __m512i code;
        __m512 y = chunk_round(q, o.least, t->f, &code);
        __m512 e;

        if (t->kind.quotient != QUOTIENT_POWER)
            y = _mm512_mul_ps(y, _mm512_set1_ps(f32_load(t->in->scale, block)));
        if (t->f.is_nvfp4)
            y = _mm512_mul_ps(y, _mm512_set1_ps(t->in->tensor_scale));
        e = _mm512_sub_ps(y, x);
        chunk_add_loss(loss, t->kind, x, e);
        rounded[v] = _mm512_cmp_ps_mask(e, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        saturated[v] = t->kind.clamps ? _mm512_cmp_ps_mask(q, o.q, _CMP_NEQ_UQ) : 0;
        if (v == 0) {
            c.codes = _mm512_permutexvar_epi8(constants->low_bytes, code);
            c.signs = _mm512_permutexvar_epi8(constants->high_bytes, sign);
        } else {
            c.codes = _mm512_mask_permutexvar_epi8(c.codes, constants->quarter[v],
                                                   constants->low_bytes, code);
            c.signs = _mm512_mask_permutexvar_epi8(c.signs, constants->quarter[v],
                                                   constants->high_bytes, sign);
        }
    }
    c.rounded = _mm512_kunpackd(_mm512_kunpackw(rounded[3], rounded[2]),
                                _mm512_kunpackw(rounded[1], rounded[0]));
    c.saturated = _mm512_kunpackd(_mm512_kunpackw(saturated[3], saturated[2]),
                                  _mm512_kunpackw(saturated[1], saturated[0]));
    return c;
}

/* The constant to subtract from chunk_codes.codes in this block. */
static inline __attribute__((always_inline))
char chunk_surplus(const chunk_task *t, size_t block)
{
    const uint32_t power = t->kind.quotient == QUOTIENT_POWER
                               ? f32_bits(t->in->divisor[block]) >> 23 : 127;

    return (char)(uint8_t)((t->f.small.least + power - 127) << t->f.small.mantissa_bits);
}

/* Store 64 codes: 8 bits with the sign in the top bit, or 4 bits, two per byte. */
static inline __attribute__((always_inline))
void chunk_store(const chunk_task *t, size_t at, chunk_codes *c, uint8_t *codes)
{
    const size_t block = t->block + at / t->f.width;
    __m512i surplus = _mm512_set1_epi8(chunk_surplus(t, block));
    __m512i magnitude;
    __m512i signed_codes;

    if (t->kind.quotient == QUOTIENT_POWER && t->f.width == 32)
        surplus = _mm512_inserti64x4(surplus, _mm256_set1_epi8(chunk_surplus(t, block + 1)), 1);
    magnitude = _mm512_sub_epi8(c->codes, surplus);
    c->zero = _mm512_testn_epi8_mask(magnitude, magnitude);
    if (t->f.kind == CODE_E4M3)
        signed_codes = _mm512_ternarylogic_epi32(magnitude, c->signs,
                                                 _mm512_set1_epi8((char)-128), 0xF8);
    else
        signed_codes = _mm512_ternarylogic_epi32(magnitude, _mm512_srli_epi16(c->signs, 4),
                                                 _mm512_set1_epi8(8), 0xF8);
    if (t->f.is_nvfp4 && !drops_signs(t))
        signed_codes = _mm512_maskz_mov_epi8(~c->zero | c->rounded, signed_codes);
    if (t->kind.is_half)
        signed_codes = _mm512_shuffle_epi32(signed_codes, _MM_SHUFFLE(3, 1, 2, 0));
    if (t->f.kind == CODE_E4M3)
        _mm512_storeu_si512(codes + at, signed_codes);
    else
        _mm256_storeu_si256((__m256i *)(codes + at / 2), _mm512_cvtepi16_epi8(
            _mm512_or_si512(signed_codes, _mm512_srli_epi16(signed_codes, 4))));
}

static __attribute__((noinline))
uint64_t chunk_count_minus_zeros(const progress *p, size_t col)
{
    const size_t at = p->row * p->in->pitch + col;
    const __m512i minus_zero = _mm512_set1_epi16((short)-0x8000);
    const uint16_t *halves = p->in->halves + at;

    if (p->in->values != NULL)
        return count_minus_zeros(p->in->values + at, 64);
    return (uint64_t)_mm_popcnt_u64(_mm512_kunpackd(
        _mm512_cmpeq_epi16_mask(_mm512_loadu_si512(halves), minus_zero),
        _mm512_cmpeq_epi16_mask(_mm512_loadu_si512(halves + 32), minus_zero)));
}

/* Only 0 and -0 have code 0 without an error; they are rare, so search for -0 only then. */
static inline __attribute__((always_inline))
void chunk_count(progress *p, const chunk_codes *c, size_t col, form f)
{
    quantise_sums *const sums = p->sums;

    sums->rounded += (uint64_t)_mm_popcnt_u64(c->rounded);
    sums->saturated += (uint64_t)_mm_popcnt_u64(c->saturated);
    sums->underflowed += (uint64_t)_mm_popcnt_u64(c->zero & c->rounded);
    if (f.is_nvfp4 && (c->zero & ~c->rounded) != 0)
        sums->dropped_signs += chunk_count_minus_zeros(p, col);
}

static inline __attribute__((always_inline))
void chunk_quantise(progress *p, const chunk_task *t, const chunk_constants *constants, size_t col,
                    uint8_t *codes)
{
    chunk_loss loss = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };
    __m512i largest;

    for (size_t at = 0; at < CHUNK; at += 64) {
        chunk_codes c = chunk_step(t, at, constants, &loss);

        chunk_store(t, at, &c, codes);
        chunk_count(p, &c, col + at, t->f);
    }
    chunk_add_sums(p->errors, chunk_in_order(loss.errors, t->kind.is_half));
    chunk_add_sums(p->values, chunk_in_order(loss.values, t->kind.is_half));
    if (!t->kind.finds_largest)
        return;
    largest = _mm512_castps_si512(loss.largest);
    if (_mm512_cmp_epi32_mask(largest, chunk_set32(f32_bits(p->sums->max_error)),
                              _MM_CMPINT_NLE) != 0) {
        p->sums->max_error = f32_from_bits((uint32_t)_mm512_reduce_max_epi32(largest));
        p->sums->max_row = p->row;
        p->sums->max_col = col;
        p->has_open_place = 1;
    }
}

/* Quantise chunks of the row from column `col` on, as many as go the same way. Returns the column
 * after them. Specialised for `kind`. */
static inline __attribute__((always_inline))
size_t chunk_quantise_run(progress *p, chunk_kind kind, size_t col, form f, uint8_t *codes)
{
    const quantise_input *in = p->in;
    const chunk_constants constants = make_chunk_constants();
    chunk_task t = { .in = in, .first = p->row * in->pitch + col, .block = block_at(in, col, f),
                     .f = f, .kind = kind, .way = &p->way };

    do {
        chunk_quantise(p, &t, &constants, col, codes);
        codes += f.kind == CODE_E2M1 ? CHUNK / 2 : CHUNK;
        col += CHUNK;
        t.first += CHUNK;
        t.block = block_at(in, col, f);
    } while (col + CHUNK <= in->cols && t.block + CHUNK / f.width <= p->way.end);
    return col;
}

/* ---- the kind of a chunk ---- */

/*
 * 1 if products of BF16 values and the inverses of the divisors have the codes of the quotients.
 * Products and quotients, as rounded, are each at most 2^-22 away from the exact quotient. So they
 * can differ only if that is as close to a number between two codes or to the largest code, or, in
 * other words, if the value is as close to such a number times the divisor. These numbers are odd
 * integers of mantissa_bits + 2 bits times powers of two. Find the BF16 value that is close to each
 * times the divisor, if there is one: the low half of the bits says so; and compare. Powers of two
 * times that value give the same result. Divisors of at most 2^10 make no quotient 0.
 */
static inline __attribute__((always_inline))
int chunk_may_multiply(__m512 divisor, const chunk_inverse *inverse, __mmask16 all, form f)
{
    const __m512i from_least = _mm512_sub_epi32(_mm512_castps_si512(divisor),
                                                chunk_set32(32 << 23));
    __mmask16 refused = _mm512_mask_cmpgt_epu32_mask(all, from_least, chunk_set32(105 << 23));

    for (unsigned odd = 1; odd < 4u << f.small.mantissa_bits; odd += 2) {
        const __m512 limit = _mm512_mul_ps(divisor, _mm512_set1_ps((float)odd));
        const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(limit), chunk_set32(8));
        const __mmask16 near = _mm512_mask_testn_epi32_mask(all, bits, chunk_set32(0xFFF0));
        const __m512 value = chunk_f32(_mm512_and_si512(bits, chunk_set32(0xFFFF0000u)));

        if (near != 0)
            refused |= _mm512_mask_cmp_ps_mask(near, chunk_multiply(value, inverse, f),
                                               _mm512_div_ps(value, divisor), _CMP_NEQ_UQ);
    }
    return refused == 0;
}

/* The same for NVFP4, by what is known of the significands of the scales; stores the inverses. */
static inline __attribute__((always_inline))
int chunk_knows_divisors(const progress *p, size_t block, __mmask16 all, chunk_way *way)
{
    const __m512i which = _mm512_srli_epi32(_mm512_maskz_loadu_epi32(all, p->in->scale + block),
                                            20);
    const __m512i known = _mm512_broadcast_i64x4(load256(p->known.divisor));
    const __m512i inverse = _mm512_broadcast_i64x4(load256(p->known.inverse));
    const __m512i power = _mm512_sub_epi32(_mm512_permutexvar_epi32(which, known),
                                           _mm512_maskz_loadu_epi32(all, p->in->divisor + block));

    _mm512_storeu_si512(way->inverse,
                        _mm512_add_epi32(_mm512_permutexvar_epi32(which, inverse), power));
    return _mm512_mask_test_epi32_mask(all, power, chunk_set32(0x7FFFFF)) == 0;
}

/* Choose for as many blocks as fit. Divisors that are 2^k need no division, in a range where all
 * magic numbers and products of codes are finite and products of the smallest code are normal. */
static inline __attribute__((always_inline))
void chunk_find_way(progress *p, size_t block, form f)
{
    const quantise_input *const in = p->in;
    chunk_way *const way = &p->way;
    const size_t left = (in->cols + in->block_cols - 1) / in->block_cols - block;
    const __mmask16 all = (__mmask16)((1u << size_min(left, CHUNK_WAY_BLOCKS)) - 1);
    const __m512i divisor = _mm512_maskz_loadu_epi32(all, in->divisor + block);
    const __mmask16 is_power = _mm512_mask_testn_epi32_mask(all, divisor, chunk_set32(0x7FFFFF));
    const __mmask16 is_safe = _mm512_cmple_epu32_mask(
        _mm512_sub_epi32(divisor, chunk_set32(32 << 23)), chunk_set32(188 << 23));
    chunk_inverse inverse;

    way->first = block;
    way->end = block + size_min(left, CHUNK_WAY_BLOCKS);
    way->quotient = QUOTIENT_DIVIDE;
    if (!f.is_nvfp4 && (is_power & is_safe) == all) {
        way->quotient = QUOTIENT_POWER;
        return;
    }
    if (f.is_nvfp4) {
        if (in->values == NULL && p->has_safe_divisors && chunk_knows_divisors(p, block, all, way))
            way->quotient = QUOTIENT_NEAR;
        return;
    }
    inverse.near = _mm512_div_ps(_mm512_set1_ps(1.0f), chunk_f32(divisor));
    inverse.rest = _mm512_mul_ps(_mm512_fnmadd_ps(inverse.near, chunk_f32(divisor),
                                                  _mm512_set1_ps(1.0f)), inverse.near);
    if (in->values == NULL && chunk_may_multiply(chunk_f32(divisor), &inverse, all, f)) {
        way->quotient = QUOTIENT_NEAR;
        _mm512_storeu_ps(way->inverse, inverse.near);
        _mm512_storeu_ps(way->rest, inverse.rest);
    }
}

static inline __attribute__((always_inline))
size_t chunk_choose(progress *p, chunk_kind kind, size_t col, form f, uint8_t *codes)
{
    kind.clamps = 1;
    if (f.is_nvfp4 || p->saturates)
        return chunk_quantise_run(p, kind, col, f, codes);
    kind.clamps = 0;
    return chunk_quantise_run(p, kind, col, f, codes);
}

static inline __attribute__((always_inline))
size_t chunk_choose_half(progress *p, chunk_quotient quotient, size_t col, form f, uint8_t *codes)
{
    if (p->finds_largest)
        return chunk_choose(p, (chunk_kind){ 1, quotient, 0, 1 }, col, f, codes);
    return chunk_choose(p, (chunk_kind){ 1, quotient, 0, 0 }, col, f, codes);
}

/* Quantise one or more whole chunks of a row; `col`, the first column, is a multiple of CHUNK.
 * Returns the column after them. */
static inline __attribute__((always_inline))
size_t chunk_quantise_some(progress *p, size_t col, form f, uint8_t *codes)
{
    const size_t block = block_at(p->in, col, f);

    if (block < p->way.first || block + CHUNK / f.width > p->way.end)
        chunk_find_way(p, block, f);
    if (p->in->values == NULL && p->way.quotient == QUOTIENT_NEAR)
        return chunk_choose_half(p, QUOTIENT_NEAR, col, f, codes);
    if (p->in->values == NULL && p->way.quotient == QUOTIENT_POWER)
        return chunk_choose_half(p, QUOTIENT_POWER, col, f, codes);
    if (p->in->values == NULL)
        return chunk_choose_half(p, QUOTIENT_DIVIDE, col, f, codes);
    if (p->way.quotient == QUOTIENT_POWER)
        return chunk_choose(p, (chunk_kind){ 0, QUOTIENT_POWER, 0, 1 }, col, f, codes);
    return chunk_choose(p, (chunk_kind){ 0, QUOTIENT_DIVIDE, 0, 1 }, col, f, codes);
}

/* Quantise the whole chunks of a row, unless their squares need F64, which is rare. Returns the
 * column after them. */
static inline __attribute__((always_inline))
size_t quantise_whole_chunks(progress *p, form f, uint8_t *codes)
{
    size_t col = 0;

    while (!p->is_wide && col + CHUNK <= p->in->cols)
        col = chunk_quantise_some(p, col, f, codes + (f.kind == CODE_E2M1 ? col / 2 : col));
    return col;
}

#endif
