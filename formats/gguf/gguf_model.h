/* gguf_model.h: writes the keys of a model from its config.json. */
#ifndef CKPT_GGUF_MODEL_H
#define CKPT_GGUF_MODEL_H

#include "formats/format.h"
#include "gguf_keys.h"
#include "gguf_put.h"

/*
 * Append all keys. CKPT_E_USAGE if a member of the config is missing or does not fit its key. Only
 * MTP blocks that the target has are counted.
 */
ckpt_code gguf_model_put(gguf_put *p, const gguf_keys *keys, const format_target *target,
                         ckpt_error *err);

#endif
