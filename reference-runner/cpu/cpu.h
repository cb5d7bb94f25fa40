/* cpu.h: types and functions that the files of the CPU backend share. */
#ifndef RUN_CPU_H
#define RUN_CPU_H

#include "reference-runner/backend.h"

struct run_buffer {
    float *data;
    uint64_t count;
};

struct run_weight {
    ckpt_tensor tensor;      /* rank 2; its shape has only the rows of this weight */
    ckpt_tile tile;
};

/*
 * y[t * y_pitch + n] = plain_product(x + t * x_pitch, w + n * w_pitch) for t < x_count and
 * n < w_count, with the same bits. Uses one thread.
 */
typedef struct {
    const float *x;
    const float *w;
    float *y;
    size_t x_pitch;
    size_t w_pitch;
    size_t y_pitch;
    size_t x_count;
    size_t w_count;
    size_t depth;
    size_t block;            /* 0: one block */
} cpu_product;

/*
 * y[h * y_pitch + i] = the sum over j < count, ascending and in F64, of p[h * p_pitch + j] *
 * v[j * v_pitch + i], rounded to F32, for h < p_count and i < width. Uses one thread.
 */
typedef struct {
    const float *p;
    const float *v;
    float *y;
    size_t p_pitch;
    size_t v_pitch;
    size_t y_pitch;
    size_t p_count;
    size_t count;
    size_t width;
} cpu_mixture;

typedef struct {
    run_backend base;
    int thread_count;
    double lap_begin;
    void (*product)(const cpu_product *job);
    void (*mixture)(const cpu_mixture *job);
} cpu_backend;

/* Set `product` and `mixture` to the fastest versions for this CPU; all return the same bits. */
void cpu_choose(cpu_backend *cpu);
/* The versions in plain C: for CPUs without the vector units, and for the tests. */
void cpu_product_plain(const cpu_product *job);
void cpu_mixture_plain(const cpu_mixture *job);

/* run_linear with its pointers resolved: x times a stored weight, on all threads. */
typedef struct {
    const float *x;
    float *y;
    size_t x_pitch;
    size_t y_pitch;
    size_t row_count;
    uint64_t weight_row;
    uint64_t weight_row_count;
    uint32_t block;
    float scale;
    int round;
} cpu_linear_job;
ckpt_code cpu_linear(const cpu_backend *cpu, const run_weight *weight, const cpu_linear_job *job,
                     ckpt_error *err);

/*
 * Small operations stay on one thread. OpenMP threads spin while they wait for work, which costs
 * more than parallel work gains if operations are short or the machine is busy otherwise.
 */
enum { CPU_WORTH_SHARING = 1 << 21 };

static inline int cpu_worth(uint64_t rows, uint64_t cols)
{
    return rows * cols > CPU_WORTH_SHARING / 16;
}

static inline const cpu_backend *cpu_of(const run_backend *backend)
{
    return (const cpu_backend *)(const void *)backend;
}

static inline float *cpu_row(run_rows rows, uint64_t row)
{
    return rows.buffer->data + rows.offset + row * rows.pitch;
}

static inline float *cpu_ring_row(const run_ring *ring, uint64_t position)
{
    return ring->buffer->data + position % ring->capacity * ring->width;
}

static inline int32_t *cpu_int_row(run_rows rows, uint64_t row)
{
    return (int32_t *)(void *)cpu_row(rows, row);
}

/* cpu_attend.c, cpu_experts.c */
ckpt_code pool_cpu(run_backend *backend, const run_pool *op, ckpt_error *err);
ckpt_code select_cpu(run_backend *backend, const run_select *op, ckpt_error *err);
ckpt_code attend_cpu(run_backend *backend, const run_attend *op, ckpt_error *err);
ckpt_code route_cpu(run_backend *backend, const run_route *op, ckpt_error *err);
ckpt_code experts_cpu(run_backend *backend, const run_experts *op, ckpt_error *err);

extern const run_backend_ops run_backend_cpu;

#endif
