/* run_head.c: logits from hidden states: streams are collapsed, normalised, and multiplied by
 * slices of the head. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "libckpt/size.h"
#include "trace.h"

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

/* Collapse and normalise rows [first, first + count) of the request into h. */
static ckpt_code head_rows(const head_job *j, uint64_t first, uint64_t count, ckpt_error *err)
{
    run_model *m = j->m;
    const run_config *c = m->config;
    const uint64_t width = (uint64_t)c->stream_count * c->dim;
    const run_rows from = rows_of(j->batch->x, width);
    const run_rows h = rows_of(j->h, c->dim);
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
    ckpt_code code = head_rows(j, first, count, err);

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
    run_model *m = model_last(model);
    head_job j = { .m = m, .batch = &m->main, .prefix = "", .request = request,
                   .spans = m->spans, .points = { "h", "logits" } };

    return request->row_count == 0 ? CKPT_OK : run_head(&j, err);
}

ckpt_code run_mtp_logits(run_model *model, const run_logits_request *request, ckpt_error *err)
{
    run_model *m = model_last(model);
    head_job j = { .m = m, .batch = &m->mtp, .prefix = "mtp.0.", .request = request,
                   .spans = m->mtp_spans, .points = { "mtp.h", "mtp.logits" } };

    return request->row_count == 0 ? CKPT_OK : run_head(&j, err);
}
