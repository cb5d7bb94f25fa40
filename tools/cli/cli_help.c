/* cli_help.c: the help text, the man page and the bash completion of an option table. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

#include "cli_private.h"

enum { HELP_COLUMN = 28, HELP_WIDTH = 80 };

static const char DEFAULT_EXIT_NOTES[] =
    "0  done, or the same\n"
    "1  checked, and different\n"
    "2  error; one line on stderr says what failed";

static const cli_option BUILT_IN[] = {
    { CLI_FLAG, "help", NULL, NULL,
      "print this help; --help=man prints the man page, --help=bash the completion script" },
    { CLI_FLAG, "version", NULL, NULL, "print the version" },
    CLI_OPTIONS_END
};

/* Options of the table, then --help and --version: `for (o = first(c); o; o = next(c, o))`. */
static const cli_option *option_next(const cli_option *option)
{
    option++;
    if (option->kind != CLI_END)
        return option;
    return option == &BUILT_IN[2] ? NULL : BUILT_IN;
}

static const cli_option *option_first(const cli_command *command)
{
    const cli_option *options = command->options;

    return options == NULL || options->kind == CLI_END ? BUILT_IN : options;
}

static void full_name(const cli_command *parent, const cli_command *command, char *out,
                      size_t out_bytes)
{
    if (parent != NULL)
        snprintf(out, out_bytes, "%s %s", parent->name, command->name);
    else
        snprintf(out, out_bytes, "%s", command->name);
}

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
    char name[128];

    full_name(parent, command, name, sizeof name);
    printf("%s: %s\n\nUsage: %s %s\n", name, command->summary, name, command->usage);
    if (command->description != NULL) {
        putchar('\n');
        print_paragraphs(command->description);
    }
    if (command->subcommands != NULL) {
        printf("\nCommands (each has its own --help):\n");
        for (const cli_command *const *sub = command->subcommands; *sub != NULL; sub++)
            printf("  %-12s %s\n", (*sub)->name, (*sub)->summary);
    }
    if (option_first(command)->kind != CLI_HEADING)
        printf("\nOptions:\n");
    for (const cli_option *o = option_first(command); o != NULL; o = option_next(o))
        if (o->kind == CLI_HEADING)
            printf("\n%s:\n", o->help);
        else
            print_option(o);
    printf("\nExit status:\n");
    print_lines(command->exit_notes != NULL ? command->exit_notes : DEFAULT_EXIT_NOTES, "  ");
    if (command->examples != NULL) {
        printf("\nExamples:\n");
        print_lines(command->examples, "  ");
    }
}

/* ---- man page ---- */

/* Text as troff input, with requests and escapes quoted. */
static void print_roff(const char *text, size_t size)
{
    for (size_t i = 0; i < size && text[i] != '\0'; i++) {
        if ((i == 0 || text[i - 1] == '\n') && (text[i] == '.' || text[i] == '\''))
            fputs("\\&", stdout);
        if (text[i] == '\\')
            fputs("\\e", stdout);
        else if (text[i] == '-')
            fputs("\\-", stdout);
        else if (text[i] == '\n' && text[i + 1] == '\n')
            fputs("\n.PP", stdout);
        else
            putchar(text[i]);
    }
}

static void print_roff_lines(const char *text)
{
    fputs(".nf\n", stdout);
    while (*text != '\0') {
        const size_t size = strcspn(text, "\n");

        print_roff(text, size);
        putchar('\n');
        text += size;
        text += *text == '\n';
    }
    fputs(".fi\n", stdout);
}

static void print_roff_options(const cli_command *command)
{
    for (const cli_option *o = option_first(command); o != NULL; o = option_next(o)) {
        if (o->kind == CLI_HEADING) {
            printf(".SS %s\n", o->help);
            continue;
        }
        fputs(".TP\n\\fB", stdout);
        if (cli_letter_of(o->name) != '\0')
            printf("\\-%c\\fR, \\fB", cli_letter_of(o->name));
        fputs("\\-\\-", stdout);
        print_roff(o->name, SIZE_MAX);
        fputs("\\fR", stdout);
        if (o->value != NULL) {
            fputs(" \\fI", stdout);
            print_roff(o->value, SIZE_MAX);
            fputs("\\fR", stdout);
        }
        putchar('\n');
        print_roff(o->help, SIZE_MAX);
        putchar('\n');
    }
}

static void print_roff_usage(const char *name, const cli_command *command)
{
    fputs(".B ", stdout);
    print_roff(name, SIZE_MAX);
    putchar('\n');
    print_roff(command->usage, SIZE_MAX);
    putchar('\n');
}

