/* A packed checkpoint as a folder, and its files. */
#include "packed.h"

#include <stdlib.h>
#include <string.h>

#include "file_ops.h"
#include "memory.h"
#include "packed_index.h"
#include "text.h"
#include "values.h"

typedef struct {
    ckpt_folder base;
    packed_index *index;
    char *prefix;                   /* "" or "a/b/": begins the names of its files */
    char path[];
} packed_folder;

typedef struct {
    ckpt_file base;
    packed_index *index;
    const packed_entry *entry;
    char path[];
} packed_file;

/* ---- files ---- */

static ckpt_code read_runs(const ckpt_file *f, file_runs *runs, ckpt_error *err)
{
    const packed_file *self = (const packed_file *)f;
    uint64_t offset = runs->offset;
    ckpt_code code = CKPT_OK;

    if (offset > f->size || runs->size_bytes > f->size - offset)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' ends %llu bytes early", f->path,
                         (unsigned long long)(offset + runs->size_bytes - f->size));
    for (int i = 0; i < runs->count && code == CKPT_OK; i++) {
        code = packed_index_read(self->index, self->entry, offset, runs->memory[i].iov_base,
                                 runs->memory[i].iov_len, err);
        offset += runs->memory[i].iov_len;
    }
    return code;
}

static ckpt_code check_file(const ckpt_file *f, int *is_touched, ckpt_error *err)
{
    return file_check_unchanged(((const packed_file *)f)->index->file, is_touched, err);
}

static ckpt_code close_file(ckpt_file *f, ckpt_error *err)
{
    (void)err;
    packed_index_release(((packed_file *)f)->index);
    free(f);
    return CKPT_OK;
}

static ckpt_code open_entry(packed_index *index, const packed_entry *entry, ckpt_file **out,
                            ckpt_error *err)
{
    static const file_ops ops = { read_runs, check_file, close_file };
    const char *path = file_path(index->file);
    const size_t path_bytes = strlen(path) + 1 + strlen(entry->name) + 1;
    packed_file *f = malloc(sizeof *f + path_bytes);

    if (f == NULL)
        return ckpt_fail_memory(err, entry->name, sizeof *f + path_bytes);
    memcpy(f->path, path, strlen(path));
    f->path[strlen(path)] = '/';
    memcpy(f->path + strlen(path) + 1, entry->name, strlen(entry->name) + 1);
    f->index = packed_index_share(index);
    f->entry = entry;
    f->base = (ckpt_file){ .ops = &ops, .path = f->path, .size = entry->bytes,
                           .identity = *file_identity_of(index->file) };
    *out = &f->base;
    return CKPT_OK;
}

/* ---- folders ---- */

static char *full_name(const packed_folder *f, const char *name)
{
    char *full = malloc(strlen(f->prefix) + strlen(name) + 2);

    if (full != NULL) {
        memcpy(full, f->prefix, strlen(f->prefix));
        memcpy(full + strlen(f->prefix), name, strlen(name) + 1);
    }
    return full;
}

/* Entries are sorted by whole names, so that all names below one folder follow each other. */
static ckpt_code list(const ckpt_folder *self, folder_visit_fn *visit, void *context,
                      ckpt_error *err)
{
    const packed_folder *f = (const packed_folder *)self;
    const packed_index *x = f->index;
    const size_t skip = strlen(f->prefix);
    char *last = NULL;
    int is_over = 0;

    for (size_t i = packed_index_place(x, f->prefix);
         i < x->entry_count && text_begins_with(x->entries[i].name, f->prefix) && !is_over; i++) {
        const char *name = x->entries[i].name + skip;
        char *part = strndup(name, strcspn(name, "/"));

        if (part == NULL) {
            free(last);
            return ckpt_fail_memory(err, name, strlen(name));
        }
        if (last == NULL || strcmp(last, part) != 0)
            is_over = visit(context, part);
        free(last);
        last = part;
    }
    free(last);
    return CKPT_OK;
}

static ckpt_code list_tree(const ckpt_folder *self, file_list *out, ckpt_error *err)
{
    const packed_folder *f = (const packed_folder *)self;
    const packed_index *x = f->index;
    ckpt_code code = CKPT_OK;

    *out = (file_list){ NULL, 0 };
    for (size_t i = packed_index_place(x, f->prefix);
         i < x->entry_count && code == CKPT_OK &&
         text_begins_with(x->entries[i].name, f->prefix);
         i++)
        code = file_list_add(out, x->entries[i].name + strlen(f->prefix), err);
    return code;
}

static int has(const ckpt_folder *self, const char *name)
{
    const packed_folder *f = (const packed_folder *)self;
    const packed_index *x = f->index;
    char *full = full_name(f, name);
    int found = 1;                  /* without memory it cannot be determined */

    if (full != NULL && (found = name[0] != '\0' && packed_index_find(x, full) != NULL) == 0 &&
        name[0] != '\0') {
        size_t i;

        memcpy(full + strlen(full), "/", 2);
        i = packed_index_place(x, full);
        found = i < x->entry_count && text_begins_with(x->entries[i].name, full);
    }
    free(full);
    return found;
}

