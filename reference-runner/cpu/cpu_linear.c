/* cpu_linear.c: rows times a weight. The weight is decoded BAND_ROWS rows at a time. */
#include "cpu.h"

#include "reference-runner/number.h"
#include "libckpt/size.h"
#include "libckpt/values.h"

enum { BAND_ROWS = 16, TILE_ROWS_MIN = 32 };

/* What each thread has for itself: memory for one decoded band of the weight. */
typedef struct {
    values_reader reader;
    arena scratch;
    float *band;
} linear_worker;

static ckpt_code worker_begin(linear_worker *w, const run_weight *weight, ckpt_error *err)
{
    const uint64_t bytes = BAND_ROWS * ckpt_tensor_cols(&weight->tensor) * sizeof(float);

    if (!arena_init_fixed(&w->scratch, arena_cost(bytes) + values_need(&weight->tensor)))
        return ckpt_fail_memory(err, "a band of a weight", bytes);
    w->band = arena_alloc(&w->scratch, bytes);
    return values_begin(&w->reader, &weight->tensor, &weight->tile, &w->scratch, err);
}

/* Multiply band number `band` of the weight rows by rows [x_range[0], x_range[1]) of x. */
static void multiply_band(const cpu_backend *cpu, linear_worker *w, const cpu_linear_job *job,
                          uint64_t band, const uint64_t x_range[2])
{
    const uint64_t begin = band * BAND_ROWS;
    const uint64_t count = size_min(BAND_ROWS, job->weight_row_count - begin);
    const cpu_product product = {
        .x = job->x + x_range[0] * job->x_pitch,
        .w = w->band,
        .y = job->y + x_range[0] * job->y_pitch + begin,
        .x_pitch = job->x_pitch,
        .w_pitch = w->reader.cols,
        .y_pitch = job->y_pitch,
        .x_count = x_range[1],
        .w_count = count,
        .depth = w->reader.cols,
        .block = job->block,
    };

    for (uint64_t i = 0; i < count; i++)
        values_f32(&w->reader, job->weight_row + begin + i, 0, w->reader.cols,
                   w->band + i * w->reader.cols);
    cpu->product(&product);
    for (uint64_t t = 0; (job->round || job->scale != 0) && t < product.x_count; t++)
        for (uint64_t i = 0; i < count; i++) {
            float *y = &product.y[t * job->y_pitch + i];

            *y = run_round(*y, job->round);
            if (job->scale != 0)
                *y = run_round(*y * job->scale, job->round);
        }
}

ckpt_code cpu_linear(const cpu_backend *cpu, const run_weight *weight, const cpu_linear_job *job,
                     ckpt_error *err)
{
    const uint64_t bands = size_div_up(job->weight_row_count, BAND_ROWS);
    const uint64_t wanted = size_div_up(4 * (uint64_t)cpu->thread_count, bands);
    const uint64_t pieces = size_max(size_min(wanted, job->row_count / TILE_ROWS_MIN), 1);
    const uint64_t step = size_div_up(job->row_count, pieces);
    const int big = job->row_count * job->weight_row_count * ckpt_tensor_cols(&weight->tensor) >
                    CPU_WORTH_SHARING;
    ckpt_code code = CKPT_OK;

    if (job->row_count == 0)
        return CKPT_OK;
#pragma omp parallel num_threads(cpu->thread_count) if (big)
    {
        linear_worker w = { 0 };
        ckpt_error e;
        const ckpt_code began = worker_begin(&w, weight, &e);

#pragma omp for schedule(dynamic)
        for (uint64_t i = 0; i < bands * pieces; i++) {
            const uint64_t first = i / bands * step;
            const uint64_t range[2] = { first,
                                        first < job->row_count
                                            ? size_min(step, job->row_count - first)
                                            : 0 };

            if (began == CKPT_OK && range[1] > 0)
                multiply_band(cpu, &w, job, i % bands, range);
        }
        if (began != CKPT_OK) {
#pragma omp critical
            {
                code = began;
                if (err != NULL)
                    *err = e;
            }
        }
        arena_release(&w.scratch);
    }
    return code;
}
