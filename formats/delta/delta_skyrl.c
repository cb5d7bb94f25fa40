/* Deltas of SkyRL, read and written. */
#include "delta_skyrl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "delta_read.h"
#include "formats/safetensors.h"
#include "libckpt/buffer.h"
#include "libckpt/memory.h"
#include "libckpt/size.h"
#include "libckpt/text.h"

enum { MANIFEST_BYTES_MAX = 1 << 28 };

static const struct {
    const char *name;
    ckpt_dtype dtype;
} dtypes[] = {
    { "bfloat16", CKPT_BF16 },  { "float16", CKPT_F16 }, { "float32", CKPT_F32 },
    { "float64", CKPT_F64 },    { "int8", CKPT_I8 },     { "uint8", CKPT_U8 },
    { "int16", CKPT_I16 },      { "int32", CKPT_I32 },   { "int64", CKPT_I64 },
    { "bool", CKPT_BOOL },      { "float8_e4m3fn", CKPT_F8_E4M3 },
    { "float8_e5m2", CKPT_F8_E5M2 },
};

static ckpt_code read_manifest(const folder_place *place, json_document **out, ckpt_error *err)
{
    folder_text text;
    ckpt_code code =
        folder_read_all(place->folder, DELTA_SKYRL_FILE, MANIFEST_BYTES_MAX, &text, err);

    if (code == CKPT_OK)
        code = json_parse(text.bytes, text.size, text.path, out, err);
    folder_text_release(&text);
    return code;
}

int delta_skyrl_detect(const folder_place *place)
{
    json_document *document = NULL;
    int found;

    if (place->name != NULL || !folder_has(place->folder, DELTA_SKYRL_FILE) ||
        read_manifest(place, &document, NULL) != CKPT_OK)
        return 0;
    found = json_is_array(json_member(json_root(document), "payload_files")) &&
            json_member(json_root(document), "base_version") != NULL;
    json_free(document);
    return found;
}

static ckpt_code bad(const ckpt_delta *d, const char *name, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s': %s: the entry of '%s' is not as SkyRL writes it",
                     d->path, DELTA_SKYRL_FILE, name == NULL ? "" : name);
}

/* Data files: each once, in the directory itself. */
static ckpt_code add_files(ckpt_delta *d, const json_value *files, ckpt_error *err)
{
    for (const json_value *v = json_first(files); v != NULL; v = json_next(v)) {
        const char *name = json_string(v);
        uint32_t number;
        ckpt_code code;

        if (name == NULL || !text_is_below(name) || strchr(name, '/') != NULL)
            return bad(d, name, err);
        if ((code = store_add_file(d->store, name, &number, err)) != CKPT_OK ||
            (code = safetensors_read(d->store, number, err)) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static int take_shape(const json_value *entry, delta_tensor *t)
{
    const json_value *shape = json_member(entry, "shape");
    const char *dtype = json_string(json_member(entry, "dtype"));
    uint64_t bytes = 1;

    for (size_t i = 0; dtype != NULL && i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtype, dtypes[i].name) == 0)
            t->dtype = dtypes[i].dtype;
    for (const json_value *v = json_first(shape); v != NULL; v = json_next(v))
        if (t->rank == CKPT_RANK_MAX || !json_u64(v, &t->shape[t->rank]) ||
            !size_mul(bytes, t->shape[t->rank++], &bytes))
            return 0;
    t->has_shape = t->dtype != CKPT_NONE;
    return json_is_array(shape) && t->has_shape &&
           json_u64(json_member(entry, "uncompressed_num_bytes"), &t->bytes) &&
           size_mul(bytes, ckpt_dtype_bits(t->dtype) / 8, &bytes) && bytes == t->bytes;
}

static ckpt_code take_tensor(ckpt_delta *d, const json_value *entry, ckpt_error *err)
{
    const char *name = json_string(json_member(entry, "name"));
    const char *key = json_string(json_member(entry, "payload_key"));
    const char *sum = json_string(json_member(entry, "checksum"));
    const char *kind = json_string(json_member(entry, "checksum_algorithm"));
    const int64_t i = key == NULL ? -1 : ckpt_catalog_find(d->store->catalog, key);
    delta_tensor *t = i < 0 ? NULL : &d->tensors[i];

    if (kind == NULL || strcmp(kind, checksum_name(CHECKSUM_XXH3_128)) != 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': checksum_algorithm '%s' of '%s' is not known, "
                         "expected xxh3-128", d->path, kind == NULL ? "" : kind,
                         name == NULL ? "" : name);
    if (t == NULL || name == NULL || strcmp(name, key) != 0 || t->after[0] != '\0' || sum == NULL ||
        !checksum_is_text(CHECKSUM_XXH3_128, sum) || !take_shape(entry, t))
        return bad(d, name, err);
    memcpy(t->after, sum, strlen(sum) + 1);
    return CKPT_OK;
}

static ckpt_code take_all(ckpt_delta *d, const json_value *root, ckpt_error *err)
{
    uint64_t version;
    uint64_t base;
    ckpt_code code;

    if (!json_u64(json_member(root, "version"), &version) ||
        !json_u64(json_member(root, "base_version"), &base))
        return bad(d, "version", err);
    snprintf(d->version, sizeof d->version, "%06" PRIu64, version);
    snprintf(d->base_version, sizeof d->base_version, "%06" PRIu64, base);
    d->encoding = DELTA_XOR;
    d->checksum = CHECKSUM_XXH3_128;
    if ((code = add_files(d, json_member(root, "payload_files"), err)) != CKPT_OK ||
        (code = delta_list_tensors(d, err)) != CKPT_OK)
        return code;
    for (const json_value *v = json_first(json_member(root, "tensors")); v != NULL;
         v = json_next(v))
        if ((code = take_tensor(d, v, err)) != CKPT_OK)
            return code;
    for (size_t i = 0; i < d->count; i++)
        if (d->tensors[i].after[0] == '\0')
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' has tensor '%s', but %s does not list it",
                             d->path, d->tensors[i].name, DELTA_SKYRL_FILE);
    return CKPT_OK;
}

ckpt_code delta_skyrl_read(ckpt_delta *d, ckpt_error *err)
{
    json_document *document = NULL;
    ckpt_code code = read_manifest(&d->place, &document, err);

    if (code == CKPT_OK)
        code = take_all(d, json_root(document), err);
    json_free(document);
    return code;
}

/* ---- writing ---- */

static const char *dtype_name(ckpt_dtype dtype)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].name;
    return NULL;
}

