/*
 * dcp_metadata.c: converts the values of a `.metadata` pickle to flat arrays.
 *
 * Values may be shared in the pickle, so a small file can describe very much data. Therefore the
 * number of items is bounded before they are read: chunks by the entries of storage_data, each of
 * which belongs to one chunk; attributes, ranks and texts by constants.
 */
#include "dcp_metadata.h"

#include <stdlib.h>
#include <string.h>

#include "dcp_names.h"
#include "pickle.h"
#include "libckpt/memory.h"
#include "libckpt/size.h"
#include "libckpt/table.h"
#include "zip_item.h"

enum { TEXT_MAX = 4096, ATTRIBUTES_MAX = 64, PLACE_BYTES = 24 + CKPT_RANK_MAX * 21 };

typedef struct {
    const char *subject;
    const pickle_value *entries;     /* the two dicts */
    const pickle_value *storage;
    dcp_metadata *out;
    uint64_t memory_limit;           /* for out and the tables */
    table keys;                      /* key -> entry */
    table places;                    /* "entry offsets" -> number in storage */
    table paths;                     /* path -> file */
    unsigned char *used;             /* by number in storage */
    char text[TEXT_MAX + 1];
    ckpt_error *err;
} reader;

static ckpt_code fail_key(const reader *r, const char *key, const char *what)
{
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': entry '%s' %s", r->subject, key, what);
}

static ckpt_code fail_memory(const reader *r)
{
    return ckpt_fail(r->err, CKPT_E_MEMORY, "'%s' needs more memory than allowed", r->subject);
}

static ckpt_code allocate(reader *r, uint64_t count, size_t item_bytes, void **out)
{
    arena *memory = &r->out->memory;
    uint64_t size;

    if (!size_mul(count, item_bytes, &size) || size > r->memory_limit)
        return fail_memory(r);
    if ((*out = arena_calloc(memory, (size_t)count, item_bytes)) == NULL)
        return ckpt_fail_memory(r->err, r->subject, size);
    return memory->total_bytes > r->memory_limit ? fail_memory(r) : CKPT_OK;
}

static ckpt_code copy_text(reader *r, const char *text, const char **out)
{
    *out = arena_strdup(&r->out->memory, text, strlen(text));
    if (*out == NULL)
        return ckpt_fail_memory(r->err, r->subject, strlen(text));
    return r->out->memory.total_bytes > r->memory_limit ? fail_memory(r) : CKPT_OK;
}

static ckpt_code add(reader *r, table *to, const char *key, uint64_t value)
{
    return table_add(to, key, value) == TABLE_NO_MEMORY ? fail_memory(r) : CKPT_OK;
}

/* ---- values ---- */

/* Copy a text of bounded length and without NUL into r->text; 0 if it is not one. */
static int take_text(reader *r, const pickle_value *v)
{
    size_t length;
    const char *text = pickle_text(v, &length);

    if (text == NULL || length > TEXT_MAX || memchr(text, '\0', length) != NULL)
        return 0;
    memcpy(r->text, text, length);
    r->text[length] = '\0';
    return 1;
}

/* Find an attribute, or NULL. States with too many attributes are not searched: the search is
 * linear, and many objects could share one. */
static const pickle_value *attribute(const pickle_value *object, const char *name)
{
    return pickle_count(pickle_state(object)) > ATTRIBUTES_MAX ? NULL
                                                               : pickle_attribute(object, name);
}

/* Compare the class by its last component, because classes were moved between modules. */
static int is_class(const pickle_value *object, const char *class_name)
{
    const char *is = pickle_is(object, PICKLE_OBJECT) ? pickle_class(object) : NULL;

    return is != NULL && strcmp(strchr(is, ' ') == NULL ? is : strchr(is, ' '),
                                strchr(class_name, ' ')) == 0;
}

/* torch.Size((a, b)), or a bare tuple or list. *rank is in/out when `fixed`. */
static int take_size(const pickle_value *v, uint32_t *rank, int fixed,
                     uint64_t out[CKPT_RANK_MAX])
{
    if (pickle_class_is(v, DCP_SIZE) && pickle_count(pickle_args(v)) == 1)
        v = pickle_item(pickle_args(v), 0);
    if (!pickle_is(v, PICKLE_TUPLE) && !pickle_is(v, PICKLE_LIST))
        return 0;
    if (pickle_count(v) > CKPT_RANK_MAX || (fixed && pickle_count(v) != *rank))
        return 0;
    *rank = (uint32_t)pickle_count(v);
    for (uint32_t d = 0; d < *rank; d++)
        if (!pickle_u64(pickle_item(v, d), &out[d]))
            return 0;
    return 1;
}

