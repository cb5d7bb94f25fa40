/*
 * folder.h: a folder that checkpoints are read from: listing it and opening its files.
 *
 * Formats use names inside a folder, never paths, so that a folder need not be on a local disk.
 * Each kind of folder is a table of operations; folder_local.c is the local kind. Names are
 * relative and may contain '/'. Nothing here writes to the folder. Thread-safe.
 */
#ifndef CKPT_FOLDER_H
#define CKPT_FOLDER_H

#include "file.h"

typedef struct ckpt_folder ckpt_folder;

/* Called with each name; 1 stops the listing. */
typedef int folder_visit_fn(void *context, const char *name);

/* To add a kind of folder, write a struct that begins with a ckpt_folder, this table, and a
 * function that opens one. */
typedef struct {
    /* Visit the entries of the folder itself, with hidden names and folders, in any order. */
    ckpt_code (*list)(const ckpt_folder *f, folder_visit_fn *visit, void *context,
                      ckpt_error *err);
    /* As file_list_tree. */
    ckpt_code (*list_tree)(const ckpt_folder *f, file_list *out, ckpt_error *err);
    /* 0: the name is absent. 1: it exists, or that cannot be determined. */
    int (*has)(const ckpt_folder *f, const char *name);
    /* Open a regular file for reading; anything else is refused. */
    ckpt_code (*open)(const ckpt_folder *f, const char *name, ckpt_file **out, ckpt_error *err);
    /* As file_read_all. */
    ckpt_code (*read_all)(const ckpt_folder *f, const char *name, uint64_t max_bytes, char **out,
                          size_t *size, ckpt_error *err);
    /* As file_copy, to a local path. */
    ckpt_code (*copy)(const ckpt_folder *f, const char *name, const char *to, ckpt_error *err);
    /* Open the sub-folder `name`. It need not be checked here that it exists. */
    ckpt_code (*enter)(const ckpt_folder *f, const char *name, ckpt_folder **out,
                       ckpt_error *err);
    void (*close)(ckpt_folder *f);
    /* As folder_check_unchanged; NULL: there is nothing to ask. */
    ckpt_code (*check_unchanged)(const ckpt_folder *f, ckpt_error *err);
} folder_ops;

/* First member of every kind of folder. */
struct ckpt_folder {
    const folder_ops *ops;
    const char *path;               /* its name in errors; lives as long as the folder */
    uint64_t held_bytes;            /* of memory, while it is open */
};

/* A path given by the user: a folder, or a file in one. */
typedef struct {
    char *path;                     /* as it was given; malloc'd */
    ckpt_folder *folder;            /* the folder, or the one that contains the file */
    char *name;                     /* of the file; malloc'd; NULL: the path is the folder */
} folder_place;

/* Opens what is named otherwise than by a local path. Thread-safe. */
struct ckpt_places {
    int (*knows)(const char *path);     /* 1: `open` is for this path */
    ckpt_code (*open)(const struct ckpt_places *self, const char *path, folder_place *out,
                      ckpt_error *err);
};

/* Open the folder of a local path, which may be a packed checkpoint (packed.h). A path that is
 * absent or cannot be examined counts as a file. Call folder_place_release, also after a
 * failure. */
ckpt_code folder_open_place(const char *path, folder_place *out, ckpt_error *err);
void folder_place_release(folder_place *place);

/* A local folder, which need not exist. *out is yours to close. */
ckpt_code folder_open_local(const char *path, ckpt_folder **out, ckpt_error *err);
void folder_close(ckpt_folder *f);                              /* NULL is fine */

const char *folder_path(const ckpt_folder *f);
/* The name in errors of a file of the folder; malloc'd, NULL when there is no memory. */
char *folder_path_of(const ckpt_folder *f, const char *name);

/* These call the operations of the table above. */
ckpt_code folder_list(const ckpt_folder *f, folder_visit_fn *visit, void *context,
                      ckpt_error *err);
ckpt_code folder_list_tree(const ckpt_folder *f, file_list *out, ckpt_error *err);
int folder_has(const ckpt_folder *f, const char *name);
ckpt_code folder_open_file(const ckpt_folder *f, const char *name, ckpt_file **out,
                           ckpt_error *err);
ckpt_code folder_copy(const ckpt_folder *f, const char *name, const char *to, ckpt_error *err);
/*
 * For folders that are not on a local disk: CKPT_E_FORMAT if any file that was opened in it, also
 * one that is closed by now, is no longer as it was. Call it after the last read, before the result
 * is shown. Always CKPT_OK for local folders, whose open files file_check_unchanged looks at.
 */
ckpt_code folder_check_unchanged(const ckpt_folder *f, ckpt_error *err);
ckpt_code folder_enter(const ckpt_folder *f, const char *name, ckpt_folder **out,
                       ckpt_error *err);

/* A whole file: its name in errors and its bytes, NUL-terminated. */
typedef struct {
    char *path;
    char *bytes;
    size_t size;
} folder_text;
/* Call folder_text_release, also after a failure. */
ckpt_code folder_read_all(const ckpt_folder *f, const char *name, uint64_t max_bytes,
                          folder_text *out, ckpt_error *err);
void folder_text_release(folder_text *text);

/* *found = 1 if is_wanted accepts a name in the folder itself, without hidden names. */
ckpt_code folder_find_name(const ckpt_folder *f, int (*is_wanted)(const char *name), int *found,
                           ckpt_error *err);

#endif
