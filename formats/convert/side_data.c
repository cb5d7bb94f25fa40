/* Reads the FP4 scales that the canonical rule does not recover, by tensor. */
#include "side_data.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/digest.h"
#include "libckpt/file.h"
#include "side_data_private.h"
#include "libckpt/size.h"

/* Approximate memory of a name in the table. */
enum { NAME_BYTES = 64 };

typedef struct {
    side_data *data;
    const char *subject;
    uint64_t memory_bytes;         /* limit for the entries and names */
    ckpt_error *err;
} collector;

static ckpt_code take_memory(collector *c, uint64_t bytes)
{
    if (bytes > c->memory_bytes)
        return ckpt_fail(c->err, CKPT_E_MEMORY, "'%s' is too large for the memory limit",
                         c->subject);
    c->memory_bytes -= bytes;
    return CKPT_OK;
}

/* Make room for one more item. The limit counts the allocated items, but not the second copy that
 * exists while realloc moves them. */
static ckpt_code reserve(collector *c, void **items, size_t *capacity, size_t count,
                         size_t item_bytes)
{
    const size_t grown = size_min(size_max(count, 16), 65536);
    ckpt_code code;
    void *larger;

    if (count < *capacity)
        return CKPT_OK;
    if ((code = take_memory(c, grown * item_bytes)) != CKPT_OK)
        return code;
    larger = realloc(*items, (*capacity + grown) * item_bytes);
    if (larger == NULL)
        return ckpt_fail_memory(c->err, c->subject, (*capacity + grown) * item_bytes);
    *items = larger;
    *capacity += grown;
    return CKPT_OK;
}

static ckpt_code collect_head(void *context, const side_data_head *head)
{
    ((collector *)context)->data->head = *head;
    return CKPT_OK;
}

static ckpt_code collect_tensor(void *context, const char *name, ckpt_error *err)
{
    collector *c = context;
    side_data *data = c->data;
    void *tensors = data->tensors;
    side_tensor t = { NULL, data->entry_count, 0 };
    ckpt_code code;

    code = reserve(c, &tensors, &data->tensor_capacity, data->tensor_count, sizeof t);
    data->tensors = tensors;
    if (code != CKPT_OK || (code = take_memory(c, strlen(name) + NAME_BYTES)) != CKPT_OK)
        return code;
    t.name = arena_strdup(&data->memory, name, strlen(name));
    if (t.name == NULL || table_add(&data->names, t.name, data->tensor_count) != TABLE_ADDED)
        return ckpt_fail_memory(err, "a name", strlen(name));
    data->tensors[data->tensor_count++] = t;
    return CKPT_OK;
}

static ckpt_code collect_group(void *context, const encode_exception *entry, ckpt_error *err)
{
    collector *c = context;
    side_data *data = c->data;
    void *entries = data->entries;
    const ckpt_code code = reserve(c, &entries, &data->entry_capacity, data->entry_count,
                                   sizeof *entry);

    (void)err;
    data->entries = entries;
    if (code != CKPT_OK)
        return code;
    data->entries[data->entry_count++] = *entry;
    data->tensors[data->tensor_count - 1].count++;
    return CKPT_OK;
}

static const encode_exception *find_exceptions(const encode_exception_table *self,
                                               const char *name, size_t *count)
{
    const side_data *data = (const side_data *)self;
    uint64_t i;

    *count = 0;
    if (!table_find(&data->names, name, &i))
        return NULL;
    *count = data->tensors[i].count;
    return data->entries + data->tensors[i].first;
}

static ckpt_code collect(zfile_reader *text, const char *subject, uint64_t memory_bytes,
                         side_data **out, ckpt_error *err)
{
    side_data *data = calloc(1, sizeof *data);
    collector c = { data, subject, memory_bytes, err };
    const side_data_visit visit = { collect_head, collect_tensor, collect_group, &c };
    ckpt_code code;

    if (data == NULL)
        return ckpt_fail_memory(err, subject, sizeof *data);
    data->base.find = find_exceptions;
    arena_init(&data->memory);
    table_init(&data->names);
    if ((code = side_data_walk(text, subject, &visit, err)) == CKPT_OK)
        *out = data;
    else
        side_data_free(data);
    return code;
}

