/* ckpt-delta.json, read and written. */
#include "delta_side.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "delta_names.h"
#include "delta_structure.h"
#include "libckpt/buffer.h"
#include "libckpt/sha256.h"
#include "libckpt/size.h"
#include "libckpt/text.h"

#define SCHEMA "ckpt-delta/1"

enum { SIDE_BYTES_MAX = 1 << 28 };

/* ---- reading ---- */

typedef struct {
    ckpt_delta *delta;
    const char *path;
    ckpt_error *err;
} side_reader;

/* `name`: NULL if it has none. */
static ckpt_code bad(const side_reader *r, const char *what, const char *name)
{
    if (name == NULL)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': a %s has no name, which all have in " SCHEMA,
                         r->path, what);
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': %s '%s' is not as " SCHEMA " has it", r->path,
                     what, name);
}

static int take_hex(const json_value *object, const char *key, size_t digits, char *out)
{
    const char *text = json_string(json_member(object, key));

    if (text == NULL || strlen(text) != digits || strspn(text, "0123456789abcdef") != digits)
        return 0;
    memcpy(out, text, digits + 1);
    return 1;
}

/* Read both roots; both are null if the values have no digest. */
static int take_roots(const json_value *object, delta_roots *out)
{
    if (json_is_null(json_member(object, "root")) && json_is_null(json_member(object, "main")))
        return 1;
    return take_hex(object, "root", CKPT_ROOT_HEX - 1, out->all) &&
           take_hex(object, "main", CKPT_ROOT_HEX - 1, out->main);
}

static int take_shape(const json_value *shape, delta_tensor *t)
{
    uint64_t elements = 1;

    t->rank = 0;
    for (const json_value *v = json_first(shape); v != NULL; v = json_next(v))
        if (t->rank == CKPT_RANK_MAX || !json_u64(v, &t->shape[t->rank]) ||
            !size_mul(elements, t->shape[t->rank++], &elements))
            return 0;
    return json_is_array(shape) && size_mul(elements, ckpt_dtype_bits(t->dtype), &elements) &&
           t->bytes == elements / 8;
}

/* Values in the tensor. A delta of an older ckpt does not tell them: U8 and I32 are pairs or more
 * of 4-bit codes where more elements changed than it has of its dtype. */
static int take_elements(const json_value *told, delta_tensor *t)
{
    const uint64_t codes = t->bytes * 2;

    t->elements = t->bytes * 8 / ckpt_dtype_bits(t->dtype);
    if (told == NULL && t->changed_elements > t->elements)
        t->elements = codes;
    return (told == NULL || json_u64(told, &t->elements)) && t->elements <= codes &&
           t->changed_elements <= t->elements && t->changed_bytes <= t->bytes;
}

static ckpt_code take_tensor(const side_reader *r, const json_value *v)
{
    const char *name = json_string(json_member(v, "name"));
    const char *dtype = json_string(json_member(v, "dtype"));
    const int64_t i = name == NULL ? -1 : ckpt_catalog_find(r->delta->store->catalog, name);
    delta_tensor *t = i < 0 ? NULL : &r->delta->tensors[i];
    char before[CHECKSUM_HEX];

    if (name != NULL && t == NULL)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' tells of tensor '%s', which its data files "
                         "do not have", r->path, name);
    if (t == NULL || t->is_told || dtype == NULL)
        return bad(r, "tensor", name);
    t->dtype = ckpt_dtype_find(dtype);
    if (t->dtype == CKPT_NONE || !json_u64(json_member(v, "bytes"), &t->bytes) ||
        !take_shape(json_member(v, "shape"), t) ||
        !take_hex(v, "before", CKPT_DIGEST_HEX - 1, before) ||
        !take_hex(v, "after", CKPT_DIGEST_HEX - 1, t->after_xxh3) ||
        !json_u64(json_member(v, "changed_bytes"), &t->changed_bytes) ||
        !json_u64(json_member(v, "changed_elements"), &t->changed_elements) ||
        !take_elements(json_member(v, "elements"), t))
        return bad(r, "tensor", name);
    if (t->before[0] != '\0' && strcmp(t->before, before) != 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': tensor '%s' was %s, but its data file says "
                         "%s", r->path, name, before, t->before);
    memcpy(t->before, before, sizeof before);
    if (strcmp(t->before, t->after_xxh3) == 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': tensor '%s' is the same before and after",
                         r->path, name);
    if (r->delta->checksum == CHECKSUM_XXH3_128 && strcmp(t->after, t->after_xxh3) != 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': tensor '%s' becomes %s, but its data file "
                         "says %s", r->path, name, t->after_xxh3, t->after);
    t->is_told = 1;
    t->has_shape = 1;
    return CKPT_OK;
}