static ckpt_code open_named(const ckpt_folder *self, const char *name, ckpt_file **out,
                            ckpt_error *err)
{
    const packed_folder *f = (const packed_folder *)self;
    char *full = full_name(f, name);
    const packed_entry *entry = full == NULL ? NULL : packed_index_find(f->index, full);
    const int has_memory = full != NULL;

    free(full);
    if (!has_memory)
        return ckpt_fail_memory(err, name, strlen(name));
    if (entry == NULL)
        return ckpt_fail(err, CKPT_E_IO, "cannot open '%s': '%s' has no such file", name,
                         self->path);
    return open_entry(f->index, entry, out, err);
}

static ckpt_code read_named(const ckpt_folder *self, const char *name, uint64_t max_bytes,
                            char **out, size_t *size, ckpt_error *err)
{
    ckpt_file *file = NULL;
    ckpt_code code;

    *out = NULL;
    *size = 0;
    if ((code = open_named(self, name, &file, err)) != CKPT_OK)
        return code;
    if (file_size(file) > max_bytes)
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' is too large: expected at most %llu bytes, got "
                         "%llu", file_path(file), (unsigned long long)max_bytes,
                         (unsigned long long)file_size(file));
    else if (!memory_has(file_size(file) + 1) ||
             (*out = malloc((size_t)file_size(file) + 1)) == NULL)
        code = ckpt_fail_memory(err, name, file_size(file) + 1);
    else if ((code = file_read_at(file, 0, *out, (size_t)file_size(file), err)) == CKPT_OK)
        *size = (size_t)file_size(file);
    if (code != CKPT_OK) {
        free(*out);
        *out = NULL;
    } else {
        (*out)[*size] = '\0';
    }
    file_close(file, NULL);
    return code;
}

static ckpt_code copy_named(const ckpt_folder *self, const char *name, const char *to,
                            ckpt_error *err)
{
    ckpt_file *from = NULL;
    ckpt_code code = open_named(self, name, &from, err);

    if (code == CKPT_OK)
        code = file_replace_from(from, to, err);
    file_close(from, NULL);
    return code;
}

static ckpt_code enter(const ckpt_folder *self, const char *name, ckpt_folder **out,
                       ckpt_error *err);

static void close_folder(ckpt_folder *self)
{
    packed_folder *f = (packed_folder *)self;

    packed_index_release(f->index);
    free(f->prefix);
    free(f);
}

static const folder_ops packed_ops = {
    .list = list,
    .list_tree = list_tree,
    .has = has,
    .open = open_named,
    .read_all = read_named,
    .copy = copy_named,
    .enter = enter,
    .close = close_folder,
};

/* A folder of an index, of which it takes a reference. Consumes `prefix`, also on failure. */
static ckpt_code make_folder(packed_index *index, const char *path, char *prefix,
                             ckpt_folder **out, ckpt_error *err)
{
    const size_t path_bytes = strlen(path) + 1;
    packed_folder *f = prefix == NULL ? NULL : malloc(sizeof *f + path_bytes);

    if (f == NULL) {
        free(prefix);
        return ckpt_fail_memory(err, "a folder", sizeof *f + path_bytes);
    }
    memcpy(f->path, path, path_bytes);
    f->index = packed_index_share(index);
    f->prefix = prefix;
    f->base = (ckpt_folder){ .ops = &packed_ops, .path = f->path };
    *out = &f->base;
    return CKPT_OK;
}

static ckpt_code enter(const ckpt_folder *self, const char *name, ckpt_folder **out,
                       ckpt_error *err)
{
    const packed_folder *f = (const packed_folder *)self;
    char *path = file_join(self->path, name);
    char *prefix = full_name(f, name);
    ckpt_code code;

    if (path == NULL || prefix == NULL) {
        free(prefix);
        code = ckpt_fail_memory(err, name, strlen(name));
    } else {
        memcpy(prefix + strlen(prefix), "/", 2);
        code = make_folder(f->index, path, prefix, out, err);
    }
    free(path);
    return code;
}

ckpt_code packed_open(const char *path, ckpt_folder **out, ckpt_error *err)
{
    packed_index *index = NULL;
    ckpt_code code;

    *out = NULL;
    if ((code = kernels_require(err)) != CKPT_OK ||
        (code = packed_index_open(path, &index, err)) != CKPT_OK)
        return code;
    code = make_folder(index, path, strdup(""), out, err);
    packed_index_release(index);
    return code;
}

uint64_t packed_bytes(const ckpt_folder *folder)
{
    const packed_folder *f = (const packed_folder *)folder;

    return folder == NULL || folder->ops != &packed_ops
               ? 0 : f->index->held_bytes + packed_cache_bytes(f->index->cache);
}

const char *packed_root(const ckpt_folder *folder)
{
    return folder == NULL || folder->ops != &packed_ops
               ? NULL : ((const packed_folder *)folder)->index->root;
}

hash128 packed_hash(const ckpt_folder *folder)
{
    return folder == NULL || folder->ops != &packed_ops
               ? (hash128){ 0, 0 } : ((const packed_folder *)folder)->index->hash;
}
