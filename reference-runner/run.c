/* run.c: the whole model: embedding, the blocks in order, head. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "libckpt/size.h"
#include "trace.h"

/* Load all experts of a layer ahead if each has so many rows on average. */
enum { ROWS_TO_TAKE_ALL = 16 };    /* an expert without rows is then unlikely */

const run_layer_time *run_layer_times(const run_model *model, uint32_t *count)
{
    *count = block_count(model);
    return model->times;
}

static run_model *last_part(run_model *m)
{
    while (m->next != NULL)
        m = m->next;
    return m;
}

/* ---- sequences ---- */

static ckpt_code create_states(run_model *model, run_sequence *s, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    s->layers = calloc(block_count(model) + 1, sizeof *s->layers);
    if (s->layers == NULL)
        return ckpt_fail_memory(err, "layer states", block_count(model));
    for (run_model *part = model; part != NULL && code == CKPT_OK; part = part->next)
        code = state_create(part, s, err);
    return code;
}

ckpt_code run_sequence_create(run_model *model, uint64_t max_positions, unsigned number,
                              run_sequence **out, ckpt_error *err)
{
    run_sequence *s = calloc(1, sizeof *s);
    ckpt_code code;

    if (s == NULL)
        return ckpt_fail_memory(err, "a sequence", sizeof *s);
    s->max_positions = max_positions;
    s->number = number;
    if (max_positions > model->config->max_positions)
        code = ckpt_fail(err, CKPT_E_USAGE,
                         "a sequence of %llu tokens, but the config allows %llu positions",
                         (unsigned long long)max_positions,
                         (unsigned long long)model->config->max_positions);
    else
        code = create_states(model, s, err);
    if (code != CKPT_OK)
        run_sequence_free(model, s);
    else
        *out = s;
    return code;
}

void run_sequence_free(run_model *model, run_sequence *sequence)
{
    if (sequence == NULL)
        return;
    for (run_model *part = model; sequence->layers != NULL && part != NULL; part = part->next)
        state_free(part, sequence);
    free(sequence->layers);
    free(sequence);
}

uint64_t run_sequence_position(const run_sequence *sequence)
{
    return sequence->position;
}

/* ---- forward ---- */

/* Write the embedding of each of a span's tokens to its row of `to`, `copies` times in a row. */
static ckpt_code embed(run_model *m, const run_span *span, run_rows to, uint32_t copies,
                       ckpt_error *err)
{
    const uint32_t dim = m->config->dim;
    /* y is not used before the experts, so it serves as scratch. */
    const run_rows single = rows_from(rows_of(m->main.y, dim), span->row);
    float *rows = malloc(((size_t)span->row_count + 1) * dim * sizeof *rows);
    const run_row_list list = { span->tokens, span->row_count, rows };
    const run_add spread = {
        .a = single, .y = { to.buffer, to.offset + span->row * to.pitch, dim },
        .row_count = span->row_count * copies, .col_count = dim, .repeat = copies,
    };
    ckpt_code code;

    if (rows == NULL)
        return ckpt_fail_memory(err, "embeddings", span->row_count * dim);
    if ((code = run_weights_rows(m->weights, "embed.weight", &list, err)) == CKPT_OK &&
        (code = m->backend->ops->buffer_write(single.buffer, single.offset, rows,
                                              span->row_count * dim, err)) == CKPT_OK)
        code = m->backend->ops->add(m->backend, &spread, err);
    free(rows);
    return code;
}

/* Layers of a single row are not waited for: that would take longer than some of them. */
static ckpt_code take_time(run_model *m, uint32_t number, uint64_t asked_before, ckpt_error *err)
{
    run_layer_time *time = &m->times[number];
    const int is_waiting = !m->is_single || number + 1 == m->layer_end;
    run_lap lap;
    const ckpt_code code = m->backend->ops->lap(m->backend, is_waiting, &lap, err);

    if (code != CKPT_OK)
        return code;
    time->lap.seconds += lap.seconds;
    time->lap.wait_seconds += lap.wait_seconds;
    time->lap.copy_seconds += lap.copy_seconds;
    time->lap.copy_bytes += lap.copy_bytes;
    time->weight_bytes += run_weights_asked(m->weights) - asked_before;
    return CKPT_OK;
}

static ckpt_code run_block(run_model *m, uint32_t number, const run_work *work, ckpt_error *err)
{
    const size_t mark = run_weights_mark(m->weights);
    const uint64_t asked = run_weights_asked(m->weights);
    run_layer layer;
    ckpt_code code;

    layer_describe(m, number, &layer);
    if ((code = layer_load(m, &layer, err)) == CKPT_OK &&
        (code = block_attention(m, &layer, work, err)) == CKPT_OK)
        code = block_experts(m, &layer, work, err);
    run_weights_release(m->weights, mark);
    if (code == CKPT_OK && !m->takes_all_experts)
        layers_warm(m);
    return code == CKPT_OK && m->times != NULL ? take_time(m, number, asked, err) : code;
}

