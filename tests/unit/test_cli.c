/* test_cli.c: the option table and what is printed from it. */
#include "tools/cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
    const char *dtype;
    const char *like;
    uint64_t count;
    uint64_t ranks;
    const char *last_arg;
    const char *quantise;
    cli_list includes;
    cli_common common;
} opt;

static const cli_option OPTIONS[] = {
    { CLI_CHOICE, "dtype", "bf16|fp8|keep", &opt.dtype, "element type of plain weights" },
    { CLI_STRING, "like", "PATH", &opt.like, "imitate the encodings of PATH" },
    { CLI_U64, "count", "N", &opt.count, "how many (default 1)" },
    { CLI_COUNT, "ranks", "N", &opt.ranks, "how many ranks" },
    CLI_LAST_ARG(opt.last_arg),
    { CLI_ONCE, "quantize", "RULES", &opt.quantise, "round by these rules" },
    { CLI_ONCE, "quantise", "RULES", &opt.quantise, "the same as --quantize" },
    { CLI_LIST, "include", "GLOB", &opt.includes, "only these; may be repeated" },
    CLI_COMMON(opt.common),
    CLI_OPTIONS_END
};

static const cli_rule RULES[] = {
    { "ranks", "like|include|dtype", NULL },
    { "like", NULL, "quiet|dtype" },
    { NULL, NULL, NULL }
};

static const cli_hint HINTS[] = { { "--force", "use --like" }, { NULL, NULL } };

static const char *word_of_sample(size_t i)
{
    static const char *const words[] = { "first", "second", NULL };

    return words[i];
}

static const cli_words WORDS[] = { { "like", word_of_sample }, { NULL, NULL } };
static const cli_topic ENVIRONMENT[] = { { "SAMPLE_HOME", "Where it is." }, { NULL, NULL } };
static const cli_topic FILES[] = { { "DST.partial", "Unfinished." }, { NULL, NULL } };

static const cli_command COMMAND = {
    .name = "ckpt-sample",
    .summary = "turn one thing into another",
    .usage = "[OPTIONS] SRC DST",
    .description = "Turns SRC into DST.\n\n.A line that looks like a troff request, and a \\.",
    .examples = "ckpt-sample --dtype bf16 a b",
    .options = OPTIONS,
    .rules = RULES,
    .arg_min = 2,
    .arg_max = 2,
    .hints = HINTS,
    .last_arg = &opt.last_arg,
    .words = WORDS,
    .environment = ENVIRONMENT,
    .files = FILES,
    .see_also = "sha256sum(1)",
};

static const cli_command OTHER = {
    .name = "ckpt-other", .summary = "do nothing", .usage = "", .options = OPTIONS,
};

static const cli_command *const SUBCOMMANDS[] = { &COMMAND, &OTHER, NULL };
static const cli_command TOP = {
    .name = "ckpt-top",
    .summary = "hold commands",
    .usage = "COMMAND [OPTIONS] ...",
    .subcommands = SUBCOMMANDS,
};

static char output[2][65536];   /* what the last call wrote to stdout and stderr */
static cli_args args;

static int reset(void **state)
{
    static const cli_common defaults = CLI_COMMON_DEFAULTS;

    (void)state;
    memset(&opt, 0, sizeof opt);
    opt.dtype = "keep";
    opt.count = 1;
    opt.common = defaults;
    memset(output, 0, sizeof output);
    return 0;
}

static int parse_words(const cli_command *command, const char *const *words)
{
    static char *argv[80];
    FILE *files[2];
    int saved[2];
    int argc = 0;
    int status;

    for (; words[argc] != NULL; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc];
    argv[argc] = NULL;
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        files[i] = tmpfile();
        saved[i] = dup(i + 1);
        dup2(fileno(files[i]), i + 1);
    }
    status = cli_parse(command, argc, argv, &args);
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        dup2(saved[i], i + 1);
        close(saved[i]);
        rewind(files[i]);
        output[i][fread(output[i], 1, sizeof output[i] - 1, files[i])] = '\0';
        fclose(files[i]);
    }
    return status;
}

#define PARSE(...) parse_words(&COMMAND, (const char *const[]){ "ckpt-sample", __VA_ARGS__, NULL })
#define PARSE_TOP(...) parse_words(&TOP, (const char *const[]){ "ckpt-top", __VA_ARGS__, NULL })

