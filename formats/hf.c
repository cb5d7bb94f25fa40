/* Reads a Hugging Face directory. */
#include "hf.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/json_scan.h"
#include "libckpt/memory.h"
#include "notes.h"
#include "overlay.h"
#include "safetensors.h"
#include "libckpt/text.h"

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

typedef struct {
    ckpt_checkpoint *out;
    char *path;
    char *text;
    size_t text_bytes;
    arena names;               /* of the files, until the store has them */
    table files;               /* name -> number in the store */
    uint8_t *listed;           /* by tensor of the catalog */
    overlay overlay;
    ckpt_error *err;
} index_reader;

/* An entry of the index: the tensor, and the file that should contain it. */
typedef ckpt_code index_entry_fn(index_reader *r, const char *name, const char *file);

static ckpt_code bad_entry(const index_reader *r, const char *name)
{
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': tensor '%s' is not mapped to a file name",
                     r->path, name);
}

/* The members of the object "weight_map", after its opening bracket. */
static ckpt_code walk_entries(index_reader *r, json_scanner *scan, index_entry_fn *visit)
{
    char name[MAP_NAME_BYTES];
    char file[PATH_MAX];
    json_token token;
    ckpt_code code;

    while ((code = json_scan_next(scan, &token, r->err)) == CKPT_OK &&
           token.kind == JSON_SCAN_KEY) {
        const size_t length = json_token_decode(r->text, &token, NULL);

        if (length >= sizeof name)
            return ckpt_fail(r->err, CKPT_E_FORMAT,
                             "'%s': the name of a tensor has %zu bytes, expected at most %d",
                             r->path, length, MAP_NAME_BYTES - 1);
        json_token_decode(r->text, &token, name);
        if ((code = json_scan_next(scan, &token, r->err)) != CKPT_OK)
            return code;
        if (token.kind != JSON_SCAN_STRING ||
            json_token_decode(r->text, &token, NULL) >= sizeof file)
            return bad_entry(r, name);
        json_token_decode(r->text, &token, file);
        if ((code = visit(r, name, file)) != CKPT_OK)
            return code;
    }
    return code;
}

/* Every entry of the index, in its order. The text has passed json_check. */
static ckpt_code walk_index(index_reader *r, index_entry_fn *visit)
{
    json_scanner scan;
    json_token token;
    json_token value;
    ckpt_code code;

    json_scan_begin(&scan, r->text, r->text_bytes, r->path);
    code = json_scan_next(&scan, &token, r->err);
    if (code == CKPT_OK && token.kind == JSON_SCAN_OBJECT)
        code = json_scan_next(&scan, &token, r->err);
    for (; code == CKPT_OK && token.kind == JSON_SCAN_KEY;
         code = json_scan_next(&scan, &token, r->err)) {
        if (!json_token_equals(r->text, &token, "weight_map")) {
            if ((code = json_scan_value(&scan, &value, r->err)) != CKPT_OK)
                return code;
            continue;
        }
        if ((code = json_scan_next(&scan, &value, r->err)) != CKPT_OK)
            return code;
        if (value.kind == JSON_SCAN_OBJECT)
            return walk_entries(r, &scan, visit);
        break;
    }
    return code != CKPT_OK ? code : ckpt_fail(r->err, CKPT_E_FORMAT,
                                              "'%s' has no object 'weight_map'", r->path);
}

/* ---- the files of the index ---- */

static ckpt_code note_file(index_reader *r, const char *name, const char *file)
{
    uint64_t number;
    const char *copy;

    if (!text_is_below(file))
        return bad_entry(r, name);
    if (table_find(&r->files, file, &number))
        return CKPT_OK;
    if ((copy = arena_strdup(&r->names, file, strlen(file))) == NULL ||
        table_add(&r->files, copy, r->files.count) == TABLE_NO_MEMORY)
        return ckpt_fail_memory(r->err, r->path, strlen(file));
    return CKPT_OK;
}

/* The files that the index names, sorted, so that their numbers do not depend on its order. */
static ckpt_code add_files(index_reader *r)
{
    const char **names = NULL;
    size_t count;
    ckpt_code code;

    if ((code = walk_index(r, note_file)) != CKPT_OK)
        return code;
    count = r->files.count;
    if (!memory_has((count + 1) * sizeof *names) ||
        (names = calloc(count + 1, sizeof *names)) == NULL)
        return ckpt_fail_memory(r->err, r->path, count * sizeof *names);
    table_keys(&r->files, names);
    table_release(&r->files);
    table_init(&r->files);
    qsort(names, count, sizeof *names, text_order);
    for (size_t i = 0; i < count && code == CKPT_OK; i++) {
        uint32_t number;

        code = store_add_file(r->out->store, names[i], &number, r->err);
        if (code == CKPT_OK && table_add(&r->files, names[i], number) != TABLE_ADDED)
            code = ckpt_fail_memory(r->err, r->path, count);
    }
    free(names);
    return code;
}

