/*
 * remote_transfer.c: one request for consecutive blocks of a file.
 *
 * No byte reaches a block before the headers of the reply prove that it is the one that was asked
 * for, of the same version of the file as all others. Callbacks run on the session's thread.
 */
#include "remote_transfer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/clock.h"
#include "libckpt/size.h"

enum {
    TRIES_MAX = 6,               /* without a new block */
    STRANGE_TRIES = 3,           /* how many of them a reply that makes no sense costs */
    REFRESHES_MAX = 3,
    HOPS_MAX = 10,
    MUCH_BYTES = 64 << 10        /* so many new bytes are progress, however the transfer ended */
};

static int is_at_hub(const remote_transfer *t)
{
    return hub_same_origin(t->url, t->s->h->endpoint);
}

/* ---- the reply's headers ---- */

/* The transfer is refused, with t->err as the reason. */
static http_verdict refuse(remote_transfer *t, transfer_refusal how)
{
    t->refusal = how;
    return HTTP_REFUSE;
}

static http_verdict refuse_reply(remote_transfer *t, transfer_refusal how, const char *complaint)
{
    char shown[300];

    hub_show_url(t->url, shown, sizeof shown);
    ckpt_fail(&t->err, CKPT_E_FORMAT, "cannot use the reply for '%s' from '%s': %s",
              t->entry->path, shown, complaint);
    return refuse(t, how);
}

/* Another version than `known`. From another host it need not be a change: a web server may
 * redirect to mirrors, of which each has an ETag of its own. */
static http_verdict refuse_version(remote_transfer *t, const char *what,
                                   const remote_origin *known, const char *version)
{
    hub_url here = { 0 };

    hub_parse_url(t->url, &here);
    if (strcmp(here.host, known->host) != 0)
        ckpt_fail(&t->err, CKPT_E_FORMAT, "'%s' comes from servers with different versions of it: "
                  "expected %s '%s' as from '%s', got '%s' from '%s'; use the address of one of "
                  "them, or download it first", t->entry->path, what, known->version, known->host,
                  version, here.host);
    else
        ckpt_fail(&t->err, CKPT_E_FORMAT, "'%s' was changed while it was being read: expected %s "
                  "'%s', got '%s'; run the command again (if that fails, too, the server's mirrors "
                  "differ: download it first)", t->entry->path, what, known->version, version);
    return refuse(t, TRANSFER_FATAL);
}

/* The entry's record of the server that the transfer talks to; NULL: there are too many. */
static remote_origin *origin_of(const remote_transfer *t)
{
    remote_entry *entry = t->entry;
    char name[HUB_HOST_BYTES] = "";
    hub_url url;

    if (!hub_parse_url(t->url, &url))
        return NULL;
    if (!t->s->is_plain)         /* the bytes of a web server are of one version, at any host */
        snprintf(name, sizeof name, "%.*s:%u", (int)sizeof name - 8, url.host, url.port);
    for (unsigned i = 0; i < entry->origin_count; i++)
        if (strcmp(entry->origins[i].origin, name) == 0)
            return &entry->origins[i];
    if (entry->origin_count == REMOTE_ORIGINS)
        return NULL;
    memcpy(entry->origins[entry->origin_count].origin, name, sizeof name);
    return &entry->origins[entry->origin_count++];
}

/* The version that the server gave first, which becomes that of the file if there was none, in
 * *out. 0: there are too many servers. */
static int known_version(remote_transfer *t, const char *version, remote_origin *out)
{
    remote_origin *origin;
    hub_url here = { 0 };

    hub_parse_url(t->url, &here);
    pthread_mutex_lock(&t->s->lock);
    origin = origin_of(t);
    if (origin != NULL && origin->version[0] == '\0') {
        snprintf(origin->version, sizeof origin->version, "%s", version);
        memcpy(origin->host, here.host, sizeof origin->host);
    }
    if (origin != NULL)
        *out = *origin;
    pthread_mutex_unlock(&t->s->lock);
    return origin != NULL;
}

