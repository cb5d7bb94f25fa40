/* config_private.h: private to the files that edit config.json. */
#ifndef CKPT_CONFIG_PRIVATE_H
#define CKPT_CONFIG_PRIVATE_H

#include "config_rewrite.h"
#include "libckpt/encoding.h"

/* 1 if target tensor `i` is a weight that is quantised in the target, the source or the official
 * release. */
int config_is_weight(const config_change *change, size_t i);

/* Set (or with NULL remove) a top-level member of *text, which is replaced. */
ckpt_code config_edit(char **text, const char *key, const char *value, ckpt_error *err);
/* The same, only if the value differs: other spellings of the same value are kept. */
ckpt_code config_update(char **text, const char *key, const char *value, ckpt_error *err);

/* 1 when the text of a member is an object; NULL is none. */
static inline int config_is_object(const char *text)
{
    return text != NULL && text[0] == '{';
}

/* The text of a config's quantization_config, yours to free, NULL: none; and in which language part
 * it is, as multimodal models have it there, NULL: in none. */
ckpt_code config_find_scheme(const char *config, const char **part, char **scheme,
                             ckpt_error *err);

/* Correct the list of unquantised modules in *text, a quantization_config. Refuses what no list
 * can express. */
ckpt_code config_list_modules(const config_change *change, char **text, ckpt_error *err);
/* Set the member "ignore" of *text to the modules of weights without this encoding, for schemes
 * with a single encoding. */
ckpt_code config_list_others(const config_change *change, encoding_id id, char **text,
                             ckpt_error *err);

/* The module of X.weight: X, but one for all experts of a layer. 0: the name is too long. */
int config_module_of(const char *weight, char out[MAP_NAME_BYTES]);

/* 1 when a rounding rule makes weights of this encoding, or blocks of the source become such. */
int config_makes(const config_change *change, encoding_id id);

/* Set the members of *quantization that describe NVFP4 weights, if config_makes tells of such;
 * remove them if there are no NVFP4 weights. */
ckpt_code config_tell_nvfp4(const config_change *change, char **quantization, ckpt_error *err);

#endif
