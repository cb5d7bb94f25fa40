/* gguf_tokens.h: writes the keys of a tokenizer from tokenizer.json and tokenizer_config.json. */
#ifndef CKPT_GGUF_TOKENS_H
#define CKPT_GGUF_TOKENS_H

#include "formats/format.h"
#include "gguf_put.h"

/*
 * Append vocabulary, types, merges, ids of special tokens and the chat template. The vocabulary has
 * the size in config.json; ids without a token become [PADn]. CKPT_E_USAGE if target->files has no
 * tokenizer.json.
 */
ckpt_code gguf_tokens_put(gguf_put *p, const format_target *target, ckpt_error *err);

#endif
