/*
 * cli.h: common to all commands: one option table for parsing, help, man page and completion
 * scripts; errors; progress; signals; a checked standard output.
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

#include "libckpt/ckpt.h"
#include "libckpt/json.h"

enum { CLI_DONE = 0, CLI_DIFFERENT = 1, CLI_FAILED = 2, CLI_GO = -1 };
enum { CLI_LIST_MAX = 64, CLI_OPTIONS_MAX = 128, CLI_ANY_ARGS = 1 << 20, CLI_SIZE_TEXT_BYTES = 16,
       CLI_TIME_TEXT_BYTES = 32,
       CLI_THREADS_MAX = 1024, CLI_NAMES_AT_ONCE = 4 };

/* ---- options ---- */

typedef enum {
    CLI_END,
    CLI_HEADING,   /* starts a group of options in the help; `help` is the title */
    CLI_FLAG,      /* target: int, becomes 1 */
    CLI_STRING,    /* target: const char *, borrowed from argv */
    CLI_ONCE,      /* the same, but a second value is refused: each adds to the work */
    CLI_SIZE,      /* target: uint64_t, bytes: see cli_parse_size; not 0 */
    CLI_MEMORY,    /* the same, and 50%: of the memory that the process may use */
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
    const char *value;   /* name of the value in the help; NULL for a flag */
    void *target;        /* written only when the option is given; preset it with the default */
    const char *help;    /* one sentence without a full stop, with "(default ...)" */
} cli_option;

typedef struct {
    const char *items[CLI_LIST_MAX];   /* borrowed from argv */
    size_t count;
} cli_list;

/* What an option requires of others, so that no option is accepted and then ignored. */
typedef struct {
    const char *option;
    const char *needs;       /* "out|json": one of these must also be given; NULL: no requirement */
    const char *excludes;    /* "tp|pp": none of these may be given; NULL: no restriction */
} cli_rule;

/* The last entry of every table. */
#define CLI_OPTIONS_END { CLI_END, NULL, NULL, NULL, NULL }

/* The options that every command has. Start from CLI_COMMON_DEFAULTS. */
typedef struct {
    int json;
    int quiet;
    int verbose;
    int dry_run;
    uint64_t thread_count;   /* 0: one per core */
    uint64_t memory_bytes;
    const char *progress;    /* "auto", "always", "never" */
    uint64_t progress_seconds;
} cli_common;

#define CLI_COMMON_DEFAULTS \
    { .memory_bytes = UINT64_C(1) << 30, .progress = "auto", .progress_seconds = 30 }
/* A row for an option that replaces the last argument. */
#define CLI_LAST_ARG(target)                                                                   \
    { CLI_STRING, "out", "PATH", &(target), "the same as the last argument" }

/* The table rows for a cli_common; read-only commands, which have no --dry-run, use
 * CLI_COMMON_READ. */
#define CLI_COMMON_READ(common)                                                                \
    { CLI_HEADING, NULL, NULL, NULL, "Common options" },                                       \
    { CLI_FLAG, "json", NULL, &(common).json, "print one JSON document instead of text" },     \
    { CLI_FLAG, "quiet", NULL, &(common).quiet,                                                \
      "nothing on stderr but errors (results are still printed)" },                            \
    { CLI_FLAG, "verbose", NULL, &(common).verbose, "print on stderr which phase begins" },    \
    { CLI_CHOICE, "progress", "auto|always|never", &(common).progress,                         \
      "auto: one line on a terminal, which is erased at the end; in a log a line every 30 s. " \
      "always: as on a terminal. SIGUSR1 prints the state at any time (default auto)" },       \
    { CLI_COUNT, "progress-interval", "SECONDS", &(common).progress_seconds,                   \
      "between two lines in a log (default 30)" },                                             \
    { CLI_THREADS, "threads", "N", &(common).thread_count,                                     \
      "worker threads (default: CKPT_THREADS, else one per core that affinity and cgroup "     \
      "allow)" },                                                                              \
    { CLI_MEMORY, "memory", "SIZE", &(common).memory_bytes,                                    \
      "hard limit on buffers of this process, as 500M, 1.5G, 4GiB or 50% (default: "           \
      "CKPT_MEMORY, else 1GiB)" }
#define CLI_DRY_RUN_TEXT                                                                     \
    "print the plan and write nothing, no reports either; fails where the command would fail " \
    "before its first byte"
