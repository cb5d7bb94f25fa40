/* cli_private.h: private to the cli*.c files. */
#ifndef CKPT_CLI_PRIVATE_H
#define CKPT_CLI_PRIVATE_H

extern const char *cli_program_name;   /* set by cli_parse */
extern int cli_pipe_is_ignored;        /* SIGPIPE was ignored when the process started */

#endif
