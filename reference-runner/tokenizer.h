/*
 * tokenizer.h: text to token ids and back, by a tokenizer.json: byte-level BPE.
 *
 * Added tokens are taken out first; what is between them is cut by the file's regular expressions,
 * each piece becomes bytes, and pairs are merged by rank. What a file asks for beyond that (a
 * normalizer, dropout, tokens that strip blanks) is refused by name.
 */
#ifndef RUN_TOKENIZER_H
#define RUN_TOKENIZER_H

#include "prompts.h"

typedef struct run_text run_text;

/* is_named: the user gave the path for this file, which may be a pipe then. */
ckpt_code run_text_open(const char *path, int is_named, run_text **out, ckpt_error *err);
void run_text_free(run_text *text);                  /* NULL is fine */

/* UTF-8; out->tokens is malloc'd. No token is added to what the text says. */
ckpt_code run_text_encode(const run_text *text, const char *bytes, size_t size, run_prompt *out,
                          ckpt_error *err);
/* Valid UTF-8, NUL-terminated; malloc'd. U+FFFD stands for bytes that are no character. */
ckpt_code run_text_decode(const run_text *text, const int32_t *ids, uint64_t count, char **out,
                          ckpt_error *err);

#endif