#define CLI_COMMON(common)   \
    CLI_COMMON_READ(common), \
    { CLI_FLAG, "dry-run", NULL, &(common).dry_run, CLI_DRY_RUN_TEXT }
/* Of commands whose plan has a time_guess. */
#define CLI_COMMON_TIMED(common)                                                             \
    CLI_COMMON_READ(common),                                                                 \
    { CLI_FLAG, "dry-run", NULL, &(common).dry_run,                                          \
      CLI_DRY_RUN_TEXT "; of tensor data at most a sample of 32 MiB of a local input is read, " \
      "from which the time is guessed" }

/* A hint for a command, an option or one of the words of an option that only other programs have;
 * options with their dashes. */
typedef struct {
    const char *word;        /* "diff", "--resume-download", "bfloat16" */
    const char *hint;        /* "it is called compare", "downloads always resume" */
} cli_hint;

/* The words that an option takes, where its kind does not list them: offered by completion. */
typedef struct {
    const char *option;
    const char *(*word)(size_t i);   /* NULL behind the last one */
} cli_words;

/* An environment variable or a file, and what it is for: printed in the man page. */
typedef struct {
    const char *name;
    const char *text;
} cli_topic;

/* The date of the generated man pages: that of the release, or of the last change of an option. */
#define CLI_PAGE_DATE "2026-11-30"

typedef struct cli_command {
    const char *name;            /* "ckpt-convert"; for a subcommand: "digest" */
    const char *summary;         /* "convert the encoding of a checkpoint" */
    const char *usage;           /* what follows the name: "[OPTIONS] SRC DST" */
    const char *description;     /* paragraphs, an empty line between them; NULL: none */
    const char *exit_notes;      /* one line per status; NULL: 0 done, 1 different, 2 failed */
    const char *examples;        /* one line each; NULL: none */
    const cli_option *options;   /* NULL with subcommands */
    const cli_rule *rules;       /* ends with a NULL option; NULL: none */
    int checks_more;             /* it is also called with is_check: checks its options only */
    const cli_hint *hints;       /* ends with a NULL word; NULL: none */
    const char **last_arg;       /* target of the option that is the last argument; or NULL */
    unsigned arg_min;            /* arguments that are not options */
    unsigned arg_max;            /* CLI_ANY_ARGS: no limit */
    const char *surplus;         /* what to do instead of giving more arguments; NULL: --help */
    const struct cli_command *const *subcommands;   /* ends with NULL; or NULL */
    const cli_words *words;      /* ends with a NULL option; NULL: none */
    const cli_topic *environment;   /* ends with a NULL name; NULL: none but CKPT_THREADS ... */
    const cli_topic *files;         /* the same */
    const char *see_also;        /* pages beside ckpt(7): "sha256sum(1) ckpt-digest(7)"; or NULL */
} cli_command;

typedef struct {
    const cli_command *command;   /* the subcommand, where the command has some */
    char **items;                 /* borrowed from argv, which is reordered */
    unsigned count;
    int is_check;                 /* only check the options */
    int checks_places;            /* and the output paths */
} cli_args;

/*
 * As the first argument: check the options and exit; the status says whether they are accepted.
 * For programs that will run the command later (ckpt-download --then).
 */
#define CLI_CHECK_OPTIONS "--check-options"
/* The same, and also refuse output paths; for callers that will not change the files until then. */
#define CLI_CHECK_PLACES "--check-places"

/*
 * Read the command line. Returns CLI_GO and fills *args, or the status to exit with: help, version
 * or a one-line error was printed. `--name value`, `--name=value`, `-n value`, `-nvalue`; `--` ends
 * the options; a name may be abbreviated where only one option begins so; if an option is repeated,
 * the last one wins, except of CLI_ONCE. CKPT_THREADS and CKPT_MEMORY stand for --threads and
 * --memory.
 */
int cli_parse(const cli_command *command, int argc, char **argv, cli_args *args);

/* The only grammar of sizes: "4096", "2M", "1.5G", "10GB", "4GiB": k, M, G, T, P of 1000, with i of
 * 1024, in any case; B may be there. Returns 0 if the text is not a size. */
int cli_parse_size(const char *text, uint64_t *out);
/* The same, and "50%" of machine_memory_bytes. */
int cli_parse_memory(const char *text, uint64_t *out);
/* Decimal digits only. 0 when it is anything else or too large. */
int cli_parse_u64(const char *text, uint64_t *out);
/* "0.5", "1e-6": finite, of 0 or more. 0 when it is anything else. */
int cli_parse_number(const char *text, double *out);

