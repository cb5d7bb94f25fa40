/*
 * download_files.h: the life of one file in flight: its segments, its partial, its hash, its end.
 *
 * This file knows nothing about transfers. Before a file is ended, restarted or given other
 * segments, the caller cancels its transfers (fetch_cancel).
 */
#ifndef CKPT_DOWNLOAD_FILES_H
#define CKPT_DOWNLOAD_FILES_H

#include "download.h"

enum {
    SMALL_BYTES = 16 << 20,      /* smaller files need one request */
    SEGMENT_MIN = 8 << 20,
    SEGMENT_MAX = 32 << 20
};

typedef enum { SEGMENT_FREE, SEGMENT_RUNNING, SEGMENT_DONE } segment_state;

/* A run of bytes that one request fetches. Kept in the order of the file. */
typedef struct segment {
    struct segment *next;
    uint64_t at;                 /* next byte to receive */
    uint64_t end;
    uint64_t noted;              /* journaled up to here */
    segment_state state;
} segment;

/* State common to all files of a run. */
typedef struct {
    download_options options;
    hash_pool *pool;
    download_stats stats;
} download_env;

/* State that only files in flight need. */
typedef struct {
    partial *partial;
    segment *segments;
    segment *first_open;         /* the first that is not done */
    uint64_t progress_bytes;     /* since the last failure */
    char *url;                   /* URL of the data; NULL: ask the hub */
    char *old_host;              /* host that refused its own URL */
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
    uint8_t strikes;             /* replies with a wrong range */
    uint8_t etag_changes;
    uint8_t is_single;           /* use one connection and no ranges */
    uint8_t is_checked;          /* the existing file is wrong */
    uint8_t bad_requests;        /* replies 400 of the data host */
    uint8_t is_relisted;         /* its hash is from the second listing */
    hub_reason reason;           /* of the failure that ended it */
    double not_before;
    double last_byte;
    active *active;              /* NULL unless it is in flight */
    char *error;                 /* the last problem; what ended it, if it failed */
} dfile;

uint64_t file_end_bytes(const hub_file *file);           /* bytes wanted of it */
uint64_t file_present_bytes(const dfile *file);

/* Move from waiting to the next state, possibly its end; called again after a check or a busy
 * lock. */
ckpt_code file_begin(dfile *file, ckpt_error *err);
/* Start over: its hash or size has changed. */
ckpt_code file_begin_anew(dfile *file, ckpt_error *err);
/* Fetch all of it again: the received data is wrong. */
ckpt_code file_restart(dfile *file, ckpt_error *err);
void file_end(dfile *file, download_state state);
void file_fail(dfile *file, const ckpt_error *err);      /* ends the file with an error */
void file_remove_partial(dfile *file);                      /* its data is useless */

/* Write received bytes of a segment; the first of them is segment->at. */
ckpt_code file_write(dfile *file, segment *s, const void *bytes, size_t size, ckpt_error *err);
/* Journal the bytes of the segment received since the last call. */
ckpt_code file_note(dfile *file, segment *s, ckpt_error *err);
/* The segment has no transfer any more. */
void segment_stop(segment *s);
/* Report up to where the file is complete; with the last byte the file is finished. */
void file_advance(dfile *file);

/* Split the remainder of a segment in half and return the second one; NULL: out of memory. */
segment *segment_split(segment *s);
/* Ranges do not work: use one segment from the first missing byte on. */
void file_go_single(dfile *file);

/* Count a try without progress and wait before the next. Fails if that was the last one. */
ckpt_code file_count_failure(dfile *file, ckpt_error *err);
void file_set_problem(dfile *file, const char *text);    /* used if the file fails later */

void file_set_url(dfile *file, char *url);               /* the file takes ownership; NULL is
                                                          * ignored */
void file_forget_url(dfile *file);
int file_url_is_old(const dfile *file);
/* `host` answers `status` to a URL that should be valid: ask for a new one. 0: too many
 * attempts. */
int file_lose_url(dfile *file, const char *host, unsigned status);

#endif
