/* cli_progress.c: progress on a terminal, in a log and on SIGUSR1; the closing line. */
#include "cli.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli_private.h"
#include "libckpt/text.h"

enum { LINE_BYTES = 512, FIELD_BYTES = 80, STACK_BYTES = 256 << 10 };

static const uint64_t SECOND_NS = 1000000000;
static const uint64_t REDRAW_NS = 200000000;   /* five updates a second are enough for the eye */

/* Progress of all phases. Guarded by `lock`, which is never held while writing: a stopped terminal
 * must not stop the work. */
static struct {
    pthread_mutex_t lock;
    cli_meter *meter;          /* NULL: none */
    const char *phase;
    uint64_t earlier_bytes;    /* of the phases before */
    uint64_t later_bytes;      /* of those that follow */
    uint64_t phase_begin_ns;
    char text[LINE_BYTES];     /* shown instead of the counts; empty: none */
} state = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* State of the terminal. Guarded by `lock`, which is held while writing. */
static struct {
    pthread_mutex_t lock;
    int is_live;               /* one line, redrawn; else a line every period */
    uint64_t period_ns;        /* 0: nothing is drawn */
    uint64_t next_ns;
    int drawn;
    int is_verbose;
    const char *said;          /* the phase that --verbose named last */
} screen = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct {
    atomic_int is_running;
    sem_t wake;
    uint64_t begin_ns;
} ticker;
static atomic_int report_wanted;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* ---- the line ---- */

static unsigned screen_columns(void)
{
    const char *text = getenv("COLUMNS");
    struct winsize size;
    uint64_t columns;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return text != NULL && cli_parse_u64(text, &columns) && columns > 0 && columns < LINE_BYTES
               ? (unsigned)columns
               : 80;
}

/* Append a field, unless the line would be longer than `room`: half a field would mislead. */
static void add_field(char line[LINE_BYTES], size_t room, const char *field)
{
    const size_t used = strlen(line);
    const size_t gap = used > 0 ? 2 : 0;

    if (used + gap + strlen(field) > room || used + gap + strlen(field) >= LINE_BYTES)
        return;
    memcpy(line + used, "  ", gap);
    memcpy(line + used + gap, field, strlen(field) + 1);
}

/* Remove fields from the end of a line until it fits. */
static void cut_fields(char *line, size_t room)
{
    size_t end = strlen(line);

    while (end > room) {
        while (end > 1 && (line[end - 1] != ' ' || line[end - 2] != ' '))
            end--;
        while (end > 0 && line[end - 1] == ' ')
            end--;
        if (end <= 1)                          /* the only field is too long */
            end = room;
        line[end] = '\0';
    }
}

/* A copy of the state, from which the fields of a line are made. */
typedef struct {
    const char *phase;
    uint64_t done_bytes;
    uint64_t total_bytes;
    uint64_t job_done_bytes;
    uint64_t job_total_bytes;
    double phase_seconds;
    double seconds;
} sight;

static void add_sizes(char line[LINE_BYTES], size_t room, const sight *s)
{
    /* The rate of this phase, if it is known already: reading is faster than writing. */
    const double rate = s->done_bytes > 0 && s->phase_seconds >= 1
                            ? (double)s->done_bytes / s->phase_seconds
                        : s->seconds > 0 ? (double)s->job_done_bytes / s->seconds
                                         : 0;
    const uint64_t left_bytes = s->job_total_bytes - s->job_done_bytes;
    char done[CLI_SIZE_TEXT_BYTES];
    char total[CLI_SIZE_TEXT_BYTES];
    char speed[CLI_SIZE_TEXT_BYTES];
    char left[CLI_TIME_TEXT_BYTES];
    char field[FIELD_BYTES];

    snprintf(field, sizeof field, "%3.0f%%",
             100.0 * (double)s->job_done_bytes / (double)s->job_total_bytes);
    add_field(line, room, field);
    if (rate >= 1) {
        cli_time_text((uint64_t)((double)left_bytes / rate), left);
        snprintf(field, sizeof field, "%s left", left);
        add_field(line, room, field);
    }
    cli_size_text(s->job_done_bytes, done);
    cli_size_text(s->job_total_bytes, total);
    snprintf(field, sizeof field, "%s of %s", done, total);
    add_field(line, room, field);
    if (rate >= 1) {
        cli_size_text((uint64_t)rate, speed);
        snprintf(field, sizeof field, "%s/s", speed);
        add_field(line, room, field);
    }
}