/* Remove files that the index names from the unread ones. Both lists are sorted. */
static ckpt_code forget_unread(const ckpt_store *store, file_list *unread, ckpt_error *err)
{
    file_list kept = { NULL, 0 };
    ckpt_code code = CKPT_OK;
    size_t file = 0;

    for (size_t i = 0; i < unread->count && code == CKPT_OK; i++) {
        while (file < store->file_count && strcmp(store->files[file].name, unread->names[i]) < 0)
            file++;
        if (file == store->file_count || strcmp(store->files[file].name, unread->names[i]) != 0)
            code = file_list_add(&kept, unread->names[i], err);
    }
    file_list_free(unread);
    *unread = kept;
    return code;
}

/* ---- the entries of the index ---- */

/* Check that the entry names a tensor of that file. */
static ckpt_code check_entry(index_reader *r, const char *name, const char *file)
{
    const ckpt_catalog *catalog = r->out->store->catalog;
    const int64_t i = ckpt_catalog_find(catalog, name);
    uint64_t number = 0;

    table_find(&r->files, file, &number);
    if (i >= 0 && ckpt_catalog_at(catalog, (size_t)i)->file == number) {
        r->listed[i] = 1;
        return CKPT_OK;
    }
    if (!r->out->options.lenient)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "stale index entry: '%s' maps '%s' to '%s', which does not contain it",
                         r->path, name, file);
    return note_add(&r->out->notes, r->err, "stale index entry '%s'", name);
}

static ckpt_code check_entries(index_reader *r)
{
    const size_t count = ckpt_catalog_count(r->out->store->catalog);

    if (!memory_has(count + 1) || (r->listed = calloc(count + 1, 1)) == NULL)
        return ckpt_fail_memory(r->err, r->path, count);
    return walk_index(r, check_entry);
}

static ckpt_code choose_entry(index_reader *r, const char *name, const char *file)
{
    uint64_t number = 0;

    table_find(&r->files, file, &number);
    overlay_choose(&r->overlay, name, (uint32_t)number);
    return CKPT_OK;
}

/* If several files have a tensor, keep the one that the index names. */
static ckpt_code choose_tensors(index_reader *r)
{
    ckpt_code code = overlay_begin(&r->overlay, r->out->store, &r->out->notes, r->err);

    if (code == CKPT_OK && r->out->store->repeat_count > 0)
        code = walk_index(r, choose_entry);
    if (code == CKPT_OK)
        code = overlay_end(&r->overlay, r->err);
    overlay_release(&r->overlay);
    return code;
}

/* Check that every tensor has an entry. */
static ckpt_code check_tensors(index_reader *r)
{
    const ckpt_catalog *catalog = r->out->store->catalog;

    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);
        const char *file = r->out->store->files[t->file].name;
        ckpt_code code;

        if (r->listed[i])
            continue;
        if (!r->out->options.lenient)
            return ckpt_fail(r->err, CKPT_E_FORMAT,
                             "tensor '%s' is in '%s', but '%s' does not map it to that "
                             "file", t->name,
                             file, r->path);
        code = note_add(&r->out->notes, r->err, "tensor '%s' is not in the index", t->name);
        if (code != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

/* ---- the files ---- */

/* 1 if the boxes of all tensors start at offset 0 of the tensor. */
static int starts_at_zero(const json_value *info)
{
    uint64_t offset = 0;

    for (const json_value *v = json_first(info); v != NULL; v = json_next(v)) {
        const json_value *offsets = json_member(v, "saved_offsets");

        if (!json_is_array(offsets))
            return 0;
        for (const json_value *o = json_first(offsets); o != NULL; o = json_next(o))
            if (!json_u64(o, &offset) || offset != 0)
                return 0;
    }
    return json_is_object(info);
}

/*
 * torch's HuggingFaceStorageWriter writes each rank's piece of a tensor and its offset, but not
 * the size of the tensor, so a missing file of a rank could not be detected. Output from a single
 * rank has the same marker and an index of whole tensors.
 */
static ckpt_code check_whole(const ckpt_checkpoint *out, uint32_t i, ckpt_error *err)
{
    const store_file *f = &out->store->files[i];
    json_document *metadata = NULL;
    json_document *info = NULL;
    const char *text;
    ckpt_code code;
    int is_whole;

    if (f->metadata == NULL || strstr(f->metadata, "DCP_SHARDING_INFO") == NULL)
        return CKPT_OK;
    if ((code = json_parse(f->metadata, strlen(f->metadata), f->name, &metadata, err)) != CKPT_OK)
        return code;
    text = json_string(json_member(json_root(metadata), "DCP_SHARDING_INFO"));
    is_whole = text == NULL ||
               (out->has_index && json_parse(text, strlen(text), f->name, &info, NULL) == CKPT_OK &&
                starts_at_zero(json_root(info)));
    json_free(info);
    json_free(metadata);
    if (is_whole)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT,
                     "'%s' contains slices of tensors, as saved by torch's "
                     "HuggingFaceStorageWriter from several ranks (DCP_SHARDING_INFO), without the "
                     "full shapes: consolidate them with torch (enable_consolidation=True, or "
                     "consolidate_safetensors_files)",
                     file_path(f->file));
}