static void assert_refused(int status, const char *text)
{
    assert_int_equal(status, CLI_FAILED);
    assert_string_equal(output[0], "");
    assert_non_null(strstr(output[1], text));
    /* One line, and it says who speaks. */
    assert_true(strchr(output[1], '\n') == output[1] + strlen(output[1]) - 1);
    assert_int_equal(strncmp(output[1], "ckpt-", 5), 0);
}

static void test_both_forms_of_a_value_are_read(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--dtype", "bf16", "--memory=256MiB", "--count=7", "a", "b"), CLI_GO);
    assert_string_equal(opt.dtype, "bf16");
    assert_int_equal(opt.common.memory_bytes, 256 << 20);
    assert_int_equal(opt.count, 7);
}

static void test_defaults_stay_when_an_option_is_absent(void **state)
{
    (void)state;
    assert_int_equal(PARSE("a", "b"), CLI_GO);
    assert_string_equal(opt.dtype, "keep");
    assert_null(opt.like);
    assert_int_equal(opt.common.memory_bytes, 1 << 30);
    assert_int_equal(opt.common.json, 0);
}

static void test_options_may_follow_arguments(void **state)
{
    (void)state;
    assert_int_equal(PARSE("a", "--json", "b", "--quiet"), CLI_GO);
    assert_int_equal(args.count, 2);
    assert_string_equal(args.items[0], "a");
    assert_string_equal(args.items[1], "b");
    assert_int_equal(opt.common.json, 1);
    assert_int_equal(opt.common.quiet, 1);
}

static void test_two_dashes_end_the_options(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--", "--json", "-"), CLI_GO);
    assert_string_equal(args.items[0], "--json");
    assert_int_equal(opt.common.json, 0);
}

static void test_a_single_dash_is_an_argument(void **state)
{
    (void)state;
    assert_int_equal(PARSE("-", "b"), CLI_GO);
    assert_string_equal(args.items[0], "-");
}

static void test_an_empty_value_is_refused(void **state)
{
    (void)state;
    assert_refused(PARSE("--like=", "a", "b"), "'--like'");
    assert_refused(PARSE("--like", "", "a", "b"), ", got ''");
    assert_refused(PARSE("--include", "", "a", "b"), "'--include'");
    assert_null(opt.like);
    assert_int_equal(opt.includes.count, 0);
}

static void test_a_list_collects_in_order(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--include", "x", "a", "--include=y", "b"), CLI_GO);
    assert_int_equal(opt.includes.count, 2);
    assert_string_equal(opt.includes.items[0], "x");
    assert_string_equal(opt.includes.items[1], "y");
}

static void test_a_full_list_refuses_one_more(void **state)
{
    const char *words[CLI_LIST_MAX + 3] = { "ckpt-sample" };

    (void)state;
    for (int i = 1; i <= CLI_LIST_MAX + 1; i++)
        words[i] = "--include=x";
    assert_refused(parse_words(&COMMAND, words), "more than 64 times");
    assert_int_equal(opt.includes.count, CLI_LIST_MAX);
}

static void test_the_last_of_a_repeated_option_holds(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--count=1", "--count=2", "a", "b"), CLI_GO);
    assert_int_equal(opt.count, 2);
}

static void test_an_option_that_is_given_once_is_not_given_twice(void **state)
{
    (void)state;
    assert_refused(PARSE("--quantize=x", "--quantise", "y", "a", "b"),
                   "--quantise is given twice, as 'x' and 'y'");
    assert_refused(PARSE("--quantize=x", "--quantize=x", "a", "b"), "is given twice");
}

static void test_unknown_options_are_refused_with_the_one_that_was_meant(void **state)
{
    (void)state;
    assert_refused(PARSE("--dtypes", "bf16", "a", "b"),
                   "unknown option '--dtypes'; did you mean '--dtype'?");
    assert_refused(PARSE("--dtpye=bf16", "a", "b"), "did you mean '--dtype'?");
    assert_refused(PARSE("--dry_run", "a", "b"), "did you mean '--dry-run'?");
    assert_refused(PARSE("--versoin", "a", "b"), "did you mean '--version'?");
    assert_refused(PARSE("--nothing-near", "a", "b"), "unknown option '--nothing-near'; see");
    assert_refused(PARSE("-x", "a", "b"), "unknown option '-x'; see");
    assert_refused(PARSE("--force", "a", "b"), "unknown option '--force': use --like");
    assert_refused(PARSE("--=", "a", "b"), "unknown option '--='");
    assert_refused(PARSE("--help=html", "a", "b"), "unknown option '--help=html'");
}

