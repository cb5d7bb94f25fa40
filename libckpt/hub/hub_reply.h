/* hub_reply.h: which replies to a request for bytes of a file can be used. */
#ifndef CKPT_HUB_REPLY_H
#define CKPT_HUB_REPLY_H

#include "hub.h"

/* What was asked for. */
typedef struct {
    uint64_t first;              /* of the range */
    uint64_t end;                /* after the last byte of the range; 0: no range, the whole file */
    uint64_t total_bytes;        /* of the file; HUB_TOTAL_UNKNOWN */
} hub_ask;
#define HUB_TOTAL_UNKNOWN UINT64_MAX

/* The bytes of the file that the body contains. It may end before the range that was asked for. */
typedef struct {
    uint64_t first;
    uint64_t size_bytes;
    uint64_t total_bytes;        /* of the file */
} hub_body;

typedef enum {
    HUB_BODY_GOOD,
    HUB_BODY_IS_WHOLE,           /* the range was ignored; `out` is filled in, too */
    HUB_BODY_BAD                 /* not what was asked for: *complaint says why */
} hub_body_verdict;

/* Judge the headers of a 206, or of a 200 with or without Content-Range. */
hub_body_verdict hub_judge_body(const http_reply *reply, const hub_ask *ask, hub_body *out,
                                const char **complaint);

/* NULL, or how the hub's own headers for a file contradict its listing. */
const char *hub_contradiction(const hub_listing *listing, const hub_file *file,
                              const http_reply *reply);

#endif
