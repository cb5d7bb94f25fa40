/* run_text.h: prompts and answers of ckpt-run as text. */
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
#define RUN_TEXT_OPTIONS(text)                                                        \
    { CLI_STRING, "prompt", "TEXT", &(text).prompt,                                   \
      "instead of --tokens: a message to the model; the generated text is printed" }, \
    { CLI_CHOICE, "mode", "chat|think|think-max|raw", &(text).mode,                   \
      "prompt format; raw: TEXT unchanged (default chat)" },                          \
    { CLI_STRING, "instructions", "TEXT", &(text).instructions,                       \
      "system prompt" },                                                              \
    { CLI_STRING, "tokenizer", "FILE", &(text).tokenizer,                             \
      "tokenizer for --prompt (default: tokenizer.json of the checkpoint)" }

/* Tokens of the message, as the only prompt. The caller frees *out. */
ckpt_code run_text_ask(const run_text_options *options, const char *checkpoint, run_text **out,
                       run_prompts *prompts, ckpt_error *err);
#endif
