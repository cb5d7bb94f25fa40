/* download_stream.c: runs a download and a converter side by side. */
#include "download_stream.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/cli/cli.h"
#include "download_ending.h"
#include "download_head.h"
#include "feed.h"
#include "libckpt/size.h"

/* A conversion is faster than most network links: more files at a time would only take space. */
enum { FILES_AT_A_TIME = 3, ROUNDS = 3, WAIT_MS = 200, END_WAIT_MS = 5, CANNOT_RUN = 127 };

typedef enum { FILE_ASIDE, FILE_WANTED, FILE_GIVEN, FILE_HELD, FILE_FINISHED } stream_state;

typedef struct {
    const stream_options *o;
    download **d;
    uint8_t *selected;           /* by file of the listing: what the user selected */
    uint8_t *states;             /* by file: stream_state */
    size_t answered_count;       /* shards that the converter has reported on */
    feed_stream converter;
    convert_room room;
    pid_t pid;
    int is_gone;                 /* the converter ended */
    uint8_t *is_source;          /* by file: to be removed at the end */
    int is_noted;                /* the result was renamed into place */
    ckpt_error failure;          /* in a callback */
} stream;

static void restore_selection(stream *s)
{
    hub_listing *listing = s->o->listing;

    for (size_t i = 0; i < listing->count; i++) {
        listing->files[i].is_selected = s->selected[i];
        listing->files[i].head_bytes = 0;
    }
}

/* ---- downloads ---- */

static ckpt_code fetch(stream *s, const download_taker *taker, ckpt_error *err)
{
    download_options options = *s->o->download;
    ckpt_code code;

    download_close(*s->d);
    *s->d = NULL;
    if (taker != NULL) {
        options.taker = taker;
        options.in_order = 1;
        options.worker_count = (unsigned)size_min(options.worker_count, FILES_AT_A_TIME);
    }
    if ((code = download_open(&options, s->d, err)) == CKPT_OK)
        code = download_run(*s->d, s->o->progress, s->o->progress_context, err);
    return code;
}

/* Fetch everything that is not a shard, and the headers of the shards. A header states its length:
 * one that is longer than usual needs a second round. */
static ckpt_code fetch_shape(stream *s, ckpt_error *err)
{
    hub_listing *listing = s->o->listing;
    ckpt_code code = CKPT_OK;

    for (int round = 0; round < ROUNDS && code == CKPT_OK; round++) {
        size_t missing_count = 0;

        restore_selection(s);
        for (size_t i = 0; i < listing->count && code == CKPT_OK; i++) {
            hub_file *file = &listing->files[i];

            if (!head_is_shard(file)) {
                file->is_selected &= round == 0;
                continue;
            }
            code = head_make(s->o->where, file, &file->head_bytes, err);
            file->is_selected = file->head_bytes > 0;
            missing_count += (size_t)file->is_selected;
        }
        if (code != CKPT_OK || (round > 0 && missing_count == 0))
            break;
        if (round + 1 == ROUNDS)
            return hub_fail(HUB_NETWORK, err, "the headers of '%s' could not be fetched",
                            s->o->h->options.repo);
        code = fetch(s, NULL, err);
        if (code == CKPT_OK && download_get_stats(*s->d)->failed_count > 0)
            break;                   /* the caller reports the error */
    }
    restore_selection(s);
    return code;
}

/* ---- the converter ---- */

static void become(const stream *s, pid_t parent, int fd, char **words)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)     /* the parent died before prctl took effect */
        _exit(CANNOT_RUN);
    setpgid(0, 0);               /* ^C is handled by the download, which ends the converter */
    place_pass_lock(s->o->where);
    cli_restore_signals();
    if (dup2(fd, STDIN_FILENO) == STDIN_FILENO)
        execvp(words[0], words);
    _exit(CANNOT_RUN);
}

