/* cli.c: parses a command line into the targets of an option table. */
#include "cli.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_private.h"
#include "libckpt/error.h"
#include "libckpt/file.h"

static int file_limit_is_ignored;        /* SIGXFSZ */

/*
 * If a standard stream is closed at start, the next file opened would get its number, and a
 * message would be written into a checkpoint. So reserve the numbers with /dev/null, opened in the
 * opposite direction, so that using them still fails.
 */
static void hold_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0)
            return;
}

/* Two then show up as write errors with a message, instead of killing the process; see cli_finish.
 * A parent that ignores the end of its children must not make us ignore that of ours. */
static void ignore_signals(void)
{
    signal(SIGCHLD, SIG_DFL);
    cli_pipe_is_ignored = signal(SIGPIPE, SIG_IGN) == SIG_IGN;
    file_limit_is_ignored = signal(SIGXFSZ, SIG_IGN) == SIG_IGN;
}

void cli_restore_signals(void)
{
    if (!cli_pipe_is_ignored)
        signal(SIGPIPE, SIG_DFL);
    if (!file_limit_is_ignored)
        signal(SIGXFSZ, SIG_DFL);
}

/* State of parsing one command line. */
typedef struct {
    const cli_command *command;
    const cli_command *parent;               /* whose subcommand it is; or NULL */
    int argc;
    char **argv;
    int at;                                  /* index of the current argument */
    unsigned char given[CLI_OPTIONS_MAX];    /* 1: this row of the table was given */
} cli_line;

/* ---- options ---- */

/* The hint for this command, option or value, or NULL. */
static const char *find_hint(const cli_command *command, const char *word, size_t size)
{
    for (const cli_hint *h = command->hints; h != NULL && h->word != NULL; h++)
        if (strlen(h->word) == size && memcmp(h->word, word, size) == 0)
            return h->hint;
    return NULL;
}

/* The subcommand that has this option, if the given one, its sister, has not; or NULL. */
static const cli_command *find_sister(const cli_line *line, const char *name, size_t size)
{
    if (line->parent == NULL || size == 0)
        return NULL;
    for (const cli_command *const *sub = line->parent->subcommands; *sub != NULL; sub++)
        for (const cli_option *o = (*sub)->options; o->kind != CLI_END; o++)
            if (o->kind != CLI_HEADING && strlen(o->name) == size &&
                memcmp(o->name, name, size) == 0)
                return *sub;
    return NULL;
}

/* Fail on an unknown option, with the option that was probably meant. */
static ckpt_code fail_unknown(const cli_line *line, const char *text, ckpt_error *err)
{
    const size_t size = strcspn(text, "=:");
    const char *hint = find_hint(line->command, text, size);
    const cli_command *sister = find_sister(line, text + 2, size < 3 ? 0 : size - 2);
    cli_near near;

    if (hint != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "unknown option '%s': %s", text, hint);
    if (sister != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "unknown option '%s': '%s' has it, '%s' does not; see "
                         "--help", text, sister->name, line->command->name);
    cli_near_begin(&near, text + 2, size < 3 ? 0 : size - 2);
    for (const cli_option *o = line->command->options; o != NULL && o->kind != CLI_END; o++)
        if (o->kind != CLI_HEADING)
            cli_near_offer(&near, o->name, strlen(o->name));
    cli_near_offer(&near, "help", 4);
    cli_near_offer(&near, "version", 7);
    if (near.word[0] != '\0')
        return ckpt_fail(err, CKPT_E_USAGE, "unknown option '%s'; did you mean '--%s'?", text,
                         near.word);
    return ckpt_fail(err, CKPT_E_USAGE, "unknown option '%s'; see --help", text);
}

/* 1 when this option was given before, in any spelling. */
static int was_given(const cli_line *line, const cli_option *option)
{
    const cli_option *o = line->command->options;

    while (o->kind != CLI_END && !(o->target == option->target && line->given[o -
                                                                 line->command->options]))
        o++;
    return o->kind != CLI_END;
}

