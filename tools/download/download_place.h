/*
 * download_place.h: the download folder: where files end up, and what is stored beside them.
 *
 * Either a local folder (D), as made by `hf download --local-dir D`, or the Hugging Face cache:
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
#include "libckpt/file.h"

#define PLACE_SIDE ".cache/huggingface/ckpt"

typedef struct place place;

typedef struct {
    const hub *h;
    const hub_listing *listing;
    const char *local_dir;       /* or NULL: the cache */
    const char *cache_dir;       /* or NULL: Hugging Face's default */
    int dry_run;                 /* dry run: change nothing */
    int allocate;
    int trust_metadata;          /* PLACE_TRUSTED instead of PLACE_UNKNOWN */
    int hf_refs;                 /* also refs/ in the cache, at place_end */
} place_options;

/* Path of the listing of an earlier run; malloc'd, NULL: there is none. */
ckpt_code place_kept_listing(const place_options *options, char **out, ckpt_error *err);
ckpt_code place_open(const place_options *options, place **out, ckpt_error *err);
void place_close(place *p);                      /* NULL is fine */

/* Absolute path of D, or of the snapshot. */
const char *place_path(const place *p);
/* A folder of the file system in question, for statvfs. -1: not there yet (dry run). */
int place_root_fd(const place *p);
/* Disk space that the partial of a file will still need, at most. */
uint64_t place_need_bytes(const place *p, const hub_file *file);
/* Free disk space; 0: unknown. */
int place_free_bytes(const place *p, uint64_t *out);

/* Write the listings and marker files, before the first file. */
ckpt_code place_begin(place *p, ckpt_error *err);
/* Everything selected is present: create the names in the cache and sync. */
ckpt_code place_end(place *p, ckpt_error *err);

typedef enum {
    PLACE_ABSENT,
    PLACE_UNKNOWN,               /* a file of the right size, not hashed by us */
    PLACE_VERIFIED,              /* hashed by us, unchanged since */
    PLACE_BLOCKED,               /* a folder, or something else that is not a file, is in the way */
    PLACE_TRUSTED,               /* not hashed by us, but noted by the Python client */
    PLACE_UNREADABLE             /* it cannot be examined: never treated as absent */
} place_state;
/* *err (or NULL) describes what is blocked or unreadable. */
place_state place_look(const place *p, const hub_file *file, ckpt_error *err);

/* Open the existing file for hashing. */
ckpt_code place_open_file(const place *p, const hub_file *file, int *fd, ckpt_error *err);
/* Accept the existing file: create its name in the snapshot. */
ckpt_code place_keep(place *p, const hub_file *file, ckpt_error *err);
/* It was hashed and is right: record that, also for the Python client. Any thread. */
ckpt_code place_record(place *p, const hub_file *file, ckpt_error *err);
/* Rename a verified partial into place. Any thread. */
ckpt_code place_commit(place *p, const hub_file *file, partial *from, ckpt_error *err);

/* Take the lock that the Python client respects. 0: another process holds it. *fd: -1, or yours to
 * close. */
int place_lock(const place *p, const hub_file *file, int *fd);
/* Location of the partial of a file of the listing. */
partial_place place_partial(const place *p, const hub_file *file);
/* Delete the file and the Python client's record of it. */
ckpt_code place_remove(const place *p, const hub_file *file, ckpt_error *err);
/* Keep the folder's lock across exec. */
void place_pass_lock(const place *p);
/* Refuse a folder from which nothing may be deleted: it has files, and no download made it. For
 * before place_open. */
ckpt_code place_check_prune(const char *local_dir, ckpt_error *err);
/* Remove files that the hub does not list; .cache and .git are left alone. In a dry run they are
 * only named. */
typedef struct {
    size_t count;
    uint64_t bytes;
    file_list names;             /* in a dry run; yours to free, also after a failure */
} place_pruned;
ckpt_code place_prune(const place *p, place_pruned *out, ckpt_error *err);
/* Use an unfinished file of an old Python client as the partial, if there is none. */
ckpt_code place_adopt(const place *p, const hub_file *file, ckpt_error *err);
/* Bytes of all its unfinished files. */
uint64_t place_foreign_bytes(const place *p);
/* Bytes of partials that belong to no file of the listing; removed if `remove`. */
uint64_t place_orphans(const place *p, int remove);

#endif
