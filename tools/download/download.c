/* download.c: the scheduler: chooses the next file and segment, and acts on the end of a
 * transfer. */
#include "download.h"

#include <inttypes.h>
#include <stdio.h>

#include "download_run.h"
#include "libckpt/clock.h"
#include "libckpt/memory.h"

/* ---- the end of a file ---- */

/* A file that has ended no longer counts as running. */
static void forget(download *d, const dfile *file)
{
    for (size_t i = 0; i < d->running_count; i++)
        if (d->running[i] == file) {
            memmove(&d->running[i], &d->running[i + 1],
                    (d->running_count - i - 1) * sizeof *d->running);
            d->running_count--;
            break;
        }
}

static void end_file(download *d, dfile *file, download_state state)
{
    fetch_cancel(d->fetch, file);
    file_end(file, state);
    forget(d, file);
}

static void fail_file(download *d, dfile *file, const ckpt_error *err)
{
    fetch_cancel(d->fetch, file);
    file_fail(file, err);
    forget(d, file);
    /* A full disk affects every file. Any other failure of one file does not affect the others. */
    if (file->reason == HUB_DISK_FULL && d->fatal.code == CKPT_OK)
        d->fatal = *err;
}

static void begin_file(download *d, dfile *file)
{
    ckpt_error err;

    if (file_begin(file, &err) != CKPT_OK)
        fail_file(d, file, &err);
    else if (file->state == DOWNLOAD_KEPT)       /* already present: started and ended at once */
        forget(d, file);
}

static void restart_file(download *d, dfile *file)
{
    ckpt_error err;

    fetch_cancel(d->fetch, file);
    if (file_restart(file, &err) != CKPT_OK)
        fail_file(d, file, &err);
}

static void go_single(download *d, dfile *file)
{
    fetch_cancel(d->fetch, file);
    file_go_single(file);
}

/* ---- the end of a transfer ---- */

/* A single wrong reply may be a temporary fault of a proxy: wait and ask again. If it persists,
 * request the whole file without a range; only if that fails too is the file given up. */
static void on_bad_range(download *d, dfile *file, const ckpt_error *err)
{
    enum { STRIKES_MAX = 3 };

    if (++file->strikes < STRIKES_MAX) {
        file->not_before = clock_seconds() + hub_backoff(file->strikes);
    } else if (!file->is_single) {
        file->strikes = 0;
        go_single(d, file);
    } else {
        fail_file(d, file, err);
    }
}

static void on_fetched(void *context, const fetch_result *result)
{
    download *d = context;
    dfile *file = result->file;
    ckpt_error err;

    switch (result->outcome) {
    case FETCH_GOT:
        file->failures = 0;
        break;
    case FETCH_MOVED:
        break;
    case FETCH_AGAIN:
        if (result->is_failure && file_count_failure(file, &err) != CKPT_OK)
            fail_file(d, file, &err);
        if (result->is_pushed_back)
            pace_slow_down(d);
        break;
    case FETCH_STALE:
        if (!file_lose_url(file, result->host, result->status))
            fail_file(d, file, result->err);
        break;
    case FETCH_CHANGED:
        file_forget_url(file);
        /* The first time only the URL is discarded, as it may be wrong. If the same happens with a
         * new URL, the object has changed and the data received so far is useless. */
        if (++file->etag_changes % 2 == 0)
            restart_file(d, file);
        break;
    case FETCH_NO_RANGE:
        go_single(d, file);
        break;
    case FETCH_BAD_RANGE:
        on_bad_range(d, file, result->err);
        break;
    case FETCH_REFUSED:
        fail_file(d, file, result->err);
        break;
    }
}

/* ---- opening ---- */

static int by_size(const void *a, const void *b, void *context)
{
    const download *d = context;
    const uint64_t x = d->files[*(const size_t *)a].want->size_bytes;
    const uint64_t y = d->files[*(const size_t *)b].want->size_bytes;

    return x > y ? -1 : x < y;
}

