/* graph_attention.c: the attention half of a block: projections, compressor, indexer, attention,
 * output. */
#include <math.h>

#include "model.h"
#include "libckpt/size.h"
#include "trace.h"

/* One chunk of one sequence in one layer. */
typedef struct {
    run_model *m;
    const run_layer *layer;
    const run_layer_state *state;
    run_rows x;                /* hidden state of these rows */
    run_rows post;
    run_rows comb;
    run_rows a;                /* normalised input */
    run_rows aq;               /* a as activated(), for products with quantised weights */
    run_rows qrq;              /* the same of the low-rank queries */
    run_rows angles;           /* of these rows */
    uint64_t position;
    uint64_t row_count;
    uint64_t span_begin;       /* positions of all chunks of the call, for rope_angles */
    uint64_t span_end;
    unsigned sequence;
    int selected;              /* the indexer chooses the entries */
} chunk_job;

#define OPS(job) ((job)->m->backend->ops)

static ckpt_code trace_rows(const chunk_job *j, const char *point, run_rows rows, uint64_t cols,
                            ckpt_error *err)
{
    const run_trace_point p = { point, j->sequence, j->layer->number, j->position,
                                rows,  j->row_count, cols, 0 };

    return run_trace_rows(j->m->options.trace, j->m->backend, &p, err);
}

ckpt_code activate_rows(run_model *model, run_rows x, run_rows to, uint64_t row_count,
                        ckpt_error *err)
{
    const run_quantise op = { .x = x, .y = to, .row_count = row_count, .col_count = x.pitch,
                              .block = LINEAR_BLOCK, .grid = RUN_E4M3 };

    return model->deploy ? model->backend->ops->quantise(model->backend, &op, err) : CKPT_OK;
}

ckpt_code collapse_streams(run_model *model, const run_collapse *c, ckpt_error *err)
{
    const run_config *config = model->config;
    const uint64_t streams = config->stream_count;
    const int is_head = c->post.buffer == NULL;
    const uint64_t width = is_head ? streams : (2 + streams) * streams;
    const run_rows mix = rows_of(model->scratch.mix, width);
    const run_linear linear = { .x = c->x, .y = mix, .row_count = c->row_count, .weight = c->fn,
                                .weight_row_count = width };
    const run_streams op = {
        .x = c->x, .mix = mix, .u = c->u, .post = c->post, .comb = c->comb,
        .scale = c->scale, .base = c->base,
        .row_count = c->row_count,
        .stream_count = config->stream_count,
        .dim = config->dim,
        .iters = config->sinkhorn_iters,
        .hc_eps = (float)config->hc_eps,
        .norm_eps = (float)config->norm_eps,
        .round = model->deploy,
    };
    const ckpt_code code = model->backend->ops->linear(model->backend, &linear, err);

    if (code != CKPT_OK)
        return code;
    return is_head ? model->backend->ops->hc_head(model->backend, &op, err)
                   : model->backend->ops->hc_pre(model->backend, &op, err);
}

/* A product with a weight that may be quantised. */
static ckpt_code project(const chunk_job *j, run_rows x, const run_weight *w, run_rows y,
                         ckpt_error *err)
{
    const run_linear op = {
        .x = x, .y = y, .row_count = j->row_count, .weight = w, .weight_row_count = y.pitch,
        .block = j->m->deploy ? LINEAR_BLOCK : 0, .round = j->m->deploy,
    };

    return OPS(j)->linear(j->m->backend, &op, err);
}

static ckpt_code norm_rows(const chunk_job *j, run_rows x, const run_buffer *weight,
                           uint64_t row_count, ckpt_error *err)
{
    const run_norm op = { .x = x, .y = x, .row_count = row_count, .col_count = x.pitch,
                          .weight = weight, .eps = (float)j->m->config->norm_eps,
                          .round = j->m->deploy };

    return OPS(j)->norm(j->m->backend, &op, err);
}

/* Normalise the rows of the chunk in place and quantise the result into `to`, as activate_rows
 * does. */
