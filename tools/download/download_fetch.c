/*
 * download_fetch.c: one request for data: redirects, which replies are accepted, what a refusal
 * means.
 *
 * Nothing is written before the reply's headers prove that its body is the bytes asked for.
 */
#include "download_fetch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "libckpt/clock.h"
#include "libckpt/size.h"

enum {
    SPLIT_MIN = 4 << 20,
    MUCH_BYTES = 1 << 20,        /* this many new bytes are progress, however the transfer ended */
    HOPS_MAX = 10
};

/* One request: for a segment, or to resolve the URL of the data. */
typedef struct {
    fetcher *f;
    dfile *file;
    segment *segment;            /* NULL: only resolve the URL, by HEAD */
    http_transfer *http;
    char *url;
    unsigned hops;
    unsigned generation;         /* generation of the file's URL that it was sent to */
    int in_use;
    hub_bucket bucket;
    uint64_t range_first;
    uint64_t range_end;          /* requested; 0: no range */
    uint64_t skip_bytes;         /* of a body without range: already received */
    uint64_t accept_bytes;       /* of the body, at most */
    uint64_t got_bytes;          /* of the body */
    uint64_t new_bytes;          /* of those, written */
    double begin;
    int is_accepted;
    int write_failed;
    fetch_outcome refusal;       /* of a reply that was refused because of its headers */
    ckpt_error err;              /* why it was refused or could not be written; code 0: neither */
} transfer;

struct fetcher {
    download_env *env;
    fetch_done *done;
    void *context;
    unsigned busy_count;
    transfer transfers[CONNECTIONS_MAX];
};

static ckpt_code send_request(transfer *t, ckpt_error *err);

static hub *hub_of(const transfer *t)
{
    return t->f->env->options.h;
}

static void release(transfer *t)
{
    free(t->url);
    t->url = NULL;
    t->in_use = 0;
    t->http = NULL;
    if (t->segment == NULL && t->file->state == DOWNLOAD_RESOLVING)
        t->file->state = DOWNLOAD_ACTIVE;
    t->f->busy_count--;
    t->file->active->running_count--;
}

/* ---- reporting the end ---- */

/*
 * Remove the transfer before reporting its end: the callback may end the file, which must have no
 * transfers then.
 */
static void finish(transfer *t, fetch_result result)
{
    const fetcher *f = t->f;

    result.file = t->file;
    release(t);
    f->done(f->context, &result);
}

static void finish_refused(transfer *t, const ckpt_error *err)
{
    finish(t, (fetch_result){ .outcome = FETCH_REFUSED, .err = err });
}

static void finish_again(transfer *t, int is_failure, int is_pushed_back)
{
    finish(t, (fetch_result){ .outcome = FETCH_AGAIN,
                              .is_failure = is_failure,
                              .is_pushed_back = is_pushed_back });
}

/* ---- the reply's headers ---- */

static http_verdict refuse(transfer *t, const char *what)
{
    char shown[300];

    hub_show_url(t->url, shown, sizeof shown);
    hub_fail(HUB_INTEGRITY, &t->err, "cannot use the reply for '%s' from '%s': %s",
             t->file->want->path, shown, what);
    t->refusal = FETCH_REFUSED;
    return HTTP_REFUSE;
}

static int is_hub(const transfer *t)
{
    return hub_same_origin(t->url, hub_of(t)->endpoint);
}

/* The data host's identifier (ETag) of the object must not change under one URL. */
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
    t->skip_bytes = t->segment->at - first;
    t->accept_bytes = size;
    t->is_accepted = 1;
    return HTTP_TAKE;
}

static http_verdict bad_range(transfer *t, const char *what)
{
    const http_verdict verdict = refuse(t, what);

    t->refusal = FETCH_BAD_RANGE;
    return verdict;
}

