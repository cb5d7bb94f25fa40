/*
 * quantise_rows.c: maxima of groups, scales by rule, codes and their loss.
 *
 * The build compiles this file once per instruction set with -DKERNELS_ISA=scalar|avx2|avx512 and
 * that set's flags. Loops have no branches and a fixed order, so the compiler can vectorise them.
 * All sets return the same bits, because it may neither reorder F32 arithmetic nor fuse it
 * (-ffp-contract=off).
 */
#include "quantise_rows.h"

#include "isa.h"
#include "quantise_chunk.h"
#include "scale_rules.h"
#ifdef __AVX512VBMI__
#include "avx512_pairs.h"
#elif defined(__AVX2__)
#include "avx2_pairs.h"
#endif
#ifdef __AVX2__
#include "quantise_pairs.h"
#include "wide_amax.h"
#endif

/* ---- maxima ---- */

static inline __attribute__((always_inline))
void group_amax(const float *src, size_t group_count, size_t group, float *amax)
{
    for (size_t g = 0; g < group_count; g++) {
        uint32_t largest = 0;

        for (size_t i = 0; i < group; i++) {
            const uint32_t magnitude = f32_bits(f32_load(src, g * group + i)) & ~F32_SIGN_BIT;

            largest = magnitude > largest ? magnitude : largest;
        }
        amax[g] = f32_from_bits(largest > F32_INF_BITS ? F32_NAN_BITS : largest);
    }
}

/* Constant group sizes let the compiler keep a group in registers. */
void ISA_NAME(f32_group_amax)(const float *src, size_t group_count, size_t group, float *amax)
{
#ifdef __AVX2__
    for (; (group == 16 || group == 32) && group_count >= 8; group_count -= 8) {
        if (group == 16)
            floats_groups8_amax(src, 16, amax);
        else
            floats_groups8_amax(src, 32, amax);
        src += 8 * group;
        amax += 8;
    }
#endif
    if (group == 16)
        group_amax(src, group_count, 16, amax);
    else if (group == 32)
        group_amax(src, group_count, 32, amax);
    else
        group_amax(src, group_count, group, amax);
}

/* The magnitude of a BF16 value, and the largest one as F32. */
static inline uint32_t half_magnitude(uint16_t code)
{
    return code & 0x7FFFu;
}

static inline float half_amax(uint32_t largest)
{
    return f32_from_bits(largest > F32_INF_BITS >> 16 ? F32_NAN_BITS : largest << 16);
}

float ISA_NAME(bf16_block_amax)(const uint16_t *src, size_t rows, size_t cols, size_t pitch)
{
    uint32_t largest = 0;

#ifdef __AVX2__
    return half_amax(halves_amax(src, rows, cols, pitch));
#endif
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            const uint32_t magnitude = half_magnitude(src[r * pitch + c]);

            largest = magnitude > largest ? magnitude : largest;
        }
    return half_amax(largest);
}

static inline __attribute__((always_inline))
void half_group_amax(const uint16_t *src, size_t group_count, size_t group, float *amax)
{
    for (size_t g = 0; g < group_count; g++) {
        uint16_t largest = 0;

        for (size_t i = 0; i < group; i++) {
            const uint16_t magnitude = (uint16_t)half_magnitude(src[g * group + i]);

            largest = magnitude > largest ? magnitude : largest;
        }
        amax[g] = half_amax(largest);
    }
}

void ISA_NAME(bf16_group_amax)(const uint16_t *src, size_t group_count, size_t group, float *amax)
{
#ifdef __AVX2__
    for (; (group == 16 || group == 32) && group_count >= 8; group_count -= 8) {
        if (group == 16)
            halves_groups8_amax(src, 16, amax);
        else
            halves_groups8_amax(src, 32, amax);
        src += 8 * group;
        amax += 8;
    }
#endif
    if (group == 16)
        half_group_amax(src, group_count, 16, amax);
    else if (group == 32)
        half_group_amax(src, group_count, 32, amax);
    else
        half_group_amax(src, group_count, group, amax);
}