static ckpt_code norm_activated(const chunk_job *j, run_rows x, const run_buffer *weight,
                                run_rows to, ckpt_error *err)
{
    const run_norm op = { .x = x, .y = x, .row_count = j->row_count, .col_count = x.pitch,
                          .weight = weight, .quantised = activated_to(j->m, to),
                          .eps = (float)j->m->config->norm_eps, .round = j->m->deploy };

    return OPS(j)->norm(j->m->backend, &op, err);
}

static ckpt_code rotate(const chunk_job *j, run_rows x, uint32_t head_dim, int inverse,
                        ckpt_error *err)
{
    const run_rope op = {
        .x = x, .row_count = j->row_count, .head_count = (uint32_t)(x.pitch / head_dim),
        .head_dim = head_dim, .rope_dim = j->m->config->rope_dim,
        .angles = j->angles, .inverse = inverse, .round = j->m->deploy,
    };

    return OPS(j)->rope(j->m->backend, &op, err);
}

/* In deploy, the KV cache is E4M3, except the rotary dimensions. */
static ckpt_code simulate_kv(const chunk_job *j, run_rows x, uint64_t row_count, ckpt_error *err)
{
    const run_config *c = j->m->config;
    const run_quantise op = { .x = x, .y = x, .row_count = row_count,
                              .col_count = c->head_dim - c->rope_dim, .block = KV_BLOCK,
                              .grid = RUN_E4M3 };

    return j->m->deploy ? OPS(j)->quantise(j->m->backend, &op, err) : CKPT_OK;
}

/* In deploy, index vectors are multiplied by a Hadamard matrix and quantised to E2M1. */
static ckpt_code simulate_index(const chunk_job *j, run_rows x, uint64_t row_count,
                                ckpt_error *err)
{
    const run_config *c = j->m->config;
    const run_hadamard turn = { .x = x, .row_count = row_count,
                                .head_count = (uint32_t)(x.pitch / c->index_dim),
                                .width = c->index_dim, .round = 1 };
    const run_quantise op = { .x = x, .y = x, .row_count = row_count, .col_count = x.pitch,
                              .block = INDEX_BLOCK, .grid = RUN_E2M1 };
    ckpt_code code;

    if (!j->m->deploy)
        return CKPT_OK;
    if ((code = OPS(j)->hadamard(j->m->backend, &turn, err)) != CKPT_OK)
        return code;
    return OPS(j)->quantise(j->m->backend, &op, err);
}

static ckpt_code put_ring(const chunk_job *j, run_rows x, run_ring ring, const run_buffer *ape,
                          ckpt_error *err)
{
    const run_ring_put op = { .x = x, .ring = ring, .row_count = j->row_count,
                              .position = j->position, .add = ape,
                              .add_rows = j->layer->ratio };

    return OPS(j)->ring_put(j->m->backend, &op, err);
}

/* ---- compressor ---- */

typedef struct {
    const run_weight *wkv;
    const run_weight *wgate;
    const run_buffer *ape;
    const run_buffer *norm;
    run_ring k;
    run_ring s;
    run_buffer *entries;
    uint32_t width;
    int is_index;
} compressor;

/* Compute values and scores of the chunk's tokens and put them into the rings. */
static ckpt_code feed(const chunk_job *j, const compressor *p, ckpt_error *err)
{
    const run_rows k = rows_of(j->m->scratch.k, p->k.width);
    const run_rows s = rows_of(j->m->scratch.s, p->s.width);
    const run_linear op = { .x = j->a, .y = k, .row_count = j->row_count, .weight = p->wkv,
                            .other_weight = p->wgate, .other_y = s,
                            .weight_row_count = p->k.width };
    ckpt_code code;

    if ((code = OPS(j)->linear(j->m->backend, &op, err)) != CKPT_OK ||
        (code = put_ring(j, k, p->k, NULL, err)) != CKPT_OK)
        return code;
    return put_ring(j, s, p->s, p->ape, err);
}