static void test_options_may_be_abbreviated_where_only_one_begins_so(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--dty", "bf16", "--mem=1k", "a", "b"), CLI_GO);
    assert_string_equal(opt.dtype, "bf16");
    assert_int_equal(opt.common.memory_bytes, 1000);
    assert_refused(PARSE("--d", "bf16", "a", "b"),
                   "option '--d' is ambiguous: --dtype or --dry-run");
    assert_int_equal(PARSE("--progress", "never", "a", "b"), CLI_GO);   /* --progress-interval */
    assert_int_equal(PARSE("--quanti", "x", "a", "b"), CLI_GO);         /* two spellings of one */
    assert_string_equal(opt.quantise, "x");
}

static void test_letters_stand_for_options(void **state)
{
    (void)state;
    assert_int_equal(PARSE("-q", "-j4", "a", "b"), CLI_GO);
    assert_int_equal(opt.common.quiet, 1);
    assert_int_equal(opt.common.thread_count, 4);
    assert_int_equal(PARSE("-vj", "3", "a", "b"), CLI_GO);
    assert_int_equal(opt.common.verbose, 1);
    assert_int_equal(opt.common.thread_count, 3);
    assert_refused(PARSE("a", "b", "-j"), "option '--threads' needs a value: N");
    assert_refused(PARSE("-qx", "a", "b"), "unknown option '-qx'");
}

static void test_out_is_the_last_argument(void **state)
{
    (void)state;
    assert_int_equal(PARSE("-o", "b", "a"), CLI_GO);
    assert_int_equal(args.count, 2);
    assert_string_equal(args.items[0], "a");
    assert_string_equal(args.items[1], "b");
    assert_int_equal(PARSE("a", "--out=b"), CLI_GO);
    assert_string_equal(args.items[1], "b");
    assert_refused(PARSE("a", "b", "--out", "c"), "too many arguments");
}

static void test_variables_stand_for_options_that_are_not_given(void **state)
{
    (void)state;
    setenv("CKPT_THREADS", "7", 1);
    setenv("CKPT_MEMORY", "2M", 1);
    assert_int_equal(PARSE("a", "b"), CLI_GO);
    assert_int_equal(opt.common.thread_count, 7);
    assert_int_equal(opt.common.memory_bytes, 2000000);
    assert_int_equal(PARSE("-j", "2", "a", "b"), CLI_GO);
    assert_int_equal(opt.common.thread_count, 2);
    setenv("CKPT_THREADS", "many", 1);
    assert_refused(PARSE("a", "b"), "bad value for CKPT_THREADS: expected a whole number");
    setenv("CKPT_THREADS", "", 1);
    unsetenv("CKPT_MEMORY");
    assert_int_equal(PARSE("a", "b"), CLI_GO);
    unsetenv("CKPT_THREADS");
}

static void test_a_missing_value_is_refused(void **state)
{
    (void)state;
    assert_refused(PARSE("a", "b", "--like"), "option '--like' needs a value: PATH");
    assert_refused(PARSE("--like", "--quiet", "a", "b"), "option '--like' needs a value");
}

static void test_a_flag_takes_no_value(void **state)
{
    (void)state;
    assert_refused(PARSE("--json=yes", "a", "b"), "'--json' takes no value, got 'yes'");
}

static void test_a_word_outside_the_choice_is_refused(void **state)
{
    (void)state;
    assert_refused(PARSE("--dtype", "fp", "a", "b"), "expected bf16|fp8|keep, got 'fp'");
    assert_refused(PARSE("--dtype", "bf61", "a", "b"), "got 'bf61'; did you mean 'bf16'?");
    assert_refused(PARSE("--dtype", "", "a", "b"), "got ''");
    assert_refused(PARSE("--dtype", "bf16|fp8", "a", "b"), "got 'bf16|fp8'");
}

