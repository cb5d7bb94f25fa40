/* cpu_experts.c: routing and the expert product on the CPU. */
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "reference-runner/plain.h"
#include "libckpt/size.h"

enum { ROWS_TOGETHER = 256, ACTIVATION_BLOCK = 128 };

ckpt_code route_cpu(run_backend *backend, const run_route *op, ckpt_error *err)
{
    float *scores = malloc(2 * sizeof *scores * op->expert_count);

    (void)backend;
    if (scores == NULL)
        return ckpt_fail_memory(err, "expert scores", op->expert_count);
    for (uint64_t t = 0; t < op->row_count; t++) {
        const plain_token token = {
            .logits = cpu_row(op->logits, t),
            .table = op->table.buffer == NULL ? NULL : cpu_int_row(op->table, t),
            .bias = op->bias == NULL ? NULL : op->bias->data,
            .scores = scores,
            .ids = cpu_int_row(op->ids, t),
            .weights = cpu_row(op->weights, t),
        };

        op->gap->data[t] = plain_route(&token, op);
    }
    free(scores);
    return CKPT_OK;
}

/* One call, with scratch for ROWS_TOGETHER rows of one expert. */
typedef struct {
    const cpu_backend *cpu;
    const run_experts *op;
    float *x;         /* dim columns */
    float *a;         /* expert_dim columns */
    float *b;
    float *y;         /* dim columns */
    ckpt_error *err;
} expert_job;

static ckpt_code multiply(const expert_job *s, const run_weight *weight, const float *x, float *y,
                          uint64_t row_count)
{
    const uint64_t width = ckpt_tensor_rows(&weight->tensor);
    const cpu_linear_job job = {
        .x = x,
        .y = y,
        .x_pitch = ckpt_tensor_cols(&weight->tensor),
        .y_pitch = width,
        .row_count = row_count,
        .weight_row_count = width,
        .block = s->op->block,
        .round = s->op->round,
    };

    return cpu_linear(s->cpu, weight, &job, s->err);
}

static void activate(const expert_job *s, const run_expert *e, uint64_t first, uint64_t count)
{
    const run_experts *op = s->op;
    const run_quantise grid = { .col_count = op->expert_dim, .block = ACTIVATION_BLOCK,
                                .grid = RUN_E4M3 };

    for (uint64_t i = 0; i < count; i++) {
        float *a = s->a + i * op->expert_dim;

        plain_swiglu(a, s->b + i * op->expert_dim, e->factors[first + i], op);
        if (op->round)
            plain_quantise(a, a, &grid);
    }
}

/* Process rows [first, first + count) of the list of one expert. */
static ckpt_code run_rows_of(const expert_job *s, const run_expert *e, uint64_t first,
                             uint64_t count)
{
    const run_experts *op = s->op;
    ckpt_code code;

    for (uint64_t i = 0; i < count; i++)
        memcpy(s->x + i * op->dim, cpu_row(op->x, e->rows[first + i]), op->dim * sizeof *s->x);
    if ((code = multiply(s, e->w1, s->x, s->a, count)) != CKPT_OK ||
        (code = multiply(s, e->w3, s->x, s->b, count)) != CKPT_OK)
        return code;
    activate(s, e, first, count);
    if ((code = multiply(s, e->w2, s->a, s->y, count)) != CKPT_OK)
        return code;
    for (uint64_t i = 0; i < count; i++) {
        float *y = cpu_row(op->y, e->rows[first + i]);

        for (uint32_t j = 0; j < op->dim; j++)
            y[j] += s->y[i * op->dim + j];
    }
    return CKPT_OK;
}

ckpt_code experts_cpu(run_backend *backend, const run_experts *op, ckpt_error *err)
{
    const size_t floats = ROWS_TOGETHER * 2 * ((size_t)op->dim + op->expert_dim);
    float *memory = malloc(floats * sizeof *memory);
    ckpt_code code = CKPT_OK;
    expert_job s = { .cpu = cpu_of(backend), .op = op, .err = err };

    if (memory == NULL)
        return ckpt_fail_memory(err, "expert rows", floats * sizeof *memory);
    s.x = memory;
    s.y = s.x + ROWS_TOGETHER * (size_t)op->dim;
    s.a = s.y + ROWS_TOGETHER * (size_t)op->dim;
    s.b = s.a + ROWS_TOGETHER * (size_t)op->expert_dim;
    for (size_t e = 0; e < op->expert_count && code == CKPT_OK; e++) {
        const run_expert *expert = &op->experts[e];

        for (uint64_t i = 0; i < expert->row_count && code == CKPT_OK; i += ROWS_TOGETHER)
            code = run_rows_of(&s, expert, i, size_min(ROWS_TOGETHER, expert->row_count - i));
    }
    free(memory);
    return code;
}
