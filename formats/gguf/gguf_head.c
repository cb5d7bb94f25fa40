/* Reads and checks the head of a GGUF file. */
#include "gguf_head.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"
#include "libckpt/memory.h"
#include "libckpt/recognise.h"
#include "libckpt/size.h"

enum { HEAD_BYTES = 24, KEY_BYTES_MIN = 13, INFO_BYTES_MIN = 32, KEY_NAME_BYTES = 1024 };

typedef struct {
    gguf_head *head;
    gguf_scan scan;
    ckpt_error *err;
} head_reader;

static const char *path_of(const head_reader *r)
{
    return file_path(r->head->file);
}

/* ---- keys ---- */

static ckpt_code read_kind(head_reader *r, const gguf_key *key, gguf_kind *out)
{
    uint32_t number;
    const ckpt_code code = gguf_scan_u32(&r->scan, &number, "the type of a key");

    if (code != CKPT_OK)
        return code;
    if (number >= GGUF_KIND_COUNT)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': key '%s' has type %u, expected 0 to %d",
                         path_of(r), key->name, number, GGUF_KIND_COUNT - 1);
    *out = (gguf_kind)number;
    return CKPT_OK;
}

static ckpt_code read_array(head_reader *r, gguf_key *key)
{
    static const char what[] = "the length of an array";
    uint32_t size;
    ckpt_code code;

    key->is_array = 1;
    if ((code = read_kind(r, key, &key->kind)) != CKPT_OK)
        return code;
    if (key->kind == GGUF_ARRAY)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': key '%s' is an array of arrays, which no "
                         "reader knows", path_of(r), key->name);
    size = gguf_kind_bytes(key->kind);
    code = gguf_scan_count(&r->scan, size == 0 ? sizeof(uint64_t) : size, &key->count, what);
    key->offset = r->scan.offset;
    if (code != CKPT_OK || size != 0)
        return code == CKPT_OK ? gguf_scan_skip(&r->scan, key->count * size, key->name) : code;
    for (uint64_t i = 0; i < key->count && code == CKPT_OK; i++)
        code = gguf_scan_skip_string(&r->scan, "a string of an array");
    return code;
}

/* Read a string. Long ones, such as chat templates, are skipped. */
static ckpt_code read_string(head_reader *r, gguf_key *key)
{
    char text[GGUF_STRING_BYTES];
    uint64_t size;
    ckpt_code code;

    if ((code = gguf_scan_length(&r->scan, &size, "a string")) != CKPT_OK)
        return code;
    if (size >= sizeof text)
        return gguf_scan_skip(&r->scan, size, "a string");
    code = gguf_scan_text(&r->scan, text, (size_t)size, "the string of a key");
    if (code != CKPT_OK)
        return code;
    key->text = arena_strdup(&r->head->memory, text, (size_t)size);
    return key->text != NULL ? CKPT_OK : ckpt_fail_memory(r->err, path_of(r), size);
}

static ckpt_code read_value(head_reader *r, gguf_key *key)
{
    ckpt_code code;

    key->count = 1;
    key->offset = r->scan.offset;
    if (key->kind == GGUF_ARRAY)
        return read_array(r, key);
    if (key->kind == GGUF_STRING)
        return read_string(r, key);
    code = gguf_scan_number(&r->scan, key->kind, &key->number, "the value of a key");
    if (code == CKPT_OK && key->kind == GGUF_BOOL && key->number > 1)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': key '%s' is a bool with the value %llu",
                         path_of(r), key->name, (unsigned long long)key->number);
    return code;
}

