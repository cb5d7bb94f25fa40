/* config_private.h: what the files that edit config.json ask of each other. */
#ifndef CKPT_CONFIG_PRIVATE_H
#define CKPT_CONFIG_PRIVATE_H

#include "config_rewrite.h"

/* 1 when target tensor `i` is a weight that some encoding quantises: now, before or officially. */
int config_is_weight(const config_change *change, size_t i);

/* Set (or with NULL remove) a top-level member of *text, which is replaced. */
ckpt_code config_edit(char **text, const char *key, const char *value, ckpt_error *err);
/* The same, only where the member says something else: other bytes of the same value stay. */
ckpt_code config_update(char **text, const char *key, const char *value, ckpt_error *err);

/* Make the list of unquantised modules in *text, a quantization_config, true. Refuses what no list
 * can say. */
ckpt_code config_list_modules(const config_change *change, char **text, ckpt_error *err);

#endif
