/* download_run.h: shared by the scheduler (download.c) and its pace (download_pace.c). */
#ifndef CKPT_DOWNLOAD_RUN_H
#define CKPT_DOWNLOAD_RUN_H

#include "download_fetch.h"

struct download {
    download_env env;
    fetcher *fetch;
    dfile *files;
    size_t *order;               /* of starting */
    size_t count;
    uint64_t counted_bytes;      /* bytes of files and order, as charged to memory.h */
    size_t next_large;           /* in order, from the front */
    size_t next_small;
    size_t small_begin;          /* in order: the first small one */
    dfile *running[CONNECTIONS_MAX * 2];   /* started, not ended */
    size_t running_count;
    size_t taken_count;          /* with options.taker */
    /* The search for the best number of connections. */
    double limit;
    double limit_time;
    double hold_until;
    double last_rate;
    uint64_t last_bytes;
    int direction;               /* of the last step */
    hub_listing second;          /* fetched after a wrong hash, if no commit pins the first */
    int has_second;
    double disk_full_since;      /* 0: it is not */
    double disk_checked;
    ckpt_error fatal;            /* ends the run */
};

/* download_pace.c: how many connections. */
unsigned pace_limit(const download *d);
void pace_update(download *d);
void pace_slow_down(download *d);                        /* the server pushes back */

#endif
