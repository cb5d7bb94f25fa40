/* zip_item_read.c: reads the tensor's description in an item, and its position; not the payload. */
#include <stdlib.h>
#include <string.h>

#include "pickle.h"
#include "libckpt/size.h"
#include "zip_archive.h"
#include "zip_item_private.h"

enum { OBJECT_BYTES_MAX = 64 << 10, OBJECT_MEMORY = 4 << 20, KEY_MAX = 32 };

typedef struct {
    const ckpt_file *file;
    uint64_t offset;
    zip_item *out;
    char record_name[8 + KEY_MAX];   /* "data/0" */
    uint64_t storage_bytes;          /* according to the pickle */
    ckpt_error *err;
} reader;

static ckpt_code fail(const reader *r, const char *what)
{
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': the item at %llu %s", file_path(r->file),
                     (unsigned long long)r->offset, what);
}

/* Read a storage key. Only digits are accepted, because it becomes part of a record's name. */
static int take_key(reader *r, const pickle_value *v)
{
    size_t length;
    const char *text = pickle_text(v, &length);

    if (text == NULL || length == 0 || length > KEY_MAX)
        return 0;
    for (size_t i = 0; i < length; i++)
        if (text[i] < '0' || text[i] > '9')
            return 0;
    snprintf(r->record_name, sizeof r->record_name, "data/%.*s", (int)length, text);
    return 1;
}

/* ("storage", class, key, location, count): the count is of bytes for untyped storage. */
static ckpt_code read_storage(reader *r, const pickle_value *v, const zip_item_dtype *dtype)
{
    const pickle_value *id = pickle_persistent_id(v);
    const char *class_name = pickle_class(pickle_item(id, 1));
    uint64_t count;

    if (!pickle_is(id, PICKLE_TUPLE) || pickle_count(id) != 5 ||
        !pickle_text_is(pickle_item(id, 0), "storage") ||
        !pickle_is(pickle_item(id, 1), PICKLE_GLOBAL) || !take_key(r, pickle_item(id, 2)) ||
        !pickle_is(pickle_item(id, 3), PICKLE_TEXT) || !pickle_u64(pickle_item(id, 4), &count))
        return fail(r, "has no storage in the form of torch.save");
    if (dtype != NULL) {
        if (strcmp(class_name, "torch.storage UntypedStorage") != 0)
            return fail(r, "has a tensor with its own dtype, and a storage that is not untyped");
        r->storage_bytes = count;
    } else {
        dtype = zip_item_dtype_stored(class_name);
        if (dtype == NULL)
            return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': the item at %llu has storage '%s'",
                             file_path(r->file), (unsigned long long)r->offset, class_name);
        if (!size_mul(count, dtype->element_bytes, &r->storage_bytes))
            return fail(r, "has a storage of an impossible size");
    }
    r->out->dtype = dtype->dtype;
    r->out->element_bytes = dtype->element_bytes;
    snprintf(r->out->dtype_name, sizeof r->out->dtype_name, "%s", dtype->name);
    return CKPT_OK;
}

static int take_sizes(const pickle_value *v, uint32_t *rank, uint64_t out[CKPT_RANK_MAX])
{
    if (pickle_class_is(v, "torch Size") && pickle_count(pickle_args(v)) == 1)
        v = pickle_item(pickle_args(v), 0);
    if (!pickle_is(v, PICKLE_TUPLE) || pickle_count(v) > CKPT_RANK_MAX)
        return 0;
    *rank = (uint32_t)pickle_count(v);
    for (uint32_t d = 0; d < *rank; d++)
        if (!pickle_u64(pickle_item(v, d), &out[d]))
            return 0;
    return 1;
}

/* Arguments: storage, offset, size, stride, requires_grad, hooks, and for v3 the dtype; v2 may have
 * metadata (conjugation and such) as a seventh, which would change values. */
