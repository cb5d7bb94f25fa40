/* graph_experts.c: the expert half of a block: routing of all rows, then the experts in order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "libckpt/size.h"
#include "trace.h"

/* The rows of expert e are rows[first[e]] .. rows[first[e + 1] - 1], in ascending order. */
typedef struct {
    uint32_t *first;           /* expert_count + 1 */
    uint32_t *rows;
    float *factors;
    int32_t *ids;              /* active_count experts of each row, as the backend returned them */
    const float *weights;      /* their factors, in the same memory */
} routing;

typedef struct {
    run_model *m;
    const run_layer *layer;
    const run_work *work;
    routing r;
} expert_half;

#define OPS(half) ((half)->m->backend->ops)

/* The chosen experts of all rows, and their factors after them. */
static run_rows ids_of(const expert_half *h)
{
    return rows_of(h->work->batch->routed, h->m->config->active_count);
}

static run_rows factors_of(const expert_half *h)
{
    return rows_from(ids_of(h), h->work->row_count);
}

/* The outputs of the routed experts, and those of the shared one after them. */
static run_rows routed_of(const expert_half *h)
{
    return rows_of(h->work->batch->y, h->m->config->dim);
}

static run_rows shared_of(const expert_half *h)
{
    return rows_from(routed_of(h), h->work->row_count);
}

static ckpt_code trace_spans(const expert_half *h, const char *point, run_rows rows, int is_int,
                             ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < h->work->span_count && code == CKPT_OK; i++) {
        const run_span *span = &h->work->spans[i];
        const run_trace_point p = { point, span->sequence->number, h->layer->number,
                                    span->position, rows_from(rows, span->row),
                                    span->row_count, rows.pitch, is_int };

        code = run_trace_rows(h->m->options.trace, h->m->backend, &p, err);
    }
    return code;
}

/* ---- routing ---- */

/* For a hash layer: write the expert ids of tokens [first, first + count) to scratch.table. */
static ckpt_code write_table(const expert_half *h, const run_span *span, uint64_t first,
                             uint64_t count, ckpt_error *err)
{
    const uint32_t active = h->m->config->active_count;
    int32_t *ids = malloc(count * active * sizeof *ids);
    ckpt_code code;

    if (ids == NULL)
        return ckpt_fail_memory(err, "expert ids", count * active);
    for (uint64_t t = 0; t < count; t++)
        memcpy(ids + t * active,
               h->layer->w.tid2eid + (size_t)span->tokens[first + t] * active,
               active * sizeof *ids);
    code = OPS(h)->buffer_write(h->m->scratch.table, 0, ids, count * active, err);
    free(ids);
    return code;
}

static ckpt_code route_chunk(const expert_half *h, const run_span *span, uint64_t first,
                             uint64_t count, ckpt_error *err)
{
    const run_config *c = h->m->config;
    const run_scratch *s = &h->m->scratch;
    const run_batch *b = h->work->batch;
    const uint64_t row = span->row + first;
    const run_rows logits = rows_of(s->gate, c->expert_count);
    const run_linear gate = { .x = rows_from(rows_of(b->n, c->dim), row), .y = logits,
                              .row_count = count, .weight = h->layer->w.gate,
                              .weight_row_count = c->expert_count };
    const run_route op = {
        .logits = logits,
        .table = rows_of(h->layer->is_hash ? s->table : NULL, c->active_count),
        .ids = rows_from(ids_of(h), row), .weights = rows_from(factors_of(h), row),
        .gap = s->gap, .bias = h->layer->w.gate_bias, .row_count = count,
        .expert_count = c->expert_count, .active_count = c->active_count,
        .route_scale = (float)c->route_scale,
    };
    const run_trace_point cut = { "router", span->sequence->number, h->layer->number,
                                  span->position + first, rows_of(s->gap, 1), count, 1, 0 };
    ckpt_code code;

    if ((h->layer->is_hash && (code = write_table(h, span, first, count, err)) != CKPT_OK) ||
        (code = OPS(h)->linear(h->m->backend, &gate, err)) != CKPT_OK ||
        (code = OPS(h)->route(h->m->backend, &op, err)) != CKPT_OK || h->layer->is_hash)
        return code;
    return run_trace_gaps(h->m->options.trace, h->m->backend, &cut, err);
}

/* Collapse the streams, normalise and route rows [first, first + count) of a span. */
static ckpt_code enter_chunk(const expert_half *h, const run_span *span, uint64_t first,
                             uint64_t count, ckpt_error *err)
{
    const run_config *c = h->m->config;
    const run_layer_weights *w = &h->layer->w;
    const run_batch *b = h->work->batch;
    const uint64_t streams = c->stream_count;
    const uint64_t row = span->row + first;
    const run_rows n = rows_from(rows_of(b->n, c->dim), row);
    const run_collapse collapse = {
        .x = rows_from(rows_of(b->x, streams * c->dim), row), .row_count = count,
        .fn = w->hc_ffn_fn, .base = w->hc_ffn_base, .scale = w->hc_ffn_scale, .u = n,
        .post = rows_from(rows_of(b->post, streams), row),
        .comb = rows_from(rows_of(b->comb, streams * streams), row),
    };
    const run_norm norm = { .x = n, .y = n, .row_count = count, .col_count = c->dim,
                            .weight = w->ffn_norm,
                            .quantised = activated_to(h->m, rows_from(rows_of(b->nq, c->dim),
                                                                      row)),
                            .eps = (float)c->norm_eps, .round = h->m->deploy };
    ckpt_code code;

    if ((code = collapse_streams(h->m, &collapse, err)) != CKPT_OK ||
        (code = OPS(h)->norm(h->m->backend, &norm, err)) != CKPT_OK)
        return code;
    return route_chunk(h, span, first, count, err);
}

