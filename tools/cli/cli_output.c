/* cli_output.c: errors and progress of a command, and the check that its output was written. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli_private.h"
#include "libckpt/error.h"

static const uint64_t SECOND_NS = 1000000000;
static const uint64_t REDRAW_NS = 200000000;   /* five updates a second are enough for the eye */

const char *cli_program_name = "ckpt";
int cli_pipe_is_ignored;
static cli_meter *active_meter;
static atomic_int stop_signal;      /* 0: none received; any thread may run the handler */

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

int cli_fail(const ckpt_error *err)
{
    if (active_meter != NULL)
        cli_meter_end(active_meter);
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

/* An earlier write may have failed, and its errno is gone; the pipe still knows. */
static int reader_is_gone(void)
{
    struct pollfd output = { STDOUT_FILENO, POLLOUT, 0 };

    return poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0;
}

int cli_finish(int status)
{
    int why;

    if (active_meter != NULL)
        cli_meter_end(active_meter);
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

void cli_meter_begin(cli_meter *meter, const cli_common *common)
{
    memset(meter, 0, sizeof *meter);
    atomic_flag_clear(&meter->busy);
    meter->enabled = !common->quiet && isatty(STDERR_FILENO);
    active_meter = meter;
}

static void format_time(uint64_t seconds, char out[16])
{
    if (seconds < 3600)
        snprintf(out, 16, "%u:%02u", (unsigned)(seconds / 60), (unsigned)(seconds % 60));
    else if (seconds < 360000)
        snprintf(out, 16, "%u:%02u:%02u", (unsigned)(seconds / 3600),
                 (unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60));
    else
        snprintf(out, 16, "days");
}

static void draw(const cli_meter *meter, uint64_t now, uint64_t done_bytes, uint64_t total_bytes)
{
    const double seconds = (double)(now - meter->begin_ns) / (double)SECOND_NS;
    const double rate = seconds > 0 ? (double)(done_bytes - meter->begin_bytes) / seconds : 0;
    const uint64_t left_bytes = total_bytes > done_bytes ? total_bytes - done_bytes : 0;
    char done[CLI_SIZE_TEXT_BYTES];
    char total[CLI_SIZE_TEXT_BYTES];
    char speed[CLI_SIZE_TEXT_BYTES];
    char left[16] = "?";

    cli_size_text(done_bytes, done);
    cli_size_text(total_bytes, total);
    cli_size_text((uint64_t)rate, speed);
    if (rate >= 1)
        format_time((uint64_t)((double)left_bytes / rate), left);
    fprintf(stderr, "\r\033[K%s of %s  %3.0f%%  %s/s  %s left", done, total,
            total_bytes > 0 ? 100.0 * (double)done_bytes / (double)total_bytes : 100.0, speed,
            left);
    fflush(stderr);
}

void cli_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    cli_meter *meter = context;
    uint64_t now;

    /* If another thread is drawing, do not wait: the next call will show the progress. */
    if (!meter->enabled || atomic_flag_test_and_set(&meter->busy))
        return;
    now = now_ns();
    if (!meter->started) {
        meter->started = 1;
        meter->begin_ns = now;
        meter->begin_bytes = done_bytes;
    } else if (done_bytes >= meter->begin_bytes && now - meter->drawn_ns >= REDRAW_NS) {
        meter->drawn_ns = now;
        meter->drawn = 1;
        draw(meter, now, done_bytes, total_bytes);
    }
    atomic_flag_clear(&meter->busy);
}

void cli_meter_end(cli_meter *meter)
{
    if (meter->drawn)
        fputs("\r\033[K", stderr);
    meter->drawn = 0;
    meter->enabled = 0;
    if (active_meter == meter)
        active_meter = NULL;
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
        cli_meter_begin(meter, common);
        run.progress = cli_progress;
    }
    return run;
}
