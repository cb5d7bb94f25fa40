/* cli_private.h: private to the cli*.c files. */
#ifndef CKPT_CLI_PRIVATE_H
#define CKPT_CLI_PRIVATE_H

#include "cli.h"

extern const char *cli_program_name;   /* set by cli_parse */
extern int cli_wants_json;             /* --json or --jsonl was given */
extern int cli_wants_lines;            /* --jsonl was */
extern int cli_pipe_is_ignored;        /* SIGPIPE was ignored when the process started */

/* Called once, after the options were read: SIGUSR1 is answered from now on. */
void cli_start_clock(void);
/* Answer a SIGUSR1 that the drawing thread has not answered yet. */
void cli_answer_report(void);
/* Erase the line of the meter, if there is one, and stop drawing it. */
void cli_erase_progress(void);

/* ---- values ---- */

/* Set the target of an option. `source` says in errors where the value is from: "option
 * '--memory'", "CKPT_MEMORY". */
ckpt_code cli_set_option(const cli_option *option, const char *source, const char *value,
                         ckpt_error *err);

/* ---- words as they are typed ---- */

enum { CLI_NEAR_BYTES = 64 };

/* The option of this name, or NULL. */
const cli_option *cli_find_option(const cli_option *options, const char *name, size_t size);
/* The same, also by a prefix of its name; *other: another option with this prefix, or NULL. */
const cli_option *cli_find_abbreviated(const cli_option *options, const char *name, size_t size,
                                       const cli_option **other);
const cli_option *cli_find_letter(const cli_option *options, char letter);
/* The letter of an option, or '\0'. */
char cli_letter_of(const char *name);

/* The offered word with the smallest edit distance to `text`; `word` is empty if none is near. */
typedef struct {
    const char *text;
    size_t size;
    size_t distance;
    char word[CLI_NEAR_BYTES];
} cli_near;

void cli_near_begin(cli_near *near, const char *text, size_t size);
void cli_near_offer(cli_near *near, const char *word, size_t size);
/* The word of "a|b|c" that was meant; 0: none is near, or `words` is a sentence. */
int cli_find_near_word(const char *words, const char *text, char out[CLI_NEAR_BYTES]);

/* ---- help ---- */

enum { CLI_FULL_NAME_BYTES = 128 };

extern const char cli_default_exit_notes[];

/* Options of the table, then --help and --version; NULL behind the last. */
const cli_option *cli_option_first(const cli_command *command);
const cli_option *cli_option_next(const cli_option *option);
/* "ckpt-verify digest" */
void cli_full_name(const cli_command *parent, const cli_command *command, char *out,
                   size_t out_bytes);
void cli_print_man(const cli_command *parent, const cli_command *command);
void cli_print_bash(const cli_command *command);
void cli_print_zsh(const cli_command *command);
void cli_print_fish(const cli_command *command);

/* ---- signals ---- */

/* The signal that asked the command to stop; 0: none. */
int cli_stop_signal(void);

/* Call when everything is cleaned up and reported. */
void cli_end_by_signal(int number);

#endif