static ckpt_code fail_value_missing(const cli_command *command, const cli_option *option,
                                    ckpt_error *err)
{
    const cli_words *words = command->words;
    char list[256] = "";
    size_t used = 0;

    while (words != NULL && words->option != NULL && strcmp(words->option, option->name) != 0)
        words++;
    for (size_t i = 0; words != NULL && words->option != NULL && words->word(i) != NULL; i++)
        used += (size_t)snprintf(list + used, used < sizeof list ? sizeof list - used : 0, "%s%s",
                                 i == 0 ? " (" : ", ", words->word(i));
    if (used == 0 || used >= sizeof list)
        return ckpt_fail(err, CKPT_E_USAGE, "option '--%s' needs a value: %s", option->name,
                         option->value);
    return ckpt_fail(err, CKPT_E_USAGE, "option '--%s' needs a value: %s%s)", option->name,
                     option->value, list);
}

/* `value` is NULL if the next argument is the value. */
static ckpt_code set_given(cli_line *line, const cli_option *option, const char *value,
                           ckpt_error *err)
{
    const char *hint;
    ckpt_code code;
    char source[64];

    if (option->kind == CLI_FLAG && value != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "option '--%s' takes no value, got '%s'", option->name,
                         value);
    if (option->kind != CLI_FLAG && value == NULL) {
        /* `--out --json` is far more often a forgotten value than a file called "--json". */
        if (line->at + 1 == line->argc || strncmp(line->argv[line->at + 1], "--", 2) == 0)
            return fail_value_missing(line->command, option, err);
        value = line->argv[++line->at];
    }
    if (option->kind == CLI_ONCE && was_given(line, option))
        return ckpt_fail(err, CKPT_E_USAGE, "--%s is given twice, as '%s' and '%s': give one value "
                         "that has both", option->name, *(const char **)option->target, value);
    assert(option - line->command->options < CLI_OPTIONS_MAX);
    line->given[option - line->command->options] = 1;
    cli_wants_lines |= strcmp(option->name, "jsonl") == 0;
    cli_wants_json |= cli_wants_lines || strcmp(option->name, "json") == 0;
    snprintf(source, sizeof source, "option '--%s'", option->name);
    code = cli_set_option(option, source, value, err);
    if (code != CKPT_OK && option->kind == CLI_CHOICE &&
        (hint = find_hint(line->command, value, strlen(value))) != NULL)
        return ckpt_fail(err, code, "bad value for %s: expected %s, got '%s': %s", source,
                         option->value, value, hint);
    return code;
}

/* "-q", "-qv", "-j4", "-j 4" */
static ckpt_code take_letters(cli_line *line, ckpt_error *err)
{
    const char *text = line->argv[line->at];
    ckpt_code code = CKPT_OK;

    if (strlen(text) > 2 &&
        cli_find_option(line->command->options, text + 1, strcspn(text + 1, "=")) != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "unknown option '%s'; did you mean '-%s'?", text, text);
    for (const char *letter = text + 1; *letter != '\0' && code == CKPT_OK; letter++) {
        const cli_option *option = cli_find_letter(line->command->options, *letter);

        if (option == NULL)
            return fail_unknown(line, text, err);
        if (option->kind != CLI_FLAG)
            return set_given(line, option, letter[1] == '\0' ? NULL : letter + 1, err);
        code = set_given(line, option, NULL, err);
    }
    return code;
}

/* Parse the option at argv[at], and its value if that is the next argument. */
static ckpt_code take_option(cli_line *line, ckpt_error *err)
{
    const char *text = line->argv[line->at];
    const char *name = text + 2;
    const size_t size = strcspn(name, "=");
    const cli_option *other;
    const cli_option *option = cli_find_abbreviated(line->command->options, name, size, &other);

    /* users who type --force mean --overwrite, although it abbreviates --force-names */
    if (find_hint(line->command, text, size + 2) != NULL)
        return fail_unknown(line, text, err);
    if (other != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "option '%s' is ambiguous: --%s or --%s; see --help",
                         text, other->name, option->name);
    return option == NULL
               ? fail_unknown(line, text, err)
               : set_given(line, option, name[size] == '=' ? name + size + 1 : NULL, err);
}

