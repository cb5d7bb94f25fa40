/* run_places.h: where ckpt-run may write. */
#ifndef TOOL_RUN_PLACES_H
#define TOOL_RUN_PLACES_H

#include "tools/cli/cli.h"

/* Paths of the command line; NULL: not given. */
typedef struct {
    const char *out;
    const char *trace;
    const char *model;
    const char *inputs[7];         /* other files that are read */
} run_places;

/* Before hours of work, refuse outputs that cannot be written or would replace anything but an
 * earlier output. */
ckpt_code run_places_check(const run_places *places, ckpt_error *err);

/* Print the closing line for the file at `path` (NULL: none). `root` is the model's, or NULL. */
ckpt_code run_say_written(const cli_common *common, const char *path, size_t prompt_count,
                          const char *root, ckpt_error *err);

#endif