static void wake(void *context)
{
    http_wake(((hub *)context)->http);
}

ckpt_code download_open(const download_options *options, download **out, ckpt_error *err)
{
    const hash_options hashing = { options->where, options->thread_count, wake, options->h };
    hub_listing *listing = options->listing;
    download *d = calloc(1, sizeof *d);
    ckpt_code code;

    *out = d;
    if (d == NULL)
        return ckpt_fail_memory(err, "a download", sizeof *d);
    d->env.options = *options;
    d->counted_bytes = listing->count * (sizeof *d->files + sizeof *d->order);
    if (!memory_take(d->counted_bytes)) {
        const uint64_t wanted_bytes = d->counted_bytes;

        d->counted_bytes = 0;
        return ckpt_fail_memory(err, "a download", wanted_bytes);
    }
    d->files = calloc(listing->count + 1, sizeof *d->files);
    d->order = calloc(listing->count + 1, sizeof *d->order);
    if (d->files == NULL || d->order == NULL)
        return ckpt_fail_memory(err, "a download", listing->count * sizeof *d->files);
    for (size_t i = 0; i < listing->count; i++) {
        if (!listing->files[i].is_selected)
            continue;
        d->order[d->count] = d->count;
        d->files[d->count].env = &d->env;
        d->files[d->count++].want = &listing->files[i];
        d->env.stats.total_bytes += file_end_bytes(&listing->files[i]);
    }
    d->env.stats.file_count = d->count;
    if (!options->in_order)      /* the listing is sorted by path */
        qsort_r(d->order, d->count, sizeof *d->order, by_size, d);
    while (d->small_begin < d->count &&
           (options->in_order ||
            d->files[d->order[d->small_begin]].want->size_bytes >= SMALL_BYTES))
        d->small_begin++;
    d->next_small = d->small_begin;
    if ((code = fetch_open(&d->env, on_fetched, d, &d->fetch, err)) != CKPT_OK)
        return code;
    return hash_pool_open(&hashing, &d->env.pool, err);
}

void download_close(download *d)
{
    if (d == NULL)
        return;
    if (d->env.pool != NULL) {
        while (d->running_count > 0)
            end_file(d, d->running[0], DOWNLOAD_FAILED);
        hash_pool_close(d->env.pool);
    }
    fetch_close(d->fetch);
    for (size_t i = 0; i < d->count; i++)
        free(d->files[i].error);
    hub_listing_release(&d->second);
    memory_give(d->counted_bytes);
    free(d->files);
    free(d->order);
    free(d);
}

const download_stats *download_get_stats(const download *d)
{
    return &d->env.stats;
}

size_t download_count(const download *d)
{
    return d->count;
}

download_status download_at(const download *d, size_t i)
{
    const dfile *file = &d->files[i];
    const download_status out = { file->want, file->state, file_present_bytes(file), file->reason,
                                  file->error };

    return out;
}

/* ---- hashes that are ready ---- */

/* ModelScope does not pin revisions: a file may have changed since it was listed. Ask once more;
 * 1: it did change and starts over. */
