/*
 * cli.h: what every command line shares: one option table, from which values, help, man page and
 * bash completion come; errors; progress; stopping; a checked standard output.
 *
 *     int main(int argc, char **argv)
 *     {
 *         cli_args args;
 *         const int status = cli_parse(&command, argc, argv, &args);
 *
 *         return cli_finish(status != CLI_GO ? status : run(args.items[0], args.items[1]));
 *     }
 */
#ifndef CKPT_CLI_H
#define CKPT_CLI_H

#include <stdatomic.h>
#include <stdatomic.h>

#include "libckpt/ckpt.h"

enum { CLI_DONE = 0, CLI_DIFFERENT = 1, CLI_FAILED = 2, CLI_GO = -1 };
enum { CLI_LIST_MAX = 64, CLI_OPTIONS_MAX = 128, CLI_ANY_ARGS = 1 << 20, CLI_SIZE_TEXT_BYTES = 16,
       CLI_THREADS_MAX = 1024, CLI_NAMES_AT_ONCE = 4 };

/* ---- options ---- */

typedef enum {
    CLI_END,
    CLI_HEADING,   /* starts a group of options in the help; `help` is its title */
    CLI_FLAG,      /* target: int, becomes 1 */
    CLI_STRING,    /* target: const char *, borrowed from argv */
    CLI_SIZE,      /* target: uint64_t, bytes: 4096, 256MiB, 10GB; not 0 */
    CLI_U64,       /* target: uint64_t */
    CLI_COUNT,     /* target: uint64_t, at least 1 */
    CLI_NUMBER,    /* target: double, finite and not negative: 0.01, 1e-6 */
    CLI_THREADS,   /* target: uint64_t, at most CLI_THREADS_MAX */
    CLI_CHOICE,    /* target: const char *, one of the words in `value`: "bf16|fp8|keep" */
    CLI_LIST       /* target: cli_list, one entry each time the option is given */
} cli_kind;

typedef struct {
    cli_kind kind;
    const char *name;    /* without the dashes */
    const char *value;   /* what the help calls the value; NULL for a flag */
    void *target;        /* set only when the option is given, so it holds the default before */
    const char *help;    /* one sentence without a full stop, with "(default ...)" */
} cli_option;

typedef struct {
    const char *items[CLI_LIST_MAX];   /* borrowed from argv */
    size_t count;
} cli_list;

/* What an option asks of others, so that none is taken and then ignored. */
typedef struct {
    const char *option;
    const char *needs;       /* "out|json": one of them must be given, too; NULL: nothing */
    const char *excludes;    /* "tp|pp": none of them may be given; NULL: nothing */
} cli_rule;

/* The last entry of every table. */
#define CLI_OPTIONS_END { CLI_END, NULL, NULL, NULL, NULL }

/* The options that every command has. Start from CLI_COMMON_DEFAULTS. */
typedef struct {
    int json;
    int quiet;
    int dry_run;
    uint64_t thread_count;   /* 0: one per core */
    uint64_t memory_bytes;
} cli_common;

#define CLI_COMMON_DEFAULTS { 0, 0, 0, 0, UINT64_C(1) << 30 }
/* The table rows for a cli_common; a read-only command that has nothing to plan takes
 * CLI_COMMON_READ. */
#define CLI_COMMON_READ(common)                                                                   \
    { CLI_HEADING, NULL, NULL, NULL, "Common options" },                                          \
    { CLI_FLAG, "json", NULL, &(common).json, "print one JSON document instead of text" },        \
    { CLI_FLAG, "quiet", NULL, &(common).quiet, "no progress on the terminal" },                  \
    { CLI_THREADS, "threads", "N", &(common).thread_count,                                        \
      "worker threads (default: one per core)" },                                                 \
    { CLI_SIZE, "memory", "SIZE", &(common).memory_bytes,                                         \
      "hard limit on buffers (default 1GiB)" }
#define CLI_COMMON(common)                                                                        \
    CLI_COMMON_READ(common),                                                                      \
    { CLI_FLAG, "dry-run", NULL, &(common).dry_run, "print the plan, read no tensor data" }

