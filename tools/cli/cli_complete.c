/*
 * cli_complete.c: completion scripts for bash, zsh and fish, from an option table: options,
 * subcommands and values. A value is a word of a list, a file, a folder, a command, or a text that
 * cannot be completed, such as a number.
 */
#include "cli.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cli_private.h"
#include "libckpt/text.h"

/* ---- what an option takes ---- */

typedef enum { TAKES_NOTHING, TAKES_TEXT, TAKES_WORDS, TAKES_WORDS_OR_FILE, TAKES_FILE,
               TAKES_FOLDER, TAKES_COMMAND } option_value;

static const cli_words *find_words(const cli_command *command, const char *name)
{
    for (const cli_words *w = command->words; w != NULL && w->option != NULL; w++)
        if (strcmp(w->option, name) == 0)
            return w;
    return NULL;
}

static option_value value_of(const cli_command *command, const cli_option *o)
{
    static const char *const files[] = { "FILE", "PATH", "KEY", "PUB" };

    if (o->kind == CLI_FLAG)
        return TAKES_NOTHING;
    if (o->kind == CLI_CHOICE)
        return TAKES_WORDS;
    if (find_words(command, o->name) != NULL)
        return text_begins_with(o->value, "FILE") ? TAKES_WORDS_OR_FILE : TAKES_WORDS;
    if (text_begins_with(o->value, "COMMAND"))
        return TAKES_COMMAND;
    if (text_begins_with(o->value, "DIR"))
        return TAKES_FOLDER;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (text_begins_with(o->value, files[i]))
            return TAKES_FILE;
    return TAKES_TEXT;
}

/* Print the words that an option takes, a space between them. */
static void print_words(const cli_command *command, const cli_option *o)
{
    const cli_words *words = find_words(command, o->name);

    if (o->kind == CLI_CHOICE)
        for (const char *c = o->value; *c != '\0'; c++)
            putchar(*c == '|' ? ' ' : *c);
    for (size_t i = 0; words != NULL && words->word(i) != NULL; i++)
        printf("%s%s", i == 0 ? "" : " ", words->word(i));
}

/* The next option of a command that is not a heading. */
static const cli_option *skip_headings(const cli_option *o)
{
    while (o != NULL && o->kind == CLI_HEADING)
        o = cli_option_next(o);
    return o;
}

static const cli_option *first_option(const cli_command *command)
{
    return skip_headings(cli_option_first(command));
}

static const cli_option *next_option(const cli_option *o)
{
    return skip_headings(cli_option_next(o));
}

/* Length of the first clause of a help text: it describes the option in one short line. */
static size_t clause_size(const char *help)
{
    static const char *const ends[] = { "; ", ". ", " (" };
    size_t size = strlen(help);

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const char *end = strstr(help, ends[i]);

        if (end != NULL && end > help && (size_t)(end - help) < size)
            size = (size_t)(end - help);
    }
    return size;
}

/* Print text[0..size) for use inside '...', each of the characters `special` behind a `\`. */
static void print_quoted(const char *text, size_t size, const char *special, const char *quote)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\'') {
            fputs(quote, stdout);
            continue;
        }
        if (strchr(special, text[i]) != NULL)
            putchar('\\');
        putchar(text[i]);
    }
}

/* "_ckpt_convert" */
static void print_function_name(const char *name)
{
    putchar('_');
    for (; *name != '\0'; name++)
        putchar(isalnum((unsigned char)*name) ? *name : '_');
}

/* ---- bash ---- */

/* Cases "SUBCOMMAND:--option)" for the options with a value. A plain `return` lets readline
 * complete file names. */
static void print_bash_values(const cli_command *command, const char *subcommand)
{
    for (const cli_option *o = first_option(command); o != NULL; o = next_option(o)) {
        const option_value value = value_of(command, o);

        if (value == TAKES_NOTHING)
            continue;
        printf("        %s:--%s", subcommand, o->name);
        if (cli_letter_of(o->name) != '\0')
            printf("|%s:-%c", subcommand, cli_letter_of(o->name));
        fputs(") ", stdout);
        if (value == TAKES_WORDS || value == TAKES_WORDS_OR_FILE) {
            fputs("COMPREPLY=($(compgen -W '", stdout);
            print_words(command, o);
            fputs("' -- \"$cur\")); ", stdout);
        }
        if (value == TAKES_WORDS_OR_FILE)
            fputs("COMPREPLY+=($(compgen -f -- \"$cur\")); ", stdout);
        if (value == TAKES_FOLDER)
            fputs("COMPREPLY=($(compgen -d -- \"$cur\")); ", stdout);
        if (value == TAKES_COMMAND)
            fputs("COMPREPLY=($(compgen -c -- \"$cur\")); ", stdout);
        if (value == TAKES_TEXT || value == TAKES_WORDS)
            fputs("compopt +o default 2> /dev/null; ", stdout);
        fputs("return ;;\n", stdout);
    }
}

