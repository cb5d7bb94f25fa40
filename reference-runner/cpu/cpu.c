/* cpu.c: the CPU backend: buffers and weights in memory; OpenMP distributes rows over threads. */
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/clock.h"
#include "reference-runner/number.h"
#include "reference-runner/plain.h"
#include "libckpt/machine.h"
#include "libckpt/size.h"
#include "libckpt/values.h"

enum { STAGE_ALIGN = 64 };

static ckpt_code open_cpu(unsigned thread_count, unsigned device, run_backend **out,
                          ckpt_error *err)
{
    cpu_backend *cpu = calloc(1, sizeof *cpu);

    (void)device;
    if (cpu == NULL)
        return ckpt_fail_memory(err, "a backend", sizeof *cpu);
    if (kernels_require(err) != CKPT_OK) {
        free(cpu);
        return CKPT_E_USAGE;
    }
    cpu->base.ops = &run_backend_cpu;
    cpu->thread_count = thread_count > 0 ? (int)thread_count : (int)machine_cores();
    cpu_choose(cpu);
    cpu->lap_begin = clock_seconds();
    *out = &cpu->base;
    return CKPT_OK;
}

static ckpt_code lap_cpu(run_backend *backend, int is_waiting, run_lap *out, ckpt_error *err)
{
    cpu_backend *cpu = (cpu_backend *)(void *)backend;
    const double time = clock_seconds();

    (void)is_waiting;
    (void)err;
    *out = (run_lap){ .seconds = time - cpu->lap_begin };
    cpu->lap_begin = time;
    return CKPT_OK;
}

static void close_cpu(run_backend *backend)
{
    free(backend);
}

/* ---- buffers and weights ---- */

static ckpt_code buffer_create_cpu(run_backend *backend, uint64_t count, run_buffer **out,
                                   ckpt_error *err)
{
    run_buffer *b = malloc(sizeof *b);

    (void)backend;
    if (b == NULL || count > SIZE_MAX / sizeof(float) ||
        (b->data = calloc(count + 1, sizeof(float))) == NULL) {
        free(b);
        return ckpt_fail_memory(err, "a buffer", count * sizeof(float));
    }
    b->count = count;
    *out = b;
    return CKPT_OK;
}

static void buffer_free_cpu(run_backend *backend, run_buffer *buffer)
{
    (void)backend;
    if (buffer == NULL)
        return;
    free(buffer->data);
    free(buffer);
}

static ckpt_code buffer_write_cpu(run_buffer *buffer, uint64_t first, const void *from,
                                  uint64_t count, ckpt_error *err)
{
    (void)err;
    memcpy(buffer->data + first, from, count * sizeof(float));
    return CKPT_OK;
}

static ckpt_code buffer_read_cpu(const run_buffer *buffer, uint64_t first, void *out,
                                 uint64_t count, ckpt_error *err)
{
    (void)err;
    memcpy(out, buffer->data + first, count * sizeof(float));
    return CKPT_OK;
}

static ckpt_code buffer_pass_cpu(const run_buffer *from, run_buffer *to, uint64_t count,
                                 ckpt_error *err)
{
    return buffer_read_cpu(from, 0, to->data, count, err);
}

static ckpt_code buffer_zero_cpu(run_buffer *buffer, uint64_t first, uint64_t count,
                                 ckpt_error *err)
{
    (void)err;
    memset(buffer->data + first, 0, count * sizeof(float));
    return CKPT_OK;
}

static ckpt_code stage_create_cpu(run_backend *backend, uint64_t bytes, run_stage **out,
                                  ckpt_error *err)
{
    run_stage *s = malloc(sizeof *s);

    (void)backend;
    if (s == NULL || (s->memory = aligned_alloc(STAGE_ALIGN, size_div_up(bytes, STAGE_ALIGN) *
                                                                 STAGE_ALIGN)) == NULL) {
        free(s);
        return ckpt_fail_memory(err, "a tile", bytes);
    }
    s->bytes = bytes;
    *out = s;
    return CKPT_OK;
}

static ckpt_code stage_wait_cpu(run_stage *stage, ckpt_error *err)
{
    (void)stage;
    (void)err;
    return CKPT_OK;
}

static void stage_free_cpu(run_backend *backend, run_stage *stage)
{
    (void)backend;
    if (stage == NULL)
        return;
    free(stage->memory);
    free(stage);
}

/* Rows are decoded by the table of encodings, so all that it has are taken. */
static int takes_cpu(const ckpt_tensor *tensor)
{
    (void)tensor;
    return 1;
}

static void weights_reserve_cpu(run_backend *backend, uint64_t bytes)
{
    (void)backend;
    (void)bytes;
}

static void weight_free_cpu(run_backend *backend, run_weight *weight)
{
    (void)backend;
    if (weight == NULL)
        return;
    for (int part = 0; part < CKPT_PART_COUNT; part++)
        free(weight->tile.part[part]);
    free(weight);
}

