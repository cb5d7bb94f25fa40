/* gguf_config.h: derives a config.json from the keys of a GGUF file. */
#ifndef CKPT_GGUF_CONFIG_H
#define CKPT_GGUF_CONFIG_H

#include "gguf_head.h"
#include "gguf_keys.h"
#include "libckpt/json.h"

/*
 * Derive the config from the keys and tensors of this head. *out is malloc'd, yours to free; NULL
 * if the arch is unknown or a key is missing. `missing` is the name of that key, else "". `beside`,
 * the config.json beside the file, or NULL, only gives the number of MTP blocks if the file has
 * none, so that both can be compared.
 */
ckpt_code gguf_config_make(const gguf_head *head, const json_value *beside, char **out,
                           char missing[GGUF_WORD_BYTES], ckpt_error *err);

#endif