static int adopt_change(download *d, dfile *file)
{
    hub *h = d->env.options.h;
    hub_listing *listing = d->env.options.listing;
    hub_file *listed = &listing->files[file->want - listing->files];
    const hub_file *now;
    ckpt_error ignored;
    ckpt_error err;

    if (listing->commit[0] != '\0' || file->is_relisted)
        return 0;
    file->is_relisted = 1;
    if (!d->has_second) {
        d->has_second = 1;
        arena_init(&d->second.memory);
        if (h->kind->list(h, &d->second, &ignored) != CKPT_OK ||
            hub_listing_check(h->options.repo, &d->second, 0, &ignored) != CKPT_OK)
            d->second.count = 0;
    }
    now = hub_listing_find(&d->second, listed->path);
    if (now == NULL || (strcmp(now->hash, listed->hash) == 0 &&
                        now->size_bytes == listed->size_bytes))
        return 0;
    d->env.stats.total_bytes += now->size_bytes - listed->size_bytes;
    file_remove_partial(file);
    d->env.stats.done_bytes -= file_present_bytes(file);
    listed->size_bytes = now->size_bytes;
    listed->hash = arena_strdup(&listing->memory, now->hash, strlen(now->hash));
    fetch_cancel(d->fetch, file);
    if (file_begin_anew(file, &err) != CKPT_OK)
        fail_file(d, file, &err);
    else if (file->state == DOWNLOAD_KEPT)
        forget(d, file);
    return 1;
}

enum { ROUNDS_MAX = 3 };         /* whole files with the wrong hash */

static void on_wrong_hash(download *d, dfile *file, const hash_job *job)
{
    static const char empty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    ckpt_error err;

    if (adopt_change(d, file))
        return;
    if (++file->rounds < ROUNDS_MAX) {
        file->is_single |= file->rounds == ROUNDS_MAX - 1;
        restart_file(d, file);
        return;
    }
    hub_fail(HUB_INTEGRITY, &err, "'%s' has the wrong hash after %d downloads: expected %s, got "
             "%s%s", file->want->path, ROUNDS_MAX, file->want->hash, job->got,
             strcmp(job->got, empty) == 0 ? " (the server sent an empty body)" : "");
    if (!d->env.options.keep_corrupt)
        file_remove_partial(file);
    fail_file(d, file, &err);
}

static void on_checked(download *d, dfile *file, const hash_job *job)
{
    const ckpt_error err = job->err;

    if (job->outcome == HASH_RIGHT) {
        end_file(d, file, DOWNLOAD_KEPT);
    } else if (job->outcome == HASH_FAILED) {
        fail_file(d, file, &err);
    } else {
        file->is_checked = 1;
        begin_file(d, file);
    }
}

static void take_hashes(download *d)
{
    hash_job *job;

    while ((job = hash_take_done(d->env.pool)) != NULL) {
        dfile *file = job->owner;
        const ckpt_error err = job->err;

        if (file->state == DOWNLOAD_CHECKING)
            on_checked(d, file, job);
        else if (job->outcome == HASH_RIGHT)
            end_file(d, file, DOWNLOAD_DONE);
        else if (job->outcome == HASH_WRONG)
            on_wrong_hash(d, file, job);
        else
            fail_file(d, file, &err);
    }
}

/* Of some files only the header was wanted. The received data stays in the partial for later. */
static void take_heads(download *d)
{
    for (size_t i = d->running_count; i-- > 0;) {
        dfile *file = d->running[i];

        if (file->want->head_bytes != 0 && file->state == DOWNLOAD_HASHING &&
            file_end_bytes(file->want) < file->want->size_bytes)
            end_file(d, file, DOWNLOAD_DONE);
    }
}

/* 0: the run must end. */
static int ask_taker(download *d)
{
    const download_taker *taker = d->env.options.taker;

    return taker == NULL || taker->turn(taker->context, d, &d->taken_count);
}

/* ---- what to do next ---- */

/*
 * Free space changes while others use the disk: if the next file does not fit now, it waits, while
 * the files in flight, whose space is reserved, continue. 0: not now.
 */