static ckpt_code take_carried(const side_reader *r, const json_value *list)
{
    ckpt_delta *d = r->delta;

    if ((d->files = calloc(json_count(list) + 1, sizeof *d->files)) == NULL)
        return ckpt_fail_memory(r->err, r->path, json_count(list));
    for (const json_value *v = json_first(list); v != NULL; v = json_next(v)) {
        delta_file *f = &d->files[d->file_count++];
        const char *name = json_string(json_member(v, "name"));
        const json_value *as = json_member(v, "as");
        const char *carried = json_string(as);

        if (name == NULL || !delta_name_is_beside(name) ||
            (carried == NULL ? !json_is_null(as)
                             : !text_is_below(carried) || !take_hex(v, "sha256", 64, f->sha256)))
            return bad(r, "file", name);
        f->name = arena_strdup(&d->memory, name, strlen(name));
        f->carried = carried == NULL ? NULL
                                     : arena_strdup(&d->memory, carried, strlen(carried));
        if (f->name == NULL || (carried != NULL && f->carried == NULL))
            return ckpt_fail_memory(r->err, r->path, strlen(name));
    }
    d->has_files = 1;
    return delta_names_check(d, r->err);
}

ckpt_code delta_side_check_hash(const char *path, const char *told, const char *got,
                                ckpt_error *err)
{
    if (strcmp(told, got) == 0)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is damaged: expected SHA-256 %s, got %s", path, told,
                     got);
}

/* Keep the hash of a data file for delta_check_data; 0: it is another file. */
static int keep_hash(ckpt_delta *d, const char *name, const char *told)
{
    for (size_t i = 0; i < d->store->file_count; i++) {
        if (strcmp(d->store->files[i].name, name) == 0) {
            memcpy(d->sha256[i], told, SHA256_HEX);
            return 1;
        }
    }
    return 0;
}

/* Check the hashes of all files but those of data, which are large. */
static ckpt_code check_files(const side_reader *r, const json_value *list)
{
    ckpt_delta *d = r->delta;
    ckpt_code code = CKPT_OK;

    if ((d->sha256 = calloc(d->store->file_count + 1, sizeof *d->sha256)) == NULL)
        return ckpt_fail_memory(r->err, r->path, d->store->file_count);
    for (const json_value *v = json_first(list); v != NULL && code == CKPT_OK; v = json_next(v)) {
        const char *name = json_string(json_member(v, "name"));
        char expected[SHA256_HEX];
        char got[SHA256_HEX];
        char *path;

        if (name == NULL || !text_is_below(name) || !take_hex(v, "sha256", 64, expected))
            return bad(r, "file", name);
        if (keep_hash(d, name, expected))
            continue;
        if ((path = folder_path_of(d->place.folder, name)) == NULL)
            return ckpt_fail_memory(r->err, "a path", strlen(name));
        if ((code = sha256_file(path, got, r->err)) == CKPT_OK)
            code = delta_side_check_hash(path, expected, got, r->err);
        free(path);
    }
    return code;
}