static void test_argument_counts_are_checked(void **state)
{
    (void)state;
    assert_refused(PARSE("a"), "too few arguments: expected '[OPTIONS] SRC DST', got 1");
    assert_refused(PARSE("a", "b", "c"), "too many arguments");
}

static void test_messages_stay_on_one_line(void **state)
{
    (void)state;
    assert_refused(PARSE("--a\nb\033[2J", "a", "b"), "unknown option");
    assert_null(strchr(output[1], '\033'));
}

static void test_an_option_that_needs_another_is_refused_without_it(void **state)
{
    (void)state;
    assert_refused(PARSE("--ranks", "1", "a", "b"),
                   "--ranks needs --like, --include or --dtype; see --help");
    assert_int_equal(PARSE("--ranks", "1", "--like", "x", "a", "b"), CLI_GO);
    assert_int_equal(PARSE("--dtype", "keep", "--ranks", "1", "a", "b"), CLI_GO);
}

static void test_options_that_exclude_each_other_are_refused_in_any_order(void **state)
{
    (void)state;
    assert_refused(PARSE("--like", "x", "--dtype", "keep", "a", "b"), "--like and --dtype exclude");
    assert_refused(PARSE("--quiet", "--like", "x", "a", "b"), "--like and --quiet exclude");
    assert_int_equal(PARSE("--like", "x", "a", "b"), CLI_GO);
}

static void test_a_count_is_at_least_1(void **state)
{
    (void)state;
    assert_refused(PARSE("--ranks", "0", "a", "b"), "expected at least 1, got '0'");
    assert_int_equal(PARSE("--ranks=2", "--like=x", "a", "b"), CLI_GO);
    assert_int_equal(opt.ranks, 2);
}

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        { "0", 0 }, { "4096", 4096 }, { "7B", 7 }, { "1kB", 1000 }, { "1KB", 1000 },
        { "1KiB", 1024 }, { "256MiB", 256 << 20 }, { "10GB", UINT64_C(10000000000) },
        { "1GiB", 1 << 30 }, { "3TiB", UINT64_C(3) << 40 }, { "2PB", UINT64_C(2000000000000000) },
        { "16383PiB", UINT64_C(16383) << 50 }, { "18446744073709551615", UINT64_MAX },
        { "2M", 2000000 }, { "1G", 1000000000 }, { "1Gi", 1 << 30 },
        { "4gb", UINT64_C(4000000000) },
        { "1gib", 1 << 30 }, { "1.5G", 1500000000 }, { "1.5GiB", UINT64_C(3) << 29 },
        { "0.25k", 250 }, { "1.0005kB", 1000 }, { "0.1KiB", 102 },
        { "1.000000000000000000000000001k", 1000 },
    };
    static const char *const bad[] = {
        "", "B", "GiB", "-1", "+1", " 1", "1 ", "1 GiB", "0x10", "1iB", "1GiBs", "1EiB", "1e9",
        "16384PiB", "18446744073709551616", "000000000000000000000000001", "1.5", "1.5B", "1.k",
        ".5k", "1..5k", "1,5G", "18446744073709551.616k", "50%",
    };
    uint64_t bytes;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(cli_parse_size(good[i].text, &bytes), 1);
        assert_true(bytes == good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(cli_parse_size(bad[i], &bytes), 0);
    assert_refused(PARSE("--memory", "1X", "a", "b"), "got '1X'");
}

static void test_memory_may_be_a_part_of_the_machine(void **state)
{
    static const char *const bad[] = { "0%", "101%", "%", "1.5%", "50 %", "-1%", "100000000%" };
    uint64_t all;
    uint64_t half;

    (void)state;
    assert_int_equal(cli_parse_memory("100%", &all), 1);
    assert_int_equal(cli_parse_memory("50%", &half), 1);
    assert_true(half > (1 << 20) && half / 50 == all / 100);
    assert_int_equal(cli_parse_memory("1k", &all), 1);
    assert_int_equal(all, 1000);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(cli_parse_memory(bad[i], &all), 0);
    assert_refused(PARSE("--memory", "101%", "a", "b"), "machine's memory like 50%, got '101%'");
}

