/*
 * download_fetch.c: one request for bytes: redirects, what is accepted, what a refusal means.
 *
 * Nothing is written before the reply's headers prove that its body is the bytes asked for.
 */
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "download_run.h"
#include "libckpt/size.h"

enum { SHORT_LIFE_SECONDS = 240 };

static void release(transfer *t)
{
    free(t->url);
    t->url = NULL;
    t->in_use = 0;
    t->http = NULL;
    if (t->is_head && t->file->state == DOWNLOAD_RESOLVING)
        t->file->state = DOWNLOAD_ACTIVE;
    t->d->busy_count--;
    t->file->active->running_count--;
}

static ckpt_code send_request(transfer *t, ckpt_error *err);

/* ---- the reply's headers ---- */

static http_verdict refuse(transfer *t, const char *what)
{
    char shown[300];

    hub_show_url(t->url, shown, sizeof shown);
    hub_fail(HUB_INTEGRITY, &t->err, "cannot use the reply for '%s' from '%s': %s",
             t->file->want->path, shown, what);
    return HTTP_REFUSE;
}

/* What the hub says about the file must be what it listed. */
static const char *hub_contradiction(const transfer *t, const http_reply *reply)
{
    const char *commit = http_header(reply, "X-Repo-Commit");
    const char *linked = http_header(reply, "X-Linked-Etag");
    const char *size = http_header(reply, "X-Linked-Size");
    char etag[100];
    char expected[24];

    if (commit != NULL && t->d->listing->commit[0] != '\0' &&
        strcmp(commit, t->d->listing->commit) != 0)
        return "the hub serves another commit than it listed";
    if (linked != NULL) {
        hub_etag(linked, etag, sizeof etag);
        if (strcmp(etag, t->file->want->hash) != 0)
            return "listing and resolve disagree about the hash";
    }
    snprintf(expected, sizeof expected, "%" PRIu64, t->file->want->size_bytes);
    if (size != NULL && strcmp(size, expected) != 0)
        return "listing and resolve disagree about the size";
    return NULL;
}

static int is_hub(const transfer *t)
{
    return hub_same_origin(t->url, t->d->h->endpoint);
}

/* The data host's name for the object must not change under one URL. */
static int etag_differs(transfer *t, const http_reply *reply)
{
    active *a = t->file->active;
    const char *etag = http_header(reply, "ETag");

    if (etag == NULL || is_hub(t) || t->file->etag_changes > 4)
        return 0;
    if (a->etag[0] == '\0')
        snprintf(a->etag, sizeof a->etag, "%.79s", etag);
    return strncmp(a->etag, etag, sizeof a->etag - 1) != 0;
}

static http_verdict take_from(transfer *t, uint64_t first, uint64_t size)
{
    t->skip_bytes = t->piece->at - first;
    t->accept_bytes = size;
    t->is_accepted = 1;
    return HTTP_TAKE;
}

static http_verdict bad_range(transfer *t, const char *what)
{
    t->bad_range = 1;
    return refuse(t, what);
}

/* A 206, or a 200 with or without Content-Range: is it what was asked for? */
static http_verdict judge_body(transfer *t, const http_reply *reply)
{
    const uint64_t total = t->file->want->size_bytes;
    const char *text = http_header(reply, "Content-Range");
    const char *encoding = http_header(reply, "Content-Encoding");
    const char *type = http_header(reply, "Content-Type");
    const char *length = http_header(reply, "Content-Length");
    uint64_t length_bytes = length == NULL ? 0 : strtoull(length, NULL, 10);
    hub_content_range range = { 0 };

    if (encoding != NULL && strcasecmp(encoding, "identity") != 0)
        return bad_range(t, "it is compressed, which nobody asked for");
    if (type != NULL && strncasecmp(type, "multipart/byteranges", 20) == 0)
        return bad_range(t, "it is in several parts, one was asked for");
    if (text == NULL) {
        if (http_status(reply) == 206)
            return bad_range(t, "a part without Content-Range");
        if (length != NULL && length_bytes > total)
            return bad_range(t, "it is longer than the file");
        if (t->range_end != 0 && (t->range_first != 0 || t->range_end != total)) {
            t->no_range = 1;
            return HTTP_REFUSE;
        }
        return take_from(t, 0, total);
    }
    if (!hub_parse_content_range(text, &range) || range.is_empty)
        return bad_range(t, "malformed Content-Range");
    if (range.first != (t->range_end != 0 ? t->range_first : 0) ||
        (t->range_end != 0 && range.last >= t->range_end))
        return bad_range(t, "its Content-Range is not the one asked for");
    if ((range.has_total && range.total != total) || range.last >= total ||
        (!range.has_total && range.last + 1 != t->range_end))
        return bad_range(t, "its Content-Range is of a file of another size");
    if (length != NULL && length_bytes != range.last - range.first + 1)
        return bad_range(t, "Content-Length and Content-Range disagree");
    return take_from(t, range.first, range.last - range.first + 1);
}

