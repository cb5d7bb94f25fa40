/* Reads a safetensors header and checks every rule of the format before a size is used. */
#include "safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"
#include "libckpt/json_scan.h"
#include "kernels/kernels.h"
#include "libckpt/map.h"
#include "libckpt/memory.h"
#include "libckpt/recognise.h"

typedef struct {
    ckpt_store *store;
    uint32_t file;
    const char *path;
    char *text;                 /* of the header */
    uint64_t text_bytes;
    uint64_t data_bytes;        /* of the file, after the header */
    size_t first;               /* tensor of this file in the catalog */
    json_scanner scan;
    ckpt_error *err;
} header_reader;

/* A tensor of the header; its name is in the reader, without the file's prefix. */
typedef struct {
    ckpt_tensor tensor;
    uint64_t offsets[2];
    int has_dtype;
    int has_shape;
    int has_offsets;
    char name[MAP_NAME_BYTES];
} header_entry;

static ckpt_code fail_entry(const header_reader *r, const char *name, const char *what)
{
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': tensor '%s' %s", r->path, name, what);
}

/* Add the file to an error of the catalog. */
static ckpt_code name_file(const header_reader *r, ckpt_code code)
{
    return r->err == NULL || code != CKPT_E_FORMAT
               ? code
               : ckpt_fail(r->err, code, "'%s': %s", r->path, r->err->text);
}

/* ---- the members of an entry ---- */

static ckpt_code read_dtype(header_reader *r, header_entry *e)
{
    char word[32];
    json_token token;
    ckpt_code code;

    if ((code = json_scan_next(&r->scan, &token, r->err)) != CKPT_OK)
        return code;
    if (token.kind != JSON_SCAN_STRING)
        return fail_entry(r, e->name, "has no dtype");
    e->has_dtype = 1;
    if (json_token_decode(r->text, &token, NULL) >= sizeof word)
        return fail_entry(r, e->name, "has an unknown dtype with a long name");
    json_token_decode(r->text, &token, word);
    e->tensor.dtype = ckpt_dtype_find(word);
    if (e->tensor.dtype == CKPT_NONE || e->tensor.dtype == CKPT_I4)     /* files have words */
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': tensor '%s' has unknown dtype '%s'",
                         r->path, e->name, word);
    return CKPT_OK;
}

static ckpt_code read_shape(header_reader *r, header_entry *e)
{
    ckpt_tensor *t = &e->tensor;
    json_token token;
    ckpt_code code;

    if ((code = json_scan_next(&r->scan, &token, r->err)) != CKPT_OK)
        return code;
    if (token.kind != JSON_SCAN_ARRAY)
        return fail_entry(r, e->name, "has no shape");
    e->has_shape = 1;
    while ((code = json_scan_next(&r->scan, &token, r->err)) == CKPT_OK &&
           token.kind != JSON_SCAN_ARRAY_END) {
        if (t->rank == CKPT_RANK_MAX)
            return fail_entry(r, e->name, "has more than 8 dimensions");
        if (!json_token_u64(r->text, &token, &t->shape[t->rank++]))
            return fail_entry(r, e->name,
                              "has a dimension that is not a non-negative integer");
    }
    return code;
}

static ckpt_code read_offsets(header_reader *r, header_entry *e)
{
    static const char bad[] = "has invalid data_offsets, expected two non-negative integers";
    json_token token;
    ckpt_code code;

    if ((code = json_scan_next(&r->scan, &token, r->err)) != CKPT_OK)
        return code;
    if (token.kind != JSON_SCAN_ARRAY)
        return fail_entry(r, e->name, bad);
    e->has_offsets = 1;
    for (int i = 0; i < 2; i++) {
        if ((code = json_scan_next(&r->scan, &token, r->err)) != CKPT_OK)
            return code;
        if (!json_token_u64(r->text, &token, &e->offsets[i]))
            return fail_entry(r, e->name, bad);
    }
    if ((code = json_scan_next(&r->scan, &token, r->err)) != CKPT_OK)
        return code;
    return token.kind == JSON_SCAN_ARRAY_END ? CKPT_OK : fail_entry(r, e->name, bad);
}

