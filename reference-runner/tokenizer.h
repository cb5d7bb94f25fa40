/*
 * tokenizer.h: text to token ids and back, with the byte-level BPE of a tokenizer.json.
 *
 * Added tokens are found first. The text between them is split by the file's regular expressions;
 * each word becomes byte symbols, of which pairs are merged in the order of their ranks. A file
 * that needs more than that (a normalizer, dropout, tokens that strip blanks) is refused, and the
 * error names the feature.
 */
#ifndef RUN_TOKENIZER_H
#define RUN_TOKENIZER_H

#include "libckpt/folder.h"
#include "prompts.h"

typedef struct run_text run_text;

/* Open a file of a folder; folder NULL: the one that the user named, which may be a pipe. */
ckpt_code run_text_open(const ckpt_folder *folder, const char *name, run_text **out,
                        ckpt_error *err);
void run_text_free(run_text *text);                  /* NULL is fine */

/* `bytes` is UTF-8; out->tokens is malloc'd. Adds no tokens of its own, such as a begin token. */
ckpt_code run_text_encode(const run_text *text, const char *bytes, size_t size, run_prompt *out,
                          ckpt_error *err);
/* *out is valid UTF-8, NUL-terminated and malloc'd. U+FFFD replaces bytes that are not UTF-8. */
ckpt_code run_text_decode(const run_text *text, const int32_t *ids, uint64_t count, char **out,
                          ckpt_error *err);

#endif