/* One server must always give the same ETag for a file. HTTP_TAKE if it does. */
static http_verdict judge_version(remote_transfer *t, const http_reply *reply)
{
    const char *etag = http_header(reply, "ETag");
    const char *version = etag != NULL ? etag : http_header(reply, "Last-Modified");
    remote_origin known;

    if (version == NULL && t->s->is_plain) {
        ckpt_fail(&t->err, CKPT_E_FORMAT, "'%s': its server sends neither ETag nor Last-Modified, "
                  "so that a change would not be noticed: download it first", t->entry->path);
        return refuse(t, TRANSFER_FATAL);
    }
    if (version == NULL)
        return HTTP_TAKE;
    if (strlen(version) >= sizeof known.version)
        return refuse_reply(t, TRANSFER_FATAL, "its ETag is too long");
    if (!known_version(t, version, &known))
        return refuse_reply(t, TRANSFER_FATAL, "the file came from too many servers to tell "
                            "whether it was changed; download it first");
    if (strcmp(known.version, version) != 0)
        return refuse_version(t, etag != NULL ? "ETag" : "Last-Modified", &known, version);
    return HTTP_TAKE;
}

/* The blocks that were asked for, once the size of the file is known, are not all there. */
static void learn_size(remote_transfer *t, uint64_t total_bytes)
{
    pthread_mutex_lock(&t->s->lock);
    remote_state_learn(t->s, t->entry, total_bytes);
    t->end = size_min(t->end, total_bytes);
    pthread_mutex_unlock(&t->s->lock);
}

/* What is wrong with the length of a reply that claims to have the whole file: a page that asks
 * for a login, or tells an error, is none. Nobody hashes the bytes later. */
static const char *length_complaint(const remote_transfer *t, const http_reply *reply)
{
    const char *length = http_header(reply, "Content-Length");

    if (http_header(reply, "Content-Range") != NULL || !t->entry->is_known)
        return NULL;
    if (length == NULL)
        return "it does not say how long it is";
    return strtoull(length, NULL, 10) == t->entry->file.size_bytes
               ? NULL : "it is not as long as the file";
}

static http_verdict judge_body(remote_transfer *t, const http_reply *reply)
{
    const hub_ask ask = { t->at, t->end, t->entry->is_known ? t->entry->file.size_bytes
                                                            : HUB_TOTAL_UNKNOWN };
    const char *complaint = NULL;
    hub_body body = { .first = 0 };
    const hub_body_verdict verdict = hub_judge_body(reply, &ask, &body, &complaint);

    if (verdict != HUB_BODY_BAD)
        complaint = length_complaint(t, reply);
    if (complaint != NULL)
        return refuse_reply(t, TRANSFER_STRANGE, complaint);
    if (verdict == HUB_BODY_IS_WHOLE && t->at != 0) {
        ckpt_fail(&t->err, CKPT_E_IO, "'%s': its server ignores ranges: it sends the whole file "
                  "when a part is asked for; download it first", t->entry->path);
        return refuse(t, TRANSFER_FATAL);
    }
    if (!t->entry->is_known)
        learn_size(t, body.total_bytes);
    if (t->is_probe) {
        t->is_answered = 1;
        return HTTP_REFUSE;                      /* the byte is of no interest */
    }
    t->skip_bytes = t->at - body.first;
    t->left_bytes = size_min(body.first + body.size_bytes, t->end) - t->at;
    return HTTP_TAKE;
}

/* 1 if the header has the hash, or the object id, that the hub lists of the file. */
static int names_file(const http_reply *reply, const char *header, const hub_file *file)
{
    const char *text = http_header(reply, header);
    char etag[REMOTE_VERSION_BYTES];

    if (text == NULL)
        return 0;
    hub_etag(text, etag, sizeof etag);
    return strcmp(etag, file->hash) == 0 || (file->oid != NULL && strcmp(etag, file->oid) == 0);
}

/* 1 if the reply has bytes of the file, or leads to another host that has them. */
static int leads_to_bytes(const remote_transfer *t, const http_reply *reply)
{
    const unsigned status = http_status(reply);
    const char *location = http_header(reply, "Location");
    char *to = status >= 300 && status < 400 && location != NULL
                   ? hub_resolve_url(t->url, location) : NULL;
    const int leads = status == 200 || status == 206 ||
                      (to != NULL && !hub_same_origin(to, t->s->h->endpoint));

    free(to);
    return leads;
}

/*
 * Nobody hashes a range, so the hub must say of which commit, or of which content, its bytes are:
 * a mirror that only forwards bytes may have those of another commit. NULL, or a complaint.
 */
