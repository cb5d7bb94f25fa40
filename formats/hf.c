/* Reading an HF directory. */
#include "hf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "notes.h"
#include "safetensors.h"
#include "side_data.h"
#include "text.h"

enum { INDEX_BYTES_MAX = 1 << 28 };

static int is_weights(const char *name)
{
    return text_ends_with(name, SAFETENSORS_SUFFIX);
}

void hf_file_name(size_t i, size_t count, char out[FORMAT_NAME_BYTES])
{
    if (count == 1)
        snprintf(out, FORMAT_NAME_BYTES, "model" SAFETENSORS_SUFFIX);
    else
        snprintf(out, FORMAT_NAME_BYTES, "model-%05zu-of-%05zu" SAFETENSORS_SUFFIX, i + 1, count);
}

/* ---- the index ---- */

/* A file name that stays inside the directory. */
static int is_plain_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL &&
           strchr(name, '\\') == NULL;
}

typedef struct {
    ckpt_checkpoint *out;
    const json_value *weight_map;
    char *path;
    table files;               /* name -> number in the store */
    table listed;              /* tensor -> number of its file */
    ckpt_error *err;
} index_reader;

static int compare_strings(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* The files that the index names, sorted: their numbers do not depend on its order. */
static ckpt_code add_files(index_reader *r)
{
    const char **names = calloc(json_count(r->weight_map) + 1, sizeof *names);
    ckpt_code code = CKPT_OK;
    size_t count = 0;

    if (names == NULL)
        return ckpt_fail_memory(r->err, "an index", json_count(r->weight_map));
    for (const json_value *v = json_first(r->weight_map); v != NULL; v = json_next(v)) {
        names[count] = json_string(v);
        if (names[count] == NULL || !is_plain_name(names[count])) {
            code = ckpt_fail(r->err, CKPT_E_FORMAT,
                             "'%s': tensor '%s' is not mapped to a file name", r->path,
                             json_key(v));
            goto out;
        }
        switch (table_add(&r->files, names[count], 0)) {
        case TABLE_ADDED:
            count++;
            break;
        case TABLE_NO_MEMORY:
            code = ckpt_fail_memory(r->err, "an index", count);
            goto out;
        default:
            break;
        }
    }
    table_release(&r->files);
    table_init(&r->files);
    qsort(names, count, sizeof *names, compare_strings);
    for (size_t i = 0; i < count && code == CKPT_OK; i++) {
        uint32_t number;

        code = store_add_file(r->out->store, names[i], &number, r->err);
        if (code == CKPT_OK && table_add(&r->files, names[i], number) != TABLE_ADDED)
            code = ckpt_fail_memory(r->err, "an index", count);
    }
out:
    free(names);
    return code;
}

/* What the index names is read after all. Both lists are sorted. */
static void forget_unread(const ckpt_store *store, file_list *unread)
{
    size_t kept = 0;
    size_t file = 0;

    for (size_t i = 0; i < unread->count; i++) {
        char *name = unread->names[i];

        while (file < store->file_count && strcmp(store->files[file].name, name) < 0)
            file++;
        if (file < store->file_count && strcmp(store->files[file].name, name) == 0)
            free(name);
        else
            unread->names[kept++] = name;
    }
    unread->count = kept;
}

/* Every entry names a tensor of that file. */
static ckpt_code check_entries(index_reader *r)
{
    const ckpt_catalog *catalog = r->out->store->catalog;

    for (const json_value *v = json_first(r->weight_map); v != NULL; v = json_next(v)) {
        const int64_t i = ckpt_catalog_find(catalog, json_key(v));
        uint64_t file = 0;
        ckpt_code code;

        table_find(&r->files, json_string(v), &file);
        if (i >= 0 && ckpt_catalog_at(catalog, (size_t)i)->file == file) {
            if (table_add(&r->listed, json_key(v), file) == TABLE_NO_MEMORY)
                return ckpt_fail_memory(r->err, "an index", ckpt_catalog_count(catalog));
            continue;
        }
        if (!r->out->options.lenient)
            return ckpt_fail(r->err, CKPT_E_FORMAT,
                             "stale index entry: '%s' says that '%s' is in '%s', which lacks it",
                             r->path, json_key(v), json_string(v));
        code = note_add(&r->out->notes, r->err, "stale index entry '%s'", json_key(v));
        if (code != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

/* Every tensor has an entry. */
static ckpt_code check_tensors(index_reader *r)
{
    const ckpt_catalog *catalog = r->out->store->catalog;

    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);
        const char *file = r->out->store->files[t->file].name;
        uint64_t number;
        ckpt_code code;

        if (table_find(&r->listed, t->name, &number))
            continue;
        if (!r->out->options.lenient)
            return ckpt_fail(r->err, CKPT_E_FORMAT,
                             "tensor '%s' is in '%s', but '%s' does not list it there", t->name,
                             file, r->path);
        code = note_add(&r->out->notes, r->err, "tensor '%s' is not in the index", t->name);
        if (code != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static ckpt_code read_files(ckpt_checkpoint *out, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (uint32_t i = 0; i < out->store->file_count && code == CKPT_OK; i++)
        code = safetensors_read(out->store, i, err);
    return code;
}

static ckpt_code read_index(ckpt_checkpoint *out, ckpt_error *err)
{
    index_reader r = { .out = out, .err = err };
    json_document *document = NULL;
    ckpt_code code;

    table_init(&r.files);
    table_init(&r.listed);
    if ((r.path = file_join(out->store->directory, HF_INDEX_FILE)) == NULL)
        return ckpt_fail_memory(err, "a path", sizeof HF_INDEX_FILE);
    if ((code = json_parse_file(r.path, INDEX_BYTES_MAX, &document, err)) != CKPT_OK)
        goto out;
    r.weight_map = json_member(json_root(document), "weight_map");
    if (!json_is_object(r.weight_map)) {
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' has no object 'weight_map'", r.path);
        goto out;
    }
    if ((code = add_files(&r)) != CKPT_OK || (code = read_files(out, err)) != CKPT_OK ||
        (code = check_entries(&r)) != CKPT_OK)
        goto out;
    forget_unread(out->store, &out->unread);
    code = check_tensors(&r);
out:
    table_release(&r.files);
    table_release(&r.listed);
    json_free(document);
    free(r.path);
    return code;
}

/* ---- the directory ---- */

static char *index_path(const char *path)
{
    return file_join(path, HF_INDEX_FILE);
}

static int has_index(const char *path)
{
    char *index = index_path(path);
    const int found = index != NULL && file_exists(index);

    free(index);
    return found;
}

static int detect_directory(const char *path)
{
    file_list list;
    int found = has_index(path);

    if (found || !file_is_directory(path) || file_list_tree(path, &list, NULL) != CKPT_OK)
        return found;
    for (size_t i = 0; i < list.count && !found; i++)
        found = strchr(list.names[i], '/') == NULL && is_weights(list.names[i]);
    file_list_free(&list);
    return found;
}

typedef struct {
    ckpt_checkpoint *out;
    ckpt_code code;
    ckpt_error *err;
} weights_finder;

/* Weights go into the store, if no index does that. */
static file_role take_weights(void *context, const char *name)
{
    weights_finder *f = context;
    uint32_t number;

    if (!is_weights(name))
        return FILE_CARRIED;
    if (strchr(name, '/') != NULL || f->out->has_index)
        return FILE_UNREAD;         /* read_index finds those that the index names */
    if (f->code == CKPT_OK)
        f->code = store_add_file(f->out->store, name, &number, f->err);
    return FILE_OWN;
}

static ckpt_code sort_files(ckpt_checkpoint *out, ckpt_error *err)
{
    weights_finder finder = { out, CKPT_OK, err };
    const ckpt_code code = checkpoint_take_extras(out, out->path, take_weights, &finder, err);

    return code == CKPT_OK ? finder.code : code;
}

static ckpt_code open_directory(ckpt_checkpoint *out, ckpt_error *err)
{
    ckpt_code code;

    out->has_index = has_index(out->path);
    if ((out->store = store_create(out->path)) == NULL)
        return ckpt_fail_memory(err, "a checkpoint", sizeof *out->store);
    if ((code = sort_files(out, err)) != CKPT_OK ||
        (code = checkpoint_read_config(out, out->path, err)) != CKPT_OK)
        return code;
    return out->has_index ? read_index(out, err) : read_files(out, err);
}

/* ---- one file ---- */

static int detect_file(const char *path)
{
    return is_weights(path) && file_exists(path) && !file_is_directory(path);
}

static ckpt_code open_file(ckpt_checkpoint *out, ckpt_error *err)
{
    const char *slash = strrchr(out->path, '/');
    const char *name = slash == NULL ? out->path : slash + 1;
    char *directory = slash == NULL ? strdup(".")
                                    : strndup(out->path, (size_t)(slash - out->path) + 1);
    uint32_t number;
    ckpt_code code;

    out->is_partial = 1;
    out->store = directory == NULL ? NULL : store_create(directory);
    free(directory);
    if (out->store == NULL)
        return ckpt_fail_memory(err, "a checkpoint", strlen(out->path));
    if ((code = store_add_file(out->store, name, &number, err)) != CKPT_OK)
        return code;
    return read_files(out, err);
}

/* ---- writing the index ---- */

static int compare_by_name(const void *left, const void *right)
{
    return strcmp((*(const ckpt_tensor *const *)left)->name,
                  (*(const ckpt_tensor *const *)right)->name);
}

static void put_index(json_writer *w, const ckpt_store *store, const ckpt_tensor **order)
{
    const size_t count = ckpt_catalog_count(store->catalog);
    uint64_t total_bytes = 0;

    for (size_t i = 0; i < count; i++)
        total_bytes += ckpt_part_bytes(order[i], CKPT_DATA);
    json_put_object(w);
    json_member_object(w, "metadata");
    json_member_u64(w, "total_size", total_bytes);
    json_put_object_end(w);
    json_member_object(w, "weight_map");
    for (size_t i = 0; i < count; i++)
        json_member_string(w, order[i]->name, store->files[order[i]->file].name);
    json_put_object_end(w);
    json_put_object_end(w);
}

static ckpt_code finish_directory(ckpt_store *store, const format_finish *info, ckpt_error *err)
{
    enum { INDEX_INDENT = 2 };
    const size_t count = ckpt_catalog_count(store->catalog);
    const ckpt_tensor **order = calloc(count + 1, sizeof *order);
    char *path = index_path(store->directory);
    ckpt_code code = CKPT_OK;
    char *text = NULL;
    size_t size = 0;
    FILE *stream = NULL;
    json_writer w;

    if (order == NULL || path == NULL || (stream = open_memstream(&text, &size)) == NULL) {
        code = ckpt_fail_memory(err, "the index", count);
        goto out;
    }
    for (size_t i = 0; i < count; i++)
        order[i] = ckpt_catalog_at(store->catalog, i);
    qsort(order, count, sizeof *order, compare_by_name);
    json_writer_begin(&w, json_write_stdio, stream, INDEX_INDENT);
    put_index(&w, store, order);
    if (!json_writer_end(&w) || fputc('\n', stream) == EOF || fflush(stream) != 0)
        code = ckpt_fail_memory(err, "the index", count);
    else if (info->with_index || store->file_count > 1)
        code = file_write_all(path, text, size, err);
out:
    if (stream != NULL)
        fclose(stream);
    free(text);
    free(path);
    free(order);
    return code;
}

const ckpt_format format_hf = {
    .name = "hf",
    .detect = detect_directory,
    .open = open_directory,
    .file_name = hf_file_name,
    .lay_out = safetensors_lay_out,
    .finish = finish_directory,
};

const ckpt_format format_safetensors_file = {
    .name = "safetensors",
    .detect = detect_file,
    .open = open_file,
    .lay_out = NULL,
    .finish = NULL,
};
