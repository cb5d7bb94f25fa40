/*
 * download_fetch.h: requests for data. A transfer sends a request, follows redirects, checks that
 * the reply is what was requested, and writes it into its file. One callback reports how it ended;
 * the scheduler decides what to do next.
 */
#ifndef CKPT_DOWNLOAD_FETCH_H
#define CKPT_DOWNLOAD_FETCH_H

#include "download_files.h"
#include "libckpt/hub/hub_reply.h"

enum { CONNECTIONS_MAX = 64 };

typedef struct fetcher fetcher;

typedef enum {
    FETCH_GOT,           /* the segment is complete */
    FETCH_MOVED,         /* the URL of the data is known now */
    FETCH_AGAIN,         /* incomplete; a retry may help */
    FETCH_STALE,         /* the data host refuses the URL it issued */
    FETCH_CHANGED,       /* the data host serves a different object under the same URL */
    FETCH_NO_RANGE,      /* the range was ignored */
    FETCH_BAD_RANGE,     /* the reply is not the requested range */
    FETCH_REFUSED        /* a retry cannot help */
} fetch_outcome;

typedef struct {
    fetch_outcome outcome;
    dfile *file;
    int is_failure;          /* FETCH_AGAIN: counts as a try without progress */
    int is_pushed_back;      /* FETCH_AGAIN: fewer connections would be better */
    const char *host;        /* FETCH_STALE: host that refused */
    unsigned status;         /* FETCH_STALE: its status */
    const ckpt_error *err;   /* FETCH_STALE, FETCH_BAD_RANGE, FETCH_REFUSED: the error if the file
                              * fails because of it */
} fetch_result;

/* The transfer has ended and its segment is released. The callback may cancel other transfers. */
typedef void fetch_done(void *context, const fetch_result *result);

ckpt_code fetch_open(download_env *env, fetch_done *done, void *context, fetcher **out,
                     ckpt_error *err);
void fetch_close(fetcher *f);                            /* NULL is fine; no callbacks */

/* Request a segment, or with NULL resolve the URL. There are fewer than CONNECTIONS_MAX
 * transfers. */
ckpt_code fetch_start(fetcher *f, dfile *file, segment *s, ckpt_error *err);
/* Cancel all transfers of the file, without a callback; received data stays. */
void fetch_cancel(fetcher *f, const dfile *file);
unsigned fetch_count(const fetcher *f);                  /* transfers in progress */
/* The file's largest segment in progress that is worth splitting, or NULL. */
segment *fetch_largest(const fetcher *f, const dfile *file);

#endif
