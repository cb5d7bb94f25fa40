/*
 * folder.h: a folder that checkpoints are read from: what is in it, and its files.
 *
 * A table of operations, so that formats know names inside a folder and never a path. A local
 * folder (folder_local.c) is the first kind. Names are relative and may lead into folders below,
 * with '/'. Nothing here writes to the folder. Thread-safe.
 */
#ifndef CKPT_FOLDER_H
#define CKPT_FOLDER_H

#include "file.h"

typedef struct ckpt_folder ckpt_folder;

/* Told of a name; 1: seen enough. */
typedef int folder_visit_fn(void *context, const char *name);

/* A new kind of folder: a struct that begins with a ckpt_folder, this table, and a function that
 * opens one. */
typedef struct {
    /* What is in the folder itself, hidden names and folders too, in any order. */
    ckpt_code (*list)(const ckpt_folder *f, folder_visit_fn *visit, void *context,
                      ckpt_error *err);
    /* As file_list_tree. */
    ckpt_code (*list_tree)(const ckpt_folder *f, file_list *out, ckpt_error *err);
    /* 0 only for a name that is known to be absent. */
    int (*has)(const ckpt_folder *f, const char *name);
    /* Open for reading; a device, a pipe or a folder is refused. */
    ckpt_code (*open)(const ckpt_folder *f, const char *name, ckpt_file **out, ckpt_error *err);
    /* As file_read_all. */
    ckpt_code (*read_all)(const ckpt_folder *f, const char *name, uint64_t max_bytes, char **out,
                          size_t *size, ckpt_error *err);
    /* As file_copy, to a local path. */
    ckpt_code (*copy)(const ckpt_folder *f, const char *name, const char *to, ckpt_error *err);
    /* The folder `name` below; its absence need not be noticed here. */
    ckpt_code (*enter)(const ckpt_folder *f, const char *name, ckpt_folder **out,
                       ckpt_error *err);
    void (*close)(ckpt_folder *f);
} folder_ops;

/* Every kind of folder begins with one. */
struct ckpt_folder {
    const folder_ops *ops;
    const char *path;               /* what errors call it; it lives as long as the folder */
};

/* What a user names: a folder, or a file in one. */
typedef struct {
    char *path;                     /* as it was given; malloc'd */
    ckpt_folder *folder;
    char *name;                     /* of the file; malloc'd; NULL: the folder itself */
} folder_place;

/* A local path; what is absent or cannot be looked at is taken for a file. Release it, also after a
 * failure. */
ckpt_code folder_open_place(const char *path, folder_place *out, ckpt_error *err);
void folder_place_release(folder_place *place);

/* A local folder, which need not exist. *out is yours to close. */
ckpt_code folder_open_local(const char *path, ckpt_folder **out, ckpt_error *err);
void folder_close(ckpt_folder *f);                              /* NULL is fine */

const char *folder_path(const ckpt_folder *f);
/* What errors call a file of the folder; malloc'd, NULL when there is no memory. */
char *folder_path_of(const ckpt_folder *f, const char *name);

/* The operations, see the table. */
ckpt_code folder_list(const ckpt_folder *f, folder_visit_fn *visit, void *context,
                      ckpt_error *err);
ckpt_code folder_list_tree(const ckpt_folder *f, file_list *out, ckpt_error *err);
int folder_has(const ckpt_folder *f, const char *name);
ckpt_code folder_open_file(const ckpt_folder *f, const char *name, ckpt_file **out,
                           ckpt_error *err);
ckpt_code folder_copy(const ckpt_folder *f, const char *name, const char *to, ckpt_error *err);
ckpt_code folder_enter(const ckpt_folder *f, const char *name, ckpt_folder **out,
                       ckpt_error *err);

/* A whole file: its bytes, NUL-terminated, and what errors call it. */
typedef struct {
    char *path;
    char *bytes;
    size_t size;
} folder_text;
/* Release it, also after a failure. */
ckpt_code folder_read_all(const ckpt_folder *f, const char *name, uint64_t max_bytes,
                          folder_text *out, ckpt_error *err);
void folder_text_release(folder_text *text);

/* 1 in *found when a name in the folder itself is wanted, hidden ones aside. Stops at the first. */
ckpt_code folder_find_name(const ckpt_folder *f, int (*is_wanted)(const char *name), int *found,
                           ckpt_error *err);

#endif
