/* digest_command.h: ckpt-verify digest. */
#ifndef CKPT_DIGEST_COMMAND_H
#define CKPT_DIGEST_COMMAND_H

#include "tools/cli/cli.h"

extern const cli_command digest_command;

/* Print the digests of all paths, or check those of a list. *status: CLI_DONE, CLI_DIFFERENT. */
ckpt_code digest_run(const cli_args *args, int *status, ckpt_error *err);

#endif