/* ---- rounding to a small float ---- */

typedef struct {
    uint32_t code;
    float value;
} small_rounded;

/*
 * Round a magnitude (F32 bits, at most f.largest) to nearest even. In one octave the values of the
 * small float are multiples of a step; below its smallest normal number the step stays the same.
 * Adding a power of two whose last mantissa bit is that step makes the F32 addition round to a
 * multiple of it. The low bits of the sum are then the number of steps. An octave has
 * 2^mantissa_bits steps, so rounding up to the next octave gives that octave's first code.
 */
static inline small_rounded round_to_small(uint32_t magnitude, small_float f)
{
    const uint32_t exponent = magnitude & F32_INF_BITS;
    const uint32_t octave = exponent > f.least << 23 ? exponent : f.least << 23;
    const uint32_t magic = octave + ((23 - f.mantissa_bits) << 23);
    const float sum = f32_from_bits(magnitude) + f32_from_bits(magic);
    small_rounded r;

    r.value = sum - f32_from_bits(magic);
    r.code = f32_bits(sum) - magic + (octave >> (23 - f.mantissa_bits)) -
             (f.least << f.mantissa_bits);
    return r;
}

/* ---- scales ---- */

#define FOR_EACH(expression)                                                                       \
    for (size_t i = 0; i < count; i++) {                                                           \
        const float a = amax[i];                                                                   \
                                                                                                   \
        scale[i] = (expression);                                                                   \
    }                                                                                              \
    break

/* The rules in which the divisor is the scale: all but NVFP4 and Q8_0. */
static void plain_scales(scale_rule rule, const float *restrict amax, size_t count,
                         float *restrict scale)
{
    switch (rule) {
    case SCALE_FP8_QUOTIENT:
        FOR_EACH(f32_max(a, FP8_LEAST_QUOTIENT) / 448.0f);
    case SCALE_FP8_PRODUCT:
        FOR_EACH(f32_max(a, FP8_LEAST_PRODUCT) * (1.0f / 448.0f));
    case SCALE_FP8_CEIL:
        FOR_EACH(scale_power(scale_fp8_ceil(a)));
    case SCALE_MXFP8_CEIL:
        FOR_EACH(scale_power(scale_ceil(a * (1.0f / 448.0f))));
    case SCALE_MXFP8_FLOOR:
        FOR_EACH(scale_power(scale_floor(f32_bits(a), 8)));
    case SCALE_FP4_CEIL:
        FOR_EACH(scale_power(scale_fp4_ceil(a)));
    case SCALE_FP4_FLOOR:
        FOR_EACH(scale_power(scale_floor(f32_bits(a), 2)));
    case SCALE_FP4_EVEN:
        FOR_EACH(scale_power(scale_fp4_even(a)));
    case SCALE_NVFP4:
    case SCALE_Q8_0:
        break;
    }
}

/* The E8M0 code is the exponent field of the scale; for the subnormal 2^-127 that is 0, too. */
static void power_codes(const float *restrict scale, size_t count, float *restrict divisor,
                        uint8_t *restrict code)
{
    for (size_t i = 0; i < count; i++) {
        divisor[i] = scale[i];
        code[i] = (uint8_t)(f32_bits(scale[i]) >> 23);
    }
}

static void peak_quotients(const float *restrict amax, const float *restrict divisor, size_t count,
                           float *restrict peak)
{
    for (size_t i = 0; i < count; i++)
        peak[i] = amax[i] / divisor[i];
}