/* Make a line of at most `room` characters from the state; empty: no state. */
static void make_line(char line[LINE_BYTES], size_t room)
{
    const uint64_t now = now_ns();
    sight s;

    line[0] = '\0';
    pthread_mutex_lock(&state.lock);
    if (state.text[0] != '\0') {
        snprintf(line, LINE_BYTES, "%s", state.text);
        cut_fields(line, room);
    } else if (state.meter != NULL) {
        s.phase = state.phase;
        s.done_bytes = state.meter->done_bytes;
        s.total_bytes = state.meter->total_bytes;
        if (s.done_bytes > s.total_bytes)
            s.total_bytes = s.done_bytes;
        s.job_done_bytes = state.earlier_bytes + s.done_bytes;
        s.job_total_bytes = state.earlier_bytes + s.total_bytes + state.later_bytes;
        s.phase_seconds = (double)(now - state.phase_begin_ns) / (double)SECOND_NS;
        s.seconds = (double)(now - ticker.begin_ns) / (double)SECOND_NS;
        add_field(line, room, s.phase);
        if (s.total_bytes > 0)
            add_sizes(line, room, &s);
    }
    pthread_mutex_unlock(&state.lock);
}

/* ---- drawing: all with screen.lock held ---- */

/*
 * The cursor is left at the beginning of the line, and everything below is erased, too: a terminal
 * that was made narrower has wrapped the line onto further rows. The first cell is overwritten, not
 * erased, because a screen that is erased from its first cell on is kept in the history by tmux.
 */
static void erase_line(void)
{
    if (screen.drawn)
        fputs("\r \033[J\r", stderr);
    screen.drawn = 0;
}

static void draw_live(void)
{
    char line[LINE_BYTES];

    make_line(line, screen_columns() - 1);
    if (line[0] == '\0')
        return;
    /* Without wrapping: a terminal may have become narrower since it was asked, and the cursor
     * would be left in the last of several rows. */
    fprintf(stderr, "\033[?7l\r%s\033[J\r\033[?7h", line);
    fflush(stderr);
    screen.drawn = 1;
}

static void print_line(const char *prefix)
{
    char line[LINE_BYTES];
    char passed[CLI_TIME_TEXT_BYTES];

    make_line(line, LINE_BYTES - 1);
    cli_time_text((now_ns() - ticker.begin_ns) / SECOND_NS, passed);
    erase_line();
    fprintf(stderr, "%s: %s%s%s so far\n", cli_program_name, line[0] == '\0' ? prefix : line,
            line[0] == '\0' && prefix[0] == '\0' ? "" : "  ", passed);
    fflush(stderr);
}

/* ---- the thread ---- */