static ckpt_code read_tensor(reader *r, const pickle_value *tensor)
{
    const int is_v3 = pickle_class_is(tensor, "torch._utils _rebuild_tensor_v3");
    const pickle_value *args = pickle_args(tensor);
    const pickle_value *dtype = pickle_item(args, 6);
    const zip_item_dtype *named = NULL;
    const char *name;
    uint32_t strides;

    if (!is_v3 && !pickle_class_is(tensor, "torch._utils _rebuild_tensor_v2"))
        return fail(r, "does not hold a plain tensor");
    if (is_v3) {
        name = pickle_is(dtype, PICKLE_GLOBAL) ? pickle_class(dtype) : "";
        if (strncmp(name, "torch ", 6) != 0 || (named = zip_item_dtype_named(name + 6)) == NULL)
            return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': the item at %llu has dtype '%s'",
                             file_path(r->file), (unsigned long long)r->offset, name);
    }
    if (pickle_count(pickle_item(args, is_v3 ? 7 : 6)) != 0)
        return fail(r, "has a tensor with metadata, which is not supported");
    if (!pickle_u64(pickle_item(args, 1), &r->out->storage_offset) ||
        !take_sizes(pickle_item(args, 2), &r->out->rank, r->out->shape) ||
        !take_sizes(pickle_item(args, 3), &strides, r->out->strides) || strides != r->out->rank)
        return fail(r, "has a tensor without offset, size and strides");
    return read_storage(r, pickle_item(args, 0), named);
}

static ckpt_code read_object(reader *r, const unsigned char *bytes, size_t size)
{
    const pickle_limits limits = { .memory_bytes = OBJECT_MEMORY };
    const pickle_value *v;
    pickle *p;
    ckpt_code code = pickle_read(bytes, size, &limits, file_path(r->file), &p, r->err);

    if (code != CKPT_OK)
        return code;
    v = pickle_root(p);
    if (pickle_class_is(v, "torch._utils _rebuild_parameter"))
        v = pickle_item(pickle_args(v), 0);
    code = read_tensor(r, v);
    pickle_free(p);
    return code;
}

/* Check that every element is in the storage, with any strides, and detect row-major strides. */
static ckpt_code check_bounds(reader *r)
{
    zip_item *t = r->out;
    uint64_t last = t->storage_offset;
    uint64_t stride = 1;
    int is_empty = 0;

    t->is_row_major = 1;
    for (uint32_t d = t->rank; d-- > 0;) {
        uint64_t way;

        is_empty |= t->shape[d] == 0;
        if (t->shape[d] == 0)
            continue;
        t->is_row_major &= t->shape[d] == 1 || t->strides[d] == stride;
        if (!size_mul(t->shape[d] - 1, t->strides[d], &way) || !size_add(last, way, &last) ||
            !size_mul(stride, t->shape[d], &stride))
            return fail(r, "has a tensor of an impossible size");
    }
    t->is_row_major |= is_empty;
    if (is_empty ? t->storage_offset > t->storage_elements : last >= t->storage_elements)
        return fail(r, "has a tensor with elements outside its storage");
    return CKPT_OK;
}

static ckpt_code read_archive(reader *r, const zip_archive *a)
{
    zip_item *t = r->out;
    unsigned char *object = NULL;
    zip_record record;
    ckpt_code code;

    if ((code = zip_archive_check_order(a, r->err)) != CKPT_OK ||
        (code = zip_archive_find(a, "data.pkl", &record, r->err)) != CKPT_OK ||
        (code = zip_archive_load(a, &record, OBJECT_BYTES_MAX, &object, r->err)) != CKPT_OK)
        return code;
    code = read_object(r, object, (size_t)record.size_bytes);
    free(object);
    if (code != CKPT_OK ||
        (code = zip_archive_find(a, r->record_name, &record, r->err)) != CKPT_OK ||
        (code = zip_archive_locate(a, &record, &t->payload_offset, r->err)) != CKPT_OK)
        return code;
    if (record.size_bytes != r->storage_bytes || record.size_bytes % t->element_bytes != 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s': the item at %llu has a storage of %llu bytes, expected %llu",
                         file_path(r->file), (unsigned long long)r->offset,
                         (unsigned long long)record.size_bytes,
                         (unsigned long long)r->storage_bytes);
    t->payload_bytes = record.size_bytes;
    t->payload_crc = record.crc;
    t->storage_elements = record.size_bytes / t->element_bytes;
    if ((code = check_bounds(r)) != CKPT_OK)
        return code;
    t->data_offset = t->payload_offset + t->storage_offset * t->element_bytes;
    return CKPT_OK;
}

ckpt_code zip_item_read(const ckpt_file *file, uint64_t offset, uint64_t length, zip_item *out,
                        ckpt_error *err)
{
    reader r = { .file = file, .offset = offset, .out = out, .err = err };
    zip_archive a;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if ((code = zip_archive_open(file, offset, length, &a, err)) == CKPT_OK)
        code = read_archive(&r, &a);
    zip_archive_close(&a);
    return code;
}
