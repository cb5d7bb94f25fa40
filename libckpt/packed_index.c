/* The index of a packed checkpoint. Nothing in it is trusted before it was checked. */
#include "packed_index.h"

#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "memory.h"
#include "size.h"
#include "text.h"
#include "zblock.h"

enum { FRAME_HEAD_BYTES = 8, BODY_HEAD_BYTES = 16 };

static uint32_t u32_at(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static uint64_t u64_at(const unsigned char *bytes)
{
    return u32_at(bytes) | (uint64_t)u32_at(bytes + 4) << 32;
}

static ckpt_code bad(const packed_index *x, const char *what, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not a complete packed checkpoint: its %s is not "
                     "as " PACKED_SCHEMA " has it", file_path(x->file), what);
}

static int is_mark(const unsigned char *bytes)
{
    return memcmp(bytes, packed_mark, sizeof packed_mark) == 0;
}

/* ---- chunks ---- */

static ckpt_code take_chunks(packed_index *x, const unsigned char *records, uint64_t begin,
                             uint64_t end, ckpt_error *err)
{
    uint64_t offset = begin;

    for (uint64_t i = 0; i < x->chunk_count; i++) {
        const unsigned char *r = records + i * PACKED_RECORD_BYTES;
        packed_chunk *c = &x->chunks[i];

        *c = (packed_chunk){ u32_at(r), u32_at(r + 4), (planes_kind)u32_at(r + 8),
                             { .low64 = u64_at(r + 16), .high64 = u64_at(r + 24) } };
        if (c->bytes == 0 || c->bytes > PACKED_CHUNK_MAX || u32_at(r + 8) >= PLANES_KINDS ||
            c->packed_bytes > zblock_bound(c->bytes) || u32_at(r + 12) != 0 ||
            c->packed_bytes > end - offset)
            return bad(x, "list of chunks", err);
        x->offsets[i] = offset;
        offset += c->packed_bytes;
        x->chunk_bytes = (uint32_t)size_max(x->chunk_bytes, c->bytes);
    }
    return offset == end ? CKPT_OK : bad(x, "list of chunks", err);
}

/* ---- files ---- */

/* As text_is_below; the hidden file ".metadata" belongs to a checkpoint, too. */
static int is_name(const char *name)
{
    const char *slash = strrchr(name, '/');
    char *folder;
    int is_below;

    if (strcmp(slash == NULL ? name : slash + 1, ".metadata") != 0)
        return text_is_below(name);
    if (slash == NULL)
        return 1;
    folder = strndup(name, (size_t)(slash - name));
    is_below = folder != NULL && text_is_below(folder);
    free(folder);
    return is_below;
}

static ckpt_code take_file(packed_index *x, const json_value *v, uint64_t *chunk, ckpt_error *err)
{
    packed_entry *e = &x->entries[x->entry_count];
    const char *before = x->entry_count == 0 ? "" : e[-1].name;
    uint64_t position = 0;

    e->name = json_string(json_member(v, "name"));
    e->first_chunk = *chunk;
    if (e->name == NULL || strcmp(before, e->name) >= 0 ||
        !is_name(e->name) || !text_is_plain(e->name) ||
        !json_u64(json_member(v, "bytes"), &e->bytes) ||
        !json_u64(json_member(v, "chunks"), &e->chunk_count) ||
        e->chunk_count > x->chunk_count - *chunk)
        return bad(x, "list of files", err);
    for (uint64_t i = 0; i < e->chunk_count; i++) {
        x->positions[*chunk + i] = position;
        position += x->chunks[*chunk + i].bytes;
    }
    *chunk += e->chunk_count;
    x->entry_count++;
    return position == e->bytes ? CKPT_OK : bad(x, "list of files", err);
}