static const char *hub_complaint(const remote_transfer *t, const http_reply *reply)
{
    const hub_file *file = &t->entry->file;
    const char *wrong;

    if (http_status(reply) >= 400 || t->s->is_plain || !is_at_hub(t))
        return NULL;
    if ((wrong = hub_contradiction(&t->s->listing, file, reply)) != NULL)
        return wrong;
    if (t->s->listing.commit[0] == '\0' || http_header(reply, "X-Repo-Commit") != NULL ||
        names_file(reply, "X-Linked-Etag", file) || names_file(reply, "ETag", file) ||
        !leads_to_bytes(t, reply))
        return NULL;
    return "it names neither the commit nor the file's hash (X-Repo-Commit, X-Linked-Etag, ETag), "
           "so another version would not be noticed: use ckpt-download, which hashes what it gets";
}

static http_verdict on_head(void *context, const http_reply *reply)
{
    remote_transfer *t = context;
    const unsigned status = http_status(reply);
    const char *wrong = hub_complaint(t, reply);

    if (wrong != NULL)
        return refuse_reply(t, TRANSFER_FATAL, wrong);
    if (status != 200 && status != 206)
        return HTTP_KEEP;
    if (judge_version(t, reply) != HTTP_TAKE)
        return HTTP_REFUSE;
    return judge_body(t, reply);
}

/* ---- the body ---- */

/* The block of `at` is full. */
static void finish_block(remote_transfer *t)
{
    remote_block *block = t->blocks[t->block_at++];

    pthread_mutex_lock(&t->s->lock);
    block->state = BLOCK_READY;
    remote_cache_touch(&t->s->cache, block);
    pthread_cond_broadcast(&t->s->changed);
    pthread_mutex_unlock(&t->s->lock);
    t->entry->failure_count = 0;
    t->entry->refresh_count = 0;
}

static int on_data(void *context, const void *bytes, size_t size)
{
    remote_transfer *t = context;
    const unsigned char *from = bytes;
    const size_t skip = (size_t)size_min(size, t->skip_bytes);

    t->skip_bytes -= skip;
    from += skip;
    size -= skip;
    while (size > 0 && t->left_bytes > 0) {
        remote_block *block = t->blocks[t->block_at];
        const size_t use = (size_t)size_min(size_min(size, t->left_bytes),
                                            block->size_bytes - block->filled_bytes);

        memcpy(block->bytes + block->filled_bytes, from, use);
        block->filled_bytes += use;
        t->at += use;
        t->left_bytes -= use;
        t->new_bytes += use;
        from += use;
        size -= use;
        if (block->filled_bytes == block->size_bytes)
            finish_block(t);
    }
    return size == 0;            /* else the body is longer than it said, or than we need */
}

/* ---- the end ---- */

/* Blocks that are not full go back into the queue. */
static void give_blocks_back(remote_transfer *t)
{
    for (unsigned i = t->block_at; i < t->block_count; i++) {
        remote_block *block = t->blocks[i];

        if (block->state != BLOCK_LOADING)
            continue;
        block->state = BLOCK_QUEUED;
        if (block->pin_count == 0 && (t->entry->failure != NULL || t->entry->is_absent ||
                                      block->size_bytes == 0))
            remote_cache_free(block);
    }
    t->block_count = t->block_at = 0;
}

void remote_transfer_release(remote_transfer *t)
{
    give_blocks_back(t);
    if (t->is_probe) {
        t->entry->probe = PROBE_NONE;
        t->entry->probe_count++;
    }
    if (t->is_first_answer)
        t->entry->is_resolving = 0;
    free(t->url);
    memset(t, 0, sizeof *t);
}