static http_verdict on_head(void *context, const http_reply *reply)
{
    transfer *t = context;
    const unsigned status = http_status(reply);
    const char *wrong = status < 400 && is_hub(t) ? hub_contradiction(t, reply) : NULL;

    if (wrong != NULL)
        return refuse(t, wrong);
    if (status != 200 && status != 206)
        return HTTP_KEEP;
    if (t->is_head)
        return HTTP_KEEP;
    if (etag_differs(t, reply)) {
        t->etag_changed = 1;
        return HTTP_REFUSE;
    }
    return judge_body(t, reply);
}

/* ---- the body ---- */

/* A kill costs at most so much of every connection; a journal has at most so many lines. */
static uint64_t note_bytes(uint64_t size)
{
    return size_max(NOTE_BYTES_MIN, size_min(NOTE_BYTES_MAX, size / NOTE_COUNT));
}

static int on_data(void *context, const void *bytes, size_t size)
{
    transfer *t = context;
    const unsigned char *at = bytes;
    piece *p = t->piece;
    active *a = t->file->active;
    size_t use = (size_t)size_min(size, t->accept_bytes - t->got_bytes);
    const int is_surplus = use < size;
    size_t skip;

    t->d->stats.fetched_bytes += size;
    t->got_bytes += use;
    skip = (size_t)size_min(use, t->skip_bytes);
    t->skip_bytes -= skip;
    at += skip;
    use = (size_t)size_min(use - skip, p->end - p->at);
    if (use > 0) {
        if (part_write(a->part, p->at, at, use, &t->err) != CKPT_OK) {
            t->write_failed = 1;
            return 0;
        }
        p->at += use;
        t->new_bytes += use;
        t->file->last_byte = hub_now();
        t->d->stats.done_bytes += use;
        a->progress_bytes += use;
        if (a->progress_bytes >= 1 << 20)
            t->file->failures = t->file->refreshes = 0;
        if (p->at - p->noted >= note_bytes(t->file->want->size_bytes)) {
            if (part_note(a->part, p->noted, p->at, &t->err) != CKPT_OK) {
                t->write_failed = 1;
                return 0;
            }
            p->noted = p->at;
            file_advance(t->d, t->file);
        }
    }
    /* A piece that was split ends before its reply does. */
    return !is_surplus && !(p->at == p->end && t->got_bytes < t->accept_bytes);
}

/* ---- the end ---- */

static void note_url(transfer *t, char *url)
{
    active *a = t->file->active;

    free(a->url);
    a->url = url;
    a->generation++;
    a->url_expiry = hub_url_expiry(url);
    /* One that lives for minutes only is used until it is refused: so clocks may differ. */
    if (a->url_expiry < (int64_t)time(NULL) + SHORT_LIFE_SECONDS)
        a->url_expiry = 0;
}

/* Where the bytes are is known: elsewhere, or at the hub itself. */
static void follow(transfer *t, const http_result *result)
{
    dfile *file = t->file;
    download *d = t->d;
    char *to = NULL;
    ckpt_error err;

    if (hub_redirect(d->h, t->url, result->reply, &to, &err) != CKPT_OK || ++t->hops > HOPS_MAX) {
        if (t->hops > HOPS_MAX)
            hub_fail(HUB_NETWORK, &err, "'%s' is redirected without end", file->want->path);
        free(to);
        release(t);
        file_fail(d, file, &err);
        return;
    }
    if (is_hub(t) && !hub_same_origin(to, d->h->endpoint)) {
        char *url = strdup(to);

        if (url != NULL)
            note_url(t, url);
        t->generation = file->active->generation;
        if (t->is_head) {
            free(to);
            release(t);
            return;
        }
    }
    free(t->url);
    t->url = to;
    if (send_request(t, &err) != CKPT_OK) {
        release(t);
        file_fail(d, file, &err);
    }
}

