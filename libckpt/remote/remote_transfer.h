/*
 * remote_transfer.h: one request for consecutive blocks of a file, or to learn whether the file is
 * as it was: redirects, which replies are accepted, what a refusal means.
 */
#ifndef CKPT_REMOTE_TRANSFER_H
#define CKPT_REMOTE_TRANSFER_H

#include "libckpt/hub/hub_reply.h"
#include "remote_state.h"

enum { REMOTE_SEGMENT_BLOCKS = 16 };

typedef enum {
    TRANSFER_AGAIN,              /* temporary: try again */
    TRANSFER_FATAL,              /* the file cannot be read: err says why */
    TRANSFER_STRANGE             /* not what was asked for: try again, but not often */
} transfer_refusal;

typedef struct {
    remote_session *s;
    remote_entry *entry;
    http_transfer *http;
    char *url;
    unsigned hops;
    unsigned generation;         /* of the entry's address that it was sent to */
    int in_use;
    int is_probe;                /* only the headers of the reply matter */
    int is_answered;             /* a probe: the file is as it was */
    int is_first_answer;         /* the hub is asked where the data is */
    hub_bucket bucket;
    uint64_t at;                 /* the next byte of the file that is to come */
    uint64_t end;                /* after the last byte that was asked for */
    uint64_t skip_bytes;         /* of the body, before `at` */
    uint64_t left_bytes;         /* of the body after those; it may end before `end` */
    uint64_t new_bytes;
    remote_block *blocks[REMOTE_SEGMENT_BLOCKS];
    unsigned block_count;
    unsigned block_at;           /* the block of `at` */
    transfer_refusal refusal;
    ckpt_error err;              /* code 0: none */
} remote_transfer;

/* Send the request for `t`, whose session, entry and blocks are set. Called with the lock held. A
 * failure is one of the session. */
ckpt_code remote_transfer_start(remote_transfer *t, ckpt_error *err);
/* Give its blocks back, unfinished. Called with the lock held. */
void remote_transfer_release(remote_transfer *t);

#endif