static ckpt_code weight_create_cpu(run_backend *backend, const ckpt_tensor *tensor,
                                   uint64_t row_count, run_weight **out, ckpt_error *err)
{
    run_weight *w = calloc(1, sizeof *w);

    if (w == NULL)
        return ckpt_fail_memory(err, "a weight", sizeof *w);
    w->tensor = *tensor;
    w->tensor.rank = 2;
    w->tensor.shape[0] = row_count;
    w->tensor.shape[1] = ckpt_tensor_cols(tensor);
    for (int part = 0; part < CKPT_PART_COUNT; part++) {
        const uint64_t bytes = ckpt_part_bytes(&w->tensor, (ckpt_part)part);

        w->tile.part_bytes[part] = bytes;
        if (bytes > 0 && (w->tile.part[part] = malloc(bytes)) == NULL) {
            weight_free_cpu(backend, w);
            return ckpt_fail_memory(err, "a weight", bytes);
        }
    }
    *out = w;
    return CKPT_OK;
}

static ckpt_code weight_put_cpu(run_weight *weight, uint64_t row, uint64_t row_count,
                                const ckpt_tile *tile, run_stage *stage, ckpt_error *err)
{
    const ckpt_tensor *t = &weight->tensor;
    const source_range range = { 0, row, row_count, SOURCE_WANT_ALL };

    (void)err;
    (void)stage;
    for (int part = 0; part < CKPT_PART_COUNT; part++) {
        const uint64_t row_bytes = ckpt_part_row_bytes(t, (ckpt_part)part);
        uint64_t first;
        uint64_t count;

        if (weight->tile.part[part] == NULL)
            continue;
        source_part_rows(t, (ckpt_part)part, &range, &first, &count);
        memcpy((char *)weight->tile.part[part] + first * row_bytes, tile->part[part],
               count * row_bytes);
    }
    return CKPT_OK;
}

static ckpt_code linear_cpu(run_backend *backend, const run_linear *op, ckpt_error *err)
{
    const uint64_t rows = op->group_rows == 0 ? op->weight_row_count : op->group_rows;
    ckpt_code code = CKPT_OK;

    for (uint64_t done = 0; done < op->weight_row_count && code == CKPT_OK; done += rows) {
        const cpu_linear_job job = {
            .x = cpu_row(op->x, 0) + done / rows * op->group_step,
            .y = cpu_row(op->y, 0) + done,
            .x_pitch = op->x.pitch,
            .y_pitch = op->y.pitch,
            .row_count = op->row_count,
            .weight_row = op->weight_row + done,
            .weight_row_count = size_min(rows, op->weight_row_count - done),
            .block = op->block,
            .scale = op->scale,
            .round = op->round,
        };

        code = cpu_linear(cpu_of(backend), op->weight, &job, err);
    }
    if (code != CKPT_OK || op->other_weight == NULL)
        return code;
    const run_linear other = run_linear_other(op);

    return linear_cpu(backend, &other, err);
}

/* ---- operations on rows: plain.c for each row ---- */

static ckpt_code quantise_cpu(run_backend *backend, const run_quantise *op, ckpt_error *err)
{
    (void)err;
#pragma omp parallel for num_threads(cpu_of(backend)->thread_count)                             \
    if (cpu_worth(op->row_count, op->col_count))
    for (uint64_t t = 0; t < op->row_count; t++)
        plain_quantise(cpu_row(op->x, t), cpu_row(op->y, t), op);
    return CKPT_OK;
}

static ckpt_code norm_cpu(run_backend *backend, const run_norm *op, ckpt_error *err)
{
#pragma omp parallel for num_threads(cpu_of(backend)->thread_count)                             \
    if (cpu_worth(op->row_count, op->col_count))
    for (uint64_t t = 0; t < op->row_count; t++)
        plain_norm(cpu_row(op->x, t), op->weight == NULL ? NULL : op->weight->data,
                   cpu_row(op->y, t), op);
    if (op->quantised.buffer == NULL)
        return CKPT_OK;
    const run_quantise quantise = run_norm_quantise(op);

    return quantise_cpu(backend, &quantise, err);
}

static ckpt_code rope_cpu(run_backend *backend, const run_rope *op, ckpt_error *err)
{
    (void)err;
#pragma omp parallel for num_threads(cpu_of(backend)->thread_count)                             \
    if (cpu_worth(op->row_count, op->head_count * op->rope_dim))
    for (uint64_t t = 0; t < op->row_count; t++)
        for (uint32_t h = 0; h < op->head_count; h++)
            plain_rope(cpu_row(op->x, t) + (size_t)h * op->head_dim,
                       cpu_row(op->angles, t), op);
    return CKPT_OK;
}