/* Compares numbers >= 0 by their bits, which have the same order. */
static void nvfp4_scales(const float *restrict amax, size_t count, float tensor_scale,
                         const block_scales *out)
{
    float *restrict scale = out->scale;
    float *restrict divisor = out->divisor;
    uint8_t *restrict code = out->code;
    const float unit = 6.0f * tensor_scale;
    const int32_t least = (int32_t)f32_bits(0x1p-9f);
    const int32_t largest = (int32_t)f32_bits(448.0f);

    for (size_t i = 0; i < count; i++) {
        const int32_t quotient = (int32_t)f32_bits(amax[i] / unit);
        const int32_t t = quotient | (-(quotient == 0) & (int32_t)f32_bits(1.0f));
        const int32_t high = t < largest ? t : largest;
        const small_rounded r = round_to_small((uint32_t)(high > least ? high : least),
                                               SMALL_E4M3);

        code[i] = (uint8_t)r.code;
        scale[i] = r.value;
        divisor[i] = r.value * tensor_scale;
    }
}

/* As ggml does, which divides by the F32 scale and stores it as F16. */
static void q8_0_scales(const float *restrict amax, size_t count, float *restrict scale,
                        float *restrict divisor)
{
    for (size_t i = 0; i < count; i++) {
        const float d = amax[i] / 127.0f;
        const float near = d < 65536.0f ? d : 65536.0f;
        const float narrow = round_to_small(f32_bits(near), SMALL_F16).value;

        scale[i] = narrow < 65536.0f ? narrow : f32_from_bits(F32_INF_BITS);
        divisor[i] = d > 0x1p-128f ? d : 1.0f;
    }
}

void ISA_NAME(amax_to_scale)(scale_rule rule, const float *amax, size_t count,
                             float tensor_scale, const block_scales *out)
{
    if (rule == SCALE_NVFP4) {
        nvfp4_scales(amax, count, tensor_scale, out);
    } else if (rule == SCALE_Q8_0) {
        q8_0_scales(amax, count, out->scale, out->divisor);
    } else {
        plain_scales(rule, amax, count, out->scale);
        power_codes(out->scale, count, out->divisor, out->code);
    }
    peak_quotients(amax, out->divisor, count, out->peak);
}

/* ---- codes ---- */

/* Buffers for one chunk. `error` and `tail` are padded with zeros to a multiple of 16. */
typedef struct {
    _Alignas(64) float error[CHUNK];
    _Alignas(64) float tail[CHUNK];     /* copy of the values if they are not a multiple of 16 */
    _Alignas(64) uint32_t code[CHUNK];
    _Alignas(64) uint8_t byte[CHUNK];   /* the codes, one per byte */
    _Alignas(64) uint32_t saturated[CHUNK];     /* NVFP4 only: 1 for each saturated element */
} chunk;

/* Columns of a chunk. */
typedef struct {
    size_t from;
    size_t count;
} span;

/* The factors of one block. */
typedef struct {
    float divisor;
    float scale;
    float tensor_scale;
} factors;

static inline factors factors_of(const quantise_input *in, size_t block)
{
    const factors f = { in->divisor[block], in->scale[block], in->tensor_scale };

    return f;
}

/* Quantise columns of a single block; results have the same indices in the chunk. */
static inline __attribute__((always_inline))
void quantise_run(const float *restrict src, span s, factors b, form f, chunk *restrict c)
{
    const uint32_t largest = f32_bits(f.small.largest);
    const unsigned sign_shift = f.kind == CODE_E4M3 ? 24 : 28;

    for (size_t i = s.from; i < s.from + s.count; i++) {
        const float x = f32_load(src, i);
        const uint32_t q = f32_bits(x / b.divisor);
        const uint32_t magnitude = q & ~F32_SIGN_BIT;
        const small_rounded r = round_to_small(magnitude < largest ? magnitude : largest, f.small);
        const uint32_t sign = f.is_nvfp4 && magnitude == 0 ? 0 : q & F32_SIGN_BIT;
        const float product = f32_from_bits(f32_bits(r.value) | sign) * b.scale;
        const float y = f.is_nvfp4 ? product * b.tensor_scale : product;

        c->code[i] = r.code | sign >> sign_shift;
        c->error[i] = y - x;
        if (f.is_nvfp4)
            c->saturated[i] = (int32_t)magnitude > (int32_t)largest;
    }
}

