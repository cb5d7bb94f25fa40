/* Index, headers and checksums of a delta. */
#include "delta_read.h"

#include <stdlib.h>
#include <string.h>

#include "delta_private.h"
#include "delta_structure.h"
#include "formats/hf.h"
#include "formats/safetensors.h"
#include "libckpt/memory.h"

enum { INDEX_BYTES_MAX = 1 << 28 };

static const char *const encodings[] = { [DELTA_XOR] = "xor", [DELTA_OVERWRITE] = "overwrite" };

const char *delta_encoding_name(delta_encoding encoding)
{
    return encodings[encoding];
}

int delta_encoding_find(const char *name, delta_encoding *out)
{
    for (int i = 0; i < 2; i++) {
        if (strcmp(name, encodings[i]) == 0) {
            *out = (delta_encoding)i;
            return 1;
        }
    }
    return 0;
}

/* ---- the index ---- */

static ckpt_code read_index(const folder_place *place, json_document **out, char **path,
                            ckpt_error *err)
{
    folder_text text;
    ckpt_code code = folder_read_all(place->folder, HF_INDEX_FILE, INDEX_BYTES_MAX, &text, err);

    *path = NULL;
    if (code == CKPT_OK)
        code = json_parse(text.bytes, text.size, text.path, out, err);
    if (code == CKPT_OK) {
        *path = text.path;
        text.path = NULL;
    }
    folder_text_release(&text);
    return code;
}

int delta_has_weights(const folder_place *place)
{
    json_document *index = NULL;
    char *path = NULL;
    int found;

    if (place->name != NULL || !folder_has(place->folder, HF_INDEX_FILE) ||
        read_index(place, &index, &path, NULL) != CKPT_OK)
        return 0;
    found = json_member(json_member(json_root(index), "metadata"), "delta_encoding") != NULL;
    json_free(index);
    free(path);
    return found;
}

/* Read a version: a string, or a number, which some readers also accept. */
static ckpt_code take_version(const char *path, const json_value *metadata, const char *key,
                              char out[DELTA_VERSION_BYTES], ckpt_error *err)
{
    const json_value *value = json_member(metadata, key);
    const char *text = json_string(value);
    uint64_t number;

    if (json_u64(value, &number)) {
        snprintf(out, DELTA_VERSION_BYTES, "%06llu", (unsigned long long)number);
        return CKPT_OK;
    }
    if (text == NULL || text[0] == '\0' || strlen(text) >= DELTA_VERSION_BYTES)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': '%s' of metadata is not a version: expected a "
                         "string such as \"000001\"", path, key);
    memcpy(out, text, strlen(text) + 1);
    return CKPT_OK;
}

static ckpt_code take_metadata(ckpt_delta *d, const char *path, const json_value *metadata,
                               ckpt_error *err)
{
    const char *encoding = json_string(json_member(metadata, "delta_encoding"));
    const char *packing = json_string(json_member(metadata, "compression_format"));
    const char *sums = json_string(json_member(metadata, "checksum_format"));
    ckpt_code code;

    if (encoding == NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is the index of a checkpoint, not of a delta: "
                         "expected the member delta_encoding in its metadata", path);
    d->is_structural = strcmp(encoding, "xor" DELTA_STRUCTURAL_SUFFIX) == 0;
    if (!delta_encoding_find(d->is_structural ? "xor" : encoding, &d->encoding))
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': delta_encoding '%s' is not known, expected "
                         "xor, overwrite or xor" DELTA_STRUCTURAL_SUFFIX, path, encoding);
    if (packing == NULL || strcmp(packing, "zstd") != 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': compression_format '%s' is not known, expected "
                         "zstd", path, packing == NULL ? "" : packing);
    if (sums == NULL || !checksum_find(sums, &d->checksum))
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': checksum_format '%s' is not known, expected "
                         "xxh3-128, blake3 or adler32", path, sums == NULL ? "" : sums);
    if ((code = take_version(path, metadata, "version", d->version, err)) != CKPT_OK)
        return code;
    return take_version(path, metadata, "base_version", d->base_version, err);
}

/* 1 for a file name without a folder: readers append it to the path of the directory. */
static int is_file_name(const char *name)
{
    return name != NULL && name[0] != '\0' && name[0] != '.' && strpbrk(name, "/\\") == NULL;
}

/* Add each file of the index once. The keys of `files` are strings of the index. */
static ckpt_code add_files(ckpt_delta *d, const char *path, const json_value *map, table *files,
                           ckpt_error *err)
{
    for (const json_value *v = json_first(map); v != NULL; v = json_next(v)) {
        const char *file = json_string(v);
        uint32_t number;
        uint64_t known;
        ckpt_code code;

        if (!is_file_name(file))
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s': tensor '%s' is not mapped to a file name",
                             path, json_key(v));
        if (table_find(files, file, &known))
            continue;
        if ((code = store_add_file(d->store, file, &number, err)) != CKPT_OK)
            return code;
        if (table_add(files, file, number) != TABLE_ADDED)
            return ckpt_fail_memory(err, path, files->count);
        if ((code = safetensors_read(d->store, number, err)) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

/* Check that every name of the index is in its file, and that there are no other tensors. */
static ckpt_code check_names(const ckpt_delta *d, const char *path, const json_value *map,
                             const table *files, ckpt_error *err)
{
    const ckpt_catalog *catalog = d->store->catalog;

    for (const json_value *v = json_first(map); v != NULL; v = json_next(v)) {
        const int64_t i = ckpt_catalog_find(catalog, json_key(v));
        uint64_t number = 0;

        table_find(files, json_string(v), &number);
        if (i < 0 || ckpt_catalog_at(catalog, (size_t)i)->file != number)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' says that '%s' is in '%s', which lacks it",
                             path, json_key(v), json_string(v));
    }
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);

        if (json_count(map) < ckpt_catalog_count(catalog) && json_member(map, t->name) == NULL)
            return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' is in '%s', but '%s' does not list "
                             "it", t->name, d->store->files[t->file].name, path);
    }
    return CKPT_OK;
}

