/* zip_item_write.c: makes head and tail of an item before its payload exists. */
#include <string.h>

#include "pickle_write.h"
#include "libckpt/size.h"
#include "zip_build.h"
#include "zip_item_private.h"

enum { PICKLE_BYTES_MAX = 512 };

typedef struct {
    unsigned char bytes[PICKLE_BYTES_MAX];
    size_t used;
} small_buffer;

static int small_buffer_write(void *context, const void *bytes, size_t size)
{
    small_buffer *b = context;

    if (size > sizeof b->bytes - b->used)
        return 1;
    memcpy(b->bytes + b->used, bytes, size);
    b->used += size;
    return 0;
}

/* Number of elements and row-major strides; a dimension of 0 counts as 1 in strides, as in
 * torch. */
static ckpt_code measure(const zip_item_tensor *t, uint64_t *elements,
                         uint64_t strides[CKPT_RANK_MAX], ckpt_error *err)
{
    uint64_t stride = 1;

    *elements = 1;
    for (uint32_t d = t->rank; d-- > 0;) {
        strides[d] = stride;
        if (!size_mul(*elements, t->shape[d], elements) ||
            !size_mul(stride, size_max(t->shape[d], 1), &stride) || stride > INT64_MAX / 16)
            return ckpt_fail(err, CKPT_E_USAGE, "a tensor of so many elements has no torch item");
    }
    return CKPT_OK;
}

/* Rebuilding a tensor from its storage: the arguments of torch._utils._rebuild_tensor_v2 and v3.
 * v3 has untyped storage, which counts bytes, and names the dtype at the end. */
static void put_tensor(pickle_writer *w, const zip_item_tensor *t, uint64_t elements,
                       const uint64_t *strides)
{
    const zip_item_dtype *d = zip_item_dtype_of(t->dtype);
    char name[64];

    pickle_put_global(w, d->storage != NULL ? "torch._utils _rebuild_tensor_v2"
                                            : "torch._utils _rebuild_tensor_v3");
    pickle_put_op(w, PICKLE_OP_MARK);
    pickle_put_op(w, PICKLE_OP_MARK);
    pickle_put_text(w, "storage");
    pickle_put_global(w, d->storage != NULL ? d->storage : "torch.storage UntypedStorage");
    pickle_put_text(w, "0");
    pickle_put_text(w, "cpu");
    pickle_put_i64(w, (int64_t)(d->storage != NULL ? elements : elements * d->element_bytes));
    pickle_put_op(w, PICKLE_OP_TUPLE);
    pickle_put_op(w, PICKLE_OP_BINPERSID);
    pickle_put_i64(w, 0);
    pickle_put_sizes(w, t->shape, t->rank);
    pickle_put_sizes(w, strides, t->rank);
    pickle_put_bool(w, 0);
    pickle_put_global(w, "collections OrderedDict");
    pickle_put_op(w, PICKLE_OP_EMPTY_TUPLE);
    pickle_put_op(w, PICKLE_OP_REDUCE);
    if (d->storage == NULL) {
        snprintf(name, sizeof name, "torch %s", d->name);
        pickle_put_global(w, name);
    }
    pickle_put_op(w, PICKLE_OP_TUPLE);
    pickle_put_op(w, PICKLE_OP_REDUCE);
}

