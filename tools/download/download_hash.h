/*
 * download_hash.h: threads that hash files while they are received, and rename the good ones into
 * place.
 *
 * A job hashes one file. The receiver reports how many bytes from the start are complete
 * (hash_advance), and a thread hashes the partial up to there, from the page cache. When the hash
 * of the whole file is right, the same thread renames the file into place (place_commit).
 */
#ifndef CKPT_DOWNLOAD_HASH_H
#define CKPT_DOWNLOAD_HASH_H

#include "download_place.h"

typedef struct hash_pool hash_pool;

typedef enum { HASH_RIGHT, HASH_WRONG, HASH_FAILED } hash_outcome;

typedef struct hash_job {
    const hub_file *file;
    partial *from;                  /* NULL: check the existing file */
    void *owner;
    /* The result, once hash_take_done returned the job. */
    hash_outcome outcome;
    char got[65];
    ckpt_error err;
    /* Private to the pool. */
    uint64_t whole_bytes;
    uint64_t hashed_bytes;
    uint64_t synced_bytes;
    int is_queued;
    int is_running;
    int is_done;
    int fd;
    struct sha256 *hash;
    struct hash_job *next;
} hash_job;

/* `wake` is called from the threads when a job is done. */
typedef struct {
    place *place;
    unsigned thread_count;
    void (*wake)(void *context);
    void *context;
} hash_options;
ckpt_code hash_pool_open(const hash_options *options, hash_pool **out, ckpt_error *err);
void hash_pool_close(hash_pool *pool);           /* waits for running jobs; NULL is fine */

/* *job stays the caller's and must not move until hash_end. */
ckpt_code hash_begin(hash_job *job, ckpt_error *err);
/* Bytes [0, whole_bytes) can be read now. */
void hash_advance(hash_pool *pool, hash_job *job, uint64_t whole_bytes);
uint64_t hash_lag_bytes(hash_pool *pool, const hash_job *job);
/* Returns each finished job once; NULL: none now. */
hash_job *hash_take_done(hash_pool *pool);
/* No thread uses the job after this. */
void hash_end(hash_pool *pool, hash_job *job);

#endif
