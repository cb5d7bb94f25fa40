/* Deltas of SkyRL. */
#include "delta_skyrl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "delta_read.h"
#include "formats/safetensors.h"
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