/* Build the archive with a pickle and, unless payload_bytes is NULL, one storage. */
static ckpt_code lay_out(const small_buffer *object, const uint64_t *payload_bytes,
                         zip_item_plan *out, ckpt_error *err)
{
    zip_builder b;
    size_t tail_crc;
    uint64_t end;

    memset(out, 0, sizeof *out);
    zip_build_begin(&b, "archive", out->head, sizeof out->head);
    zip_build_record_add(&b, "version", "3\n", 2);
    zip_build_record_add(&b, "byteorder", "little", 6);
    zip_build_record_add(&b, "data.pkl", object->bytes, object->used);
    if (payload_bytes != NULL) {
        zip_build_record_announce(&b, "data/0", *payload_bytes);
        out->payload_bytes = *payload_bytes;
        out->head_crc_offset = (uint32_t)b.records[b.count - 1].crc_position;
    }
    out->head_bytes = (uint32_t)b.used;
    if (!size_add(out->head_bytes, out->payload_bytes, &end))
        return ckpt_fail(err, CKPT_E_USAGE, "an item of so many bytes is too large");
    out->tail_bytes = (uint32_t)zip_build_tail(&b, end, out->tail, sizeof out->tail, &tail_crc);
    if (out->tail_bytes == 0 || !size_add(end, out->tail_bytes, &out->size_bytes))
        return ckpt_fail(err, CKPT_E_USAGE, "an item's description is too large");
    if (payload_bytes != NULL)
        out->tail_crc_offset = (uint32_t)tail_crc;
    return CKPT_OK;
}

ckpt_code zip_item_plan_tensor(const zip_item_tensor *tensor, zip_item_plan *out,
                               ckpt_error *err)
{
    const uint32_t element_bytes = zip_item_element_bytes(tensor->dtype);
    small_buffer object = { .used = 0 };
    uint64_t strides[CKPT_RANK_MAX];
    uint64_t elements;
    uint64_t bytes;
    pickle_writer w;
    ckpt_code code;

    if (element_bytes == 0)
        return ckpt_fail(err, CKPT_E_USAGE, "torch has no dtype for %s",
                         ckpt_dtype_name(tensor->dtype));
    if (tensor->rank > CKPT_RANK_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "a tensor has more than %d dimensions",
                         CKPT_RANK_MAX);
    if ((code = measure(tensor, &elements, strides, err)) != CKPT_OK)
        return code;
    bytes = elements * element_bytes;            /* measure() left room for the factor */
    pickle_writer_begin(&w, small_buffer_write, &object);
    put_tensor(&w, tensor, elements, strides);
    if ((code = pickle_writer_end(&w, err)) != CKPT_OK)
        return code;
    return lay_out(&object, &bytes, out, err);
}

ckpt_code zip_item_plan_none(zip_item_plan *out, ckpt_error *err)
{
    small_buffer object = { .used = 0 };
    pickle_writer w;
    ckpt_code code;

    pickle_writer_begin(&w, small_buffer_write, &object);
    pickle_put_op(&w, PICKLE_OP_EMPTY_LIST);
    pickle_put_op(&w, PICKLE_OP_NONE);
    pickle_put_op(&w, PICKLE_OP_APPEND);
    if ((code = pickle_writer_end(&w, err)) != CKPT_OK)
        return code;
    return lay_out(&object, NULL, out, err);
}

ckpt_code zip_item_plan_empty(zip_item_plan *out, ckpt_error *err)
{
    static const zip_item_tensor empty = { .dtype = CKPT_U8, .rank = 1 };
    static const uint64_t strides[CKPT_RANK_MAX] = { 1 };
    small_buffer object = { .used = 0 };
    const uint64_t no_bytes = 0;
    pickle_writer w;
    ckpt_code code;

    pickle_writer_begin(&w, small_buffer_write, &object);
    pickle_put_op(&w, PICKLE_OP_EMPTY_LIST);
    put_tensor(&w, &empty, 0, strides);
    pickle_put_op(&w, PICKLE_OP_APPEND);
    if ((code = pickle_writer_end(&w, err)) != CKPT_OK)
        return code;
    return lay_out(&object, &no_bytes, out, err);
}

static void put_crc(unsigned char *at, uint32_t crc)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(crc >> 8 * i);
}

void zip_item_set_crc(zip_item_plan *plan, uint32_t crc)
{
    if (plan->head_crc_offset == 0)
        return;
    put_crc(plan->head + plan->head_crc_offset, crc);
    put_crc(plan->tail + plan->tail_crc_offset, crc);
}