static ckpt_code start_converter(stream *s, const char *headers_dir, ckpt_error *err)
{
    static char option[] = "--feed";
    const pid_t parent = getpid();
    char *folder = strdup(headers_dir);
    char **words;
    size_t count = 0;
    int pair[2] = { -1, -1 };
    ckpt_code code = CKPT_OK;

    while (s->o->words[count] != NULL)
        count++;
    words = calloc(count + 3, sizeof *words);
    if (folder == NULL || words == NULL) {
        code = ckpt_fail_memory(err, "a command line", count);
    } else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        code = hub_fail(HUB_OTHER, err, "cannot make a socket: %s", strerror(errno));
    } else {
        words[0] = s->o->words[0];
        words[1] = option;
        words[2] = folder;
        memcpy(words + 3, s->o->words + 1, (count - 1) * sizeof *words);
        s->converter.fd = pair[0];
        if ((s->pid = fork()) == 0)
            become(s, parent, pair[1], words);
        if (s->pid < 0)
            code = hub_fail(HUB_OTHER, err, "cannot start '%s': %s", words[0],
                            strerror(errno));
        close(pair[1]);
    }
    free(words);
    free(folder);
    return code;
}

/* A converter that has ended is sent nothing; how it ended is the error (end_converter). */
static ckpt_code send_line(stream *s, const char *line, ckpt_error *err)
{
    ckpt_error failure;

    switch (feed_send(&s->converter, "", line, &failure)) {
    case CKPT_OK:
        return CKPT_OK;
    case CKPT_E_INTERRUPTED:
        s->is_gone = 1;
        return CKPT_OK;
    default:
        *err = failure;
        return err->code;
    }
}

static int is_stopped(const stream *s)
{
    return *s->o->h->options.stop != 0;
}

static hub_file *find(const stream *s, const char *path)
{
    const hub_file *found = hub_listing_find(s->o->listing, path);

    return found == NULL ? NULL : &s->o->listing->files[found - s->o->listing->files];
}

static ckpt_code misunderstood(const stream *s, const char *line, ckpt_error *err)
{
    return hub_fail(HUB_OTHER, err, "'%s' does not answer like ckpt-convert: '%.100s'",
                    s->o->words[0], line);
}

/* Insert a size into `sizes`, which keeps the largest in descending order. */
static void keep_largest(uint64_t sizes[FILES_AT_A_TIME], uint64_t size)
{
    for (size_t i = 0; i < FILES_AT_A_TIME; i++)
        if (size > sizes[i]) {
            const uint64_t smaller = sizes[i];

            sizes[i] = size;
            size = smaller;
        }
}

/*
 * Refuse at the start if the disk cannot hold the whole result and the files in flight. Files of
 * the source that exist already free as much as they occupy.
 */
static ckpt_code check_room(const stream *s, ckpt_error *err)
{
    enum { SLACK_BYTES = 64 << 20 };
    const hub_listing *listing = s->o->listing;
    uint64_t flight[FILES_AT_A_TIME] = { 0 };
    uint64_t need = s->room.need_bytes + SLACK_BYTES;
    uint64_t available = s->room.free_bytes;
    char expected[CLI_SIZE_TEXT_BYTES];
    char got[CLI_SIZE_TEXT_BYTES];
    struct stat disk;

    if (!s->o->download->watch_disk || available == UINT64_MAX)
        return CKPT_OK;
    if (fstat(place_root_fd(s->o->where), &disk) == 0 && (uint64_t)disk.st_dev == s->room.device) {
        for (size_t i = 0; i < listing->count; i++) {
            const hub_file *file = &listing->files[i];
            place_state state;

            if (s->states[i] != FILE_WANTED || !head_is_shard(file))
                continue;
            state = place_look(s->o->where, file, NULL);
            if (state == PLACE_ABSENT || state == PLACE_UNREADABLE || state == PLACE_BLOCKED)
                keep_largest(flight, place_need_bytes(s->o->where, file));
            else
                available += file->size_bytes;
        }
        for (size_t i = 0; i < FILES_AT_A_TIME; i++)
            need += flight[i];
    }
    if (need <= available)
        return CKPT_OK;
    cli_size_text(need, expected);
    cli_size_text(available, got);
    return hub_fail(HUB_DISK_FULL, err, "not enough disk space for the result and the files in "
                    "flight: expected %s free, got %s (see --no-space-check)", expected, got);
}

