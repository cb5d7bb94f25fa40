/* Decodes answers and prints results. */
#include "run_print.h"

#include <inttypes.h>
#include <stdio.h>

#include "run_devices.h"
#include "libckpt/json.h"
#include "libckpt/size.h"
#include "libckpt/text.h"

void run_speed_count(run_speed *speed, int is_token, double seconds)
{
    *(is_token ? &speed->token_seconds : &speed->prompt_seconds) += seconds;
    if (is_token)
        speed->recent[speed->token_count++ % RUN_RECENT] = seconds;
}

/* The mean of the last tokens: the first ones wait for weights that stay. */
static double recent_seconds(const run_speed *speed)
{
    const uint64_t count = size_min(speed->token_count, RUN_RECENT);
    double sum = 0;

    for (uint64_t i = 0; i < count; i++)
        sum += speed->recent[i];
    return count == 0 ? 0 : sum / (double)count;
}

/* ---- answers ---- */

static ckpt_code parse(const run_job *job, size_t i, int is_ended, ckpt_error *err)
{
    run_exchange *e = &job->words.all[i];
    byte_buffer message = { 0 };
    ckpt_error why;
    ckpt_code code = run_chat_parse(run_text_mode_of(&job->asked->text), e->answer, is_ended,
                                    &message, &why);

    byte_buffer_add(&message, "", 1);
    e->message = message.bytes;
    if (code == CKPT_OK)
        return message.failed ? ckpt_fail_memory(err, "a message", message.used) : CKPT_OK;
    return ckpt_fail(err, code, "prompt %zu: %s%s", i, why.text,
                     is_ended ? "" : " (it was cut after --generate tokens)");
}

/* The generated tokens without the end-of-sequence token, or the best token after the prompt. */
static ckpt_code answer(const run_job *job, size_t i, ckpt_error *err)
{
    const run_line *line = &job->lines[i];
    run_exchange *e = &job->words.all[i];
    const int32_t next = (int32_t)line->next;
    const uint64_t count = line->generated_count;
    int is_ended;
    ckpt_code code;

    if (job->asked->generate_count == 0)
        return run_text_decode(job->text, &next, 1, &e->answer, err);
    is_ended = run_settings_is_eos(&job->settings, (uint32_t)line->generated[count - 1]);
    code = run_text_decode(job->text, line->generated, count - (is_ended ? 1 : 0), &e->answer,
                           err);
    return code == CKPT_OK && job->asked->text.parse ? parse(job, i, is_ended, err) : code;
}

ckpt_code run_words_answer(run_job *job, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; job->text != NULL && i < job->prompts.count && code == CKPT_OK; i++)
        code = answer(job, i, err);
    return code;
}

/* ---- printing ---- */

void run_print_notes(const run_job *job)
{
    for (size_t i = 0; i < job->settings.notes.count && !job->asked->common.quiet; i++)
        fprintf(stderr, "note: %s\n", cli_name(job->settings.notes.names[i]));
}

static void put_ids(json_writer *w, const run_prompt *prompt)
{
    json_member_array(w, "ids");
    for (uint64_t t = 0; t < prompt->count; t++)
        json_put_u64(w, prompt->tokens[t]);
    json_put_array_end(w);
}

static void put_generated(json_writer *w, const run_job *job, const run_line *line)
{
    json_member_u64(w, "next", job->asked->generate_count > 0 ? (uint64_t)line->generated[0]
                                                              : line->next);
    json_member_array(w, "generated");
    for (uint64_t t = 0; t < line->generated_count; t++)
        json_put_i64(w, line->generated[t]);
    json_put_array_end(w);
}