static ckpt_code take_side(const side_reader *r, const json_value *root)
{
    ckpt_delta *d = r->delta;
    const char *schema = json_string(json_member(root, "schema"));
    const json_value *total = json_member(root, "total");
    const json_value *tensors = json_member(root, "tensors");
    uint64_t total_count;
    ckpt_code code;

    if (schema == NULL || strcmp(schema, SCHEMA) != 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': schema '%s' is not known, expected '" SCHEMA
                         "'", r->path, schema == NULL ? "" : schema);
    if (!take_roots(json_member(root, "base"), &d->base) ||
        !take_roots(json_member(root, "result"), &d->result))
        return bad(r, "member", "base or result");
    if (!json_u64(json_member(total, "tensors"), &total_count) ||
        !json_u64(json_member(total, "bytes"), &d->total_bytes) ||
        !json_u64(json_member(total, "elements"), &d->element_count))
        return bad(r, "member", "total");
    d->total_count = (size_t)total_count;
    if (!json_is_array(json_member(root, "files")) || !json_is_array(json_member(root, "carried")))
        return bad(r, "member", "files or carried");
    for (const json_value *v = json_first(tensors); v != NULL; v = json_next(v))
        if ((code = take_tensor(r, v)) != CKPT_OK)
            return code;
    for (size_t i = 0; i < d->count; i++)
        if (!d->tensors[i].is_told)
            return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' does not tell of tensor '%s'", r->path,
                             d->tensors[i].name);
    if ((code = take_carried(r, json_member(root, "carried"))) != CKPT_OK ||
        (code = delta_structure_read(d, json_member(root, "structure"), r->err)) != CKPT_OK)
        return code;
    return check_files(r, json_member(root, "files"));
}

ckpt_code delta_side_read(ckpt_delta *delta, ckpt_error *err)
{
    folder_text text;
    json_document *document = NULL;
    ckpt_code code;

    if (!folder_has(delta->place.folder, DELTA_SIDE_FILE))
        return CKPT_OK;
    code = folder_read_all(delta->place.folder, DELTA_SIDE_FILE, SIDE_BYTES_MAX, &text, err);
    if (code == CKPT_OK)
        code = json_parse(text.bytes, text.size, text.path, &document, err);
    if (code == CKPT_OK)
        code = take_side(&(side_reader){ delta, text.path, err }, json_root(document));
    delta->has_side = code == CKPT_OK;
    json_free(document);
    folder_text_release(&text);
    return code;
}

/* ---- writing ---- */

void delta_roots_put(json_writer *w, const char *key, const delta_roots *roots)
{
    json_member_object(w, key);
    json_member_string(w, "root", roots->all[0] == '\0' ? NULL : roots->all);
    json_member_string(w, "main", roots->main[0] == '\0' ? NULL : roots->main);
    json_put_object_end(w);
}

delta_root_verdict delta_roots_judge(const delta_roots *told, const delta_roots *got)
{
    return told->all[0] == '\0' || got->all[0] == '\0' ? DELTA_ROOT_UNKNOWN
           : strcmp(told->all, got->all) == 0           ? DELTA_ROOT_RIGHT
                                                        : DELTA_ROOT_WRONG;
}

ckpt_code delta_roots_check(const char *path, const char *whose, const delta_roots *told,
                            const delta_roots *got, ckpt_error *err)
{
    const delta_root_verdict verdict = delta_roots_judge(told, got);
    const int is_main = verdict == DELTA_ROOT_RIGHT;

    if (verdict == DELTA_ROOT_UNKNOWN || (is_main && strcmp(told->main, got->main) == 0))
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' tells a wrong %sroot of its %s: expected %s, got %s",
                     path, is_main ? "main " : "", whose, is_main ? got->main : got->all,
                     is_main ? told->main : told->all);
}

