/* cpu_attend.c: compressor, indexer and attention on the CPU. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "reference-runner/number.h"
#include "reference-runner/plain.h"
#include "libckpt/size.h"

enum { SLOTS_MAX = 128, CANDIDATES = 64, HEADS_TOGETHER = 16 };

/* ---- compressor ---- */

static void pool_entry(const run_pool *op, uint64_t i)
{
    const uint64_t first = (op->entry + i) * op->ratio;
    const float *k[2 * SLOTS_MAX];
    const float *s[2 * SLOTS_MAX];
    size_t count = 0;

    for (uint64_t p = first - op->ratio; op->overlap && op->entry + i > 0 && p < first; p++) {
        k[count] = cpu_ring_row(&op->k, p);
        s[count++] = cpu_ring_row(&op->s, p);
    }
    for (uint64_t p = first; p < first + op->ratio; p++) {
        k[count] = cpu_ring_row(&op->k, p) + (op->overlap ? op->width : 0);
        s[count++] = cpu_ring_row(&op->s, p) + (op->overlap ? op->width : 0);
    }
    plain_pool(k, s, count, cpu_row(op->y, i), op);
}

ckpt_code pool_cpu(run_backend *backend, const run_pool *op, ckpt_error *err)
{
    if (op->ratio > SLOTS_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "a compression ratio of %u", op->ratio);
#pragma omp parallel for num_threads(cpu_of(backend)->thread_count)                             \
    if (cpu_worth(op->entry_count * op->ratio, op->width))
    for (uint64_t i = 0; i < op->entry_count; i++)
        pool_entry(op, i);
    return CKPT_OK;
}

/* ---- indexer ---- */

/* One thread's scratch. */
typedef struct {
    float *dots;             /* head_count x CANDIDATES */
    float *scores;
    uint64_t *keys;
} select_scratch;

/* plain_score of row t for the candidates [range[0], range[1]), at most CANDIDATES of them. */
static void score_candidates(const cpu_backend *cpu, const run_select *op, uint64_t t,
                             const uint64_t range[2], const select_scratch *s)
{
    const float *weights = cpu_row(op->weights, t);
    const uint64_t count = size_min(CANDIDATES, range[1] - range[0]);
    const cpu_product product = {
        .x = cpu_row(op->q, t),
        .w = cpu_row(op->keys, range[0]),
        .y = s->dots,
        .x_pitch = op->width,
        .w_pitch = op->keys.pitch,
        .y_pitch = CANDIDATES,
        .x_count = op->head_count,
        .w_count = count,
        .depth = op->width,
    };

    cpu->product(&product);
    for (uint64_t c = 0; c < count; c++) {
        double sum = 0;

        for (uint32_t h = 0; h < op->head_count; h++) {
            const float dot = run_round(s->dots[h * CANDIDATES + c], op->round);
            const float open = dot > 0 ? dot : 0;

            sum += op->round ? (double)run_bf16(open * weights[h])
                             : (double)open * (double)weights[h];
        }
        s->scores[range[0] + c] = run_round((float)sum, op->round);
    }
}

/* A key that is larger for a better candidate: higher score, then lower index. -0 equals 0. */
static uint64_t rank_key(float score, uint64_t index)
{
    const float plus = score + 0.0f;
    uint32_t bits;

    memcpy(&bits, &plus, sizeof bits);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (0xFFFFFFFFu - (uint32_t)index);
}

static int compare_keys(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left;
    const uint64_t b = *(const uint64_t *)right;

    return a > b ? -1 : a < b;
}

static int compare_ids(const void *left, const void *right)
{
    const int32_t a = *(const int32_t *)left;
    const int32_t b = *(const int32_t *)right;

    return a < b ? -1 : a > b;
}

/* plain_best, by sorting keys. */
static float choose_best(const float *scores, uint64_t count, uint32_t wanted, int32_t *chosen,
                         uint64_t *keys)
{
    const uint64_t taken = size_min(count, wanted);
    float last;
    float next;

    for (uint64_t i = 0; i < count; i++)
        keys[i] = rank_key(scores[i], i);
    if (count > wanted)
        qsort(keys, count, sizeof *keys, compare_keys);
    for (uint64_t i = 0; i < taken; i++)
        chosen[i] = (int32_t)(0xFFFFFFFFu - (uint32_t)keys[i]);
    for (uint64_t i = taken; i < wanted; i++)
        chosen[i] = -1;
    if (count <= wanted)
        return INFINITY;
    last = scores[chosen[wanted - 1]];
    next = scores[0xFFFFFFFFu - (uint32_t)keys[wanted]];
    qsort(chosen, wanted, sizeof *chosen, compare_ids);
    return last == next ? 0 : (last - next) / fmaxf(fabsf(last), fabsf(next));
}

