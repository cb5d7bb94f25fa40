/* listing_command.h: `ckpt-verify check` of a folder made by ckpt-download: compares its
 * files with the stored listing. */
#ifndef CKPT_LISTING_COMMAND_H
#define CKPT_LISTING_COMMAND_H

#include "tools/cli/cli.h"

typedef struct {
    int is_right;                /* there is a listing, and every file matches it */
    int is_final;                /* already reported: a file differs, or no file has tensors and no
                                    manifest lists any */
} listing_outcome;

/* Compares and prints; `manifest`: of --manifest, or NULL. Without a listing nothing is printed,
 * and both are 0. A listing of no file is an error. */
ckpt_code listing_command(const char *path, const char *manifest, const cli_common *common,
                          listing_outcome *out, ckpt_error *err);

#endif
