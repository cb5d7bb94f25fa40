/* Rotary angles: the frequencies of the two tables, and cos and sin of positions. */
#include <math.h>
#include <stdlib.h>

#include "model.h"

/* The dimension at which a rotation makes `turns` turns over the original length. */
static double turning_dimension(const run_config *c, double turns)
{
    const double pi = 3.14159265358979323846;

    return c->rope_dim * log((double)c->original_length / (turns * 2 * pi)) /
           (2 * log(c->compress_theta));
}

/* YaRN: low frequencies are divided by the factor, high ones stay, a ramp in between. */
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

/* Powers in F64, rounded to F32 once: the same on every machine. */
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
    return CKPT_OK;
}

ckpt_code rope_angles(run_model *model, const rope_range *range, ckpt_error *err)
{
    const uint32_t pairs = model->config->rope_dim / 2;
    const float *frequencies = model->frequencies[range->is_yarn];
    float *angles = malloc((range->count * pairs * 2 + 1) * sizeof *angles);
    ckpt_code code;

    if (angles == NULL)
        return ckpt_fail_memory(err, "rotary angles", range->count);
    for (uint64_t t = 0; t < range->count; t++) {
        const float p = (float)(range->position + t * range->step);

        for (uint32_t i = 0; i < pairs; i++) {
            const float angle = p * frequencies[i];   /* rounded to F32, as the model was trained */

            angles[(t * pairs + i) * 2] = (float)cos((double)angle);
            angles[(t * pairs + i) * 2 + 1] = (float)sin((double)angle);
        }
    }
    code = model->backend->ops->buffer_write(model->scratch.angles, 0, angles,
                                             range->count * pairs * 2, err);
    free(angles);
    return code;
}
