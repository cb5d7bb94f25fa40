/* gguf_config.h: a config.json made of the keys of a GGUF file. */
#ifndef CKPT_GGUF_CONFIG_H
#define CKPT_GGUF_CONFIG_H

#include "gguf_head.h"
#include "gguf_keys.h"

/*
 * The config that the keys of this head, and its tensors, stand for. *out is malloc'd, yours to
 * free; NULL when the arch is unknown here, or when a key is missing: then `missing`, of
 * GGUF_WORD_BYTES, has its name, else it is "".
 */
ckpt_code gguf_config_make(const gguf_head *head, char **out, char missing[GGUF_WORD_BYTES],
                           ckpt_error *err);

#endif
