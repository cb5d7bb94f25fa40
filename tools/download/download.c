/* download.c: which file and which piece comes next, and what failures lead to. */
#include "download.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "download_run.h"
#include "libckpt/memory.h"
#include "libckpt/size.h"

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

    *out = d;
    if (d == NULL)
        return ckpt_fail_memory(err, "a download", sizeof *d);
    d->h = options->h;
    d->listing = listing;
    d->where = options->where;
    d->options = *options;
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
        d->files[d->count++].want = &listing->files[i];
        d->stats.total_bytes += file_end_bytes(&listing->files[i]);
    }
    d->stats.file_count = d->count;
    if (!options->in_order)      /* the listing is sorted by path */
        qsort_r(d->order, d->count, sizeof *d->order, by_size, d);
    while (d->small_begin < d->count &&
           (options->in_order ||
            d->files[d->order[d->small_begin]].want->size_bytes >= SMALL_BYTES))
        d->small_begin++;
    d->next_small = d->small_begin;
    return hash_pool_open(&hashing, &d->pool, err);
}

void download_close(download *d)
{
    if (d == NULL)
        return;
    if (d->pool != NULL) {
        while (d->running_count > 0)
            file_end(d, d->running[0], DOWNLOAD_FAILED);
        hash_pool_close(d->pool);
    }
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
    return &d->stats;
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

/* ---- failures ---- */

void file_drop_transfers(download *d, const dfile *file)
{
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        transfer *t = &d->transfers[i];

        if (!t->in_use || t->file != file)
            continue;
        http_cancel(d->h->http, t->http);
        if (t->piece != NULL) {
            part_note(file->active->part, t->piece->noted, t->piece->at, NULL);
            t->piece->noted = t->piece->at;
            t->piece->state = t->piece->at == t->piece->end ? PIECE_DONE : PIECE_FREE;
        }
        if (t->is_head && file->state == DOWNLOAD_RESOLVING)
            t->file->state = DOWNLOAD_ACTIVE;
        free(t->url);
        t->in_use = 0;
        d->busy_count--;
        file->active->running_count--;
    }
}

void file_fail(download *d, dfile *file, const ckpt_error *err)
{
    free(file->error);
    file->error = strdup(err->text);
    file->reason = hub_reason_of(err);
    /* A full disk is full for every file. Whatever else befalls one leaves the others alone. */
    if (file->reason == HUB_DISK_FULL && d->fatal.code == CKPT_OK)
        d->fatal = *err;
    file_end(d, file, DOWNLOAD_FAILED);
}

void file_set_failure(download *d, dfile *file)
{
    ckpt_error err;

    /* Failures inside one back-off window count once. */
    if (hub_now() < file->not_before)
        return;
    file->active->progress_bytes = 0;
    if (++file->failures < FAILURES_MAX) {
        file->not_before = hub_now() + hub_backoff(file->failures);
        return;
    }
    hub_fail(HUB_NETWORK, &err, "gave up '%s' after %d tries without progress%s%s",
             file->want->path, FAILURES_MAX, file->error != NULL ? ": " : "",
             file->error != NULL ? file->error : "");
    file_fail(d, file, &err);
}

void file_piece_done(download *d, dfile *file)
{
    (void)d;
    file->failures = 0;
}

/* ---- hashes that are ready ---- */

/* ModelScope pins nothing: a file may have changed since it was listed. Ask once more; 1: it did
 * change, and begins anew. */