typedef struct cli_command {
    const char *name;            /* "ckpt-convert"; a subcommand's own word: "digest" */
    const char *summary;         /* "convert the encoding of a checkpoint" */
    const char *usage;           /* what follows the name: "[OPTIONS] SRC DST" */
    const char *description;     /* paragraphs, an empty line between them; NULL: none */
    const char *exit_notes;      /* one line a status; NULL: 0 done, 1 different, 2 could not */
    const char *examples;        /* one line each; NULL: none */
    const cli_option *options;   /* NULL where there are subcommands */
    const cli_rule *rules;       /* ends with a NULL option; NULL: none */
    int checks_more;             /* is_check is its own business: it has checks of options itself */
    unsigned arg_min;            /* arguments that are not options */
    unsigned arg_max;            /* CLI_ANY_ARGS: no limit */
    const struct cli_command *const *subcommands;   /* ends with NULL; or NULL */
} cli_command;

typedef struct {
    const cli_command *command;   /* the subcommand, where the command has some */
    char **items;                 /* borrowed from argv, which is reordered */
    unsigned count;
    int is_check;                 /* do nothing more than look at the options */
    int checks_places;            /* and at what the command would write to */
} cli_args;

/*
 * As the first word of all: look at the options, and do nothing. The exit status says whether they
 * would be taken. For programs that will run the command later (ckpt-download --then).
 */
#define CLI_CHECK_OPTIONS "--check-options"
/* The same, where the options are all that can change until then: what the command would write can
 * be refused as well. */
#define CLI_CHECK_PLACES "--check-places"

/*
 * Read the command line. Returns CLI_GO and fills *args, or the status to exit with: help and
 * version were printed, or the one-line complaint. `--name value` and `--name=value`; `--` ends
 * the options; names are never abbreviated; of a repeated option the last one holds.
 */
int cli_parse(const cli_command *command, int argc, char **argv, cli_args *args);

/* "4096", "256MiB", "10GB" (k and K, M, G, T, P; with i: powers of 1024). 0 when it is none. */
int cli_parse_size(const char *text, uint64_t *out);
/* Decimal digits only. 0 when it is anything else or too large. */
int cli_parse_u64(const char *text, uint64_t *out);
/* "0.5", "1e-6": finite, of 0 or more. 0 when it is anything else. */
int cli_parse_number(const char *text, double *out);

/* ---- help, from the same table ---- */

typedef enum { CLI_HELP_TEXT, CLI_HELP_MAN, CLI_HELP_BASH } cli_help_form;

/* `parent` is the command above a subcommand, or NULL. */
void cli_print_help(const cli_command *parent, const cli_command *command, cli_help_form form);

/* ---- output ---- */

/* Print "ckpt-x: text" on stderr. Returns the exit status: 1 for CKPT_E_DIFFERENT, else 2. */
int cli_fail(const ckpt_error *err);

/*
 * The last call of main: flush standard output. Returns `status`, or 2 when not all of the output
 * could be written. Does not return, as other Unix tools, where the reader of a pipe went away
 * (SIGPIPE) and after a failure once SIGINT or SIGTERM came: the process ends by that signal.
 */
int cli_finish(int status);

/* Before another program takes over: signals that cli_parse ignores are as they were. */
void cli_restore_signals(void);

/* A name as people can be shown it: on one line, control characters escaped. Holds until it was
 * called for CLI_NAMES_AT_ONCE others. */
const char *cli_name(const char *name);

/* "999 B", "1.50 kB", "159.6 GB": decimal units, as file sizes are published. */
void cli_size_text(uint64_t bytes, char out[CLI_SIZE_TEXT_BYTES]);

/* One line on stderr, only when that is a terminal: done, total, rate, time left. */
typedef struct {
    int enabled;
    int drawn;
    int started;
    atomic_flag busy;
    uint64_t begin_ns;
    uint64_t begin_bytes;   /* what a resumed run had already */
    uint64_t drawn_ns;
} cli_meter;

void cli_meter_begin(cli_meter *meter, const cli_common *common);
/* A progress callback; context is the cli_meter. Any thread may call it, as often as it likes. */
void cli_progress(void *context, uint64_t done_bytes, uint64_t total_bytes);
/* Erase the line. cli_fail and cli_finish do it, too. */
void cli_meter_end(cli_meter *meter);

/* How a loop over tensors runs: as the common options say, with its progress on `meter`, which
 * begins (NULL: none), and until SIGINT or SIGTERM. */
ckpt_run_options cli_run_options(const cli_common *common, cli_meter *meter);

/* Install a handler, unless whoever started the process has the signal ignored (nohup, `trap ''`):
 * then it stays so. `flags`: as of sigaction. */
void cli_catch(int number, void (*handler)(int), int flags);

/* The number of SIGINT or SIGTERM once one came, else 0. The first call installs the handlers; a
 * second signal ends the process at once. */
atomic_int *cli_stop_flag(void);

#endif
