/* plain.c: the operations in plain C. They define every bit; simple comes before fast. */
#include "plain.h"

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "number.h"
#include "libckpt/size.h"

enum { QUANTISE_BLOCK_MAX = 128 };

/* Sum of a[i] * b[i], in ascending order. */
static double plain_dot(const float *a, const float *b, size_t count)
{
    double sum = 0;

    for (size_t k = 0; k < count; k++)
        sum += (double)a[k] * (double)b[k];
    return sum;
}

/*
 * The sum of squares of a row, in an order that allows parallel work on a single row: lane i of 256
 * adds the columns i, i + 256, ...; then lane i + 128 is added to lane i, then i + 64, and so on.
 */
static double square_sum(const float *x, size_t count, int is_bf16)
{
    enum { LANES = 256 };
    double lane[LANES] = { 0 };

    for (size_t k = 0; k < count; k++) {
        const double square = is_bf16 ? (double)run_bf16(x[k] * x[k]) : (double)x[k] * (double)x[k];

        lane[k % LANES] += square;
    }
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

float plain_product(const float *x, const float *w, size_t depth, size_t block)
{
    const size_t step = block == 0 ? depth : block;
    float sum = 0;

    for (size_t k = 0; k < depth; k += step)
        sum += (float)plain_dot(x + k, w + k, size_min(step, depth - k));
    return sum;
}

/* ---- rounding, scaling, rotating ---- */

static float block_scale(const float *x, size_t count, run_grid grid)
{
    float amax = 0;

    for (size_t i = 0; i < count; i++)
        amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    if (grid == RUN_E4M3)
        return fp8_scale_pow2(amax);
    return ldexpf(1.0f, (int)fp4_scale_code(amax) - 127);
}

void plain_quantise(const float *x, float *y, const run_quantise *op)
{
    const ckpt_kernels *kernels = kernels_get();
    float scaled[QUANTISE_BLOCK_MAX];
    uint8_t codes[QUANTISE_BLOCK_MAX];

    for (size_t col = 0; col < op->col_count; col += op->block) {
        const size_t count = size_min(op->block, op->col_count - col);
        const float scale = block_scale(x + col, count, op->grid);

        for (size_t i = 0; i < count; i++)
            scaled[i] = x[col + i] / scale;
        if (op->grid == RUN_E4M3) {
            kernels->f32_to_e4m3(scaled, codes, count);
            kernels->e4m3_to_f32(codes, scaled, count);
        } else {
            kernels->f32_to_e2m1(scaled, codes, count);
            kernels->e2m1_to_f32(codes, scaled, count);
        }
        for (size_t i = 0; i < count; i++)
            y[col + i] = scaled[i] * scale;
    }
}

static float mean_square(const float *x, size_t count)
{
    return (float)(square_sum(x, count, 0) / (double)count);
}

/* DeepSeek's per-head query norm: a chain of BF16 operations. */
static void norm_bf16_chain(const float *x, float *y, const run_norm *op)
{
    float g = run_bf16((float)(square_sum(x, op->col_count, 1) / (double)op->col_count));

    g = run_bf16(1.0f / sqrtf(run_bf16(g + op->eps)));
    for (size_t i = 0; i < op->col_count; i++)
        y[i] = run_bf16(x[i] * g);
}

void plain_norm(const float *x, const float *weight, float *y, const run_norm *op)
{
    float factor;

    if (weight == NULL && op->round) {
        norm_bf16_chain(x, y, op);
        return;
    }
    factor = 1.0f / sqrtf(mean_square(x, op->col_count) + op->eps);
    for (size_t i = 0; i < op->col_count; i++) {
        const float scaled = x[i] * factor;

        y[i] = run_round(weight == NULL ? scaled : weight[i] * scaled, op->round);
    }
}

void plain_rope(float *x, const float *angles, const run_rope *op)
{
    float *rotary = x + op->head_dim - op->rope_dim;

    for (uint32_t i = 0; i < op->rope_dim; i += 2) {
        const float a = rotary[i];
        const float b = rotary[i + 1];
        const float c = angles[i];
        const float s = op->inverse ? -angles[i + 1] : angles[i + 1];

        rotary[i] = run_round(a * c - b * s, op->round);
        rotary[i + 1] = run_round(a * s + b * c, op->round);
    }
}

void plain_hadamard(float *x, uint32_t width, int round)
{
    const float factor = (float)(1.0 / sqrt((double)width));

    for (uint32_t half = 1; half < width; half *= 2)
        for (uint32_t i = 0; i < width; i++)
            if ((i & half) == 0) {
                const float a = x[i];
                const float b = x[i + half];

                x[i] = a + b;
                x[i + half] = a - b;
            }
    for (uint32_t i = 0; i < width; i++)
        x[i] = run_round(x[i] * factor, round);
}

/* ---- compressor and indexer ---- */

void plain_pool(const float *const *k, const float *const *s, size_t count, float *y,
                const run_pool *op)
{
    for (uint32_t j = 0; j < op->width; j++) {
        float max = s[0][j];
        double weight_sum = 0;
        double sum = 0;

        for (size_t i = 1; i < count; i++)
            max = s[i][j] > max ? s[i][j] : max;
        for (size_t i = 0; i < count; i++) {
            const float p = run_expf(s[i][j] - max);

            weight_sum += (double)p;
            sum += (double)p * (double)k[i][j];
        }
        y[j] = run_round((float)(sum / weight_sum), op->round);
    }
}

float plain_score(const float *q, const float *weights, const float *key, const run_select *op)
{
    double sum = 0;

    for (uint32_t h = 0; h < op->head_count; h++) {
        const float dot =
            run_round((float)plain_dot(q + (size_t)h * op->width, key, op->width), op->round);
        const float open = dot > 0 ? dot : 0;

        sum += op->round ? (double)run_bf16(open * weights[h])
                         : (double)open * (double)weights[h];
    }
    return run_round((float)sum, op->round);
}

static float relative_gap(float last, float next)
{
    const float larger = fmaxf(fabsf(last), fabsf(next));

    return last == next ? 0 : (last - next) / larger;
}

/* The index of the best score that is not taken yet. */
static size_t next_best(const float *scores, size_t count, const unsigned char *taken)
{
    size_t best = count;

    for (size_t i = 0; i < count; i++)
        if (!taken[i] && (best == count || scores[i] > scores[best]))
            best = i;
    return best;
}

float plain_best(const float *scores, size_t count, uint32_t wanted, int32_t *chosen,
                 unsigned char *taken)
{
    size_t last = 0;
    size_t used = 0;

    memset(taken, wanted >= count, count);
    for (uint32_t n = 0; wanted < count && n < wanted; n++) {
        last = next_best(scores, count, taken);
        taken[last] = 1;
    }
    for (size_t i = 0; i < count; i++)
        if (taken[i])
            chosen[used++] = (int32_t)i;
    while (used < wanted)
        chosen[used++] = -1;
    if (wanted >= count)
        return INFINITY;
    return relative_gap(scores[last], scores[next_best(scores, count, taken)]);
}

/* ---- attention ---- */

float plain_softmax(float *scores, size_t count, float sink)
{
    enum { SINK_LEAD_MAX = 80 };
    float max = scores[0];
    double sum = 0;

    for (size_t j = 1; j < count; j++)
        max = scores[j] > max ? scores[j] : max;
    if (sink - max > SINK_LEAD_MAX)
        max = sink;
    for (size_t j = 0; j < count; j++) {
        scores[j] = run_expf(scores[j] - max);
        sum += (double)scores[j];
    }
    return (float)(sum + (double)run_expf(sink - max));
}

void plain_attend(const plain_head *head, const run_attend *op)
{
    const size_t count = head->count;
    float *scores = head->scores;
    float denominator;

    for (size_t j = 0; j < count; j++)
        scores[j] = (float)plain_dot(head->q, head->list[j], op->head_dim) * op->scale;
    denominator = plain_softmax(scores, count, head->sink);
    for (size_t j = 0; j < count; j++)
        scores[j] = run_round(scores[j], op->round);
    for (uint32_t i = 0; i < op->head_dim; i++) {
        double sum = 0;

        for (size_t j = 0; j < count; j++)
            sum += (double)scores[j] * (double)head->list[j][i];
        head->y[i] = run_round((float)sum / denominator, op->round);
    }
}

/* ---- hyper-connections ---- */

static float stream_factor(const float *x, const run_streams *op)
{
    return 1.0f / sqrtf(mean_square(x, (size_t)op->stream_count * op->dim) + op->norm_eps);
}

static void mix_streams(const float *x, const float *weights, const run_streams *op, float *u)
{
    for (uint32_t j = 0; j < op->dim; j++) {
        float sum = 0;

        for (uint32_t n = 0; n < op->stream_count; n++)
            sum += weights[n] * x[(size_t)n * op->dim + j];
        u[j] = run_round(sum, op->round);
    }
}

/* Divide each line of `count` elements, `step` apart, by its sum plus eps. */
static void normalise_lines(float *c, uint32_t count, uint32_t line, uint32_t step, float eps)
{
    for (uint32_t i = 0; i < count; i++) {
        float sum = 0;

        for (uint32_t j = 0; j < count; j++)
            sum += c[i * line + j * step];
        for (uint32_t j = 0; j < count; j++)
            c[i * line + j * step] /= sum + eps;
    }
}

static void sinkhorn(float *c, const run_streams *op)
{
    const uint32_t count = op->stream_count;

    for (uint32_t i = 0; i < count; i++) {
        float max = c[i * count];

        for (uint32_t o = 1; o < count; o++)
            max = c[i * count + o] > max ? c[i * count + o] : max;
        for (uint32_t o = 0; o < count; o++)
            c[i * count + o] = run_expf(c[i * count + o] - max);
    }
    normalise_lines(c, count, count, 1, 0);
    for (uint32_t i = 0; i < count * count; i++)
        c[i] += op->hc_eps;
    normalise_lines(c, count, 1, count, op->hc_eps);
    for (uint32_t n = 1; n < op->iters; n++) {
        normalise_lines(c, count, count, 1, op->hc_eps);
        normalise_lines(c, count, 1, count, op->hc_eps);
    }
}

void plain_hc_pre(const plain_streams *row, const run_streams *op)
{
    const uint32_t count = op->stream_count;
    const float rho = stream_factor(row->x, op);
    const float *mix = row->mix;
    const float *scale = row->scale;
    const float *base = row->base;
    float pre[RUN_STREAM_LIMIT];

    for (uint32_t n = 0; n < count; n++) {
        pre[n] = run_sigmoid(mix[n] * rho * scale[0] + base[n]) + op->hc_eps;
        row->post[n] = 2 * run_sigmoid(mix[count + n] * rho * scale[1] + base[count + n]);
    }
    for (uint32_t i = 0; i < count * count; i++)
        row->comb[i] = mix[2 * count + i] * rho * scale[2] + base[2 * count + i];
    sinkhorn(row->comb, op);
    mix_streams(row->x, pre, op, row->u);
}

void plain_hc_head(const plain_streams *row, const run_streams *op)
{
    const float rho = stream_factor(row->x, op);
    float weights[RUN_STREAM_LIMIT];

    for (uint32_t n = 0; n < op->stream_count; n++)
        weights[n] =
            run_sigmoid(row->mix[n] * rho * row->scale[0] + row->base[n]) + op->hc_eps;
    mix_streams(row->x, weights, op, row->u);
}

void plain_hc_post(float *x, const float *y, const float *post, const float *comb,
                   const run_streams_post *op)
{
    const uint32_t count = op->stream_count;
    float in[RUN_STREAM_LIMIT];

    for (uint32_t j = 0; j < op->dim; j++) {
        for (uint32_t i = 0; i < count; i++)
            in[i] = x[(size_t)i * op->dim + j];
        for (uint32_t o = 0; o < count; o++) {
            float sum = 0;

            for (uint32_t i = 0; i < count; i++)
                sum += comb[i * count + o] * in[i];
            x[(size_t)o * op->dim + j] = run_round(post[o] * y[j] + sum, op->round);
        }
    }
}

/* ---- experts ---- */

/* Choose the active_count best experts; returns the gap (run_route). */
static float route_best(const plain_token *token, float *biased, const run_route *op)
{
    float last = 0;

    for (uint32_t i = 0; i <= op->active_count; i++) {
        uint32_t best = 0;

        if (i == op->expert_count)
            return INFINITY;
        for (uint32_t e = 1; e < op->expert_count; e++)
            if (biased[e] > biased[best])
                best = e;
        if (i == op->active_count)
            return relative_gap(last, biased[best]);
        token->ids[i] = (int32_t)best;
        last = biased[best];
        biased[best] = -INFINITY;
    }
    return INFINITY;
}

float plain_route(const plain_token *token, const run_route *op)
{
    float *g = token->scores;
    float *biased = g + op->expert_count;
    float gap = INFINITY;
    float sum = 0;

    for (uint32_t e = 0; e < op->expert_count; e++) {
        g[e] = sqrtf(run_softplus(token->logits[e]));
        biased[e] = g[e] + (token->bias == NULL ? 0 : token->bias[e]);
    }
    if (token->table == NULL)
        gap = route_best(token, biased, op);
    else
        memcpy(token->ids, token->table, op->active_count * sizeof *token->ids);
    for (uint32_t i = 0; i < op->active_count; i++)
        sum += g[token->ids[i]];
    for (uint32_t i = 0; i < op->active_count; i++)
        token->weights[i] = g[token->ids[i]] / sum * op->route_scale;
    return gap;
}

void plain_swiglu(float *a, const float *b, float factor, const run_experts *op)
{
    for (uint32_t i = 0; i < op->expert_dim; i++) {
        float gate = a[i];
        float up = b[i];

        if (op->limit > 0) {
            gate = gate > op->limit ? op->limit : gate;
            up = up > op->limit ? op->limit : up < -op->limit ? -op->limit : up;
        }
        a[i] = run_round(factor * (gate * run_sigmoid(gate) * up), op->round);
    }
}
