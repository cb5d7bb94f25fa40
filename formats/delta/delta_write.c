/* Writes data files from frames, and the index. */
#include "delta_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "delta_frames.h"
#include "delta_side.h"
#include "delta_skyrl.h"
#include "delta_structure.h"
#include "formats/hf.h"
#include "formats/safetensors.h"
#include "libckpt/buffer.h"
#include "libckpt/output.h"

enum { KEY_BYTES = MAP_NAME_BYTES + 16 };

static int compare_entries(const void *left, const void *right)
{
    return strcmp(((const delta_entry *)left)->tensor->name,
                  ((const delta_entry *)right)->tensor->name);
}

/* ---- which entry goes into which file ---- */

/* Fill files greedily in the order of names; files[i]: number of the file of entry i. */
static uint32_t divide(const delta_content *c, uint32_t *files)
{
    uint64_t bytes = 0;
    uint32_t count = c->count > 0;

    for (size_t i = 0; i < c->count; i++) {
        const uint64_t more = c->entries[i].packed_bytes;

        if (bytes > 0 && (more > c->file_bytes_max || bytes > c->file_bytes_max - more)) {
            count++;
            bytes = 0;
        }
        bytes += more;
        files[i] = count - 1;
    }
    return count;
}

/* Put a member for each tensor of a file: its checksum after or before the change. */
static void put_members(json_writer *w, const delta_content *c, const uint32_t *files,
                        uint32_t file, int is_before)
{
    for (size_t i = 0; i < c->count; i++) {
        char key[KEY_BYTES];

        if (files[i] != file || (is_before && c->entries[i].before == NULL))
            continue;
        snprintf(key, sizeof key, "%s%s", is_before ? DELTA_BEFORE_KEY : "",
                 c->entries[i].tensor->name);
        json_member_string(w, key, is_before ? c->entries[i].before : c->entries[i].after);
    }
}

/* "__metadata__" of a file: checksums before the change (ours), and after it (for all readers). */
static ckpt_code put_sums(const delta_content *c, const uint32_t *files, uint32_t file, char **out,
                          ckpt_error *err)
{
    byte_buffer text = { .bytes = NULL };
    json_writer w;

    json_writer_begin(&w, byte_buffer_write, &text, 0);
    json_put_object(&w);
    put_members(&w, c, files, file, 1);
    put_members(&w, c, files, file, 0);
    json_put_object_end(&w);
    byte_buffer_add(&text, "", 1);
    if (!json_writer_end(&w) || text.failed) {
        free(text.bytes);
        return ckpt_fail_memory(err, "checksums", c->count);
    }
    *out = text.bytes;
    return CKPT_OK;
}

static ckpt_code lay_out(const delta_content *c, const uint32_t *files, uint32_t file_count,
                         ckpt_store *store, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (uint32_t f = 0; f < file_count && code == CKPT_OK; f++) {
        const int is_skyrl = c->container == DELTA_FOR_SKYRL;
        char name[FORMAT_NAME_BYTES];
        uint32_t number;

        if (is_skyrl)
            snprintf(name, sizeof name, "delta-rank00000-file%06u" SAFETENSORS_SUFFIX, f);
        else
            snprintf(name, sizeof name, "model-%05u-of-%05u" SAFETENSORS_SUFFIX, f, file_count);
        if ((code = store_add_file(store, name, &number, err)) == CKPT_OK && !is_skyrl)
            code = put_sums(c, files, f, &store->files[number].metadata, err);
    }
    for (size_t i = 0; i < c->count && code == CKPT_OK; i++) {
        ckpt_tensor t = { .name = c->entries[i].tensor->name, .dtype = CKPT_U8,
                          .stored_dtype = CKPT_U8, .rank = 1, .file = files[i] };

        t.shape[0] = c->entries[i].packed_bytes;
        code = catalog_add(store->catalog, &t, err);
    }
    return code == CKPT_OK ? safetensors_lay_out(store, NULL, err) : code;
}

/* ---- the index ---- */

/* Separators as in the JSON of existing writers: ", " and ": ". */
static void put_pair(byte_buffer *out, const char *separator, const char *key, const char *value)
{
    json_writer w;

    byte_buffer_add(out, separator, strlen(separator));
    json_writer_begin(&w, byte_buffer_write, out, 0);
    json_put_string(&w, key);
    byte_buffer_add(out, ": ", 2);
    json_writer_begin(&w, byte_buffer_write, out, 0);
    json_put_string(&w, value);
}