/* Behind an option that takes a command, its words are completed as that command's own. */
static void print_bash_command(const cli_command *command)
{
    for (const cli_option *o = first_option(command); o != NULL; o = next_option(o))
        if (value_of(command, o) == TAKES_COMMAND)
            printf("    for ((i = 1; i < COMP_CWORD - 1; i++)); do\n"
                   "        if [ \"${COMP_WORDS[i]}\" = --%s ]; then\n"
                   "            declare -F _command_offset > /dev/null &&\n"
                   "                _command_offset $((i + 1))\n"
                   "            return\n"
                   "        fi\n"
                   "    done\n", o->name);
}

static void print_bash_options(const cli_command *command)
{
    for (const cli_option *o = first_option(command); o != NULL; o = next_option(o))
        printf("--%s ", o->name);
}

static void print_bash_subcommands(const cli_command *command)
{
    fputs("    for ((i = 1; i < COMP_CWORD; i++)); do\n"
          "        case \"${COMP_WORDS[i]}\" in\n            ", stdout);
    for (const cli_command *const *s = command->subcommands; *s != NULL; s++)
        printf("%s%s", s == command->subcommands ? "" : "|", (*s)->name);
    fputs(") sub=${COMP_WORDS[i]}; break ;;\n        esac\n    done\n", stdout);
}

void cli_print_bash(const cli_command *command)
{
    print_function_name(command->name);
    fputs("()\n{\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
          "    local words sub= i\n"
          "    [ \"$prev\" = = ] && prev=${COMP_WORDS[COMP_CWORD-2]}\n"
          "    [ \"$cur\" = = ] && cur=\n"
          "    COMPREPLY=()\n", stdout);
    if (command->subcommands != NULL)
        print_bash_subcommands(command);
    print_bash_command(command);
    fputs("    case \"$sub:$prev\" in\n", stdout);
    print_bash_values(command, "");
    for (const cli_command *const *s = command->subcommands; s != NULL && *s != NULL; s++)
        print_bash_values(*s, (*s)->name);
    fputs("    esac\n    words='", stdout);
    print_bash_options(command);
    fputs("'\n", stdout);
    if (command->subcommands != NULL) {
        fputs("    case \"$sub\" in\n        '') words=\"$words", stdout);
        for (const cli_command *const *s = command->subcommands; *s != NULL; s++)
            printf(" %s", (*s)->name);
        fputs("\"\n            COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
              "            return ;;\n", stdout);
        for (const cli_command *const *s = command->subcommands; *s != NULL; s++) {
            printf("        %s) words='", (*s)->name);
            print_bash_options(*s);
            fputs("' ;;\n", stdout);
        }
        fputs("    esac\n", stdout);
    }
    fputs("    case \"$cur\" in\n"
          "        -*) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")) ;;\n"
          "    esac\n}\n"
          "complete -o default -F ", stdout);
    print_function_name(command->name);
    printf(" %s\n", command->name);
}

/* ---- zsh ---- */

static void print_zsh_value(const cli_command *command, const cli_option *o)
{
    const option_value value = value_of(command, o);

    if (value == TAKES_NOTHING)
        return;
    if (value == TAKES_COMMAND) {
        fputs(":*::command:_normal", stdout);
        return;
    }
    putchar(':');
    print_quoted(o->name, strlen(o->name), ":", "");
    putchar(':');
    if (value == TAKES_WORDS) {
        putchar('(');
        print_words(command, o);
        putchar(')');
    } else if (value == TAKES_WORDS_OR_FILE) {
        fputs("{_values word ", stdout);
        print_words(command, o);
        fputs("; _files}", stdout);
    } else {
        fputs(value == TAKES_FILE     ? "_files"
              : value == TAKES_FOLDER ? "_files -/"
                                      : " ", stdout);
    }
}

