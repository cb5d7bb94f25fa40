/* gguf_tokens.h: the keys of a tokenizer, from tokenizer.json and tokenizer_config.json. */
#ifndef CKPT_GGUF_TOKENS_H
#define CKPT_GGUF_TOKENS_H

#include "formats/format.h"
#include "gguf_put.h"

/*
 * Append vocabulary, types, merges, ids of special tokens and the chat template. The vocabulary has
 * as many tokens as config.json says: [PADn] where the tokenizer has none. CKPT_E_USAGE when the
 * files beside the target's tensors have no tokenizer.json.
 */
ckpt_code gguf_tokens_put(gguf_put *p, const format_target *target, ckpt_error *err);

#endif