static void wait_until(uint64_t deadline_ns)
{
    const uint64_t now = now_ns();
    const uint64_t wait_ns = deadline_ns > now ? deadline_ns - now : 0;
    struct timespec at;

    if (deadline_ns == 0) {
        sem_wait(&ticker.wake);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += (time_t)((wait_ns + (uint64_t)at.tv_nsec) / SECOND_NS);
    at.tv_nsec = (long)((wait_ns + (uint64_t)at.tv_nsec) % SECOND_NS);
    sem_timedwait(&ticker.wake, &at);
}

/* Draw what is due. Returns the time of the next drawing; 0: wait until the semaphore is posted. */
static uint64_t draw_due(void)
{
    uint64_t next = 0;

    pthread_mutex_lock(&screen.lock);
    if (atomic_exchange(&report_wanted, 0))
        print_line("working");
    if (screen.period_ns > 0) {
        if (now_ns() >= screen.next_ns) {
            if (screen.is_live)
                draw_live();
            else
                print_line("working");
            screen.next_ns = now_ns() + screen.period_ns;
        }
        next = screen.next_ns;
    }
    pthread_mutex_unlock(&screen.lock);
    return next;
}

void cli_answer_report(void)
{
    pthread_mutex_lock(&screen.lock);
    if (atomic_exchange(&report_wanted, 0))
        print_line("done");
    pthread_mutex_unlock(&screen.lock);
}

static void *run_ticker(void *context)
{
    (void)context;
    for (;;)
        wait_until(draw_due());
    return NULL;
}

static void ask_for_report(int number)
{
    const int error = errno;

    (void)number;
    report_wanted = 1;
    if (ticker.is_running)
        sem_post(&ticker.wake);
    errno = error;
}

void cli_start_clock(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all;
    sigset_t before;

    if (ticker.begin_ns == 0)
        ticker.begin_ns = now_ns();
    cli_catch(SIGUSR1, ask_for_report, SA_RESTART);
    if (ticker.is_running || sem_init(&ticker.wake, 0, 0) != 0 ||
        pthread_attr_init(&attributes) != 0)
        return;
    /* The new thread blocks all signals: SIGINT must interrupt a working thread that waits for a
     * pipe. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    ticker.is_running = pthread_create(&thread, &attributes, run_ticker, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* ---- called by the working threads ---- */

/* With --verbose: name a phase when it begins. */
static void say_phase(const char *phase)
{
    if (!screen.is_verbose || (screen.said != NULL && strcmp(screen.said, phase) == 0))
        return;
    screen.said = phase;
    cli_say(phase);
}

void cli_meter_begin(cli_meter *meter, const cli_common *common, const char *phase)
{
    const int is_terminal = isatty(STDERR_FILENO);
    const int is_shown = !common->quiet && strcmp(common->progress, "never") != 0;

    meter->done_bytes = 0;
    meter->total_bytes = 0;
    pthread_mutex_lock(&state.lock);
    state.meter = meter;
    state.phase = phase;
    state.earlier_bytes = 0;
    state.later_bytes = 0;
    state.phase_begin_ns = now_ns();
    state.text[0] = '\0';
    pthread_mutex_unlock(&state.lock);
    pthread_mutex_lock(&screen.lock);
    screen.is_verbose = common->verbose && !common->quiet;
    screen.is_live = is_terminal || strcmp(common->progress, "always") == 0;
    screen.period_ns = !is_shown        ? 0
                       : screen.is_live ? REDRAW_NS
                                        : common->progress_seconds * SECOND_NS;
    screen.next_ns = now_ns() + screen.period_ns;
    pthread_mutex_unlock(&screen.lock);
    say_phase(phase);
    if (ticker.is_running)
        sem_post(&ticker.wake);
}

/* The counts of a phase begin again at 0. Called with state.lock held. */
static void end_phase(cli_meter *meter)
{
    state.earlier_bytes += meter->done_bytes;
    state.phase_begin_ns = now_ns();
    meter->done_bytes = 0;
    meter->total_bytes = 0;
}

void cli_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    cli_meter *meter = context;

    if (done_bytes < meter->done_bytes && total_bytes != meter->total_bytes) {
        pthread_mutex_lock(&state.lock);       /* the next checkpoint of several */
        end_phase(meter);
        pthread_mutex_unlock(&state.lock);
    }
    meter->total_bytes = total_bytes;
    meter->done_bytes = done_bytes;
}

void cli_progress_phase(void *context, const char *phase, uint64_t later_bytes)
{
    pthread_mutex_lock(&state.lock);
    end_phase(context);
    state.phase = phase;
    state.later_bytes = later_bytes;
    pthread_mutex_unlock(&state.lock);
    say_phase(phase);
}

void cli_say(const char *text)
{
    pthread_mutex_lock(&screen.lock);
    erase_line();
    fprintf(stderr, "%s: %s\n", cli_program_name, text);
    pthread_mutex_unlock(&screen.lock);
}

void cli_progress_text(const char *text)
{
    pthread_mutex_lock(&state.lock);
    snprintf(state.text, sizeof state.text, "%s", text);
    pthread_mutex_unlock(&state.lock);
}

void cli_erase_progress(void)
{
    pthread_mutex_lock(&state.lock);
    state.meter = NULL;
    state.text[0] = '\0';
    pthread_mutex_unlock(&state.lock);
    pthread_mutex_lock(&screen.lock);
    erase_line();
    screen.period_ns = 0;
    pthread_mutex_unlock(&screen.lock);
}

void cli_meter_end(cli_meter *meter)
{
    int is_active;

    pthread_mutex_lock(&state.lock);
    is_active = state.meter == meter;
    pthread_mutex_unlock(&state.lock);
    if (is_active)
        cli_erase_progress();
}

/* ---- the closing line ---- */

void cli_say_written(const cli_common *common, const cli_written *what)
{
    const double seconds = (double)(now_ns() - ticker.begin_ns) / (double)SECOND_NS;
    char size[CLI_SIZE_TEXT_BYTES];
    char rate[CLI_SIZE_TEXT_BYTES];

    cli_erase_progress();
    if (common->quiet)
        return;
    cli_size_text(what->bytes, size);
    cli_size_text(seconds > 0 ? (uint64_t)((double)what->bytes / seconds) : 0, rate);
    if (what->stream != NULL)
        fprintf(stderr, "%s: wrote %s to standard output: ", cli_program_name, what->stream);
    else
        fprintf(stderr, "%s: wrote '%s': ", cli_program_name, cli_name(what->path));
    if (what->tensor_count > 0)
        fprintf(stderr, "%s, ", text_count(what->tensor_count, "tensor", "tensors").text);
    if (what->detail != NULL)
        fprintf(stderr, "%s ", what->detail);
    fprintf(stderr, "%s in %.1f s, %s/s", size, seconds, rate);
    if (what->root != NULL)
        fprintf(stderr, ", root %s", what->root);
    if (what->note_count > 0)
        fprintf(stderr, ", %s", text_count(what->note_count, "note", "notes").text);
    fputc('\n', stderr);
}
