/*
 * prompts.h: reads token ids from a file in several formats.
 *
 *   text         one prompt per line, ids separated by blanks or commas
 *   JSON         [1, 2], [[1, 2], [3]], {"tokens": either}, or one such object per line (JSONL)
 *   .npy         integers of 1 to 8 bytes, one or two dimensions, C order
 *   safetensors  integers in the tensor "tokens", or "tokens.0", "tokens.1", ...
 *
 * Each row of two-dimensional input is a prompt; -1 at its end is padding. The format is detected
 * from the content. Ids must be non-negative 32-bit numbers; they are not checked against a
 * vocabulary.
 */
#ifndef RUN_PROMPTS_H
#define RUN_PROMPTS_H

#include "libckpt/error.h"

typedef struct {
    uint32_t *tokens;
    uint64_t count;
} run_prompt;

typedef struct {
    run_prompt *prompts;
    size_t count;
} run_prompts;

/* The memory of tokens and prompts is accounted by memory.h, so only these functions may add and
 * free them. run_prompts_begin appends an empty prompt. */
ckpt_code run_prompts_begin(run_prompts *prompts, ckpt_error *err);
ckpt_code run_prompt_add(run_prompt *prompt, uint32_t id, ckpt_error *err);
void run_prompt_free(run_prompt *prompt);

/* Read all of a file, or of standard input ("-"). *out is malloc'd and followed by a NUL. */
ckpt_code run_input_read(const char *path, char **out, size_t *size, ckpt_error *err);
static inline const char *run_input_name(const char *path)
{
    return path[0] == '-' && path[1] == '\0' ? "standard input" : path;
}

/* "-": standard input. A file without a prompt and an empty prompt are errors. */
ckpt_code run_prompts_read(const char *path, run_prompts *out, ckpt_error *err);
/* The same from memory; `text` has a NUL after its `size` bytes. */
ckpt_code run_prompts_parse(const char *text, size_t size, const char *subject, run_prompts *out,
                            ckpt_error *err);
void run_prompts_free(run_prompts *prompts);

/* Parse positions in a prompt of `limit` tokens: "all", "last" or "0,5,10-20", ascending. *out is
 * malloc'd. */
ckpt_code run_positions_parse(const char *text, uint64_t limit, uint64_t **out, uint64_t *count,
                              ckpt_error *err);

#endif