/* Environment variables are used for options that were not given. */
static ckpt_code take_variables(cli_line *line, ckpt_error *err)
{
    static const struct {
        const char *variable;
        const char *name;
    } all[] = { { "CKPT_THREADS", "threads" }, { "CKPT_MEMORY", "memory" } };
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < sizeof all / sizeof *all && code == CKPT_OK; i++) {
        const char *value = getenv(all[i].variable);
        const cli_option *options = line->command->options;
        const cli_option *option = cli_find_option(options, all[i].name, strlen(all[i].name));

        if (value != NULL && *value != '\0' && option != NULL && !line->given[option - options])
            code = cli_set_option(option, all[i].variable, value, err);
    }
    return code;
}

/* ---- rules between options ---- */

/* Is one of "a|b|c" given? *found receives its name. */
static int is_any_given(const cli_line *line, const char *names, const cli_option **found)
{
    while (*names != '\0') {
        const size_t size = strcspn(names, "|");

        *found = cli_find_option(line->command->options, names, size);
        assert(*found != NULL);              /* a rule for an option that does not exist */
        if (line->given[*found - line->command->options])
            return 1;
        names += size + (names[size] == '|');
    }
    return 0;
}

/* "a|b|c" as "--a, --b or --c". */
static void list_options(const char *names, char *out, size_t out_bytes)
{
    size_t used = 0;

    out[0] = '\0';
    while (*names != '\0' && used < out_bytes) {
        const size_t size = strcspn(names, "|");
        const char *next = names + size + (names[size] == '|');

        used += (size_t)snprintf(out + used, out_bytes - used, "--%.*s%s", (int)size, names,
                                 *next == '\0'               ? ""
                                 : strchr(next, '|') == NULL ? " or "
                                                             : ", ");
        names = next;
    }
}

static ckpt_code check_rules(const cli_line *line, ckpt_error *err)
{
    const cli_option *found;
    char others[256];

    for (const cli_rule *r = line->command->rules; r != NULL && r->option != NULL; r++) {
        if (!is_any_given(line, r->option, &found))
            continue;
        if (r->needs != NULL && !is_any_given(line, r->needs, &found)) {
            list_options(r->needs, others, sizeof others);
            return ckpt_fail(err, CKPT_E_USAGE, "--%s needs %s; see --help", r->option, others);
        }
        if (r->excludes != NULL && is_any_given(line, r->excludes, &found))
            return ckpt_fail(err, CKPT_E_USAGE, "--%s and --%s exclude each other; see --help",
                             r->option, found->name);
    }
    return CKPT_OK;
}

/* Handle --help[=FORM] and --version. CLI_GO: `arg` is neither. */
static int answer(const cli_command *parent, const cli_command *command, const char *arg)
{
    static const struct {
        const char *arg;
        cli_help_form form;
    } forms[] = { { "--help", CLI_HELP_TEXT },      { "-h", CLI_HELP_TEXT },
                  { "--help=man", CLI_HELP_MAN },   { "--help=bash", CLI_HELP_BASH },
                  { "--help=zsh", CLI_HELP_ZSH },   { "--help=fish", CLI_HELP_FISH } };

    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(arg, forms[i].arg) == 0) {
            cli_print_help(parent, command, forms[i].form);
            return CLI_DONE;
        }
    if (strcmp(arg, "--version") != 0 && strcmp(arg, "-V") != 0)
        return CLI_GO;
    printf("%s %s\n", cli_program_name, CKPT_VERSION);
    return CLI_DONE;
}

static int fail_usage(const char *format, const char *subject)
{
    ckpt_error err;

    ckpt_fail(&err, CKPT_E_USAGE, format, subject);
    return cli_fail(&err);
}

/* The subcommand with this name or prefix; *other: another one with this prefix, or NULL. */
static const cli_command *find_subcommand(const cli_command *top, const char *word,
                                          const cli_command **other)
{
    const cli_command *found = NULL;

    *other = NULL;
    for (const cli_command *const *sub = top->subcommands; *sub != NULL; sub++) {
        if (strcmp((*sub)->name, word) == 0) {
            *other = NULL;
            return *sub;
        }
        if (*word != '\0' && strncmp((*sub)->name, word, strlen(word)) == 0) {
            *other = found;
            found = *sub;
        }
    }
    return found;
}