/*
 * The same for int8. Halves are rounded away from 0: the F32 quotient is below 2^23, so that its
 * fraction is exact, while adding a half to the quotient is not.
 */
static inline __attribute__((always_inline))
void quantise_int8_run(const float *restrict src, span s, factors b, chunk *restrict c)
{
    const float inverse = 1.0f / b.divisor;

    for (size_t i = s.from; i < s.from + s.count; i++) {
        const float x = f32_load(src, i);
        const float q = x * inverse;
        const float magnitude = f32_from_bits(f32_bits(q) & ~F32_SIGN_BIT);
        const float limited = magnitude < 127.0f ? magnitude : 127.0f;
        const int32_t whole = (int32_t)limited;
        const int32_t rounded = whole + (limited - (float)whole >= 0.5f);
        const int32_t code = q < 0 ? -rounded : rounded;

        c->code[i] = (uint32_t)code;
        c->error[i] = (float)code * b.scale - x;
    }
}

/* Nonzero values with nonzero codes that a scale of 0, which is rare, makes 0. */
static inline __attribute__((always_inline))
uint32_t count_lost(const uint32_t *code, size_t count)
{
    uint32_t lost = 0;

    for (size_t i = 0; i < count; i++)
        lost += code[i] != 0;
    return lost;
}

static inline __attribute__((always_inline))
void quantise_int8_chunk(progress *p, const float *src, span columns, form f, chunk *c)
{
    for (size_t at = 0; at < columns.count; at += f.width) {
        const size_t b = block_at(p->in, columns.from + at, f);

        quantise_int8_run(src, (span){ at, f.width }, factors_of(p->in, b), c);
        if (p->in->scale[b] == 0)
            p->sums->underflowed += count_lost(c->code + at, f.width);
    }
}

/* Called only for blocks whose maximum saturates, which are rare, except in NVFP4: its scales are
 * rounded to nearest, so about every second maximum is above the largest code, and quantise_run
 * checks each element instead. */
static inline __attribute__((always_inline))
uint32_t count_saturated(const float *src, size_t count, float divisor, float largest)
{
    uint32_t saturated = 0;

    for (size_t i = 0; i < count; i++) {
        const uint32_t magnitude = f32_bits(f32_load(src, i) / divisor) & ~F32_SIGN_BIT;

        saturated += (int32_t)magnitude > (int32_t)f32_bits(largest);
    }
    return saturated;
}

/* Quantise columns of a row. from and count are multiples of the width, except at the row's end. */
static inline __attribute__((always_inline))
void quantise_chunk(progress *p, const float *src, span columns, form f, chunk *c)
{
    for (size_t at = 0; at < columns.count; at += f.width) {
        const size_t b = block_at(p->in, columns.from + at, f);
        const size_t n = f.width < CHUNK ? f.width : columns.count;

        quantise_run(src, (span){ at, n }, factors_of(p->in, b), f, c);
        if (!f.is_nvfp4 && p->in->peak[b] > f.small.largest)
            p->sums->saturated += count_saturated(src + at, n, p->in->divisor[b],
                                                  f.small.largest);
    }
    if (f.is_nvfp4) {
        uint32_t saturated = 0;

        for (size_t i = 0; i < columns.count; i++)
            saturated += c->saturated[i];
        p->sums->saturated += saturated;
    }
}

typedef float four_f32 __attribute__((vector_size(16)));
typedef double four_f64 __attribute__((vector_size(32)));

static inline __attribute__((always_inline)) void add_four(four_f64 *lanes, const float *values)
{
    four_f32 narrow;
    four_f64 wide;

    memcpy(&narrow, values, sizeof narrow);
    wide = __builtin_convertvector(narrow, four_f64);
    *lanes += wide * wide;
}

