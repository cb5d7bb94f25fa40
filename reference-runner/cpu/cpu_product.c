/*
 * cpu_product.c: the two loops that take most of the time: products of rows and mixtures of rows.
 *
 * Each output is one F64 sum in ascending order, as in plain.c. The lanes of a vector are different
 * outputs, so no sum is ever split. Products of two F32 are exact in F64, so fused multiplication
 * gives the same bits, and the compiler flags of this file allow it. Tiling only decides which
 * outputs are computed together. The same code is compiled for each instruction set.
 */
#include "cpu.h"

#include <string.h>

#include "kernels/kernels.h"
#include "reference-runner/plain.h"
#include "libckpt/size.h"

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
/* The compiler keeps a tile in registers only if the loops over it are fully unrolled. */
#define UNROLL _Pragma("GCC unroll 12")

enum {
    LANES = 8,               /* rows of w, and so outputs, in a panel */
    TILE_MAX = 4,
    ROWS_MAX = 12,           /* rows of x in a step */
    HALF_ROWS_MAX = 6,       /* the same with vectors of half the width */
    PIECE = 256,             /* columns of x and w that are widened to F64 at once */
    PIECE_PITCH = PIECE + 8, /* so that rows do not begin in the same cache set */
    BLOCK_ROWS = 48,
    BLOCK_PANELS = 4
};

typedef double lanes __attribute__((vector_size(8 * LANES)));
typedef double half_lanes __attribute__((vector_size(4 * LANES)));
typedef float half_floats __attribute__((vector_size(2 * LANES)));
typedef float floats __attribute__((vector_size(4 * LANES)));

INLINE void load(const float *from, lanes *out)
{
    floats narrow;

    memcpy(&narrow, from, sizeof narrow);
    *out = __builtin_convertvector(narrow, lanes);
}

/* In halves, because GCC does not keep vectors wider than the CPU's registers in registers. */
INLINE void widen(const floats *from, lanes *out)
{
    half_floats narrow[2];
    half_lanes wide[2];

    memcpy(narrow, from, sizeof narrow);
    wide[0] = __builtin_convertvector(narrow[0], half_lanes);
    wide[1] = __builtin_convertvector(narrow[1], half_lanes);
    memcpy(out, wide, sizeof wide);
}

/* ---- products ---- */

/* The sums of a block of BLOCK_ROWS x (BLOCK_PANELS * LANES) outputs, and the inputs in F64. */
typedef struct {
    lanes sum[BLOCK_ROWS][BLOCK_PANELS];
    lanes w[BLOCK_PANELS][PIECE];              /* column k of eight rows */
    double x[ROWS_MAX][PIECE_PITCH];
} product_memory;

/* One step of a transposition: exchange lanes (or groups of 2 or 4) between two rows. */
#define EXCHANGE(a, b, low, high) \
    do { \
        const floats above = __builtin_shufflevector(a, b, low); \
        const floats below = __builtin_shufflevector(a, b, high); \
 \
        (a) = above; \
        (b) = below; \
    } while (0)
#define LIST(...) __VA_ARGS__

/* Transpose an 8 x 8 matrix of floats. */
INLINE void transpose(floats *v)
{
    UNROLL
    for (int i = 0; i < LANES; i += 2)
        EXCHANGE(v[i], v[i + 1], LIST(0, 8, 2, 10, 4, 12, 6, 14), LIST(1, 9, 3, 11, 5, 13, 7, 15));
    UNROLL
    for (int i = 0; i < LANES; i++)
        if ((i & 2) == 0)
            EXCHANGE(v[i], v[i + 2], LIST(0, 1, 8, 9, 4, 5, 12, 13),
                     LIST(2, 3, 10, 11, 6, 7, 14, 15));
    UNROLL
    for (int i = 0; i < LANES / 2; i++)
        EXCHANGE(v[i], v[i + 4], LIST(0, 1, 2, 3, 8, 9, 10, 11),
                 LIST(4, 5, 6, 7, 12, 13, 14, 15));
}

/* Convert `count` columns of `rows` <= LANES rows of w to a panel; missing rows become zeros. */
INLINE void widen_panel(const float *w, size_t pitch, size_t rows, size_t count, lanes *out)
{
    size_t k = 0;

    for (; rows == LANES && k + LANES <= count; k += LANES) {
        floats v[LANES];

        UNROLL
        for (int i = 0; i < LANES; i++)
            memcpy(&v[i], w + (size_t)i * pitch + k, sizeof v[i]);
        transpose(v);
        UNROLL
        for (int i = 0; i < LANES; i++)
            widen(&v[i], &out[k + (size_t)i]);
    }
    for (; k < count; k++)
        for (size_t i = 0; i < LANES; i++)
            out[k][i] = i < rows ? (double)w[i * pitch + k] : 0;
}

INLINE void widen_rows(const float *x, size_t pitch, size_t rows, size_t count,
                       double (*out)[PIECE_PITCH])
{
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < count; k++)
            out[i][k] = (double)x[i * pitch + k];
}