/* Check that a 206, or a 200 with or without Content-Range, is what was requested. */
static http_verdict judge_body(transfer *t, const http_reply *reply)
{
    const hub_ask ask = { t->range_first, t->range_end, t->file->want->size_bytes };
    const char *complaint = NULL;
    hub_body body;

    switch (hub_judge_body(reply, &ask, &body, &complaint)) {
    case HUB_BODY_GOOD:
        return take_from(t, body.first, body.size_bytes);
    case HUB_BODY_IS_WHOLE:
        t->refusal = FETCH_NO_RANGE;
        return HTTP_REFUSE;
    default:
        return bad_range(t, complaint);
    }
}

static http_verdict on_head(void *context, const http_reply *reply)
{
    transfer *t = context;
    const unsigned status = http_status(reply);
    const char *wrong =
        status < 400 && is_hub(t)
            ? hub_contradiction(t->f->env->options.listing, t->file->want, reply)
            : NULL;

    if (wrong != NULL)
        return refuse(t, wrong);
    if (status != 200 && status != 206)
        return HTTP_KEEP;
    if (t->segment == NULL)
        return HTTP_KEEP;
    if (etag_differs(t, reply)) {
        t->refusal = FETCH_CHANGED;
        return HTTP_REFUSE;
    }
    return judge_body(t, reply);
}

/* ---- the body ---- */

static int on_data(void *context, const void *bytes, size_t size)
{
    transfer *t = context;
    segment *s = t->segment;
    size_t use = (size_t)size_min(size, t->accept_bytes - t->got_bytes);
    const int is_surplus = use < size;
    size_t skip;

    t->f->env->stats.fetched_bytes += size;
    t->got_bytes += use;
    skip = (size_t)size_min(use, t->skip_bytes);
    t->skip_bytes -= skip;
    use = (size_t)size_min(use - skip, s->end - s->at);
    if (use > 0) {
        if (file_write(t->file, s, (const char *)bytes + skip, use, &t->err) != CKPT_OK) {
            t->write_failed = 1;
            return 0;
        }
        t->new_bytes += use;
    }
    /* A segment that was split ends before the end of the reply. */
    return !is_surplus && !(s->at == s->end && t->got_bytes < t->accept_bytes);
}

/* ---- the end ---- */

/* The URL of the data is known: at another host, or at the hub itself. */
static void follow(transfer *t, const http_result *result)
{
    dfile *file = t->file;
    const hub *h = hub_of(t);
    char *to = NULL;
    ckpt_error err;

    if (hub_redirect(h, t->url, result->reply, &to, &err) != CKPT_OK || ++t->hops > HOPS_MAX) {
        if (t->hops > HOPS_MAX)
            hub_fail(HUB_NETWORK, &err, "too many redirects for '%s'", file->want->path);
        free(to);
        finish_refused(t, &err);
        return;
    }
    if (is_hub(t) && !hub_same_origin(to, h->endpoint)) {
        file_set_url(file, strdup(to));
        t->generation = file->active->generation;
        if (t->segment == NULL) {
            free(to);
            finish(t, (fetch_result){ .outcome = FETCH_MOVED });
            return;
        }
    }
    free(t->url);
    t->url = to;
    if (send_request(t, &err) != CKPT_OK)
        finish_refused(t, &err);
}

/*
 * A data host refuses a URL: it may have expired. Many transfers of a file use the same URL and
 * are all refused when it expires: the first one reports it; the others, which were sent to the
 * same URL (its generation), are only retried.
 */
static void finish_stale(transfer *t, const http_result *result)
{
    const active *a = t->file->active;
    const unsigned status = http_status(result->reply);
    hub_url host = { 0 };
    ckpt_error err;

    if (t->generation != a->generation || a->url == NULL) {
        finish_again(t, 0, 0);
        return;
    }
    hub_parse_url(t->url, &host);
    hub_fail(HUB_NETWORK, &err, "'%s' refuses a fresh URL of '%s': %u %.300s", host.host,
             t->file->want->path, status, result->text);
    finish(t, (fetch_result){ .outcome = FETCH_STALE,
                              .host = host.host,
                              .status = status,
                              .err = &err });
}

