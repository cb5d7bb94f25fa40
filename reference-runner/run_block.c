/* run_block.c: what main layers and the MTP block share: embeddings of tokens, and one block. */
#include <stdlib.h>

#include "model.h"

ckpt_code embed_span(run_model *m, const run_span *span, run_rows to, uint32_t copies,
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

ckpt_code run_block(run_model *m, uint32_t number, const run_work *work, ckpt_error *err)
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