/* sum[i][panel] += products of `count` columns of `rows` rows of x and a panel of w. */
INLINE void step_whole(product_memory *m, size_t row, size_t panel, size_t count, const int rows)
{
    lanes sum[ROWS_MAX];

    UNROLL
    for (int i = 0; i < rows; i++)
        sum[i] = m->sum[row + (size_t)i][panel];
    for (size_t k = 0; k < count; k++) {
        const lanes w = m->w[panel][k];

        UNROLL
        for (int i = 0; i < rows; i++)
            sum[i] += m->x[i][k] * w;
    }
    UNROLL
    for (int i = 0; i < rows; i++)
        m->sum[row + (size_t)i][panel] = sum[i];
}

/* The same with vectors of half the width. */
INLINE void step_halves(product_memory *m, size_t row, size_t panel, size_t count, const int rows)
{
    half_lanes sum[HALF_ROWS_MAX][2];

    UNROLL
    for (int i = 0; i < rows; i++)
        memcpy(sum[i], &m->sum[row + (size_t)i][panel], sizeof sum[i]);
    for (size_t k = 0; k < count; k++) {
        half_lanes w[2];

        memcpy(w, &m->w[panel][k], sizeof w);
        UNROLL
        for (int i = 0; i < rows; i++) {
            sum[i][0] += m->x[i][k] * w[0];
            sum[i][1] += m->x[i][k] * w[1];
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++)
        memcpy(&m->sum[row + (size_t)i][panel], sum[i], sizeof sum[i]);
}

INLINE void product_step(product_memory *m, size_t row, size_t panel, size_t count, const int rows,
                         const int most)
{
    if (most <= HALF_ROWS_MAX)
        step_halves(m, row, panel, count, rows);
    else
        step_whole(m, row, panel, count, rows);
}

/* Add the products of columns [k, k + count) to all sums of the block of outputs that begins at row
 * t and column n; `at` is { t, n, k }. */
INLINE void product_piece(const cpu_product *job, product_memory *m, const size_t at[3],
                          size_t count, const int rows)
{
    const size_t x_count = size_min(BLOCK_ROWS, job->x_count - at[0]);
    const size_t w_count = size_min(BLOCK_PANELS * LANES, job->w_count - at[1]);
    const size_t panels = (w_count + LANES - 1) / LANES;
    size_t together;

    for (size_t p = 0; p < panels; p++)
        widen_panel(job->w + (at[1] + p * LANES) * job->w_pitch + at[2], job->w_pitch,
                    size_min(LANES, w_count - p * LANES), count, m->w[p]);
    for (size_t t = 0; t < x_count; t += together) {
        const size_t left = x_count - t;

        together = left >= (size_t)rows ? (size_t)rows : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        widen_rows(job->x + (at[0] + t) * job->x_pitch + at[2], job->x_pitch, together, count,
                   m->x);
        for (size_t p = 0; p < panels; p++)
            if (together == (size_t)rows)
                product_step(m, t, p, count, rows, rows);
            else if (together == 4)
                product_step(m, t, p, count, 4, rows);
            else if (together == 2)
                product_step(m, t, p, count, 2, rows);
            else
                product_step(m, t, p, count, 1, rows);
    }
}

/* Compute one block of outputs: blocks of columns in ascending order, each sum rounded to F32. */
INLINE void product_outputs(const cpu_product *job, product_memory *m, size_t t, size_t n,
                            const int rows)
{
    const size_t step = job->block == 0 ? job->depth : job->block;
    const size_t x_count = size_min(BLOCK_ROWS, job->x_count - t);
    const size_t w_count = size_min(BLOCK_PANELS * LANES, job->w_count - n);

    for (size_t i = 0; i < x_count; i++)
        memset(job->y + (t + i) * job->y_pitch + n, 0, w_count * sizeof *job->y);
    for (size_t first = 0; first < job->depth; first += step) {
        const size_t end = size_min(first + step, job->depth);

        memset(m->sum, 0, x_count * sizeof *m->sum);
        for (size_t k = first; k < end; k += PIECE)
            product_piece(job, m, (const size_t[]){ t, n, k }, size_min(PIECE, end - k), rows);
        for (size_t i = 0; i < x_count; i++)
            for (size_t j = 0; j < w_count; j++)
                job->y[(t + i) * job->y_pitch + n + j] += (float)m->sum[i][j / LANES][j % LANES];
    }
}

INLINE void product_body(const cpu_product *job, const int rows)
{
    product_memory m;

    for (size_t n = 0; n < job->w_count; n += BLOCK_PANELS * LANES)
        for (size_t t = 0; t < job->x_count; t += BLOCK_ROWS)
            product_outputs(job, &m, t, n, rows);
}

/* ---- mixtures ---- */

/* Columns [i, i + groups * LANES) of `rows` mixtures from mixture h on. */
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
    product_body(job, ROWS_MAX);
}

__attribute__((target("avx512f"))) static void mixture_avx512(const cpu_mixture *job)
{
    mixture_body(job, 4);
}

__attribute__((target("avx2,fma"))) static void product_avx2(const cpu_product *job)
{
    product_body(job, HALF_ROWS_MAX);
}

__attribute__((target("avx2,fma"))) static void mixture_avx2(const cpu_mixture *job)
{
    mixture_body(job, 2);
}

#endif

void cpu_choose(cpu_backend *cpu)
{
    const ckpt_kernels *kernels = kernels_get();    /* CKPT_KERNELS chooses here, too */
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