static ckpt_code enter(const expert_half *h, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < h->work->span_count; i++) {
        const run_span *span = &h->work->spans[i];

        for (uint64_t done = 0; done < span->row_count && code == CKPT_OK; done += h->m->chunk)
            code = enter_chunk(h, span, done, size_min(h->m->chunk, span->row_count - done), err);
    }
    return code;
}

/* ---- experts ---- */

static void routing_free(routing *r)
{
    free(r->first);
    free(r->rows);
    free(r->factors);
    free(r->ids);
}

/* Sort the routed rows by expert. */
static ckpt_code routing_read(expert_half *h, ckpt_error *err)
{
    const run_config *c = h->m->config;
    const uint64_t count = h->work->row_count * c->active_count;
    routing *r = &h->r;
    ckpt_code code;

    r->first = calloc(c->expert_count + 2, sizeof *r->first);
    r->rows = malloc((count + 1) * sizeof *r->rows);
    r->factors = malloc((count + 1) * sizeof *r->factors);
    r->ids = malloc((2 * count + 1) * sizeof *r->ids);
    if (r->first == NULL || r->rows == NULL || r->factors == NULL || r->ids == NULL ||
        count > UINT32_MAX)
        return ckpt_fail_memory(err, "routing", count);
    r->weights = (const float *)(const void *)(r->ids + count);
    if ((code = OPS(h)->buffer_read(ids_of(h).buffer, 0, r->ids, 2 * count, err)) != CKPT_OK)
        return code;
    for (uint64_t i = 0; i < count; i++)
        r->first[r->ids[i] + 2]++;
    for (uint32_t e = 0; e < c->expert_count; e++)
        r->first[e + 2] += r->first[e + 1];
    for (uint64_t i = 0; i < count; i++) {      /* first[e + 1] grows from e's begin to its end */
        const uint32_t place = r->first[r->ids[i] + 1]++;

        r->rows[place] = (uint32_t)(i / c->active_count);
        r->factors[place] = r->weights[i];
    }
    return CKPT_OK;
}

static ckpt_code load_expert(const expert_half *h, uint32_t e, run_expert *out, ckpt_error *err)
{
    const run_weight **weights[3] = { &out->w1, &out->w2, &out->w3 };
    ckpt_code code = CKPT_OK;

    for (int i = 0; i < 3 && code == CKPT_OK; i++) {
        char name[TENSOR_NAME_BYTES];

        snprintf(name, sizeof name, "%sffn.experts.%u.w%d.weight", h->layer->prefix, e, i + 1);
        code = run_weights_matrix(h->m->weights, name, weights[i], err);
    }
    out->rows = h->r.rows + h->r.first[e];
    out->factors = h->r.factors + h->r.first[e];
    out->row_count = h->r.first[e + 1] - h->r.first[e];
    return code;
}

/* Add the outputs of experts to those of the routed ones, or to those of the shared one. */
static ckpt_code multiply(const expert_half *h, const run_expert *experts, size_t count,
                          int is_shared, ckpt_error *err)
{
    const run_config *c = h->m->config;
    const run_batch *b = h->work->batch;
    const run_rows n = rows_of(b->n, c->dim);
    const uint32_t block = is_shared ? LINEAR_BLOCK : EXPERT_BLOCK;
    const run_experts op = {
        .x = activated(h->m, n, rows_of(b->nq, c->dim)),
        .y = is_shared ? shared_of(h) : routed_of(h),
        .experts = experts, .expert_count = count, .dim = c->dim, .expert_dim = c->expert_dim,
        .block = h->m->deploy ? block : 0, .limit = (float)c->swiglu_limit,
        .round = h->m->deploy,
    };

    return OPS(h)->experts(h->m->backend, &op, err);
}

/* Run the experts that have rows in ascending order, as many at a time as memory allows. */
static ckpt_code run_routed(const expert_half *h, ckpt_error *err)
{
    const uint32_t group = h->m->expert_group;
    run_expert *experts = calloc(group, sizeof *experts);
    ckpt_code code = CKPT_OK;
    uint32_t e = 0;

    if (experts == NULL)
        return ckpt_fail_memory(err, "experts", group);
    while (e < h->m->config->expert_count && code == CKPT_OK) {
        const size_t mark = run_weights_mark(h->m->weights);
        size_t count = 0;

        layers_prefetch(h->m, h->layer->number, h->r.first);
        for (; e < h->m->config->expert_count && count < group && code == CKPT_OK; e++) {
            if (h->r.first[e + 1] == h->r.first[e])
                continue;
            if (count > 0 && run_weights_room(h->m->weights) < h->m->expert_bytes)
                break;
            code = load_expert(h, e, &experts[count++], err);
        }
        if (code == CKPT_OK && count > 0)
            code = multiply(h, experts, count, 0, err);
        run_weights_release(h->m->weights, mark);
    }
    layers_prefetch(h->m, h->layer->number, h->r.first);
    free(experts);
    return code;
}