static ckpt_code read_key(head_reader *r)
{
    gguf_head *head = r->head;
    gguf_key key = { .name = NULL };
    char name[KEY_NAME_BYTES];
    gguf_key *keys;
    ckpt_code code;

    if ((code = gguf_scan_name(&r->scan, name, sizeof name, "the name of a key")) != CKPT_OK)
        return code;
    if ((key.name = arena_strdup(&head->memory, name, strlen(name))) == NULL)
        return ckpt_fail_memory(r->err, path_of(r), strlen(name));
    switch (table_add(&head->names, key.name, head->key_count)) {
    case TABLE_PRESENT:
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' has the key '%s' twice", path_of(r), name);
    case TABLE_NO_MEMORY:
        return ckpt_fail_memory(r->err, path_of(r), 0);
    default:
        break;
    }
    if ((code = read_kind(r, &key, &key.kind)) != CKPT_OK ||
        (code = read_value(r, &key)) != CKPT_OK)
        return code;
    keys = array_room_counted(head->keys, head->key_count, sizeof *keys, "keys", r->err);
    if (keys == NULL)
        return CKPT_E_MEMORY;
    head->keys = keys;
    keys[head->key_count++] = key;
    return CKPT_OK;
}

static ckpt_code take_alignment(head_reader *r)
{
    static const char name[] = "general.alignment";
    gguf_head *head = r->head;
    uint64_t alignment = GGUF_ALIGNMENT;

    if (gguf_head_find(head, name) != NULL && !gguf_head_u64(head, name, &alignment))
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': key '%s' is not an integer", path_of(r),
                         name);
    if (alignment < 8 || alignment > GGUF_ALIGNMENT_MAX || (alignment & (alignment - 1)) != 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': key '%s' is %llu, expected a power of two from 8 to %d", path_of(r),
                         name, (unsigned long long)alignment, GGUF_ALIGNMENT_MAX);
    head->alignment = (uint32_t)alignment;
    return CKPT_OK;
}

/* ---- tensors ---- */

static ckpt_code fail_info(const head_reader *r, const gguf_info *info, const char *what)
{
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': tensor '%s' %s", path_of(r), info->name, what);
}

/* Compute the size in bytes; rows must be whole blocks. */
static ckpt_code measure(const head_reader *r, gguf_info *info)
{
    const gguf_type *type = info->type;
    uint64_t size;

    if (info->ne[0] % type->block_values != 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': tensor '%s' is %s with %llu columns, expected a multiple of %u",
                         path_of(r), info->name, type->name, (unsigned long long)info->ne[0],
                         type->block_values);
    size = info->ne[0] / type->block_values;
    for (uint32_t d = 1; d < info->rank; d++)
        if (!size_mul(size, info->ne[d], &size))
            return fail_info(r, info, "is too large");
    if (!size_mul(size, type->block_bytes, &info->size_bytes))
        return fail_info(r, info, "is too large");
    return CKPT_OK;
}

static ckpt_code read_shape(head_reader *r, gguf_info *info)
{
    uint32_t rank;
    ckpt_code code = gguf_scan_u32(&r->scan, &rank, "the rank of a tensor");

    if (code == CKPT_OK && (rank == 0 || rank > GGUF_RANK_MAX))
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': tensor '%s' has %u dimensions, expected 1 to %d", path_of(r),
                         info->name, rank, GGUF_RANK_MAX);
    info->rank = rank;
    for (uint32_t d = 0; d < rank && code == CKPT_OK; d++) {
        code = gguf_scan_u64(&r->scan, &info->ne[d], "the shape of a tensor");
        if (code == CKPT_OK && info->ne[d] == 0)
            return fail_info(r, info, "has a dimension of 0");
    }
    return code;
}