static int adopt_change(download *d, dfile *file)
{
    hub_file *listed = &d->listing->files[file->want - d->listing->files];
    const hub_file *now;
    ckpt_error ignored;

    if (d->listing->commit[0] != '\0' || file->is_relisted)
        return 0;
    file->is_relisted = 1;
    if (!d->has_second) {
        d->has_second = 1;
        arena_init(&d->second.memory);
        if (d->h->kind->list(d->h, &d->second, &ignored) != CKPT_OK ||
            hub_listing_check(d->h->options.repo, &d->second, 0, &ignored) != CKPT_OK)
            d->second.count = 0;
    }
    now = hub_listing_find(&d->second, listed->path);
    if (now == NULL || (strcmp(now->hash, listed->hash) == 0 &&
                        now->size_bytes == listed->size_bytes))
        return 0;
    d->stats.total_bytes += now->size_bytes - listed->size_bytes;
    part_remove(file->active->part);
    d->stats.done_bytes -= file_present_bytes(file);
    listed->size_bytes = now->size_bytes;
    listed->hash = arena_strdup(&d->listing->memory, now->hash, strlen(now->hash));
    file_begin_anew(d, file);
    return 1;
}

static void on_wrong_hash(download *d, dfile *file, const hash_job *job)
{
    static const char empty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    ckpt_error err;

    if (adopt_change(d, file))
        return;
    if (++file->rounds < ROUNDS_MAX) {
        file->is_single |= file->rounds == ROUNDS_MAX - 1;
        file_restart(d, file);
        return;
    }
    hub_fail(HUB_INTEGRITY, &err, "'%s' is not what the hub lists, %d times: expected %s, got "
             "%s%s", file->want->path, ROUNDS_MAX, file->want->hash, job->got,
             strcmp(job->got, empty) == 0 ? " (the server sent an empty body)" : "");
    if (!d->options.keep_corrupt)
        part_remove(file->active->part);
    file_fail(d, file, &err);
}

static void on_checked(download *d, dfile *file, const hash_job *job)
{
    ckpt_error err = job->err;

    if (job->outcome == HASH_RIGHT) {
        file_end(d, file, DOWNLOAD_KEPT);
        return;
    }
    if (job->outcome == HASH_FAILED) {
        file_fail(d, file, &err);
        return;
    }
    file->is_checked = 1;
    hash_end(d->pool, &file->active->job);
    file->active->has_job = 0;
    if (file_begin(d, file, &err) != CKPT_OK)
        file_fail(d, file, &err);
}

static void take_hashes(download *d)
{
    hash_job *job;

    while ((job = hash_take_done(d->pool)) != NULL) {
        dfile *file = job->owner;
        ckpt_error err = job->err;

        if (file->state == DOWNLOAD_CHECKING)
            on_checked(d, file, job);
        else if (job->outcome == HASH_RIGHT)
            file_end(d, file, DOWNLOAD_DONE);
        else if (job->outcome == HASH_WRONG)
            on_wrong_hash(d, file, job);
        else
            file_fail(d, file, &err);
    }
}

/* Of some files only the head was wanted. What came of them stays in the part, for later. */
static void take_heads(download *d)
{
    for (size_t i = d->running_count; i-- > 0;) {
        dfile *file = d->running[i];

        if (file->want->head_bytes != 0 && file->state == DOWNLOAD_HASHING &&
            file_end_bytes(file->want) < file->want->size_bytes)
            file_end(d, file, DOWNLOAD_DONE);
    }
}

/* 0: it cannot go on. */
static int ask_taker(download *d)
{
    const download_taker *taker = d->options.taker;

    return taker == NULL || taker->turn(taker->context, d, &d->taken_count);
}

/* ---- what comes next ---- */

/*
 * Others fill disks, and empty them again: where the next file does not fit now, those in flight,
 * whose space is reserved, go on, and it waits. 0: not now.
 */