/* Handle the files that the converter needs. Files that an earlier run has converted are deleted;
 * files that the converter does not name are not its input and are kept. */
static ckpt_code take_wants(stream *s, ckpt_error *err)
{
    const hub_listing *listing = s->o->listing;
    char line[FEED_LINE_BYTES] = "";
    int is_done;
    int got = 0;
    ckpt_code code = CKPT_OK;

    while (strcmp(line, "go") != 0) {
        const hub_file *file;

        if ((got = feed_receive(&s->converter, WAIT_MS, line)) < 0) {
            s->is_gone = 1;
            return CKPT_OK;
        }
        if (is_stopped(s))
            return hub_fail_interrupted(err);
        if (got == 0 || strcmp(line, "go") == 0 ||
            sscanf(line, "room %" SCNu64 " %" SCNu64 " %" SCNu64, &s->room.need_bytes,
                   &s->room.free_bytes, &s->room.device) == 3)
            continue;
        is_done = strncmp(line, "done ", 5) == 0;
        file = is_done || strncmp(line, "want ", 5) == 0 ? find(s, line + 5) : NULL;
        if (file == NULL)
            return misunderstood(s, line, err);
        s->states[file - listing->files] = is_done ? FILE_FINISHED : FILE_WANTED;
    }
    for (size_t i = 0; i < listing->count && code == CKPT_OK; i++)
        if (head_is_shard(&listing->files[i]) && s->states[i] == FILE_FINISHED)
            code = place_remove(s->o->where, &listing->files[i], err);
    return code == CKPT_OK ? check_room(s, err) : code;
}

static ending ending_of(const stream *s)
{
    return (ending){ s->o->where, s->o->listing, s->o->words };
}

/* The conversion succeeded: remove the remaining tensor files of the source and their records. */
static ckpt_code clean(stream *s, const uint8_t *is_source, ckpt_error *err)
{
    const hub_listing *listing = s->o->listing;
    const ending e = ending_of(s);
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < listing->count && code == CKPT_OK; i++)
        if (is_source[i])
            code = place_remove(s->o->where, &listing->files[i], err);
    if (code == CKPT_OK)
        code = head_remove_all(s->o->where, listing, err);
    return code == CKPT_OK ? ending_remove(&e, err) : code;
}

/* The result was renamed. Its journal is removed after our answer; then only the `ending` file
 * tells a later run to clean up. */
static ckpt_code take_end(stream *s, const char *line, ckpt_error *err)
{
    const size_t count = s->o->listing->count;
    const ending e = ending_of(s);
    size_t finished_count = 0;
    size_t open_count = 0;
    ckpt_code code;

    for (size_t i = 0; i < count; i++) {
        s->is_source[i] = s->states[i] == FILE_FINISHED;
        finished_count += s->is_source[i];
        open_count += s->states[i] != FILE_ASIDE && s->states[i] != FILE_FINISHED;
    }
    if (s->is_noted || finished_count == 0 || open_count > 0)
        return misunderstood(s, line, err);
    restore_selection(s);
    if ((code = ending_write(&e, s->is_source, line + strlen("named "), err)) != CKPT_OK)
        return code;
    s->is_noted = 1;
    return send_line(s, FEED_NOTED, err);
}

