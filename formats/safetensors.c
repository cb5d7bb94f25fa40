/* Reading a safetensors header: every rule of the format, checked before a size is used. */
#include "safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "kernels.h"
#include "map.h"
#include "recognise.h"
#include "safetensors_header.h"
#include "size.h"

typedef struct {
    ckpt_store *store;
    uint32_t file;
    const char *path;
    uint64_t data_bytes;        /* of the file, after the header */
    ckpt_tensor *tensors;       /* names borrowed from the JSON; offset = begin */
    uint64_t *ends;
    size_t count;
    ckpt_error *err;
} header_reader;

static ckpt_code fail_entry(const header_reader *r, const char *name, const char *what)
{
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': tensor '%s' %s", r->path, name, what);
}

/* An error of the catalog, which knows tensors only. */
static ckpt_code name_file(const header_reader *r, ckpt_code code)
{
    return r->err == NULL ? code : ckpt_fail(r->err, code, "'%s': %s", r->path, r->err->text);
}

static ckpt_code read_shape(const header_reader *r, const json_value *value, ckpt_tensor *t)
{
    if (!json_is_array(value))
        return fail_entry(r, t->name, "has no shape");
    for (const json_value *v = json_first(value); v != NULL; v = json_next(v)) {
        if (t->rank == CKPT_RANK_MAX)
            return fail_entry(r, t->name, "has more than 8 dimensions");
        if (!json_u64(v, &t->shape[t->rank++]))
            return fail_entry(r, t->name, "has a dimension that is not a non-negative integer");
    }
    return CKPT_OK;
}

static ckpt_code read_offsets(const header_reader *r, const json_value *value, const char *name,
                              uint64_t offsets[2])
{
    const json_value *v = json_first(value);

    if (!json_is_array(value) || json_count(value) != 2 || !json_u64(v, &offsets[0]) ||
        !json_u64(json_next(v), &offsets[1]))
        return fail_entry(r, name, "has no data_offsets of two non-negative integers");
    if (offsets[0] > offsets[1])
        return fail_entry(r, name, "has data_offsets that end before they begin");
    if (offsets[1] > r->data_bytes)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': tensor '%s' ends at %llu, but the file holds %llu bytes of data",
                         r->path, name, (unsigned long long)offsets[1],
                         (unsigned long long)r->data_bytes);
    return CKPT_OK;
}

static ckpt_code read_dtype(const header_reader *r, const json_value *value, ckpt_tensor *t)
{
    const char *word = json_string(value);

    if (word == NULL)
        return fail_entry(r, t->name, "has no dtype");
    t->dtype = ckpt_dtype_find(word);
    if (t->dtype == CKPT_NONE)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': tensor '%s' has unknown dtype '%s'",
                         r->path, t->name, word);
    return CKPT_OK;
}

static ckpt_code read_entry(header_reader *r, const json_value *entry)
{
    ckpt_tensor *t = &r->tensors[r->count];
    uint64_t offsets[2];
    ckpt_code code;

    t->name = json_key(entry);
    t->file = r->file;
    if (strlen(t->name) >= MAP_NAME_BYTES)      /* too long for the line of an error, too */
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': the name of tensor %zu has %zu bytes, expected at most %d", r->path,
                         r->count, strlen(t->name), MAP_NAME_BYTES - 1);
    if (!json_is_object(entry))
        return fail_entry(r, t->name, "is not an object");
    for (const json_value *v = json_first(entry); v != NULL; v = json_next(v))
        if (strcmp(json_key(v), "dtype") != 0 && strcmp(json_key(v), "shape") != 0 &&
            strcmp(json_key(v), "data_offsets") != 0)
            return fail_entry(r, t->name, "has an unknown field");
    if ((code = read_dtype(r, json_member(entry, "dtype"), t)) != CKPT_OK ||
        (code = read_shape(r, json_member(entry, "shape"), t)) != CKPT_OK ||
        (code = read_offsets(r, json_member(entry, "data_offsets"), t->name, offsets)) !=
            CKPT_OK)
        return code;
    if ((code = catalog_check_shape(t, r->err)) != CKPT_OK)
        return name_file(r, code);
    if (offsets[1] - offsets[0] != ckpt_part_bytes(t, CKPT_DATA)) {
        char shape[256];

        catalog_shape_text(t, shape, sizeof shape);
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': tensor '%s' %s %s takes %llu bytes, data_offsets say %llu",
                         r->path, t->name, ckpt_dtype_name(t->dtype), shape,
                         (unsigned long long)ckpt_part_bytes(t, CKPT_DATA),
                         (unsigned long long)(offsets[1] - offsets[0]));
    }
    t->offset = offsets[0];
    r->count++;
    return CKPT_OK;
}

