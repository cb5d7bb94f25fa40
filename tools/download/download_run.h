/* download_run.h: what the scheduler (download.c) and one transfer (download_fetch.c) share. */
#ifndef CKPT_DOWNLOAD_RUN_H
#define CKPT_DOWNLOAD_RUN_H

#include "download.h"

enum {
    SMALL_BYTES = 16 << 20,      /* smaller files take one request */
    SEGMENT_MIN = 8 << 20,
    SEGMENT_MAX = 32 << 20,
    SPLIT_MIN = 4 << 20,
    NOTE_BYTES_MIN = 64 << 10,   /* journaled so often, and not more than so many times: */
    NOTE_BYTES_MAX = 8 << 20,
    NOTE_COUNT = 16384,
    CONNECTIONS_MAX = 64,
    FAILURES_MAX = 8,            /* in a row without progress */
    ROUNDS_MAX = 3,              /* whole files with the wrong hash */
    REFRESHES_MAX = 5,
    HOPS_MAX = 10
};

typedef enum { PIECE_FREE, PIECE_RUNNING, PIECE_DONE } piece_state;

/* A run of bytes that one request fetches. Kept in the order of the file. */
typedef struct piece {
    struct piece *next;
    uint64_t at;                 /* next byte to come */
    uint64_t end;
    uint64_t noted;              /* journaled up to here */
    piece_state state;
} piece;

typedef struct transfer transfer;

typedef struct {
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
    /* While it is active: */
    struct active *active;
    char *error;
} dfile;

/* What only files in flight need. */
typedef struct active {
    part *part;
    piece *pieces;
    piece *first_open;           /* the first that is not done */
    uint64_t progress_bytes;     /* since the last failure */
    char *url;                   /* where the bytes are; NULL: ask the hub */
    char *old_host;              /* that refused its own URL */
    unsigned generation;         /* of the URL */
    int64_t url_expiry;          /* seconds since 1970 */
    char etag[80];               /* of the data host */
    int lock_fd;
    unsigned running_count;
    hash_job job;
    int has_job;
} active;

/* One request: of a piece, or the question where the bytes are. */
struct transfer {
    download *d;
    dfile *file;
    piece *piece;                /* NULL: only a question */
    http_transfer *http;
    char *url;
    unsigned hops;
    unsigned generation;
    int is_head;
    int in_use;
    hub_bucket bucket;
    uint64_t range_first;
    uint64_t range_end;          /* asked for; 0: no range */
    uint64_t skip_bytes;         /* of a body without range: known already */
    uint64_t accept_bytes;       /* of the body, at most */
    uint64_t got_bytes;          /* of the body */
    uint64_t new_bytes;          /* of those, written */
    double begin;
    int is_accepted;
    int no_range;                /* the range was ignored */
    int bad_range;
    int etag_changed;
    int write_failed;
    ckpt_error err;              /* why it was refused, or not written; code 0: it was not */
};

struct download {
    hub *h;
    hub_listing *listing;
    place *where;
    hash_pool *pool;
    download_options options;
    download_stats stats;
    dfile *files;
    size_t *order;               /* of starting */
    size_t count;
    uint64_t counted_bytes;      /* of files and order, as memory.h was told */
    size_t next_large;           /* in order, from the front */
    size_t next_small;
    size_t small_begin;          /* in order: the first small one */
    dfile *running[CONNECTIONS_MAX * 2];   /* started, not at an end */
    size_t running_count;
    size_t taken_count;          /* with options.taker */
    transfer transfers[CONNECTIONS_MAX];
    unsigned busy_count;
    /* The search for the best number of connections. */
    double limit;
    double limit_time;
    double hold_until;
    double last_rate;
    uint64_t last_bytes;
    int direction;               /* of the last step */
    hub_listing second;          /* asked for after a wrong hash, where no commit pins the first */
    int has_second;
    double disk_full_since;      /* 0: it is not */
    double disk_checked;
    ckpt_error fatal;            /* ends the run */
};

/* download_fetch.c: start one; 0: nothing could be started now. */
ckpt_code fetch_start(download *d, dfile *file, piece *p, ckpt_error *err);

/* download.c: what a transfer that ended means. */
void file_fail(download *d, dfile *file, const ckpt_error *err);
void file_set_failure(download *d, dfile *file);         /* one more try without progress */
void file_piece_done(download *d, dfile *file);
void file_restart(download *d, dfile *file);             /* from nothing */
void file_go_single(download *d, dfile *file);           /* ranges do not work */
void file_drop_transfers(download *d, const dfile *file);
/* Smaller pieces from now on; 0: they are as small as it gets. */
int file_halve_pieces(dfile *file);
/* The listing was wrong: begin anew with another hash. */
void file_begin_anew(download *d, dfile *file);
void download_slow_down(download *d);

/* download_files.c: the life of one file. */
ckpt_code file_begin(download *d, dfile *file, ckpt_error *err);
void file_end(download *d, dfile *file, download_state state);
void file_advance(download *d, dfile *file);
uint64_t file_end_bytes(const hub_file *file);           /* that are wanted of it */
uint64_t file_present_bytes(const dfile *file);

/* download_pace.c: how many connections. */
unsigned pace_limit(const download *d);
void pace_update(download *d);

#endif