static ckpt_code compress(const chunk_job *j, const compressor *p, ckpt_error *err)
{
    const uint32_t ratio = j->layer->ratio;
    const uint64_t first = j->position / ratio;
    const uint64_t count = (j->position + j->row_count) / ratio - first;
    const run_rows out = rows_from(rows_of(p->entries, p->width), first);
    const rope_range range = { first * ratio < j->span_begin ? first * ratio : j->span_begin,
                               j->span_end, first * ratio, ratio, 1 };
    const run_pool pool = { .k = p->k, .s = p->s, .y = out, .entry = first, .entry_count = count,
                            .ratio = ratio, .width = p->width, .overlap = ratio == RUN_RATIO_CSA,
                            .round = j->m->deploy };
    chunk_job rows = *j;
    ckpt_code code = feed(j, p, err);

    if (code != CKPT_OK || count == 0)
        return code;
    rows.row_count = count;
    rows.position = first;
    if ((code = OPS(j)->pool(j->m->backend, &pool, err)) != CKPT_OK ||
        (code = norm_rows(j, out, p->norm, count, err)) != CKPT_OK ||
        (code = rope_angles(j->m, &range, &rows.angles, err)) != CKPT_OK ||
        (code = rotate(&rows, out, p->width, 0, err)) != CKPT_OK)
        return code;
    code = p->is_index ? simulate_index(j, out, count, err) : simulate_kv(j, out, count, err);
    return code != CKPT_OK ? code
                           : trace_rows(&rows, p->is_index ? "index_keys" : "entries", out,
                                        p->width, err);
}

static ckpt_code compress_main(const chunk_job *j, ckpt_error *err)
{
    const run_layer_weights *w = &j->layer->w;
    const compressor p = { w->pool_wkv,  w->pool_wgate, w->ape,
                           w->pool_norm, j->state->k,   j->state->s,
                           j->state->entries, j->m->config->head_dim, 0 };

    return j->layer->ratio == 0 ? CKPT_OK : compress(j, &p, err);
}

static ckpt_code compress_index(const chunk_job *j, ckpt_error *err)
{
    const run_layer_weights *w = &j->layer->w;
    const compressor p = { w->index_wkv,  w->index_wgate,    w->index_ape,
                           w->index_norm, j->state->index_k, j->state->index_s,
                           j->state->keys, j->m->config->index_dim, 1 };

    return j->layer->ratio != RUN_RATIO_CSA ? CKPT_OK : compress(j, &p, err);
}

/* ---- indexer ---- */

static ckpt_code select_entries(const chunk_job *j, ckpt_error *err)
{
    const run_config *c = j->m->config;
    const run_scratch *s = &j->m->scratch;
    const run_rows weights = rows_of(s->iw, c->index_head_count);
    const run_rows q = rows_of(s->iq, (uint64_t)c->index_head_count * c->index_dim);
    const run_rows chosen = rows_of(s->chosen, c->index_topk);
    const run_linear linear = {
        .x = j->a, .y = weights, .row_count = j->row_count,
        .weight = j->layer->w.index_weights, .weight_row_count = c->index_head_count,
        .scale = (float)(1.0 / sqrt((double)c->index_dim * c->index_head_count)),
        .round = j->m->deploy,
    };
    const run_select op = {
        .q = q, .weights = weights, .keys = rows_of(j->state->keys, c->index_dim),
        .chosen = chosen, .gap = s->gap, .row_count = j->row_count, .position = j->position,
        .ratio = j->layer->ratio, .head_count = c->index_head_count, .width = c->index_dim,
        .topk = c->index_topk, .round = j->m->deploy,
    };
    const run_trace_point cut = { "indexer", j->sequence, j->layer->number, j->position,
                                  rows_of(s->gap, 1), j->row_count, 1, 0 };
    const run_trace_point sets = { "index_set", j->sequence, j->layer->number, j->position,
                                   chosen, j->row_count, c->index_topk, 1 };
    ckpt_code code;

    if ((code = project(j, j->qrq, j->layer->w.index_wq_b, q, err)) != CKPT_OK ||
        (code = rotate(j, q, c->index_dim, 0, err)) != CKPT_OK ||
        (code = simulate_index(j, q, j->row_count, err)) != CKPT_OK ||
        (code = OPS(j)->linear(j->m->backend, &linear, err)) != CKPT_OK ||
        (code = OPS(j)->select(j->m->backend, &op, err)) != CKPT_OK ||
        (code = run_trace_gaps(j->m->options.trace, j->m->backend, &cut, err)) != CKPT_OK)
        return code;
    return run_trace_rows(j->m->options.trace, j->m->backend, &sets, err);
}

