/*
 * The two loops that take the time: products of rows, and mixtures of rows.
 *
 * Eight F64 lanes, lane i for the columns i, i + 8, ..., and one order in which they are added up:
 * that is plain_dot. A product of two F32 is exact in F64, so a fused multiplication would give the
 * same bits, too. Tiles only choose which outputs are computed together; they change no sum. The
 * same text is compiled for each instruction set.
 */
#include "cpu.h"

#include <string.h>

#include "kernels.h"
#include "plain.h"
#include "size.h"

void cpu_product_plain(const cpu_product *job)
{
    for (size_t t = 0; t < job->x_count; t++)
        for (size_t n = 0; n < job->w_count; n++)
            job->y[t * job->y_pitch + n] = plain_product(
                job->x + t * job->x_pitch, job->w + n * job->w_pitch, job->depth, job->block);
}

void cpu_mixture_plain(const cpu_mixture *job)
{
    for (size_t h = 0; h < job->p_count; h++)
        for (size_t i = 0; i < job->width; i++) {
            double sum = 0;

            for (size_t j = 0; j < job->count; j++)
                sum += (double)job->p[h * job->p_pitch + j] * (double)job->v[j * job->v_pitch + i];
            job->y[h * job->y_pitch + i] = (float)sum;
        }
}

#if defined(__x86_64__)

#define INLINE static inline __attribute__((always_inline))
/* Tiles live in registers only when the loops over them are gone. */
#define UNROLL _Pragma("GCC unroll 4")

enum { LANES = PLAIN_LANES, TILE_MAX = 4 };

typedef double lanes __attribute__((vector_size(8 * LANES)));
typedef float floats __attribute__((vector_size(4 * LANES)));

INLINE void load(const float *from, lanes *out)
{
    floats narrow;

    memcpy(&narrow, from, sizeof narrow);
    *out = __builtin_convertvector(narrow, lanes);
}

INLINE float add_lanes(const lanes *v)
{
    const lanes s = *v;

    return (float)(((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])));
}

/* sum += products of LANES columns from k on. */
INLINE void product_step(const float *const *x, const float *const *w, size_t k,
                         lanes (*sum)[TILE_MAX], const int size[2])
{
    lanes right[TILE_MAX];

    UNROLL
    for (int j = 0; j < size[1]; j++)
        load(w[j] + k, &right[j]);
    UNROLL
    for (int i = 0; i < size[0]; i++) {
        lanes left;

        load(x[i] + k, &left);
        UNROLL
        for (int j = 0; j < size[1]; j++)
            sum[i][j] += left * right[j];
    }
}

/* The columns after the last whole step, filled up with zeros: a sum that began at +0 never is -0,
 * so that adding +0 changes nothing. Not inlined: it would take the tile's registers. */
typedef struct {
    float values[TILE_MAX][LANES];
    const float *rows[TILE_MAX];
} product_rest;

__attribute__((noinline)) static void take_rest(product_rest *rest, const float *const *from,
                                                size_t k, size_t count)
{
    memset(rest->values, 0, sizeof rest->values);
    for (int i = 0; i < TILE_MAX; i++) {
        memcpy(rest->values[i], from[i] + k, (count - k) * sizeof(float));
        rest->rows[i] = rest->values[i];
    }
}

/* Block sums of size[0] x size[1] outputs over `count` columns, added to acc. */
INLINE void product_block(const float *const *x, const float *const *w, size_t count,
                          float (*acc)[TILE_MAX], const int size[2])
{
    lanes sum[TILE_MAX][TILE_MAX] = { { { 0 } } };
    size_t k = 0;

    for (; k + LANES <= count; k += LANES)
        product_step(x, w, k, sum, size);
    if (k < count) {
        product_rest left;
        product_rest right;

        take_rest(&left, x, k, count);
        take_rest(&right, w, k, count);
        product_step(left.rows, right.rows, 0, sum, size);
    }
    UNROLL
    for (int i = 0; i < size[0]; i++)
        UNROLL
        for (int j = 0; j < size[1]; j++)
            acc[i][j] += add_lanes(&sum[i][j]);
}

