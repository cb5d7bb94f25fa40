/* memory_folder.c: files in memory behind the tables of operations. Aborts when memory runs out. */
#include "memory_folder.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/file_ops.h"

#define ROOT "memory://tree"

static void *need(void *memory)
{
    if (memory == NULL)
        abort();
    return memory;
}

/* ---- the tree ---- */

memory_file *memory_tree_find(const memory_tree *tree, const char *name)
{
    for (size_t i = 0; i < tree->count; i++)
        if (strcmp(tree->files[i].name, name) == 0)
            return &tree->files[i];
    return NULL;
}

void memory_tree_put(memory_tree *tree, const char *name, const void *bytes, size_t size)
{
    memory_file *f = memory_tree_find(tree, name);

    if (f == NULL) {
        tree->files = need(realloc(tree->files, (tree->count + 1) * sizeof *tree->files));
        f = &tree->files[tree->count++];
        *f = (memory_file){ .name = need(strdup(name)) };
    }
    free(f->bytes);
    f->bytes = need(malloc(size + 1));
    memcpy(f->bytes, bytes, size);
    f->bytes[size] = '\0';
    f->size = size;
    f->version++;
}

void memory_tree_remove(memory_tree *tree, const char *name)
{
    memory_file *f = memory_tree_find(tree, name);

    free(f->name);
    free(f->bytes);
    *f = tree->files[--tree->count];
}

void memory_tree_rename(memory_tree *tree, const char *from, const char *to)
{
    memory_file *f = memory_tree_find(tree, from);

    free(f->name);
    f->name = need(strdup(to));
}

void memory_tree_load(memory_tree *tree, const char *directory)
{
    file_list list;
    ckpt_error err;

    if (file_list_everything(directory, &list, &err) != CKPT_OK)
        abort();
    for (size_t i = 0; i < list.count; i++) {
        char *path = need(file_join(directory, list.names[i]));
        char *bytes;
        size_t size;

        if (file_read_all(path, UINT64_MAX / 2, &bytes, &size, &err) != CKPT_OK)
            abort();
        memory_tree_put(tree, list.names[i], bytes, size);
        free(bytes);
        free(path);
    }
    file_list_free(&list);
}

void memory_tree_release(memory_tree *tree)
{
    for (size_t i = 0; i < tree->count; i++) {
        free(tree->files[i].name);
        free(tree->files[i].bytes);
    }
    free(tree->files);
    memset(tree, 0, sizeof *tree);
}

/* ---- a file of it ---- */

typedef struct {
    ckpt_file base;
    const memory_tree *tree;
    char *name;
    char path[];
} open_file;

static ckpt_code read_runs(const ckpt_file *self, file_runs *runs, ckpt_error *err)
{
    const open_file *f = (const open_file *)self;
    const memory_file *file = memory_tree_find(f->tree, f->name);
    uint64_t offset = runs->offset;

    if (file->size < offset || file->size - offset < runs->size_bytes)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' ends %" PRIu64 " bytes early", f->path,
                         offset + runs->size_bytes - file->size);
    for (int i = 0; i < runs->count; i++) {
        memcpy(runs->memory[i].iov_base, file->bytes + offset, runs->memory[i].iov_len);
        offset += runs->memory[i].iov_len;
    }
    return CKPT_OK;
}

static ckpt_code check_unchanged(const ckpt_file *self, int *is_touched, ckpt_error *err)
{
    const open_file *f = (const open_file *)self;
    const memory_file *file = memory_tree_find(f->tree, f->name);

    (void)is_touched;
    if (file == NULL || file->version != self->identity.version)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' was changed while it was read", f->path);
    return CKPT_OK;
}

static ckpt_code close_file(ckpt_file *self, ckpt_error *err)
{
    (void)err;
    free(((open_file *)self)->name);
    free(self);
    return CKPT_OK;
}

static const file_ops file_table = { read_runs, check_unchanged, close_file };

/* ---- the folder ---- */

typedef struct {
    ckpt_folder base;
    memory_tree *tree;
    char path[];                    /* of the root, or below it */
} memory_folder;

/* The name from the root; malloc'd. */
static char *name_in_tree(const ckpt_folder *f, const char *name)
{
    char *path = need(file_join(f->path, name));

    memmove(path, path + sizeof ROOT, strlen(path) + 1 - sizeof ROOT);
    return path;
}

static memory_tree *tree_of(const ckpt_folder *f)
{
    return ((const memory_folder *)f)->tree;
}

/* What follows the folder's own name, or NULL where the file is elsewhere. */
static const char *name_below(const ckpt_folder *f, const memory_file *file)
{
    const size_t length = strlen(f->path);

    if (length < sizeof ROOT)
        return file->name;
    return strncmp(file->name, f->path + sizeof ROOT, length - sizeof ROOT) == 0 &&
                   file->name[length - sizeof ROOT] == '/'
               ? file->name + length - sizeof ROOT + 1
               : NULL;
}

