/* run_passes.c: passes of the model over all prompts, and what becomes of their logits. */
#include "run_passes.h"

#include <inttypes.h>

#include "libckpt/clock.h"
#include "libckpt/size.h"
#include "reference-runner/generate.h"
#include "run_print.h"

static ckpt_code check_logits(const run_job *job, uint64_t i, const float *logits,
                              ckpt_error *err)
{
    const uint32_t found = run_find_nan(logits, job->settings.config.vocab_size);

    return found == 0 ? CKPT_OK
                      : ckpt_fail(err, CKPT_E_FORMAT, "logit %u at position %" PRIu64
                                  " of prompt %zu is NaN: the config or a weight is out of range",
                                  found - 1, job->row_positions[i], job->row_owners[i]);
}

/* Handle the logits of one row: store them if wanted, choose the next token if it is needed. */
static ckpt_code take_logits(void *context, uint64_t i, const float *logits, ckpt_error *err)
{
    run_job *job = context;
    run_line *line = &job->lines[job->row_owners[i]];
    const uint64_t position = job->row_positions[i];
    const run_draw draw = { job->temperature, job->seed, job->row_owners[i], position };
    ckpt_code code = check_logits(job, i, logits, err);

    if (code != CKPT_OK)
        return code;
    if (line->done_count < line->position_count &&
        line->positions[line->done_count] == position) {
        if (job->results != NULL)
            code = run_results_put(job->results, job->row_owners[i], line->done_count, logits,
                                   err);
        line->done_count++;
    }
    if (position + 1 < line->prompt->count)
        return code;
    line->next = run_next_token(logits, job->settings.config.vocab_size, &draw);
    if (line->generated_count < job->asked->generate_count)
        line->generated[line->generated_count++] = (int32_t)line->next;
    line->ended = line->generated_count == job->asked->generate_count ||
                  run_settings_is_eos(&job->settings, line->next);
    return code;
}

static ckpt_code take_mtp(void *context, uint64_t i, const float *logits, ckpt_error *err)
{
    run_job *job = context;
    run_line *line = &job->lines[job->row_owners[i]];

    return run_results_put_mtp(job->results, job->row_owners[i], line->mtp_done_count++, logits,
                               err);
}

static void ask_row(run_job *job, uint64_t *count, size_t owner, const uint64_t at[2])
{
    job->rows[*count] = at[0];
    job->row_owners[*count] = owner;
    job->row_positions[(*count)++] = at[1];
}

/* Compute the wanted logits of the last forward pass, and those that choose the next tokens. */
static ckpt_code take_rows(run_job *job, ckpt_error *err)
{
    uint64_t row = 0;
    uint64_t count = 0;
    run_logits_request request = { .rows = job->rows, .take = take_logits, .context = job };

    for (size_t s = 0; s < job->segment_count; s++) {
        const run_line *line = &job->lines[job->owners[s]];
        const uint64_t end = run_sequence_position(line->sequence);
        uint64_t at = line->done_count;

        for (uint64_t p = end - job->segments[s].token_count; p < end; p++, row++) {
            const int wanted = at < line->position_count && line->positions[at] == p;

            at += (uint64_t)wanted;
            if (wanted || p + 1 >= line->prompt->count)
                ask_row(job, &count, job->owners[s], (const uint64_t[]){ row, p });
        }
    }
    request.row_count = count;
    return run_logits(job->model, &request, err);
}

static ckpt_code take_mtp_rows(run_job *job, ckpt_error *err)
{
    uint64_t count = 0;
    run_logits_request request = { .rows = job->rows, .take = take_mtp, .context = job };

    if (!job->asked->mtp || job->results == NULL)
        return CKPT_OK;
    for (size_t s = 0; s < job->segment_count; s++) {
        const run_line *line = &job->lines[job->owners[s]];
        uint64_t at = line->mtp_done_count;
        uint64_t row;
        uint64_t position;
        const uint64_t rows = run_mtp_rows(job->model, s, &row, &position);

        for (uint64_t i = 0; i < rows && at < line->mtp_count; i++)
            if (line->positions[at] == position + i) {
                ask_row(job, &count, job->owners[s], (const uint64_t[]){ row + i, position + i });
                at++;
            }
    }
    request.row_count = count;
    return run_mtp_logits(job->model, &request, err);
}

/* Choose what each prompt feeds next; 0 when all have ended. */
static size_t fill_segments(run_job *job)
{
    job->segment_count = 0;
    for (size_t i = 0; i < job->prompts.count; i++) {
        run_line *line = &job->lines[i];
        const uint64_t at = run_sequence_position(line->sequence);
        run_segment *s = &job->segments[job->segment_count];

        if (at < line->prompt->count) {
            s->tokens = line->prompt->tokens + at;
            s->token_count = size_min(job->asked->feed, line->prompt->count - at);
        } else if (!line->ended) {
            s->tokens = &line->next;
            s->token_count = 1;
        } else {
            continue;
        }
        s->sequence = line->sequence;
        job->owners[job->segment_count++] = i;
    }
    return job->segment_count;
}

/* No prompt takes part in this pass. */
static int is_generating(const run_job *job)
{
    for (size_t s = 0; s < job->segment_count; s++)
        if (job->segments[s].tokens != &job->lines[job->owners[s]].next)
            return 0;
    return 1;
}

ckpt_code run_passes(run_job *job, ckpt_error *err)
{
    ckpt_code code;

    for (size_t i = 0; i < job->prompts.count; i++) {
        run_line *line = &job->lines[i];
        const uint64_t more = job->asked->generate_count > 0 ? job->asked->generate_count - 1 : 0;

        code = run_sequence_create(job->model, line->prompt->count + more, (unsigned)i,
                                   &line->sequence, err);
        if (code != CKPT_OK)
            return code;
    }
    while (fill_segments(job) > 0) {
        const double begin = clock_seconds();

        if ((code = run_forward(job->model, job->segments, job->segment_count, err)) !=
                CKPT_OK ||
            (code = take_rows(job, err)) != CKPT_OK ||
            (code = take_mtp_rows(job, err)) != CKPT_OK)
            return code;
        run_speed_count(&job->speed, is_generating(job), clock_seconds() - begin);
    }
    return CKPT_OK;
}
