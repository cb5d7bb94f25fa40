/*
 * hub_http.h: HTTP requests, many at a time, on one thread. Only hub_http.c uses libcurl.
 *
 * No redirect is followed, no credential is added and nothing is retried here. Every request
 * has three callbacks: `head` when the headers are complete, `data` for pieces of a body that
 * `head` accepted with HTTP_TAKE, and `done` exactly once. Only `done` may start other requests.
 */
#ifndef CKPT_HUB_HTTP_H
#define CKPT_HUB_HTTP_H

#include "hub_reason.h"

typedef struct http_client http_client;
typedef struct http_transfer http_transfer;

typedef struct {
    uint64_t connect_seconds;
    uint64_t stall_seconds;        /* give up a transfer below 1 KiB/s for this long */
    uint64_t rate_bytes;           /* of all transfers together, a second; 0: no limit */
    unsigned connection_count;     /* at most, to one host */
} http_options;

/* The headers of a reply. Header names are case-insensitive; NULL if absent. */
typedef struct http_reply http_reply;
unsigned http_status(const http_reply *reply);
const char *http_header(const http_reply *reply, const char *name);
/* The next header of that name after the one with this value; NULL: the first. */
const char *http_header_after(const http_reply *reply, const char *name, const char *value);

typedef enum {
    HTTP_REFUSE,       /* end the transfer */
    HTTP_KEEP,         /* keep the body, an error text or a small document: http_result.text */
    HTTP_TAKE          /* pass the body to `data` */
} http_verdict;

typedef enum {
    HTTP_DONE,         /* the reply is complete */
    HTTP_REFUSED,      /* stopped by `head` or `data` */
    HTTP_TOO_LARGE,    /* a kept body is longer than text_bytes_max */
    HTTP_NO_MEMORY,    /* no memory for a kept body, or it would exceed --memory */
    HTTP_BROKEN,       /* connection refused, lost, too slow, ended early: retry */
    HTTP_IMPOSSIBLE    /* proxy, certificates, protocol: do not retry */
} http_outcome;

typedef struct {
    http_outcome outcome;
    const http_reply *reply;
    const char *text;          /* body under HTTP_KEEP, NUL-terminated */
    size_t text_bytes;
    const char *problem;       /* error message */
    http_transfer *transfer;
} http_result;
/* The body under HTTP_KEEP itself, not a copy, inside `done`: malloc'd, NUL-terminated, yours to
 * free; memory.h does not count it any more. NULL: it is empty. */
char *http_take_text(const http_result *result);

typedef struct {
    const char *url;
    int is_head;
    int compressed;                    /* accept a compressed reply */
    int fresh;                         /* on a new connection */
    const char *range;                 /* "0-99", or NULL */
    const char *const *headers;        /* "Name: value" ..., NULL */
    size_t text_bytes_max;             /* of a kept body; 0: 64 KiB */
    void *context;
    http_verdict (*head)(void *context, const http_reply *reply);
    int (*data)(void *context, const void *bytes, size_t size);      /* 0: end the transfer */
    void (*done)(void *context, const http_result *result);
} http_request;

ckpt_code http_open(const http_options *options, http_client **out, ckpt_error *err);
void http_close(http_client *client);                  /* NULL is fine; no callbacks */

/* Strings of the request need not outlive the call. */
ckpt_code http_start(http_client *client, const http_request *request, http_transfer **out,
                     ckpt_error *err);
void http_cancel(http_client *client, http_transfer *transfer);       /* no callback */
/* Transfer available data, wait up to wait_ms for more; callbacks are called from here. */
ckpt_code http_poll(http_client *client, unsigned wait_ms, ckpt_error *err);
void http_limit(http_client *client, uint64_t rate_bytes);      /* 0: none, as in http_options */
void http_wake(http_client *client);                   /* ends a waiting http_poll; any thread */

const char *http_library(void);                        /* "libcurl/7.88.1" */

#endif
