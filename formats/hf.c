/* Reads a Hugging Face directory or a file of one; writes the index. */
#include "hf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hf_private.h"
#include "libckpt/text.h"
#include "notes.h"
#include "safetensors.h"

static int is_weights(const char *name)
{
    return text_ends_with(name, SAFETENSORS_SUFFIX);
}

/* ---- the directory ---- */

/* Decides only by the names in the folder itself. An unreadable folder is accepted: opening it
 * reports the error. */
static int detect_directory(const folder_place *place)
{
    int found = 0;

    return place->name == NULL &&
           (folder_has(place->folder, HF_INDEX_FILE) ||
            folder_find_name(place->folder, is_weights, &found, NULL) != CKPT_OK || found);
}

typedef struct {
    ckpt_checkpoint *out;
    ckpt_code code;
    ckpt_error *err;
} weights_finder;

/* Add weight files to the store, unless an index does. */
static file_role take_weights(void *context, const char *name)
{
    weights_finder *f = context;
    uint32_t number;

    if (!is_weights(name))
        return FILE_CARRIED;
    if (strchr(name, '/') != NULL || f->out->has_index)
        return FILE_UNREAD;         /* hf_read_index adds those that it names */
    if (f->code == CKPT_OK)
        f->code = store_add_file(f->out->store, name, &number, f->err);
    return FILE_OWN;
}

static ckpt_code sort_files(ckpt_checkpoint *out, ckpt_error *err)
{
    weights_finder finder = { out, CKPT_OK, err };
    const ckpt_code code = checkpoint_take_extras(out, take_weights, &finder, err);

    return code == CKPT_OK ? finder.code : code;
}

/* A delta of SkyRL has no index, but a manifest of payloads. */
static ckpt_code refuse_payloads(const ckpt_checkpoint *out, ckpt_error *err)
{
    static const char name[] = "manifest.json";
    const ckpt_folder *folder = out->place.folder;
    json_document *manifest = NULL;
    folder_text text = { .bytes = NULL };
    int is_delta = 0;

    if (folder_has(folder, name) &&
        folder_read_all(folder, name, HF_INDEX_BYTES_MAX, &text, NULL) == CKPT_OK &&
        strstr(text.bytes, "\"payload_files\"") != NULL &&
        json_parse(text.bytes, text.size, text.path, &manifest, NULL) == CKPT_OK)
        is_delta = json_is_array(json_member(json_root(manifest), "payload_files")) &&
                   json_member(json_root(manifest), "base_version") != NULL;
    json_free(manifest);
    folder_text_release(&text);
    return is_delta ? ckpt_fail(err, CKPT_E_FORMAT, "'%s' is a weight delta, not a checkpoint: "
                                "ckpt-delta inspects it and applies it to its base",
                                out->place.path)
                    : CKPT_OK;
}

static ckpt_code open_directory(ckpt_checkpoint *out, ckpt_error *err)
{
    ckpt_code code;

    if (!out->options.interrupted && folder_has(out->place.folder, HF_CHANGE_JOURNAL))
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is half changed: ckpt-delta apply --in-place "
                         "was interrupted; run the same command again", out->place.path);
    out->has_index = folder_has(out->place.folder, HF_INDEX_FILE);
    if (!out->has_index && (code = refuse_payloads(out, err)) != CKPT_OK)
        return code;
    if ((out->store = store_create_in(out->place.folder)) == NULL)
        return ckpt_fail_memory(err, "a checkpoint", sizeof *out->store);
    if ((code = sort_files(out, err)) != CKPT_OK ||
        (code = checkpoint_read_config(out, err)) != CKPT_OK)
        return code;
    return out->has_index ? hf_read_index(out, err) : hf_read_files(out, err);
}

/* ---- one file ---- */

static int detect_file(const folder_place *place)
{
    return place->name != NULL && is_weights(place->name) &&
           folder_has(place->folder, place->name);
}

static ckpt_code open_file(ckpt_checkpoint *out, ckpt_error *err)
{
    uint32_t number;
    ckpt_code code;

    out->is_partial = 1;
    if ((out->store = store_create_in(out->place.folder)) == NULL)
        return ckpt_fail_memory(err, "a checkpoint", sizeof *out->store);
    if ((code = store_add_file(out->store, out->place.name, &number, err)) != CKPT_OK)
        return code;
    return hf_read_files(out, err);
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

int hf_has_index(const ckpt_store *store, const format_target *target)
{
    return target->with_index || store->file_count > 1;
}

static ckpt_code finish_directory(ckpt_store *store, const format_target *target, ckpt_error *err)
{
    enum { INDEX_INDENT = 2 };
    const size_t count = ckpt_catalog_count(store->catalog);
    const ckpt_tensor **order = calloc(count + 1, sizeof *order);
    char *path = file_join(store->directory, HF_INDEX_FILE);
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
    else if (hf_has_index(store, target))
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
    .ending = SAFETENSORS_SUFFIX,
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