static void test_numbers(void **state)
{
    static const char *const bad[] = { "", "-1", "+1", "1 ", "0x1", "1e3", "18446744073709551616" };
    uint64_t number;

    (void)state;
    assert_int_equal(cli_parse_u64("18446744073709551615", &number), 1);
    assert_true(number == UINT64_MAX);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(cli_parse_u64(bad[i], &number), 0);
    assert_refused(PARSE("--threads", "many", "a", "b"),
                   "expected a whole number of 0 or more, got 'many'");
}

static void test_human_sizes_have_decimal_units(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } samples[] = {
        { 0, "0 B" }, { 999, "999 B" }, { 1000, "1.00 kB" }, { 9994, "9.99 kB" },
        { 9995, "10.0 kB" }, { 999949, "999.9 kB" }, { 999950, "1.00 MB" },
        { UINT64_C(159600000000), "159.6 GB" }, { UINT64_MAX, "18.4 EB" },
    };
    char text[CLI_SIZE_TEXT_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        cli_size_text(samples[i].bytes, text);
        assert_string_equal(text, samples[i].text);
    }
}

static void test_help_names_every_option(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--help"), CLI_DONE);
    assert_string_equal(output[1], "");
    for (const cli_option *o = OPTIONS; o->kind != CLI_END; o++)
        assert_non_null(strstr(output[0], o->kind == CLI_HEADING ? o->help : o->name));
    assert_non_null(strstr(output[0], "ckpt-sample --dtype bf16 a b"));
    assert_non_null(strstr(output[0], "--dtype bf16|fp8|keep"));
    for (const char *line = output[0]; *line != '\0'; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= 80);
}

static void test_man_page_escapes_troff(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--help=man"), CLI_DONE);
    assert_int_equal(strncmp(output[0], ".TH \"ckpt-sample\" 1", 19), 0);
    assert_non_null(strstr(output[0], "\n\\&.A line that looks like"));
    assert_non_null(strstr(output[0], "and a \\e."));
    assert_non_null(strstr(output[0], "\\fB\\-\\-dry\\-run\\fR"));
}

static void test_man_page_has_environment_files_and_other_pages(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--help=man"), CLI_DONE);
    assert_non_null(strstr(output[0], "\n.SH ENVIRONMENT\n.TP\n.B CKPT_THREADS\n"));
    assert_non_null(strstr(output[0], "\n.B SAMPLE_HOME\nWhere it is.\n.SH FILES\n"));
    assert_non_null(strstr(output[0], "\n.SH SEE ALSO\n.BR sha256sum (1),\n.BR ckpt (7)\n"));
}

static void test_man_page_prints_equal_groups_of_options_once(void **state)
{
    const char *first;

    (void)state;
    assert_int_equal(PARSE_TOP("--help=man"), CLI_DONE);
    first = strstr(output[0], "\\-\\-threads\\fR");
    assert_non_null(first);
    assert_null(strstr(first + 1, "\\-\\-threads\\fR"));
    assert_non_null(strstr(first, ".SS Common options\nThe same as of\n.BR ckpt-sample .\n"));
}

static void test_completions_offer_the_words_of_a_choice_and_of_a_table(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--help=bash"), CLI_DONE);
    assert_non_null(strstr(output[0], ":--dtype) COMPREPLY=($(compgen -W 'bf16 fp8 keep'"));
    assert_non_null(strstr(output[0], ":--like) COMPREPLY=($(compgen -W 'first second'"));
    assert_non_null(strstr(output[0], "complete -o default -F _ckpt_sample ckpt-sample"));
    assert_int_equal(PARSE("--help=zsh"), CLI_DONE);
    assert_int_equal(strncmp(output[0], "#compdef ckpt-sample\n", 21), 0);
    assert_non_null(strstr(output[0], "--dtype='[element type of plain weights]:dtype:(bf16 fp8 "
                                      "keep)'"));
    assert_non_null(strstr(output[0], "'*'--include='[only these]:include: '"));
    assert_int_equal(PARSE("--help=fish"), CLI_DONE);
    assert_non_null(strstr(output[0], "complete -c ckpt-sample -l like -x -a 'first second' -d "
                                      "'imitate the encodings of PATH'\n"));
    assert_non_null(strstr(output[0], " -s j -l threads -x -d 'worker threads'\n"));
}

static void test_version(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--version"), CLI_DONE);
    assert_string_equal(output[0], "ckpt-sample " CKPT_VERSION "\n");
}

