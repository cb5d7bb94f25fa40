/*
 * statistics_rows.c: sums over rows of values.
 *
 * The build compiles this file once per instruction set, like quantise_rows.c. The loops have no
 * branches and a fixed order, so the compiler can vectorise them without changing any bit.
 */
#include "statistics_rows.h"

#include <math.h>

#include "internal.h"
#include "isa.h"

#ifdef __AVX__
#include <immintrin.h>
#endif

/* GCC warns that vectors wider than the set's registers are passed in memory. That does not matter
 * here: all such calls are inlined. */
#pragma GCC diagnostic ignored "-Wpsabi"

#ifdef __AVX512F__
#define WIDTH 8
#else
#define WIDTH 4
#endif

enum { LANES = 16, GROUPS = LANES / WIDTH };

/* Vectors of WIDTH lanes; lane l of a group g is lane g * WIDTH + l of 16, whatever the width. A
 * comparison gives a mask: all bits of a lane set, or none. */
typedef float floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t words __attribute__((vector_size(4 * WIDTH)));
typedef double doubles __attribute__((vector_size(8 * WIDTH)));
typedef int64_t masks __attribute__((vector_size(8 * WIDTH)));

#define INFINITY_BITS 0x7f800000

static inline __attribute__((always_inline))
floats load(const float *from)
{
    floats x;

    memcpy(&x, from, sizeof x);
    return x;
}

static inline __attribute__((always_inline))
words magnitude(floats x)
{
    return (words)x & 0x7fffffff;              /* of NaN: above INFINITY_BITS */
}

/* GCC 12 compiles __builtin_convertvector to two conversions of halves. */
static inline __attribute__((always_inline))
doubles widen(floats x)
{
#if defined(__AVX512F__)
    return (doubles)_mm512_cvtps_pd((__m256)x);
#elif defined(__AVX__)
    return (doubles)_mm256_cvtps_pd((__m128)x);
#else
    return __builtin_convertvector(x, doubles);
#endif
}

static inline __attribute__((always_inline))
floats choose(words mask, floats yes, floats no)
{
    return (floats)(((words)yes & mask) | ((words)no & ~mask));
}

/* x < y ? x : y and x > y ? x : y, which is what the instructions do. */
static inline __attribute__((always_inline))
floats smaller(floats x, floats y)
{
#if defined(__AVX512F__)
    return (floats)_mm256_min_ps((__m256)x, (__m256)y);
#elif defined(__AVX__)
    return (floats)_mm_min_ps((__m128)x, (__m128)y);
#else
    return choose(x < y, x, y);
#endif
}

static inline __attribute__((always_inline))
floats larger(floats x, floats y)
{
#if defined(__AVX512F__)
    return (floats)_mm256_max_ps((__m256)x, (__m256)y);
#elif defined(__AVX__)
    return (floats)_mm_max_ps((__m128)x, (__m128)y);
#else
    return choose(x > y, x, y);
#endif
}

/* sum + x * y for widened F32: the product is exact, so fusing changes no bit. */
static inline __attribute__((always_inline))
doubles add_product(doubles sum, doubles x, doubles y)
{
#if defined(__AVX512F__)
    return (doubles)_mm512_fmadd_pd((__m512d)x, (__m512d)y, (__m512d)sum);
#elif defined(__FMA__)
    return (doubles)_mm256_fmadd_pd((__m256d)x, (__m256d)y, (__m256d)sum);
#else
    return sum + x * y;
#endif
}

static double sum_lanes(const doubles groups[GROUPS])
{
    double lanes[LANES];

    memcpy(lanes, groups, sizeof lanes);
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++)
            lanes[l] += lanes[l + half];
    return lanes[0];
}

/* True in a mask is -1, so lanes count downwards: the sum of their negatives. */
static uint64_t count_lanes(words counts)
{
    uint64_t sum = 0;

    for (size_t l = 0; l < WIDTH; l++)
        sum += (uint32_t)-counts[l];
    return sum;
}

/*
 * NaN and infinity are rare. The first pass assumes that a row is clean (has none) and uses no
 * masks; if it finds one, the whole row is summed again with masks. Both give the same sums for a
 * clean row.
 */

/* ---- one row ---- */

typedef struct {
    words zeros;
    words nans;
    words nonfinite;
    floats min;
    floats max;
    doubles sum[GROUPS];
    doubles squares[GROUPS];
} row_lanes;

/* Variants of the loop; constants at each call, so that the compiler specialises it. */
typedef struct {
    int is_clean;
    int is_brief;                              /* no range and no sum */
} row_mode;

static inline __attribute__((always_inline))
void add_range(row_lanes *s, floats x, words is_finite, int is_clean)
{
    const floats low = is_clean ? x : choose(is_finite, x, (floats){ 0 } + INFINITY);
    const floats high = is_clean ? x : choose(is_finite, x, (floats){ 0 } - INFINITY);

    s->min = smaller(low, s->min);
    s->max = larger(high, s->max);
}