static int has_room(download *d, const dfile *file)
{
    static const double CHECK_SECONDS = 1;
    static const double WAIT_SECONDS = 600;
    enum { SLACK_BYTES = 16 << 20 };
    const double now = hub_now();
    uint64_t free_bytes;

    if (!d->options.watch_disk || file->want->size_bytes < SMALL_BYTES)
        return 1;
    if (d->disk_full_since > 0 && now - d->disk_checked < CHECK_SECONDS)
        return 0;
    d->disk_checked = now;
    if (place_look(d->where, file->want, NULL) != PLACE_ABSENT ||
        !place_free_bytes(d->where, &free_bytes) ||
        place_need_bytes(d->where, file->want) + SLACK_BYTES <= free_bytes) {
        d->disk_full_since = 0;
        return 1;
    }
    if (d->disk_full_since <= 0) {
        d->disk_full_since = now;
        if (!d->h->options.is_quiet)
            fprintf(stderr, "disk nearly full, waiting: '%s' has no room\n", file->want->path);
    } else if (now - d->disk_full_since > WAIT_SECONDS) {
        hub_fail(HUB_DISK_FULL, &d->fatal, "no room for '%s' for ten minutes: expected %" PRIu64
                 " bytes free, got %" PRIu64, file->want->path,
                 place_need_bytes(d->where, file->want) + SLACK_BYTES, free_bytes);
    }
    return 0;
}

static void start_files(download *d)
{
    size_t small_count = 0;
    ckpt_error err;

    for (size_t i = 0; i < d->running_count; i++)
        small_count += d->running[i]->want->size_bytes < SMALL_BYTES;
    while (d->running_count + d->taken_count < d->options.worker_count) {
        /* Half of the places for the small ones, so that neither kind waits for the other. */
        const int large_left = d->next_large < d->small_begin;
        const int small_left = d->next_small < d->count;
        const int take_small =
            small_left && (!large_left || small_count < (d->options.worker_count + 1) / 2);
        dfile *file;

        if (!small_left && !large_left)
            break;
        file = &d->files[d->order[take_small ? d->next_small : d->next_large]];
        if (!has_room(d, file))
            break;
        *(take_small ? &d->next_small : &d->next_large) += 1;
        small_count += (size_t)take_small;
        d->running[d->running_count++] = file;
        if (file_begin(d, file, &err) != CKPT_OK)
            file_fail(d, file, &err);
    }
}

static piece *free_piece(const download *d, const dfile *file)
{
    const uint64_t window = d->options.sequential ? 1 : (uint64_t)64 * SEGMENT_MAX;
    const uint64_t lag_max = UINT64_C(1) << 30;
    active *a = file->active;

    if (a->first_open == NULL || (file->is_single && a->running_count > 0) ||
        hash_lag_bytes(d->pool, &a->job) > lag_max)
        return NULL;
    for (piece *p = a->first_open; p != NULL && p->at - a->first_open->at < window; p = p->next)
        if (p->state == PIECE_FREE)
            return p;
    return NULL;
}

/* Seconds that a transfer will still take, going on as it did. */
static double time_left(const transfer *t)
{
    const double age = hub_now() - t->begin;

    if (t->got_bytes == 0)
        return age;
    return (double)(t->piece->end - t->piece->at) * age / (double)t->got_bytes;
}

/*
 * The end of a file is cut finer, so that one slow connection does not hold all up. A fast one is
 * left alone: what it has on the way already would be lost.
 */
static piece *split_piece(const download *d, const dfile *file)
{
    static const double WORTHWHILE_SECONDS = 2;
    piece *largest = NULL;
    piece *half;

    if (file->is_single || file->active->url == NULL)
        return NULL;
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        const transfer *t = &d->transfers[i];
        piece *p = t->piece;

        if (t->in_use && t->file == file && p != NULL && p->end - p->at >= 2 * SPLIT_MIN &&
            time_left(t) > WORTHWHILE_SECONDS &&
            (largest == NULL || p->end - p->at > largest->end - largest->at))
            largest = p;
    }
    if (largest == NULL || (half = calloc(1, sizeof *half)) == NULL)
        return NULL;
    half->at = half->noted = largest->end - (largest->end - largest->at) / 2;
    half->end = largest->end;
    largest->end = half->at;
    half->next = largest->next;
    largest->next = half;
    return half;
}

