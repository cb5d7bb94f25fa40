/* run.c: sequences, and their way through the model: embedding, then the blocks in order. */
#include <stdlib.h>

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

static ckpt_code check_segment(const run_model *m, const run_segment *s, ckpt_error *err)
{
    if (s->token_count > s->sequence->max_positions - s->sequence->position)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "a sequence of %llu positions has no space for %llu more",
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

static ckpt_code embed_all(run_model *m, const run_work *work, ckpt_error *err)
{
    const run_rows x = rows_of(m->main.x, (uint64_t)m->config->stream_count * m->config->dim);
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < work->span_count && code == CKPT_OK; i++) {
        const run_span *span = &work->spans[i];
        const run_trace_point p = { "embed", span->sequence->number, 0, span->position,
                                    rows_from(x, span->row), span->row_count, m->config->dim,
                                    0 };

        if ((code = embed_span(m, span, x, m->config->stream_count, err)) == CKPT_OK)
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
    run_model *last = model_last(model);
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
