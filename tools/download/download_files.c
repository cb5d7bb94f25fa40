/* download_files.c: one file in flight: its partial, its segments, its hash. */
#include "download_files.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "libckpt/clock.h"
#include "libckpt/size.h"

enum {
    NOTE_BYTES_MIN = 64 << 10,   /* journaled at this interval, and at most this many times: */
    NOTE_BYTES_MAX = 8 << 20,
    NOTE_COUNT = 16384,
    PROGRESS_BYTES = 1 << 20,    /* this many bytes reset the count of failures */
    REFRESHES_MAX = 5,
    SHORT_LIFE_SECONDS = 240
};

/* ---- segments ---- */

/* Segments of the holes that earlier runs left. */
static segment **add_hole(segment **link, uint64_t at, uint64_t end, uint64_t segment_bytes)
{
    while (at < end) {
        segment *s = calloc(1, sizeof *s);

        if (s == NULL)
            return NULL;
        s->at = s->noted = at;
        s->end = size_min(end, at + segment_bytes);
        at = s->end;
        *link = s;
        link = &s->next;
    }
    return link;
}

static void free_segments(segment *s)
{
    while (s != NULL) {
        segment *next = s->next;

        free(s);
        s = next;
    }
}

static uint64_t segment_bytes(const dfile *file)
{
    const uint64_t mib = 1 << 20;
    const uint64_t size = file_end_bytes(file->want);
    const download_options *options = &file->env->options;
    uint64_t bytes = size_div_up(size, 4 * (uint64_t)options->connection_count);

    if (file->is_single)
        return size_max(size, 1);
    if (options->segment_bytes != 0)
        return options->segment_bytes;
    if (size < SMALL_BYTES)
        return size_max(size, 1);
    bytes = size_max(SEGMENT_MIN, size_min(SEGMENT_MAX, bytes));
    return size_div_up(bytes, mib) * mib;
}

static ckpt_code make_segments(dfile *file, const partial_spans *there, ckpt_error *err)
{
    const uint64_t size = file_end_bytes(file->want);
    const uint64_t bytes_each = segment_bytes(file);
    active *a = file->active;
    segment **link = &a->segments;
    uint64_t at = 0;

    for (size_t i = 0; i < there->count && link != NULL; i++) {
        link = add_hole(link, at, size_min(size, there->items[i].begin), bytes_each);
        at = there->items[i].end;
    }
    if (link != NULL)
        link = add_hole(link, at, size, bytes_each);
    if (link == NULL)
        return ckpt_fail_memory(err, "the segments of a file", sizeof(segment));
    a->first_open = a->segments;
    return CKPT_OK;
}

static void drop_segments(active *a)
{
    free_segments(a->segments);
    a->segments = a->first_open = NULL;
}

/* Split `s` at `at`; the second part becomes a new segment after it. */
static segment *cut(segment *s, uint64_t at)
{
    segment *rest = calloc(1, sizeof *rest);

    if (rest == NULL)
        return NULL;
    rest->at = rest->noted = at;
    rest->end = s->end;
    rest->next = s->next;
    s->end = at;
    s->next = rest;
    return rest;
}

segment *segment_split(segment *s)
{
    return cut(s, s->end - (s->end - s->at) / 2);
}

void segment_stop(segment *s)
{
    s->state = s->at == s->end ? SEGMENT_DONE : SEGMENT_FREE;
}

/* Use smaller segments from now on; 0: they already have the minimum size. */
static int halve_segments(dfile *file)
{
    uint64_t most = 0;

    for (const segment *s = file->active->first_open; s != NULL; s = s->next)
        if (s->state == SEGMENT_FREE)
            most = size_max(most, s->end - s->at);
    if (most <= SEGMENT_MIN)
        return 0;
    most = size_max(SEGMENT_MIN, most / 2);
    for (segment *s = file->active->first_open; s != NULL; s = s->next)
        if (s->state == SEGMENT_FREE && s->end - s->at > most)
            cut(s, s->at + most);
    return 1;
}