static ckpt_code take_answer(stream *s, const char *line, ckpt_error *err)
{
    const int is_done = strncmp(line, "done ", 5) == 0;
    const hub_file *file = is_done || strncmp(line, "held ", 5) == 0 ? find(s, line + 5) : NULL;
    uint8_t *state = file == NULL ? NULL : &s->states[file - s->o->listing->files];

    if (strncmp(line, "named ", 6) == 0)
        return take_end(s, line, err);
    if (state == NULL || (*state != FILE_GIVEN && *state != FILE_HELD))
        return misunderstood(s, line, err);
    s->answered_count += *state == FILE_GIVEN && head_is_shard(file);
    *state = is_done ? FILE_FINISHED : FILE_HELD;
    return is_done && head_is_shard(file) ? place_remove(s->o->where, file, err) : CKPT_OK;
}

/* Process everything that the converter has sent so far. */
static ckpt_code take_answers(stream *s, int wait_ms, ckpt_error *err)
{
    char line[FEED_LINE_BYTES];
    int got;
    ckpt_code code = CKPT_OK;

    while (code == CKPT_OK && (got = feed_receive(&s->converter, wait_ms, line)) != 0) {
        if (got < 0) {
            s->is_gone = 1;
            break;
        }
        code = take_answer(s, line, err);
        wait_ms = 0;
    }
    return code;
}

static ckpt_code give(stream *s, const hub_file *file, ckpt_error *err)
{
    s->states[file - s->o->listing->files] = FILE_GIVEN;
    return send_line(s, file->path, err);
}

static int turn(void *context, const download *d, size_t *count)
{
    stream *s = context;
    const download_stats *stats = download_get_stats(d);
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < download_count(d) && code == CKPT_OK; i++) {
        const download_status status = download_at(d, i);

        if ((status.state == DOWNLOAD_DONE || status.state == DOWNLOAD_KEPT) &&
            s->states[status.file - s->o->listing->files] == FILE_WANTED)
            code = give(s, status.file, &s->failure);
    }
    if (code == CKPT_OK)
        code = take_answers(s, 0, &s->failure);
    *count = stats->ended_count - stats->failed_count;
    *count -= size_min(*count, s->answered_count);
    return code == CKPT_OK && !s->is_gone;
}

/* ---- the whole run ---- */

/* Tensor files too small to be shards were fetched with the headers. */
static ckpt_code give_small(stream *s, ckpt_error *err)
{
    hub_listing *listing = s->o->listing;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < listing->count && code == CKPT_OK; i++) {
        const int is_small = s->states[i] == FILE_WANTED && !head_is_shard(&listing->files[i]);

        listing->files[i].is_selected = s->states[i] == FILE_WANTED && !is_small;
        if (is_small)
            code = give(s, &listing->files[i], err);
    }
    return code;
}

/* The converter has all files and exits when it has finished. */
static ckpt_code wait_for_end(stream *s, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    while (code == CKPT_OK && !s->is_gone) {
        code = take_answers(s, WAIT_MS, err);
        if (code == CKPT_OK && is_stopped(s))
            code = hub_fail_interrupted(err);
    }
    return code;
}

static ckpt_code convert(stream *s, ckpt_error *err)
{
    const download_taker taker = { s, turn };
    size_t count;
    ckpt_code code;

    if ((code = take_wants(s, err)) != CKPT_OK || s->is_gone ||
        (code = give_small(s, err)) != CKPT_OK || s->is_gone)
        return code;
    code = fetch(s, &taker, err);
    if (code == CKPT_OK && !s->is_gone)
        turn(s, *s->d, &count);              /* what ended last */
    if (code == CKPT_OK && s->failure.code != CKPT_OK) {
        *err = s->failure;
        code = err->code;
    }
    if (code != CKPT_OK || download_get_stats(*s->d)->failed_count > 0)
        return code;
    return wait_for_end(s, err);
}

/* Kill the converter if it has not exited: it may be killed at any time. One that has only closed
 * its end is waited for until a signal comes. */
