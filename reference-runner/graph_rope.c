/* graph_rope.c: rotary angles: the frequencies of both kinds, and tables of cos and sin. */
#include <math.h>
#include <stdlib.h>

#include "model.h"

enum { ROPE_AHEAD = 64 };

/* The dimension whose angle makes `turns` full turns over the original length. */
static double turning_dimension(const run_config *c, double turns)
{
    const double pi = 3.14159265358979323846;

    return c->rope_dim * log((double)c->original_length / (turns * 2 * pi)) /
           (2 * log(c->compress_theta));
}

/* YaRN: divide low frequencies by the factor, keep high ones, and use a ramp in between. */
static void stretch(const run_config *c, float *frequencies)
{
    const double last = c->rope_dim - 1;
    double low = floor(turning_dimension(c, c->beta_fast));
    double high = ceil(turning_dimension(c, c->beta_slow));

    low = low > 0 ? low : 0;
    high = high < last ? high : last;
    if (low == high)
        high += 0.001;
    for (uint32_t i = 0; i < c->rope_dim / 2; i++) {
        float ramp = (float)(((double)i - low) / (high - low));
        float keep;

        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        keep = 1 - ramp;
        frequencies[i] =
            frequencies[i] / (float)c->rope_factor * (1 - keep) + frequencies[i] * keep;
    }
}

/* The powers are computed in F64 and rounded to F32 once, so that all machines agree. */
ckpt_code rope_tables(run_model *model, ckpt_error *err)
{
    const run_config *c = model->config;
    const double bases[2] = { c->rope_theta, c->compress_theta };

    for (int i_table = 0; i_table < 2; i_table++) {
        float *f = malloc(c->rope_dim / 2 * sizeof *f);

        if (f == NULL)
            return ckpt_fail_memory(err, "rotary frequencies", c->rope_dim);
        for (uint32_t i = 0; i < c->rope_dim / 2; i++)
            f[i] = 1.0f / (float)pow(bases[i_table], 2.0 * i / c->rope_dim);
        model->frequencies[i_table] = f;
    }
    if (c->original_length > 0)
        stretch(c, model->frequencies[1]);
    model->fixed_bytes += 2 * (ROPE_TABLE_STEP + ROPE_AHEAD) * c->rope_dim * sizeof(float);
    return CKPT_OK;
}

/* Fill rows [first, first + count) of a table from position `position` on. */
static void fill_angles(const run_model *model, int is_yarn, uint64_t position, uint64_t count,
                        float *angles)
{
    const uint32_t pairs = model->config->rope_dim / 2;
    const float *frequencies = model->frequencies[is_yarn];

    for (uint64_t t = 0; t < count; t++) {
        const float p = (float)(position + t);

        for (uint32_t i = 0; i < pairs; i++) {
            const float angle = p * frequencies[i];   /* rounded to F32, as in training */

            angles[(t * pairs + i) * 2] = (float)cos((double)angle);
            angles[(t * pairs + i) * 2 + 1] = (float)sin((double)angle);
        }
    }
}

/*
 * Make the table for the positions [begin, end) and ROPE_AHEAD more, so that generating token by
 * token seldom needs a new one. Its memory is accounted in batch_bytes; that of the extra rows, in
 * rope_tables.
 */
static ckpt_code make_table(run_model *model, int is_yarn, uint64_t begin, uint64_t end,
                            ckpt_error *err)
{
    const run_backend_ops *ops = model->backend->ops;
    const uint32_t width = model->config->rope_dim;
    rope_table *known = &model->rope[is_yarn];
    const uint64_t count = end - begin + ROPE_AHEAD;
    float *angles;
    ckpt_code code = CKPT_OK;

    if (count > known->capacity) {
        ops->buffer_free(model->backend, known->angles);
        *known = (rope_table){ .angles = NULL };
        if ((code = ops->buffer_create(model->backend, count * width, &known->angles, err)) !=
            CKPT_OK)
            return code;
        known->capacity = count;
    }
    if ((angles = malloc(count * width * sizeof *angles)) == NULL)
        return ckpt_fail_memory(err, "rotary angles", count);
    fill_angles(model, is_yarn, begin, count, angles);
    code = ops->buffer_write(known->angles, 0, angles, count * width, err);
    free(angles);
    known->begin = begin;
    known->end = code == CKPT_OK ? begin + count : begin;
    return code;
}

ckpt_code rope_angles(run_model *model, const rope_range *range, run_rows *out, ckpt_error *err)
{
    const uint32_t width = model->config->rope_dim;
    const rope_table *known = &model->rope[range->is_yarn];
    ckpt_code code = CKPT_OK;

    if (range->begin < known->begin || range->end > known->end)
        code = make_table(model, range->is_yarn, range->begin, range->end, err);
    *out = (run_rows){ known->angles, (range->position - known->begin) * width,
                       range->step * width };
    return code;
}

void rope_free(run_model *model)
{
    for (int i = 0; i < 2; i++) {
        model->backend->ops->buffer_free(model->backend, model->rope[i].angles);
        free(model->frequencies[i]);
    }
}