/* ---- help, from the same table ---- */

typedef enum {
    CLI_HELP_TEXT, CLI_HELP_MAN, CLI_HELP_BASH, CLI_HELP_ZSH, CLI_HELP_FISH
} cli_help_form;

/* `parent` is the command above a subcommand, or NULL. */
void cli_print_help(const cli_command *parent, const cli_command *command, cli_help_form form);

/* ---- output ---- */

/* Fail if the path of a file is that of a folder, as when arguments are swapped: "'x' is a folder:
 * expected ...". */
ckpt_code cli_refuse_folder(const char *path, const char *expected, ckpt_error *err);

/* Print "ckpt-x: text" on stderr and, with --json, {"error": text} on stdout, unless a document was
 * begun there. Returns the exit status: 1 for CKPT_E_DIFFERENT, else 2. */
int cli_fail(const ckpt_error *err);

/* Begin a JSON document on standard output, an object with the member `schema` first. Closed by
 * cli_json_end. */
void cli_json_begin(json_writer *w, const char *schema);
void cli_json_end(json_writer *w);
/* The same for --jsonl: one object in a line. */
void cli_json_line(json_writer *w, const char *schema);

/*
 * The last call of main: flush standard output. Returns `status`, or 2 when not all of the output
 * could be written. Like other Unix tools, it does not return if the reader of a pipe has gone
 * away (SIGPIPE), or after a failure once SIGINT or SIGTERM was received: the process terminates
 * by that signal.
 */
int cli_finish(int status);

/* Restore the signals that cli_parse ignores, before another program is executed. */
void cli_restore_signals(void);

/* A name as it can be printed: on one line, control characters escaped. Valid for
 * CLI_NAMES_AT_ONCE further calls. */
const char *cli_name(const char *name);

/* "999 B", "1.50 kB", "159.6 GB": decimal units, as published file sizes. */
void cli_size_text(uint64_t bytes, char out[CLI_SIZE_TEXT_BYTES]);
/* "0:05", "12:34", "1:02:03", "5 days" */
void cli_time_text(uint64_t seconds, char out[CLI_TIME_TEXT_BYTES]);

/*
 * Progress: on a terminal one line, redrawn; in a log a line at intervals; the state on SIGUSR1. A
 * separate thread draws it, so that it is updated while the work waits for a disk.
 */
typedef struct {
    atomic_uint_least64_t done_bytes;      /* of the phase */
    atomic_uint_least64_t total_bytes;
} cli_meter;

/* `phase` is the name of the first phase: "reading". */
void cli_meter_begin(cli_meter *meter, const cli_common *common, const char *phase);
/* A progress callback; context is the cli_meter. Any thread may call it, as often as it likes. */
void cli_progress(void *context, uint64_t done_bytes, uint64_t total_bytes);
/* A phase callback: see ckpt_run_options. `phase` outlives the meter. */
void cli_progress_phase(void *context, const char *phase, uint64_t later_bytes);
/* Show this text as the state, for work that is not counted in bytes. */
void cli_progress_text(const char *text);
/* Print "ckpt-x: text" on stderr, beside the line. */
void cli_say(const char *text);
/* Erase the line. cli_fail and cli_finish also do this. */
void cli_meter_end(cli_meter *meter);

/* What a command has written. */
typedef struct {
    const char *path;
    const char *stream;        /* what went to standard output, instead of `path`; or NULL */
    uint64_t tensor_count;     /* 0: not printed */
    const char *detail;        /* more about it: "48 files"; or NULL */
    uint64_t bytes;
    const char *root;          /* value root; or NULL */
    size_t note_count;
} cli_written;

/* Print the closing line of a command that writes, on stderr: what, where, bytes, time and rate.
 * Nothing with --quiet. */
void cli_say_written(const cli_common *common, const cli_written *what);

/* Settings of a loop over tensors: the common options, progress on `meter` (started here; NULL:
 * none), cancelled by SIGINT or SIGTERM. */
ckpt_run_options cli_run_options(const cli_common *common, cli_meter *meter);

/* Install a handler, unless the signal was ignored when the process started (nohup, `trap ''`):
 * then it stays ignored. `flags`: as for sigaction. */
void cli_catch(int number, void (*handler)(int), int flags);

/* The number of SIGINT or SIGTERM once received, else 0. The first call installs the handlers; a
 * second signal kills the process at once. */
atomic_int *cli_stop_flag(void);

#endif
