/*
 * download_tree.h: files below a folder, under untrusted names. No name leaves the folder, and no
 * symbolic link below it is followed.
 */
#ifndef CKPT_DOWNLOAD_TREE_H
#define CKPT_DOWNLOAD_TREE_H

#include <sys/stat.h>

#include "libckpt/hub/hub_reason.h"

/* The last component of a path. Borrowed. */
const char *tree_leaf(const char *path);
/* The folder of `path`, made where absent if `make`. *out is yours to close. */
ckpt_code tree_open_parent(int root, const char *path, int make, int *out, ckpt_error *err);
/* A folder below root, made where absent; *out is yours to close. */
ckpt_code tree_open_folder(int root, const char *path, int *out, ckpt_error *err);
/*
 * A regular file: a named pipe, a device, a socket or a folder is refused at once, because reading
 * it might block for ever. *out is yours to close.
 */
ckpt_code tree_open_file(int root, const char *path, int flags, int *out, ckpt_error *err);
/* The same for a file that may be absent: then *out is -1, without an error. */
ckpt_code tree_open_if_there(int root, const char *path, int flags, int *out, ckpt_error *err);
/* Read from the start, up to `room` bytes; `path` is for errors. */
ckpt_code tree_read(int fd, const char *path, void *out, size_t room, size_t *size,
                    ckpt_error *err);
/* Succeeds if it does not exist. */
ckpt_code tree_remove(int root, const char *path, ckpt_error *err);
/* lstat: st_mode is 0 if nothing exists. If it cannot be examined that is an error, never treated
 * as absent. */
ckpt_code tree_stat(int root, const char *path, struct stat *out, ckpt_error *err);
/* The file appears with all of its content or not at all. Synced if requested. */
typedef struct {
    int root;
    const char *path;
    int scratch;             /* a folder on the same file system, for the unfinished file */
} tree_target;
/* In steps, for long content: failures are reported at the end. tree_put is a json_write_fn. */
typedef struct {
    int fd;
    int error;
    size_t used;
    char name[32];
    char buffer[1 << 15];
} tree_out;
void tree_begin(const tree_target *to, tree_out *out);
int tree_put(void *out, const char *bytes, size_t size);
ckpt_code tree_commit(const tree_target *to, tree_out *out, int synced, ckpt_error *err);
/* All of it at once. */
ckpt_code tree_write(const tree_target *to, const char *text, int synced, ckpt_error *err);
/* Names of files that a killed process left in a scratch folder start or end like this. */
#define TREE_SCRATCH "new."
#define TREE_SCRATCH_END ".new"
void tree_sweep(int scratch);

#endif
