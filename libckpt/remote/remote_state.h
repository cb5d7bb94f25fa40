/*
 * remote_state.h: what readers of one repository, or of one folder of a web server, share with the
 * thread that talks to the network.
 *
 * `lock` guards the cache and the members of entries that readers use.
 */
#ifndef CKPT_REMOTE_STATE_H
#define CKPT_REMOTE_STATE_H

#include <pthread.h>

#include "libckpt/hub/hub.h"
#include "remote.h"
#include "remote_cache.h"

enum {
    REMOTE_HEAD_BLOCKS = 2,      /* fetched when a file is first read: most headers fit in */
    REMOTE_HEADS_AHEAD = 32,     /* files whose headers are fetched before they are asked for */
    REMOTE_AHEAD_BLOCKS = 64,    /* before a reader that goes on and on, at most */
    REMOTE_STREAMS = 4,          /* readers at different places of a file that are told apart */
    REMOTE_ORIGINS = 8,
    REMOTE_CONNECTIONS = 16,
    REMOTE_VERSION_BYTES = 128
};

/* A reader that goes through a file. */
typedef struct {
    uint64_t next;               /* the block that it needs next */
    uint64_t ahead_blocks;
    uint64_t used_at;
} remote_stream;

/* Which version of a file a server has: its ETag, else its Last-Modified. It never changes. The
 * hosts of a hub have ETags of their own; a web server, wherever it redirects to, has one. */
typedef struct {
    char origin[HUB_HOST_BYTES];
    char host[HUB_HOST_BYTES];           /* that told the version */
    char version[REMOTE_VERSION_BYTES];
} remote_origin;

typedef enum { PROBE_NONE, PROBE_WANTED, PROBE_RUNNING } remote_probe;

typedef struct {
    hub_file file;               /* its path is in the listing, or `own_path` */
    char *own_path;
    char *path;                  /* its name in errors */
    int is_known;                /* its size is */
    int is_absent;
    ckpt_error *refusal;         /* a 403, which may mean that it is absent; or NULL */
    int head_was_asked;
    int is_opened;               /* as a file; others were at most looked for, or read ahead */
    remote_stream streams[REMOTE_STREAMS];
    remote_probe probe;
    uint64_t probe_count;        /* that have ended */
    ckpt_error *failure;         /* every later read fails like this; or NULL */

    /* Of the network's thread. */
    char *url;                   /* where the data is, if the hub has told; or NULL */
    unsigned generation;         /* of `url` */
    int is_direct;               /* the hub itself has it */
    int is_resolving;            /* a request is under way that will tell */
    unsigned failure_count;      /* since the last block */
    unsigned refresh_count;      /* of `url`, since the last block */
    double not_before;
    remote_origin origins[REMOTE_ORIGINS];
    unsigned origin_count;
} remote_entry;

typedef struct remote_network remote_network;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    hub *h;
    hub_listing listing;         /* of hubs */
    int is_plain;                /* a web server: there is no listing, files are tried */
    int hides_absent;            /* it answers 403 for files that do not exist */
    int is_told;                 /* this was told */
    char *root;                  /* its name in errors: the URL without the path in it */
    remote_options options;
    char *texts[4];              /* of options.repo ...; owned */
    remote_entry **entries;
    size_t entry_count;
    remote_cache cache;
    unsigned reference_count;
    remote_network *network;
    pthread_t thread;
    int is_started;
    int is_closing;
    ckpt_error failure;          /* of all files; code 0: none */
} remote_session;

uint64_t remote_block_size(const remote_entry *entry, uint64_t number);

/* Call these with the lock held. The failure is of a file, or, with entry NULL, of all. */
void remote_state_fail(remote_session *s, remote_entry *entry, const ckpt_error *err);
/* The size of a file is known now: blocks behind its end are freed. */
void remote_state_learn(remote_session *s, remote_entry *entry, uint64_t size_bytes);

#endif
