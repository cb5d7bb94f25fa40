/* cli.c: parses a command line into the targets of an option table. */
#include "cli.h"

#include <assert.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli_private.h"
#include "libckpt/error.h"
#include "libckpt/size.h"

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

/* Both then show up as write errors with a message, instead of killing the process; see
 * cli_finish. */
static void ignore_signals(void)
{
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

int cli_parse_u64(const char *text, uint64_t *out)
{
    uint64_t number = 0;

    if (*text == '\0')
        return 0;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return 0;
        if (!size_mul(number, 10, &number) || !size_add(number, (uint64_t)(*text - '0'), &number))
            return 0;
    }
    *out = number;
    return 1;
}

int cli_parse_number(const char *text, double *out)
{
    char *end;
    const double number = strtod(text, &end);

    /* strtod alone takes leading blanks, signs, hexadecimal digits, "inf" and "nan" */
    if (strspn(text, "0123456789.eE+-") != strlen(text) || end == text || *end != '\0' ||
        !isfinite(number) || signbit(number))
        return 0;
    *out = number;
    return 1;
}

int cli_parse_size(const char *text, uint64_t *out)
{
    static const char units[] = "kMGTP";
    const size_t digit_count = strspn(text, "0123456789");
    const char *unit = text + digit_count;
    char digits[24];
    const char *letter;
    uint64_t number;
    uint64_t base;

    if (digit_count >= sizeof digits)
        return 0;
    memcpy(digits, text, digit_count);
    digits[digit_count] = '\0';
    if (!cli_parse_u64(digits, &number))
        return 0;
    if (*unit != '\0' && strcmp(unit, "B") != 0) {
        letter = strchr(units, *unit == 'K' ? 'k' : *unit);
        base = unit[1] == 'i' ? 1024 : 1000;
        if (letter == NULL || strcmp(unit + (base == 1024 ? 2 : 1), "B") != 0)
            return 0;
        for (const char *u = units; u <= letter; u++)
            if (!size_mul(number, base, &number))
                return 0;
    }
    *out = number;
    return 1;
}

/* `text` if it equals one of the words of "a|b|c", else NULL. */
static int is_choice(const char *words, const char *text)
{
    const size_t size = strlen(text);

    while (*words != '\0') {
        const size_t word_size = strcspn(words, "|");

        if (word_size == size && memcmp(words, text, size) == 0)
            return 1;
        words += word_size + (words[word_size] == '|');
    }
    return 0;
}

static ckpt_code bad_value(const cli_option *option, const char *value, const char *expected,
                           ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_USAGE, "bad value for option '--%s': expected %s, got '%s'",
                     option->name, expected, value);
}

static ckpt_code append_item(const cli_option *option, const char *value, ckpt_error *err)
{
    cli_list *list = option->target;

    if (list->count == CLI_LIST_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "option '--%s' is given more than %d times",
                         option->name, CLI_LIST_MAX);
    list->items[list->count++] = value;
    return CKPT_OK;
}

static ckpt_code set_option(const cli_option *option, const char *value, ckpt_error *err)
{
    switch (option->kind) {
    case CLI_FLAG:
        *(int *)option->target = 1;
        return CKPT_OK;
    case CLI_STRING:
        *(const char **)option->target = value;
        return CKPT_OK;
    case CLI_SIZE:
        if (!cli_parse_size(value, option->target) || *(uint64_t *)option->target == 0)
            return bad_value(option, value, "bytes like 4096, 256MiB or 10GB", err);
        return CKPT_OK;
    case CLI_U64:
    case CLI_COUNT:
    case CLI_THREADS:
        if (!cli_parse_u64(value, option->target))
            return bad_value(option, value, "a whole number", err);
        if (option->kind == CLI_COUNT && *(uint64_t *)option->target == 0)
            return bad_value(option, value, "at least 1", err);
        if (option->kind == CLI_THREADS && *(uint64_t *)option->target > CLI_THREADS_MAX)
            return bad_value(option, value, "at most 1024", err);
        return CKPT_OK;
    case CLI_NUMBER:
        if (!cli_parse_number(value, option->target))
            return bad_value(option, value, "a number of 0 or more", err);
        return CKPT_OK;
    case CLI_CHOICE:
        if (!is_choice(option->value, value))
            return bad_value(option, value, option->value, err);
        *(const char **)option->target = value;
        return CKPT_OK;
    case CLI_LIST:
        return append_item(option, value, err);
    case CLI_END:
    case CLI_HEADING:
        break;
    }
    assert(!"an option of unknown kind");
    return CKPT_E_USAGE;
}

