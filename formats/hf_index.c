/* Reads the index of a Hugging Face directory, and compares it with the files that it names. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "hf_private.h"
#include "libckpt/json_scan.h"
#include "libckpt/memory.h"
#include "libckpt/text.h"
#include "notes.h"
#include "overlay.h"

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
                             "tensor '%s' is in '%s', but '%s' does not map it to that file",
                             t->name, file, r->path);
        code = note_add(&r->out->notes, r->err, "tensor '%s' is not in the index", t->name);
        if (code != CKPT_OK)
            return code;
    }
    return CKPT_OK;
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
    const ckpt_code code = folder_read_all(r->out->store->folder, HF_INDEX_FILE,
                                           HF_INDEX_BYTES_MAX, &text, r->err);

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

ckpt_code hf_read_index(ckpt_checkpoint *out, ckpt_error *err)
{
    index_reader r = { .out = out, .err = err };
    ckpt_code code;

    arena_init(&r.names);
    table_init(&r.files);
    out->store->keeps_repeats = 1;
    if ((code = read_text(&r)) != CKPT_OK || (code = refuse_delta(&r)) != CKPT_OK ||
        (code = add_files(&r)) != CKPT_OK ||
        (code = check_files(&r)) != CKPT_OK || (code = hf_read_files(out, err)) != CKPT_OK ||
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
