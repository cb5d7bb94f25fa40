/* Reads prompts that are text, and converts them to token ids. */
#include "run_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"
#include "libckpt/checkpoint.h"
#include "libckpt/json_scan.h"

int run_text_is_asked(const run_text_options *options)
{
    return options->prompt != NULL || options->messages != NULL || options->prompts != NULL ||
           options->chat;
}

run_text_mode run_text_mode_of(const run_text_options *options)
{
    static const char *const names[] = { [RUN_TEXT_RAW] = "raw", [RUN_TEXT_CHAT] = "chat",
                                         [RUN_TEXT_THINK] = "think",
                                         [RUN_TEXT_THINK_MAX] = "think-max" };
    int mode = RUN_TEXT_RAW;

    while (strcmp(names[mode], options->mode) != 0)
        mode++;
    return (run_text_mode)mode;
}

ckpt_code run_text_check(const run_text_options *options, ckpt_error *err)
{
    const char *what = options->messages != NULL ? "messages"
                       : options->chat           ? "chat"
                       : options->parse          ? "parse"
                                                 : NULL;

    return what != NULL && run_text_mode_of(options) == RUN_TEXT_RAW
               ? ckpt_fail(err, CKPT_E_USAGE,
                           "--%s needs --mode chat, think or think-max: raw has no messages", what)
               : CKPT_OK;
}

void run_words_release(run_words *words)
{
    for (size_t i = 0; i < words->count; i++) {
        free(words->all[i].asked);
        free(words->all[i].prompt);
        free(words->all[i].answer);
        free(words->all[i].message);
    }
    free(words->all);
}

/* ---- one prompt ---- */

/* Append an empty prompt. */
static run_exchange *add_exchange(const run_text_target *to, ckpt_error *err)
{
    run_exchange *all = array_room(to->words->all, to->words->count, sizeof *all, "prompts", err);

    if (all == NULL)
        return NULL;
    to->words->all = all;
    all[to->words->count] = (run_exchange){ 0 };
    return &all[to->words->count++];
}

static ckpt_code add_tokens(const run_text_target *to, const char *prompt, ckpt_error *err)
{
    ckpt_code code = run_prompts_begin(to->prompts, err);

    if (code != CKPT_OK)
        return code;
    return run_text_encode(*to->text, prompt, strlen(prompt),
                           &to->prompts->prompts[to->prompts->count - 1], err);
}

ckpt_code run_text_check_bytes(const char *subject, const char *text, size_t size,
                               ckpt_error *err)
{
    if (memchr(text, '\0', size) != NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "%s contains a NUL", subject);
    for (size_t at = 0, length; at < size; at += length)
        if ((length = json_utf8_bytes((const unsigned char *)text + at, size - at)) == 0)
            return ckpt_fail(err, CKPT_E_FORMAT, "%s is not UTF-8 at its byte %zu", subject, at);
    return CKPT_OK;
}

static ckpt_code add_prompt(const run_text_options *options, const run_text_target *to,
                            const char *text, size_t size, ckpt_error *err)
{
    run_exchange *e = add_exchange(to, err);
    char subject[32];
    ckpt_code code;

    if (e == NULL)
        return CKPT_E_MEMORY;
    snprintf(subject, sizeof subject, "prompt %zu", to->words->count - 1);
    if ((code = run_text_check_bytes(subject, text, size, err)) != CKPT_OK)
        return code;
    if ((e->asked = strndup(text, size)) == NULL)
        return ckpt_fail_memory(err, "a prompt", size);
    code = run_text_message(run_text_mode_of(options), options->instructions, e->asked, &e->prompt,
                            err);
    return code == CKPT_OK ? add_tokens(to, e->prompt, err) : code;
}

/* ---- forms of input ---- */

static ckpt_code ask_messages(const run_text_options *options, const run_text_target *to,
                              ckpt_error *err)
{
    run_chat_text text = { .subject = run_input_name(options->messages) };
    run_exchange *e = add_exchange(to, err);
    char *bytes;
    ckpt_code code;

    if (e == NULL)
        return CKPT_E_MEMORY;
    if ((code = run_input_read(options->messages, &bytes, &text.size, err)) != CKPT_OK)
        return code;
    text.text = bytes;
    if ((code = run_chat_encode(run_text_mode_of(options), &text, &e->prompt, err)) == CKPT_OK)
        code = add_tokens(to, e->prompt, err);
    free(bytes);
    return code;
}

/* Make lines end in a line feed alone, as Python's text files do. Returns the new size. */
static size_t drop_carriage_returns(char *text, size_t size)
{
    size_t kept = 0;

    for (size_t i = 0; i < size; i++)
        if (text[i] != '\r' || i + 1 == size || text[i + 1] != '\n')
            text[kept++] = text[i];
    return kept;
}

/* Prompts are separated by two consecutive line feeds, as in DeepSeek's generate.py. The line feed
 * at the end of the file is not part of a prompt. */
static ckpt_code ask_prompts(const run_text_options *options, const run_text_target *to,
                             ckpt_error *err)
{
    char *text;
    size_t size;
    const char *at;
    ckpt_code code = run_input_read(options->prompts, &text, &size, err);

    if (code != CKPT_OK)
        return code;
    size = drop_carriage_returns(text, size);
    size -= size > 0 && text[size - 1] == '\n';
    at = text;
    while (code == CKPT_OK && at != NULL) {
        const char *end = memmem(at, size - (size_t)(at - text), "\n\n", 2);
        const size_t bytes = end == NULL ? size - (size_t)(at - text) : (size_t)(end - at);

        if (bytes == 0)
            code = ckpt_fail(err, CKPT_E_FORMAT, "'%s': prompt %zu is empty",
                             run_input_name(options->prompts), to->words->count);
        else
            code = add_prompt(options, to, at, bytes, err);
        at = end == NULL ? NULL : end + 2;
    }
    free(text);
    return code;
}

static ckpt_code ask(const run_text_options *options, const run_text_target *to, ckpt_error *err)
{
    ckpt_code code;

    if (options->chat)
        return CKPT_OK;
    if (options->messages != NULL)
        return ask_messages(options, to, err);
    if (options->prompts != NULL)
        return ask_prompts(options, to, err);
    code = add_prompt(options, to, options->prompt, strlen(options->prompt), err);
    if (code == CKPT_OK && to->prompts->prompts[0].count == 0)
        code = ckpt_fail(err, CKPT_E_USAGE, "--prompt is empty");
    return code;
}

ckpt_code run_text_ask(const run_text_options *options, const ckpt_checkpoint *checkpoint,
                       const run_text_target *target, ckpt_error *err)
{
    static const char name[] = "tokenizer.json";
    const ckpt_folder *folder = checkpoint_folder(checkpoint);
    const char *named = options->tokenizer;
    ckpt_code code;

    if (named == NULL && (folder == NULL || !folder_has(folder, name)))
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' has no tokenizer.json: use --tokenizer FILE",
                         checkpoint_path(checkpoint));
    code = run_text_open(named == NULL ? folder : NULL, named == NULL ? name : named,
                         target->text, err);
    return code == CKPT_OK ? ask(options, target, err) : code;
}
