/* run_mtp.c: the MTP block: which rows it gets, and how a hidden state and the next token are
 * joined. */
#include <stdlib.h>

#include "model.h"

static run_rows mtp_x(const run_model *m)
{
    return rows_of(m->mtp.x, (uint64_t)m->config->stream_count * m->config->dim);
}

static ckpt_code copy_rows(run_model *m, run_rows from, run_rows to, uint64_t count,
                           ckpt_error *err)
{
    const run_add op = { .a = from, .y = to, .row_count = count, .col_count = from.pitch,
                         .repeat = 1 };

    return count == 0 ? CKPT_OK : m->backend->ops->add(m->backend, &op, err);
}

/*
 * The input rows of the MTP block for one span of the main model. A row needs the next token, so
 * they are the row held back from the last call, if any, and the span's rows except the last, which
 * is held back now. The tokens of the rows are those one position later.
 */
static ckpt_code mtp_take(run_model *m, const run_span *main, run_span *span, ckpt_error *err)
{
    const run_rows x = rows_from(
        rows_of(m->main.x, (uint64_t)m->config->stream_count * m->config->dim), main->row);
    const run_rows held = rows_of(main->sequence->held, x.pitch);
    const run_rows to = rows_from(mtp_x(m), span->row);
    const uint64_t before = main->position > 0;
    ckpt_code code;

    span->sequence = main->sequence;
    span->position = main->position - before;
    span->row_count = main->row_count - 1 + before;
    span->tokens = main->tokens + 1 - before;
    if ((before && (code = copy_rows(m, held, to, 1, err)) != CKPT_OK) ||
        (code = copy_rows(m, x, rows_from(to, before), main->row_count - 1, err)) != CKPT_OK)
        return code;
    return copy_rows(m, rows_from(x, main->row_count - 1), held, 1, err);
}

/* x = e_proj(norm(embedding)) + h_proj(norm(x)) for `count` rows from `row` on. The embeddings are
 * in the buffer n of the batch. */
static ckpt_code mtp_join(run_model *m, const run_layer *layer, uint64_t row, uint64_t count,
                          ckpt_error *err)
{
    const run_config *c = m->config;
    const run_backend_ops *ops = m->backend->ops;
    const uint64_t streams = c->stream_count;
    const run_rows e = rows_from(rows_of(m->mtp.n, c->dim), row);
    const run_rows eq = rows_from(rows_of(m->mtp.nq, c->dim), row);
    const run_rows y = rows_from(rows_of(m->mtp.y, c->dim), row);
    const run_rows x = rows_from(rows_of(m->mtp.x, c->dim), row * streams);
    run_norm norm = { .x = e, .y = e, .row_count = count, .col_count = c->dim,
                      .weight = layer->w.enorm, .eps = (float)c->norm_eps, .round = m->deploy };
    run_linear linear = { .x = activated(m, e, eq), .y = y, .row_count = count,
                          .weight = layer->w.e_proj, .weight_row_count = c->dim,
                          .block = m->deploy ? LINEAR_BLOCK : 0, .round = m->deploy };
    run_add add = { .a = y, .b = rows_of(m->scratch.o, c->dim), .y = x, .col_count = c->dim,
                    .repeat = c->stream_count, .round = m->deploy };
    ckpt_code code;

    if ((code = ops->norm(m->backend, &norm, err)) != CKPT_OK ||
        (code = activate_rows(m, e, eq, count, err)) != CKPT_OK ||
        (code = ops->linear(m->backend, &linear, err)) != CKPT_OK)
        return code;
    norm.x = norm.y = x;
    norm.row_count = count * streams;
    norm.weight = layer->w.hnorm;
    if ((code = ops->norm(m->backend, &norm, err)) != CKPT_OK ||
        (code = activate_rows(m, x, x, count * streams, err)) != CKPT_OK)
        return code;
    linear.weight = layer->w.h_proj;
    linear.row_count = streams;
    for (uint64_t i = 0; i < count && code == CKPT_OK; i++) {
        linear.x = rows_from(x, i * streams);
        linear.y = add.b;
        add.a = rows_from(y, i);
        add.y = linear.x;
        add.row_count = streams;
        if ((code = ops->linear(m->backend, &linear, err)) == CKPT_OK)
            code = ops->add(m->backend, &add, err);
    }
    return code;
}

static ckpt_code mtp_block(run_model *m, const run_work *work, ckpt_error *err)
{
    const size_t mark = run_weights_mark(m->weights);
    run_layer layer;
    ckpt_code code;

    layer_describe(m, m->config->layer_count, &layer);
    code = layer_load(m, &layer, err);
    for (size_t i = 0; i < work->span_count && code == CKPT_OK; i++) {
        const run_span *span = &work->spans[i];

        if ((code = embed_span(m, span, rows_of(m->mtp.n, m->config->dim), 1, err)) == CKPT_OK)
            code = mtp_join(m, &layer, span->row, span->row_count, err);
    }
    run_weights_release(m->weights, mark);
    return code != CKPT_OK ? code : run_block(m, layer.number, work, err);
}

ckpt_code mtp_forward(run_model *m, const run_work *main, ckpt_error *err)
{
    run_work work = { NULL, main->span_count, 0, &m->mtp };
    ckpt_code code;

    free(m->mtp_spans);
    m->mtp_span_count = main->span_count;
    m->mtp_spans = calloc(main->span_count + 1, sizeof *m->mtp_spans);
    if (m->mtp_spans == NULL)
        return ckpt_fail_memory(err, "segments", main->span_count);
    if ((code = batch_reserve(m, &m->mtp, main->row_count, err)) != CKPT_OK)
        return code;
    work.spans = m->mtp_spans;
    for (size_t i = 0; i < main->span_count && code == CKPT_OK; i++) {
        m->mtp_spans[i].row = work.row_count;
        if (main->spans[i].row_count > 0)
            code = mtp_take(m, &main->spans[i], &m->mtp_spans[i], err);
        work.row_count += m->mtp_spans[i].row_count;
    }
    return code != CKPT_OK || work.row_count == 0 ? code : mtp_block(m, &work, err);
}

uint64_t run_mtp_rows(const run_model *model, size_t segment, uint64_t *row, uint64_t *position)
{
    while (model->next != NULL)
        model = model->next;
    *row = model->mtp_spans[segment].row;
    *position = model->mtp_spans[segment].position;
    return model->mtp_spans[segment].row_count;
}