static ckpt_code read_metadata(const header_reader *r, const json_value *metadata,
                               const char *text)
{
    for (const json_value *v = json_first(metadata); v != NULL; v = json_next(v))
        if (json_string(v) == NULL)
            return fail_entry(r, "__metadata__", "has a value that is not a string");
    if (!json_is_object(metadata))
        return fail_entry(r, "__metadata__", "is not an object");
    return json_member_text(text, "__metadata__", &r->store->files[r->file].metadata, r->err);
}

static int compare_offsets(const void *left, const void *right)
{
    const ckpt_tensor *const *a = left;
    const ckpt_tensor *const *b = right;
    const uint64_t a_end = (*a)->offset + ckpt_part_bytes(*a, CKPT_DATA);
    const uint64_t b_end = (*b)->offset + ckpt_part_bytes(*b, CKPT_DATA);

    if ((*a)->offset != (*b)->offset)
        return (*a)->offset < (*b)->offset ? -1 : 1;
    return (a_end > b_end) - (a_end < b_end);
}

/* Sorted by position, each tensor begins where the one before it ends, and the file ends there. */
static ckpt_code check_cover(const header_reader *r)
{
    const ckpt_tensor **order = calloc(r->count + 1, sizeof *order);
    ckpt_code code = CKPT_OK;
    uint64_t end = 0;

    if (order == NULL)
        return ckpt_fail_memory(r->err, "a header", r->count);
    for (size_t i = 0; i < r->count; i++)
        order[i] = &r->tensors[i];
    qsort(order, r->count, sizeof *order, compare_offsets);
    for (size_t i = 0; i < r->count && code == CKPT_OK; i++) {
        if (order[i]->offset != end)
            code = ckpt_fail(r->err, CKPT_E_FORMAT,
                             "'%s': tensor '%s' begins at %llu, expected %llu (%s)", r->path,
                             order[i]->name, (unsigned long long)order[i]->offset,
                             (unsigned long long)end,
                             order[i]->offset < end ? "overlap" : "hole");
        end = order[i]->offset + ckpt_part_bytes(order[i], CKPT_DATA);
    }
    if (code == CKPT_OK && end != r->data_bytes)
        code = ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s' holds %llu bytes of data, its tensors take %llu", r->path,
                         (unsigned long long)r->data_bytes, (unsigned long long)end);
    free(order);
    return code;
}

/* Into the catalog, with the file's prefix before its name. */
static ckpt_code add_tensor(const header_reader *r, const ckpt_tensor *tensor)
{
    const char *prefix = r->store->files[r->file].prefix;
    ckpt_tensor named = *tensor;
    char *name;
    ckpt_code code;

    if (prefix == NULL)
        return catalog_add(r->store->catalog, tensor, r->err);
    if ((name = malloc(strlen(prefix) + strlen(tensor->name) + 1)) == NULL)
        return ckpt_fail_memory(r->err, "a name", strlen(tensor->name));
    memcpy(name, prefix, strlen(prefix));
    memcpy(name + strlen(prefix), tensor->name, strlen(tensor->name) + 1);
    named.name = name;
    code = catalog_add(r->store->catalog, &named, r->err);
    free(name);
    return code;
}