static void test_subcommands_are_chosen_by_the_first_word(void **state)
{
    (void)state;
    assert_int_equal(PARSE_TOP("ckpt-sample", "a", "--json", "b"), CLI_GO);
    assert_ptr_equal(args.command, &COMMAND);
    assert_string_equal(args.items[1], "b");
    assert_int_equal(PARSE_TOP("--help"), CLI_DONE);
    assert_non_null(strstr(output[0], "turn one thing into another"));
    assert_int_equal(PARSE_TOP("ckpt-sample", "--help"), CLI_DONE);
    assert_non_null(strstr(output[0], "Usage: ckpt-top ckpt-sample [OPTIONS] SRC DST"));
    assert_int_equal(PARSE_TOP("--version"), CLI_DONE);
    assert_string_equal(output[0], "ckpt-top " CKPT_VERSION "\n");
    assert_refused(PARSE_TOP("nothing"), "unknown command 'nothing': expected COMMAND; see");
    assert_refused(PARSE_TOP("ckpt-smaple", "a"), "did you mean 'ckpt-sample'?");
    assert_int_equal(PARSE_TOP("ckpt-s", "a", "b"), CLI_GO);
    assert_refused(PARSE_TOP("ckpt-", "a", "b"),
                   "command 'ckpt-' is ambiguous: ckpt-sample or ckpt-other");
    assert_int_equal(PARSE_TOP("--json", "ckpt-sample", "a", "b"), CLI_GO);
    assert_int_equal(opt.common.json, 1);
    assert_string_equal(args.items[0], "a");
    assert_refused(PARSE_TOP("--nothing"), "unknown option '--nothing'");
    assert_refused(parse_words(&TOP, (const char *const[]){ "ckpt-top", NULL }),
                   "expected a command");
}

/* How a child ends that has much to say and whose stdout is `fd`: its exit status, or minus the
 * signal; with_signal: one that it caught before. */
static int status_of_child(int fd, int status, int with_signal)
{
    int result;
    const pid_t child = fork();

    if (child == 0) {
        PARSE("a", "b");
        cli_stop_flag();
        if (with_signal != 0)
            raise(with_signal);
        dup2(fd, STDOUT_FILENO);
        close(STDERR_FILENO);
        for (int i = 0; i < 100000; i++)    /* more than the buffer: an early write fails */
            putchar('x');
        _exit(cli_finish(status));
    }
    assert_int_equal(waitpid(child, &result, 0), child);
    return WIFSIGNALED(result) ? -WTERMSIG(result) : WEXITSTATUS(result);
}

static void test_lost_output_is_not_success(void **state)
{
    int ends[2];
    int full;
    int sink;

    (void)state;
    fflush(stdout);
    signal(SIGPIPE, SIG_DFL);              /* earlier command lines of this process ignored it */
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    assert_int_equal(status_of_child(ends[1], CLI_DONE, 0), -SIGPIPE);
    assert_int_equal(status_of_child(ends[1], CLI_FAILED, 0), CLI_FAILED);
    signal(SIGPIPE, SIG_IGN);              /* inherited by the next child */
    assert_int_equal(status_of_child(ends[1], CLI_DONE, 0), CLI_FAILED);
    signal(SIGPIPE, SIG_DFL);
    close(ends[1]);
    full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_int_equal(status_of_child(full, CLI_DONE, 0), CLI_FAILED);
    close(full);
    sink = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_int_equal(status_of_child(sink, CLI_DONE, 0), CLI_DONE);
    assert_int_equal(status_of_child(sink, CLI_DIFFERENT, 0), CLI_DIFFERENT);
    close(sink);
}

static void test_a_failure_after_a_signal_ends_by_it(void **state)
{
    const int sink = open("/dev/null", O_WRONLY | O_CLOEXEC);

    (void)state;
    assert_int_equal(status_of_child(sink, CLI_FAILED, SIGINT), -SIGINT);
    assert_int_equal(status_of_child(sink, CLI_FAILED, SIGTERM), -SIGTERM);
    assert_int_equal(status_of_child(sink, CLI_DONE, SIGTERM), CLI_DONE);     /* it came late */
    close(sink);
}

