/*
 * download_fetch.h: requests for bytes. A transfer asks, follows redirects, proves that the reply
 * is what was asked for, and writes it into its file. How it ended is told through one callback;
 * what follows from that is not decided here.
 */
#ifndef CKPT_DOWNLOAD_FETCH_H
#define CKPT_DOWNLOAD_FETCH_H

#include "download_files.h"

enum { CONNECTIONS_MAX = 64 };

typedef struct fetcher fetcher;

typedef enum {
    FETCH_GOT,           /* the segment is whole */
    FETCH_MOVED,         /* where the bytes are is known now: the file has its URL */
    FETCH_AGAIN,         /* not all came; trying again may help */
    FETCH_STALE,         /* the data host refuses its own URL */
    FETCH_CHANGED,       /* the data host has another object under the same URL */
    FETCH_NO_RANGE,      /* the range was ignored */
    FETCH_BAD_RANGE,     /* the reply is not of the range that was asked for */
    FETCH_REFUSED        /* trying again is no use */
} fetch_outcome;

typedef struct {
    fetch_outcome outcome;
    dfile *file;
    int is_failure;          /* FETCH_AGAIN: it counts as a try without progress */
    int is_pushed_back;      /* FETCH_AGAIN: fewer connections would be better */
    const char *host;        /* FETCH_STALE: that refused */
    unsigned status;         /* FETCH_STALE: what it said */
    const ckpt_error *err;   /* FETCH_STALE, FETCH_BAD_RANGE, FETCH_REFUSED: what to say if the
                              * file fails for it */
} fetch_result;

/* The transfer is over, and its segment at rest. Other transfers may be cancelled inside. */
typedef void fetch_done(void *context, const fetch_result *result);

ckpt_code fetch_open(download_env *env, fetch_done *done, void *context, fetcher **out,
                     ckpt_error *err);
void fetch_close(fetcher *f);                            /* NULL is fine; no callbacks */

/* Ask for a segment, or where the bytes are: NULL. There are fewer than CONNECTIONS_MAX. */
ckpt_code fetch_start(fetcher *f, dfile *file, segment *s, ckpt_error *err);
/* End all transfers of the file, without a callback; what came of them stays. */
void fetch_cancel(fetcher *f, const dfile *file);
unsigned fetch_count(const fetcher *f);                  /* transfers under way */
/* Of the file's segments under way, the largest that is worth dividing; NULL: none is. */
segment *fetch_largest(const fetcher *f, const dfile *file);

#endif
