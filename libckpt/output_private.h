/* output_private.h: names beside an output, for the files of output.h. */
#ifndef CKPT_OUTPUT_PRIVATE_H
#define CKPT_OUTPUT_PRIVATE_H

#include "output.h"

/* Of the name under which PATH is written, and of that of the old PATH between the two renames of
 * --overwrite. */
extern const char output_partial_suffix[];
extern const char output_replaced_suffix[];

/* The path without slashes at its end, and the suffix; malloc'd, NULL when memory is exhausted. */
char *output_with_suffix(const char *path, const char *suffix);

/* The error for a path that exists. It advises --overwrite only if that would replace the path. */
ckpt_code output_fail_exists(const char *path, const char *layout, int overwrite, ckpt_error *err);

#endif
