/* config_private.h: private to the files that edit config.json. */
#ifndef CKPT_CONFIG_PRIVATE_H
#define CKPT_CONFIG_PRIVATE_H

#include "config_rewrite.h"

/* 1 if target tensor `i` is a weight that is quantised in the target, the source or the official
 * release. */
int config_is_weight(const config_change *change, size_t i);

/* Set (or with NULL remove) a top-level member of *text, which is replaced. */
ckpt_code config_edit(char **text, const char *key, const char *value, ckpt_error *err);
/* The same, only if the value differs: other spellings of the same value are kept. */
ckpt_code config_update(char **text, const char *key, const char *value, ckpt_error *err);

/* Correct the list of unquantised modules in *text, a quantization_config. Refuses what no list
 * can express. */
ckpt_code config_list_modules(const config_change *change, char **text, ckpt_error *err);

#endif
