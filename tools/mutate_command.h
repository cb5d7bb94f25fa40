/* mutate_command.h: ckpt-verify mutate: would the checks find faults in this checkpoint? */
#ifndef CKPT_MUTATE_COMMAND_H
#define CKPT_MUTATE_COMMAND_H

#include "tools/cli/cli.h"

extern const cli_command mutate_command;

/* *status: CLI_DIFFERENT when a fault was not found. */
ckpt_code mutate_run(const cli_args *args, int *status, ckpt_error *err);

#endif
