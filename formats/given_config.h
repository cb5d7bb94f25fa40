/* given_config.h: reads the argument of --config: a config.json, or the name of a built-in one. */
#ifndef CKPT_GIVEN_CONFIG_H
#define CKPT_GIVEN_CONFIG_H

#include "libckpt/error.h"

/* 1 when `given` is the name of a built-in config. */
int given_config_is_builtin(const char *given);
/* *out is malloc'd, NUL-terminated, yours to free. The error for an argument that is neither a file
 * nor the name of a built-in config lists the built-in ones. */
ckpt_code given_config_read(const char *given, char **out, size_t *size, ckpt_error *err);

#endif