INLINE void product_tile(const cpu_product *job, size_t t, size_t n, const int rows,
                         const int cols)
{
    const size_t step = job->block == 0 ? job->depth : job->block;
    const int size[2] = { rows, cols };
    float acc[TILE_MAX][TILE_MAX] = { { 0 } };

    for (size_t k = 0; k < job->depth; k += step) {
        const float *x[TILE_MAX];
        const float *w[TILE_MAX];

        UNROLL
        for (int i = 0; i < TILE_MAX; i++) {        /* unused ones repeat the last */
            x[i] = job->x + (t + (size_t)(i < rows ? i : rows - 1)) * job->x_pitch + k;
            w[i] = job->w + (n + (size_t)(i < cols ? i : cols - 1)) * job->w_pitch + k;
        }
        product_block(x, w, size_min(step, job->depth - k), acc, size);
    }
    UNROLL
    for (int i = 0; i < rows; i++)
        UNROLL
        for (int j = 0; j < cols; j++)
            job->y[(t + (size_t)i) * job->y_pitch + n + (size_t)j] = acc[i][j];
}

/* size x size tiles, then what is left at the edges. */
INLINE void product_body(const cpu_product *job, const int size)
{
    const size_t whole = (size_t)size;
    size_t t = 0;

    for (; t + whole <= job->x_count; t += whole) {
        size_t n = 0;

        for (; n + whole <= job->w_count; n += whole)
            product_tile(job, t, n, size, size);
        for (; n < job->w_count; n++)
            product_tile(job, t, n, size, 1);
    }
    for (; t < job->x_count; t++) {
        size_t n = 0;

        for (; n + whole <= job->w_count; n += whole)
            product_tile(job, t, n, 1, size);
        for (; n < job->w_count; n++)
            product_tile(job, t, n, 1, 1);
    }
}

/* `rows` mixtures, columns [i, i + groups * LANES). */
INLINE void mixture_tile(const cpu_mixture *job, size_t h, size_t i, const int rows,
                         const int groups)
{
    lanes sum[TILE_MAX][TILE_MAX] = { { { 0 } } };

    for (size_t j = 0; j < job->count; j++) {
        const float *v = job->v + j * job->v_pitch + i;
        lanes part[TILE_MAX];

        UNROLL
        for (int g = 0; g < groups; g++)
            load(v + g * LANES, &part[g]);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const double p = (double)job->p[(h + (size_t)r) * job->p_pitch + j];

            UNROLL
            for (int g = 0; g < groups; g++)
                sum[r][g] += p * part[g];
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int g = 0; g < groups; g++)
            for (int c = 0; c < LANES; c++)
                job->y[(h + (size_t)r) * job->y_pitch + i + (size_t)(g * LANES + c)] =
                    (float)sum[r][g][c];
}

INLINE void mixture_body(const cpu_mixture *job, const int size)
{
    const size_t whole = (size_t)size;
    const size_t even = job->width / (whole * LANES) * (whole * LANES);
    cpu_mixture rest = *job;
    size_t h = 0;

    for (; h + whole <= job->p_count; h += whole)
        for (size_t i = 0; i < even; i += whole * LANES)
            mixture_tile(job, h, i, size, size);
    for (; h < job->p_count; h++)
        for (size_t i = 0; i < even; i += whole * LANES)
            mixture_tile(job, h, i, 1, size);
    rest.v += even;
    rest.y += even;
    rest.width -= even;
    cpu_mixture_plain(&rest);
}

__attribute__((target("avx512f"))) static void product_avx512(const cpu_product *job)
{
    product_body(job, 4);
}

__attribute__((target("avx512f"))) static void mixture_avx512(const cpu_mixture *job)
{
    mixture_body(job, 4);
}

__attribute__((target("avx2"))) static void product_avx2(const cpu_product *job)
{
    product_body(job, 2);
}

__attribute__((target("avx2"))) static void mixture_avx2(const cpu_mixture *job)
{
    mixture_body(job, 2);
}

#endif

void cpu_choose(cpu_backend *cpu)
{
    const ckpt_kernels *kernels = kernels_get();    /* so that CKPT_KERNELS holds here, too */
    const char *name = kernels == NULL ? "scalar" : kernels->name;

    cpu->product = cpu_product_plain;
    cpu->mixture = cpu_mixture_plain;
#if defined(__x86_64__)
    if (strcmp(name, "avx512") == 0) {
        cpu->product = product_avx512;
        cpu->mixture = mixture_avx512;
    } else if (strcmp(name, "avx2") == 0) {
        cpu->product = product_avx2;
        cpu->mixture = mixture_avx2;
    }
#else
    (void)name;
#endif
}
