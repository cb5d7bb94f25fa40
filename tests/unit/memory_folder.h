/*
 * memory_folder.h: a folder whose files lie in memory, for tests: a second kind beside the local
 * disk. It has no path: what opens from it knows names alone.
 */
#ifndef CKPT_TESTS_MEMORY_FOLDER_H
#define CKPT_TESTS_MEMORY_FOLDER_H

#include "libckpt/folder.h"

typedef struct {
    char *name;                     /* from the root: "a/b" */
    char *bytes;
    size_t size;
    uint64_t version;
} memory_file;

/* All files of a tree. */
typedef struct {
    memory_file *files;
    size_t count;
    size_t list_count;              /* how often names were asked for, */
    size_t walk_count;              /* trees were walked, */
    size_t open_count;              /* and files were opened or read whole */
} memory_tree;

/* Append a copy; what is there of this name is replaced, and has another version. */
void memory_tree_put(memory_tree *tree, const char *name, const void *bytes, size_t size);
void memory_tree_remove(memory_tree *tree, const char *name);
void memory_tree_rename(memory_tree *tree, const char *from, const char *to);
memory_file *memory_tree_find(const memory_tree *tree, const char *name);
/* Append all files below a local directory. */
void memory_tree_load(memory_tree *tree, const char *directory);
void memory_tree_release(memory_tree *tree);

/* The tree as a place to open; `name`: of one file in it, or NULL. Borrows the tree. */
folder_place memory_tree_place(memory_tree *tree, const char *name);

#endif