static ckpt_code find_hash(const char *directory, const delta_side *side, const char *name,
                           char out[SHA256_HEX], ckpt_error *err)
{
    char *path;
    ckpt_code code;

    for (size_t i = 0; i < side->hash_count; i++) {
        if (strcmp(side->hashes[i].name, name) == 0) {
            memcpy(out, side->hashes[i].sha256, SHA256_HEX);
            return CKPT_OK;
        }
    }
    if ((path = file_join(directory, name)) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(directory));
    code = sha256_file(path, out, err);
    free(path);
    return code;
}

static ckpt_code put_files(json_writer *w, const char *directory, const delta_side *side,
                           ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    json_member_array(w, "files");
    for (size_t i = 0; i < side->files->count && code == CKPT_OK; i++) {
        const char *name = side->files->names[i];
        char hex[SHA256_HEX];

        if ((code = find_hash(directory, side, name, hex, err)) != CKPT_OK)
            break;
        json_put_object(w);
        json_member_string(w, "name", name);
        json_member_string(w, "sha256", hex);
        json_put_object_end(w);
    }
    json_put_array_end(w);
    return code;
}

static void put_carried(json_writer *w, const delta_side *side)
{
    json_member_array(w, "carried");
    for (size_t i = 0; i < side->carried_count; i++) {
        const delta_file *f = &side->carried[i];

        json_put_object(w);
        json_member_string(w, "name", f->name);
        json_member_string(w, "as", f->carried);
        json_member_string(w, "sha256", f->carried == NULL ? NULL : f->sha256);
        json_put_object_end(w);
    }
    json_put_array_end(w);
}

static void put_tensors(json_writer *w, const delta_side *side)
{
    json_member_array(w, "tensors");
    for (size_t i = 0; i < side->tensor_count; i++) {
        const delta_side_tensor *t = &side->tensors[i];

        json_put_object(w);
        json_member_string(w, "name", t->tensor->name);
        json_member_string(w, "dtype", ckpt_dtype_name(t->tensor->dtype));
        catalog_put_shape(w, t->tensor);
        json_member_u64(w, "bytes", ckpt_part_bytes(t->tensor, CKPT_DATA));
        json_member_string(w, "before", t->before);
        json_member_string(w, "after", t->after);
        json_member_u64(w, "elements", t->elements);
        json_member_u64(w, "changed_bytes", t->changed_bytes);
        json_member_u64(w, "changed_elements", t->changed_elements);
        json_put_object_end(w);
    }
    json_put_array_end(w);
}

ckpt_code delta_side_write(const char *directory, const delta_side *side, ckpt_error *err)
{
    char *path = file_join(directory, DELTA_SIDE_FILE);
    byte_buffer text = { .bytes = NULL };
    json_writer w;
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(directory));
    json_writer_begin(&w, byte_buffer_write, &text, 1);
    json_put_object(&w);
    json_member_string(&w, "schema", SCHEMA);
    json_member_string(&w, "writer", CKPT_VERSION);
    if (side->quantised_by != NULL)
        json_member_string(&w, "quantize", side->quantised_by);
    delta_roots_put(&w, "base", side->base);
    delta_roots_put(&w, "result", side->result);
    json_member_object(&w, "total");
    json_member_u64(&w, "tensors", side->total_count);
    json_member_u64(&w, "bytes", side->total_bytes);
    json_member_u64(&w, "elements", side->element_count);
    json_put_object_end(&w);
    code = put_files(&w, directory, side, err);
    put_carried(&w, side);
    if (side->structure != NULL)
        delta_structure_put(&w, side->structure);
    put_tensors(&w, side);
    json_put_object_end(&w);
    byte_buffer_add(&text, "\n", 1);
    if (code == CKPT_OK && (!json_writer_end(&w) || text.failed))
        code = ckpt_fail_memory(err, DELTA_SIDE_FILE, text.used);
    if (code == CKPT_OK)
        code = file_write_all(path, text.bytes, text.used, err);
    free(text.bytes);
    free(path);
    return code;
}
