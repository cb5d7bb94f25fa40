/* gguf_model.h: the keys of a model, from its config.json. */
#ifndef CKPT_GGUF_MODEL_H
#define CKPT_GGUF_MODEL_H

#include "formats/format.h"
#include "gguf_keys.h"
#include "gguf_put.h"

/*
 * Append them all. CKPT_E_USAGE when the config lacks a member, or one has a value that the key
 * cannot hold. Blocks for next tokens count as far as the target has them.
 */
ckpt_code gguf_model_put(gguf_put *p, const gguf_keys *keys, const format_target *target,
                         ckpt_error *err);

#endif
