/* cli_help.c: the help text of an option table. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

#include "cli_private.h"

enum { HELP_COLUMN = 28, HELP_WIDTH = 80 };

/* ---- text ---- */

/* Print the words of text[0..size) from `column` on; further lines start at `indent`. */
static void print_wrapped(const char *text, size_t size, size_t column, size_t indent)
{
    const char *end = text + size;
    int first = 1;

    while (text < end) {
        const size_t rest = (size_t)(end - text);
        const size_t found = strcspn(text, " \n");
        const size_t word = found < rest ? found : rest;

        if (!first && column + 1 + word > HELP_WIDTH) {
            printf("\n%*s", (int)indent, "");
            column = indent;
        } else if (!first) {
            putchar(' ');
            column++;
        }
        printf("%.*s", (int)word, text);
        column += word;
        first = 0;
        text += word < rest ? word + 1 : word;
    }
    putchar('\n');
}

static void print_paragraphs(const char *text)
{
    const char *end;

    for (; (end = strstr(text, "\n\n")) != NULL; text = end + 2) {
        print_wrapped(text, (size_t)(end - text), 0, 0);
        putchar('\n');
    }
    print_wrapped(text, strlen(text), 0, 0);
}

static void print_lines(const char *text, const char *prefix)
{
    while (*text != '\0') {
        const size_t size = strcspn(text, "\n");

        printf("%s%.*s\n", prefix, (int)size, text);
        text += size;
        text += *text == '\n';
    }
}

static void print_option(const cli_option *option)
{
    const char letter = cli_letter_of(option->name);
    size_t column;

    column = (size_t)(letter == '\0' ? printf("  ") : printf("  -%c, ", letter));
    column += (size_t)printf("--%s%s%s", option->name, option->value != NULL ? " " : "",
                             option->value != NULL ? option->value : "");
    if (column + 2 > HELP_COLUMN) {
        putchar('\n');
        column = 0;
    }
    printf("%*s", (int)(HELP_COLUMN - column), "");
    print_wrapped(option->help, strlen(option->help), HELP_COLUMN, HELP_COLUMN);
}

static void print_text(const cli_command *parent, const cli_command *command)
{
    char name[CLI_FULL_NAME_BYTES];
    size_t column;

    cli_full_name(parent, command, name, sizeof name);
    printf("%s: %s\n\n", name, command->summary);
    column = (size_t)printf("Usage: %s ", name);
    print_wrapped(command->usage, strlen(command->usage), column, column);
    if (command->description != NULL) {
        putchar('\n');
        print_paragraphs(command->description);
    }
    if (command->subcommands != NULL) {
        printf("\nCommands (each has its own --help):\n");
        for (const cli_command *const *sub = command->subcommands; *sub != NULL; sub++)
            printf("  %-12s %s\n", (*sub)->name, (*sub)->summary);
    }
    if (cli_option_first(command)->kind != CLI_HEADING)
        printf("\nOptions:\n");
    for (const cli_option *o = cli_option_first(command); o != NULL; o = cli_option_next(o))
        if (o->kind == CLI_HEADING)
            printf("\n%s:\n", o->help);
        else
            print_option(o);
    printf("\nExit status:\n");
    print_lines(command->exit_notes != NULL ? command->exit_notes : cli_default_exit_notes, "  ");
    if (command->examples != NULL) {
        printf("\nExamples:\n");
        print_lines(command->examples, "  ");
    }
}

void cli_print_help(const cli_command *parent, const cli_command *command, cli_help_form form)
{
    switch (form) {
    case CLI_HELP_TEXT:
        print_text(parent, command);
        break;
    case CLI_HELP_MAN:
        cli_print_man(parent, command);
        break;
    case CLI_HELP_BASH:
        cli_print_bash(parent != NULL ? parent : command);
        break;
    case CLI_HELP_ZSH:
        cli_print_zsh(parent != NULL ? parent : command);
        break;
    case CLI_HELP_FISH:
        cli_print_fish(parent != NULL ? parent : command);
        break;
    }
}