/* Readers may wait for a place, or for the end of a probe. */
static void end_transfer(remote_transfer *t)
{
    remote_session *s = t->s;

    pthread_mutex_lock(&s->lock);
    remote_transfer_release(t);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void fail_file(remote_transfer *t, const ckpt_error *err)
{
    pthread_mutex_lock(&t->s->lock);
    remote_state_fail(t->s, t->entry, err);
    pthread_mutex_unlock(&t->s->lock);
    end_transfer(t);
}

/* No file can be read: the transfers of others would wait, and nobody would end them. */
static void fail_all(remote_transfer *t, const ckpt_error *err)
{
    pthread_mutex_lock(&t->s->lock);
    remote_state_fail(t->s, NULL, err);
    pthread_mutex_unlock(&t->s->lock);
    end_transfer(t);
}

/* A probe that has not ended is wanted again. */
static void repeat_probe(remote_transfer *t)
{
    pthread_mutex_lock(&t->s->lock);
    if (t->is_probe)
        t->entry->probe = PROBE_WANTED;
    t->is_probe = 0;
    pthread_mutex_unlock(&t->s->lock);
}

/* Try again, unless that was tried too often without getting on. `tries`: how many this counts. */
static void try_again(remote_transfer *t, unsigned tries, const ckpt_error *err)
{
    remote_entry *entry = t->entry;

    if (t->new_bytes >= REMOTE_BLOCK_BYTES)
        entry->failure_count = 0;
    if (entry->not_before <= clock_seconds())    /* else it failed together with another one */
        entry->failure_count += tries;
    if (entry->failure_count >= TRIES_MAX) {
        fail_file(t, err);
        return;
    }
    entry->not_before = clock_seconds() + hub_backoff(entry->failure_count);
    repeat_probe(t);
    end_transfer(t);
}

/* Follow a redirect. Where the hub sends us is asked directly from now on. */
static void follow(remote_transfer *t, const http_result *result)
{
    remote_session *s = t->s;
    char *to = NULL;
    ckpt_error err;
    ckpt_code code = hub_redirect(s->h, t->url, result->reply, &to, &err);

    if (code == CKPT_OK && ++t->hops > HOPS_MAX)
        code = hub_fail(HUB_NETWORK, &err, "too many redirects for '%s'", t->entry->path);
    if (code == CKPT_OK && is_at_hub(t) && !hub_same_origin(to, s->h->endpoint)) {
        free(t->entry->url);
        t->entry->url = strdup(to);
        t->generation = ++t->entry->generation;
    }
    if (code == CKPT_OK) {
        free(t->url);
        t->url = to;
        pthread_mutex_lock(&s->lock);
        code = remote_transfer_start(t, &err);
        pthread_mutex_unlock(&s->lock);
    } else {
        free(to);
    }
    if (code != CKPT_OK)
        fail_file(t, &err);
}

/* A data host refuses an address: it may have expired, for all requests that were sent to it. The
 * hub gives a new one. */
static void forget_address(remote_transfer *t, const http_result *result)
{
    remote_entry *entry = t->entry;
    hub_url host = { 0 };
    ckpt_error err;

    if (t->generation == entry->generation && entry->url != NULL) {
        free(entry->url);
        entry->url = NULL;
        if (++entry->refresh_count > REFRESHES_MAX) {
            hub_parse_url(t->url, &host);
            hub_fail(HUB_NETWORK, &err, "'%s' refuses a fresh URL of '%s': %u %.300s", host.host,
                     entry->path, http_status(result->reply), result->text);
            fail_file(t, &err);
            return;
        }
    }
    repeat_probe(t);
    end_transfer(t);
}

/* Remember the 403 of a file that is tried: whether it means that there is none is found out by
 * remote_session_find. */
static void note_refusal(remote_transfer *t, const http_result *result)
{
    remote_entry *entry = t->entry;

    pthread_mutex_lock(&t->s->lock);
    entry->is_absent = 1;
    if (entry->refusal == NULL && (entry->refusal = malloc(sizeof *entry->refusal)) != NULL)
        hub_fail(HUB_AUTH, entry->refusal, "'%s': the server answers 403: %.300s", entry->path,
                 result->text);
    pthread_mutex_unlock(&t->s->lock);
}

/* A server without listing does not have the file, or it is empty. 1: that is what the reply
 * says. */
static int settle_unknown(remote_transfer *t, const http_result *result)
{
    const unsigned status = http_status(result->reply);
    const char *text = http_header(result->reply, "Content-Range");
    hub_content_range range = { 0 };

    if (t->entry->is_known)
        return 0;
    if (status == 404 || status == 410) {
        pthread_mutex_lock(&t->s->lock);
        t->entry->is_absent = 1;
        pthread_mutex_unlock(&t->s->lock);
    } else if (status == 403 && (is_at_hub(t) || t->entry->refresh_count == REFRESHES_MAX)) {
        note_refusal(t, result);
    } else if (status == 416 && text != NULL && hub_parse_content_range(text, &range) &&
               range.has_total && range.total == 0) {
        learn_size(t, 0);
    } else {
        return 0;
    }
    end_transfer(t);
    return 1;
}

static void on_status(remote_transfer *t, const http_result *result)
{
    const unsigned status = http_status(result->reply);
    ckpt_error err;

    if (hub_is_transient(status)) {
        hub_fail(HUB_NETWORK, &err, "'%s': the server answers %u: %.300s", t->entry->path, status,
                 result->text);
        try_again(t, status != 429, &err);       /* waiting does not count as a failure */
    } else if (settle_unknown(t, result)) {
        return;
    } else if (status == 416) {
        ckpt_fail(&err, CKPT_E_FORMAT, "'%s' was changed while it was being read: it has fewer "
                  "than the %" PRIu64 " bytes that were expected", t->entry->path,
                  t->entry->file.size_bytes);
        fail_file(t, &err);
    } else if (!is_at_hub(t)) {
        forget_address(t, result);
    } else if (t->s->is_plain) {
        hub_fail(status == 404 ? HUB_NOT_FOUND : HUB_OTHER, &err,
                 "'%s': the server answers %u: %.300s", t->entry->path, status, result->text);
        fail_file(t, &err);
    } else {
        hub_refusal(t->s->h, result, t->entry->path, &err);
        fail_file(t, &err);
    }
}

static void on_unfinished(remote_transfer *t, const http_result *result)
{
    ckpt_error err = t->err;

    if (result->outcome == HTTP_REFUSED && err.code != CKPT_OK) {
        if (t->refusal == TRANSFER_FATAL)
            fail_file(t, &err);
        else
            try_again(t, STRANGE_TRIES, &err);
        return;
    }
    hub_fail(HUB_NETWORK, &err, "cannot read '%s': %s", t->entry->path,
             result->outcome == HTTP_DONE || result->outcome == HTTP_REFUSED
                 ? "the reply is not as long as it says" : result->problem);
    if (result->outcome == HTTP_IMPOSSIBLE)
        fail_file(t, &err);
    else
        try_again(t, t->new_bytes < MUCH_BYTES, &err);
}

static void on_done(void *context, const http_result *result)
{
    remote_transfer *t = context;
    const unsigned status = http_status(result->reply);
    ckpt_error err;

    if (status != 0)
        hub_note_limits(t->s->h, t->bucket, result->reply);
    if (hub_check_waiting(t->s->h, &err) != CKPT_OK) {
        fail_all(t, &err);
        return;
    }
    if ((status == 200 || status == 206) && is_at_hub(t))
        t->entry->is_direct = 1;
    if (t->is_answered || (!t->is_probe && t->at == t->end && t->err.code == CKPT_OK &&
                           (status == 200 || status == 206)))
        end_transfer(t);
    else if (result->outcome != HTTP_DONE || (status >= 200 && status < 300))
        on_unfinished(t, result);
    else if (status >= 300 && status < 400)
        follow(t, result);
    else
        on_status(t, result);
}

/* ---- the request ---- */

/* Where to send the request: where the hub said, or to the hub. */
static char *address_of(const remote_transfer *t)
{
    const hub *h = t->s->h;

    return t->entry->url != NULL ? strdup(t->entry->url)
                                 : h->kind->file_url(h, &t->s->listing, &t->entry->file);
}

static void ask_for_blocks(remote_transfer *t)
{
    const remote_block *first = t->blocks[0];
    const remote_block *last = t->blocks[t->block_count - 1];

    t->at = first->number * REMOTE_BLOCK_BYTES + first->filled_bytes;
    t->end = last->number * REMOTE_BLOCK_BYTES + last->size_bytes;
}

ckpt_code remote_transfer_start(remote_transfer *t, ckpt_error *err)
{
    hub *h = t->s->h;
    char range[48];
    hub_headers headers;
    http_request request = { .range = range,
                             .context = t,
                             .head = on_head,
                             .data = on_data,
                             .done = on_done };

    if (t->url == NULL) {
        t->generation = t->entry->generation;
        if ((t->url = address_of(t)) == NULL)
            return ckpt_fail_memory(err, "an address", strlen(t->entry->path));
        t->is_first_answer = t->entry->url == NULL && !t->entry->is_direct;
        t->entry->is_resolving |= t->is_first_answer;
        if (t->is_probe)
            t->end = 1;
        else
            ask_for_blocks(t);
    }
    t->err.code = CKPT_OK;
    t->refusal = TRANSFER_AGAIN;
    t->bucket = is_at_hub(t) ? HUB_RESOLVERS : HUB_DATA;
    snprintf(range, sizeof range, "%" PRIu64 "-%" PRIu64, t->at, t->end - 1);
    hub_make_headers(h, t->url, &headers);
    request.url = t->url;
    request.headers = headers.lines;
    request.fresh = t->entry->failure_count > 1;
    h->request_count++;
    return http_start(h->http, &request, &t->http, err);
}
