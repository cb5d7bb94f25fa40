/*
 * tokenizer_compare.h: compares tokenizers of which one at least is in the weight files (GGUF), so
 * that hashes of files cannot tell whether they are the same.
 */
#ifndef CKPT_TOKENIZER_COMPARE_H
#define CKPT_TOKENIZER_COMPARE_H

#include "companion_differences.h"

/* Add to *out: differences in vocabulary, merges, special ids, flags and chat template, of what
 * both sides say; a tokenizer on one side only; or a note why they cannot be compared. */
ckpt_code tokenizers_compare(const ckpt_checkpoint *a, const ckpt_checkpoint *b,
                             companion_comparison *out, ckpt_error *err);

#endif