/* Data received beyond the first missing byte is fetched again. */
void file_go_single(dfile *file)
{
    segment *rest = file->active->first_open;
    const uint64_t before = file_present_bytes(file);

    if (file->is_single || rest == NULL)
        return;
    file->is_single = 1;
    free_segments(rest->next);
    rest->next = NULL;
    rest->end = file_end_bytes(file->want);
    rest->state = SEGMENT_FREE;
    file->env->stats.done_bytes -= before - file_present_bytes(file);
}

uint64_t file_end_bytes(const hub_file *file)
{
    return file->head_bytes == 0 ? file->size_bytes
                                 : size_min(file->size_bytes, file->head_bytes);
}

uint64_t file_present_bytes(const dfile *file)
{
    uint64_t missing = 0;

    if (file->active == NULL)
        return file->state == DOWNLOAD_DONE || file->state == DOWNLOAD_KEPT
                   ? file_end_bytes(file->want) : 0;
    for (const segment *s = file->active->segments; s != NULL; s = s->next)
        missing += s->end - s->at;
    return file_end_bytes(file->want) - missing;
}

/* ---- starting ---- */

static ckpt_code begin_hash(dfile *file, ckpt_error *err)
{
    active *a = file->active;
    ckpt_code code;

    a->job.file = file->want;
    a->job.from = a->partial;
    a->job.owner = file;
    code = hash_begin(&a->job, err);
    a->has_job = code == CKPT_OK;
    return code;
}

static void end_hash(dfile *file)
{
    if (file->active->has_job)
        hash_end(file->env->pool, &file->active->job);
    file->active->has_job = 0;
}

/* Hash the existing file. */
static ckpt_code begin_check(dfile *file, ckpt_error *err)
{
    const ckpt_code code = begin_hash(file, err);

    file->state = DOWNLOAD_CHECKING;
    if (code == CKPT_OK)
        hash_advance(file->env->pool, &file->active->job, file->want->size_bytes);
    return code;
}

static ckpt_code begin_partial(dfile *file, ckpt_error *err)
{
    const download_options *options = &file->env->options;
    download_stats *stats = &file->env->stats;
    active *a = file->active;
    const partial_place at = place_partial(options->where, file->want);
    partial_spans there;
    ckpt_code code;

    if ((options->adopt && (code = place_adopt(options->where, file->want, err)) != CKPT_OK) ||
        (code = partial_open(&at, file->want, &a->partial, &there, err)) != CKPT_OK)
        return code;
    if (options->force && there.count > 0) {
        code = partial_restart(a->partial, err);
        there.count = 0;
    }
    if (code == CKPT_OK)
        code = make_segments(file, &there, err);
    free(there.items);
    if (code != CKPT_OK || (code = begin_hash(file, err)) != CKPT_OK)
        return code;
    stats->reused_bytes += file_present_bytes(file);
    stats->done_bytes += file_present_bytes(file);
    file->state = DOWNLOAD_ACTIVE;
    file->last_byte = clock_seconds();
    file_advance(file);
    return CKPT_OK;
}

ckpt_code file_begin(dfile *file, ckpt_error *err)
{
    const download_options *options = &file->env->options;
    place *where = options->where;
    place_state there = PLACE_ABSENT;

    if (file->active == NULL) {
        if ((file->active = calloc(1, sizeof *file->active)) == NULL)
            return ckpt_fail_memory(err, "a file in flight", sizeof *file->active);
        file->active->lock_fd = -1;
        file->active->job.fd = -1;
    }
    end_hash(file);              /* of a check */
    if (!file->is_checked)
        there = place_look(where, file->want, err);
    if (there == PLACE_BLOCKED || there == PLACE_UNREADABLE)
        return err->code;
    if (options->force)          /* an existing file is ignored, but may still be in the way */
        there = PLACE_ABSENT;
    if (there == PLACE_UNKNOWN || (there != PLACE_ABSENT && options->verify))
        return begin_check(file, err);
    if (there != PLACE_ABSENT) {
        const ckpt_code code = there == PLACE_TRUSTED ? place_keep(where, file->want, err)
                                                      : place_record(where, file->want, err);

        if (code == CKPT_OK)
            file_end(file, DOWNLOAD_KEPT);
        return code;
    }
    if (options->is_offline)
        return hub_fail(file->is_checked ? HUB_INTEGRITY : HUB_NETWORK, err,
                        "'%s' is %s, and HF_HUB_OFFLINE is set", file->want->path,
                        file->is_checked ? "not as listed" : "missing");
    if (file->active->lock_fd < 0 && !place_lock(where, file->want, &file->active->lock_fd)) {
        if (file->state != DOWNLOAD_LOCKED && !options->h->options.is_quiet)
            fprintf(stderr, "waiting: another process is downloading '%s'\n", file->want->path);
        file->state = DOWNLOAD_LOCKED;
        file->not_before = clock_seconds() + 1;
        return CKPT_OK;
    }
    return begin_partial(file, err);
}

