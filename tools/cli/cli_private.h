/* cli_private.h: what the cli*.c files share with each other only. */
#ifndef CKPT_CLI_PRIVATE_H
#define CKPT_CLI_PRIVATE_H

extern const char *cli_program_name;   /* set by cli_parse */
extern int cli_pipe_is_ignored;        /* SIGPIPE was, when the process began */

#endif