static int fail_command(const cli_command *top, const char *word)
{
    ckpt_error err;
    cli_near near;
    const char *hint = find_hint(top, word, strlen(word));

    if (hint != NULL) {
        ckpt_fail(&err, CKPT_E_USAGE, "unknown command '%s': %s", word, hint);
        return cli_fail(&err);
    }
    cli_near_begin(&near, word, strlen(word));
    for (const cli_command *const *sub = top->subcommands; *sub != NULL; sub++)
        cli_near_offer(&near, (*sub)->name, strlen((*sub)->name));
    if (near.word[0] != '\0')
        ckpt_fail(&err, CKPT_E_USAGE, "unknown command '%s'; did you mean '%s'?", word, near.word);
    else
        ckpt_fail(&err, CKPT_E_USAGE, "unknown command '%s': expected %.*s; see --help", word,
                  (int)strcspn(top->usage, " "), top->usage);
    return cli_fail(&err);
}

/* `ckpt-verify --json compare A B`: the command becomes the first argument. */
static void bring_command_forward(const cli_command *top, int argc, char **argv)
{
    const cli_command *other;
    int at = 1;

    while (at < argc && (argv[at][0] == '-' || find_subcommand(top, argv[at], &other) == NULL))
        at++;
    if (argv[1][0] == '-' && at < argc) {
        char *word = argv[at];

        for (; at > 1; at--)
            argv[at] = argv[at - 1];
        argv[1] = word;
    }
}

/* Replace *command by the subcommand that argv[1] names. */
static int choose_subcommand(const cli_command **command, int argc, char **argv)
{
    const cli_command *top = *command;
    const cli_command *found;
    const cli_command *other;
    ckpt_error err;
    int status;

    if (argc < 2)
        return fail_usage("expected a command: %s; see --help", top->usage);
    if ((status = answer(NULL, top, argv[1])) != CLI_GO)
        return status;
    bring_command_forward(top, argc, argv);
    if (argv[1][0] == '-')
        return fail_usage("unknown option '%s': options go after the command; see --help",
                          argv[1]);
    found = find_subcommand(top, argv[1], &other);
    if (found == NULL)
        return fail_command(top, argv[1]);
    if (other != NULL) {
        ckpt_fail(&err, CKPT_E_USAGE, "command '%s' is ambiguous: %s or %s; see --help", argv[1],
                  other->name, found->name);
        return cli_fail(&err);
    }
    *command = found;
    return CLI_GO;
}

/* An argument that was meant as an option: "dtype=bf16". */
static const char *find_bare_option(const cli_command *command, const cli_args *args)
{
    for (unsigned i = 0; i < args->count; i++) {
        const size_t size = strcspn(args->items[i], "=");

        if (args->items[i][size] == '=' && !file_exists(args->items[i]) &&
            cli_find_option(command->options, args->items[i], size) != NULL)
            return args->items[i];
    }
    return NULL;
}

/* An option behind "--", where all words are arguments. */
static const char *find_dashed_option(const cli_command *command, const cli_args *args)
{
    for (unsigned i = 0; i < args->count; i++) {
        const char *name = args->items[i] + 2;

        if (strncmp(args->items[i], "--", 2) == 0 &&
            cli_find_option(command->options, name, strcspn(name, "=")) != NULL)
            return args->items[i];
    }
    return NULL;
}

/* Two arguments that are one path with a blank. */
static int find_cut_path(const cli_args *args, char *out, size_t out_bytes)
{
    for (unsigned i = 1; i < args->count; i++) {
        const int size = snprintf(out, out_bytes, "%s %s", args->items[i - 1], args->items[i]);

        if (size > 0 && (size_t)size < out_bytes && file_exists(out))
            return 1;
    }
    return 0;
}