/* One argument of _arguments: '*--tensors=[only tensors whose names match]:tensors: '. */
static void print_zsh_option(const cli_command *command, const cli_option *o, const char *indent)
{
    const char letter = cli_letter_of(o->name);
    const int has_value = value_of(command, o) != TAKES_NOTHING;

    printf(" \\\n%s", indent);
    if (o->kind == CLI_LIST)
        fputs("'*'", stdout);
    else if (letter != '\0')
        printf("'(-%c --%s)'", letter, o->name);
    if (letter != '\0')
        printf("{-%c%s,--%s%s}", letter, has_value ? "+" : "", o->name, has_value ? "=" : "");
    else
        printf("--%s%s", o->name,
               !has_value                               ? ""
               : value_of(command, o) == TAKES_COMMAND ? ""
                                                        : "=");
    fputs("'[", stdout);
    print_quoted(o->help, clause_size(o->help), "[]\\", "'\\''");
    putchar(']');
    print_zsh_value(command, o);
    putchar('\'');
}

static void print_zsh_options(const cli_command *command, const char *indent)
{
    fputs("_arguments -s -S", stdout);
    for (const cli_option *o = first_option(command); o != NULL; o = next_option(o))
        print_zsh_option(command, o, indent);
    printf(" \\\n%s'*:path:_files'\n", indent);
}

void cli_print_zsh(const cli_command *command)
{
    printf("#compdef %s\n", command->name);
    print_function_name(command->name);
    fputs("()\n{\n    local -a commands line\n    local state\n    typeset -A opt_args\n    ",
          stdout);
    if (command->subcommands == NULL) {
        print_zsh_options(command, "        ");
    } else {
        fputs("commands=(\n", stdout);
        for (const cli_command *const *s = command->subcommands; *s != NULL; s++) {
            printf("        '%s:", (*s)->name);
            print_quoted((*s)->summary, strlen((*s)->summary), "", "'\\''");
            fputs("'\n", stdout);
        }
        fputs("    )\n    _arguments -C '(-h --help)'{-h,--help}'[print help]' "
              "'(-V --version)'{-V,--version}'[print the version]' \\\n"
              "        ': :->command' '*:: :->argument'\n"
              "    case $state in\n    command) _describe command commands ;;\n"
              "    argument) case $line[1] in\n", stdout);
        for (const cli_command *const *s = command->subcommands; *s != NULL; s++) {
            printf("        %s) ", (*s)->name);
            print_zsh_options(*s, "            ");
            fputs("            ;;\n", stdout);
        }
        fputs("        esac ;;\n    esac\n", stdout);
    }
    fputs("}\nif [ \"$funcstack[1]\" = _", stdout);
    printf("%s ]; then\n    ", command->name);
    print_function_name(command->name);
    fputs(" \"$@\"\nelse\n    compdef ", stdout);
    print_function_name(command->name);
    printf(" %s\nfi\n", command->name);
}

/* ---- fish ---- */

static void print_fish_option(const cli_command *command, const cli_option *o)
{
    const option_value value = value_of(command, o);

    if (cli_letter_of(o->name) != '\0')
        printf(" -s %c", cli_letter_of(o->name));
    printf(" -l %s", o->name);
    if (value == TAKES_TEXT) {
        fputs(" -x", stdout);
    } else if (value == TAKES_WORDS || value == TAKES_WORDS_OR_FILE) {
        printf(" %s -a '", value == TAKES_WORDS ? "-x" : "-r -F");
        print_words(command, o);
        putchar('\'');
    } else if (value == TAKES_FILE) {
        fputs(" -r -F", stdout);
    } else if (value == TAKES_FOLDER) {
        fputs(" -x -a '(__fish_complete_directories)'", stdout);
    } else if (value == TAKES_COMMAND) {
        fputs(" -x -a '(__fish_complete_command)'", stdout);
    }
    fputs(" -d '", stdout);
    print_quoted(o->help, clause_size(o->help), "\\", "\\'");
    fputs("'\n", stdout);
}

void cli_print_fish(const cli_command *command)
{
    for (const cli_command *const *s = command->subcommands; s != NULL && *s != NULL; s++) {
        printf("complete -c %s -f -n __fish_use_subcommand -a %s -d '", command->name, (*s)->name);
        print_quoted((*s)->summary, strlen((*s)->summary), "\\", "\\'");
        fputs("'\n", stdout);
        for (const cli_option *o = first_option(*s); o != NULL; o = next_option(o)) {
            printf("complete -c %s -n '__fish_seen_subcommand_from %s'", command->name,
                   (*s)->name);
            print_fish_option(*s, o);
        }
    }
    if (command->subcommands == NULL)
        for (const cli_option *o = first_option(command); o != NULL; o = next_option(o)) {
            printf("complete -c %s", command->name);
            print_fish_option(command, o);
        }
}
