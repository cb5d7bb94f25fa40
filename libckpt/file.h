/*
 * file.h: files and directories. There is no current position: every transfer has an offset.
 *
 * Reads and writes continue after short counts and EINTR. Errors name the path.
 */
#ifndef CKPT_FILE_H
#define CKPT_FILE_H

#include "error.h"

typedef struct ckpt_file ckpt_file;

/*
 * Open a regular file, with the flags of open(2). A named pipe, device, socket or directory is
 * refused at once, because reading it might never end. *fd is yours to close. All functions below
 * open files in this way, except file_read_named.
 */
ckpt_code file_open_fd(const char *path, int flags, int *fd, ckpt_error *err);

/* Open for reading. *out is yours to close. */
ckpt_code file_open(const char *path, ckpt_file **out, ckpt_error *err);
/*
 * Open directory/name for reading and writing; created if absent, never truncated. To make sure
 * that nothing outside of `directory` is written, a symbolic link in any component of the name is
 * refused, and so is a file with more than one hard link.
 */
ckpt_code file_open_rw(const char *directory, const char *name, ckpt_file **out, ckpt_error *err);
/* The same with the flags of open(2); returns a descriptor. */
ckpt_code file_open_below(const char *directory, const char *name, int flags, int *fd,
                          ckpt_error *err);
/* Create a file for reading and writing. A path that exists, also as a link, is an error. */
ckpt_code file_open_new(const char *path, ckpt_file **out, ckpt_error *err);
/* Closes, also on failure; NULL is fine. For files that were written, check the result: a late
 * write error may show here. */
ckpt_code file_close(ckpt_file *f, ckpt_error *err);

/*
 * Detects that a file was changed after it was opened. The values mean nothing by themselves; they
 * are only compared. For local files version is the time of modification and touch that of the last
 * status change.
 */
typedef struct {
    uint64_t version;           /* differs if the bytes were changed */
    uint64_t touch;             /* differs also if only the mode, owner or links were changed */
    int64_t modified_ns;        /* since 1970; 0: not known */
} file_identity;

const char *file_path(const ckpt_file *f);            /* its name in errors */
uint64_t file_size(const ckpt_file *f);               /* when it was opened */
const file_identity *file_identity_of(const ckpt_file *f);

/*
 * CKPT_E_FORMAT if the path now leads to another file, or its size or version differ. *is_touched
 * (may be NULL) becomes 1 if only `touch` differs: its mode or links were changed, or its bytes
 * were changed and its modification time was set back. Only reading the file again can tell which.
 * Always CKPT_OK for files that are not on a local disk: folder_check_unchanged asks for those.
 */
ckpt_code file_check_unchanged(const ckpt_file *f, int *is_touched, ckpt_error *err);

/* A rectangle of a file: row_count runs of row_bytes, the first at `offset`, each pitch_bytes after
 * the one before. */
typedef struct {
    uint64_t offset;
    uint64_t row_bytes;
    uint64_t pitch_bytes;
    uint64_t row_count;
} file_rect;

/*
 * Read exactly `size` bytes at `offset` into `out`.
 * A file that ends early is CKPT_E_FORMAT, because sizes come from headers. Thread-safe.
 */
ckpt_code file_read_at(const ckpt_file *f, uint64_t offset, void *out, size_t size,
                       ckpt_error *err);
ckpt_code file_write_at(ckpt_file *f, uint64_t offset, const void *data, size_t size,
                        ckpt_error *err);

/* The same for a rectangle; rows in memory are memory_pitch_bytes apart. */
ckpt_code file_read_rect(const ckpt_file *f, const file_rect *rect, void *out,
                         size_t memory_pitch_bytes, ckpt_error *err);
ckpt_code file_write_rect(ckpt_file *f, const file_rect *rect, const void *data,
                          size_t memory_pitch_bytes, ckpt_error *err);

/*
 * Lock what a descriptor is of, until that is closed or the process ends; `operation` as of
 * flock(2), without LOCK_UN. Signals do not end the waiting. FILE_LOCK_HELD: LOCK_NB, and another
 * process has it. FILE_NOT_LOCKED: errno tells; some file systems have no locks.
 */
typedef enum { FILE_LOCKED, FILE_LOCK_HELD, FILE_NOT_LOCKED } file_lock_result;
file_lock_result file_lock(int fd, int operation);

/* Truncate or extend, with zeros. file_sync: the data is durable, but not yet the name. */
ckpt_code file_set_size(ckpt_file *f, uint64_t size, ckpt_error *err);
/* Let `to`, a new file, share all blocks of `from`: no bytes are copied, and a later write to one
 * of them does not change the other. 0: this file system does not share blocks, or they are on two;
 * then nothing was done. */
int file_clone(const ckpt_file *from, ckpt_file *to);
/* 1 for "~" and "~/...": quoted, or behind a '=', so that no shell has replaced it. */
int file_begins_at_home(const char *path);
ckpt_code file_fail_home(const char *path, ckpt_error *err);
/* 0: the file system of this folder is one that never shares blocks. */
int file_may_clone(const char *directory);
ckpt_code file_sync(ckpt_file *f, ckpt_error *err);

/* Read a whole file. *out is malloc'd, NUL-terminated, yours to free. A file of more than max_bytes
 * or of more than the memory limit (memory.h) allows is an error. */