static ckpt_code read_info(head_reader *r)
{
    gguf_head *head = r->head;
    gguf_info info = { .name = NULL };
    char name[GGUF_NAME_BYTES];
    uint32_t type;
    gguf_info *infos;
    ckpt_code code;

    if ((code = gguf_scan_name(&r->scan, name, sizeof name, "the name of a tensor")) != CKPT_OK)
        return code;
    if ((info.name = arena_strdup(&head->memory, name, strlen(name))) == NULL)
        return ckpt_fail_memory(r->err, path_of(r), strlen(name));
    if (name[0] == '\0')
        return fail_info(r, &info, "has no name");
    if ((code = read_shape(r, &info)) != CKPT_OK ||
        (code = gguf_scan_u32(&r->scan, &type, "the type of a tensor")) != CKPT_OK ||
        (code = gguf_scan_u64(&r->scan, &info.offset, "the place of a tensor")) != CKPT_OK)
        return code;
    if ((info.type = gguf_type_find(type)) == NULL)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': tensor '%s' has type %u, which is unknown",
                         path_of(r), name, type);
    if ((code = measure(r, &info)) != CKPT_OK)
        return code;
    infos = array_room_counted(head->infos, head->info_count, sizeof *infos, "tensors", r->err);
    if (infos == NULL)
        return CKPT_E_MEMORY;
    head->infos = infos;
    infos[head->info_count++] = info;
    return CKPT_OK;
}

/* Convert the offset from one in the data to one in the file. */
static ckpt_code place_info(const head_reader *r, gguf_info *info)
{
    const gguf_head *head = r->head;
    const uint64_t size = file_size(head->file);
    uint64_t end;

    if (info->offset % head->alignment != 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': tensor '%s' is at %llu of the data, expected a multiple of %u",
                         path_of(r), info->name, (unsigned long long)info->offset,
                         head->alignment);
    if (!size_add(info->offset, head->data_offset, &info->offset) ||
        !size_add(info->offset, info->size_bytes, &end) || end > size)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': tensor '%s' needs %llu bytes from %llu of the file on, which has "
                         "%llu bytes", path_of(r), info->name,
                         (unsigned long long)info->size_bytes, (unsigned long long)info->offset,
                         (unsigned long long)size);
    return CKPT_OK;
}

static int compare_offsets(const void *left, const void *right)
{
    const gguf_info *const *a = left;
    const gguf_info *const *b = right;

    return ((*a)->offset > (*b)->offset) - ((*a)->offset < (*b)->offset);
}

static ckpt_code check_apart(const head_reader *r)
{
    const gguf_head *head = r->head;
    const gguf_info **order;
    ckpt_code code = CKPT_OK;

    if (!memory_has((head->info_count + 1) * sizeof *order) ||
        (order = calloc(head->info_count + 1, sizeof *order)) == NULL)
        return ckpt_fail_memory(r->err, path_of(r), head->info_count * sizeof *order);
    for (size_t i = 0; i < head->info_count; i++)
        order[i] = &head->infos[i];
    qsort(order, head->info_count, sizeof *order, compare_offsets);
    for (size_t i = 1; i < head->info_count && code == CKPT_OK; i++)
        if (order[i]->offset - order[i - 1]->offset < order[i - 1]->size_bytes)
            code = ckpt_fail(r->err, CKPT_E_FORMAT,
                             "'%s': tensors '%s' and '%s' share the byte %llu", path_of(r),
                             order[i - 1]->name, order[i]->name,
                             (unsigned long long)order[i]->offset);
    free(order);
    return code;
}

static ckpt_code read_infos(head_reader *r, uint64_t count)
{
    gguf_head *head = r->head;
    ckpt_code code = take_alignment(r);

    for (uint64_t i = 0; i < count && code == CKPT_OK; i++)
        code = read_info(r);
    if (code != CKPT_OK)
        return code;
    head->head_bytes = r->scan.offset;
    head->data_offset = size_div_up(head->head_bytes, head->alignment) * head->alignment;
    for (uint64_t i = 0; i < count && code == CKPT_OK; i++)
        code = place_info(r, &head->infos[i]);
    return code == CKPT_OK ? check_apart(r) : code;
}

/* ---- the head ---- */