static inline __attribute__((always_inline))
void add_values(row_lanes *s, const float *src, row_mode mode)
{
    for (size_t g = 0; g < GROUPS; g++) {
        const floats x = load(src + g * WIDTH);
        const words bits = magnitude(x);
        const words is_finite = bits < INFINITY_BITS;
        const doubles value = widen(mode.is_clean ? x : (floats)((words)x & is_finite));

        s->zeros += bits == 0;
        if (!mode.is_clean) {                  /* else the sum of squares tells, see is_clean_row */
            s->nonfinite += ~is_finite;
            s->nans += bits > INFINITY_BITS;
        }
        if (!mode.is_brief) {
            add_range(s, x, is_finite, mode.is_clean);
            s->sum[g] += value;
        }
        s->squares[g] = add_product(s->squares[g], value, value);
    }
}

static inline __attribute__((always_inline))
void sum_row(row_lanes *s, const float *src, size_t count, row_mode mode)
{
    const size_t whole = count / LANES * LANES;

    memset(s, 0, sizeof *s);
    s->min = (floats){ 0 } + INFINITY;
    s->max = (floats){ 0 } - INFINITY;
    for (size_t c = 0; c < whole; c += LANES)
        add_values(s, src + c, mode);
    if (whole < count) {
        float tail[LANES];

        for (size_t l = 0; l < LANES; l++)
            tail[l] = whole + l < count ? src[whole + l] : NAN;
        mode.is_clean = 0;                     /* the masks keep the filling NaNs out of the sums */
        add_values(s, tail, mode);
    }
}

/* The number of NaNs that fill the last lanes of a row. */
static uint64_t filled_lanes(size_t count)
{
    return (LANES - count % LANES) % LANES;
}

static void take_counts(const row_lanes *s, size_t count, row_statistics *out)
{
    out->zeros = count_lanes(s->zeros);
    out->nans = count_lanes(s->nans) - filled_lanes(count);
    out->infinities = count_lanes(s->nonfinite) - count_lanes(s->nans);
    out->squares = sum_lanes(s->squares);
}

/* After a pass without masks: squares of finite F32 values and their sums are finite in F64. */
static int is_clean_row(const row_lanes *s, size_t count)
{
    return isfinite(sum_lanes(s->squares)) && count_lanes(s->nonfinite) <= filled_lanes(count);
}

void ISA_NAME(f32_row_statistics)(const float *src, size_t count, row_statistics *out)
{
    row_lanes s;

    sum_row(&s, src, count, (row_mode){ .is_clean = 1 });
    if (!is_clean_row(&s, count))
        sum_row(&s, src, count, (row_mode){ .is_clean = 0 });
    take_counts(&s, count, out);
    out->min = s.min[0];
    out->max = s.max[0];
    for (size_t l = 1; l < WIDTH; l++) {
        out->min = s.min[l] < out->min ? s.min[l] : out->min;
        out->max = s.max[l] > out->max ? s.max[l] : out->max;
    }
    out->min += 0.0f;                          /* -0 becomes +0 */
    out->max += 0.0f;
    out->sum = sum_lanes(s.sum);
}

void ISA_NAME(f32_row_squares)(const float *src, size_t count, row_statistics *out)
{
    row_lanes s;

    sum_row(&s, src, count, (row_mode){ .is_clean = 1, .is_brief = 1 });
    if (!is_clean_row(&s, count))
        sum_row(&s, src, count, (row_mode){ .is_brief = 1 });
    take_counts(&s, count, out);
    out->min = INFINITY;
    out->max = -INFINITY;
    out->sum = 0;
}

/* ---- two rows ---- */

typedef struct {
    words changed;
    words unclean;                             /* pairs that are not finite on both sides */
    words nonfinite;
    doubles a_squares[GROUPS];
    doubles b_squares[GROUPS];
    doubles error_squares[GROUPS];
    doubles dot[GROUPS];
    doubles max_error;
} pair_lanes;

static inline __attribute__((always_inline))
void add_pairs(pair_lanes *s, const float *a, const float *b, int is_clean)
{
    for (size_t g = 0; g < GROUPS; g++) {
        const floats left = load(a + g * WIDTH);
        const floats right = load(b + g * WIDTH);
        const words l = magnitude(left);
        const words r = magnitude(right);
        const words both = (l < INFINITY_BITS) & (r < INFINITY_BITS);
        const words changed = (left != right) & ~((l > INFINITY_BITS) & (r > INFINITY_BITS));
        const doubles x = widen(is_clean ? left : (floats)((words)left & both));
        const doubles y = widen(is_clean ? right : (floats)((words)right & both));
        const doubles error = y - x;
        const doubles amount = (doubles)((masks)error & INT64_MAX);
        const masks is_larger = amount > s->max_error;

        s->changed += is_clean ? left != right : changed;
        s->unclean += ~both;
        if (!is_clean)
            s->nonfinite += changed & ~both;
        s->a_squares[g] = add_product(s->a_squares[g], x, x);
        s->b_squares[g] = add_product(s->b_squares[g], y, y);
        s->error_squares[g] += error * error;  /* the error may have more bits than F32 */
        s->dot[g] = add_product(s->dot[g], x, y);
        s->max_error = (doubles)(((masks)amount & is_larger) | ((masks)s->max_error & ~is_larger));
    }
}