static void print_roff_subcommand(const cli_command *parent, const cli_command *command)
{
    char name[128];

    full_name(parent, command, name, sizeof name);
    printf(".SH COMMAND: %s\n", command->name);
    print_roff_usage(name, command);
    fputs(".PP\n", stdout);
    print_roff(command->description != NULL ? command->description : command->summary, SIZE_MAX);
    putchar('\n');
    print_roff_options(command);
    if (command->examples != NULL) {
        fputs(".PP\n", stdout);
        print_roff_lines(command->examples);
    }
}

static void print_man(const cli_command *parent, const cli_command *command)
{
    char name[128];

    full_name(parent, command, name, sizeof name);
    printf(".TH \"%s\" 1 \"\" \"ckpt %s\" \"User Commands\"\n.SH NAME\n", name, CKPT_VERSION);
    print_roff(name, SIZE_MAX);
    fputs(" \\- ", stdout);
    print_roff(command->summary, SIZE_MAX);
    fputs("\n.SH SYNOPSIS\n", stdout);
    print_roff_usage(name, command);
    if (command->description != NULL) {
        fputs(".SH DESCRIPTION\n", stdout);
        print_roff(command->description, SIZE_MAX);
        putchar('\n');
    }
    fputs(".SH OPTIONS\n", stdout);
    print_roff_options(command);
    if (command->subcommands != NULL)
        for (const cli_command *const *sub = command->subcommands; *sub != NULL; sub++)
            print_roff_subcommand(command, *sub);
    fputs(".SH EXIT STATUS\n", stdout);
    print_roff_lines(command->exit_notes != NULL ? command->exit_notes : DEFAULT_EXIT_NOTES);
    if (command->examples != NULL) {
        fputs(".SH EXAMPLES\n", stdout);
        print_roff_lines(command->examples);
    }
}

/* ---- bash completion ---- */

static void print_bash_words(const cli_command *command)
{
    for (const cli_option *o = option_first(command); o != NULL; o = option_next(o))
        if (o->kind != CLI_HEADING)
            printf("--%s ", o->name);
}

/* Print completions for each option with a value: a list of words, or readline's default (file
 * names). */
static void print_bash_values(const cli_command *command)
{
    for (const cli_option *o = option_first(command); o != NULL; o = option_next(o)) {
        if (o->kind == CLI_HEADING || o->kind == CLI_FLAG)
            continue;
        printf("        --%s) ", o->name);
        if (o->kind == CLI_CHOICE) {
            fputs("COMPREPLY=($(compgen -W '", stdout);
            for (const char *c = o->value; *c != '\0'; c++)
                putchar(*c == '|' ? ' ' : *c);
            fputs("' -- \"$cur\")); ", stdout);
        }
        fputs("return ;;\n", stdout);
    }
}

static void print_bash(const cli_command *command)
{
    char function[64];

    snprintf(function, sizeof function, "_%s", command->name);
    for (char *c = function; *c != '\0'; c++)
        if (*c == '-')
            *c = '_';
    printf("%s()\n{\n"
           "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words\n"
           "    [ \"$prev\" = = ] && prev=${COMP_WORDS[COMP_CWORD-2]}\n"
           "    [ \"$cur\" = = ] && cur=\n"
           "    COMPREPLY=()\n"
           "    case \"$prev\" in\n", function);
    print_bash_values(command);
    for (const cli_command *const *s = command->subcommands; s != NULL && *s != NULL; s++)
        print_bash_values(*s);
    fputs("    esac\n    words='", stdout);
    print_bash_words(command);
    fputs("'\n", stdout);
    if (command->subcommands != NULL) {
        fputs("    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"$words", stdout);
        for (const cli_command *const *s = command->subcommands; *s != NULL; s++)
            printf(" %s", (*s)->name);
        fputs("\"\n        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n        return\n"
              "    fi\n    case \"${COMP_WORDS[1]}\" in\n", stdout);
        for (const cli_command *const *s = command->subcommands; *s != NULL; s++) {
            printf("        %s) words='", (*s)->name);
            print_bash_words(*s);
            fputs("' ;;\n", stdout);
        }
        fputs("    esac\n", stdout);
    }
    printf("    case \"$cur\" in\n"
           "        -*) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")) ;;\n"
           "    esac\n}\n"
           "complete -o default -F %s %s\n", function, command->name);
}

void cli_print_help(const cli_command *parent, const cli_command *command, cli_help_form form)
{
    switch (form) {
    case CLI_HELP_TEXT:
        print_text(parent, command);
        break;
    case CLI_HELP_MAN:
        print_man(parent, command);
        break;
    case CLI_HELP_BASH:
        print_bash(parent != NULL ? parent : command);
        break;
    }
}
