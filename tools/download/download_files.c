/* download_files.c: one file in flight: its part, its pieces, its hash. */
#include <stdio.h>
#include <unistd.h>

#include "download_run.h"
#include "libckpt/size.h"

/* Pieces of the holes that earlier runs left. */
static piece **add_hole(piece **link, uint64_t at, uint64_t end, uint64_t segment_bytes)
{
    while (at < end) {
        piece *p = calloc(1, sizeof *p);

        if (p == NULL)
            return NULL;
        p->at = p->noted = at;
        p->end = size_min(end, at + segment_bytes);
        at = p->end;
        *link = p;
        link = &p->next;
    }
    return link;
}

static void free_pieces(active *a)
{
    for (piece *p = a->pieces; p != NULL;) {
        piece *next = p->next;

        free(p);
        p = next;
    }
    a->pieces = a->first_open = NULL;
}

static uint64_t segment_bytes(const download *d, uint64_t size)
{
    const uint64_t mib = 1 << 20;
    uint64_t bytes = size_div_up(size, 4 * (uint64_t)d->options.connection_count);

    if (d->options.segment_bytes != 0)
        return d->options.segment_bytes;
    if (size < SMALL_BYTES)
        return size_max(size, 1);
    bytes = size_max(SEGMENT_MIN, size_min(SEGMENT_MAX, bytes));
    return size_div_up(bytes, mib) * mib;
}

static ckpt_code make_pieces(download *d, dfile *file, const part_spans *there, ckpt_error *err)
{
    const uint64_t size = file_end_bytes(file->want);
    const uint64_t segment = file->is_single ? size_max(size, 1) : segment_bytes(d, size);
    active *a = file->active;
    piece **link = &a->pieces;
    uint64_t at = 0;

    for (size_t i = 0; i < there->count && link != NULL; i++) {
        link = add_hole(link, at, size_min(size, there->items[i].begin), segment);
        at = there->items[i].end;
    }
    if (link != NULL)
        link = add_hole(link, at, size, segment);
    if (link == NULL)
        return ckpt_fail_memory(err, "the pieces of a file", sizeof(piece));
    a->first_open = a->pieces;
    return CKPT_OK;
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
    for (const piece *p = file->active->pieces; p != NULL; p = p->next)
        missing += p->end - p->at;
    return file_end_bytes(file->want) - missing;
}

static ckpt_code begin_hash(download *d, dfile *file, ckpt_error *err)
{
    active *a = file->active;
    ckpt_code code;

    (void)d;
    a->job.file = file->want;
    a->job.from = a->part;
    a->job.owner = file;
    code = hash_begin(&a->job, err);
    a->has_job = code == CKPT_OK;
    return code;
}

/* Hash what stands there already. */
static ckpt_code begin_check(download *d, dfile *file, ckpt_error *err)
{
    const ckpt_code code = begin_hash(d, file, err);

    file->state = DOWNLOAD_CHECKING;
    if (code == CKPT_OK)
        hash_advance(d->pool, &file->active->job, file->want->size_bytes);
    return code;
}

static ckpt_code begin_part(download *d, dfile *file, ckpt_error *err)
{
    active *a = file->active;
    part_place at;
    part_spans there;
    ckpt_code code;

    if ((d->options.adopt && (code = place_adopt(d->where, file->want, err)) != CKPT_OK) ||
        (code = place_part(d->where, file->want, &at, err)) != CKPT_OK ||
        (code = part_open(&at, file->want, &a->part, &there, err)) != CKPT_OK)
        return code;
    if (d->options.force && there.count > 0) {
        code = part_restart(a->part, err);
        there.count = 0;
    }
    if (code == CKPT_OK)
        code = make_pieces(d, file, &there, err);
    free(there.items);
    if (code != CKPT_OK || (code = begin_hash(d, file, err)) != CKPT_OK)
        return code;
    d->stats.reused_bytes += file_present_bytes(file);
    d->stats.done_bytes += file_present_bytes(file);
    file->state = DOWNLOAD_ACTIVE;
    file->last_byte = hub_now();
    file_advance(d, file);
    return CKPT_OK;
}

/* From waiting to whatever comes next; again after a check or a busy lock. */
ckpt_code file_begin(download *d, dfile *file, ckpt_error *err)
{
    place_state there = PLACE_ABSENT;

    if (file->active == NULL) {
        if ((file->active = calloc(1, sizeof *file->active)) == NULL)
            return ckpt_fail_memory(err, "a file in flight", sizeof *file->active);
        file->active->lock_fd = -1;
        file->active->job.fd = -1;
    }
    if (!file->is_checked)
        there = place_look(d->where, file->want, err);
    if (there == PLACE_BLOCKED || there == PLACE_UNREADABLE)
        return err->code;
    if (d->options.force)        /* what is there has no say, but may still be in the way */
        there = PLACE_ABSENT;
    if (there == PLACE_UNKNOWN || (there != PLACE_ABSENT && d->options.verify))
        return begin_check(d, file, err);
    if (there != PLACE_ABSENT) {
        const ckpt_code code = there == PLACE_TRUSTED ? place_keep(d->where, file->want, err)
                                                      : place_record(d->where, file->want, err);

        if (code == CKPT_OK)
            file_end(d, file, DOWNLOAD_KEPT);
        return code;
    }
    if (d->options.is_offline) {
        ckpt_error missing;

        hub_fail(file->is_checked ? HUB_INTEGRITY : HUB_NETWORK, &missing,
                 "'%s' is %s, and HF_HUB_OFFLINE forbids to fetch it", file->want->path,
                 file->is_checked ? "not what was listed" : "not there");
        file_fail(d, file, &missing);
        return CKPT_OK;
    }
    if (file->active->lock_fd < 0 &&
        !place_lock(d->where, file->want, &file->active->lock_fd)) {
        if (file->state != DOWNLOAD_LOCKED && !d->h->options.is_quiet)
            fprintf(stderr, "waiting: another process downloads '%s'\n", file->want->path);
        file->state = DOWNLOAD_LOCKED;
        file->not_before = hub_now() + 1;
        return CKPT_OK;
    }
    return begin_part(d, file, err);
}