static int take_number(const char *version, uint64_t *out)
{
    enum { DIGITS_MAX = 18 };
    const size_t digits = strspn(version, "0123456789");

    for (*out = 0; *version >= '0' && *version <= '9'; version++)
        *out = *out * 10 + (uint64_t)(*version - '0');
    return digits > 0 && digits <= DIGITS_MAX && *version == '\0';
}

ckpt_code delta_skyrl_check(const delta_content *c, ckpt_error *err)
{
    uint64_t number;

    if (!take_number(c->version, &number) || !take_number(c->base_version, &number))
        return ckpt_fail(err, CKPT_E_USAGE, "version '%s' on '%s': SkyRL has numbers only",
                         c->version, c->base_version);
    for (size_t i = 0; i < c->count; i++) {
        const ckpt_tensor *t = c->entries[i].tensor;

        if (dtype_name(t->dtype) == NULL)
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is %s, which SkyRL cannot read: use "
                             "the format of slime", t->name, ckpt_dtype_name(t->dtype));
    }
    return CKPT_OK;
}

static void put_tensor(json_writer *w, const delta_entry *e, const char *file)
{
    const ckpt_tensor *t = e->tensor;

    json_put_object(w);
    json_member_string(w, "name", t->name);
    json_member_string(w, "dtype", dtype_name(t->dtype));
    catalog_put_shape(w, t);
    json_member_u64(w, "uncompressed_num_bytes", ckpt_part_bytes(t, CKPT_DATA));
    json_member_u64(w, "compressed_num_bytes", e->packed_bytes);
    json_member_string(w, "payload_file", file);
    json_member_string(w, "payload_key", t->name);
    json_member_string(w, "checksum", e->after);
    json_member_string(w, "checksum_algorithm", checksum_name(CHECKSUM_XXH3_128));
    json_put_object_end(w);
}

static void put_manifest(json_writer *w, const delta_content *c, const ckpt_store *store)
{
    uint64_t version = 0;
    uint64_t base = 0;
    uint64_t bytes = 0;
    uint64_t packed = 0;

    take_number(c->version, &version);
    take_number(c->base_version, &base);
    json_put_object(w);
    json_member_u64(w, "version", version);
    json_member_u64(w, "base_version", base);
    json_member_array(w, "tensors");
    for (size_t i = 0; i < c->count; i++) {
        bytes += ckpt_part_bytes(c->entries[i].tensor, CKPT_DATA);
        packed += c->entries[i].packed_bytes;
        put_tensor(w, &c->entries[i], store->files[ckpt_catalog_at(store->catalog, i)->file].name);
    }
    json_put_array_end(w);
    json_member_u64(w, "total_uncompressed_num_bytes", bytes);
    json_member_u64(w, "total_compressed_num_bytes", packed);
    json_member_array(w, "payload_files");
    for (size_t i = 0; i < store->file_count; i++)
        json_put_string(w, store->files[i].name);
    json_put_array_end(w);
    json_put_object_end(w);
}

ckpt_code delta_skyrl_write(const char *directory, const delta_content *c,
                            const ckpt_store *store, ckpt_error *err)
{
    byte_buffer text = { .bytes = NULL };
    char *path = file_join(directory, DELTA_SKYRL_FILE);
    json_writer w;
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(directory));
    json_writer_begin(&w, byte_buffer_write, &text, 0);
    put_manifest(&w, c, store);
    code = !json_writer_end(&w) || text.failed
               ? ckpt_fail_memory(err, DELTA_SKYRL_FILE, text.used)
               : file_write_all(path, text.bytes, text.used, err);
    free(text.bytes);
    free(path);
    return code;
}