static int has_room(download *d, const dfile *file)
{
    static const double CHECK_SECONDS = 1;
    static const double WAIT_SECONDS = 600;
    enum { SLACK_BYTES = 16 << 20 };
    const double now = clock_seconds();
    const place *where = d->env.options.where;
    uint64_t free_bytes;

    if (!d->env.options.watch_disk || file->want->size_bytes < SMALL_BYTES)
        return 1;
    if (d->disk_full_since > 0 && now - d->disk_checked < CHECK_SECONDS)
        return 0;
    d->disk_checked = now;
    if ((!d->env.options.force && place_look(where, file->want, NULL) != PLACE_ABSENT) ||
        !place_free_bytes(where, &free_bytes) ||
        place_need_bytes(where, file->want) + SLACK_BYTES <= free_bytes) {
        d->disk_full_since = 0;
        return 1;
    }
    if (d->disk_full_since <= 0) {
        d->disk_full_since = now;
        if (!d->env.options.h->options.is_quiet)
            fprintf(stderr, "disk nearly full, waiting for space for '%s'\n", file->want->path);
    } else if (now - d->disk_full_since > WAIT_SECONDS) {
        hub_fail(HUB_DISK_FULL, &d->fatal, "not enough disk space for '%s' for ten minutes: "
                 "expected %" PRIu64
                 " bytes free, got %" PRIu64, file->want->path,
                 place_need_bytes(where, file->want) + SLACK_BYTES, free_bytes);
    }
    return 0;
}

/*
 * Begin files while there are slots. Of those whose space is reserved only one: until the next turn
 * the transfers of files that were begun before continue, and what they received is hashed.
 * 1: there may be more to begin.
 */
static int start_files(download *d)
{
    size_t small_count = 0;

    for (size_t i = 0; i < d->running_count; i++)
        small_count += d->running[i]->want->size_bytes < SMALL_BYTES;
    while (d->running_count + d->taken_count < d->env.options.worker_count) {
        /* Half of the slots are for small files, so that neither kind waits for the other. */
        const int large_left = d->next_large < d->small_begin;
        const int small_left = d->next_small < d->count;
        const int take_small =
            small_left && (!large_left || small_count < (d->env.options.worker_count + 1) / 2);
        dfile *file;

        if (!small_left && !large_left)
            break;
        file = &d->files[d->order[take_small ? d->next_small : d->next_large]];
        if (!has_room(d, file))
            break;
        *(take_small ? &d->next_small : &d->next_large) += 1;
        small_count += (size_t)take_small;
        d->running[d->running_count++] = file;
        begin_file(d, file);
        if (!take_small)
            return 1;
    }
    return 0;
}

/*
 * The first segment without a transfer, not far beyond the first unfinished one: bytes are hashed
 * from the front, out of the page cache, as soon as there is no hole before them. A segment far
 * ahead would have left the page cache by the time it is hashed. For the same reason no new
 * segment is requested while the hashing threads lag far behind.
 */
static segment *free_segment(const download *d, const dfile *file)
{
    const uint64_t window = d->env.options.sequential ? 1 : (uint64_t)64 * SEGMENT_MAX;
    const uint64_t lag_max = UINT64_C(1) << 30;
    active *a = file->active;

    if (a->first_open == NULL || (file->is_single && a->running_count > 0) ||
        hash_lag_bytes(d->env.pool, &a->job) > lag_max)
        return NULL;
    for (segment *s = a->first_open; s != NULL && s->at - a->first_open->at < window; s = s->next)
        if (s->state == SEGMENT_FREE)
            return s;
    return NULL;
}

/*
 * At the end of the run there are more connections than segments, and the slowest connection would
 * decide how long it takes. So the largest remainder is split in two, and an idle connection takes
 * the second half. The transfer of the first half has requested the whole range; it is stopped
 * when it reaches its new end (on_data), which discards data already in flight. Therefore a
 * remainder that would finish soon anyway is not split (fetch_largest).
 */
static segment *split_one(const download *d, const dfile *file)
{
    segment *largest;

    if (file->is_single || file->active->url == NULL)
        return NULL;
    largest = fetch_largest(d->fetch, file);
    return largest == NULL ? NULL : segment_split(largest);
}

