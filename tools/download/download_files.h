/*
 * download_files.h: the life of one file in flight: its segments, its partial, its hash, its end.
 *
 * Nothing here knows of transfers. Who ends a file, restarts it or gives it other segments has
 * cancelled its transfers before (fetch_cancel).
 */
#ifndef CKPT_DOWNLOAD_FILES_H
#define CKPT_DOWNLOAD_FILES_H

#include "download.h"

enum {
    SMALL_BYTES = 16 << 20,      /* smaller files take one request */
    SEGMENT_MIN = 8 << 20,
    SEGMENT_MAX = 32 << 20
};

typedef enum { SEGMENT_FREE, SEGMENT_RUNNING, SEGMENT_DONE } segment_state;

/* A run of bytes that one request fetches. Kept in the order of the file. */
typedef struct segment {
    struct segment *next;
    uint64_t at;                 /* next byte to come */
    uint64_t end;
    uint64_t noted;              /* journaled up to here */
    segment_state state;
} segment;

/* What all files of a run share. */
typedef struct {
    download_options options;
    hash_pool *pool;
    download_stats stats;
} download_env;

/* What only files in flight need. */
typedef struct {
    partial *partial;
    segment *segments;
    segment *first_open;         /* the first that is not done */
    uint64_t progress_bytes;     /* since the last failure */
    char *url;                   /* where the bytes are; NULL: ask the hub */
    char *old_host;              /* that refused its own URL */
    unsigned generation;         /* of the URL */
    int64_t url_expiry;          /* seconds since 1970; 0: used until it is refused */
    char etag[80];               /* of the data host */
    int lock_fd;
    unsigned running_count;      /* of its transfers */
    hash_job job;
    int has_job;
} active;

typedef struct {
    download_env *env;
    const hub_file *want;
    download_state state;
    uint8_t rounds;              /* with the wrong hash */
    uint8_t refreshes;           /* of the URL without progress */
    uint8_t failures;            /* without progress */
    uint8_t strikes;             /* ranges that were none */
    uint8_t etag_changes;
    uint8_t is_single;           /* one connection, no ranges */
    uint8_t is_checked;          /* what was there is not it */
    uint8_t bad_requests;        /* 400 of the data host */
    uint8_t is_relisted;         /* its hash is of the second listing */
    hub_reason reason;           /* of the failure that ended it */
    double not_before;
    double last_byte;
    active *active;              /* NULL unless it is in flight */
    char *error;                 /* the last problem; what ended it, if it failed */
} dfile;

uint64_t file_end_bytes(const hub_file *file);           /* that are wanted of it */
uint64_t file_present_bytes(const dfile *file);

/* From waiting to whatever comes next, which may be its end; again after a check or a busy lock. */
ckpt_code file_begin(dfile *file, ckpt_error *err);
/* The same from nothing: its hash or size is another now. */
ckpt_code file_begin_anew(dfile *file, ckpt_error *err);
/* Fetch all of it again: what came is wrong. */
ckpt_code file_restart(dfile *file, ckpt_error *err);
void file_end(dfile *file, download_state state);
void file_fail(dfile *file, const ckpt_error *err);      /* ends it, and says why */
void file_remove_partial(dfile *file);                      /* its bytes are of no use */

/* Bytes of a segment that came; the first of them is segment->at. */
ckpt_code file_write(dfile *file, segment *s, const void *bytes, size_t size, ckpt_error *err);
/* Journal what came of the segment since the last time. */
ckpt_code file_note(dfile *file, segment *s, ckpt_error *err);
/* No transfer works on the segment any more. */
void segment_stop(segment *s);
/* How far the file is whole; the last byte starts the end. */
void file_advance(dfile *file);

/* The second half of what is left of a segment becomes one of its own; NULL: no memory. */
segment *segment_split(segment *s);
/* Smaller segments from now on; 0: they are as small as it gets. */
int file_halve_segments(dfile *file);
/* Ranges do not work: one segment from the first missing byte on. */
void file_go_single(dfile *file);

/* A try without progress: wait before the next. Fails when that was the last one. */
ckpt_code file_count_failure(dfile *file, ckpt_error *err);
void file_set_problem(dfile *file, const char *text);    /* kept for the day it fails */

void file_set_url(dfile *file, char *url);               /* the file's to free; NULL is ignored */
void file_forget_url(dfile *file);
int file_url_is_old(const dfile *file);
/* `host` answers `status` to a URL that should be good: a new one is asked for. 0: it was too
 * often. */
int file_lose_url(dfile *file, const char *host, unsigned status);

#endif