ckpt_code select_cpu(run_backend *backend, const run_select *op, ckpt_error *err)
{
    const uint64_t most = (op->position + op->row_count) / op->ratio;
    int failed = 0;

#pragma omp parallel num_threads(cpu_of(backend)->thread_count)                                 \
    if (cpu_worth(op->row_count * most, op->head_count * op->width / 8))
    {
        const select_scratch s = {
            .dots = malloc((size_t)op->head_count * CANDIDATES * sizeof(float)),
            .scores = malloc((most + 1) * sizeof(float)),
            .keys = malloc((most + 1) * sizeof(uint64_t)),
        };
        const int ready = s.dots != NULL && s.scores != NULL && s.keys != NULL;

#pragma omp for schedule(dynamic)
        for (uint64_t t = 0; t < op->row_count; t++) {
            const uint64_t count = (op->position + t + 1) / op->ratio;

            for (uint64_t c = 0; ready && c < count; c += CANDIDATES)
                score_candidates(cpu_of(backend), op, t, (const uint64_t[]){ c, count }, &s);
            if (ready)
                op->gap->data[t] =
                    choose_best(s.scores, count, op->topk, cpu_int_row(op->chosen, t), s.keys);
        }
        if (!ready) {
#pragma omp atomic write
            failed = 1;
        }
        free(s.dots);
        free(s.scores);
        free(s.keys);
    }
    return failed ? ckpt_fail_memory(err, "index scores", most) : CKPT_OK;
}

/* ---- attention ---- */

/* Copy the vectors that row t attends to into `list`; returns their number. */
static size_t gather_list(const run_attend *op, uint64_t t, float *list)
{
    const uint64_t p = op->position + t;
    const int32_t *chosen = op->chosen.buffer == NULL ? NULL : cpu_int_row(op->chosen, t);
    const size_t bytes = op->head_dim * sizeof *list;
    uint64_t visible = op->entries.buffer == NULL ? 0 : (p + 1) / op->ratio;
    size_t count = 0;

    for (uint64_t at = p + 1 > op->window ? p + 1 - op->window : 0; at <= p; at++)
        memcpy(list + count++ * op->head_dim, cpu_ring_row(&op->window_kv, at), bytes);
    if (chosen != NULL)
        visible = size_min(visible, op->topk);
    for (uint64_t c = 0; c < visible && (chosen == NULL || chosen[c] >= 0); c++)
        memcpy(list + count++ * op->head_dim,
               cpu_row(op->entries, chosen == NULL ? c : (uint64_t)chosen[c]), bytes);
    return count;
}

static uint64_t list_limit(const run_attend *op)
{
    uint64_t count = op->window;

    if (op->entries.buffer != NULL)
        count += op->chosen.buffer != NULL ? op->topk
                                           : (op->position + op->row_count) / op->ratio;
    return count;
}

/* plain_attend for one unit of work: up to HEADS_TOGETHER heads of one row. */
static void attend_heads(const cpu_backend *cpu, const run_attend *op, uint64_t unit,
                         float *list, float *scores)
{
    const uint64_t groups = size_div_up(op->head_count, HEADS_TOGETHER);
    const uint64_t t = unit / groups;
    const uint64_t head = unit % groups * HEADS_TOGETHER;
    const uint64_t heads = size_min(HEADS_TOGETHER, op->head_count - head);
    const size_t count = gather_list(op, t, list);
    float *y = cpu_row(op->y, t) + head * op->head_dim;
    float denominators[HEADS_TOGETHER];
    const cpu_product product = {
        .x = cpu_row(op->q, t) + head * op->head_dim, .w = list, .y = scores,
        .x_pitch = op->head_dim, .w_pitch = op->head_dim, .y_pitch = count,
        .x_count = heads, .w_count = count, .depth = op->head_dim,
    };
    const cpu_mixture mixture = {
        .p = scores, .v = list, .y = y,
        .p_pitch = count, .v_pitch = op->head_dim, .y_pitch = op->head_dim,
        .p_count = heads, .count = count, .width = op->head_dim,
    };

    cpu->product(&product);
    for (uint64_t h = 0; h < heads; h++) {
        float *row = scores + h * count;

        for (size_t j = 0; j < count; j++)
            row[j] *= op->scale;
        denominators[h] = plain_softmax(row, count, op->sink->data[head + h]);
        for (size_t j = 0; j < count; j++)
            row[j] = run_round(row[j], op->round);
    }
    cpu->mixture(&mixture);
    for (uint64_t h = 0; h < heads; h++)
        for (uint32_t i = 0; i < op->head_dim; i++)
            y[h * op->head_dim + i] =
                run_round(y[h * op->head_dim + i] / denominators[h], op->round);
}

ckpt_code attend_cpu(run_backend *backend, const run_attend *op, ckpt_error *err)
{
    const uint64_t units = op->row_count * size_div_up(op->head_count, HEADS_TOGETHER);
    const uint64_t limit = list_limit(op);
    int failed = 0;

#pragma omp parallel num_threads(cpu_of(backend)->thread_count)                                 \
    if (cpu_worth(units * limit, op->head_dim))
    {
        float *list = malloc(limit * op->head_dim * sizeof *list);
        float *scores = malloc(limit * HEADS_TOGETHER * sizeof *scores);

#pragma omp for schedule(dynamic)
        for (uint64_t unit = 0; unit < units; unit++)
            if (list != NULL && scores != NULL)
                attend_heads(cpu_of(backend), op, unit, list, scores);
        if (list == NULL || scores == NULL) {
#pragma omp atomic write
            failed = 1;
        }
        free(list);
        free(scores);
    }
    return failed ? ckpt_fail_memory(err, "attention", limit * op->head_dim) : CKPT_OK;
}