static int check_arg_count(const cli_command *command, const cli_args *args)
{
    const unsigned count = args->count;
    const int is_few = count < command->arg_min;
    const char *bare;
    char path[512];
    ckpt_error err;

    if (count >= command->arg_min && count <= command->arg_max)
        return CLI_GO;
    if (!is_few && command->last_arg != NULL && *command->last_arg != NULL) {
        ckpt_fail(&err, CKPT_E_USAGE,
                  "too many arguments: '--out %s' is the last one, and '%s' is "
                  "one too many; see --help",
                  args->items[count - 1], args->items[count - 2]);
        return cli_fail(&err);
    }
    if (!is_few && (bare = find_bare_option(command, args)) != NULL) {
        ckpt_fail(&err, CKPT_E_USAGE, "too many arguments: did you mean '--%s' by '%s'?", bare,
                  bare);
        return cli_fail(&err);
    }
    if (!is_few && (bare = find_dashed_option(command, args)) != NULL) {
        ckpt_fail(&err, CKPT_E_USAGE, "too many arguments: '%s' behind '--' is not an option: give "
                  "options before '--'", bare);
        return cli_fail(&err);
    }
    if (!is_few && find_cut_path(args, path, sizeof path)) {
        ckpt_fail(&err, CKPT_E_USAGE,
                  "too many arguments: '%s' is one path, which a shell reads "
                  "as one argument when it is quoted",
                  path);
        return cli_fail(&err);
    }
    ckpt_fail(&err, CKPT_E_USAGE, "%s arguments: expected '%s', got %u; %s",
              is_few ? "too few" : "too many", command->usage, count,
              is_few || command->surplus == NULL ? "see --help" : command->surplus);
    return cli_fail(&err);
}

/* From here on, data that is read counts towards --memory. */
static void limit_memory(const cli_command *command)
{
    for (const cli_option *option = command->options; option->kind != CLI_END; option++)
        if (option->kind == CLI_MEMORY && strcmp(option->name, "memory") == 0)
            ckpt_set_memory_limit(*(const uint64_t *)option->target);
}

/* Look for an option before parsing: an error in an earlier one must be printed as JSON, too. */
static int is_given(const char *option, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], option) == 0)
            return 1;
    return 0;
}

int cli_parse(const cli_command *command, int argc, char **argv, cli_args *args)
{
    const cli_command *parent = NULL;
    cli_line line = { .given = { 0 } };
    int only_arguments = 0;
    int status;
    ckpt_error err;

    hold_standard_streams();
    ignore_signals();
    cli_program_name = command->name;
    cli_wants_lines = is_given("--jsonl", argc, argv);
    cli_wants_json = cli_wants_lines || is_given("--json", argc, argv);
    args->checks_places = argc > 1 && strcmp(argv[1], CLI_CHECK_PLACES) == 0;
    args->is_check = args->checks_places ||
                     (argc > 1 && strcmp(argv[1], CLI_CHECK_OPTIONS) == 0);
    if (args->is_check) {
        argc--;
        argv++;
    }
    if (command->subcommands != NULL) {
        parent = command;
        if ((status = choose_subcommand(&command, argc, argv)) != CLI_GO)
            return status;
        argc--;
        argv++;
    }
    args->command = command;
    args->items = argv + 1;
    args->count = 0;
    line.command = command;
    line.parent = parent;
    line.argc = argc;
    line.argv = argv;
    for (line.at = 1; line.at < argc; line.at++) {
        char *arg = argv[line.at];

        if (only_arguments || arg[0] != '-' || arg[1] == '\0') {
            args->items[args->count++] = arg;
        } else if (strcmp(arg, "--") == 0) {
            only_arguments = 1;
        } else {
            if ((status = answer(parent, command, arg)) != CLI_GO)
                return status;
            if ((arg[1] == '-' ? take_option : take_letters)(&line, &err) != CKPT_OK)
                return cli_fail(&err);
        }
    }
    if (take_variables(&line, &err) != CKPT_OK)
        return cli_fail(&err);
    if (command->last_arg != NULL && *command->last_arg != NULL)
        args->items[args->count++] = (char *)(uintptr_t)*command->last_arg;
    if ((status = check_arg_count(command, args)) != CLI_GO)
        return status;
    limit_memory(command);
    if (check_rules(&line, &err) != CKPT_OK)
        return cli_fail(&err);
    cli_start_clock();
    return args->is_check && !command->checks_more ? CLI_DONE : CLI_GO;
}
