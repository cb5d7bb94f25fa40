/* Headers and names of a result that has other tensors than its base. */
#include "delta_structure.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf.h"
#include "formats/safetensors.h"
#include "libckpt/memory.h"
#include "libckpt/text.h"

#define INDEX_NAME "structure/index.json"

enum { HEADER_NAME_BYTES = 40, HEADER_BYTES_MAX = SAFETENSORS_HEADER_MAX + 8 };

static void header_name(size_t i, char out[HEADER_NAME_BYTES])
{
    snprintf(out, HEADER_NAME_BYTES, "structure/%05zu.header", i);
}

/* ---- reading ---- */

static ckpt_code bad(const ckpt_delta *d, const char *what, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s': the member 'structure' of %s has no valid '%s'",
                     d->path, DELTA_SIDE_FILE, what);
}

/* A name below the delta, or null. */
static int take_name(ckpt_delta *d, const json_value *v, const char **out)
{
    const char *text = json_string(v);

    *out = NULL;
    if (json_is_null(v))
        return 1;
    if (text == NULL || !text_is_below(text))
        return 0;
    *out = arena_strdup(&d->memory, text, strlen(text));
    return *out != NULL;
}

static int is_weights(const char *name)
{
    return name != NULL && strcmp(name, SAFETENSORS_SUFFIX) != 0 &&
           text_ends_with(name, SAFETENSORS_SUFFIX);
}

static ckpt_code take_weights(ckpt_delta *d, const json_value *list, ckpt_error *err)
{
    if (!json_is_array(list))
        return bad(d, "weights", err);
    if ((d->weights = calloc(json_count(list) + 1, sizeof *d->weights)) == NULL)
        return ckpt_fail_memory(err, d->path, json_count(list));
    for (const json_value *v = json_first(list); v != NULL; v = json_next(v)) {
        delta_weights *w = &d->weights[d->weights_count++];

        if (!take_name(d, json_member(v, "name"), &w->name) || !is_weights(w->name) ||
            !take_name(d, json_member(v, "header"), &w->header) ||
            !json_u64(json_member(v, "bytes"), &w->bytes))
            return bad(d, "weights", err);
        for (size_t i = 0; i + 1 < d->weights_count; i++)
            if (strcmp(d->weights[i].name, w->name) == 0)
                return bad(d, "weights", err);
    }
    return CKPT_OK;
}

static ckpt_code take_tensors(ckpt_delta *d, const json_value *list, const char *what,
                              file_list *out, ckpt_error *err)
{
    ckpt_code code = json_is_array(list) ? CKPT_OK : bad(d, what, err);

    for (const json_value *v = json_first(list); v != NULL && code == CKPT_OK; v = json_next(v))
        code = json_string(v) == NULL ? bad(d, what, err)
                                      : file_list_add(out, json_string(v), err);
    return code;
}

ckpt_code delta_structure_read(ckpt_delta *d, const json_value *structure, ckpt_error *err)
{
    ckpt_code code;

    if (structure == NULL && !d->is_structural)
        return CKPT_OK;
    if (!json_is_object(structure) || !d->is_structural)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': its index and %s disagree on whether it adds "
                         "or removes tensors", d->path, DELTA_SIDE_FILE);
    if ((code = take_weights(d, json_member(structure, "weights"), err)) != CKPT_OK)
        return code;
    if (!take_name(d, json_member(structure, "index"), &d->result_index))
        return bad(d, "index", err);
    if ((code = take_tensors(d, json_member(structure, "added"), "added", &d->added, err)) !=
        CKPT_OK)
        return code;
    return take_tensors(d, json_member(structure, "removed"), "removed", &d->removed, err);
}

/* ---- the shape of a result ---- */

static ckpt_code read_header(const ckpt_delta *d, const delta_weights *w, shape_file *out,
                             ckpt_error *err)
{
    folder_text text = { .bytes = NULL };
    const ckpt_code code =
        folder_read_all(d->place.folder, w->header, HEADER_BYTES_MAX, &text, err);

    if (code == CKPT_OK) {
        out->header = text.bytes;
        out->header_bytes = text.size;
        text.bytes = NULL;
    }
    folder_text_release(&text);
    return code;
}

static ckpt_code take_header(const ckpt_delta *d, const delta_weights *w,
                             const ckpt_checkpoint *base, shape_file *out, ckpt_error *err)
{
    if (w->header != NULL)
        return read_header(d, w, out, err);
    for (size_t i = 0; i < base->store->file_count; i++)
        if (strcmp(base->store->files[i].name, w->name) == 0) {
            out->header_bytes = base->store->files[i].header_bytes;
            return delta_shape_header(base, i, &out->header, err);
        }
    return ckpt_fail(err, CKPT_E_DIFFERENT, "'%s' was not made from '%s', which has no file '%s'",
                     d->path, base->place.path, w->name);
}

/* The files beside the weights: the base's, as the delta replaces or removes them. */
static ckpt_code take_others(const ckpt_delta *d, const ckpt_checkpoint *base, delta_shape *out,
                             ckpt_error *err)
{
    const ckpt_folder *folder = base->place.folder;
    ckpt_code code = CKPT_OK;

    if (folder_has(folder, "config.json"))
        code = delta_shape_put(out, "config.json", folder, "config.json", err);
    for (size_t i = 0; i < base->extras.count && code == CKPT_OK; i++)
        code = delta_shape_put(out, base->extras.names[i], folder, base->extras.names[i], err);
    for (size_t i = 0; i < d->file_count && code == CKPT_OK; i++)
        code = delta_shape_put(out, d->files[i].name,
                               d->files[i].carried == NULL ? NULL : d->place.folder,
                               d->files[i].carried, err);
    if (code == CKPT_OK && d->result_index != NULL)
        code = delta_shape_put(out, HF_INDEX_FILE, d->place.folder, d->result_index, err);
    return code;
}

