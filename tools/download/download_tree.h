/*
 * download_tree.h: files below a folder, reached by names that a stranger chose. No name leaves
 * the folder, and no symbolic link below it is followed.
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
 * A regular file: a named pipe, a device, a socket or a folder in its place is refused at once, as
 * reading it might never end. *out is yours to close.
 */
ckpt_code tree_open_file(int root, const char *path, int flags, int *out, ckpt_error *err);
/* The same where it may be absent: *out is -1 then, and only then, without an error. */
ckpt_code tree_open_if_there(int root, const char *path, int flags, int *out, ckpt_error *err);
/* From the beginning, until `room` bytes or the end; `path` names it in errors. */
ckpt_code tree_read(int fd, const char *path, void *out, size_t room, size_t *size,
                    ckpt_error *err);
/* Fine if it is not there. */
ckpt_code tree_remove(int root, const char *path, ckpt_error *err);
/* What is there, links not followed: st_mode is 0 when nothing is. What cannot be looked at is an
 * error, and never taken for nothing. */
ckpt_code tree_stat(int root, const char *path, struct stat *out, ckpt_error *err);
/* The file appears with all of its content, or not at all. Synced where asked. */
typedef struct {
    int root;
    const char *path;
    int scratch;             /* a folder of the same file system, where it is until it is whole */
} tree_target;
/* In steps, for what is long: failures are kept until the end. tree_put is a json_write_fn. */
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
/* What a killed process left in a scratch folder begins or ends so. */
#define TREE_SCRATCH "new."
#define TREE_SCRATCH_END ".new"
void tree_sweep(int scratch);

#endif