static int url_is_old(const active *a)
{
    return a->url_expiry != 0 && (int64_t)time(NULL) > a->url_expiry - 120;
}

/* Ask for something of this file, if it may be asked now. 1: a request went out. */
static int start_one(download *d, dfile *file, int may_split)
{
    active *a = file->active;
    const hub_bucket bucket = a->url == NULL ? HUB_RESOLVERS : HUB_DATA;
    piece *p;
    ckpt_error err;

    if (a->url != NULL && url_is_old(a) && d->h->kind->head_first && file->refreshes == 0) {
        free(a->url);       /* a new one, before the old one is refused */
        a->url = NULL;
        a->url_expiry = 0;
        return 0;
    }
    p = free_piece(d, file);
    if (p == NULL && may_split && !d->options.sequential)
        p = split_piece(d, file);
    if (p == NULL)
        return 0;
    if (hub_delay(d->h, bucket) > 0)
        return 0;
    if (a->url == NULL && d->h->kind->head_first && !file->is_single &&
        (file->want->size_bytes >= SMALL_BYTES || file_present_bytes(file) > 0)) {
        file->state = DOWNLOAD_RESOLVING;
        p = NULL;
    } else if (a->url == NULL && a->running_count > 0) {
        return 0;           /* the first piece finds out where the bytes are */
    }
    if (fetch_start(d, file, p, &err) != CKPT_OK) {
        file_fail(d, file, &err);
        return 0;
    }
    return 1;
}

static int start_requests(download *d, int may_split)
{
    const double now = hub_now();
    int started = 0;

    for (size_t i = 0; i < d->running_count && d->busy_count < pace_limit(d); i++) {
        dfile *file = d->running[i];
        ckpt_error err;

        if (file->not_before > now)
            continue;
        if (file->state == DOWNLOAD_LOCKED && file_begin(d, file, &err) != CKPT_OK)
            file_fail(d, file, &err);
        while (i < d->running_count && d->running[i] == file && file->state == DOWNLOAD_ACTIVE &&
               file->not_before <= now && d->busy_count < pace_limit(d) &&
               start_one(d, file, may_split))
            started = 1;
    }
    return started;
}

/* Nothing came for so long that nothing will. */
static void check_silence(download *d)
{
    static const double SILENCE_SECONDS = 900;
    ckpt_error err;

    for (size_t i = 0; i < d->running_count; i++) {
        dfile *file = d->running[i];

        if ((file->state == DOWNLOAD_ACTIVE || file->state == DOWNLOAD_RESOLVING) &&
            hub_now() - file->last_byte > SILENCE_SECONDS + (double)d->h->waited_seconds) {
            hub_fail(HUB_NETWORK, &err, "not one byte of '%s' came for 15 minutes",
                     file->want->path);
            file_fail(d, file, &err);
            return;
        }
    }
}

ckpt_code download_run(download *d, download_progress *progress, void *context, ckpt_error *err)
{
    const double begin = hub_now();
    ckpt_code code = CKPT_OK;

    while (d->stats.ended_count < d->count && code == CKPT_OK) {
        take_hashes(d);
        take_heads(d);
        if (!ask_taker(d))
            break;
        start_files(d);
        start_requests(d, 0);
        if (d->next_large == d->small_begin && d->next_small == d->count)
            start_requests(d, 1);
        if (d->fatal.code != CKPT_OK)
            break;
        pace_update(d);
        check_silence(d);
        if ((code = hub_check_waiting(d->h, err)) == CKPT_OK)
            code = http_poll(d->h->http, 100, err);
        d->stats.seconds = hub_now() - begin;
        progress(context, d);
        if (code == CKPT_OK && *d->h->options.stop)
            code = hub_fail_interrupted(err);
    }
    if (code == CKPT_OK && d->fatal.code != CKPT_OK) {
        *err = d->fatal;
        code = d->fatal.code;
    }
    return code;
}