ckpt_code delta_structure_shape(const ckpt_delta *d, const ckpt_checkpoint *base, delta_shape *out,
                                ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < d->weights_count && code == CKPT_OK; i++) {
        shape_file file = { .bytes = d->weights[i].bytes };

        if ((code = take_header(d, &d->weights[i], base, &file, err)) == CKPT_OK)
            code = delta_shape_add(out, d->weights[i].name, &file, err);
    }
    return code == CKPT_OK ? take_others(d, base, out, err) : code;
}

/* The first name that only one of two sorted lists has; NULL: they are equal. */
static const char *first_difference(const file_list *a, const file_list *b)
{
    for (size_t i = 0; i < a->count || i < b->count; i++) {
        if (i >= a->count || i >= b->count)
            return i >= a->count ? b->names[i] : a->names[i];
        if (strcmp(a->names[i], b->names[i]) != 0)
            return strcmp(a->names[i], b->names[i]) < 0 ? a->names[i] : b->names[i];
    }
    return NULL;
}

ckpt_code delta_structure_check(const ckpt_delta *d, const delta_shape *shape,
                                const ckpt_checkpoint *base, ckpt_error *err)
{
    const char *added = first_difference(&d->added, &shape->added);
    const char *removed = first_difference(&d->removed, &shape->removed);

    if (added == NULL && removed == NULL)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_DIFFERENT, "'%s' was not made from '%s': it adds %zu and removes "
                     "%zu tensors, and here that would be %zu and %zu: '%s' differs", d->path,
                     base->place.path, d->added.count, d->removed.count, shape->added.count,
                     shape->removed.count, added != NULL ? added : removed);
}

/* ---- writing ---- */

/* The base has a file of this name with the same header. */
static int is_of_base(const ckpt_checkpoint *base, const shape_file *f)
{
    for (size_t i = 0; i < base->store->file_count; i++) {
        const store_file *b = &base->store->files[i];
        char *header = NULL;
        int is_same;

        if (strcmp(b->name, f->name) != 0 || b->header_bytes != f->header_bytes)
            continue;
        is_same = delta_shape_header(base, i, &header, NULL) == CKPT_OK &&
                  memcmp(header, f->header, f->header_bytes) == 0;
        free(header);
        return is_same;
    }
    return 0;
}

void delta_structure_compare(delta_shape *shape, const ckpt_checkpoint *base)
{
    for (size_t i = 0; i < shape->file_count; i++)
        shape->files[i].is_of_base = is_of_base(base, &shape->files[i]);
}

static const shape_other *find_index(const delta_shape *shape)
{
    for (size_t i = 0; i < shape->other_count; i++)
        if (strcmp(shape->others[i].name, HF_INDEX_FILE) == 0)
            return &shape->others[i];
    return NULL;
}

ckpt_code delta_structure_names(const delta_shape *shape, file_list *out, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < shape->file_count && code == CKPT_OK; i++) {
        char name[HEADER_NAME_BYTES];

        header_name(i, name);
        if (!shape->files[i].is_of_base)
            code = file_list_add(out, name, err);
    }
    if (code == CKPT_OK && find_index(shape) != NULL)
        code = file_list_add(out, INDEX_NAME, err);
    return code;
}

static ckpt_code write_header(const char *directory, const char *name, const shape_file *f,
                              ckpt_error *err)
{
    char *path = file_join(directory, name);
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(directory));
    if ((code = file_make_parents_below(directory, name, err)) == CKPT_OK)
        code = file_write_all(path, f->header, f->header_bytes, err);
    free(path);
    return code;
}

ckpt_code delta_structure_write(const delta_shape *shape, const char *directory, ckpt_error *err)
{
    const shape_other *index = find_index(shape);
    char *path;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < shape->file_count && code == CKPT_OK; i++) {
        char name[HEADER_NAME_BYTES];

        header_name(i, name);
        if (!shape->files[i].is_of_base)
            code = write_header(directory, name, &shape->files[i], err);
    }
    if (code != CKPT_OK || index == NULL)
        return code;
    if ((path = file_join(directory, INDEX_NAME)) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(directory));
    if ((code = file_make_parents_below(directory, INDEX_NAME, err)) == CKPT_OK)
        code = folder_copy(index->folder, index->as, path, err);
    free(path);
    return code;
}

void delta_structure_put(json_writer *w, const delta_shape *shape)
{
    json_member_object(w, "structure");
    json_member_array(w, "weights");
    for (size_t i = 0; i < shape->file_count; i++) {
        char name[HEADER_NAME_BYTES];

        header_name(i, name);
        json_put_object(w);
        json_member_string(w, "name", shape->files[i].name);
        json_member_u64(w, "bytes", shape->files[i].bytes);
        json_member_string(w, "header", shape->files[i].is_of_base ? NULL : name);
        json_put_object_end(w);
    }
    json_put_array_end(w);
    json_member_string(w, "index", find_index(shape) == NULL ? NULL : INDEX_NAME);
    json_member_names(w, "added", (const char *const *)shape->added.names, shape->added.count);
    json_member_names(w, "removed", (const char *const *)shape->removed.names,
                      shape->removed.count);
    json_put_object_end(w);
}
