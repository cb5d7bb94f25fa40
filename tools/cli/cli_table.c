/* cli_table.c: what help, man pages and completion scripts read of a command's table. */
#include "cli.h"

#include <stdio.h>

#include "cli_private.h"

const char cli_default_exit_notes[] =
    "0  done, or the same\n"
    "1  checked, and different\n"
    "2  error; one line on stderr says what failed";

static const cli_option BUILT_IN[] = {
    { CLI_FLAG, "help", NULL, NULL,
      "print this help; --help=man prints the man page; --help=bash, zsh and fish print a "
      "completion script" },
    { CLI_FLAG, "version", NULL, NULL, "print the version" },
    CLI_OPTIONS_END
};

const cli_option *cli_option_next(const cli_option *option)
{
    option++;
    if (option->kind != CLI_END)
        return option;
    return option == &BUILT_IN[2] ? NULL : BUILT_IN;
}

const cli_option *cli_option_first(const cli_command *command)
{
    const cli_option *options = command->options;

    return options == NULL || options->kind == CLI_END ? BUILT_IN : options;
}

void cli_full_name(const cli_command *parent, const cli_command *command, char *out,
                   size_t out_bytes)
{
    if (parent != NULL)
        snprintf(out, out_bytes, "%s %s", parent->name, command->name);
    else
        snprintf(out, out_bytes, "%s", command->name);
}