/* 1 for "model-00002-of-00005.safetensors". */
static int is_in_series(const char *name, unsigned *count)
{
    int end = 0;

    return sscanf(name, "model-%*5u-of-%5u" SAFETENSORS_SUFFIX "%n", count, &end) == 1 &&
           end > 0 && name[end] == '\0';
}

/* Without an index only the names tell that files are missing. */
static ckpt_code note_series(ckpt_checkpoint *out, ckpt_error *err)
{
    const ckpt_store *store = out->store;
    char missing[FORMAT_NAME_BYTES] = "";
    unsigned total = 0;
    unsigned seen = 0;

    for (size_t i = 0; i < store->file_count; i++) {
        unsigned count;

        if (!is_in_series(store->files[i].name, &count))
            continue;
        total = total == 0 ? count : total;
        seen += count == total;
    }
    if (seen == 0 || seen >= total)
        return CKPT_OK;
    for (unsigned i = 0; i < total && missing[0] == '\0'; i++) {
        hf_file_name(i, total, missing);
        if (folder_has(store->folder, missing))
            missing[0] = '\0';
    }
    return note_add(&out->notes, err, "this folder has %u of %s, '%s' is missing: the tensors of "
                    "the others are not included", seen,
                    text_count(total, "file", "files").text, missing);
}

static ckpt_code read_files(ckpt_checkpoint *out, ckpt_error *err)
{
    ckpt_code code = out->place.name == NULL && !out->has_index ? note_series(out, err) : CKPT_OK;

    for (uint32_t i = 0; i < out->store->file_count && code == CKPT_OK; i++)
        if ((code = safetensors_read(out->store, i, err)) == CKPT_OK)
            code = check_whole(out, i, err);
    return code;
}

/* Report all missing files in one line, for unfinished downloads. */
static ckpt_code check_files(const index_reader *r)
{
    const ckpt_store *store = r->out->store;
    const char *first = NULL;
    size_t missing = 0;

    for (size_t i = 0; i < store->file_count; i++)
        if (!folder_has(store->folder, store->files[i].name) && missing++ == 0)
            first = store->files[i].name;
    if (missing == 0)
        return CKPT_OK;
    return ckpt_fail(r->err, CKPT_E_IO, "'%s' names %s %s; the first is '%s'", r->path,
                     text_count(store->file_count, "file, of which", "files, of which").text,
                     text_count(missing, "does not exist", "do not exist").text, first);
}

/* Read the index and check that it is JSON. The text stays allocated, and charged to the memory
 * limit, until the index is processed. */
static ckpt_code read_text(index_reader *r)
{
    folder_text text;
    json_census census;
    const ckpt_code code = folder_read_all(r->out->store->folder, HF_INDEX_FILE, INDEX_BYTES_MAX,
                                           &text, r->err);

    r->path = text.path;
    r->text = text.bytes;
    r->text_bytes = text.size;
    if (code != CKPT_OK)
        return code;
    if (!memory_take(r->text_bytes)) {
        r->text_bytes = 0;
        return ckpt_fail_memory(r->err, r->path, 0);
    }
    return json_check(r->text, r->text_bytes, r->path, &census, r->err);
}

/* A weight delta has the files of a checkpoint: refuse it with a hint. */
static ckpt_code refuse_delta(const index_reader *r)
{
    json_document *index = NULL;
    ckpt_code code = CKPT_OK;

    if (strstr(r->text, "\"delta_encoding\"") == NULL)
        return CKPT_OK;
    if ((code = json_parse(r->text, r->text_bytes, r->path, &index, r->err)) == CKPT_OK &&
        json_member(json_member(json_root(index), "metadata"), "delta_encoding") != NULL)
        code = ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' is a weight delta, not a checkpoint: "
                         "ckpt-delta inspects it and applies it to its base", r->out->place.path);
    json_free(index);
    return code;
}

static ckpt_code read_index(ckpt_checkpoint *out, ckpt_error *err)
{
    index_reader r = { .out = out, .err = err };
    ckpt_code code;

    arena_init(&r.names);
    table_init(&r.files);
    out->store->keeps_repeats = 1;
    if ((code = read_text(&r)) != CKPT_OK || (code = refuse_delta(&r)) != CKPT_OK ||
        (code = add_files(&r)) != CKPT_OK ||
        (code = check_files(&r)) != CKPT_OK || (code = read_files(out, err)) != CKPT_OK ||
        (code = choose_tensors(&r)) != CKPT_OK || (code = check_entries(&r)) != CKPT_OK)
        goto out;
    if ((code = forget_unread(out->store, &out->unread, err)) == CKPT_OK)
        code = check_tensors(&r);
out:
    table_release(&r.files);
    arena_release(&r.names);
    memory_give(r.text_bytes);
    free(r.listed);
    free(r.text);
    free(r.path);
    return code;
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
        return FILE_UNREAD;         /* read_index adds those that the index names */
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
        folder_read_all(folder, name, INDEX_BYTES_MAX, &text, NULL) == CKPT_OK &&
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
    return out->has_index ? read_index(out, err) : read_files(out, err);
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
    else if (target->with_index || store->file_count > 1)
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
