/* graph_state.c: the buffers of the graph and the accounting of their memory. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "libckpt/size.h"

typedef struct {
    run_buffer **buffer;
    uint64_t count;
} wanted_buffer;

/* Create all buffers or none; adds their size to *bytes. */
static ckpt_code create_all(run_model *model, const wanted_buffer *wanted, size_t count,
                            uint64_t *bytes, ckpt_error *err)
{
    run_backend *b = model->backend;

    for (size_t i = 0; i < count; i++) {
        const ckpt_code code = b->ops->buffer_create(b, wanted[i].count, wanted[i].buffer, err);

        if (code == CKPT_OK) {
            *bytes += wanted[i].count * sizeof(float);
            continue;
        }
        while (i > 0) {
            b->ops->buffer_free(b, *wanted[--i].buffer);
            *wanted[i].buffer = NULL;
        }
        return code;
    }
    return CKPT_OK;
}

/* ---- what is left for weights ---- */

/*
 * The limit covers state, scratch, rows and weights. It does not cover what each thread needs to
 * read and decode: a tile and a band of a weight.
 */
ckpt_code model_limit(run_model *model, ckpt_error *err)
{
    const uint64_t used = model->fixed_bytes + model->state_bytes + model->batch_bytes;

    if (used > model->options.memory_bytes ||
        model->options.memory_bytes - used < model->layer_bytes)
        return ckpt_fail(err, CKPT_E_MEMORY,
                         "a memory limit of %" PRIu64 " bytes is too small: rows, state and the "
                         "largest layer need %" PRIu64,
                         model->options.memory_bytes, used + model->layer_bytes);
    run_weights_set_limit(model->weights, model->options.memory_bytes - used);
    return CKPT_OK;
}

/* ---- state of a sequence ---- */

static ckpt_code ring_create(run_model *model, run_ring *ring, uint64_t capacity, uint64_t width,
                             ckpt_error *err)
{
    const wanted_buffer wanted = { &ring->buffer, capacity * width };

    ring->capacity = capacity;
    ring->width = width;
    return create_all(model, &wanted, 1, &model->state_bytes, err);
}

static ckpt_code layer_state_create(run_model *model, run_layer_state *s, uint32_t ratio,
                                    uint64_t max_positions, ckpt_error *err)
{
    const run_config *c = model->config;
    const uint64_t overlap = ratio == 4 ? 2 : 1;
    const uint64_t history = overlap * ratio + model->chunk;
    const wanted_buffer wanted[] = {
        { &s->entries, ratio == 0 ? 0 : max_positions / ratio * c->head_dim },
        { &s->keys, ratio != 4 ? 0 : max_positions / ratio * c->index_dim },
    };
    ckpt_code code;

    if ((code = ring_create(model, &s->kv, (uint64_t)c->window + model->chunk, c->head_dim,
                            err)) != CKPT_OK ||
        ratio == 0)
        return code;
    if ((code = ring_create(model, &s->k, history, overlap * c->head_dim, err)) != CKPT_OK ||
        (code = ring_create(model, &s->s, history, overlap * c->head_dim, err)) != CKPT_OK ||
        (code = create_all(model, wanted, ratio == 4 ? 2 : 1, &model->state_bytes, err)) !=
            CKPT_OK ||
        ratio != 4)
        return code;
    if ((code = ring_create(model, &s->index_k, history, overlap * c->index_dim, err)) !=
        CKPT_OK)
        return code;
    return ring_create(model, &s->index_s, history, overlap * c->index_dim, err);
}

ckpt_code state_create(run_model *model, run_sequence *sequence, ckpt_error *err)
{
    const run_config *c = model->config;
    const wanted_buffer held = { &sequence->held, (uint64_t)c->stream_count * c->dim };
    ckpt_code code = CKPT_OK;

    for (uint32_t l = model->layer_begin; l < model->layer_end && code == CKPT_OK; l++)
        code = layer_state_create(model, &sequence->layers[l], c->ratios[l],
                                  sequence->max_positions, err);
    if (code == CKPT_OK && model->options.mtp && model->next == NULL)
        code = create_all(model, &held, 1, &model->state_bytes, err);
    return code == CKPT_OK ? model_limit(model, err) : code;
}

