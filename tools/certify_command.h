/* certify_command.h: ckpt-verify certify and ckpt-verify certificate. */
#ifndef CKPT_CERTIFY_COMMAND_H
#define CKPT_CERTIFY_COMMAND_H

#include "tools/cli/cli.h"
#include "verify/certificate.h"

extern const cli_command certify_command;
extern const cli_command certificate_command;

/* The commands with their arguments; *status becomes 1 where a check failed. */
ckpt_code certify_run(const cli_args *args, int *status, ckpt_error *err);
ckpt_code certificate_run(const cli_args *args, int *status, ckpt_error *err);

/* Checks and findings, for people. */
void certificate_print(const certificate *c);
/* Does a layout carry config.json and what lies beside it? */
int layout_has_config(const char *layout);

#endif
