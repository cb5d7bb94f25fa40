/* run_text.h: what ckpt-run is asked in words, and its answer. */
#ifndef CKPT_RUN_TEXT_H
#define CKPT_RUN_TEXT_H

#include "tools/cli/cli.h"
#include "reference-runner/prompts.h"
#include "reference-runner/tokenizer.h"

typedef struct {
    const char *prompt;
    const char *instructions;
    const char *mode;
    const char *tokenizer;
} run_text_options;

#define RUN_TEXT_DEFAULTS { .mode = "chat" }
#define RUN_TEXT_OPTIONS(text)                                                                    \
    { CLI_STRING, "prompt", "TEXT", &(text).prompt,                                               \
      "instead of --tokens: a message to the model; what it generates is printed as text" },      \
    { CLI_CHOICE, "mode", "chat|think|think-max|raw", &(text).mode,                               \
      "how the message is put to it; raw: TEXT as it is (default chat)" },                        \
    { CLI_STRING, "instructions", "TEXT", &(text).instructions,                                   \
      "the system text before the message" },                                                     \
    { CLI_STRING, "tokenizer", "FILE", &(text).tokenizer,                                         \
      "of --prompt (default: tokenizer.json of the checkpoint)" }

/* Tokens of the message, as the only prompt. *out is yours to free. */
ckpt_code run_text_ask(const run_text_options *options, const char *checkpoint, run_text **out,
                       run_prompts *prompts, ckpt_error *err);
#endif