/* The shared expert processes every row with factor 1. */
static ckpt_code run_shared(const expert_half *h, ckpt_error *err)
{
    const run_layer_weights *w = &h->layer->w;
    const uint64_t count = h->work->row_count;
    run_expert shared = { w->shared[0], w->shared[1], w->shared[2], NULL, NULL, count };
    uint32_t *rows = malloc((count + 1) * sizeof *rows);
    float *factors = malloc((count + 1) * sizeof *factors);
    ckpt_code code;

    for (uint64_t i = 0; rows != NULL && factors != NULL && i < count; i++) {
        rows[i] = (uint32_t)i;
        factors[i] = 1;
    }
    shared.rows = rows;
    shared.factors = factors;
    code = rows == NULL || factors == NULL ? ckpt_fail_memory(err, "rows", count)
                                           : multiply(h, &shared, 1, 1, err);
    free(rows);
    free(factors);
    return code;
}

static ckpt_code leave(const expert_half *h, ckpt_error *err)
{
    const run_config *c = h->m->config;
    const run_batch *b = h->work->batch;
    const uint64_t streams = c->stream_count;
    const run_rows y = routed_of(h);
    const run_rows x = rows_of(b->x, streams * c->dim);
    const run_add sum = { .a = y, .b = shared_of(h), .y = y, .row_count = h->work->row_count,
                          .col_count = c->dim, .repeat = 1, .round = h->m->deploy };
    const run_streams_post post = {
        .x = x, .y = y, .post = rows_of(b->post, streams),
        .comb = rows_of(b->comb, streams * streams), .row_count = h->work->row_count,
        .stream_count = c->stream_count, .dim = c->dim, .round = h->m->deploy,
    };
    ckpt_code code;

    if ((code = OPS(h)->add(h->m->backend, &sum, err)) != CKPT_OK ||
        (code = trace_spans(h, "ffn.y", y, 0, err)) != CKPT_OK ||
        (code = OPS(h)->hc_post(h->m->backend, &post, err)) != CKPT_OK)
        return code;
    return trace_spans(h, "x", x, 0, err);
}

static ckpt_code trace_routing(const expert_half *h, ckpt_error *err)
{
    const run_config *c = h->m->config;
    const run_batch *b = h->work->batch;
    const uint64_t streams = c->stream_count;
    ckpt_code code;

    if (h->m->options.trace == NULL)
        return CKPT_OK;
    if ((code = trace_spans(h, "ffn.n", rows_of(b->n, c->dim), 0, err)) != CKPT_OK ||
        (code = trace_spans(h, "ffn.post", rows_of(b->post, streams), 0, err)) != CKPT_OK ||
        (code = trace_spans(h, "ffn.comb", rows_of(b->comb, streams * streams), 0, err)) !=
            CKPT_OK ||
        (code = trace_spans(h, "gate.ids", ids_of(h), 1, err)) != CKPT_OK)
        return code;
    return trace_spans(h, "gate.weights", factors_of(h), 0, err);
}

/* The experts. A device runs the shared one while the host waits for the routing; a backend in host
 * memory needs the routing first, to start loading the routed ones. */
static ckpt_code run_all(expert_half *h, ckpt_error *err)
{
    const run_config *c = h->m->config;
    const uint64_t routed = 2 * h->work->row_count * c->active_count;
    const int is_ahead = OPS(h)->buffer_read_begin != NULL;
    ckpt_code code;

    if ((is_ahead && (code = OPS(h)->buffer_read_begin(ids_of(h).buffer, 0, routed, err)) !=
                         CKPT_OK) ||
        (code = OPS(h)->buffer_zero(h->work->batch->y, 0, 2 * h->work->row_count * c->dim, err)) !=
            CKPT_OK ||
        (is_ahead && (code = run_shared(h, err)) != CKPT_OK) ||
        (code = routing_read(h, err)) != CKPT_OK || (code = run_routed(h, err)) != CKPT_OK ||
        (!is_ahead && (code = run_shared(h, err)) != CKPT_OK))
        return code;
    return leave(h, err);
}

ckpt_code block_experts(run_model *model, const run_layer *layer, const run_work *work,
                        ckpt_error *err)
{
    expert_half h = { model, layer, work, { NULL, NULL, NULL, NULL, NULL } };
    ckpt_code code = enter(&h, err);

    layers_prefetch(model, layer->number, NULL);     /* while the device works on the queue */
    if (code == CKPT_OK && (code = trace_routing(&h, err)) == CKPT_OK)
        code = run_all(&h, err);
    routing_free(&h.r);
    return code;
}