static ckpt_code read_entries(header_reader *r, const json_document *document, const char *text)
{
    const json_value *root = json_root(document);
    const uint64_t data_offset = r->store->files[r->file].header_bytes;
    ckpt_code code = CKPT_OK;

    if (!json_is_object(root))
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': the header is not an object", r->path);
    r->tensors = calloc(json_count(root) + 1, sizeof *r->tensors);
    if (r->tensors == NULL)
        return ckpt_fail_memory(r->err, "a header", json_count(root));
    for (const json_value *v = json_first(root); v != NULL && code == CKPT_OK; v = json_next(v))
        code = strcmp(json_key(v), "__metadata__") == 0 ? read_metadata(r, v, text)
                                                        : read_entry(r, v);
    if (code == CKPT_OK)
        code = check_cover(r);
    for (size_t i = 0; i < r->count && code == CKPT_OK; i++) {
        r->tensors[i].offset += data_offset;
        if ((code = add_tensor(r, &r->tensors[i])) == CKPT_E_FORMAT)
            code = name_file(r, code);
    }
    return code;
}

static uint64_t load_length(const unsigned char bytes[SAFETENSORS_LENGTH_BYTES])
{
    uint64_t length = 0;

    for (int i = SAFETENSORS_LENGTH_BYTES - 1; i >= 0; i--)
        length = length << 8 | bytes[i];
    return length;
}

static ckpt_code read_text(header_reader *r, char **text, uint64_t *length)
{
    store_file *f = &r->store->files[r->file];
    unsigned char bytes[SAFETENSORS_LENGTH_BYTES];
    char what[RECOGNISE_BYTES];
    ckpt_code code;

    if (f->size_bytes < SAFETENSORS_LENGTH_BYTES)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' has %llu bytes, too few for a header",
                         r->path, (unsigned long long)f->size_bytes);
    if ((code = file_read_at(f->file, 0, bytes, sizeof bytes, r->err)) != CKPT_OK)
        return code;
    *length = load_length(bytes);
    if (*length > SAFETENSORS_HEADER_MAX && recognise_path_head(r->path, what))
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' %s", r->path, what);
    if (*length > SAFETENSORS_HEADER_MAX)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': header of %llu bytes, expected at most %d", r->path,
                         (unsigned long long)*length, SAFETENSORS_HEADER_MAX);
    if (*length > f->size_bytes - SAFETENSORS_LENGTH_BYTES)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': header of %llu bytes, but the file has %llu", r->path,
                         (unsigned long long)*length, (unsigned long long)f->size_bytes);
    if ((*text = malloc(*length + 1)) == NULL)
        return ckpt_fail_memory(r->err, "a header", *length);
    if ((code = file_read_at(f->file, SAFETENSORS_LENGTH_BYTES, *text, *length, r->err)) != CKPT_OK)
        return code;
    (*text)[*length] = '\0';
    if ((*text)[0] != '{')
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': the header does not begin with '{'",
                         r->path);
    f->header_bytes = SAFETENSORS_LENGTH_BYTES + *length;
    f->header_hash = kernels_get()->hash_bytes(*text, *length, 0).low64;
    r->data_bytes = f->size_bytes - f->header_bytes;
    return CKPT_OK;
}

ckpt_code safetensors_read(ckpt_store *store, uint32_t i, ckpt_error *err)
{
    header_reader r = { .store = store, .file = i, .err = err };
    json_document *document = NULL;
    char *text = NULL;
    uint64_t length = 0;
    ckpt_code code;

    if ((code = store_open_file(store, i, 0, err)) != CKPT_OK)
        return code;
    r.path = file_path(store->files[i].file);
    store->files[i].size_bytes = file_size(store->files[i].file);
    if ((code = read_text(&r, &text, &length)) == CKPT_OK &&
        (code = json_parse(text, length, r.path, &document, err)) == CKPT_OK)
        code = read_entries(&r, document, text);
    json_free(document);
    free(r.tensors);
    free(text);
    return code;
}