/* ---- the steps of a chunk ---- */

static ckpt_code enter(chunk_job *j, ckpt_error *err)
{
    const run_config *c = j->m->config;
    const run_layer_weights *w = &j->layer->w;
    const run_rows u = rows_of(j->m->scratch.u, c->dim);
    const uint64_t streams = c->stream_count;
    const run_collapse collapse = {
        .x = j->x, .row_count = j->row_count, .fn = w->hc_attn_fn, .base = w->hc_attn_base,
        .scale = w->hc_attn_scale, .u = u, .post = j->post, .comb = j->comb,
    };
    const run_rows uq = rows_of(j->m->scratch.uq, c->dim);
    ckpt_code code;

    j->a = u;
    j->aq = activated(j->m, u, uq);
    if ((code = collapse_streams(j->m, &collapse, err)) != CKPT_OK ||
        (code = trace_rows(j, "attn.u", u, c->dim, err)) != CKPT_OK ||
        (code = trace_rows(j, "attn.post", j->post, streams, err)) != CKPT_OK ||
        (code = trace_rows(j, "attn.comb", j->comb, streams * streams, err)) != CKPT_OK)
        return code;
    return norm_activated(j, u, w->attn_norm, uq, err);
}

static ckpt_code make_queries(chunk_job *j, run_rows q, ckpt_error *err)
{
    const run_config *c = j->m->config;
    const run_layer_weights *w = &j->layer->w;
    const run_rows qr = rows_of(j->m->scratch.qr, c->q_rank);
    const run_rows qrq = rows_of(j->m->scratch.qrq, c->q_rank);
    ckpt_code code;

    j->qrq = activated(j->m, qr, qrq);
    if ((code = project(j, j->aq, w->wq_a, qr, err)) != CKPT_OK ||
        (code = norm_activated(j, qr, w->q_norm, qrq, err)) != CKPT_OK ||
        (code = trace_rows(j, "qr", qr, c->q_rank, err)) != CKPT_OK ||
        (code = project(j, j->qrq, w->wq_b, q, err)) != CKPT_OK ||
        (code = norm_rows(j, rows_of(q.buffer, c->head_dim), NULL, j->row_count * c->head_count,
                          err)) != CKPT_OK ||
        (code = rotate(j, q, c->head_dim, 0, err)) != CKPT_OK)
        return code;
    return trace_rows(j, "q", q, q.pitch, err);
}

static ckpt_code make_kv(const chunk_job *j, ckpt_error *err)
{
    const run_config *c = j->m->config;
    const run_rows kv = rows_of(j->m->scratch.kv, c->head_dim);
    ckpt_code code;

    if ((code = project(j, j->aq, j->layer->w.wkv, kv, err)) != CKPT_OK ||
        (code = norm_rows(j, kv, j->layer->w.kv_norm, j->row_count, err)) != CKPT_OK ||
        (code = rotate(j, kv, c->head_dim, 0, err)) != CKPT_OK ||
        (code = simulate_kv(j, kv, j->row_count, err)) != CKPT_OK ||
        (code = trace_rows(j, "kv", kv, c->head_dim, err)) != CKPT_OK)
        return code;
    return put_ring(j, kv, j->state->kv, NULL, err);
}

static ckpt_code attend(const chunk_job *j, run_rows q, run_rows o, ckpt_error *err)
{
    const run_config *c = j->m->config;
    const uint32_t ratio = j->layer->ratio;
    const run_attend op = {
        .q = q, .y = o, .window_kv = j->state->kv,
        .entries = rows_of(ratio == 0 ? NULL : j->state->entries, c->head_dim),
        .chosen = rows_of(j->selected ? j->m->scratch.chosen : NULL, c->index_topk),
        .sink = j->layer->w.sink, .row_count = j->row_count, .position = j->position,
        .window = c->window, .ratio = ratio, .topk = c->index_topk,
        .head_count = c->head_count, .head_dim = c->head_dim,
        .scale = (float)(1.0 / sqrt((double)c->head_dim)), .round = j->m->deploy,
    };

    return OPS(j)->attend(j->m->backend, &op, err);
}

