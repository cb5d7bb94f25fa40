/*
 * run_chat.c: a loop that reads a line and prints an answer.
 *
 * The whole conversation is encoded again in each turn, as DeepSeek's encoder does. If the result
 * begins with the tokens that are in the sequence, only the rest is fed. If it does not, a new
 * sequence is started: the encoder drops the reasoning of earlier turns, and the text of an answer
 * may be encoded in other tokens than those generated.
 */
#include "run_chat.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libckpt/buffer.h"
#include "libckpt/json.h"
#include "libckpt/size.h"
#include "reference-runner/generate.h"

enum { ANSWER_TOKENS = 300, POSITIONS_MIN = 4096 };

typedef struct {
    run_job *job;
    run_text_mode mode;
    byte_buffer messages;      /* JSON, without the brackets around them */
    run_sequence *sequence;
    uint64_t capacity;         /* of it */
    run_prompt fed;            /* tokens in it */
    run_prompt prompt;
    int32_t *answer;
    uint64_t answer_count;
    uint64_t answer_max;
    uint64_t shown_bytes;      /* of the answer's text */
    uint32_t next;
    int is_ended;              /* by the end-of-sequence token */
} chat;

/* ---- messages ---- */

static ckpt_code add_message(chat *c, const char *role, const char *content, ckpt_error *err)
{
    json_writer w;

    if (c->messages.used > 0)
        byte_buffer_add(&c->messages, ", ", 2);
    json_writer_begin(&w, byte_buffer_write, &c->messages, 0);
    json_put_object(&w);
    json_member_string(&w, "role", role);
    json_member_string(&w, "content", content);
    json_put_object_end(&w);
    return json_writer_end(&w) ? CKPT_OK
                               : ckpt_fail_memory(err, "a conversation", c->messages.used);
}

/* An answer that cannot be parsed as a message, e.g. because it was cut, is added as text. */
static ckpt_code add_answer(chat *c, const char *text, ckpt_error *err)
{
    const size_t before = c->messages.used;
    ckpt_error why;

    if (before > 0)
        byte_buffer_add(&c->messages, ", ", 2);
    if (run_chat_parse(c->mode, text, 1, &c->messages, &why) == CKPT_OK && !c->messages.failed)
        return CKPT_OK;
    c->messages.used = before;
    return add_message(c, "assistant", text, err);
}

static ckpt_code forget(chat *c, ckpt_error *err)
{
    const char *instructions = c->job->asked->text.instructions;

    c->messages.used = 0;
    return instructions == NULL ? CKPT_OK : add_message(c, "system", instructions, err);
}

static ckpt_code encode(chat *c, ckpt_error *err)
{
    run_chat_text text = { .subject = "the conversation" };
    byte_buffer list = { 0 };
    char *prompt = NULL;
    ckpt_code code;

    byte_buffer_add(&list, "[", 1);
    byte_buffer_add(&list, c->messages.bytes, c->messages.used);
    byte_buffer_add(&list, "]", 2);
    run_prompt_free(&c->prompt);
    c->prompt = (run_prompt){ 0 };
    text.text = list.bytes;
    text.size = list.used - 1;
    code = list.failed ? ckpt_fail_memory(err, text.subject, list.used)
                       : run_chat_encode(c->mode, &text, &prompt, err);
    if (code == CKPT_OK)
        code = run_text_encode(c->job->text, prompt, strlen(prompt), &c->prompt, err);
    free(prompt);
    free(list.bytes);
    return code;
}

/* ---- tokens ---- */

static ckpt_code restart(chat *c, uint64_t needed, ckpt_error *err)
{
    const uint64_t most = c->job->settings.config.max_positions;

    run_sequence_free(c->job->model, c->sequence);
    c->sequence = NULL;
    run_prompt_free(&c->fed);
    c->capacity = size_max(needed, size_min(size_max(2 * needed, POSITIONS_MIN), most));
    return run_sequence_create(c->job->model, c->capacity, 0, &c->sequence, err);
}

/* How many tokens of the prompt need not be fed again; 0: start a new sequence. The last token is
 * always fed, because its logits are needed. */
static uint64_t known_tokens(const chat *c)
{
    const uint64_t count = c->fed.count;

    return c->sequence != NULL && count < c->prompt.count &&
                   memcmp(c->fed.tokens, c->prompt.tokens, count * sizeof *c->fed.tokens) == 0
               ? count
               : 0;
}

static ckpt_code take(void *context, uint64_t i, const float *logits, ckpt_error *err)
{
    chat *c = context;
    const run_job *job = c->job;
    const uint64_t position = c->fed.count - 1;
    const run_draw draw = { job->temperature, job->seed, 0, position };

    (void)i;
    if (run_find_nan(logits, job->settings.config.vocab_size))
        return ckpt_fail(err, CKPT_E_FORMAT, "a logit at position %" PRIu64 " is NaN: the config "
                         "or a weight is out of range", position);
    c->next = run_next_token(logits, job->settings.config.vocab_size, &draw);
    return CKPT_OK;
}

static ckpt_code feed(chat *c, const uint32_t *tokens, uint64_t count, ckpt_error *err)
{
    const run_segment segment = { c->sequence, tokens, count };
    const uint64_t last = count - 1;
    const run_logits_request request = { &last, 1, take, c };
    ckpt_code code = run_forward(c->job->model, &segment, 1, err);

    for (uint64_t i = 0; i < count && code == CKPT_OK; i++)
        code = run_prompt_add(&c->fed, tokens[i], err);
    return code == CKPT_OK ? run_logits(c->job->model, &request, err) : code;
}

