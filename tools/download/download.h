/*
 * download.h: fetch the selected files of a listing into a place, over many connections, hashed
 * before they are seen.
 */
#ifndef CKPT_DOWNLOAD_H
#define CKPT_DOWNLOAD_H

#include "download_hash.h"

typedef enum {
    DOWNLOAD_WAITING,
    DOWNLOAD_CHECKING,       /* the file that is there is being hashed */
    DOWNLOAD_LOCKED,         /* another process has the file's lock */
    DOWNLOAD_RESOLVING,      /* asking where the bytes are */
    DOWNLOAD_ACTIVE,
    DOWNLOAD_HASHING,        /* all bytes are there */
    DOWNLOAD_DONE,           /* from here on: at an end */
    DOWNLOAD_KEPT,           /* was there and right */
    DOWNLOAD_FAILED
} download_state;

typedef struct download download;

/* Somebody who takes the files that are done, and may take them away: --delete-source. */
typedef struct {
    void *context;
    /* Called often. *count: files that it has not dealt with; they count as files in flight.
     * 0: it cannot go on, and the run ends. */
    int (*turn)(void *context, const download *d, size_t *count);
} download_taker;

typedef struct {
    hub *h;
    hub_listing *listing;        /* changes when a hub without commits lists another hash later */
    place *where;
    unsigned connection_count;   /* at most */
    int is_fixed;                /* exactly so many, no search for the best number */
    unsigned worker_count;       /* files at a time */
    unsigned thread_count;       /* hashing */
    int verify;                  /* hash what is there, whatever is recorded */
    int force;                   /* fetch all of it again */
    int is_offline;              /* what is not there is missing */
    int watch_disk;              /* wait while the next file does not fit */
    int sequential;              /* write every file from front to end */
    int keep_corrupt;
    int adopt;                   /* unfinished files of an old Python client */
    uint64_t segment_bytes;      /* 0: by size */
    int in_order;                /* by name; else the largest first */
    const download_taker *taker; /* or NULL */
} download_options;

typedef struct {
    uint64_t total_bytes;        /* of the selected files */
    uint64_t done_bytes;         /* received, found, or reused */
    uint64_t fetched_bytes;      /* bodies received in this run */
    uint64_t reused_bytes;       /* of partials of earlier runs */
    uint64_t kept_bytes;
    size_t file_count;
    size_t ended_count;
    size_t failed_count;
    unsigned connections_most;
    double seconds;
} download_stats;

/* Called often, from the thread of download_run. */
typedef void download_progress(void *context, const download *d);

ckpt_code download_open(const download_options *options, download **out, ckpt_error *err);
void download_close(download *d);                /* NULL is fine */
/* Until every selected file is at an end. Fails when the run was stopped or cannot go on; files
 * that failed are counted in the stats. */
ckpt_code download_run(download *d, download_progress *progress, void *context, ckpt_error *err);

const download_stats *download_get_stats(const download *d);
size_t download_count(const download *d);
typedef struct {
    const hub_file *file;
    download_state state;
    uint64_t present_bytes;
    hub_reason reason;
    const char *error;           /* NULL unless it failed */
} download_status;
download_status download_at(const download *d, size_t i);

#endif