static void test_a_signal_sets_the_stop_flag(void **state)
{
    atomic_int *stop = cli_stop_flag();

    (void)state;
    assert_int_equal(*stop, 0);
    raise(SIGTERM);
    assert_int_not_equal(*stop, 0);
    *stop = 0;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}

static void test_no_progress_without_a_terminal(void **state)
{
    cli_meter meter;
    FILE *file = tmpfile();
    const int saved = dup(STDERR_FILENO);

    (void)state;
    dup2(fileno(file), STDERR_FILENO);
    cli_meter_begin(&meter, &opt.common, "reading");
    for (uint64_t i = 0; i < 1000; i++)
        cli_progress(&meter, i, 1000);
    cli_meter_end(&meter);
    dup2(saved, STDERR_FILENO);
    close(saved);
    fseeko(file, 0, SEEK_END);
    assert_int_equal(ftello(file), 0);
    fclose(file);
}

int main(void)
{
    /* A shell starts what runs in its background with these ignored, and the tools keep that. */
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_both_forms_of_a_value_are_read, reset),
        cmocka_unit_test_setup(test_defaults_stay_when_an_option_is_absent, reset),
        cmocka_unit_test_setup(test_options_may_follow_arguments, reset),
        cmocka_unit_test_setup(test_two_dashes_end_the_options, reset),
        cmocka_unit_test_setup(test_a_single_dash_is_an_argument, reset),
        cmocka_unit_test_setup(test_an_empty_value_is_refused, reset),
        cmocka_unit_test_setup(test_a_list_collects_in_order, reset),
        cmocka_unit_test_setup(test_a_full_list_refuses_one_more, reset),
        cmocka_unit_test_setup(test_the_last_of_a_repeated_option_holds, reset),
        cmocka_unit_test_setup(test_an_option_that_is_given_once_is_not_given_twice, reset),
        cmocka_unit_test_setup(test_unknown_options_are_refused_with_the_one_that_was_meant, reset),
        cmocka_unit_test_setup(test_options_may_be_abbreviated_where_only_one_begins_so, reset),
        cmocka_unit_test_setup(test_letters_stand_for_options, reset),
        cmocka_unit_test_setup(test_out_is_the_last_argument, reset),
        cmocka_unit_test_setup(test_variables_stand_for_options_that_are_not_given, reset),
        cmocka_unit_test_setup(test_a_missing_value_is_refused, reset),
        cmocka_unit_test_setup(test_a_flag_takes_no_value, reset),
        cmocka_unit_test_setup(test_a_word_outside_the_choice_is_refused, reset),
        cmocka_unit_test_setup(test_argument_counts_are_checked, reset),
        cmocka_unit_test_setup(test_messages_stay_on_one_line, reset),
        cmocka_unit_test_setup(test_an_option_that_needs_another_is_refused_without_it, reset),
        cmocka_unit_test_setup(test_options_that_exclude_each_other_are_refused_in_any_order,
                               reset),
        cmocka_unit_test_setup(test_a_count_is_at_least_1, reset),
        cmocka_unit_test_setup(test_sizes, reset),
        cmocka_unit_test_setup(test_memory_may_be_a_part_of_the_machine, reset),
        cmocka_unit_test_setup(test_numbers, reset),
        cmocka_unit_test_setup(test_human_sizes_have_decimal_units, reset),
        cmocka_unit_test_setup(test_help_names_every_option, reset),
        cmocka_unit_test_setup(test_man_page_escapes_troff, reset),
        cmocka_unit_test_setup(test_man_page_has_environment_files_and_other_pages, reset),
        cmocka_unit_test_setup(test_man_page_prints_equal_groups_of_options_once, reset),
        cmocka_unit_test_setup(test_completions_offer_the_words_of_a_choice_and_of_a_table,
                               reset),
        cmocka_unit_test_setup(test_version, reset),
        cmocka_unit_test_setup(test_subcommands_are_chosen_by_the_first_word, reset),
        cmocka_unit_test_setup(test_lost_output_is_not_success, reset),
        cmocka_unit_test_setup(test_a_failure_after_a_signal_ends_by_it, reset),
        cmocka_unit_test_setup(test_a_signal_sets_the_stop_flag, reset),
        cmocka_unit_test_setup(test_no_progress_without_a_terminal, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
