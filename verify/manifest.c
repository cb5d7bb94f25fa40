/* Writes and reads manifests of value digests. */
#include "manifest.h"

#include <stdlib.h>
#include <string.h>

#include "file_record.h"
#include "json_file.h"
#include "json_line.h"
#include "libckpt/codes.h"
#include "libckpt/zfile.h"

/* Ten times the manifest of the largest release. */
enum { MANIFEST_BYTES_MAX = 512 << 20 };

/* ---- writing ---- */

static int compare_names(const void *left, const void *right, void *context)
{
    const ckpt_catalog *catalog = context;
    const size_t *a = left;
    const size_t *b = right;

    return strcmp(ckpt_catalog_at(catalog, *a)->name, ckpt_catalog_at(catalog, *b)->name);
}

size_t *manifest_order(const ckpt_catalog *catalog)
{
    const size_t count = ckpt_catalog_count(catalog);
    size_t *order = calloc(count + 1, sizeof *order);

    if (order == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    qsort_r(order, count, sizeof *order, compare_names, (void *)(uintptr_t)catalog);
    return order;
}

static void put_tensor(json_writer *w, const ckpt_tensor *t, hash128 value)
{
    char encoding[64];
    char hex[CKPT_DIGEST_HEX];
    json_writer line;

    codes_encoding(t, encoding, sizeof encoding);
    hash128_hex(value, hex);
    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "name", t->name);
    json_member_string(&line, "class", digest_class(t));
    catalog_put_shape(&line, t);
    json_member_string(&line, "value", hex);
    json_member_string(&line, "encoding", encoding);
    json_put_object_end(&line);
    json_line_end(&line, w);
}

ckpt_code manifest_put_tensors(json_writer *w, const ckpt_catalog *catalog,
                               const ckpt_digest *digest, ckpt_error *err)
{
    size_t *order = manifest_order(catalog);

    if (order == NULL)
        return ckpt_fail_memory(err, "a manifest", ckpt_catalog_count(catalog));
    json_put_array(w);
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++)
        put_tensor(w, ckpt_catalog_at(catalog, order[i]), digest_get(digest, order[i]));
    json_put_array_end(w);
    free(order);
    return CKPT_OK;
}

ckpt_code manifest_put(json_writer *w, const manifest_info *info, ckpt_error *err)
{
    config_meaning config = { NULL, 0 };
    char root[CKPT_ROOT_HEX];
    char main_root[CKPT_ROOT_HEX];
    ckpt_code code;

    if ((code = ckpt_digest_root(info->digest, 0, root, err)) != CKPT_OK ||
        (code = ckpt_digest_root(info->digest, 1, main_root, err)) != CKPT_OK ||
        (info->config != NULL &&
         (code = config_meaning_read(info->config, &config, err)) != CKPT_OK))
        goto out;
    json_put_object(w);
    json_member_string(w, "schema", MANIFEST_SCHEMA);
    json_member_string(w, "root", root);
    json_member_string(w, "main", main_root);
    json_member_string(w, "family", info->family);
    json_member_string(w, "layout", info->layout);
    json_put_key(w, "config");
    if (info->config != NULL)
        config_meaning_put(w, &config);
    else
        json_put_null(w);
    if (info->companions != NULL) {
        json_put_key(w, "companions");
        file_record_put(w, info->companions);
    }
    if (info->files != NULL)
        json_member_names(w, "files", (const char *const *)info->files->names,
                          info->files->count);
    if (info->notes != NULL)
        json_member_names(w, "notes", (const char *const *)info->notes->names,
                          info->notes->count);
    json_put_key(w, "tensors");
    code = manifest_put_tensors(w, info->catalog, info->digest, err);
    json_put_object_end(w);
out:
    config_meaning_release(&config);
    return code;
}

static ckpt_code put_info(json_writer *w, const void *info, ckpt_error *err)
{
    return manifest_put(w, info, err);
}

ckpt_code manifest_write(const char *path, const manifest_info *info, ckpt_error *err)
{
    return json_file_write(path, put_info, info, err);
}

/* ---- reading ---- */

static ckpt_code read_shape(const json_value *shape, ckpt_tensor *t)
{
    const json_value *v;

    if (!json_is_array(shape) || json_count(shape) > CKPT_RANK_MAX)
        return CKPT_E_FORMAT;
    for (v = json_first(shape); v != NULL; v = json_next(v))
        if (!json_u64(v, &t->shape[t->rank++]))
            return CKPT_E_FORMAT;
    return CKPT_OK;
}

/* One entry of a tensor; dtype represents the class. */
static ckpt_code read_tensor(const json_value *entry, ckpt_tensor *t, hash128 *value)
{
    const char *class_name = json_string(json_member(entry, "class"));
    const char *hex = json_string(json_member(entry, "value"));

    memset(t, 0, sizeof *t);
    t->name = json_string(json_member(entry, "name"));
    if (t->name == NULL || class_name == NULL || hex == NULL || strlen(hex) != CKPT_DIGEST_HEX - 1
        || !hash128_from_hex(hex, value) || json_string(json_member(entry, "encoding")) == NULL)
        return CKPT_E_FORMAT;
    if (strcmp(class_name, "float") == 0)
        t->dtype = CKPT_F32;
    else if (strcmp(class_name, "int") == 0)
        t->dtype = CKPT_I64;
    else
        return CKPT_E_FORMAT;
    t->stored_dtype = t->dtype;
    return read_shape(json_member(entry, "shape"), t);
}