/* Squares of F32 are exact in F64: only the additions round. */
static inline __attribute__((always_inline))
void add_wide_squares(const float *values, size_t count, double lanes[SUM_LANES])
{
    four_f64 a;
    four_f64 b;
    four_f64 c;
    four_f64 d;

    memcpy(&a, lanes, sizeof a);
    memcpy(&b, lanes + 4, sizeof b);
    memcpy(&c, lanes + 8, sizeof c);
    memcpy(&d, lanes + 12, sizeof d);
    for (size_t i = 0; i < count; i += SUM_LANES) {
        add_four(&a, values + i);
        add_four(&b, values + i + 4);
        add_four(&c, values + i + 8);
        add_four(&d, values + i + 12);
    }
    memcpy(lanes, &a, sizeof a);
    memcpy(lanes + 4, &b, sizeof b);
    memcpy(lanes + 8, &c, sizeof c);
    memcpy(lanes + 12, &d, sizeof d);
}

static inline __attribute__((always_inline))
void add_squares(const progress *p, const float *values, size_t count, double lanes[SUM_LANES])
{
    float sums[SUM_LANES] = { 0 };

    if (p->is_wide) {
        add_wide_squares(values, count, lanes);
        return;
    }
    for (size_t i = 0; i < count; i += SUM_LANES)
        for (size_t l = 0; l < SUM_LANES; l++)
            sums[l] = __builtin_fmaf(f32_load(values, i + l), f32_load(values, i + l), sums[l]);
    for (size_t l = 0; l < SUM_LANES / 2; l++)
        lanes[l] += (double)(sums[l] + sums[l + SUM_LANES / 2]);
}

static double sum_lanes(double lanes[SUM_LANES])
{
    for (size_t half = SUM_LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++)
            lanes[l] += lanes[l + half];
    return lanes[0];
}

static inline __attribute__((always_inline))
void note_errors(const chunk *c, size_t count, progress *p, size_t col, form f)
{
    const uint32_t magnitude_bits = f.kind == CODE_E2M1 ? 7 : 0x7F;
    uint32_t largest = 0;
    uint32_t rounded = 0;
    uint32_t underflowed = 0;

    for (size_t i = 0; i < count; i++) {
        const uint32_t magnitude = f32_bits(c->error[i]) & ~F32_SIGN_BIT;

        largest = magnitude > largest ? magnitude : largest;
        rounded += magnitude != 0;
        underflowed += (magnitude != 0) & ((c->code[i] & magnitude_bits) == 0);
    }
    p->sums->rounded += rounded;
    p->sums->underflowed += underflowed;
    if (largest > f32_bits(p->sums->max_error)) {
        p->sums->max_error = f32_from_bits(largest);
        p->sums->max_row = p->row;
        p->sums->max_col = col + first_place(c->error, count, largest);
        p->has_open_place = 0;
    }
}

static inline __attribute__((always_inline))
void narrow_codes(const uint32_t *restrict code, size_t count, uint8_t *restrict out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (uint8_t)code[i];
}

/* Pack two codes, read as a 16-bit word, into a byte, low nibble first. */
static inline __attribute__((always_inline))
void pack_e2m1(const uint8_t *restrict code, size_t count, uint8_t *restrict out)
{
    for (size_t i = 0; i < count / 2; i++) {
        uint16_t pair;

        memcpy(&pair, code + 2 * i, sizeof pair);
        out[i] = (uint8_t)(pair | pair >> 4);
    }
}

/* Quantise one chunk and add its sums; its first code is written to `codes`. */
static inline __attribute__((always_inline))
void quantise_columns(progress *p, size_t col, size_t count, form f, uint8_t *codes)
{
    const size_t padded = (count + SUM_LANES - 1) / SUM_LANES * SUM_LANES;
    float wide[CHUNK];
    const float *src;
    chunk c;

    src = chunk_values(p, col, count, wide);
    if (count < padded) {
        memset(c.error + count, 0, (padded - count) * sizeof *c.error);
        memset(c.tail + count, 0, (padded - count) * sizeof *c.tail);
        memcpy(c.tail, src, count * sizeof *src);
        src = c.tail;
    }
    if (f.kind == CODE_INT8)
        quantise_int8_chunk(p, src, (span){ col, count }, f, &c);
    else
        quantise_chunk(p, src, (span){ col, count }, f, &c);
    if (f.kind == CODE_E2M1) {
        narrow_codes(c.code, count, c.byte);
        pack_e2m1(c.byte, count, codes);
    } else {
        narrow_codes(c.code, count, codes);
    }
    add_squares(p, c.error, padded, p->errors);
    add_squares(p, src, padded, p->values);
    note_errors(&c, count, p, col, f);
    if (f.is_nvfp4 || f.kind == CODE_INT8)
        p->sums->dropped_signs += count_minus_zeros(src, count);
}