/* A data host refuses a URL: it may have run out. Ask the hub for a new one, not for ever. */
static void refresh(transfer *t, const http_result *result)
{
    dfile *file = t->file;
    active *a = file->active;
    download *d = t->d;
    const unsigned generation = t->generation;
    const unsigned status = http_status(result->reply);
    hub_url host = { 0 };
    ckpt_error err;

    hub_parse_url(t->url, &host);
    hub_fail(HUB_NETWORK, &err, "'%s' refuses a fresh address of '%s': %u %.300s", host.host,
             file->want->path, status, result->text);
    release(t);
    if (generation != a->generation || a->url == NULL)
        return;     /* somebody else has asked already */
    /* Some data hosts refuse what they find too large, and say no more than that. */
    if (status == 400 && ++file->bad_requests >= 2 && file_halve_pieces(file)) {
        file->bad_requests = 0;
        file->refreshes = 0;
    }
    if (++file->refreshes > (a->old_host != NULL && strcmp(a->old_host, host.host) == 0
                                 ? 2 : REFRESHES_MAX)) {
        file_fail(d, file, &err);
        return;
    }
    free(a->old_host);
    a->old_host = strdup(host.host);
    free(a->url);
    a->url = NULL;
}

static void on_status(transfer *t, const http_result *result)
{
    dfile *file = t->file;
    download *d = t->d;
    const unsigned status = http_status(result->reply);
    const char *text = http_header(result->reply, "Content-Range");
    hub_content_range range = { 0 };
    ckpt_error err;

    if (hub_is_transient(status)) {
        release(t);
        if (status != 429)      /* waiting is no failure */
            file_set_failure(d, file);
        download_slow_down(d);
    } else if (status == 416 && text != NULL && hub_parse_content_range(text, &range) &&
               range.has_total && range.total != file->want->size_bytes &&
               (file->refreshes > 0 || is_hub(t))) {
        hub_fail(HUB_INTEGRITY, &err,
                 "'%s' has another size than listed: expected %" PRIu64 " bytes, got %" PRIu64,
                 file->want->path, file->want->size_bytes, range.total);
        release(t);
        file_fail(d, file, &err);
    } else if (status == 416 && text != NULL && range.total == file->want->size_bytes) {
        release(t);
        file_set_failure(d, file);
    } else if (!is_hub(t)) {
        refresh(t, result);
    } else {
        hub_refusal(d->h, result, file->want->path, &err);
        release(t);
        file_fail(d, file, &err);
    }
}

/* Refused by us, for a reason that was noted at the headers. */
static void on_refused(transfer *t)
{
    dfile *file = t->file;
    active *a = file->active;
    download *d = t->d;
    const transfer was = *t;

    release(t);
    if (was.write_failed) {
        file_fail(d, file, &was.err);
    } else if (was.no_range) {
        file_go_single(d, file);
    } else if (was.etag_changed) {
        free(a->url);
        a->url = NULL;
        /* The same again under a new URL: it is another object. Start over with it. */
        if (++file->etag_changes % 2 == 0)
            file_restart(d, file);
    } else if (was.bad_range && ++file->strikes < 3) {
        file->not_before = hub_now() + hub_backoff(file->strikes);
    } else if (was.bad_range && !file->is_single) {
        file->strikes = 0;
        file_go_single(d, file);
    } else if (was.err.code != CKPT_OK) {
        file_fail(d, file, &was.err);
    } else {
        file_set_failure(d, file);
    }
}

/* Journal what came, and say what becomes of the piece. 1: it is whole. */
static int settle_piece(transfer *t)
{
    piece *p = t->piece;
    active *a = t->file->active;

    if (p == NULL)
        return 0;
    p->state = p->at == p->end ? PIECE_DONE : PIECE_FREE;
    if (p->at > p->noted && !t->write_failed) {
        if (part_note(a->part, p->noted, p->at, &t->err) != CKPT_OK)
            t->write_failed = 1;
        p->noted = p->at;
    }
    file_advance(t->d, t->file);
    return p->state == PIECE_DONE && !t->write_failed;
}