static inline __attribute__((always_inline))
void sum_pairs(pair_lanes *s, const float *a, const float *b, size_t count, int is_clean)
{
    const size_t whole = count / LANES * LANES;

    memset(s, 0, sizeof *s);
    for (size_t c = 0; c < whole; c += LANES)
        add_pairs(s, a + c, b + c, is_clean);
    if (whole < count) {
        float tails[2][LANES] = { { 0 } };     /* past the end both are 0: no difference */

        memcpy(tails[0], a + whole, (count - whole) * sizeof *a);
        memcpy(tails[1], b + whole, (count - whole) * sizeof *b);
        add_pairs(s, tails[0], tails[1], is_clean);
    }
}

void ISA_NAME(f32_row_difference)(const float *a, const float *b, size_t count,
                                  row_difference *out)
{
    pair_lanes s;

    sum_pairs(&s, a, b, count, 1);
    if (count_lanes(s.unclean) > 0)
        sum_pairs(&s, a, b, count, 0);
    out->changed = count_lanes(s.changed);
    out->nonfinite = count_lanes(s.nonfinite);
    out->max_error = 0;
    for (size_t l = 0; l < WIDTH; l++)
        out->max_error = s.max_error[l] > out->max_error ? s.max_error[l] : out->max_error;
    out->a_squares = sum_lanes(s.a_squares);
    out->b_squares = sum_lanes(s.b_squares);
    out->error_squares = sum_lanes(s.error_squares);
    out->dot = sum_lanes(s.dot);
}

/* ---- distances ---- */

typedef uint32_t naturals __attribute__((vector_size(4 * WIDTH)));
typedef uint8_t bytes __attribute__((vector_size(WIDTH)));

static inline __attribute__((always_inline))
words pick(words mask, words yes, words no)
{
    return (yes & mask) | (no & ~mask);
}

/* 1 + floor(log2(distance)), or 0 for 0; a negative number is one of 2^31 or more. Clearing each
 * bit whose upper neighbour is set keeps the leading bit, and the conversion to F32 then cannot
 * round up to the next power of two. */
static inline __attribute__((always_inline))
words distance_bucket(words distance)
{
    const words leading = distance & ~(words)((naturals)distance >> 1);
    const words exponent = ((words)__builtin_convertvector(leading, floats) >> 23 & 0xff) - 126;

    return pick(distance < 0, (words){ 0 } + 32, exponent & (exponent > 0));
}

/* The positions of magnitudes among those of their format. */
static inline __attribute__((always_inline))
words positions_of(words bits, int is_bf16)
{
    return is_bf16 ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : bits;      /* to nearest even */
}

static inline __attribute__((always_inline))
void put_distances(const float *a, const float *b, int is_bf16, uint8_t *out)
{
    const floats x = load(a);
    const floats y = load(b);
    const words left = magnitude(x);
    const words right = magnitude(y);
    const words l = positions_of(left, is_bf16);
    const words r = positions_of(right, is_bf16);
    const words apart = pick(l > r, l - r, r - l);
    const words across = (words)((naturals)l + (naturals)r);
    const words bucket = distance_bucket(pick(((words)x ^ (words)y) < 0, across, apart));
    const words is_none = ((words)x == (words)y) | ((left | right) == 0) |
                          (left >= INFINITY_BITS) | (right >= INFINITY_BITS);
    const bytes found = __builtin_convertvector(pick(is_none, (words){ 0 } + ROW_DISTANCE_NONE,
                                                     bucket), bytes);

    memcpy(out, &found, sizeof found);
}

static inline __attribute__((always_inline))
void row_distances(const float *a, const float *b, size_t count, int is_bf16, uint8_t *buckets)
{
    const size_t whole = count / WIDTH * WIDTH;

    for (size_t c = 0; c < whole; c += WIDTH)
        put_distances(a + c, b + c, is_bf16, buckets + c);
    if (whole < count) {
        float tails[2][WIDTH] = { { 0 } };
        uint8_t found[WIDTH];

        memcpy(tails[0], a + whole, (count - whole) * sizeof *a);
        memcpy(tails[1], b + whole, (count - whole) * sizeof *b);
        put_distances(tails[0], tails[1], is_bf16, found);
        memcpy(buckets + whole, found, count - whole);
    }
}

void ISA_NAME(f32_row_distances)(const float *a, const float *b, size_t count, int is_bf16,
                                 uint8_t *buckets)
{
    if (is_bf16)
        row_distances(a, b, count, 1, buckets);
    else
        row_distances(a, b, count, 0, buckets);
}