static ckpt_code end_converter(stream *s, int *status, ckpt_error *err)
{
    int how = 0;
    pid_t ended;

    if (s->pid <= 0)
        return CKPT_OK;
    if (!s->is_gone)            /* before the socket is closed, which it would report as an error */
        kill(s->pid, SIGKILL);
    while ((ended = waitpid(s->pid, &how, WNOHANG)) == 0 || (ended < 0 && errno == EINTR)) {
        if (is_stopped(s))
            kill(s->pid, SIGKILL);
        poll(NULL, 0, END_WAIT_MS);
    }
    close(s->converter.fd);
    if (!s->is_gone)
        return CKPT_OK;
    if (WIFSIGNALED(how) && (WTERMSIG(how) == SIGINT || WTERMSIG(how) == SIGTERM)) {
        *status = CLI_FAILED;        /* it has printed that itself: see cli_finish */
        return CKPT_OK;
    }
    if (WIFSIGNALED(how) && is_stopped(s))
        return hub_fail_interrupted(err);
    if (WIFSIGNALED(how))
        return hub_fail(HUB_OTHER, err, "'%s' was killed by signal %d; run the same command again "
                        "to resume", s->o->words[0], WTERMSIG(how));
    *status = WEXITSTATUS(how);
    return *status == CANNOT_RUN ? hub_fail(HUB_USAGE, err, "cannot run '%s'", s->o->words[0])
                                 : CKPT_OK;
}

/* A converter that exits with 0 should have produced a result; it may have been run with --help or
 * --dry-run. */
static ckpt_code check_finished(const stream *s, ckpt_error *err)
{
    if (s->is_noted)
        return CKPT_OK;
    return hub_fail(HUB_OTHER, err, "'%s' ended without converting: expected a result, got none",
                    s->o->words[0]);
}

static ckpt_code run(stream *s, int *status, ckpt_error *err)
{
    const hub_listing *listing = s->o->listing;
    const ending e = ending_of(s);
    char *headers_dir = NULL;
    int has_ended;
    ckpt_error last;
    ckpt_code code;

    if ((code = ending_find(&e, s->is_source, &has_ended, err)) != CKPT_OK)
        return code;
    if (has_ended) {             /* it was killed when only the cleanup was left */
        if (!s->o->h->options.is_quiet)
            fprintf(stderr, "the conversion was already finished by an earlier run\n");
        return clean(s, s->is_source, err);
    }
    code = fetch_shape(s, err);
    if (code != CKPT_OK || download_get_stats(*s->d)->failed_count > 0 ||
        (code = head_make_headers_dir(s->o->where, listing, &headers_dir, err)) != CKPT_OK)
        goto out;
    if ((code = start_converter(s, headers_dir, err)) == CKPT_OK)
        code = convert(s, err);
    restore_selection(s);
    if (end_converter(s, status, &last) != CKPT_OK && code == CKPT_OK) {
        *err = last;
        code = last.code;
    }
    if (code == CKPT_OK && s->is_gone && *status == 0 &&
        (code = check_finished(s, err)) == CKPT_OK)
        code = clean(s, s->is_source, err);
out:
    free(headers_dir);
    return code;
}

ckpt_code download_stream(const stream_options *options, download **d, int *status,
                          ckpt_error *err)
{
    const hub_listing *listing = options->listing;
    stream *s = calloc(1, sizeof *s);
    ckpt_code code;

    if (s == NULL || (s->selected = calloc(listing->count + 1, 1)) == NULL ||
        (s->states = calloc(listing->count + 1, 1)) == NULL ||
        (s->is_source = calloc(listing->count + 1, 1)) == NULL) {
        code = ckpt_fail_memory(err, "a download", listing->count);
    } else {
        s->o = options;
        s->d = d;
        for (size_t i = 0; i < listing->count; i++)
            s->selected[i] = (uint8_t)listing->files[i].is_selected;
        code = run(s, status, err);
    }
    if (s != NULL) {
        free(s->selected);
        free(s->states);
        free(s->is_source);
    }
    free(s);
    return code;
}
