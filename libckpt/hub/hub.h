/*
 * hub.h: a repository on a hub: its listing, the URLs of its files, its error replies.
 *
 * A hub is a hub_kind; Hugging Face (hub_hf.c) and ModelScope (hub_modelscope.c) are the two.
 * Everything is listed, checked and pinned before the first file is requested.
 */
#ifndef CKPT_HUB_H
#define CKPT_HUB_H

#include <stdatomic.h>

#include "hub_http.h"
#include "hub_reason.h"
#include "hub_text.h"
#include "libckpt/arena.h"
#include "libckpt/json.h"

typedef enum { HUB_SHA256, HUB_GIT_SHA1 } hub_algorithm;
const char *hub_algorithm_name(hub_algorithm algorithm);     /* "sha256", "git-sha1" */

typedef struct {
    const char *path;            /* passed hub_path_complaint */
    const char *hash;            /* of the content, lower-case hex */
    const char *oid;             /* git object id of the entry; NULL if the hub has none */
    const char *xet_hash;        /* or NULL */
    uint64_t size_bytes;
    hub_algorithm algorithm;
    int is_selected;
    uint64_t head_bytes;         /* fetch only this many bytes, into its partial; 0: all */
} hub_file;

typedef struct {
    arena memory;
    hub_file *files;             /* sorted by path */
    size_t count;
    size_t room_count;           /* count for which `files` was allocated; larger than `count` if
                                  * unsafe files were left out */
    uint64_t entry_count;        /* entries sent by the hub, including folders */
    uint64_t text_bytes;         /* of all pages */
    char commit[41];             /* "" if the hub has none */
    uint64_t page_count;
    int is_redacted;             /* some Xet hashes are missing */
    size_t unsafe_count;         /* files with unsafe names that were left out */
    const char *unsafe_path;     /* the first of them; or NULL */
} hub_listing;

typedef enum { HUB_API, HUB_RESOLVERS, HUB_DATA, HUB_BUCKET_COUNT } hub_bucket;

typedef struct {
    double not_before;           /* no request before this time */
    double interval;             /* seconds between requests, when few are left */
} hub_pace;

typedef struct hub hub;
enum { HUB_TOPICS_MAX = 16 };

typedef struct {
    const char *name;                      /* "hf" */
    const char *default_revision;
    const char *site_variable;             /* name of the token, for error messages */
    const char *own_host;                  /* redirects to it go to the endpoint, which may be a
                                            * mirror; NULL: redirects are followed as they are */
    int head_first;                        /* HEAD returns a large file's own URL */
    int has_session;                       /* the token is also sent as a session cookie */
    /* Base URL and token from the environment; malloc'd. */
    ckpt_code (*configure)(hub *h, ckpt_error *err);
    /* Commit and files. */
    ckpt_code (*list)(hub *h, hub_listing *out, ckpt_error *err);
    char *(*file_url)(const hub *h, const hub_listing *listing, const hub_file *file);
} hub_kind;

/* Path of the Hugging Face cache; malloc'd. */
char *hub_cache_folder(void);
/* 1 when the environment disables requests (offline mode). */
int hub_is_offline(void);

enum { HUB_TRIES = 8 };          /* hub_options.tries_max unless the user says otherwise */

extern const hub_kind hub_huggingface;
extern const hub_kind hub_modelscope;

typedef struct {
    const char *repo;
    const char *type;            /* "model", "dataset", "space" */
    const char *revision;        /* NULL: the hub's default */
    const char *endpoint;        /* NULL: from the environment */
    const char *token;           /* NULL: from the environment */
    int insecure_http;           /* a token may be sent unencrypted */
    const char *const *host_maps;    /* hub_map_host, of redirects */
    size_t host_map_count;
    int is_quiet;
    unsigned tries_max;          /* in a row without progress, then a request or file is given up */
    uint64_t wait_seconds_max;   /* in total, for rate limits */
    const char *wait_option;     /* what users call that limit */
    const atomic_int *stop;
    http_options http;
} hub_options;