/* ---- bytes ---- */

/* Bounds what a kill costs per connection and the number of lines in the journal. */
static uint64_t note_bytes(uint64_t size)
{
    return size_max(NOTE_BYTES_MIN, size_min(NOTE_BYTES_MAX, size / NOTE_COUNT));
}

ckpt_code file_note(dfile *file, segment *s, ckpt_error *err)
{
    const uint64_t begin = s->noted;

    s->noted = s->at;
    return partial_note(file->active->partial, begin, s->at, err);
}

/*
 * Data is written before it is journaled, never the other way round: a kill in between loses
 * received data but never claims data that is missing.
 */
ckpt_code file_write(dfile *file, segment *s, const void *bytes, size_t size, ckpt_error *err)
{
    active *a = file->active;
    ckpt_code code = partial_write(a->partial, s->at, bytes, size, err);

    if (code != CKPT_OK)
        return code;
    s->at += size;
    file->last_byte = clock_seconds();
    file->env->stats.done_bytes += size;
    a->progress_bytes += size;
    if (a->progress_bytes >= PROGRESS_BYTES)
        file->failures = file->refreshes = 0;
    if ((s->at == s->end || s->at - s->noted >= note_bytes(file->want->size_bytes)) &&
        (code = file_note(file, s, err)) == CKPT_OK)
        file_advance(file);
    return code;
}

void file_advance(dfile *file)
{
    active *a = file->active;

    while (a->first_open != NULL && a->first_open->state == SEGMENT_DONE)
        a->first_open = a->first_open->next;
    if (a->first_open == NULL)
        file->state = DOWNLOAD_HASHING;
    /* Hash only what is journaled: once the last byte is hashed, the file is renamed and the
     * journal removed, and a thread that has yet to write to the journal would think another
     * process removed it. */
    hash_advance(file->env->pool, &a->job,
                 a->first_open == NULL ? file_end_bytes(file->want) : a->first_open->noted);
}

/* ---- the URL of the data ---- */

void file_set_url(dfile *file, char *url)
{
    active *a = file->active;

    if (url == NULL)
        return;
    free(a->url);
    a->url = url;
    a->generation++;
    a->url_expiry = hub_url_expiry(url);
    /* A URL valid only for minutes is used until it is refused, so that clock differences do no
     * harm. */
    if (a->url_expiry < (int64_t)time(NULL) + SHORT_LIFE_SECONDS)
        a->url_expiry = 0;
}

void file_forget_url(dfile *file)
{
    free(file->active->url);
    file->active->url = NULL;
}

int file_url_is_old(const dfile *file)
{
    const active *a = file->active;

    return a->url != NULL && a->url_expiry != 0 && (int64_t)time(NULL) > a->url_expiry - 120;
}

int file_lose_url(dfile *file, const char *host, unsigned status)
{
    active *a = file->active;

    /* Some data hosts refuse ranges that they consider too large with a plain 400. From the second
     * 400 on, smaller ranges are tried as long as possible, and the count of URLs starts over. */
    if (status == 400 && ++file->bad_requests >= 2 && halve_segments(file)) {
        file->bad_requests = 0;
        file->refreshes = 0;
    }
    /* The same host refused a fresh URL again: two more tries. If each URL leads to a different
     * host, another one may work. */
    if (++file->refreshes > (a->old_host != NULL && strcmp(a->old_host, host) == 0
                                 ? 2 : REFRESHES_MAX))
        return 0;
    free(a->old_host);
    a->old_host = strdup(host);
    file_forget_url(file);
    return 1;
}