ckpt_code file_read_all(const char *path, uint64_t max_bytes, char **out, size_t *size,
                        ckpt_error *err);
/* The same for a path given by the user, which may be a pipe. */
ckpt_code file_read_named(const char *path, uint64_t max_bytes, char **out, size_t *size,
                          ckpt_error *err);
/*
 * Replace a file atomically: begin creates a temporary file beside it with a unique hidden name
 * (".NAME.1f2e3d4c.tmp", see file_path), commit syncs it and renames it to `path`. Commit and abort
 * consume f, also on failure; after a failure the old file is unchanged.
 */
ckpt_code file_begin_replacing(const char *path, ckpt_file **out, ckpt_error *err);
ckpt_code file_commit_replacing(ckpt_file *f, const char *path, ckpt_error *err);
void file_abort_replacing(ckpt_file *f);                               /* NULL is fine */
/* Replace `path` by a file with these bytes, or by a copy of `from`. */
ckpt_code file_write_all(const char *path, const void *data, size_t size, ckpt_error *err);
ckpt_code file_copy(const char *from, const char *to, ckpt_error *err);
/* Replace `path` atomically, as above, by all bytes of an open file of any kind and size. */
ckpt_code file_replace_from(const ckpt_file *from, const char *path, ckpt_error *err);

/* 1 if there is anything at `path`, also a dangling link, or if that cannot be determined. */
int file_exists(const char *path);
/* Refuse a path that cannot be examined, and a folder without permission to list and enter it. An
 * absent path is CKPT_OK. */
ckpt_code file_check_reachable(const char *path, ckpt_error *err);
int file_is_directory(const char *path);
ckpt_code file_make_directory(const char *path, ckpt_error *err);      /* fine if it is there */
ckpt_code file_make_parents(const char *path, ckpt_error *err);        /* all folders above it */
/* The same for directory/name: the folders below `directory`. A link among them is refused. */
ckpt_code file_make_parents_below(const char *directory, const char *name, ckpt_error *err);
ckpt_code file_remove(const char *path, ckpt_error *err);              /* fine if absent */
ckpt_code file_remove_tree(const char *path, ckpt_error *err);         /* fine if absent */
/* Remove `path` and all folders below it that contain no files. Absent: CKPT_OK. */
ckpt_code file_remove_empty(const char *path, ckpt_error *err);
/* Remove the temporary files of file_begin_replacing that a killed run left behind, ".*.tmp", at
 * any depth. */
ckpt_code file_remove_temporaries(const char *directory, ckpt_error *err);
/* Only those of the file `name` below a folder that has other files, too. */
ckpt_code file_remove_temporaries_of(const char *directory, const char *name, ckpt_error *err);
ckpt_code file_sync_tree(const char *path, ckpt_error *err);           /* files and directories */
/* The same; calls `synced` after every file, with its size. */
ckpt_code file_sync_tree_told(const char *path, void (*synced)(void *context, uint64_t bytes),
                              void *context, ckpt_error *err);
ckpt_code file_sync_parent(const char *path, ckpt_error *err);         /* makes its name durable */
/* Rename and make it durable: syncs the parent directory. The target must not exist. */
ckpt_code file_rename_durable(const char *from, const char *to, ckpt_error *err);
/* The same, but replaces an existing target. */
ckpt_code file_replace_durable(const char *from, const char *to, ckpt_error *err);

/* 1 if both paths lead to the same existing file. */
int file_is_same(const char *a, const char *b);

/* Refuse a path whose last name, with `more` bytes that are appended for a while, is longer than
 * the file system takes. */
ckpt_code file_check_name(const char *path, size_t more, ckpt_error *err);

/* Check before any work that a file can be written at `path`. Refused: a path that exists and is
 * not a regular file (such as /dev/null), and a parent that is not a writable directory. */
ckpt_code file_check_place(const char *path, ckpt_error *err);

/* The absolute path that a rename to `path` would replace: links are resolved in all components but
 * the last, which need not exist. malloc'd, yours to free; NULL when the parent is not found. */
char *file_rename_target(const char *path);
/* The folder of a path, "." when it names none; malloc'd, NULL when memory is exhausted. */
char *file_parent(const char *path);

/* "dir/name", malloc'd, yours to free; NULL when there is no memory. */
char *file_join(const char *directory, const char *name);

/*
 * The relative paths of all entries below `directory` that are not folders, sorted by bytes. Links
 * are followed. Hidden names (a leading dot) are left out, except ".metadata". Free the list with
 * file_list_free. Depth is bounded; a cycle of links and a dangling link are errors.
 */
typedef struct {
    char **names;
    size_t count;
} file_list;
enum { FILE_TREE_DEPTH_MAX = 32 };      /* parts of a name */
ckpt_code file_list_tree(const char *directory, file_list *out, ckpt_error *err);
/* The same with hidden names, and with links as entries that are not followed. */
ckpt_code file_list_everything(const char *directory, file_list *out, ckpt_error *err);
/* Append a copy of `name`. Lists must grow by this function alone and never shrink, because
 * memory.h counts them and file_list_free returns the same amount. */
ckpt_code file_list_add(file_list *list, const char *name, ckpt_error *err);
int file_list_has(const file_list *list, const char *name);    /* linear search */
void file_list_free(file_list *list);

#endif