struct hub {
    const hub_kind *kind;
    hub_options options;
    http_client *http;
    char *endpoint;              /* no slash at the end */
    char *token;                 /* or NULL */
    char user_agent[128];
    char trace_id[40];
    hub_pace paces[HUB_BUCKET_COUNT];
    double waited_seconds;
    uint64_t request_count;
    double told_until;           /* end of the last wait that was told; 0: none was */
    uint64_t told_topics[HUB_TOPICS_MAX];    /* hashes of the warnings that were printed */
    size_t told_count;
    char *other_endpoint;        /* tried if the first does not have the repository; or NULL */
};

/* A copy of `text`, yours to free; fails without memory, since a request must not lose its
 * token. */
ckpt_code hub_copy_text(char **out, const char *text, ckpt_error *err);
ckpt_code hub_open(const hub_kind *kind, const hub_options *options, hub **out, ckpt_error *err);
void hub_close(hub *h);          /* NULL is fine */

/* Headers for a request to `url`: credentials only where its origin is the hub's. Valid until the
 * next call. `lines` has room for HUB_HEADERS_MAX. */
enum { HUB_HEADERS_MAX = 8, HUB_HEADER_BYTES = 4096 };
typedef struct {
    char text[HUB_HEADERS_MAX][HUB_HEADER_BYTES];
    const char *lines[HUB_HEADERS_MAX + 1];
    size_t count;
} hub_headers;
void hub_make_headers(const hub *h, const char *url, hub_headers *out);

/* ---- requests ---- */

typedef struct {
    char *text;
    size_t text_bytes;
    char *next;                  /* URL of the next page, same origin; or NULL */
} hub_page;

/* Fetch a JSON page of the hub's API: redirects are followed at the same origin, temporary
 * failures retried. *out is yours to release, also on failure. */
ckpt_code hub_get_page(hub *h, const char *url, hub_page *out, ckpt_error *err);
/* Parse the text, which is consumed. */
ckpt_code hub_page_parse(hub_page *page, const char *subject, json_document **out, ckpt_error *err);
void hub_page_release(hub_page *page);

/* The error for a reply with status >= 400. `subject`: path or repo. */
ckpt_code hub_refusal(hub *h, const http_result *result, const char *subject, ckpt_error *err);
int hub_is_transient(unsigned status);
/* Target of a redirect; malloc'd. Refuses downgrades to http and invalid Locations. */
ckpt_code hub_redirect(const hub *h, const char *url, const http_reply *reply, char **out,
                       ckpt_error *err);

/* Record the rate limits in a reply, print its warnings. Returns 1 for a 429. */
int hub_note_limits(hub *h, hub_bucket bucket, const http_reply *reply);
/* Seconds until the next request is allowed; 0: now, and a request is counted. */
double hub_delay(hub *h, hub_bucket bucket);
/* Fails if the total wait exceeds the limit. */
ckpt_code hub_check_waiting(hub *h, ckpt_error *err);
/* Seconds before try number `failures` + 1: none after the first. */
double hub_backoff(unsigned failures);

/* ---- listing ---- */

void hub_listing_release(hub_listing *listing);
/* Fail because the hub's reply is not a listing: `what` says why. */
ckpt_code hub_fail_listing(const hub *h, const char *what, ckpt_error *err);
/* Count a page with its entries and bytes before it is used: a listing that never ends is
 * refused. */
ckpt_code hub_listing_count_page(hub_listing *listing, size_t entry_count, size_t text_bytes,
                                 ckpt_error *err);
/* Copies the strings of *file. */
ckpt_code hub_listing_add(hub_listing *listing, const hub_file *file, ckpt_error *err);
/* Sort; refuse unsafe names, duplicates, files that are also folders (or skip them: skip_unsafe),
 * and invalid hashes. */
ckpt_code hub_listing_check(const char *repo, hub_listing *listing, int skip_unsafe,
                            ckpt_error *err);
const hub_file *hub_listing_find(const hub_listing *listing, const char *path);
/* Find two selected files whose names differ only in case; NULL: there are none. */
ckpt_code hub_listing_twins(const hub_listing *listing, const char *twins[2], ckpt_error *err);

#endif