static ckpt_code write_index(const char *directory, const delta_content *c,
                             const ckpt_store *store, ckpt_error *err)
{
    static const char begin[] = "{\"metadata\": {";
    static const char middle[] = "}, \"weight_map\": {";
    byte_buffer text = { .bytes = NULL };
    char *path = file_join(directory, HF_INDEX_FILE);
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(directory));
    byte_buffer_add(&text, begin, sizeof begin - 1);
    put_pair(&text, "", "version", c->version);
    put_pair(&text, ", ", "base_version", c->base_version);
    put_pair(&text, ", ", "delta_encoding", c->structure != NULL
                                                ? "xor" DELTA_STRUCTURAL_SUFFIX
                                                : delta_encoding_name(c->encoding));
    put_pair(&text, ", ", "compression_format", "zstd");
    put_pair(&text, ", ", "checksum_format", checksum_name(c->checksum));
    byte_buffer_add(&text, middle, sizeof middle - 1);
    for (size_t i = 0; i < c->count; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(store->catalog, i);

        put_pair(&text, i == 0 ? "" : ", ", t->name, store->files[t->file].name);
    }
    byte_buffer_add(&text, "}}", 2);
    code = text.failed ? ckpt_fail_memory(err, HF_INDEX_FILE, text.used)
                       : file_write_all(path, text.bytes, text.used, err);
    free(text.bytes);
    free(path);
    return code;
}

/* ---- the side file ---- */

static ckpt_code list_files(const delta_content *c, const ckpt_store *store, file_list *out,
                            ckpt_error *err)
{
    const int is_skyrl = c->container == DELTA_FOR_SKYRL;
    ckpt_code code = file_list_add(out, is_skyrl ? DELTA_SKYRL_FILE : HF_INDEX_FILE, err);

    for (size_t i = 0; i < store->file_count && code == CKPT_OK; i++)
        code = file_list_add(out, store->files[i].name, err);
    if (code == CKPT_OK && c->structure != NULL)
        code = delta_structure_names(c->structure, out, err);
    return code;
}

static ckpt_code write_side(const char *directory, const delta_content *c,
                            const ckpt_store *store, const delta_file_hash *hashes,
                            ckpt_error *err)
{
    file_list files = { NULL, 0 };
    delta_side_tensor *tensors = calloc(c->count + 1, sizeof *tensors);
    const delta_side side = {
        .quantised_by = c->quantised_by,
        .base = &c->base, .result = &c->result, .total_count = c->total_count,
        .total_bytes = c->total_bytes, .element_count = c->element_count, .files = &files,
        .hashes = hashes, .hash_count = store->file_count,
        .carried = c->carried, .carried_count = c->carried_count, .tensors = tensors,
        .tensor_count = c->count, .structure = c->structure,
    };
    ckpt_code code;

    if (tensors == NULL)
        return ckpt_fail_memory(err, DELTA_SIDE_FILE, c->count);
    for (size_t i = 0; i < c->count; i++) {
        const delta_entry *e = &c->entries[i];

        tensors[i].tensor = e->tensor;
        snprintf(tensors[i].before, sizeof tensors[i].before, "%s", e->before);
        snprintf(tensors[i].after, sizeof tensors[i].after, "%s", e->after_xxh3);
        tensors[i].elements = e->elements;
        tensors[i].changed_bytes = e->changed_bytes;
        tensors[i].changed_elements = e->changed_elements;
    }
    if ((code = list_files(c, store, &files, err)) == CKPT_OK)
        code = delta_side_write(directory, &side, err);
    file_list_free(&files);
    free(tensors);
    return code;
}

ckpt_code delta_write(const char *directory, delta_content *c, ckpt_error *err)
{
    uint32_t *files = calloc(c->count + 1, sizeof *files);
    ckpt_store *store = store_create(directory);
    delta_file_hash *hashes = NULL;
    ckpt_code code;

    if (files == NULL || store == NULL) {
        code = ckpt_fail_memory(err, "a delta", c->count);
        goto out;
    }
    if (c->count > 0)
        qsort(c->entries, c->count, sizeof *c->entries, compare_entries);
    if (c->container == DELTA_FOR_SKYRL && (code = delta_skyrl_check(c, err)) != CKPT_OK)
        goto out;
    if ((code = lay_out(c, files, divide(c, files), store, err)) != CKPT_OK)
        goto out;
    if ((hashes = calloc(store->file_count + 1, sizeof *hashes)) == NULL) {
        code = ckpt_fail_memory(err, "hashes", store->file_count);
        goto out;
    }
    if ((code = output_make_files(store, err)) == CKPT_OK &&
        (code = delta_frames_write(c, store, hashes, err)) == CKPT_OK &&
        (code = store_close_files(store, err)) == CKPT_OK &&
        (code = c->container == DELTA_FOR_SKYRL ? delta_skyrl_write(directory, c, store, err)
                                                : write_index(directory, c, store, err)) ==
            CKPT_OK && c->with_side)
        code = write_side(directory, c, store, hashes, err);
out:
    free(hashes);
    store_free(store);
    free(files);
    return code;
}