ckpt_code manifest_read_tensors(const json_value *tensors, const char *path, ckpt_manifest *m,
                                ckpt_error *err)
{
    const json_value *entry;
    hash128 value;
    ckpt_tensor t;
    ckpt_code code;
    size_t i = 0;

    if ((m->catalog = catalog_create()) == NULL)
        return ckpt_fail_memory(err, "a manifest", json_count(tensors));
    for (entry = json_first(tensors); entry != NULL; entry = json_next(entry), i++) {
        if (read_tensor(entry, &t, &value) != CKPT_OK)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' tensor %zu: expected name, class, shape, "
                             "value and encoding", path, i);
        if ((code = catalog_add(m->catalog, &t, err)) != CKPT_OK)
            return code;
    }
    if ((m->digest = digest_create(m->catalog)) == NULL)
        return ckpt_fail_memory(err, "digests", i);
    i = 0;
    for (entry = json_first(tensors); entry != NULL; entry = json_next(entry), i++) {
        read_tensor(entry, &t, &value);
        digest_set(m->digest, i, value);
    }
    return CKPT_OK;
}

ckpt_code manifest_check_root(const ckpt_manifest *m, int main_only, const char *said,
                              const char *path, ckpt_error *err)
{
    char root[CKPT_ROOT_HEX];
    const ckpt_code code = ckpt_digest_root(m->digest, main_only, root, err);

    if (code != CKPT_OK)
        return code;
    if (strcmp(root, said) != 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is inconsistent: its tensors have %s %s, it "
                         "states %.64s", path, main_only ? "main" : "root", root, said);
    return CKPT_OK;
}

static ckpt_code read_text(const ckpt_folder *folder, const char *name, folder_text *out,
                           ckpt_error *err)
{
    if (folder != NULL)
        return zfile_read_in(folder, name, MANIFEST_BYTES_MAX, out, err);
    memset(out, 0, sizeof *out);
    if ((out->path = strdup(name)) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    return zfile_read_named(name, MANIFEST_BYTES_MAX, &out->bytes, &out->size, err);
}

static ckpt_code refuse(const json_value *root, const char *path, ckpt_error *err)
{
    if (json_member(root, "predicateType") != NULL || json_member(root, "payloadType") != NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is a certificate, not a manifest: `ckpt-verify "
                         "certificate FILE PATH` checks against it", path);
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not a manifest: expected root, main and tensors",
                     path);
}

/* Read the members about config.json and the files beside the weights. */
static ckpt_code read_beside(const json_value *root, const char *path, ckpt_manifest *out,
                             ckpt_error *err)
{
    const json_value *config = json_member(root, "config");
    const json_value *companions = json_member(root, "companions");

    out->has_config = config != NULL;
    out->has_companions = companions != NULL;
    if (config != NULL && !json_is_null(config) &&
        config_meaning_read_record(config, &out->config, err) != CKPT_OK)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': its record of config.json: %s", path,
                         err->text);
    return companions == NULL ? CKPT_OK
                              : file_record_read(companions, path, &out->companions, err);
}

ckpt_code manifest_read(const ckpt_folder *folder, const char *name, ckpt_manifest *out,
                        ckpt_error *err)
{
    json_document *document = NULL;
    const json_value *tensors;
    const char *root;
    const char *main_root;
    folder_text text;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if ((code = read_text(folder, name, &text, err)) != CKPT_OK ||
        (code = json_parse(text.bytes, text.size, text.path, &document, err)) != CKPT_OK)
        goto out;
    tensors = json_member(json_root(document), "tensors");
    root = json_string(json_member(json_root(document), "root"));
    main_root = json_string(json_member(json_root(document), "main"));
    if (!json_is_array(tensors) || root == NULL || main_root == NULL) {
        code = refuse(json_root(document), text.path, err);
        goto out;
    }
    if ((code = read_beside(json_root(document), text.path, out, err)) != CKPT_OK ||
        (code = manifest_read_tensors(tensors, text.path, out, err)) != CKPT_OK ||
        (code = manifest_check_root(out, 0, root, text.path, err)) != CKPT_OK ||
        (code = manifest_check_root(out, 1, main_root, text.path, err)) != CKPT_OK)
        goto out;
    memcpy(out->root, root, sizeof out->root);
    memcpy(out->main_root, main_root, sizeof out->main_root);
out:
    if (code != CKPT_OK)
        manifest_release(out);
    json_free(document);
    folder_text_release(&text);
    return code;
}

void manifest_release(ckpt_manifest *manifest)
{
    ckpt_digest_free(manifest->digest);
    catalog_free(manifest->catalog);
    config_meaning_release(&manifest->config);
    certificate_checkpoint_release(&manifest->companions);
    memset(manifest, 0, sizeof *manifest);
}