static void put_prompt(json_writer *w, const run_job *job, size_t i)
{
    const run_line *line = &job->lines[i];
    const run_exchange *e = job->text == NULL ? NULL : &job->words.all[i];

    json_put_object(w);
    json_member_u64(w, "tokens", line->prompt->count);
    if (e != NULL) {
        json_member_string(w, "prompt", e->prompt);
        put_ids(w, line->prompt);
    }
    json_member_u64(w, "positions", line->position_count);
    if (!job->asked->common.dry_run)
        put_generated(w, job, line);
    if (e != NULL && e->answer != NULL)
        json_member_string(w, "text", e->answer);
    if (e != NULL && e->message != NULL) {
        json_put_key(w, "message");
        json_put_raw(w, e->message);
    }
    json_put_object_end(w);
}

static void put_speed(json_writer *w, const run_speed *speed)
{
    json_member_object(w, "speed");
    json_member_double(w, "prompt_seconds", speed->prompt_seconds);
    json_member_double(w, "token_seconds", speed->token_seconds);
    json_member_u64(w, "token_count", speed->token_count);
    json_member_double(w, "recent_token_seconds", recent_seconds(speed));
    json_put_object_end(w);
}

static void print_json(const run_job *job)
{
    json_writer w;

    cli_json_begin(&w, "ckpt-run/1");
    json_put_object(&w);
    json_member_string(&w, "numerics", job->asked->numerics);
    json_member_string(&w, "config_digest", job->settings.config.digest);
    json_member_string(&w, "model_root", job->root_source == NULL ? NULL : job->root);
    json_member_u64(&w, "need_bytes", run_need_bytes(job->model));
    json_member_string(&w, "out", job->asked->out);
    json_member_string(&w, "trace", job->asked->trace);
    json_member_array(&w, "prompts");
    for (size_t i = 0; i < job->prompts.count; i++)
        put_prompt(&w, job, i);
    json_put_array_end(&w);
    json_member_names(&w, "notes", (const char *const *)job->settings.notes.names,
                      job->settings.notes.count);
    if (!job->asked->common.dry_run)
        put_speed(&w, &job->speed);
    if (!job->asked->common.dry_run)
        run_put_times(&w, job->model, &job->settings.config);
    if (job->against.position_count > 0) {
        json_put_key(&w, "against");
        logits_put(&w, &job->against, job->limits, NULL);
    }
    json_put_object_end(&w);
    cli_json_end(&w);
}

static void print_tokens(const run_job *job, const run_line *line)
{
    if (job->asked->generate_count == 0)
        printf("%u\n", line->next);
    for (uint64_t t = 0; t < line->generated_count; t++)
        printf("%" PRId32 "%c", line->generated[t], t + 1 < line->generated_count ? ' ' : '\n');
}

/* Several are printed as DeepSeek's generate.py does. */
static void print_answers(const run_job *job)
{
    for (size_t i = 0; i < job->words.count; i++) {
        const run_exchange *e = &job->words.all[i];

        if (e->message != NULL)
            puts(e->message);
        else if (job->asked->text.prompts != NULL)
            printf("Prompt: %s\nCompletion: %s\n\n", e->asked, e->answer);
        else
            puts(e->answer);
    }
}

static void print_text(const run_job *job)
{
    char need[CLI_SIZE_TEXT_BYTES];

    if (job->asked->common.dry_run) {
        cli_size_text(run_need_bytes(job->model), need);
        printf("%s, %s; the largest layer and scratch need %s, plus rows and state\n",
               text_count(job->settings.config.layer_count, "layer", "layers").text,
               text_count(job->prompts.count, "prompt", "prompts").text, need);
        if (job->asked->out != NULL)
            printf("logits go to '%s', which is not written now\n", cli_name(job->asked->out));
        if (job->asked->trace != NULL)
            printf("a trace goes to '%s', which is not written now\n", cli_name(job->asked->trace));
        return;
    }
    if (job->text != NULL)
        print_answers(job);
    else if (job->asked->out == NULL || job->asked->generate_count > 0)
        for (size_t i = 0; i < job->prompts.count; i++)
            print_tokens(job, &job->lines[i]);
    if (job->against.position_count > 0)
        logits_print(&job->against, job->limits, NULL);
}

void run_print(const run_job *job)
{
    if (job->asked->common.json)
        print_json(job);
    else
        print_text(job);
}