/* ---- storage_data ---- */

/* The key by which a chunk finds its storage entry; byte entries have no offsets. */
static void place_text(char out[PLACE_BYTES], uint64_t entry, const dcp_entry *e,
                       const uint64_t *offsets)
{
    size_t used = (size_t)snprintf(out, PLACE_BYTES, "%llu", (unsigned long long)entry);

    for (uint32_t d = 0; d < e->rank; d++)
        used += (size_t)snprintf(out + used, PLACE_BYTES - used, " %llu",
                                 (unsigned long long)offsets[d]);
}

/* The offset is absent (or None) exactly for byte entries, and of the entry's own rank; a storage
 * entry that names something else serves no chunk. */
static ckpt_code index_storage(reader *r, size_t i)
{
    const pickle_value *index = pickle_key(r->storage, i);
    const pickle_value *offset = attribute(index, "offset");
    uint64_t offsets[CKPT_RANK_MAX];
    char text[PLACE_BYTES];
    const char *place;
    const dcp_entry *e;
    uint64_t number;
    uint32_t rank;
    ckpt_code code;

    if (!take_text(r, attribute(index, "fqn")))
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': entry %zu of storage_data has no fqn",
                         r->subject, i);
    if (!table_find(&r->keys, r->text, &number))
        return CKPT_OK;
    e = &r->out->entries[number];
    rank = e->rank;
    if (offset != NULL && !pickle_is(offset, PICKLE_NULL)) {
        if (e->is_bytes || !take_size(offset, &rank, 1, offsets))
            return fail_key(r, e->key, "has a storage entry with an offset of the wrong rank");
    } else if (!e->is_bytes) {
        return fail_key(r, e->key, "is a tensor and has a storage entry without an offset");
    }
    place_text(text, number, e, offsets);
    if ((code = copy_text(r, text, &place)) != CKPT_OK)
        return code;
    switch (table_add(&r->places, place, i)) {
    case TABLE_ADDED:
        return CKPT_OK;
    case TABLE_PRESENT:
        return fail_key(r, e->key, "has two storage entries for one chunk");
    default:
        return fail_memory(r);
    }
}

static int is_safe_path(const char *path)
{
    if (path[0] == '\0' || path[0] == '/')
        return 0;
    for (const char *part = path; part != NULL; part = strchr(part, '/')) {
        part += *part == '/';
        if (part[0] == '.' && part[1] == '.' && (part[2] == '/' || part[2] == '\0'))
            return 0;
    }
    return 1;
}

/* Number of the file at r->text, a new one if need be. There are no more files than chunks. */
static ckpt_code find_file(reader *r, size_t *out)
{
    dcp_metadata *m = r->out;
    const char *path;
    uint64_t number;
    ckpt_code code;

    if (!table_find(&r->paths, r->text, &number)) {
        number = m->file_count;
        if ((code = copy_text(r, r->text, &path)) != CKPT_OK ||
            (code = add(r, &r->paths, path, number)) != CKPT_OK)
            return code;
        m->files[m->file_count++] = path;
    }
    *out = (size_t)number;
    return CKPT_OK;
}

static ckpt_code read_storage(reader *r, const dcp_entry *e, const pickle_value *info,
                              dcp_chunk *chunk)
{
    uint64_t end;

    if (pickle_count(attribute(info, "transform_descriptors")) != 0)
        return fail_key(r, e->key, "is transformed (compressed or encrypted), which is not "
                                   "supported");
    if (!take_text(r, attribute(info, "relative_path")) ||
        !pickle_u64(attribute(info, "offset"), &chunk->offset) ||
        !pickle_u64(attribute(info, "length"), &chunk->length) ||
        !size_add(chunk->offset, chunk->length, &end))
        return fail_key(r, e->key, "has a storage entry without path, offset and length");
    if (!is_safe_path(r->text))
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': entry '%s' is stored at '%s', expected a path inside the folder",
                         r->subject, e->key, r->text);
    return find_file(r, &chunk->file);
}

/* Complete and add the chunk after the last of out->chunks; its box is set already. */
static ckpt_code add_chunk(reader *r, size_t entry)
{
    dcp_metadata *m = r->out;
    dcp_chunk *chunk = &m->chunks[m->chunk_count];
    const dcp_entry *e = &m->entries[entry];
    char text[PLACE_BYTES];
    uint64_t number;

    place_text(text, entry, e, chunk->offsets);
    if (!table_find(&r->places, text, &number))
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': storage_data lacks entry '%s', chunk at [%s]",
                         r->subject, e->key, strchr(text, ' ') ? strchr(text, ' ') + 1 : "");
    if (r->used[number])
        return fail_key(r, e->key, "has two chunks with the same offsets");
    r->used[number] = 1;
    m->chunk_count++;
    return read_storage(r, e, pickle_item(r->storage, number), chunk);
}