void state_free(run_model *model, run_sequence *sequence)
{
    run_backend *b = model->backend;

    for (uint32_t l = model->layer_begin; l < model->layer_end; l++) {
        run_layer_state *s = &sequence->layers[l];
        run_buffer *const buffers[] = { s->kv.buffer,      s->k.buffer,       s->s.buffer,
                                        s->index_k.buffer, s->index_s.buffer, s->entries,
                                        s->keys };

        for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
            b->ops->buffer_free(b, buffers[i]);
    }
    if (model->next == NULL)
        b->ops->buffer_free(b, sequence->held);
}

/* ---- scratch ---- */

enum { SCRATCH_COUNT = sizeof(run_scratch) / sizeof(run_buffer *) };

/* The elements per row of each buffer, in the order of run_scratch. */
static void scratch_widths(const run_config *c, uint64_t widths[SCRATCH_COUNT])
{
    const uint64_t heads = (uint64_t)c->head_count * c->head_dim;
    const uint64_t ranks = (uint64_t)c->group_count * c->o_rank;
    const uint64_t pooled = 2 * size_max(c->head_dim, c->index_dim);
    const uint64_t mix = (2 + (uint64_t)c->stream_count) * c->stream_count;
    const uint64_t all[SCRATCH_COUNT] = {
        mix,    c->dim, c->dim, c->q_rank, c->q_rank, heads,
        c->head_dim, size_max(heads, (uint64_t)c->stream_count * c->dim), ranks, ranks, pooled,
        pooled,
        (uint64_t)c->index_head_count * c->index_dim, c->index_head_count, c->index_topk, 1,
        c->expert_count, c->active_count, 0,
    };

    memcpy(widths, all, sizeof all);
}

ckpt_code scratch_create(run_model *model, ckpt_error *err)
{
    wanted_buffer wanted[SCRATCH_COUNT];
    uint64_t widths[SCRATCH_COUNT];

    scratch_widths(model->config, widths);
    for (size_t i = 0; i < SCRATCH_COUNT; i++) {
        wanted[i].buffer = (run_buffer **)(void *)&model->scratch + i;
        wanted[i].count = widths[i] * model->chunk;
    }
    /* The last one is `logits`: a slice of the vocabulary for each row of a chunk. */
    wanted[SCRATCH_COUNT - 1].count =
        size_min(run_weights_slice_rows(model->weights, "head.weight"),
                 model->config->vocab_size) *
        model->chunk;
    return create_all(model, wanted, SCRATCH_COUNT, &model->fixed_bytes, err);
}

void scratch_free(run_model *model)
{
    run_buffer **buffers = (run_buffer **)(void *)&model->scratch;

    for (size_t i = 0; i < SCRATCH_COUNT; i++)
        model->backend->ops->buffer_free(model->backend, buffers[i]);
}

/* ---- rows of a forward ---- */

static uint64_t batch_size(const run_batch *batch, const run_config *c)
{
    const uint64_t streams = c->stream_count;
    const uint64_t row = streams * c->dim + 4 * (uint64_t)c->dim + streams + streams * streams +
                         2 * (uint64_t)c->active_count + 2 * (uint64_t)c->rope_dim;

    return batch->capacity * row * sizeof(float);
}

void batch_free(run_model *model, run_batch *batch)
{
    run_buffer *const buffers[] = { batch->x,    batch->n,    batch->nq,  batch->y,
                                    batch->post, batch->comb, batch->routed };

    model->batch_bytes -= batch_size(batch, model->config);
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        model->backend->ops->buffer_free(model->backend, buffers[i]);
    memset(batch, 0, sizeof *batch);
}

ckpt_code batch_reserve(run_model *model, run_batch *batch, uint64_t row_count, ckpt_error *err)
{
    const run_config *c = model->config;
    const uint64_t streams = c->stream_count;
    const wanted_buffer wanted[] = {
        { &batch->x, row_count * streams * c->dim }, { &batch->n, row_count * c->dim },
        { &batch->nq, row_count * c->dim },          { &batch->y, 2 * row_count * c->dim },
        { &batch->post, row_count * streams },
        { &batch->comb, row_count * streams * streams },
        { &batch->routed, 2 * row_count * c->active_count },
    };
    uint64_t bytes = 0;
    ckpt_code code;

    if (batch->capacity >= row_count)
        return CKPT_OK;
    batch_free(model, batch);
    batch->capacity = row_count;
    model->batch_bytes += batch_size(batch, c);
    if ((code = model_limit(model, err)) != CKPT_OK ||
        (code = create_all(model, wanted, sizeof wanted / sizeof *wanted, &bytes, err)) !=
            CKPT_OK) {
        model->batch_bytes -= batch_size(batch, c);
        memset(batch, 0, sizeof *batch);
    }
    return code;
}