static void on_done(void *context, const http_result *result)
{
    transfer *t = context;
    dfile *file = t->file;
    download *d = t->d;
    const unsigned status = http_status(result->reply);
    ckpt_error err;

    if (status != 0)
        hub_note_limits(d->h, t->bucket, result->reply);
    if (settle_piece(t)) {
        release(t);
        file_piece_done(d, file);
    } else if (t->write_failed || (result->outcome == HTTP_REFUSED && !t->is_accepted)) {
        on_refused(t);
    } else if (result->outcome == HTTP_IMPOSSIBLE) {
        hub_fail(HUB_NETWORK, &err, "cannot fetch '%s': %s", file->want->path, result->problem);
        release(t);
        file_fail(d, file, &err);
    } else if (result->outcome != HTTP_DONE) {
        const int got_much = t->new_bytes >= 1 << 20;

        free(file->error);
        file->error = strdup(result->problem);
        release(t);
        if (!got_much)      /* else it goes on at once, where it was */
            file_set_failure(d, file);
        download_slow_down(d);
    } else if (status >= 300 && status < 400) {
        if (t->piece != NULL)
            t->piece->state = PIECE_RUNNING;
        follow(t, result);
    } else if (status >= 400) {
        on_status(t, result);
    } else if (t->is_head) {
        note_url(t, t->url);     /* the hub serves it itself */
        t->url = NULL;
        release(t);
    } else {
        /* It ended early, in good order: ask for the rest. */
        const int got_some = t->new_bytes > 0;

        release(t);
        if (!got_some)
            file_set_failure(d, file);
    }
}

/* ---- asking ---- */

static ckpt_code send_request(transfer *t, ckpt_error *err)
{
    const int at_hub = is_hub(t);
    const int wants_range = t->piece != NULL && !t->file->is_single &&
                            (!at_hub || t->d->h->kind != &hub_huggingface ||
                             t->file->active->url != NULL);
    char range[48];
    hub_headers headers;
    http_request request = { .url = t->url,
                             .is_head = t->is_head,
                             .fresh = t->file->rounds > 0,
                             .context = t,
                             .head = on_head,
                             .data = on_data,
                             .done = on_done };

    hub_make_headers(t->d->h, t->url, &headers);
    request.headers = headers.lines;
    t->bucket = at_hub ? HUB_RESOLVERS : HUB_DATA;
    t->range_end = 0;
    if (wants_range) {
        t->range_first = t->piece->at;
        t->range_end = t->piece->end;
        snprintf(range, sizeof range, "%" PRIu64 "-%" PRIu64, t->range_first, t->range_end - 1);
        request.range = range;
    }
    t->is_accepted = t->no_range = t->bad_range = t->etag_changed = t->write_failed = 0;
    t->err.code = CKPT_OK;
    t->begin = hub_now();
    t->got_bytes = t->new_bytes = t->skip_bytes = t->accept_bytes = 0;
    t->d->h->request_count++;
    return http_start(t->d->h->http, &request, &t->http, err);
}

ckpt_code fetch_start(download *d, dfile *file, piece *p, ckpt_error *err)
{
    active *a = file->active;
    transfer *t = d->transfers;
    ckpt_code code;

    while (t->in_use)
        t++;
    memset(t, 0, sizeof *t);
    t->d = d;
    t->file = file;
    t->piece = p;
    t->is_head = p == NULL;
    t->generation = a->generation;
    t->url = a->url != NULL ? strdup(a->url) : d->h->kind->file_url(d->h, d->listing, file->want);
    if (t->url == NULL)
        return ckpt_fail_memory(err, "an address", strlen(file->want->path));
    t->in_use = 1;
    d->busy_count++;
    a->running_count++;
    if (d->busy_count > d->stats.connections_most)
        d->stats.connections_most = d->busy_count;
    if (p != NULL)
        p->state = PIECE_RUNNING;
    if ((code = send_request(t, err)) != CKPT_OK)
        release(t);
    return code;
}