/* ---- state_dict_metadata ---- */

/* TensorProperties keep a tuple that begins with the dtype, or (once) a dict. */
static ckpt_code read_dtype(reader *r, const pickle_value *properties, dcp_entry *e)
{
    const pickle_value *state = pickle_state(properties);
    const pickle_value *dtype = pickle_is(state, PICKLE_TUPLE) ? pickle_item(state, 0)
                                                               : attribute(properties, "dtype");
    const char *name = pickle_is(dtype, PICKLE_GLOBAL) ? pickle_class(dtype) : NULL;

    if (name == NULL || strncmp(name, "torch ", 6) != 0)
        return fail_key(r, e->key, "has no dtype");
    e->dtype = zip_item_dtype_find(name + 6);
    return copy_text(r, name + 6, &e->dtype_name);
}

/* A layout is created by a function of its name. Layouts other than strided have components that
 * are not listed here (indices and values), so the stored bytes are not the tensor's. */
static ckpt_code check_layout(const reader *r, const pickle_value *properties, const dcp_entry *e)
{
    const pickle_value *state = pickle_state(properties);
    const pickle_value *layout = pickle_is(state, PICKLE_TUPLE) ? pickle_item(state, 1)
                                                                : attribute(properties, "layout");
    const pickle_value *name = pickle_item(pickle_args(layout), 0);
    size_t length = 0;
    const char *text = pickle_text(name, &length);

    if (layout == NULL || pickle_text_is(name, "torch.strided"))
        return CKPT_OK;
    return ckpt_fail(r->err, CKPT_E_FORMAT,
                     "'%s': entry '%s' has layout '%.*s', expected 'torch.strided'", r->subject,
                     e->key, (int)size_min(length, 64), text == NULL ? "" : text);
}

static ckpt_code read_tensor(reader *r, const pickle_value *tensor, dcp_entry *e)
{
    ckpt_code code = read_dtype(r, attribute(tensor, "properties"), e);

    if (code != CKPT_OK ||
        (code = check_layout(r, attribute(tensor, "properties"), e)) != CKPT_OK)
        return code;
    if (!take_size(attribute(tensor, "size"), &e->rank, 0, e->size))
        return fail_key(r, e->key, "has no size of at most 8 non-negative integers");
    if (!pickle_is(attribute(tensor, "chunks"), PICKLE_LIST))
        return fail_key(r, e->key, "has no list of chunks");
    return CKPT_OK;
}

/* Read entry `i` except its chunks. */
static ckpt_code read_entry(reader *r, size_t i)
{
    const pickle_value *value = pickle_item(r->entries, i);
    dcp_entry *e = &r->out->entries[i];
    ckpt_code code;

    if (!take_text(r, pickle_key(r->entries, i)))
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': key %zu of state_dict_metadata is not a text of at most %d bytes",
                         r->subject, i, TEXT_MAX);
    if (table_find(&r->keys, r->text, &(uint64_t){ 0 }))
        return fail_key(r, r->text, "occurs twice");
    if ((code = copy_text(r, r->text, &e->key)) != CKPT_OK ||
        (code = add(r, &r->keys, e->key, i)) != CKPT_OK)
        return code;
    r->out->entry_count++;
    if (is_class(value, DCP_TENSOR))
        return read_tensor(r, value, e);
    if (!is_class(value, DCP_BYTES))
        return fail_key(r, e->key, "is neither a tensor nor bytes");
    e->is_bytes = 1;
    return CKPT_OK;
}

static ckpt_code read_chunks(reader *r, size_t i)
{
    const pickle_value *chunks = attribute(pickle_item(r->entries, i), "chunks");
    dcp_entry *e = &r->out->entries[i];
    const size_t count = e->is_bytes ? 1 : pickle_count(chunks);
    ckpt_code code = CKPT_OK;

    e->first_chunk = r->out->chunk_count;
    for (size_t c = 0; c < count && code == CKPT_OK; c++) {
        dcp_chunk *chunk = &r->out->chunks[r->out->chunk_count];

        if (!e->is_bytes &&
            (!take_size(attribute(pickle_item(chunks, c), "offsets"), &e->rank, 1,
                        chunk->offsets) ||
             !take_size(attribute(pickle_item(chunks, c), "sizes"), &e->rank, 1, chunk->sizes)))
            return fail_key(r, e->key, "has a chunk without offsets and sizes of its own rank");
        code = add_chunk(r, i);
    }
    e->chunk_count = count;
    return code;
}