static ckpt_code check_segment(const run_model *m, const run_segment *s, ckpt_error *err)
{
    if (s->token_count > s->sequence->max_positions - s->sequence->position)
        return ckpt_fail(err, CKPT_E_USAGE, "a sequence of %llu positions has no space for %llu "
            "more",
                         (unsigned long long)s->sequence->position,
                         (unsigned long long)s->token_count);
    for (uint64_t i = 0; i < s->token_count; i++)
        if (s->tokens[i] >= m->config->vocab_size)
            return ckpt_fail(err, CKPT_E_FORMAT,
                             "token %u at position %llu, but the vocabulary has %u", s->tokens[i],
                             (unsigned long long)(s->sequence->position + i),
                             m->config->vocab_size);
    return CKPT_OK;
}

static ckpt_code mtp_forward(run_model *m, const run_work *main, ckpt_error *err);

static ckpt_code embed_all(run_model *m, const run_work *work, ckpt_error *err)
{
    const run_rows x = rows_of(m->main.x, (uint64_t)m->config->stream_count * m->config->dim);
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < work->span_count && code == CKPT_OK; i++) {
        const run_span *span = &work->spans[i];
        const run_trace_point p = { "embed", span->sequence->number, 0, span->position,
                                    rows_from(x, span->row), span->row_count, m->config->dim,
                                    0 };

        if ((code = embed(m, span, x, m->config->stream_count, err)) == CKPT_OK)
            code = run_trace_rows(m->options.trace, m->backend, &p, err);
    }
    return code;
}

/* Copy the hidden state to the device with the next layers. */
static ckpt_code pass_on(run_model *m, uint64_t row_count, ckpt_error *err)
{
    const uint64_t width = (uint64_t)m->config->stream_count * m->config->dim;

    return m->backend->ops->buffer_pass(m->main.x, m->next->main.x, row_count * width, err);
}

/* Run the layers of one device. */
static ckpt_code forward(run_model *m, const run_work *work, ckpt_error *err)
{
    const uint32_t end = (uint32_t)size_min(m->layer_end, m->config->layer_count);
    run_lap before;
    ckpt_code code = CKPT_OK;

    if (m->layer_begin == 0)
        code = embed_all(m, work, err);
    if (code == CKPT_OK && m->times != NULL)
        code = m->backend->ops->lap(m->backend, !m->is_single, &before, err);    /* is discarded */
    for (uint32_t l = m->layer_begin; l < end && code == CKPT_OK; l++)
        code = m->options.stop != NULL && *m->options.stop
                   ? ckpt_fail(err, CKPT_E_INTERRUPTED, "interrupted before layer %u", l)
                   : run_block(m, l, work, err);
    if (code == CKPT_OK && m->next != NULL)
        code = pass_on(m, work->row_count, err);
    else if (code == CKPT_OK && m->options.mtp)
        code = mtp_forward(m, work, err);
    run_weights_settle(m->weights);
    return code;
}

/* Make room for the rows and start loading the first weights. */
static ckpt_code prepare_part(run_model *m, uint64_t row_count, ckpt_error *err)
{
    const ckpt_code code = batch_reserve(m, &m->main, row_count, err);

    m->ahead = (run_ahead){ m->layer_begin, 0 };
    m->is_single = row_count == 1;
    m->takes_all_experts = row_count * m->config->active_count >=
                           (uint64_t)m->config->expert_count * ROWS_TO_TAKE_ALL;
    run_weights_expect(m->weights, !m->takes_all_experts);
    if (code == CKPT_OK)
        layers_prefetch(m, m->layer_begin, NULL);
    return code;
}

static ckpt_code forward_all(run_model *model, run_work *work, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (run_model *part = model; part != NULL && code == CKPT_OK; part = part->next)
        code = prepare_part(part, work->row_count, err);
    for (run_model *part = model; part != NULL && code == CKPT_OK; part = part->next) {
        work->batch = &part->main;
        code = forward(part, work, err);
    }
    return code;
}

ckpt_code run_forward(run_model *model, const run_segment *segments, size_t segment_count,
                      ckpt_error *err)
{
    run_span *spans = calloc(segment_count + 1, sizeof *spans);
    run_work work = { spans, segment_count, 0, NULL };
    run_model *last = last_part(model);
    ckpt_code code = CKPT_OK;

    if (spans == NULL)
        return ckpt_fail_memory(err, "segments", segment_count);
    for (size_t i = 0; i < segment_count && code == CKPT_OK; i++) {
        const run_segment *s = &segments[i];

        spans[i] = (run_span){ s->sequence, s->tokens, work.row_count, s->token_count,
                               s->sequence->position };
        work.row_count += s->token_count;
        code = check_segment(model, s, err);
    }
    if (code == CKPT_OK)
        code = forward_all(model, &work, err);
    for (size_t i = 0; i < segment_count && code == CKPT_OK; i++)
        segments[i].sequence->position += segments[i].token_count;
    free(last->spans);
    last->spans = spans;
    return code;
}

