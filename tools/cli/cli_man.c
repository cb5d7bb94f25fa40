/* cli_man.c: the man page of an option table. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

#include "cli_private.h"

/* ---- text as troff input ---- */

/* Print text with requests and escapes quoted. */
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

static void print_paragraph(const char *text)
{
    print_roff(text, SIZE_MAX);
    putchar('\n');
}

static void print_topic(const char *name, const char *text)
{
    fputs(".TP\n.B ", stdout);
    print_paragraph(name);
    print_paragraph(text);
}

/* ---- options ---- */

/* The row behind a group of options: the next heading, or NULL. `o` is a heading or a first row. */
static const cli_option *group_end(const cli_option *o)
{
    do
        o = cli_option_next(o);
    while (o != NULL && o->kind != CLI_HEADING);
    return o;
}

static int are_equal_groups(const cli_option *a, const cli_option *b)
{
    const cli_option *a_end = group_end(a);
    const cli_option *b_end = group_end(b);

    for (; a != a_end && b != b_end; a = cli_option_next(a), b = cli_option_next(b))
        if (a->kind != b->kind || strcmp(a->help, b->help) != 0 ||
            (a->kind != CLI_HEADING && strcmp(a->name, b->name) != 0))
            return 0;
    return a == a_end && b == b_end;
}

/* The first subcommand of `parent`, up to `command`, that has the same group of options. */
static const cli_command *find_same_group(const cli_command *parent, const cli_command *command,
                                          const cli_option *group)
{
    for (const cli_command *const *sub = parent->subcommands; *sub != command; sub++)
        for (const cli_option *o = cli_option_first(*sub); o != NULL; o = group_end(o))
            if (o->kind == CLI_HEADING && are_equal_groups(o, group))
                return *sub;
    return command;
}

static void print_roff_option(const cli_option *o)
{
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
    print_paragraph(o->help);
}

/* The options of a command; groups that an earlier subcommand of `parent` also has are printed
 * there only. */
static void print_roff_options(const cli_command *parent, const cli_command *command)
{
    const cli_option *o = cli_option_first(command);

    while (o != NULL) {
        const cli_option *end = group_end(o);

        if (o->kind == CLI_HEADING) {
            const cli_command *same =
                parent == NULL ? command : find_same_group(parent, command, o);

            printf(".SS %s\n", o->help);
            if (same != command) {
                printf("The same as of\n.BR %s .\n", same->name);
                o = end;
                continue;
            }
            o = cli_option_next(o);
        }
        for (; o != end; o = cli_option_next(o))
            print_roff_option(o);
    }
}

/* ---- the page ---- */

static void print_roff_usage(const char *name, const cli_command *command)
{
    fputs(".B ", stdout);
    print_paragraph(name);
    print_paragraph(command->usage);
}

static void print_roff_subcommand(const cli_command *parent, const cli_command *command)
{
    char name[CLI_FULL_NAME_BYTES];

    cli_full_name(parent, command, name, sizeof name);
    printf(".SH COMMAND: %s\n", command->name);
    print_roff_usage(name, command);
    fputs(".PP\n", stdout);
    print_paragraph(command->description != NULL ? command->description : command->summary);
    print_roff_options(parent, command);
    if (command->exit_notes != NULL) {
        printf(".SS Exit status of %s\n", command->name);
        print_roff_lines(command->exit_notes);
    }
    if (command->examples != NULL) {
        printf(".SS Examples of %s\n", command->name);
        print_roff_lines(command->examples);
    }
}

static int has_option(const cli_command *command, const char *name)
{
    if (cli_find_option(command->options, name, strlen(name)) != NULL)
        return 1;
    for (const cli_command *const *s = command->subcommands; s != NULL && *s != NULL; s++)
        if (cli_find_option((*s)->options, name, strlen(name)) != NULL)
            return 1;
    return 0;
}

static void print_environment(const cli_command *command)
{
    const cli_topic *t = command->environment;

    if (t == NULL && !has_option(command, "threads") && !has_option(command, "memory"))
        return;
    fputs(".SH ENVIRONMENT\n", stdout);
    if (has_option(command, "threads"))
        print_topic("CKPT_THREADS", "The default of --threads.");
    if (has_option(command, "memory"))
        print_topic("CKPT_MEMORY", "The default of --memory.");
    for (; t != NULL && t->name != NULL; t++)
        print_topic(t->name, t->text);
}

static void print_files(const cli_command *command)
{
    if (command->files == NULL)
        return;
    fputs(".SH FILES\n", stdout);
    for (const cli_topic *t = command->files; t->name != NULL; t++)
        print_topic(t->name, t->text);
}

/* "name(1)" with the name in bold. */
static void print_page_name(const char *page, size_t size, int is_last)
{
    const size_t name = strcspn(page, "(");

    fputs(".BR ", stdout);
    print_roff(page, name);
    printf(" %.*s%s\n", (int)(size - name), page + name, is_last ? "" : ",");
}

static void print_see_also(const cli_command *command)
{
    const char *page = command->see_also == NULL ? "" : command->see_also;

    fputs(".SH SEE ALSO\n", stdout);
    while (*page != '\0') {
        const size_t size = strcspn(page, " ");

        print_page_name(page, size, 0);
        page += size;
        page += *page == ' ';
    }
    print_page_name("ckpt(7)", strlen("ckpt(7)"), 1);
}

void cli_print_man(const cli_command *parent, const cli_command *command)
{
    char name[CLI_FULL_NAME_BYTES];

    cli_full_name(parent, command, name, sizeof name);
    printf(".TH \"%s\" 1 \"" CLI_PAGE_DATE "\" \"ckpt %s\" \"User Commands\"\n.SH NAME\n", name,
           CKPT_VERSION);
    print_roff(name, SIZE_MAX);
    fputs(" \\- ", stdout);
    print_roff(command->summary, SIZE_MAX);
    fputs("\n.SH SYNOPSIS\n", stdout);
    print_roff_usage(name, command);
    if (command->description != NULL) {
        fputs(".SH DESCRIPTION\n", stdout);
        print_paragraph(command->description);
    }
    fputs(".SH OPTIONS\n", stdout);
    print_roff_options(NULL, command);
    if (command->subcommands != NULL)
        for (const cli_command *const *sub = command->subcommands; *sub != NULL; sub++)
            print_roff_subcommand(command, *sub);
    fputs(".SH EXIT STATUS\n", stdout);
    print_roff_lines(command->exit_notes != NULL ? command->exit_notes : cli_default_exit_notes);
    print_environment(command);
    print_files(command);
    if (command->examples != NULL) {
        fputs(".SH EXAMPLES\n", stdout);
        print_roff_lines(command->examples);
    }
    print_see_also(command);
}
