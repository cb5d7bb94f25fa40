/* run_text.h: prompts of ckpt-run as text. */
#ifndef CKPT_RUN_TEXT_H
#define CKPT_RUN_TEXT_H

#include "tools/cli/cli.h"
#include "reference-runner/chat.h"
#include "reference-runner/prompts.h"
#include "reference-runner/tokenizer.h"

typedef struct {
    const char *prompt;
    const char *messages;
    const char *prompts;
    const char *instructions;
    const char *mode;
    const char *tokenizer;
    int chat;
    int parse;
} run_text_options;

#define RUN_TEXT_DEFAULTS { .mode = "chat" }
#define RUN_TEXT_OPTIONS(text)                                                                  \
    { CLI_STRING, "prompt", "TEXT", &(text).prompt,                                             \
      "instead of --tokens: a message to the model; the generated text is printed" },           \
    { CLI_STRING, "messages", "FILE|-", &(text).messages,                                       \
      "instead of --tokens: a conversation, JSON in OpenAI's form (system, developer, user, "   \
      "assistant, tool; tools, response_format), encoded as DeepSeek's own encoder does" },     \
    { CLI_STRING, "prompts", "FILE|-", &(text).prompts,                                         \
      "instead of --tokens: messages to the model, an empty line between them" },               \
    { CLI_FLAG, "chat", NULL, &(text).chat,                                                     \
      "instead of --tokens: talk to the model. Each line is a message; /clear forgets the "     \
      "conversation, /exit or end of input ends it. --generate bounds an answer (default 300)" }, \
    { CLI_CHOICE, "mode", "chat|think|think-max|raw", &(text).mode,                             \
      "prompt format; raw: TEXT unchanged (default chat)" },                                    \
    { CLI_STRING, "instructions", "TEXT", &(text).instructions,                                 \
      "system prompt" },                                                                        \
    { CLI_FLAG, "parse", NULL, &(text).parse,                                                   \
      "print each answer as a message, JSON in OpenAI's form, one a line; an answer that is "   \
      "none is an error" },                                                                     \
    { CLI_STRING, "tokenizer", "FILE", &(text).tokenizer,                                       \
      "tokenizer for texts (default: tokenizer.json of the checkpoint)" }

/* 1 when an option gives a text or a conversation. */
int run_text_is_asked(const run_text_options *options);
/* Checks that need no file. */
ckpt_code run_text_check(const run_text_options *options, ckpt_error *err);
run_text_mode run_text_mode_of(const run_text_options *options);

/* The text of a prompt and of its answer. */
typedef struct {
    char *asked;               /* as given by the user; NULL: a conversation */
    char *prompt;              /* with the prompt format applied */
    char *answer;              /* NULL: none yet */
    char *message;             /* the answer as a message; NULL: not requested */
} run_exchange;

typedef struct {
    run_exchange *all;
    size_t count;
} run_words;

void run_words_release(run_words *words);

/* Open the tokenizer and fill in prompts and words (none for --chat). The caller frees all three,
 * also after a failure. */
typedef struct {
    run_text **text;
    run_prompts *prompts;
    run_words *words;
} run_text_target;
ckpt_code run_text_ask(const run_text_options *options, const ckpt_checkpoint *checkpoint,
                       const run_text_target *target, ckpt_error *err);

/* Refuse what is not text: `subject`, "prompt 3", has a NUL or is not UTF-8. */
ckpt_code run_text_check_bytes(const char *subject, const char *text, size_t size,
                               ckpt_error *err);

#endif