static ckpt_code check_version(const head_reader *r, uint32_t magic, uint32_t version)
{
    static const char gguf[] = { 'G', 'G', 'U', 'F' };
    char what[RECOGNISE_BYTES];

    if (memcmp(&magic, gguf, sizeof magic) != 0 && recognise_head(r->head->file, what))
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' %s", path_of(r), what);
    if (memcmp(&magic, gguf, sizeof magic) != 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' does not begin with GGUF", path_of(r));
    if (version == __builtin_bswap32(2) || version == __builtin_bswap32(3))
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' is a big-endian GGUF file, which is not "
                         "supported", path_of(r));
    if (version != 2 && version != 3)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s' is of version %u of GGUF, expected 2 or 3", path_of(r), version);
    return CKPT_OK;
}

static ckpt_code read_head(head_reader *r)
{
    uint32_t magic;
    uint64_t tensors;
    uint64_t keys;
    ckpt_code code;

    if ((code = gguf_scan_u32(&r->scan, &magic, "the magic")) != CKPT_OK ||
        (code = gguf_scan_u32(&r->scan, &r->head->version, "the version")) != CKPT_OK ||
        (code = check_version(r, magic, r->head->version)) != CKPT_OK ||
        (code = gguf_scan_count(&r->scan, INFO_BYTES_MIN, &tensors, "the number of tensors")) !=
            CKPT_OK ||
        (code = gguf_scan_count(&r->scan, KEY_BYTES_MIN, &keys, "the number of keys")) != CKPT_OK)
        return code;
    for (uint64_t i = 0; i < keys && code == CKPT_OK; i++)
        code = read_key(r);
    return code == CKPT_OK ? read_infos(r, tensors) : code;
}

ckpt_code gguf_head_read(const ckpt_file *file, gguf_head *out, ckpt_error *err)
{
    head_reader *r = malloc(sizeof *r);
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if (r == NULL)
        return ckpt_fail_memory(err, file_path(file), sizeof *r);
    arena_init(&out->memory);
    table_init(&out->names);
    out->file = file;
    r->head = out;
    r->err = err;
    gguf_scan_begin(&r->scan, file, 0, err);
    code = read_head(r);
    out->hash = gguf_scan_hash(&r->scan);
    free(r);
    if (code != CKPT_OK)
        gguf_head_release(out);
    return code;
}

void gguf_head_release(gguf_head *head)
{
    array_free_counted(head->keys, head->key_count, sizeof *head->keys);
    array_free_counted(head->infos, head->info_count, sizeof *head->infos);
    table_release(&head->names);
    arena_release(&head->memory);
    memset(head, 0, sizeof *head);
}

/* ---- look-up ---- */

const gguf_key *gguf_head_find(const gguf_head *head, const char *name)
{
    uint64_t i;

    return table_find(&head->names, name, &i) && i < head->key_count ? &head->keys[i] : NULL;
}

int gguf_head_u64(const gguf_head *head, const char *name, uint64_t *out)
{
    const gguf_key *key = gguf_head_find(head, name);

    if (key == NULL || key->is_array)
        return 0;
    switch (key->kind) {
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        if ((int64_t)key->number < 0)
            return 0;
        break;
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        break;
    default:
        return 0;
    }
    *out = key->number;
    return 1;
}

const char *gguf_head_text(const gguf_head *head, const char *name)
{
    const gguf_key *key = gguf_head_find(head, name);

    return key == NULL || key->is_array ? NULL : key->text;
}

ckpt_code gguf_head_numbers(const gguf_head *head, const gguf_key *key, uint64_t *out,
                            ckpt_error *err)
{
    gguf_scan *s;
    ckpt_code code = CKPT_OK;

    if (gguf_kind_bytes(key->kind) == 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': key '%s' has %s elements, expected numbers",
                         file_path(head->file), key->name, gguf_kind_name(key->kind));
    if ((s = malloc(sizeof *s)) == NULL)
        return ckpt_fail_memory(err, file_path(head->file), sizeof *s);
    gguf_scan_begin(s, head->file, key->offset, err);
    for (uint64_t i = 0; i < key->count && code == CKPT_OK; i++)
        code = gguf_scan_number(s, key->kind, &out[i], key->name);
    free(s);
    return code;
}
