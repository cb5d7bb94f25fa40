/*
 * download.h: fetch the selected files of a listing into a folder, over many connections; files
 * are hashed before they appear.
 */
#ifndef CKPT_DOWNLOAD_H
#define CKPT_DOWNLOAD_H

#include "download_hash.h"

typedef enum {
    DOWNLOAD_WAITING,
    DOWNLOAD_CHECKING,       /* the existing file is being hashed */
    DOWNLOAD_LOCKED,         /* another process has the file's lock */
    DOWNLOAD_RESOLVING,      /* resolving the URL of the data */
    DOWNLOAD_ACTIVE,
    DOWNLOAD_HASHING,        /* all bytes received */
    DOWNLOAD_DONE,           /* from here on: ended */
    DOWNLOAD_KEPT,           /* existed already and is right */
    DOWNLOAD_FAILED
} download_state;

typedef struct download download;

/* A consumer of finished files, which may delete them: --delete-source. */
typedef struct {
    void *context;
    /* Called often. *count: files not yet consumed; they count as files in flight. 0: failed, the
     * run ends. */
    int (*turn)(void *context, const download *d, size_t *count);
} download_taker;

typedef struct {
    hub *h;
    hub_listing *listing;        /* changes if a hub without commits later lists another hash */
    place *where;
    unsigned connection_count;   /* at most */
    int is_fixed;                /* exactly this many, no search for the best number */
    unsigned worker_count;       /* files at a time */
    unsigned thread_count;       /* hashing */
    int verify;                  /* hash existing files even if recorded as verified */
    int force;                   /* fetch everything again */
    int is_offline;              /* offline: files not present are missing */
    int watch_disk;              /* wait if the next file does not fit */
    int sequential;              /* write every file sequentially */
    int keep_corrupt;
    int adopt;                   /* unfinished files of an old Python client */
    uint64_t segment_bytes;      /* 0: by size */
    int in_order;                /* by name; else the largest first */
    const download_taker *taker; /* or NULL */
} download_options;

typedef struct {
    uint64_t total_bytes;        /* of the selected files */
    uint64_t done_bytes;         /* received, already present, or reused */
    uint64_t fetched_bytes;      /* bodies received in this run */
    uint64_t reused_bytes;       /* from partials of earlier runs */
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
/* Returns when every selected file has ended. Fails if the run was stopped or cannot continue;
 * failed files are counted in the stats. */
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