ckpt_code side_data_parse(const char *text, size_t size, uint64_t memory_bytes, side_data **out,
                          ckpt_error *err)
{
    zfile_reader *r;
    ckpt_code code;

    *out = NULL;
    if ((code = zfile_open_text(text, size, SIDE_DATA_FILE, &r, err)) == CKPT_OK)
        code = collect(r, SIDE_DATA_FILE, memory_bytes, out, err);
    zfile_close(r);
    return code;
}

ckpt_code side_data_read(const ckpt_folder *folder, uint64_t memory_bytes, side_data **out,
                         ckpt_error *err)
{
    ckpt_file *file = NULL;
    zfile_reader *r = NULL;
    char *subject;
    ckpt_code code;

    *out = NULL;
    if (!folder_has(folder, SIDE_DATA_FILE))
        return CKPT_OK;
    if ((subject = folder_path_of(folder, SIDE_DATA_FILE)) == NULL)
        return ckpt_fail_memory(err, "a path", sizeof SIDE_DATA_FILE);
    if ((code = folder_open_file(folder, SIDE_DATA_FILE, &file, err)) == CKPT_OK &&
        (code = zfile_open_file(file, &r, err)) == CKPT_OK)
        code = collect(r, subject, memory_bytes, out, err);
    zfile_close(r);
    free(subject);
    return code;
}

const encode_exception_table *side_data_table(const side_data *data)
{
    return &data->base;
}

uint64_t side_data_bytes(const side_data *data)
{
    return data->memory.total_bytes + data->tensor_capacity * sizeof *data->tensors +
           data->entry_capacity * sizeof *data->entries;
}

static int has_mtp(const ckpt_catalog *catalog)
{
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++)
        if (digest_is_mtp(ckpt_catalog_at(catalog, i)->name))
            return 1;
    return 0;
}

ckpt_code side_data_check(const side_data *data, const ckpt_catalog *targets, ckpt_error *err)
{
    const int with_mtp = has_mtp(targets);

    for (size_t i = 0; i < data->tensor_count; i++) {
        const side_tensor *t = &data->tensors[i];
        const int64_t found = ckpt_catalog_find(targets, t->name);
        const uint64_t last = data->entries[t->first + t->count - 1].group;
        const ckpt_tensor *target;
        uint64_t groups;

        if (found == CKPT_NOT_FOUND && !with_mtp && digest_is_mtp(t->name))
            continue;              /* a layout without MTP blocks dropped them */
        if (found == CKPT_NOT_FOUND)
            return ckpt_fail(err, CKPT_E_FORMAT,
                             "'%s' lists tensor '%s', which the checkpoint does not have",
                             SIDE_DATA_FILE, t->name);
        target = ckpt_catalog_at(targets, (size_t)found);
        if (target->dtype != CKPT_F4 || target->scale_dtype == CKPT_NONE)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' lists tensor '%s', which is %s, not FP4",
                             SIDE_DATA_FILE, t->name, ckpt_dtype_name(target->dtype));
        groups = ckpt_part_rows(target, CKPT_SCALE) * ckpt_part_cols(target, CKPT_SCALE);
        if (last >= groups)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' lists group %" PRIu64 " of tensor '%s', "
                             "which has %" PRIu64, SIDE_DATA_FILE, last, t->name, groups);
    }
    return CKPT_OK;
}

int side_data_has_roots(const side_data *data)
{
    return strcmp(data->head.roots[0], "-") != 0;
}

ckpt_code side_data_check_roots(const side_data *data, const char *const roots[2],
                                ckpt_error *err)
{
    const int only_main = strcmp(roots[0], roots[1]) == 0;
    const char *made_for = data->head.roots[only_main];

    if (!side_data_has_roots(data) || strcmp(made_for, roots[only_main]) == 0)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT,
                     "'%s' was made for values with the digest %s, got %s: it belongs to another "
                     "checkpoint or the values have changed; remove it to choose FP4 scales by "
                     "rule", SIDE_DATA_FILE, made_for, roots[only_main]);
}

void side_data_free(side_data *data)
{
    if (data == NULL)
        return;
    table_release(&data->names);
    arena_release(&data->memory);
    free(data->tensors);
    free(data->entries);
    free(data);
}