/* All members of the entry whose key was read. */
static ckpt_code read_members(header_reader *r, header_entry *e)
{
    json_token token;
    ckpt_code code = json_scan_next(&r->scan, &token, r->err);

    if (code == CKPT_OK && token.kind != JSON_SCAN_OBJECT)
        return fail_entry(r, e->name, "is not an object");
    while (code == CKPT_OK &&
           (code = json_scan_next(&r->scan, &token, r->err)) == CKPT_OK &&
           token.kind != JSON_SCAN_OBJECT_END) {
        if (json_token_equals(r->text, &token, "dtype"))
            code = read_dtype(r, e);
        else if (json_token_equals(r->text, &token, "shape"))
            code = read_shape(r, e);
        else if (json_token_equals(r->text, &token, "data_offsets"))
            code = read_offsets(r, e);
        else
            code = fail_entry(r, e->name, "has an unknown field");
    }
    if (code != CKPT_OK)
        return code;
    if (!e->has_dtype)
        return fail_entry(r, e->name, "has no dtype");
    if (!e->has_shape)
        return fail_entry(r, e->name, "has no shape");
    return e->has_offsets ? CKPT_OK
                          : fail_entry(r, e->name,
                                       "has invalid data_offsets, expected two non-negative "
                                       "integers");
}

/* ---- an entry ---- */

static ckpt_code check_offsets(const header_reader *r, const header_entry *e)
{
    const uint64_t *offsets = e->offsets;
    ckpt_code code;

    if (offsets[0] > offsets[1])
        return fail_entry(r, e->name, "has data_offsets that end before they start");
    if (offsets[1] > r->data_bytes)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': tensor '%s' ends at %llu, but the file has %llu bytes of data",
                         r->path, e->name, (unsigned long long)offsets[1],
                         (unsigned long long)r->data_bytes);
    if ((code = catalog_check_shape(&e->tensor, r->err)) != CKPT_OK)
        return name_file(r, code);
    if (offsets[1] - offsets[0] != ckpt_part_bytes(&e->tensor, CKPT_DATA)) {
        char shape[256];

        catalog_shape_text(&e->tensor, shape, sizeof shape);
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': tensor '%s' %s %s needs %llu bytes, data_offsets have %llu",
                         r->path, e->name, ckpt_dtype_name(e->tensor.dtype), shape,
                         (unsigned long long)ckpt_part_bytes(&e->tensor, CKPT_DATA),
                         (unsigned long long)(offsets[1] - offsets[0]));
    }
    return CKPT_OK;
}

static ckpt_code add_prefixed(const header_reader *r, const ckpt_tensor *tensor,
                              const char *prefix, const char *mark)
{
    const size_t size = strlen(prefix) + strlen(mark) + strlen(tensor->name) + 1;
    ckpt_tensor named = *tensor;
    char *name = malloc(size);
    ckpt_code code;

    if (name == NULL)
        return ckpt_fail_memory(r->err, "a name", size);
    snprintf(name, size, "%s%s%s", prefix, mark, tensor->name);
    named.name = name;
    code = catalog_add(r->store->catalog, &named, r->err);
    free(name);
    return code;
}

/* Another file has a tensor of this name: the caller chooses between them. */
static ckpt_code add_repeat(const header_reader *r, const ckpt_tensor *tensor)
{
    ckpt_store *store = r->store;
    store_repeat *repeats = array_room_counted(store->repeats, store->repeat_count,
                                               sizeof *repeats, "copies of tensors", r->err);

    if (repeats == NULL)
        return CKPT_E_MEMORY;
    store->repeats = repeats;
    repeats[store->repeat_count++] =
        (store_repeat){ ckpt_catalog_count(store->catalog), r->file };
    return add_prefixed(r, tensor, store->files[r->file].name, ":");
}