/* What is known of a call from its scales. */
typedef struct {
    float value;            /* the largest magnitude, but for rounding: amax itself is not passed */
    float error;            /* none is larger */
    int saturates;          /* some value is above the largest code */
    int clamps;             /* some quotient may be close to rounding to more than that */
    int has_powers;         /* is_safe_power of all divisors, which are the scales: errors are
                               exact */
    int has_safe_divisors;  /* is_safe_divisor of all */
} call_limits;

/* An error is at most half of the largest step, or what saturation takes away. If it is not exact,
 * each of four roundings may add 2^-24 of the value, together less than a thousandth of that. */
static inline __attribute__((always_inline))
call_limits find_limits(const quantise_input *in, form f)
{
    const size_t count = (in->cols + in->block_cols - 1) / in->block_cols;
    const uint32_t octave = f32_bits(f.small.largest) & F32_INF_BITS;
    const float half_step = f32_from_bits(octave - ((f.small.mantissa_bits + 1) << 23));
    uint32_t value = 0;
    uint32_t error = 0;
    uint32_t saturates = 0;
    uint32_t clamps = 0;
    uint32_t has_powers = !f.is_nvfp4 && f.kind != CODE_INT8;
    uint32_t has_safe_divisors = 1;

    for (size_t b = 0; b < count; b++) {
        const float peak = f32_load(in->peak, b);
        const float divisor = f32_load(in->divisor, b);
        const uint32_t of_value = f32_bits(peak * divisor);
        const uint32_t of_error = f32_bits(f32_max(peak - f.small.largest, half_step) * divisor);

        value = of_value > value ? of_value : value;
        error = of_error > error ? of_error : error;
        saturates |= peak > f.small.largest;
        clamps |= peak > f.small.largest + half_step / 2;
        has_powers &= (uint32_t)is_safe_power(divisor);
        has_safe_divisors &= (uint32_t)is_safe_divisor(divisor);
    }
    return (call_limits){ f32_from_bits(value), f32_from_bits(error) * (has_powers ? 1 : 1.001f),
                          (int)saturates, (int)clamps, (int)has_powers, (int)has_safe_divisors };
}

/* 1 if sums of squares of numbers up to `largest` need no more than the range of F32: one that
 * underflows is then too small to count. */
static int squares_fit(float largest)
{
    return largest >= 0x1p-40f && largest <= 0x1p60f;
}

#ifdef __AVX2__
/* The column of the largest error, of which only the chunk is known. */
static __attribute__((noinline)) void find_place(const progress *p, form f)
{
    const quantise_input *const in = p->in;
    progress at = *p;
    float wide[CHUNK];
    const float *src;
    chunk c;

    at.row = p->sums->max_row;
    src = chunk_values(&at, p->sums->max_col, CHUNK, wide);
    for (size_t i = 0; i < CHUNK; i += f.width)
        quantise_run(src, (span){ i, f.width },
                     factors_of(in, block_at(in, p->sums->max_col + i, f)), f, &c);
    p->sums->max_col += first_place(c.error, CHUNK, f32_bits(p->sums->max_error));
}
#endif

/* Quantise one row: by code for whole chunks as far as that goes, then by loops. Whole chunks are
 * passed with the constant size CHUNK, for which the compiler specialises. */