/* ---- checksums ---- */

/* Read the checksums in a file's __metadata__. */
static ckpt_code take_sums(ckpt_delta *d, uint32_t file, ckpt_error *err)
{
    const store_file *f = &d->store->files[file];
    json_document *metadata = NULL;
    ckpt_code code;

    if (f->metadata == NULL)
        return CKPT_OK;
    if ((code = json_parse(f->metadata, strlen(f->metadata), file_path(f->file), &metadata,
                           err)) != CKPT_OK)
        return code;
    for (const json_value *v = json_first(json_root(metadata)); v != NULL; v = json_next(v)) {
        const size_t prefix = sizeof DELTA_BEFORE_KEY - 1;
        const int is_before = strncmp(json_key(v), DELTA_BEFORE_KEY, prefix) == 0;
        const int64_t i = ckpt_catalog_find(d->store->catalog,
                                            json_key(v) + (is_before ? prefix : 0));
        const char *text = json_string(v);

        if (i < 0 || ckpt_catalog_at(d->store->catalog, (size_t)i)->file != file)
            continue;
        if (text != NULL && checksum_is_text(is_before ? CHECKSUM_XXH3_128 : d->checksum, text))
            memcpy(is_before ? d->tensors[i].before : d->tensors[i].after, text, strlen(text) + 1);
    }
    json_free(metadata);
    return CKPT_OK;
}

ckpt_code delta_list_tensors(ckpt_delta *d, ckpt_error *err)
{
    d->count = ckpt_catalog_count(d->store->catalog);
    if (!memory_has(d->count * sizeof *d->tensors) ||
        (d->tensors = calloc(d->count + 1, sizeof *d->tensors)) == NULL)
        return ckpt_fail_memory(err, d->path, d->count * sizeof *d->tensors);
    for (size_t i = 0; i < d->count; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(d->store->catalog, i);

        if (t->dtype != CKPT_U8 || t->rank != 1)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s': tensor '%s' is %s, expected U8 of one "
                             "dimension: a zstd frame",
                             d->store->files[t->file].name, t->name, ckpt_dtype_name(t->dtype));
        d->tensors[i].name = t->name;
        d->tensors[i].frame = (zframe_place){ d->store->files[t->file].file, t->offset,
                                              t->shape[0], t->name };
    }
    return CKPT_OK;
}

static ckpt_code take_tensors(ckpt_delta *d, ckpt_error *err)
{
    ckpt_code code = delta_list_tensors(d, err);

    for (uint32_t f = 0; f < d->store->file_count && code == CKPT_OK; f++)
        code = take_sums(d, f, err);
    for (size_t i = 0; i < d->count && code == CKPT_OK; i++)
        if (d->tensors[i].after[0] == '\0')
            code = ckpt_fail(err, CKPT_E_FORMAT, "'%s': tensor '%s' has no %s checksum in "
                             "__metadata__ (lower-case hex digits)", d->path, d->tensors[i].name,
                             checksum_name(d->checksum));
    return code;
}

/* ---- the whole delta ---- */

ckpt_code delta_read_weights(ckpt_delta *d, ckpt_error *err)
{
    json_document *index = NULL;
    const json_value *map;
    char *path = NULL;
    table files;
    ckpt_code code;

    table_init(&files);
    if ((code = read_index(&d->place, &index, &path, err)) != CKPT_OK)
        goto out;
    map = json_member(json_root(index), "weight_map");
    if (!json_is_object(map)) {
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' has no object 'weight_map'", path);
        goto out;
    }
    if ((code = take_metadata(d, path, json_member(json_root(index), "metadata"), err)) ==
            CKPT_OK &&
        (code = add_files(d, path, map, &files, err)) == CKPT_OK &&
        (code = check_names(d, path, map, &files, err)) == CKPT_OK)
        code = take_tensors(d, err);
out:
    table_release(&files);
    json_free(index);
    free(path);
    return code;
}

void delta_mix(const ckpt_delta *delta, hash128 *sum)
{
    store_mix_files(delta->store, sum);
    for (size_t i = 0; i < delta->file_count; i++) {
        const delta_file *f = &delta->files[i];
        const int is_carried = f->carried != NULL;

        hash128_mix(sum, f->name, strlen(f->name) + 1);
        hash128_mix(sum, &is_carried, sizeof is_carried);
        hash128_mix(sum, f->sha256, strlen(f->sha256));
    }
}

uint64_t delta_packed_bytes(const ckpt_delta *delta)
{
    uint64_t total = 0;

    for (size_t i = 0; i < delta->count; i++)
        total += delta->tensors[i].frame.packed_bytes;
    return total;
}

const delta_tensor *delta_find(const ckpt_delta *delta, const char *name)
{
    const int64_t i = ckpt_catalog_find(delta->store->catalog, name);

    return i < 0 ? NULL : &delta->tensors[i];
}