static const cli_option *find_option(const cli_option *options, const char *name, size_t size)
{
    if (options == NULL)
        return NULL;
    for (; options->kind != CLI_END; options++)
        if (options->kind != CLI_HEADING && strlen(options->name) == size &&
            memcmp(options->name, name, size) == 0)
            return options;
    return NULL;
}

/* A command line on its way into a command's targets. */
typedef struct {
    const cli_command *command;
    int argc;
    char **argv;
    int at;                                  /* argument that is looked at */
    unsigned char given[CLI_OPTIONS_MAX];    /* 1: this row of the table was given */
} cli_line;

/* Take the option at argv[at], and its value where that is the next argument. */
static ckpt_code take_option(cli_line *line, ckpt_error *err)
{
    const cli_command *command = line->command;
    const char *name = line->argv[line->at] + 2;
    const size_t size = strcspn(name, "=");
    const cli_option *option = find_option(command->options, name, size);
    const char *value = name[size] == '=' ? name + size + 1 : NULL;

    if (strncmp(line->argv[line->at], "--", 2) != 0 || option == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "unknown option '%s'; see --help",
                         line->argv[line->at]);
    if (option->kind == CLI_FLAG && value != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "option '--%s' takes no value, got '%s'", option->name,
                         value);
    if (option->kind != CLI_FLAG && value == NULL) {
        /* `--out --json` is far more often a forgotten value than a file called "--json". */
        if (line->at + 1 == line->argc || strncmp(line->argv[line->at + 1], "--", 2) == 0)
            return ckpt_fail(err, CKPT_E_USAGE, "option '--%s' needs a value: %s", option->name,
                             option->value);
        value = line->argv[++line->at];
    }
    assert(option - command->options < CLI_OPTIONS_MAX);
    line->given[option - command->options] = 1;
    return set_option(option, value, err);
}

/* ---- rules between options ---- */

/* Is one of "a|b|c" given? *found receives its name. */
static int is_any_given(const cli_line *line, const char *names, const cli_option **found)
{
    while (*names != '\0') {
        const size_t size = strcspn(names, "|");

        *found = find_option(line->command->options, names, size);
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
    if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
        cli_print_help(parent, command, CLI_HELP_TEXT);
    else if (strcmp(arg, "--help=man") == 0)
        cli_print_help(parent, command, CLI_HELP_MAN);
    else if (strcmp(arg, "--help=bash") == 0)
        cli_print_help(parent, command, CLI_HELP_BASH);
    else if (strcmp(arg, "--version") == 0)
        printf("%s %s\n", cli_program_name, CKPT_VERSION);
    else
        return CLI_GO;
    return CLI_DONE;
}

static int fail_usage(const char *format, const char *subject)
{
    ckpt_error err;

    ckpt_fail(&err, CKPT_E_USAGE, format, subject);
    return cli_fail(&err);
}

/* Replace *command by the subcommand that argv[1] names. */
static int choose_subcommand(const cli_command **command, int argc, char **argv)
{
    const cli_command *top = *command;
    int status;

    if (argc < 2)
        return fail_usage("expected a command: %s; see --help", top->usage);
    if ((status = answer(NULL, top, argv[1])) != CLI_GO)
        return status;
    for (const cli_command *const *sub = top->subcommands; *sub != NULL; sub++)
        if (strcmp((*sub)->name, argv[1]) == 0) {
            *command = *sub;
            return CLI_GO;
        }
    return fail_usage(argv[1][0] == '-'
                          ? "unknown option '%s': options go after the command; see --help"
                          : "unknown command '%s'; see --help", argv[1]);
}

static int check_arg_count(const cli_command *command, unsigned count)
{
    ckpt_error err;

    if (count >= command->arg_min && count <= command->arg_max)
        return CLI_GO;
    ckpt_fail(&err, CKPT_E_USAGE, "%s arguments: expected '%s', got %u; see --help",
              count < command->arg_min ? "too few" : "too many", command->usage, count);
    return cli_fail(&err);
}

/* From here on, data that is read counts towards --memory. */
static void limit_memory(const cli_command *command)
{
    for (const cli_option *option = command->options; option->kind != CLI_END; option++)
        if (option->kind == CLI_SIZE && strcmp(option->name, "memory") == 0)
            ckpt_set_memory_limit(*(const uint64_t *)option->target);
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
            if (take_option(&line, &err) != CKPT_OK)
                return cli_fail(&err);
        }
    }
    if ((status = check_arg_count(command, args->count)) != CLI_GO)
        return status;
    limit_memory(command);
    if (check_rules(&line, &err) != CKPT_OK)
        return cli_fail(&err);
    cli_start_clock();
    return args->is_check && !command->checks_more ? CLI_DONE : CLI_GO;
}