/* ---- MTP ---- */

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

        if ((code = embed(m, span, rows_of(m->mtp.n, m->config->dim), 1, err)) == CKPT_OK)
            code = mtp_join(m, &layer, span->row, span->row_count, err);
    }
    run_weights_release(m->weights, mark);
    return code != CKPT_OK ? code : run_block(m, layer.number, work, err);
}

static ckpt_code mtp_forward(run_model *m, const run_work *main, ckpt_error *err)
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

/* ---- head ---- */

typedef struct {
    run_model *m;
    const run_batch *batch;
    const char *prefix;        /* of the names of the head's tensors: "" or "mtp.0." */
    const run_logits_request *request;
    const run_span *spans;     /* the spans that the rows belong to */
    const char *points[2];     /* names of h and logits in a trace */
    run_buffer *h;             /* normalised rows of a group */
    float *logits;             /* vocab_size for each of these rows */
    float *slice;              /* logits of one slice of the vocabulary for a chunk of rows */
} head_job;

static ckpt_code head_vector(const head_job *j, const char *name, const run_buffer **out,
                             ckpt_error *err)
{
    char full[TENSOR_NAME_BYTES];

    snprintf(full, sizeof full, "%s%s", j->prefix, name);
    return run_weights_vector(j->m->weights, full, out, err);
}

/* Collapse and normalise rows [first, first + count) of the request into h, from row `at` on. */
static ckpt_code head_rows(const head_job *j, uint64_t first, uint64_t at, uint64_t count,
                           ckpt_error *err)
{
    run_model *m = j->m;
    const run_config *c = m->config;
    const uint64_t width = (uint64_t)c->stream_count * c->dim;
    /* Gather the rows of the request: q is free by now, but may be narrower than the streams. */
    const run_rows from = rows_of(j->batch->x, width);
    const run_rows h = rows_from(rows_of(j->h, c->dim), at);
    run_norm norm = { .x = h, .y = h, .row_count = count, .col_count = c->dim,
                      .eps = (float)c->norm_eps, .round = m->deploy };
    run_collapse collapse = { .row_count = 1 };
    char name[TENSOR_NAME_BYTES];
    ckpt_code code;

    snprintf(name, sizeof name, "%shc_head_fn", j->prefix);
    if ((code = run_weights_matrix(m->weights, name, &collapse.fn, err)) != CKPT_OK ||
        (code = head_vector(j, "hc_head_base", &collapse.base, err)) != CKPT_OK ||
        (code = head_vector(j, "hc_head_scale", &collapse.scale, err)) != CKPT_OK ||
        (code = head_vector(j, "norm.weight", &norm.weight, err)) != CKPT_OK)
        return code;
    for (uint64_t i = 0; i < count; i++) {
        collapse.x = rows_from(from, j->request->rows[first + i]);
        collapse.u = rows_from(h, i);
        if ((code = collapse_streams(m, &collapse, err)) != CKPT_OK)
            return code;
    }
    return m->backend->ops->norm(m->backend, &norm, err);
}

/* 1 if the scratch has room for all logits of `count` rows. They are then read once at the end:
 * reading each slice would wait for it. */
static int head_stays(const run_model *m, uint64_t count)
{
    const uint64_t slice = run_weights_slice_rows(m->weights, "head.weight");

    return count * m->config->vocab_size <= m->chunk * size_min(slice, m->config->vocab_size);
}

/* Compute the logits of slice i of the vocabulary for `count` rows of h. */
static ckpt_code head_slice(const head_job *j, uint64_t i, uint64_t count, ckpt_error *err)
{
    run_model *m = j->m;
    const uint64_t vocab = m->config->vocab_size;
    const uint64_t rows = run_weights_slice_rows(m->weights, "head.weight");
    const uint64_t first = i * rows;
    const uint64_t width = size_min(rows, vocab - first);
    const int stays = head_stays(m, count);
    const size_t mark = run_weights_mark(m->weights);
    run_linear op = { .y = rows_of(m->scratch.logits, stays ? vocab : width),
                      .weight_row_count = width };
    ckpt_code code = run_weights_slice(m->weights, "head.weight", i, &op.weight, err);

    op.y.offset = stays ? first : 0;
    for (uint64_t done = 0; done < count && code == CKPT_OK; done += m->chunk) {
        op.row_count = size_min(m->chunk, count - done);
        op.x = rows_from(rows_of(j->h, m->config->dim), done);
        if ((code = m->backend->ops->linear(m->backend, &op, err)) != CKPT_OK || stays ||
            (code = m->backend->ops->buffer_read(m->scratch.logits, 0, j->slice,
                                                 op.row_count * width, err)) != CKPT_OK)
            break;
        for (uint64_t t = 0; t < op.row_count; t++)
            memcpy(j->logits + (done + t) * vocab + first, j->slice + t * width,
                   width * sizeof *j->logits);
    }
    run_weights_release(m->weights, mark);
    return code;
}