/* ---- failures ---- */

void file_set_problem(dfile *file, const char *text)
{
    free(file->error);
    file->error = strdup(text);
}

/*
 * When a connection breaks, up to 64 transfers of a file fail within a second. Counted one by one
 * they would use up all tries before the first wait is over; so failures inside one back-off
 * window count once. The count is reset as soon as PROGRESS_BYTES were received since the last
 * failure (file_write): only tries in a row without progress count, however long the whole
 * download takes. A few bytes per try are not progress, or a server that sends one byte and closes
 * the connection would keep us busy for ever.
 */
ckpt_code file_count_failure(dfile *file, ckpt_error *err)
{
    const unsigned tries_max = file->env->options.h->options.tries_max;

    if (clock_seconds() < file->not_before)
        return CKPT_OK;
    file->active->progress_bytes = 0;
    if (++file->failures < tries_max) {
        file->not_before = clock_seconds() + hub_backoff(file->failures);
        return CKPT_OK;
    }
    return hub_fail(HUB_NETWORK, err, "gave up '%s' after %u %s without progress%s%s",
                    file->want->path, tries_max, tries_max == 1 ? "try" : "tries",
                    file->error != NULL ? ": " : "", file->error != NULL ? file->error : "");
}

ckpt_code file_restart(dfile *file, ckpt_error *err)
{
    const partial_spans nothing = { 0 };
    active *a = file->active;
    ckpt_code code;

    end_hash(file);
    file->env->stats.done_bytes -= file_present_bytes(file);
    drop_segments(a);
    a->etag[0] = '\0';
    file_forget_url(file);
    if ((code = partial_restart(a->partial, err)) != CKPT_OK ||
        (code = make_segments(file, &nothing, err)) != CKPT_OK ||
        (code = begin_hash(file, err)) != CKPT_OK)
        return code;
    file->state = DOWNLOAD_ACTIVE;
    file_advance(file);
    return CKPT_OK;
}

void file_remove_partial(dfile *file)
{
    partial_remove(file->active->partial);
}

/* ---- ending ---- */

static void release(dfile *file)
{
    active *a = file->active;

    if (a == NULL)
        return;
    assert(a->running_count == 0);
    end_hash(file);
    partial_close(a->partial);
    drop_segments(a);
    if (a->lock_fd >= 0)
        close(a->lock_fd);
    free(a->url);
    free(a->old_host);
    free(a);
    file->active = NULL;
}

ckpt_code file_begin_anew(dfile *file, ckpt_error *err)
{
    ckpt_code code;

    release(file);
    file->state = DOWNLOAD_WAITING;
    file->rounds = 0;
    if (file->want->hash == NULL)
        return ckpt_fail_memory(err, "a hash", 0);
    if ((code = place_begin(file->env->options.where, err)) != CKPT_OK)
        return code;
    return file_begin(file, err);
}

/* A run that was killed just after renaming a file left its journal behind. */
static void discard_partial(const dfile *file)
{
    const partial_place at = place_partial(file->env->options.where, file->want);

    if (file->want->size_bytes >= PARTIAL_JOURNAL_BYTES)
        partial_discard(&at, file->want);
}

void file_end(dfile *file, download_state state)
{
    download_stats *stats = &file->env->stats;

    release(file);
    file->state = state;
    stats->ended_count++;
    if (state == DOWNLOAD_FAILED)
        stats->failed_count++;
    if (state == DOWNLOAD_KEPT) {
        discard_partial(file);
        stats->kept_bytes += file->want->size_bytes;
        stats->done_bytes += file->want->size_bytes;
    }
    if (state != DOWNLOAD_FAILED) {
        free(file->error);
        file->error = NULL;
    }
}

void file_fail(dfile *file, const ckpt_error *err)
{
    file_set_problem(file, err->text);
    file->reason = hub_reason_of(err);
    file_end(file, DOWNLOAD_FAILED);
}
