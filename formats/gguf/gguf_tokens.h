/* gguf_tokens.h: a tokenizer as keys: written from the files beside the weights, and read. */
#ifndef CKPT_GGUF_TOKENS_H
#define CKPT_GGUF_TOKENS_H

#include "formats/format.h"
#include "gguf_head.h"
#include "gguf_put.h"
#include "libckpt/vocabulary.h"

/*
 * Append vocabulary, types, merges, ids of special tokens and the chat template. The vocabulary has
 * the size in config.json; ids without a token become [PADn]. CKPT_E_USAGE if target->files has no
 * tokenizer.json.
 */
ckpt_code gguf_tokens_put(gguf_put *p, const format_target *target, ckpt_error *err);

/* Read those of these keys that are there; ids that stand for no token are left out. *out is yours
 * to release, also on failure. */
ckpt_code gguf_tokens_read(const gguf_head *head, ckpt_vocabulary *out, ckpt_error *err);

#endif