static ckpt_code leave(const chunk_job *j, run_rows o, ckpt_error *err)
{
    const run_config *c = j->m->config;
    const uint64_t ranks = (uint64_t)c->group_count * c->o_rank;
    const run_rows z = rows_of(j->m->scratch.z, ranks);
    const run_rows y = rows_of(j->m->scratch.uq, c->dim);
    const run_rows zq = rows_of(j->m->scratch.zq, ranks);
    const run_streams_post post = { .x = j->x, .y = y, .post = j->post, .comb = j->comb,
                                    .row_count = j->row_count, .stream_count = c->stream_count,
                                    .dim = c->dim, .round = j->m->deploy };
    const run_linear op = { .x = o, .y = z, .row_count = j->row_count, .weight = j->layer->w.wo_a,
                            .weight_row_count = ranks, .group_rows = c->o_rank,
                            .group_step = o.pitch / c->group_count, .round = j->m->deploy };
    ckpt_code code;

    if ((code = OPS(j)->linear(j->m->backend, &op, err)) != CKPT_OK ||
        (code = activate_rows(j->m, z, zq, j->row_count, err)) != CKPT_OK ||
        (code = project(j, activated(j->m, z, zq), j->layer->w.wo_b, y, err)) != CKPT_OK ||
        (code = trace_rows(j, "attn.y", y, c->dim, err)) != CKPT_OK)
        return code;
    return OPS(j)->hc_post(j->m->backend, &post, err);
}

static ckpt_code attention_chunk(chunk_job *j, ckpt_error *err)
{
    const run_config *c = j->m->config;
    const run_rows q = rows_of(j->m->scratch.q, (uint64_t)c->head_count * c->head_dim);
    const run_rows o = rows_of(j->m->scratch.o, q.pitch);
    const rope_range range = { j->span_begin, j->span_end, j->position, 1,
                               j->layer->ratio > 0 };
    const uint64_t visible = j->layer->ratio == RUN_RATIO_CSA
                                 ? (j->position + j->row_count) / RUN_RATIO_CSA
                                 : 0;
    ckpt_code code;

    /* With at most topk visible entries all are chosen: run the indexer only for a trace. */
    j->selected = visible > c->index_topk || (visible > 0 && j->m->options.trace != NULL);
    if ((code = enter(j, err)) != CKPT_OK || (code = compress_index(j, err)) != CKPT_OK ||
        (code = compress_main(j, err)) != CKPT_OK ||
        (code = rope_angles(j->m, &range, &j->angles, err)) != CKPT_OK ||
        (code = make_queries(j, q, err)) != CKPT_OK || (code = make_kv(j, err)) != CKPT_OK ||
        (j->selected && (code = select_entries(j, err)) != CKPT_OK) ||
        (code = attend(j, q, o, err)) != CKPT_OK ||
        (code = rotate(j, o, c->head_dim, 1, err)) != CKPT_OK ||
        (code = trace_rows(j, "o", o, o.pitch, err)) != CKPT_OK)
        return code;
    return leave(j, o, err);
}

ckpt_code block_attention(run_model *model, const run_layer *layer, const run_work *work,
                          ckpt_error *err)
{
    const uint64_t streams = model->config->stream_count;
    const run_batch *b = work->batch;

    for (size_t i = 0; i < work->span_count; i++) {
        const run_span *span = &work->spans[i];

        for (uint64_t done = 0; done < span->row_count; done += model->chunk) {
            const uint64_t row = span->row + done;
            chunk_job job = {
                .m = model,
                .layer = layer,
                .state = &span->sequence->layers[layer->number],
                .x = rows_from(rows_of(b->x, streams * model->config->dim), row),
                .post = rows_from(rows_of(b->post, streams), row),
                .comb = rows_from(rows_of(b->comb, streams * streams), row),
                .position = span->position + done,
                .row_count = size_min(model->chunk, span->row_count - done),
                .span_begin = span->position / ROPE_TABLE_STEP * ROPE_TABLE_STEP,
                .span_end = span->position + span->row_count,
                .sequence = span->sequence->number,
            };
            const ckpt_code code = attention_chunk(&job, err);

            if (code != CKPT_OK)
                return code;
        }
    }
    return CKPT_OK;
}
