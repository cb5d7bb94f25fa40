/*
 * download_place.h: where files end up, and what is kept beside them.
 *
 * A folder of one's own (D), as `hf download --local-dir D` leaves it, or Hugging Face's cache:
 *
 *   D/PATH                                       the file; appears by a rename, verified
 *   D/.cache/huggingface/download/PATH.metadata  commit, hash, time: what the Python client reads
 *   D/.cache/huggingface/download/PATH.lock      shared with the Python client
 *   D/.cache/huggingface/trees/COMMIT.json       the listing, for the Python client
 *   D/.cache/huggingface/ckpt/                   the side folder: partials, journals and
 *       lock          held while a download runs
 *       listing.json  every file of the repository with its hash, as the hub listed it
 *       verified      SIZE TAB MTIME_NS TAB INODE TAB HASH TAB PATH TAB "ok": these bytes were
 *                     hashed; the last line of a path holds, and only while stat agrees
 *
 *   CACHE/models--OWNER--NAME/{blobs/HASH, snapshots/COMMIT/PATH, refs/REV, trees/, ckpt/}
 *
 * listing.json: {"version": 1, "hub", "endpoint", "repo", "type", "revision", "commit" (null on
 * ModelScope), "files": [{"path", "size", "algorithm": "sha256"|"git-sha1", "hash",
 * "selected": bool}]}; git-sha1 is SHA-1 over "blob SIZE" NUL content.
 */
#ifndef CKPT_DOWNLOAD_PLACE_H
#define CKPT_DOWNLOAD_PLACE_H

#include "download_partial.h"

#define PLACE_SIDE ".cache/huggingface/ckpt"

typedef struct place place;

typedef struct {
    const hub *h;
    const hub_listing *listing;
    const char *local_dir;       /* or NULL: the cache */
    const char *cache_dir;       /* or NULL: where Hugging Face has it */
    int dry_run;                 /* look, touch nothing */
    int allocate;
    int trust_metadata;          /* PLACE_TRUSTED instead of PLACE_UNKNOWN */
    int hf_refs;                 /* also refs/ in the cache, at place_end */
} place_options;

/* Where the listing of an earlier run is; malloc'd, NULL: there is none. */
ckpt_code place_kept_listing(const place_options *options, char **out, ckpt_error *err);
ckpt_code place_open(const place_options *options, place **out, ckpt_error *err);
void place_close(place *p);                      /* NULL is fine */

/* Absolute path of D, or of the snapshot. */
const char *place_path(const place *p);
/* A folder of the file system in question, for statvfs. -1: not there yet (dry run). */
int place_root_fd(const place *p);
/* What the partial of a file will still take of the disk, at most. */
uint64_t place_need_bytes(const place *p, const hub_file *file);
/* What the disk has left for us; 0: it does not say. */
int place_free_bytes(const place *p, uint64_t *out);

/* Write the listings and marks that belong there before the first file. */
ckpt_code place_begin(place *p, ckpt_error *err);
/* Everything selected is there: names in the cache, and all of it on the disk. */
ckpt_code place_end(place *p, ckpt_error *err);

typedef enum {
    PLACE_ABSENT,
    PLACE_UNKNOWN,               /* a file of the right size, not hashed by us */
    PLACE_VERIFIED,              /* hashed by us, unchanged since */
    PLACE_BLOCKED,               /* a folder, or something else that is not a file, is in the way */
    PLACE_TRUSTED,               /* not hashed by us, but noted by the Python client */
    PLACE_UNREADABLE             /* it cannot be looked at: never taken for absent */
} place_state;
/* *err (or NULL) says more of what is blocked or unreadable. */
place_state place_look(const place *p, const hub_file *file, ckpt_error *err);

/* Open the file that is there, for hashing. */
ckpt_code place_open_file(const place *p, const hub_file *file, int *fd, ckpt_error *err);
/* What is there is taken as it is: give it its name in the snapshot. */
ckpt_code place_keep(place *p, const hub_file *file, ckpt_error *err);
/* It was hashed and is right: remember that, and tell the Python client. Any thread. */
ckpt_code place_record(place *p, const hub_file *file, ckpt_error *err);
/* Give a verified partial its name. Any thread. */
ckpt_code place_commit(place *p, const hub_file *file, partial *from, ckpt_error *err);

/* The lock that the Python client respects. 0: another process has it. *fd: -1, or to close. */
int place_lock(const place *p, const hub_file *file, int *fd);
/* Where the partial of a file of the listing lies. */
partial_place place_partial(const place *p, const hub_file *file);
/* Take the file away again, with what tells the Python client of it. */
ckpt_code place_remove(const place *p, const hub_file *file, ckpt_error *err);
/* The next program that this process becomes keeps the folder's lock. */
void place_pass_lock(const place *p);
/* 1 when the folder was a download before this run. */
int place_was_download(const place *p);
/* Remove files that the hub does not list; .cache and .git are left alone. */
typedef struct {
    size_t count;
    uint64_t bytes;
} place_pruned;
ckpt_code place_prune(const place *p, place_pruned *out, ckpt_error *err);
/* An unfinished file of an old Python client becomes the partial, where there is none. */
ckpt_code place_adopt(const place *p, const hub_file *file, ckpt_error *err);
/* Bytes of all its unfinished files. */
uint64_t place_foreign_bytes(const place *p);
/* Bytes of partials that no file of the listing wants; removed if `remove`. */
uint64_t place_orphans(const place *p, int remove);

#endif