/* Trace h and logits of row i of the request, which is row t of its group. */
static ckpt_code trace_head(const head_job *j, uint64_t i, uint64_t t, ckpt_error *err)
{
    const run_config *c = j->m->config;
    const uint64_t row = j->request->rows[i];
    const run_span *span = j->spans;
    run_trace_point p = { .point = j->points[0], .layer = c->layer_count,
                          .rows = rows_from(rows_of(j->h, c->dim), t), .row_count = 1,
                          .cols = c->dim };
    ckpt_code code;

    while (row - span->row >= span->row_count)
        span++;
    p.sequence = span->sequence->number;
    p.position = span->position + row - span->row;
    if ((code = run_trace_rows(j->m->options.trace, j->m->backend, &p, err)) != CKPT_OK)
        return code;
    p.point = j->points[1];
    p.cols = c->vocab_size;
    return run_trace_values(j->m->options.trace, &p, j->logits + t * c->vocab_size, err);
}

static ckpt_code head_group(const head_job *j, uint64_t first, uint64_t count, ckpt_error *err)
{
    const run_config *c = j->m->config;
    const uint64_t slices =
        size_div_up(c->vocab_size, run_weights_slice_rows(j->m->weights, "head.weight"));
    const size_t mark = run_weights_mark(j->m->weights);
    ckpt_code code = head_rows(j, first, 0, count, err);

    run_weights_release(j->m->weights, mark);
    for (uint64_t i = 0; i < slices && code == CKPT_OK; i++)
        code = head_slice(j, i, count, err);
    if (code == CKPT_OK && head_stays(j->m, count))
        code = j->m->backend->ops->buffer_read(j->m->scratch.logits, 0, j->logits,
                                               count * c->vocab_size, err);
    for (uint64_t t = 0; j->m->options.trace != NULL && t < count && code == CKPT_OK; t++)
        code = trace_head(j, first + t, t, err);
    for (uint64_t t = 0; t < count && code == CKPT_OK; t++)
        code = j->request->take(j->request->context, first + t,
                                j->logits + t * c->vocab_size, err);
    return code;
}

static ckpt_code run_head(head_job *j, ckpt_error *err)
{
    run_model *m = j->m;
    const uint64_t vocab = m->config->vocab_size;
    const uint64_t slice = size_min(run_weights_slice_rows(m->weights, "head.weight"), vocab);
    const uint64_t group = size_min(HEAD_ROWS, j->request->row_count);
    ckpt_code code = CKPT_OK;

    if (m->head_rows == NULL)
        code = m->backend->ops->buffer_create(m->backend, HEAD_ROWS * (uint64_t)m->config->dim,
                                              &m->head_rows, err);
    if (code != CKPT_OK)
        return code;
    j->h = m->head_rows;
    j->logits = malloc(group * vocab * sizeof *j->logits);
    j->slice = malloc(m->chunk * slice * sizeof *j->slice);
    if (j->logits == NULL || j->slice == NULL)
        code = ckpt_fail_memory(err, "logits", group * vocab * sizeof *j->logits);
    for (uint64_t i = 0; i < j->request->row_count && code == CKPT_OK; i += group)
        code = head_group(j, i, size_min(group, j->request->row_count - i), err);
    free(j->logits);
    free(j->slice);
    return code;
}

ckpt_code run_logits(run_model *model, const run_logits_request *request, ckpt_error *err)
{
    run_model *m = last_part(model);
    head_job j = { .m = m, .batch = &m->main, .prefix = "", .request = request,
                   .spans = m->spans, .points = { "h", "logits" } };

    return request->row_count == 0 ? CKPT_OK : run_head(&j, err);
}

ckpt_code run_mtp_logits(run_model *model, const run_logits_request *request, ckpt_error *err)
{
    run_model *m = last_part(model);
    head_job j = { .m = m, .batch = &m->mtp, .prefix = "mtp.0.", .request = request,
                   .spans = m->mtp_spans, .points = { "mtp.h", "mtp.logits" } };

    return request->row_count == 0 ? CKPT_OK : run_head(&j, err);
}
