/* cli_output.c: errors of a command, and the check that its output was written. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli_private.h"
#include "libckpt/error.h"

const char *cli_program_name = "ckpt";
int cli_wants_json;
int cli_pipe_is_ignored;
static int has_document;            /* one was begun on standard output */
static atomic_int stop_signal;      /* 0: none received; any thread may run the handler */

void cli_json_begin(json_writer *w, const char *schema)
{
    has_document = 1;
    json_writer_begin(w, json_write_stdio, stdout, 1);
    w->schema = schema;
}

void cli_json_line(json_writer *w, const char *schema)
{
    has_document = 1;
    json_writer_begin(w, json_write_stdio, stdout, 0);
    w->schema = schema;
}

void cli_json_end(json_writer *w)
{
    json_writer_end(w);
    putchar('\n');
}

/* A program that reads JSON need not read stderr as well. */
static void put_error(const ckpt_error *err)
{
    static const char *const reasons[] = { "fine", "format", "io", "usage", "memory", "inexact",
                                           "interrupted", "different" };
    json_writer w;

    if (!cli_wants_json || has_document)
        return;
    cli_json_begin(&w, "ckpt-error/1");
    json_put_object(&w);
    json_member_string(&w, "error", err->text);
    json_member_string(&w, "reason", reasons[err->code]);
    json_put_object_end(&w);
    cli_json_end(&w);
}

int cli_fail(const ckpt_error *err)
{
    cli_erase_progress();
    put_error(err);
    fprintf(stderr, "%s: %s\n", cli_program_name, err->text);
    return err->code == CKPT_E_DIFFERENT ? CLI_DIFFERENT : CLI_FAILED;
}

/*
 * Terminate as a program that never caught the signal: shells then stop the loop or script we are
 * part of, and see 128 + number. Everything is cleaned up and reported by now.
 */
static void end_by_signal(int number)
{
    sigset_t only;

    fflush(NULL);
    signal(number, SIG_DFL);
    sigemptyset(&only);
    sigaddset(&only, number);
    sigprocmask(SIG_UNBLOCK, &only, NULL);
    raise(number);
}

/* The errno of an earlier failed write is lost, but poll still reports a closed pipe. */
static int reader_is_gone(void)
{
    struct pollfd output = { STDOUT_FILENO, POLLOUT, 0 };

    return poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0;
}

int cli_finish(int status)
{
    int why;

    cli_answer_report();
    cli_erase_progress();
    errno = 0;
    /* The errno of an earlier write is lost; another write most likely fails for the same
     * reason. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && errno == 0 && putchar('\n') != EOF)
        fflush(stdout);
    why = errno;
    if (status == CLI_FAILED && stop_signal != 0)
        end_by_signal(stop_signal);
    if (status == CLI_FAILED || !ferror(stdout))     /* the reason was already printed */
        return status;
    if (why == 0 && reader_is_gone())
        why = EPIPE;
    if (why == EPIPE && !cli_pipe_is_ignored)        /* the parent ignores SIGPIPE, so a message is
                                                      * needed */
        end_by_signal(SIGPIPE);
    fprintf(stderr, "%s: cannot write to standard output: %s\n", cli_program_name,
            why != 0 ? strerror(why) : "an earlier write failed");
    return CLI_FAILED;
}

const char *cli_name(const char *name)
{
    static char lines[CLI_NAMES_AT_ONCE][CKPT_ERROR_BYTES];
    static unsigned next;

    next = (next + 1) % CLI_NAMES_AT_ONCE;
    error_line(lines[next], name);
    return lines[next];
}

void cli_size_text(uint64_t bytes, char out[CLI_SIZE_TEXT_BYTES])
{
    static const char *const units[] = { "kB", "MB", "GB", "TB", "PB", "EB" };
    size_t unit = 0;
    double size;

    if (bytes < 1000) {
        snprintf(out, CLI_SIZE_TEXT_BYTES, "%" PRIu64 " B", bytes);
        return;
    }
    for (size = (double)bytes / 1000; size >= 999.95 && unit + 1 < sizeof units / sizeof *units;
         unit++)
        size /= 1000;
    snprintf(out, CLI_SIZE_TEXT_BYTES, size < 9.995 ? "%.2f %s" : "%.1f %s", size, units[unit]);
}

void cli_time_text(uint64_t seconds, char out[CLI_TIME_TEXT_BYTES])
{
    if (seconds < 3600)
        snprintf(out, CLI_TIME_TEXT_BYTES, "%u:%02u", (unsigned)(seconds / 60),
                 (unsigned)(seconds % 60));
    else if (seconds < 360000)
        snprintf(out, CLI_TIME_TEXT_BYTES, "%u:%02u:%02u", (unsigned)(seconds / 3600),
                 (unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60));
    else
        snprintf(out, CLI_TIME_TEXT_BYTES, "%" PRIu64 " days", seconds / 86400);
}

static void request_stop(int signal_number)
{
    stop_signal = signal_number;
}

void cli_catch(int number, void (*handler)(int), int flags)
{
    struct sigaction action;

    if (sigaction(number, NULL, &action) != 0 || action.sa_handler == SIG_IGN)
        return;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

atomic_int *cli_stop_flag(void)
{
    /* Without SA_RESTART, so that an open that waits for a pipe's other end is interrupted. A
     * second signal kills. */
    cli_catch(SIGINT, request_stop, (int)SA_RESETHAND);
    cli_catch(SIGTERM, request_stop, (int)SA_RESETHAND);
    return &stop_signal;
}

static int is_stopped(void *context)
{
    (void)context;
    return stop_signal != 0;
}

ckpt_run_options cli_run_options(const cli_common *common, cli_meter *meter)
{
    ckpt_run_options run = {
        .thread_count = (unsigned)common->thread_count,
        .memory_bytes = common->memory_bytes,
        .cancel = is_stopped,
        .context = meter,
    };

    cli_stop_flag();
    if (meter != NULL) {
        cli_meter_begin(meter, common, "reading");
        run.progress = cli_progress;
        run.phase = cli_progress_phase;
    }
    return run;
}