size_t packed_index_place(const packed_index *x, const char *name)
{
    size_t low = 0;
    size_t high = x->entry_count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;

        if (strcmp(x->entries[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const packed_entry *packed_index_find(const packed_index *x, const char *name)
{
    const size_t i = packed_index_place(x, name);

    return i < x->entry_count && strcmp(x->entries[i].name, name) == 0 ? &x->entries[i] : NULL;
}

/* A file that is also a folder of others cannot be written. */
static ckpt_code check_folders(const packed_index *x, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < x->entry_count && code == CKPT_OK; i++) {
        char *folder = strdup(x->entries[i].name);

        if (folder == NULL)
            return ckpt_fail_memory(err, x->entries[i].name, strlen(x->entries[i].name));
        for (char *slash; code == CKPT_OK && (slash = strrchr(folder, '/')) != NULL;) {
            *slash = '\0';
            if (packed_index_find(x, folder) != NULL)
                code = bad(x, "list of files", err);
        }
        free(folder);
    }
    return code;
}

/* A root is null or 64 hex digits in lower case. *out: NULL for null. */
static ckpt_code take_root(const packed_index *x, const char *name, const char **out,
                           ckpt_error *err)
{
    const json_value *v = json_member(json_root(x->document), name);
    const char *text = json_string(v);

    *out = text;
    if (v == NULL || json_is_null(v))
        return CKPT_OK;
    return text != NULL && digest_is_root(text) ? CKPT_OK : bad(x, "value root", err);
}

static ckpt_code take_files(packed_index *x, ckpt_error *err)
{
    const json_value *root = json_root(x->document);
    const json_value *files = json_member(root, "files");
    const char *schema = json_string(json_member(root, "schema"));
    const char *main_root;
    uint64_t chunk = 0;
    ckpt_code code;

    if (schema == NULL || strcmp(schema, PACKED_SCHEMA) != 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': schema '%s' is not known, expected '"
                         PACKED_SCHEMA "'", file_path(x->file), schema == NULL ? "" : schema);
    if ((code = take_root(x, PACKED_ROOT_KEY, &x->root, err)) != CKPT_OK ||
        (code = take_root(x, "main", &main_root, err)) != CKPT_OK)
        return code;
    if ((x->entries = calloc(json_count(files) + 1, sizeof *x->entries)) == NULL)
        return ckpt_fail_memory(err, file_path(x->file), json_count(files));
    for (const json_value *v = json_first(files); v != NULL && code == CKPT_OK; v = json_next(v))
        code = take_file(x, v, &chunk, err);
    if (code == CKPT_OK && chunk != x->chunk_count)
        code = bad(x, "list of files", err);
    return code == CKPT_OK ? check_folders(x, err) : code;
}

/* ---- the whole index ---- */

static ckpt_code take_body(packed_index *x, const unsigned char *frame, uint64_t offset,
                           uint64_t size, ckpt_error *err)
{
    const unsigned char *body = frame + FRAME_HEAD_BYTES;
    const uint64_t rest = size - FRAME_HEAD_BYTES - BODY_HEAD_BYTES;
    uint64_t json_bytes;
    ckpt_code code;

    if (u32_at(frame) != packed_index_magic || u32_at(frame + 4) != size - FRAME_HEAD_BYTES)
        return bad(x, "index", err);
    json_bytes = u64_at(body);
    x->chunk_count = u64_at(body + 8);
    if (json_bytes > rest || x->chunk_count > (rest - json_bytes) / PACKED_RECORD_BYTES ||
        x->chunk_count * PACKED_RECORD_BYTES != rest - json_bytes)
        return bad(x, "index", err);
    x->held_bytes = x->chunk_count * (sizeof *x->chunks + 2 * sizeof(uint64_t));
    if (!memory_take(x->held_bytes)) {
        x->held_bytes = 0;
        return ckpt_fail_memory(err, file_path(x->file), x->chunk_count * sizeof *x->chunks);
    }
    x->chunks = malloc(x->chunk_count * sizeof *x->chunks + 1);
    x->offsets = malloc(x->chunk_count * sizeof *x->offsets + 1);
    x->positions = malloc(x->chunk_count * sizeof *x->positions + 1);
    if (x->chunks == NULL || x->offsets == NULL || x->positions == NULL)
        return ckpt_fail_memory(err, file_path(x->file), x->held_bytes);
    body += BODY_HEAD_BYTES;
    if ((code = take_chunks(x, body + json_bytes, PACKED_HEAD_BYTES, offset, err)) == CKPT_OK &&
        (code = json_parse((const char *)body, (size_t)json_bytes, file_path(x->file),
                           &x->document, err)) == CKPT_OK)
        code = take_files(x, err);
    return code;
}

static ckpt_code read_index(packed_index *x, ckpt_error *err)
{
    const uint64_t size = file_size(x->file);
    unsigned char footer[PACKED_FOOTER_BYTES];
    unsigned char *frame;
    uint64_t offset;
    uint64_t bytes;
    ckpt_code code;

    if (size < PACKED_HEAD_BYTES + PACKED_FOOTER_BYTES)
        return bad(x, "size", err);
    if ((code = file_read_at(x->file, size - sizeof footer, footer, sizeof footer, err)) != CKPT_OK)
        return code;
    offset = u64_at(footer + 8);
    bytes = u64_at(footer + 16);
    if (u32_at(footer) != packed_footer_magic ||
        u32_at(footer + 4) != sizeof footer - FRAME_HEAD_BYTES || !is_mark(footer + 40) ||
        offset < PACKED_HEAD_BYTES || offset > size - sizeof footer ||
        bytes != size - sizeof footer - offset || bytes < FRAME_HEAD_BYTES + BODY_HEAD_BYTES)
        return bad(x, "footer", err);
    if (!memory_has(bytes) || (frame = malloc((size_t)bytes)) == NULL)
        return ckpt_fail_memory(err, file_path(x->file), bytes);
    if ((code = file_read_at(x->file, offset, frame, (size_t)bytes, err)) == CKPT_OK) {
        x->hash = kernels_get()->hash_bytes(frame, (size_t)bytes, 0);
        code = x->hash.low64 == u64_at(footer + 24) && x->hash.high64 == u64_at(footer + 32)
                   ? take_body(x, frame, offset, bytes, err)
                   : bad(x, "index", err);
    }
    free(frame);
    return code;
}

int packed_detect(const char *path)
{
    unsigned char head[PACKED_HEAD_BYTES];
    ckpt_file *file = NULL;
    const int found = file_open(path, &file, NULL) == CKPT_OK && file_size(file) >= sizeof head &&
                      file_read_at(file, 0, head, sizeof head, NULL) == CKPT_OK &&
                      u32_at(head) == packed_head_magic && is_mark(head + FRAME_HEAD_BYTES);

    file_close(file, NULL);
    return found;
}

ckpt_code packed_index_open(const char *path, packed_index **out, ckpt_error *err)
{
    packed_index *x = calloc(1, sizeof *x);
    ckpt_code code;

    if (x == NULL)
        return ckpt_fail_memory(err, path, sizeof *x);
    x->references = 1;
    x->chunk_bytes = 1;
    if ((code = file_open(path, &x->file, err)) == CKPT_OK &&
        (code = read_index(x, err)) == CKPT_OK)
        code = packed_cache_create(x, &x->cache, err);
    if (code != CKPT_OK)
        packed_index_release(x);
    else
        *out = x;
    return code;
}

packed_index *packed_index_share(packed_index *x)
{
    __atomic_add_fetch(&x->references, 1, __ATOMIC_RELAXED);
    return x;
}

void packed_index_release(packed_index *x)
{
    if (x == NULL || __atomic_sub_fetch(&x->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    packed_cache_free(x->cache);
    file_close(x->file, NULL);
    json_free(x->document);
    memory_give(x->held_bytes);
    free(x->entries);
    free(x->chunks);
    free(x->offsets);
    free(x->positions);
    free(x);
}

/* The chunk of an entry that has the byte at `position`. */
static uint64_t find_chunk(const packed_index *x, const packed_entry *e, uint64_t position)
{
    uint64_t low = e->first_chunk;
    uint64_t high = e->first_chunk + e->chunk_count;

    while (high - low > 1) {
        const uint64_t middle = low + (high - low) / 2;

        if (x->positions[middle] <= position)
            low = middle;
        else
            high = middle;
    }
    return low;
}

ckpt_code packed_index_read(packed_index *x, const packed_entry *e, uint64_t position, void *out,
                            size_t size, ckpt_error *err)
{
    char *to = out;
    ckpt_code code = CKPT_OK;

    for (uint64_t chunk = size == 0 ? 0 : find_chunk(x, e, position); size > 0 && code == CKPT_OK;
         chunk++) {
        const size_t begin = (size_t)(position - x->positions[chunk]);
        const size_t take = (size_t)size_min(size, x->chunks[chunk].bytes - begin);

        code = packed_cache_copy(x->cache, chunk, begin, to, take, err);
        to += take;
        position += take;
        size -= take;
    }
    return code;
}