static void on_status(transfer *t, const http_result *result)
{
    const hub_file *want = t->file->want;
    const unsigned status = http_status(result->reply);
    const char *text = http_header(result->reply, "Content-Range");
    hub_content_range range = { 0 };
    ckpt_error err;

    if (hub_is_transient(status)) {
        finish_again(t, status != 429, 1);       /* waiting does not count as a failure */
    } else if (status == 416 && text != NULL && hub_parse_content_range(text, &range) &&
               range.has_total && range.total != want->size_bytes &&
               (t->file->refreshes > 0 || is_hub(t))) {
        hub_fail(HUB_INTEGRITY, &err,
                 "'%s' has a different size than listed: expected %" PRIu64 " bytes, got %" PRIu64,
                 want->path, want->size_bytes, range.total);
        finish_refused(t, &err);
    } else if (status == 416 && text != NULL && range.total == want->size_bytes) {
        finish_again(t, 1, 0);
    } else if (!is_hub(t)) {
        finish_stale(t, result);
    } else {
        hub_refusal(hub_of(t), result, want->path, &err);
        finish_refused(t, &err);
    }
}

/* Refused by us, for a reason recorded when the headers came or while writing. */
static void finish_unwanted(transfer *t)
{
    const ckpt_error err = t->err;       /* t may be reused by another transfer before it is read */

    finish(t, (fetch_result){ .outcome = t->write_failed ? FETCH_REFUSED : t->refusal,
                              .is_failure = 1,
                              .err = &err });
}

/* Journal the received bytes and release the segment. 1: it is complete. */
static int settle(transfer *t)
{
    segment *s = t->segment;

    if (s == NULL)
        return 0;
    segment_stop(s);
    if (!t->write_failed && file_note(t->file, s, &t->err) != CKPT_OK)
        t->write_failed = 1;
    file_advance(t->file);
    return s->state == SEGMENT_DONE && !t->write_failed;
}

static void on_done(void *context, const http_result *result)
{
    transfer *t = context;
    const unsigned status = http_status(result->reply);
    ckpt_error err;

    if (status != 0)
        hub_note_limits(hub_of(t), t->bucket, result->reply);
    if (settle(t)) {
        finish(t, (fetch_result){ .outcome = FETCH_GOT });
    } else if (t->write_failed || (result->outcome == HTTP_REFUSED && !t->is_accepted)) {
        finish_unwanted(t);
    } else if (result->outcome == HTTP_IMPOSSIBLE) {
        hub_fail(HUB_NETWORK, &err, "cannot fetch '%s': %s", t->file->want->path, result->problem);
        finish_refused(t, &err);
    } else if (result->outcome != HTTP_DONE) {
        file_set_problem(t->file, result->problem);
        /* A transfer that made progress is resumed at once. */
        finish_again(t, t->new_bytes < MUCH_BYTES, 1);
    } else if (status >= 300 && status < 400) {
        if (t->segment != NULL)
            t->segment->state = SEGMENT_RUNNING;
        follow(t, result);
    } else if (status >= 400) {
        on_status(t, result);
    } else if (t->segment == NULL) {
        file_set_url(t->file, t->url);           /* the hub serves the data itself */
        t->url = NULL;
        finish(t, (fetch_result){ .outcome = FETCH_MOVED });
    } else {
        finish_again(t, t->new_bytes == 0, 0);   /* the reply ended early but without an error */
    }
}

/* ---- starting requests ---- */

