/*
 * download_tree.h: files below a folder, reached by names that a stranger chose. No name leaves
 * the folder, and no symbolic link below it is followed.
 */
#ifndef CKPT_DOWNLOAD_TREE_H
#define CKPT_DOWNLOAD_TREE_H

#include <sys/stat.h>

#include "libckpt/error.h"

/* The last component of a path. Borrowed. */
const char *tree_leaf(const char *path);
/* The folder of `path`, made where absent if `make`. *out is yours to close. */
ckpt_code tree_open_parent(int root, const char *path, int make, int *out, ckpt_error *err);
/* A folder below root, made where absent; *out is yours to close. */
ckpt_code tree_open_folder(int root, const char *path, int *out, ckpt_error *err);
/* -1 when it is not there (no error) or cannot be opened (error). */
ckpt_code tree_open_file(int root, const char *path, int flags, int *out, ckpt_error *err);
/* Fine if it is not there. */
ckpt_code tree_remove(int root, const char *path, ckpt_error *err);
/* Of what is there, links not followed. 0: nothing. */
int tree_stat(int root, const char *path, struct stat *out);
/* The file appears with all of its content, or not at all. Synced where asked. */
typedef struct {
    int root;
    const char *path;
    int scratch;             /* a folder of the same file system, where it is until it is whole */
} tree_target;
ckpt_code tree_write(const tree_target *to, const char *text, int synced, ckpt_error *err);
/* What a killed process left in a scratch folder begins or ends so. */
#define TREE_SCRATCH "new."
#define TREE_SCRATCH_END ".new"
void tree_sweep(int scratch);

#endif
