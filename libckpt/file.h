/*
 * file.h: files and directories; positions are explicit and every result is checked.
 *
 * Reads and writes continue after short counts and EINTR. Errors name the path.
 */
#ifndef CKPT_FILE_H
#define CKPT_FILE_H

#include "error.h"

typedef struct ckpt_file ckpt_file;

/*
 * Open a file that was found in a folder: a named pipe, a device, a socket or a directory in its
 * place is refused at once, as reading it might never end. `flags` as of open(2). *fd is yours to
 * close. The functions below open with it, but for file_read_named.
 */
ckpt_code file_open_fd(const char *path, int flags, int *fd, ckpt_error *err);

/* Open for reading. *out is yours to close. */
ckpt_code file_open(const char *path, ckpt_file **out, ckpt_error *err);
/*
 * Open for reading and writing; made if absent, never truncated. What is written must land below
 * `directory` and nowhere else: a link in its place or on the way there is refused, and so is a
 * file that has a second name.
 */
ckpt_code file_open_rw(const char *directory, const char *name, ckpt_file **out, ckpt_error *err);
/* The same as a descriptor. */
ckpt_code file_open_below(const char *directory, const char *name, int flags, int *fd,
                          ckpt_error *err);
/* The same for a file that must not be there; a link with its name is not followed. */
ckpt_code file_open_new(const char *path, ckpt_file **out, ckpt_error *err);
/* Closes, also on failure; NULL is fine. Check the result for files that were written. */
ckpt_code file_close(ckpt_file *f, ckpt_error *err);

/*
 * What a file was when it was opened, beside its size. A file with another version has other bytes;
 * these two are compared, and mean nothing else. Locally they are its times of modification and of
 * change.
 */
typedef struct {
    uint64_t version;
    uint64_t touch;             /* another one when only its mode or names were changed, too */
    int64_t modified_ns;        /* since 1970; 0: not known */
} file_identity;

const char *file_path(const ckpt_file *f);            /* what errors call it */
uint64_t file_size(const ckpt_file *f);               /* when it was opened */
const file_identity *file_identity_of(const ckpt_file *f);

/*
 * CKPT_E_FORMAT when the file at this path is another one now, or has another size or time.
 * *is_touched (may be NULL) becomes 1 when only its time of change is another: its mode or names
 * were changed, or its bytes and then its time put back. What was read tells.
 */
ckpt_code file_check_unchanged(const ckpt_file *f, int *is_touched, ckpt_error *err);

/* A rectangle of a file: row_count pieces of row_bytes, pitch_bytes apart from `offset` on. */
typedef struct {
    uint64_t offset;
    uint64_t row_bytes;
    uint64_t pitch_bytes;
    uint64_t row_count;
} file_rect;

/*
 * Read exactly `size` bytes at `offset` into `out`.
 * A file that ends early is CKPT_E_FORMAT: some header promised more. Thread-safe.
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

ckpt_code file_set_size(ckpt_file *f, uint64_t size, ckpt_error *err);
ckpt_code file_sync(ckpt_file *f, ckpt_error *err);

/* Whole files. *out is malloc'd, NUL-terminated, yours to free; larger than max_bytes, or than
 * memory.h has room for: error. */
ckpt_code file_read_all(const char *path, uint64_t max_bytes, char **out, size_t *size,
                        ckpt_error *err);
/* The same for a path that the user gave for this file: a pipe is fine, too. */
ckpt_code file_read_named(const char *path, uint64_t max_bytes, char **out, size_t *size,
                          ckpt_error *err);
/*
 * Every file that replaces another begins beside it, under a hidden name that nobody else has
 * (".NAME.1f2e3d4c.tmp"; file_path tells), and takes its name when it is whole. Both ends consume
 * f, also on failure, which leaves what was there.
 */
ckpt_code file_begin_replacing(const char *path, ckpt_file **out, ckpt_error *err);
ckpt_code file_commit_replacing(ckpt_file *f, const char *path, ckpt_error *err);
void file_abort_replacing(ckpt_file *f);                               /* NULL is fine */
/* All of it at once. */
ckpt_code file_write_all(const char *path, const void *data, size_t size, ckpt_error *err);
ckpt_code file_copy(const char *from, const char *to, ckpt_error *err);

/* Anything at all, also a dangling link; 0 only when it is known to be absent. */
int file_exists(const char *path);
/* Refuse what cannot be looked at, and a folder that may not be listed or entered. What is absent
 * is fine here. */
ckpt_code file_check_reachable(const char *path, ckpt_error *err);
int file_is_directory(const char *path);
ckpt_code file_make_directory(const char *path, ckpt_error *err);      /* fine if it is there */
ckpt_code file_make_parents(const char *path, ckpt_error *err);        /* of a file in a tree */
/* The same of a name below a directory; a link on the way is refused. */
ckpt_code file_make_parents_below(const char *directory, const char *name, ckpt_error *err);
ckpt_code file_remove(const char *path, ckpt_error *err);              /* fine if absent */
ckpt_code file_remove_tree(const char *path, ckpt_error *err);         /* fine if absent */
/* Directories that hold nothing but directories, `path` too; fine if absent or not empty. */
ckpt_code file_remove_empty(const char *path, ckpt_error *err);
/* What a killed run left behind of files that replace others: ".*.tmp", at any depth. */
ckpt_code file_remove_temporaries(const char *directory, ckpt_error *err);
ckpt_code file_sync_tree(const char *path, ckpt_error *err);           /* files and directories */
/* The same; `synced` is called after every file, with the bytes that are in it. */
ckpt_code file_sync_tree_told(const char *path, void (*synced)(void *context, uint64_t bytes),
                              void *context, ckpt_error *err);
ckpt_code file_sync_parent(const char *path, ckpt_error *err);         /* that it has its name */
/* Rename and make it durable: syncs the parent directory. The target must not exist. */
ckpt_code file_rename_durable(const char *from, const char *to, ckpt_error *err);
/* The same, over the file that is there, if any. */
ckpt_code file_replace_durable(const char *from, const char *to, ckpt_error *err);

/* 1 when both are there and one file, by whatever names. */
int file_is_same(const char *a, const char *b);

/* Refuse early what could not or must not be replaced late: `path` is there and no regular file
 * (/dev/null, say), or its parent is no directory or takes no files. */
ckpt_code file_check_place(const char *path, ckpt_error *err);

/* The absolute path without links, but for the last component, which need not exist: what a rename
 * to `path` would replace. malloc'd, yours to free; NULL when the parent cannot be found. */
char *file_rename_target(const char *path);

/* "dir/name", malloc'd, yours to free; NULL when there is no memory. */
char *file_join(const char *directory, const char *name);

/*
 * Relative paths of all below `directory` but folders, links followed, sorted by bytes.
 * Hidden names (a leading dot) are left out unless they are .metadata. *names and each entry are
 * malloc'd: free with file_list_free. Depth is bounded; a cycle of links and a link to nothing are
 * errors.
 */
typedef struct {
    char **names;
    size_t count;
} file_list;
ckpt_code file_list_tree(const char *directory, file_list *out, ckpt_error *err);
/* The same of everything that is no directory, hidden names and links too; links not followed. */
ckpt_code file_list_everything(const char *directory, file_list *out, ckpt_error *err);
/* Append a copy of `name`. Only this adds names, and none are taken out: memory.h counts them. */
ckpt_code file_list_add(file_list *list, const char *name, ckpt_error *err);
int file_list_has(const file_list *list, const char *name);    /* by a search */
void file_list_free(file_list *list);

#endif