static ckpt_code send_request(transfer *t, ckpt_error *err)
{
    hub *h = hub_of(t);
    const int at_hub = is_hub(t);
    const int wants_range = t->segment != NULL && !t->file->is_single &&
                            (!at_hub || !h->kind->head_first || t->file->active->url != NULL);
    char range[48];
    hub_headers headers;
    http_request request = { .url = t->url,
                             .is_head = t->segment == NULL,
                             .fresh = t->file->rounds > 0,
                             .context = t,
                             .head = on_head,
                             .data = on_data,
                             .done = on_done };

    hub_make_headers(h, t->url, &headers);
    request.headers = headers.lines;
    t->bucket = at_hub ? HUB_RESOLVERS : HUB_DATA;
    t->range_end = 0;
    if (wants_range) {
        t->range_first = t->segment->at;
        t->range_end = t->segment->end;
        snprintf(range, sizeof range, "%" PRIu64 "-%" PRIu64, t->range_first, t->range_end - 1);
        request.range = range;
    }
    t->is_accepted = t->write_failed = 0;
    t->refusal = FETCH_AGAIN;
    t->err.code = CKPT_OK;
    t->begin = clock_seconds();
    t->got_bytes = t->new_bytes = t->skip_bytes = t->accept_bytes = 0;
    h->request_count++;
    return http_start(h->http, &request, &t->http, err);
}

ckpt_code fetch_start(fetcher *f, dfile *file, segment *s, ckpt_error *err)
{
    const download_options *options = &f->env->options;
    hub *h = options->h;
    active *a = file->active;
    transfer *t = f->transfers;
    ckpt_code code;

    while (t->in_use)
        t++;
    memset(t, 0, sizeof *t);
    t->f = f;
    t->file = file;
    t->segment = s;
    t->generation = a->generation;
    t->url = a->url != NULL ? strdup(a->url) : h->kind->file_url(h, options->listing, file->want);
    if (t->url == NULL)
        return ckpt_fail_memory(err, "an address", strlen(file->want->path));
    t->in_use = 1;
    f->busy_count++;
    a->running_count++;
    if (f->busy_count > f->env->stats.connections_most)
        f->env->stats.connections_most = f->busy_count;
    if (s != NULL)
        s->state = SEGMENT_RUNNING;
    if ((code = send_request(t, err)) != CKPT_OK)
        release(t);
    return code;
}

void fetch_cancel(fetcher *f, const dfile *file)
{
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        transfer *t = &f->transfers[i];

        if (!t->in_use || t->file != file)
            continue;
        http_cancel(hub_of(t)->http, t->http);
        if (t->segment != NULL) {
            file_note(t->file, t->segment, NULL);
            segment_stop(t->segment);
        }
        release(t);
    }
}

/* ---- transfers in progress ---- */

unsigned fetch_count(const fetcher *f)
{
    return f->busy_count;
}

/* Estimated remaining seconds of a transfer. */
static double time_left(const transfer *t)
{
    const double age = clock_seconds() - t->begin;

    if (t->got_bytes == 0)
        return age;
    return (double)(t->segment->end - t->segment->at) * age / (double)t->got_bytes;
}

segment *fetch_largest(const fetcher *f, const dfile *file)
{
    static const double WORTHWHILE_SECONDS = 2;
    segment *largest = NULL;

    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        const transfer *t = &f->transfers[i];
        segment *s = t->segment;

        if (t->in_use && t->file == file && s != NULL && s->end - s->at >= 2 * SPLIT_MIN &&
            time_left(t) > WORTHWHILE_SECONDS &&
            (largest == NULL || s->end - s->at > largest->end - largest->at))
            largest = s;
    }
    return largest;
}

ckpt_code fetch_open(download_env *env, fetch_done *done, void *context, fetcher **out,
                     ckpt_error *err)
{
    fetcher *f = *out = calloc(1, sizeof *f);

    if (f == NULL)
        return ckpt_fail_memory(err, "transfers", sizeof *f);
    f->env = env;
    f->done = done;
    f->context = context;
    return CKPT_OK;
}

void fetch_close(fetcher *f)
{
    free(f);
}