/* storage_data may have entries without a tensor: count them for the caller. */
static ckpt_code find_unused(reader *r)
{
    const size_t count = pickle_count(r->storage);

    for (size_t i = 0; i < count; i++) {
        if (r->used[i])
            continue;
        if (r->out->unused_count++ == 0) {
            ckpt_code code;

            if (!take_text(r, attribute(pickle_key(r->storage, i), "fqn")))
                return fail_key(r, "storage_data", "has no fqn");
            if ((code = copy_text(r, r->text, &r->out->unused)) != CKPT_OK)
                return code;
        }
    }
    return CKPT_OK;
}

static ckpt_code read_all(reader *r, const pickle_value *root)
{
    dcp_metadata *m = r->out;
    void *memory = NULL;
    size_t entry_count;
    size_t storage_count;
    ckpt_code code;

    r->entries = pickle_attribute(root, "state_dict_metadata");
    r->storage = pickle_attribute(root, "storage_data");
    if (!pickle_is(r->entries, PICKLE_DICT) || !pickle_is(r->storage, PICKLE_DICT))
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s' has no dicts state_dict_metadata and storage_data", r->subject);
    entry_count = pickle_count(r->entries);
    storage_count = pickle_count(r->storage);
    if ((code = allocate(r, entry_count, sizeof *m->entries, &memory)) != CKPT_OK)
        return code;
    m->entries = memory;
    /* One more than there are storage entries, for the chunk whose look-up fails. */
    if ((code = allocate(r, (uint64_t)storage_count + 1, sizeof *m->chunks, &memory)) != CKPT_OK)
        return code;
    m->chunks = memory;
    if ((code = allocate(r, storage_count, sizeof *m->files, &memory)) != CKPT_OK)
        return code;
    m->files = memory;
    if ((code = allocate(r, storage_count, 1, &memory)) != CKPT_OK)
        return code;
    r->used = memory;
    for (size_t i = 0; i < entry_count; i++)
        if ((code = read_entry(r, i)) != CKPT_OK)
            return code;
    for (size_t i = 0; i < storage_count; i++)
        if ((code = index_storage(r, i)) != CKPT_OK)
            return code;
    for (size_t i = 0; i < entry_count; i++)
        if ((code = read_chunks(r, i)) != CKPT_OK)
            return code;
    return find_unused(r);
}

ckpt_code dcp_parse(const void *bytes, size_t size, const dcp_options *options,
                    dcp_metadata **out, ckpt_error *err)
{
    const uint64_t limit = options->memory_bytes == 0 ? (uint64_t)PICKLE_MEMORY
                                                      : options->memory_bytes;
    const pickle_limits limits = { .memory_bytes = limit };
    reader r = { .subject = options->subject, .err = err };
    pickle *p;
    ckpt_code code = pickle_read(bytes, size, &limits, r.subject, &p, err);

    *out = NULL;
    if (code != CKPT_OK)
        return code;
    r.memory_limit = limit - size_min(pickle_memory_bytes(p), limit);
    r.out = calloc(1, sizeof *r.out);
    if (r.out == NULL) {
        pickle_free(p);
        return ckpt_fail_memory(err, "metadata", sizeof *r.out);
    }
    arena_init(&r.out->memory);
    table_init(&r.keys);
    table_init(&r.places);
    table_init(&r.paths);
    code = read_all(&r, pickle_root(p));
    table_release(&r.keys);
    table_release(&r.places);
    table_release(&r.paths);
    pickle_free(p);
    if (code != CKPT_OK) {
        dcp_free(r.out);
        return code;
    }
    *out = r.out;
    return CKPT_OK;
}

ckpt_code dcp_read(const ckpt_folder *folder, uint64_t memory_bytes, dcp_metadata **out,
                   ckpt_error *err)
{
    const uint64_t limit = memory_bytes == 0 ? (uint64_t)PICKLE_MEMORY : memory_bytes;
    folder_text text;
    dcp_options options = { .memory_bytes = 0 };
    ckpt_code code;

    *out = NULL;
    if ((code = folder_read_all(folder, DCP_FILE, limit - 1, &text, err)) != CKPT_OK)
        goto out;
    options.subject = text.path;
    options.memory_bytes = limit - text.size;
    if (memory_take(text.size)) {
        code = dcp_parse(text.bytes, text.size, &options, out, err);
        memory_give(text.size);
    } else {
        code = ckpt_fail_memory(err, text.path, text.size);
    }
out:
    folder_text_release(&text);
    return code;
}

void dcp_free(dcp_metadata *m)
{
    if (m == NULL)
        return;
    arena_release(&m->memory);
    free(m);
}
