/* feed.c: the protocol between a downloader and a converter. */
#include "feed.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libckpt/hub/hub_reason.h"

/* Only the converter says so: a download says how its converter ended. */
static ckpt_code has_ended(ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_INTERRUPTED, "ckpt-download has ended");
}

ckpt_code feed_send(const feed_stream *s, const char *word, const char *name, ckpt_error *err)
{
    char line[FEED_LINE_BYTES + 16];
    const int size = snprintf(line, sizeof line, "%s%s\n", word, name);

    if (size <= 0 || (size_t)size >= sizeof line)
        return hub_fail(HUB_OTHER, err, "the name '%.100s' is too long to send", name);
    for (int at = 0; at < size;) {
        const ssize_t put = send(s->fd, line + at, (size_t)(size - at), MSG_NOSIGNAL);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && (errno == EPIPE || errno == ECONNRESET))
            return has_ended(err);
        if (put <= 0)
            return hub_fail(HUB_OTHER, err, "cannot send the name '%s': %s", name,
                            strerror(errno));
        at += (int)put;
    }
    return CKPT_OK;
}

static int take_line(feed_stream *s, char line[FEED_LINE_BYTES])
{
    const char *newline = memchr(s->text, '\n', s->used);
    size_t size;

    if (newline == NULL)
        return s->used >= FEED_LINE_BYTES ? -1 : 0;
    size = (size_t)(newline - s->text);
    if (size >= FEED_LINE_BYTES)
        return -1;
    memcpy(line, s->text, size);
    line[size] = '\0';
    s->used -= size + 1;
    memmove(s->text, newline + 1, s->used);
    return 1;
}

int feed_receive(feed_stream *s, int wait_ms, char line[FEED_LINE_BYTES])
{
    struct pollfd ready = { s->fd, POLLIN, 0 };
    int found = take_line(s, line);

    while (found == 0 && poll(&ready, 1, wait_ms) > 0) {
        const ssize_t got = read(s->fd, s->text + s->used, sizeof s->text - s->used);

        if (got <= 0)
            return got < 0 && errno == EINTR ? 0 : -1;
        s->used += (size_t)got;
        found = take_line(s, line);
    }
    return found;
}

/* ---- the converter's side ---- */

static ckpt_code room(convert_feed *self, const convert_room *room, ckpt_error *err)
{
    const feed_converter *f = (const feed_converter *)self;
    char text[64];

    snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64 " %" PRIu64, room->need_bytes,
             room->free_bytes, room->device);
    return feed_send(&f->stream, "room ", text, err);
}

static ckpt_code want(convert_feed *self, const char *name, ckpt_error *err)
{
    const feed_converter *f = (const feed_converter *)self;

    return name == NULL ? feed_send(&f->stream, "go", "", err)
                        : feed_send(&f->stream, "want ", name, err);
}

enum { WAIT_MS = 1000 };

static ckpt_code next(convert_feed *self, const char **name, ckpt_error *err)
{
    feed_converter *f = (feed_converter *)self;
    int got = 0;

    while (got == 0 && !*f->stop)
        got = feed_receive(&f->stream, WAIT_MS, f->name);
    *name = f->name;
    if (got == 1)
        return CKPT_OK;
    return *f->stop ? ckpt_fail(err, CKPT_E_INTERRUPTED, "interrupted") : has_ended(err);
}

static ckpt_code answer(convert_feed *self, const char *name, int is_finished, ckpt_error *err)
{
    const feed_converter *f = (const feed_converter *)self;

    return feed_send(&f->stream, is_finished ? "done " : "held ", name, err);
}

static ckpt_code named(convert_feed *self, const char *path, ckpt_error *err)
{
    feed_converter *f = (feed_converter *)self;
    char *real = realpath(path, NULL);
    const char *word;
    ckpt_code code;

    if (real == NULL || strchr(real, '\n') != NULL)
        code = hub_fail(HUB_OTHER, err, "cannot send the name '%s'", path);
    else
        code = feed_send(&f->stream, "named ", real, err);
    free(real);
    if (code != CKPT_OK || (code = next(self, &word, err)) != CKPT_OK)
        return code;
    return strcmp(word, FEED_NOTED) == 0
               ? CKPT_OK : hub_fail(HUB_OTHER, err, "unexpected file '%s' after everything was "
                   "converted", word);
}

void feed_converter_init(feed_converter *f, const char *headers_dir, const atomic_int *stop)
{
    memset(f, 0, sizeof *f);
    f->base = (convert_feed){ headers_dir, room, want, next, answer, named };
    f->stream.fd = STDIN_FILENO;
    f->stop = stop;
}
