/* cli_private.h: private to the cli*.c files. */
#ifndef CKPT_CLI_PRIVATE_H
#define CKPT_CLI_PRIVATE_H

#include <stdint.h>

extern const char *cli_program_name;   /* set by cli_parse */
extern int cli_pipe_is_ignored;        /* SIGPIPE was ignored when the process started */

/* Once, when the options were read: SIGUSR1 is answered from now on. */
void cli_start_clock(void);
/* Answer a SIGUSR1 that came so late that the thread did not. */
void cli_answer_report(void);
/* Erase the line of the meter, if there is one, for good. */
void cli_erase_progress(void);

#endif