/* A name of a folder comes once for each of its files, which nobody minds. */
static ckpt_code list(const ckpt_folder *f, folder_visit_fn *visit, void *context, ckpt_error *err)
{
    const memory_tree *tree = tree_of(f);
    int is_over = 0;

    (void)err;
    tree_of(f)->list_count++;
    for (size_t i = 0; i < tree->count && !is_over; i++) {
        const char *below = name_below(f, &tree->files[i]);
        char *name = below == NULL ? NULL : need(strndup(below, strcspn(below, "/")));

        is_over = name != NULL && visit(context, name);
        free(name);
    }
    return CKPT_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static ckpt_code list_tree(const ckpt_folder *f, file_list *out, ckpt_error *err)
{
    const memory_tree *tree = tree_of(f);
    ckpt_code code = CKPT_OK;

    memset(out, 0, sizeof *out);
    tree_of(f)->walk_count++;
    for (size_t i = 0; i < tree->count && code == CKPT_OK; i++) {
        const char *below = name_below(f, &tree->files[i]);
        const int is_hidden = below != NULL && (below[0] == '.' || strstr(below, "/.") != NULL);

        if (below != NULL && (!is_hidden || strstr(below, ".metadata") != NULL))
            code = file_list_add(out, below, err);
    }
    if (code == CKPT_OK && out->count > 1)
        qsort(out->names, out->count, sizeof *out->names, compare_names);
    return code;
}

/* Of a file, or of a folder that a file is in. */
static int has(const ckpt_folder *f, const char *name)
{
    const memory_tree *tree = tree_of(f);
    char *whole = name_in_tree(f, name);
    const size_t length = strlen(whole);
    int found = 0;

    for (size_t i = 0; i < tree->count; i++)
        found |= strncmp(tree->files[i].name, whole, length) == 0 &&
                 (tree->files[i].name[length] == '\0' || tree->files[i].name[length] == '/');
    free(whole);
    return found;
}

static const memory_file *find(const ckpt_folder *f, const char *name, ckpt_error *err)
{
    char *whole = name_in_tree(f, name);
    const memory_file *file = memory_tree_find(tree_of(f), whole);

    if (file == NULL)
        ckpt_fail(err, CKPT_E_IO, "cannot open '%s/%s': it does not exist", f->path, name);
    tree_of(f)->open_count++;
    free(whole);
    return file;
}

static ckpt_code open_one(const ckpt_folder *f, const char *name, ckpt_file **out,
                          ckpt_error *err)
{
    const memory_file *file = find(f, name, err);
    open_file *opened;
    char *path;

    if (file == NULL)
        return CKPT_E_IO;
    path = need(folder_path_of(f, name));
    opened = need(malloc(sizeof *opened + strlen(path) + 1));
    memcpy(opened->path, path, strlen(path) + 1);
    free(path);
    opened->tree = tree_of(f);
    opened->name = need(strdup(file->name));
    opened->base = (ckpt_file){ &file_table, opened->path, file->size,
                                { .version = file->version } };
    *out = &opened->base;
    return CKPT_OK;
}

static ckpt_code read_all(const ckpt_folder *f, const char *name, uint64_t max_bytes, char **out,
                          size_t *size, ckpt_error *err)
{
    const memory_file *file = find(f, name, err);

    if (file == NULL)
        return CKPT_E_IO;
    if (file->size > max_bytes)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s/%s' is too large", f->path, name);
    *out = need(malloc(file->size + 1));
    *size = file->size;
    memcpy(*out, file->bytes, file->size + 1);
    return CKPT_OK;
}

static ckpt_code copy(const ckpt_folder *f, const char *name, const char *to, ckpt_error *err)
{
    const memory_file *file = find(f, name, err);

    return file == NULL ? CKPT_E_IO : file_write_all(to, file->bytes, file->size, err);
}

static ckpt_folder *folder_at(memory_tree *tree, const char *path);

static ckpt_code enter(const ckpt_folder *f, const char *name, ckpt_folder **out, ckpt_error *err)
{
    char *path = need(folder_path_of(f, name));

    (void)err;
    *out = folder_at(tree_of(f), path);
    free(path);
    return CKPT_OK;
}

static void close_folder(ckpt_folder *f)
{
    free(f);
}

static const folder_ops folder_table = { list,     list_tree, has,   open_one,
                                         read_all, copy,      enter, close_folder, NULL };

static ckpt_folder *folder_at(memory_tree *tree, const char *path)
{
    const size_t path_bytes = strlen(path) + 1;
    memory_folder *f = need(malloc(sizeof *f + path_bytes));

    memcpy(f->path, path, path_bytes);
    f->tree = tree;
    f->base = (ckpt_folder){ .ops = &folder_table, .path = f->path };
    return &f->base;
}

folder_place memory_tree_place(memory_tree *tree, const char *name)
{
    return (folder_place){
        .path = name == NULL ? need(strdup(ROOT)) : need(file_join(ROOT, name)),
        .folder = folder_at(tree, ROOT),
        .name = name == NULL ? NULL : need(strdup(name)),
    };
}