/* Print the new text. Bytes of an incomplete character at its end are kept for the next call. */
static ckpt_code show(chat *c, int is_last, ckpt_error *err)
{
    static const char stand_in[] = "\xEF\xBF\xBD";
    char *text;
    size_t size;
    const ckpt_code code = run_text_decode(c->job->text, c->answer, c->answer_count, &text, err);

    if (code != CKPT_OK)
        return code;
    size = strlen(text);
    if (!is_last && size >= sizeof stand_in - 1 &&
        memcmp(text + size - (sizeof stand_in - 1), stand_in, sizeof stand_in - 1) == 0)
        size = size_min(size, c->shown_bytes);
    if (size > c->shown_bytes) {
        fwrite(text + c->shown_bytes, 1, size - c->shown_bytes, stdout);
        c->shown_bytes = size;
    }
    free(text);
    if (fflush(stdout) == 0)
        return CKPT_OK;
    return *cli_stop_flag() ? ckpt_fail(err, CKPT_E_INTERRUPTED, "interrupted")
                            : ckpt_fail(err, CKPT_E_IO, "cannot write standard output: %s",
                                        strerror(errno));
}

static ckpt_code generate(chat *c, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    c->answer_count = 0;
    c->shown_bytes = 0;
    for (;;) {
        c->is_ended = run_settings_is_eos(&c->job->settings, c->next);
        if (c->is_ended)
            break;
        c->answer[c->answer_count++] = (int32_t)c->next;
        if ((code = show(c, 0, err)) != CKPT_OK)
            return code;
        if (c->answer_count == c->answer_max)
            break;
        if ((code = feed(c, &c->next, 1, err)) != CKPT_OK)
            return code;
    }
    if ((code = show(c, 1, err)) == CKPT_OK)
        putchar('\n');
    return code;
}

/* ---- turns ---- */

static ckpt_code say(chat *c, const char *line, ckpt_error *err)
{
    char *text = NULL;
    uint64_t known;
    uint64_t needed;
    ckpt_code code;

    if ((code = add_message(c, "user", line, err)) != CKPT_OK ||
        (code = encode(c, err)) != CKPT_OK)
        return code;
    known = known_tokens(c);
    needed = c->prompt.count + c->answer_max;
    if (needed > c->job->settings.config.max_positions)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "a conversation of %" PRIu64 " tokens with its answer, but the config "
                         "allows %" PRIu64 ": /clear begins a new one", needed,
                         c->job->settings.config.max_positions);
    if (known == 0 || needed > c->capacity) {
        known = 0;
        if ((code = restart(c, needed, err)) != CKPT_OK)
            return code;
    }
    if ((code = feed(c, c->prompt.tokens + known, c->prompt.count - known, err)) != CKPT_OK ||
        (code = generate(c, err)) != CKPT_OK ||
        (code = run_text_decode(c->job->text, c->answer, c->answer_count, &text, err)) != CKPT_OK)
        return code;
    code = add_answer(c, text, err);
    free(text);
    return code;
}

/* Read a line without its newline. *is_end: end of input, or a signal was received. */
static ckpt_code read_line(char **line, size_t *room, int *is_end, ckpt_error *err)
{
    ssize_t size;

    if (isatty(STDIN_FILENO)) {
        fputs(">>> ", stdout);
        fflush(stdout);
    }
    *is_end = *cli_stop_flag() != 0;
    if (*is_end)
        return CKPT_OK;
    size = getline(line, room, stdin);
    *is_end = size < 0 || *cli_stop_flag();      /* a signal may have cut the line */
    if (*is_end)
        return !ferror(stdin) || *cli_stop_flag()
                   ? CKPT_OK
                   : ckpt_fail(err, CKPT_E_IO, "cannot read standard input: %s", strerror(errno));
    if (size > 0 && (*line)[size - 1] == '\n')
        (*line)[--size] = '\0';
    if (size > 0 && (*line)[size - 1] == '\r')         /* as on Windows */
        (*line)[--size] = '\0';
    return run_text_check_bytes("a line of standard input", *line, (size_t)size, err);
}

static ckpt_code take_line(chat *c, const char *line, int *is_end, ckpt_error *err)
{
    *is_end = strcmp(line, "/exit") == 0;
    if (*is_end || line[0] == '\0')
        return CKPT_OK;
    return strcmp(line, "/clear") == 0 ? forget(c, err) : say(c, line, err);
}

static ckpt_code talk(chat *c, ckpt_error *err)
{
    char *line = NULL;
    size_t room = 0;
    int is_end = 0;
    ckpt_code code = forget(c, err);

    while (code == CKPT_OK && !is_end)
        if ((code = read_line(&line, &room, &is_end, err)) == CKPT_OK && !is_end)
            code = take_line(c, line, &is_end, err);
    free(line);
    if (code == CKPT_OK && *cli_stop_flag())
        return ckpt_fail(err, CKPT_E_INTERRUPTED, "interrupted");
    return code;
}

ckpt_code run_chat(run_job *job, ckpt_error *err)
{
    const uint64_t asked = job->asked->generate_count;
    chat c = { .job = job, .mode = run_text_mode_of(&job->asked->text),
               .answer_max = asked > 0 ? asked : ANSWER_TOKENS };
    ckpt_code code;

    c.answer = malloc(c.answer_max * sizeof *c.answer);
    code = c.answer == NULL ? ckpt_fail_memory(err, "an answer", c.answer_max) : talk(&c, err);
    run_sequence_free(job->model, c.sequence);
    run_prompt_free(&c.fed);
    run_prompt_free(&c.prompt);
    free(c.messages.bytes);
    free(c.answer);
    return code;
}