/* Start a request for this file if possible. 1: a request was sent. */
static int start_one(download *d, dfile *file, int may_split)
{
    hub *h = d->env.options.h;
    const active *a = file->active;
    const hub_bucket bucket = a->url == NULL ? HUB_RESOLVERS : HUB_DATA;
    segment *s;
    ckpt_error err;

    if (file_url_is_old(file) && h->kind->head_first && file->refreshes == 0) {
        file_forget_url(file);       /* get a new URL before the old one expires */
        return 0;
    }
    s = free_segment(d, file);
    if (s == NULL && may_split && !d->env.options.sequential)
        s = split_one(d, file);
    if (s == NULL)
        return 0;
    if (hub_delay(h, bucket) > 0)
        return 0;
    if (a->url == NULL && h->kind->head_first && !file->is_single &&
        (file->want->size_bytes >= SMALL_BYTES || file_present_bytes(file) > 0)) {
        file->state = DOWNLOAD_RESOLVING;
        s = NULL;
    } else if (a->url == NULL && a->running_count > 0) {
        return 0;           /* the first segment resolves the URL */
    }
    if (fetch_start(d->fetch, file, s, &err) != CKPT_OK) {
        fail_file(d, file, &err);
        return 0;
    }
    return 1;
}

static void start_requests(download *d, int may_split)
{
    const double now = clock_seconds();

    for (size_t i = 0; i < d->running_count && fetch_count(d->fetch) < pace_limit(d); i++) {
        dfile *file = d->running[i];

        if (file->not_before > now)
            continue;
        if (file->state == DOWNLOAD_LOCKED)
            begin_file(d, file);
        while (i < d->running_count && d->running[i] == file && file->state == DOWNLOAD_ACTIVE &&
               file->not_before <= now && fetch_count(d->fetch) < pace_limit(d) &&
               start_one(d, file, may_split))
            ;
    }
}

/*
 * The last guard against a run that never ends. Every transfer has its own limit (a stalled one is
 * stopped and counts as a failure), but a server can answer every request correctly and still send
 * no useful data for ever. Time that the hub asked us to wait is not silence, so all of it is
 * added to the limit, whichever transfer waited.
 */
static void check_silence(download *d)
{
    static const double SILENCE_SECONDS = 900;
    const double most = SILENCE_SECONDS + d->env.options.h->waited_seconds;
    ckpt_error err;

    for (size_t i = 0; i < d->running_count; i++) {
        dfile *file = d->running[i];

        if ((file->state == DOWNLOAD_ACTIVE || file->state == DOWNLOAD_RESOLVING) &&
            clock_seconds() - file->last_byte > most) {
            hub_fail(HUB_NETWORK, &err, "received no data of '%s' for 15 minutes",
                     file->want->path);
            fail_file(d, file, &err);
            return;
        }
    }
}

ckpt_code download_run(download *d, download_progress *progress, void *context, ckpt_error *err)
{
    const double begin = clock_seconds();
    ckpt_code code = CKPT_OK;

    while (d->env.stats.ended_count < d->count && code == CKPT_OK) {
        int has_more;

        take_hashes(d);
        take_heads(d);
        if (!ask_taker(d))
            break;
        has_more = start_files(d);
        start_requests(d, 0);
        /* Segments are split only if no other file can use the connection. */
        if (d->next_large == d->small_begin && d->next_small == d->count)
            start_requests(d, 1);
        if (d->fatal.code != CKPT_OK)
            break;
        pace_update(d);
        check_silence(d);
        if ((code = hub_check_waiting(d->env.options.h, err)) == CKPT_OK)
            code = http_poll(d->env.options.h->http, has_more ? 0 : 100, err);
        d->env.stats.seconds = clock_seconds() - begin;
        progress(context, d);
        if (code == CKPT_OK && *d->env.options.h->options.stop)
            code = hub_fail_interrupted(err);
    }
    if (code == CKPT_OK && d->fatal.code != CKPT_OK) {
        *err = d->fatal;
        code = d->fatal.code;
    }
    return code;
}
