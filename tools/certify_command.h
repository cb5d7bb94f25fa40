/* certify_command.h: ckpt-verify certify and ckpt-verify certificate. */
#ifndef CKPT_CERTIFY_COMMAND_H
#define CKPT_CERTIFY_COMMAND_H

#include "tools/cli/cli.h"
#include "verify/certificate.h"

extern const cli_command certify_command;
extern const cli_command certificate_command;

/* Run a command. *status: set to 1 when a check failed. */
ckpt_code certify_run(const cli_args *args, int *status, ckpt_error *err);
ckpt_code certificate_run(const cli_args *args, int *status, ckpt_error *err);

/* Print the checks and findings as text. */
void certificate_print(const certificate *c);
/* 1 when a layout has config.json and the files beside it (tokenizer, templates). */
int layout_has_config(const char *layout);

#endif
