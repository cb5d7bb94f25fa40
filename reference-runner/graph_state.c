/* graph_state.c: the buffers of the graph and the accounting of their memory. */
#include <inttypes.h>
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
    const uint64_t overlap = ratio == RUN_RATIO_CSA ? 2 : 1;
    const uint64_t history = overlap * ratio + model->chunk;
    const uint64_t entry_count = ratio == 0 ? 0 : max_positions / ratio;
    const wanted_buffer entries = { &s->entries, entry_count * c->head_dim };
    const wanted_buffer keys = { &s->keys, entry_count * c->index_dim };
    ckpt_code code;

    if ((code = ring_create(model, &s->kv, (uint64_t)c->window + model->chunk, c->head_dim,
                            err)) != CKPT_OK ||
        ratio == 0)
        return code;
    if ((code = ring_create(model, &s->k, history, overlap * c->head_dim, err)) != CKPT_OK ||
        (code = ring_create(model, &s->s, history, overlap * c->head_dim, err)) != CKPT_OK ||
        (code = create_all(model, &entries, 1, &model->state_bytes, err)) != CKPT_OK ||
        ratio != RUN_RATIO_CSA)
        return code;
    if ((code = ring_create(model, &s->index_k, history, overlap * c->index_dim, err)) !=
            CKPT_OK ||
        (code = ring_create(model, &s->index_s, history, overlap * c->index_dim, err)) != CKPT_OK)
        return code;
    return create_all(model, &keys, 1, &model->state_bytes, err);
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

/* All buffers, for a chunk of rows and `slice` rows of the head. */
static void list_scratch(run_model *model, uint64_t slice, wanted_buffer out[SCRATCH_COUNT])
{
    const run_config *c = model->config;
    run_scratch *s = &model->scratch;
    const uint64_t heads = (uint64_t)c->head_count * c->head_dim;
    const uint64_t ranks = (uint64_t)c->group_count * c->o_rank;
    const uint64_t pooled = 2 * size_max(c->head_dim, c->index_dim);
    const uint64_t streams = c->stream_count;
    const wanted_buffer of_a_row[] = {
        { &s->mix, (2 + streams) * streams },
        { &s->u, c->dim }, { &s->uq, c->dim },
        { &s->qr, c->q_rank }, { &s->qrq, c->q_rank },
        { &s->q, heads }, { &s->kv, c->head_dim },
        { &s->o, size_max(heads, streams * c->dim) },      /* also the streams of a row of MTP */
        { &s->z, ranks }, { &s->zq, ranks },
        { &s->k, pooled }, { &s->s, pooled },
        { &s->iq, (uint64_t)c->index_head_count * c->index_dim }, { &s->iw, c->index_head_count },
        { &s->chosen, c->index_topk }, { &s->gap, 1 },
        { &s->gate, c->expert_count }, { &s->table, c->active_count },
        { &s->logits, slice },
    };
    _Static_assert(sizeof of_a_row == SCRATCH_COUNT * sizeof *of_a_row, "a buffer is missing");

    for (size_t i = 0; i < SCRATCH_COUNT; i++)
        out[i] = (wanted_buffer){ of_a_row[i].buffer, of_a_row[i].count * model->chunk };
}

ckpt_code scratch_create(run_model *model, ckpt_error *err)
{
    wanted_buffer wanted[SCRATCH_COUNT];

    list_scratch(model, size_min(run_weights_slice_rows(model->weights, "head.weight"),
                                 model->config->vocab_size), wanted);
    return create_all(model, wanted, SCRATCH_COUNT, &model->fixed_bytes, err);
}

void scratch_free(run_model *model)
{
    wanted_buffer all[SCRATCH_COUNT];

    list_scratch(model, 0, all);
    for (size_t i = 0; i < SCRATCH_COUNT; i++)
        model->backend->ops->buffer_free(model->backend, *all[i].buffer);
}

/* ---- rows of a forward ---- */

enum { BATCH_COUNT = 7 };

/* All buffers, for row_count rows. */
static void list_batch(run_batch *b, const run_config *c, uint64_t row_count,
                       wanted_buffer out[BATCH_COUNT])
{
    const uint64_t streams = c->stream_count;
    const wanted_buffer all[] = {
        { &b->x, row_count * streams * c->dim },
        { &b->n, row_count * c->dim }, { &b->nq, row_count * c->dim },
        { &b->y, 2 * row_count * c->dim },
        { &b->post, row_count * streams }, { &b->comb, row_count * streams * streams },
        { &b->routed, 2 * row_count * c->active_count },
    };
    _Static_assert(sizeof all == BATCH_COUNT * sizeof *all &&
                       sizeof(run_batch) == sizeof(uint64_t) + BATCH_COUNT * sizeof(run_buffer *),
                   "a buffer is missing");

    memcpy(out, all, sizeof all);
}

/* Bytes of a batch, and of its rows in both rotary tables (make_table in graph_rope.c). */
static uint64_t batch_bytes(run_batch *batch, const run_config *c)
{
    wanted_buffer all[BATCH_COUNT];
    uint64_t count = 2 * batch->capacity * c->rope_dim;

    list_batch(batch, c, batch->capacity, all);
    for (size_t i = 0; i < BATCH_COUNT; i++)
        count += all[i].count;
    return count * sizeof(float);
}

void batch_free(run_model *model, run_batch *batch)
{
    wanted_buffer all[BATCH_COUNT];

    model->batch_bytes -= batch_bytes(batch, model->config);
    list_batch(batch, model->config, 0, all);
    for (size_t i = 0; i < BATCH_COUNT; i++)
        model->backend->ops->buffer_free(model->backend, *all[i].buffer);
    memset(batch, 0, sizeof *batch);
}

ckpt_code batch_reserve(run_model *model, run_batch *batch, uint64_t row_count, ckpt_error *err)
{
    wanted_buffer wanted[BATCH_COUNT];
    uint64_t created = 0;
    ckpt_code code;

    if (batch->capacity >= row_count)
        return CKPT_OK;
    batch_free(model, batch);
    batch->capacity = row_count;
    model->batch_bytes += batch_bytes(batch, model->config);
    list_batch(batch, model->config, row_count, wanted);
    if ((code = model_limit(model, err)) != CKPT_OK ||
        (code = create_all(model, wanted, BATCH_COUNT, &created, err)) != CKPT_OK) {
        model->batch_bytes -= batch_bytes(batch, model->config);
        memset(batch, 0, sizeof *batch);
    }
    return code;
}