static inline __attribute__((always_inline))
void quantise_row(progress *p, form f, uint8_t *codes)
{
    const unsigned codes_a_byte = f.kind == CODE_E2M1 ? 2 : 1;
    const size_t cols = p->in->cols;
    size_t col = 0;

#ifdef __AVX2__
    if (f.kind != CODE_INT8)
        col = quantise_whole_chunks(p, f, codes);
#endif
    for (; col + CHUNK <= cols; col += CHUNK)
        quantise_columns(p, col, CHUNK, f, codes + col / codes_a_byte);
    if (col < cols)
        quantise_columns(p, col, cols - col, f, codes + col / codes_a_byte);
}

/* 1 if the largest error, which was not looked for, may be one whose square needs F64: the sum is
 * not more than errors have that are so small. */
static int may_be_small(const progress *p)
{
    const double of_small = (double)p->in->rows * (double)p->in->cols * 0x1p-79;

    return p->sums->rounded > 0 && !(p->sums->error_squares > of_small);
}

static inline __attribute__((always_inline))
void quantise_rows(const quantise_input *in, form f, uint8_t *codes, size_t codes_pitch,
                   quantise_sums *sums)
{
    const call_limits limits = find_limits(in, f);
    progress p;

    p.in = in;
    p.sums = sums;
    p.saturates = limits.saturates;
    p.clamps = limits.clamps;
    p.has_powers = limits.has_powers;
    p.has_safe_divisors = limits.has_safe_divisors;
    p.is_wide = !squares_fit(limits.value);
    p.finds_largest = p.is_wide || !squares_fit(limits.error) || f.kind == CODE_INT8 ||
                      limits.error > in->known_error;
    p.way.first = 0;
    p.way.end = 0;
#ifdef __AVX2__
    if (f.is_nvfp4)
        find_significands(in->tensor_scale, f, &p.known);
#endif
again:
    p.has_open_place = 0;
    memset(p.errors, 0, sizeof p.errors);
    memset(p.values, 0, sizeof p.values);
    memset(sums, 0, sizeof *sums);
    for (p.row = 0; p.row < in->rows; p.row++)
        quantise_row(&p, f, codes + p.row * codes_pitch);
    sums->error_squares = sum_lanes(p.errors);
    sums->value_squares = sum_lanes(p.values);
    if (!p.finds_largest && may_be_small(&p)) {         /* rare, like the next */
        p.finds_largest = 1;
        goto again;
    }
    if (!p.is_wide && sums->max_error > 0 && !squares_fit(sums->max_error) && p.finds_largest) {
        p.is_wide = 1;
        goto again;
    }
#ifdef __AVX2__
    if (p.has_open_place)
        find_place(&p, f);
#endif
}

void ISA_NAME(quantise_e4m3)(const quantise_input *in, uint8_t *codes, size_t codes_pitch,
                             quantise_sums *sums)
{
    if (in->block_cols == 32)
        quantise_rows(in, (form){ CODE_E4M3, SMALL_E4M3, 32, 0 }, codes, codes_pitch, sums);
    else
        quantise_rows(in, (form){ CODE_E4M3, SMALL_E4M3, CHUNK, 0 }, codes, codes_pitch, sums);
}

void ISA_NAME(quantise_e2m1)(const quantise_input *in, uint8_t *codes, size_t codes_pitch,
                             quantise_sums *sums)
{
    if (in->block_cols == 32)
        quantise_rows(in, (form){ CODE_E2M1, SMALL_E2M1, 32, 0 }, codes, codes_pitch, sums);
    else
        quantise_rows(in, (form){ CODE_E2M1, SMALL_E2M1, 16, 1 }, codes, codes_pitch, sums);
}

void ISA_NAME(quantise_int8)(const quantise_input *in, uint8_t *codes, size_t codes_pitch,
                             quantise_sums *sums)
{
    quantise_rows(in, (form){ .kind = CODE_INT8, .width = 32 }, codes, codes_pitch, sums);
}