static ckpt_code hadamard_cpu(run_backend *backend, const run_hadamard *op, ckpt_error *err)
{
    (void)err;
#pragma omp parallel for num_threads(cpu_of(backend)->thread_count)                             \
    if (cpu_worth(op->row_count, op->head_count * op->width))
    for (uint64_t t = 0; t < op->row_count; t++)
        for (uint32_t h = 0; h < op->head_count; h++)
            plain_hadamard(cpu_row(op->x, t) + (size_t)h * op->width, op->width, op->round);
    return CKPT_OK;
}

static ckpt_code ring_put_cpu(run_backend *backend, const run_ring_put *op, ckpt_error *err)
{
    (void)backend;
    (void)err;
    for (uint64_t t = 0; t < op->row_count; t++) {
        const uint64_t p = op->position + t;
        const float *add = op->add == NULL ? NULL
                                           : op->add->data + p % op->add_rows * op->ring.width;
        float *to = cpu_ring_row(&op->ring, p);

        memcpy(to, cpu_row(op->x, t), op->ring.width * sizeof *to);
        for (uint64_t i = 0; add != NULL && i < op->ring.width; i++)
            to[i] += add[i];
    }
    return CKPT_OK;
}

static plain_streams streams_row(const run_streams *op, uint64_t t)
{
    return (plain_streams){
        .x = cpu_row(op->x, t),
        .mix = cpu_row(op->mix, t),
        .scale = op->scale->data,
        .base = op->base->data,
        .u = cpu_row(op->u, t),
        .post = op->post.buffer == NULL ? NULL : cpu_row(op->post, t),
        .comb = op->comb.buffer == NULL ? NULL : cpu_row(op->comb, t),
    };
}

static ckpt_code streams_cpu(run_backend *backend, const run_streams *op,
                             void (*one_row)(const plain_streams *row, const run_streams *op))
{
#pragma omp parallel for num_threads(cpu_of(backend)->thread_count)                             \
    if (cpu_worth(op->row_count, op->stream_count * op->dim))
    for (uint64_t t = 0; t < op->row_count; t++) {
        const plain_streams row = streams_row(op, t);

        one_row(&row, op);
    }
    return CKPT_OK;
}

static ckpt_code hc_pre_cpu(run_backend *backend, const run_streams *op, ckpt_error *err)
{
    (void)err;
    return streams_cpu(backend, op, plain_hc_pre);
}

static ckpt_code hc_head_cpu(run_backend *backend, const run_streams *op, ckpt_error *err)
{
    (void)err;
    return streams_cpu(backend, op, plain_hc_head);
}

static ckpt_code hc_post_cpu(run_backend *backend, const run_streams_post *op, ckpt_error *err)
{
    (void)err;
#pragma omp parallel for num_threads(cpu_of(backend)->thread_count)                             \
    if (cpu_worth(op->row_count, op->stream_count * op->dim))
    for (uint64_t t = 0; t < op->row_count; t++)
        plain_hc_post(cpu_row(op->x, t), cpu_row(op->y, t), cpu_row(op->post, t),
                      cpu_row(op->comb, t), op);
    return CKPT_OK;
}

static ckpt_code add_cpu(run_backend *backend, const run_add *op, ckpt_error *err)
{
    (void)err;
#pragma omp parallel for num_threads(cpu_of(backend)->thread_count)                             \
    if (cpu_worth(op->row_count, op->col_count))
    for (uint64_t t = 0; t < op->row_count; t++) {
        const float *a = cpu_row(op->a, t / op->repeat);
        const float *b = op->b.buffer == NULL ? NULL : cpu_row(op->b, t);
        float *y = cpu_row(op->y, t);

        for (uint64_t i = 0; i < op->col_count; i++)
            y[i] = run_round(b == NULL ? a[i] : a[i] + b[i], op->round);
    }
    return CKPT_OK;
}

const run_backend_ops run_backend_cpu = {
    .name = "cpu",
    .open = open_cpu,
    .close = close_cpu,
    .lap = lap_cpu,
    .stage_create = stage_create_cpu,
    .stage_wait = stage_wait_cpu,
    .stage_free = stage_free_cpu,
    .takes = takes_cpu,
    .weights_reserve = weights_reserve_cpu,
    .buffer_create = buffer_create_cpu,
    .buffer_free = buffer_free_cpu,
    .buffer_write = buffer_write_cpu,
    .buffer_read = buffer_read_cpu,
    .buffer_pass = buffer_pass_cpu,
    .buffer_zero = buffer_zero_cpu,
    .weight_create = weight_create_cpu,
    .weight_put = weight_put_cpu,
    .weight_free = weight_free_cpu,
    .linear = linear_cpu,
    .quantise = quantise_cpu,
    .norm = norm_cpu,
    .rope = rope_cpu,
    .hadamard = hadamard_cpu,
    .ring_put = ring_put_cpu,
    .pool = pool_cpu,
    .select = select_cpu,
    .attend = attend_cpu,
    .hc_pre = hc_pre_cpu,
    .hc_post = hc_post_cpu,
    .hc_head = hc_head_cpu,
    .route = route_cpu,
    .experts = experts_cpu,
    .add = add_cpu,
};