/* Into the catalog, with the file's prefix before its name. */
static ckpt_code add_tensor(const header_reader *r, const ckpt_tensor *tensor)
{
    const char *prefix = r->store->files[r->file].prefix;
    int64_t other;

    if (prefix != NULL)
        return add_prefixed(r, tensor, prefix, "");
    other = ckpt_catalog_find(r->store->catalog, tensor->name);
    if (other >= 0 && r->store->keeps_repeats)
        return add_repeat(r, tensor);
    if (other >= 0 && ckpt_catalog_at(r->store->catalog, (size_t)other)->file != r->file)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' is also in '%s', and no "
                         "model.safetensors.index.json says which of the two files counts: move "
                         "one of them out of the folder", tensor->name,
                         r->store->files[ckpt_catalog_at(r->store->catalog, (size_t)other)->file]
                             .name);
    return catalog_add(r->store->catalog, tensor, r->err);
}

static ckpt_code read_entry(header_reader *r, const json_token *key)
{
    const size_t length = json_token_decode(r->text, key, NULL);
    header_entry e = { .tensor = { .file = r->file } };
    ckpt_code code;

    if (length >= sizeof e.name)                /* too long also for an error message */
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': the name of tensor %zu has %zu bytes, expected at most %d", r->path,
                         ckpt_catalog_count(r->store->catalog) - r->first, length,
                         MAP_NAME_BYTES - 1);
    json_token_decode(r->text, key, e.name);
    e.tensor.name = e.name;
    if ((code = read_members(r, &e)) != CKPT_OK || (code = check_offsets(r, &e)) != CKPT_OK)
        return code;
    e.tensor.offset = r->store->files[r->file].header_bytes + e.offsets[0];
    return name_file(r, add_tensor(r, &e.tensor));
}

/* Strings only, kept as written. Some writers use `null` for none. */
static ckpt_code read_metadata(header_reader *r)
{
    store_file *f = &r->store->files[r->file];
    json_token token;
    size_t start;
    ckpt_code code = json_scan_next(&r->scan, &token, r->err);

    if (code != CKPT_OK || token.kind == JSON_SCAN_NULL)
        return code;
    if (token.kind != JSON_SCAN_OBJECT)
        return fail_entry(r, "__metadata__", "is not an object");
    start = token.start;
    while ((code = json_scan_next(&r->scan, &token, r->err)) == CKPT_OK &&
           token.kind != JSON_SCAN_OBJECT_END) {
        if ((code = json_scan_next(&r->scan, &token, r->err)) != CKPT_OK)
            return code;
        if (token.kind != JSON_SCAN_STRING)
            return fail_entry(r, "__metadata__", "has a value that is not a string");
    }
    if (code != CKPT_OK)
        return code;
    if (!memory_take(token.end - start))
        return ckpt_fail_memory(r->err, r->path, token.end - start);
    f->metadata_bytes = token.end - start;
    f->metadata = strndup(r->text + start, f->metadata_bytes);
    return f->metadata != NULL ? CKPT_OK : ckpt_fail_memory(r->err, r->path, f->metadata_bytes);
}

/* ---- all of them ---- */

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

static ckpt_code check_order(const header_reader *r, const ckpt_tensor **order, size_t count)
{
    const store_file *f = &r->store->files[r->file];
    const char *prefix = f->prefix == NULL ? "" : f->prefix;
    uint64_t end = 0;

    qsort(order, count, sizeof *order, compare_offsets);
    for (size_t i = 0; i < count; i++) {
        const uint64_t begin = order[i]->offset - f->header_bytes;

        if (begin != end)
            return ckpt_fail(r->err, CKPT_E_FORMAT,
                             "'%s': tensor '%s' starts at %llu, expected %llu (%s)", r->path,
                             order[i]->name + strlen(prefix), (unsigned long long)begin,
                             (unsigned long long)end, begin < end ? "overlap" : "hole");
        end = begin + ckpt_part_bytes(order[i], CKPT_DATA);
    }
    if (end != r->data_bytes)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s' has %llu bytes of data, its tensors need %llu", r->path,
                         (unsigned long long)r->data_bytes, (unsigned long long)end);
    return CKPT_OK;
}

/* Sorted by position, each tensor must start where the previous one ends, and the last at the end
 * of the file. */