/* How far the file is whole; the last byte starts the end. */
void file_advance(download *d, dfile *file)
{
    active *a = file->active;

    while (a->first_open != NULL && a->first_open->state == PIECE_DONE)
        a->first_open = a->first_open->next;
    if (a->first_open == NULL)
        file->state = DOWNLOAD_HASHING;
    hash_advance(d->pool, &a->job,
                 a->first_open == NULL ? file_end_bytes(file->want) : a->first_open->at);
}

static void release(download *d, dfile *file)
{
    active *a = file->active;

    if (a == NULL)
        return;
    file_drop_transfers(d, file);
    if (a->has_job)
        hash_end(d->pool, &a->job);
    part_close(a->part);
    free_pieces(a);
    if (a->lock_fd >= 0)
        close(a->lock_fd);
    free(a->url);
    free(a->old_host);
    free(a);
    file->active = NULL;
}

/* A run that was killed just after a file got its name left its journal. */
static void discard_part(const download *d, const hub_file *file)
{
    part_place at;

    if (file->size_bytes >= PART_JOURNAL_BYTES && place_part(d->where, file, &at, NULL) == CKPT_OK)
        part_discard(&at, file);
}

void file_end(download *d, dfile *file, download_state state)
{
    release(d, file);
    file->state = state;
    d->stats.ended_count++;
    if (state == DOWNLOAD_FAILED)
        d->stats.failed_count++;
    if (state == DOWNLOAD_KEPT) {
        discard_part(d, file->want);
        d->stats.kept_bytes += file->want->size_bytes;
        d->stats.done_bytes += file->want->size_bytes;
    }
    if (state != DOWNLOAD_FAILED) {
        free(file->error);
        file->error = NULL;
    }
    for (size_t i = 0; i < d->running_count; i++)
        if (d->running[i] == file) {
            memmove(&d->running[i], &d->running[i + 1],
                    (d->running_count - i - 1) * sizeof *d->running);
            d->running_count--;
            break;
        }
}

void file_begin_anew(download *d, dfile *file)
{
    ckpt_error err;

    release(d, file);
    file->state = DOWNLOAD_WAITING;
    file->rounds = 0;
    if (file->want->hash == NULL)
        ckpt_fail_memory(&err, "a hash", 0);
    else if (place_begin(d->where, &err) == CKPT_OK && file_begin(d, file, &err) == CKPT_OK)
        return;
    file_fail(d, file, &err);
}

void file_restart(download *d, dfile *file)
{
    const part_spans nothing = { 0 };
    active *a = file->active;
    ckpt_error err;
    ckpt_code code;

    file_drop_transfers(d, file);
    if (a->has_job)
        hash_end(d->pool, &a->job);
    a->has_job = 0;
    d->stats.done_bytes -= file_present_bytes(file);
    free_pieces(a);
    a->etag[0] = '\0';
    free(a->url);
    a->url = NULL;
    if ((code = part_restart(a->part, &err)) == CKPT_OK &&
        (code = make_pieces(d, file, &nothing, &err)) == CKPT_OK)
        code = begin_hash(d, file, &err);
    if (code != CKPT_OK) {
        file_fail(d, file, &err);
        return;
    }
    file->state = DOWNLOAD_ACTIVE;
    file_advance(d, file);
}

int file_halve_pieces(dfile *file)
{
    uint64_t most = 0;

    for (const piece *p = file->active->first_open; p != NULL; p = p->next)
        if (p->state == PIECE_FREE)
            most = size_max(most, p->end - p->at);
    if (most <= SEGMENT_MIN)
        return 0;
    most = size_max(SEGMENT_MIN, most / 2);
    for (piece *p = file->active->first_open; p != NULL; p = p->next) {
        piece *rest;

        if (p->state != PIECE_FREE || p->end - p->at <= most ||
            (rest = calloc(1, sizeof *rest)) == NULL)
            continue;
        rest->at = rest->noted = p->at + most;
        rest->end = p->end;
        rest->next = p->next;
        p->end = rest->at;
        p->next = rest;
    }
    return 1;
}

/* One piece from the first missing byte on; what came behind it comes again. */
void file_go_single(download *d, dfile *file)
{
    active *a = file->active;
    piece *rest = a->first_open;
    const uint64_t before = file_present_bytes(file);

    file_drop_transfers(d, file);
    if (file->is_single || rest == NULL)
        return;
    file->is_single = 1;
    for (piece *p = rest->next; p != NULL;) {
        piece *next = p->next;

        free(p);
        p = next;
    }
    rest->next = NULL;
    rest->end = file_end_bytes(file->want);
    rest->state = PIECE_FREE;
    d->stats.done_bytes -= before - file_present_bytes(file);
}
