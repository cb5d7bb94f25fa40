/* given_config.h: what --config names: a config.json, or one that is built in. */
#ifndef CKPT_GIVEN_CONFIG_H
#define CKPT_GIVEN_CONFIG_H

#include "libckpt/error.h"

/* Is it the name of a built-in config? */
int given_config_is_builtin(const char *given);
/* *out is malloc'd, NUL-terminated, yours to free. What is neither a file nor the name of a
 * built-in config is refused with a list of these. */
ckpt_code given_config_read(const char *given, char **out, size_t *size, ckpt_error *err);

#endif