static ckpt_code check_cover(const header_reader *r)
{
    const size_t count = ckpt_catalog_count(r->store->catalog) - r->first;
    const ckpt_tensor **order;
    ckpt_code code;

    if (!memory_has((count + 1) * sizeof *order) ||
        (order = calloc(count + 1, sizeof *order)) == NULL)
        return ckpt_fail_memory(r->err, r->path, count * sizeof *order);
    for (size_t i = 0; i < count; i++)
        order[i] = ckpt_catalog_at(r->store->catalog, r->first + i);
    code = check_order(r, order, count);
    free(order);
    return code;
}

static ckpt_code read_entries(header_reader *r)
{
    json_census census;
    json_token token;
    ckpt_code code;

    if ((code = json_check(r->text, r->text_bytes, r->path, &census, r->err)) != CKPT_OK)
        return code;
    json_scan_begin(&r->scan, r->text, r->text_bytes, r->path);
    code = json_scan_next(&r->scan, &token, r->err);    /* an object: it starts with a brace */
    while (code == CKPT_OK &&
           (code = json_scan_next(&r->scan, &token, r->err)) == CKPT_OK &&
           token.kind != JSON_SCAN_OBJECT_END)
        code = json_token_equals(r->text, &token, "__metadata__") ? read_metadata(r)
                                                                  : read_entry(r, &token);
    return code == CKPT_OK ? check_cover(r) : code;
}

static uint64_t load_length(const unsigned char bytes[SAFETENSORS_LENGTH_BYTES])
{
    uint64_t length = 0;

    for (int i = SAFETENSORS_LENGTH_BYTES - 1; i >= 0; i--)
        length = length << 8 | bytes[i];
    return length;
}

static ckpt_code read_text(header_reader *r)
{
    store_file *f = &r->store->files[r->file];
    unsigned char bytes[SAFETENSORS_LENGTH_BYTES];
    char what[RECOGNISE_BYTES];
    uint64_t length;
    ckpt_code code;

    if (f->size_bytes < SAFETENSORS_LENGTH_BYTES)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' has only %llu bytes, too few for a header",
                         r->path, (unsigned long long)f->size_bytes);
    if ((code = file_read_at(f->file, 0, bytes, sizeof bytes, r->err)) != CKPT_OK)
        return code;
    length = load_length(bytes);
    if (length > SAFETENSORS_HEADER_MAX && recognise_head(f->file, what))
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' %s", r->path, what);
    if (length > SAFETENSORS_HEADER_MAX)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': header of %llu bytes, expected at most %d", r->path,
                         (unsigned long long)length, SAFETENSORS_HEADER_MAX);
    if (length > f->size_bytes - SAFETENSORS_LENGTH_BYTES)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': header of %llu bytes, but the file has %llu", r->path,
                         (unsigned long long)length, (unsigned long long)f->size_bytes);
    if (!memory_take(length + 1))
        return ckpt_fail_memory(r->err, r->path, length + 1);
    r->text_bytes = length;
    if ((r->text = malloc(length + 1)) == NULL)
        return ckpt_fail_memory(r->err, r->path, length);
    if ((code = file_read_at(f->file, SAFETENSORS_LENGTH_BYTES, r->text, length, r->err)) !=
        CKPT_OK)
        return code;
    r->text[length] = '\0';
    if (r->text[0] != '{')
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': the header does not start with '{'",
                         r->path);
    f->header_bytes = SAFETENSORS_LENGTH_BYTES + length;
    f->header_hash = kernels_get()->hash_bytes(r->text, length, 0).low64;
    r->data_bytes = f->size_bytes - f->header_bytes;
    return CKPT_OK;
}

ckpt_code safetensors_read(ckpt_store *store, uint32_t i, ckpt_error *err)
{
    header_reader r = { .store = store, .file = i, .err = err };
    ckpt_code code;

    if ((code = store_open_file(store, i, 0, err)) != CKPT_OK)
        return code;
    r.path = file_path(store->files[i].file);
    r.first = ckpt_catalog_count(store->catalog);
    store->files[i].size_bytes = file_size(store->files[i].file);
    if ((code = read_text(&r)) == CKPT_OK)
        code = read_entries(&r);
    if (r.text_bytes > 0)
        memory_give(r.text_bytes + 1);
    free(r.text);
    return code;
}
