/* The row view of a tensor, and the sizes that follow from it. */
#include "tensor.h"

#include <stdio.h>
#include <string.h>

#include "encoding.h"
#include "size.h"

uint64_t ckpt_tensor_rows(const ckpt_tensor *tensor)
{
    uint64_t rows = 1;

    for (uint32_t i = 0; i + 1 < tensor->rank; i++)
        rows *= tensor->shape[i];
    return rows;
}

uint64_t ckpt_tensor_cols(const ckpt_tensor *tensor)
{
    return tensor->rank == 0 ? 1 : tensor->shape[tensor->rank - 1];
}

ckpt_dtype catalog_part_dtype(const ckpt_tensor *tensor, ckpt_part part)
{
    if (part == CKPT_TENSOR_SCALE)
        return tensor->tensor_scale == CKPT_TENSOR_SCALE_NONE ? CKPT_NONE : CKPT_F32;
    if (part == CKPT_INPUT_SCALE)
        return tensor->has_input_scale ? CKPT_F32 : CKPT_NONE;
    if (part == CKPT_SHAPE)
        return (ckpt_dtype)tensor->shape_dtype;
    return part == CKPT_DATA ? tensor->dtype : tensor->scale_dtype;
}

uint64_t ckpt_part_rows(const ckpt_tensor *tensor, ckpt_part part)
{
    if (part == CKPT_DATA)
        return ckpt_tensor_rows(tensor);
    if (catalog_part_dtype(tensor, part) == CKPT_NONE)
        return 0;
    if (catalog_is_of_whole(part))
        return 1;
    return size_div_up(ckpt_tensor_rows(tensor), tensor->block_rows);
}

uint64_t ckpt_part_cols(const ckpt_tensor *tensor, ckpt_part part)
{
    if (part == CKPT_DATA)
        return ckpt_tensor_cols(tensor);
    if (catalog_part_dtype(tensor, part) == CKPT_NONE)
        return 0;
    if (catalog_is_of_whole(part))
        return part == CKPT_SHAPE ? tensor->rank : 1;
    return size_div_up(ckpt_tensor_cols(tensor), tensor->block_cols);
}

uint64_t ckpt_part_row_bytes(const ckpt_tensor *tensor, ckpt_part part)
{
    return ckpt_part_cols(tensor, part) * ckpt_dtype_bits(catalog_part_dtype(tensor, part)) / 8;
}

uint64_t ckpt_part_bytes(const ckpt_tensor *tensor, ckpt_part part)
{
    return ckpt_part_rows(tensor, part) * ckpt_part_row_bytes(tensor, part);
}

uint64_t ckpt_tensor_bytes(const ckpt_tensor *tensor)
{
    uint64_t bytes = 0;

    for (int part = 0; part < CKPT_PART_COUNT; part++)
        bytes += ckpt_part_bytes(tensor, (ckpt_part)part);
    return bytes;
}

int ckpt_tensor_is_int(const ckpt_tensor *tensor)
{
    if (tensor->scale_dtype != CKPT_NONE)       /* I8 is a dtype of codes here */
        return 0;
    switch (tensor->dtype) {
    case CKPT_BOOL:
    case CKPT_U8:
    case CKPT_I8:
    case CKPT_I16:
    case CKPT_U16:
    case CKPT_I32:
    case CKPT_U32:
    case CKPT_I64:
    case CKPT_U64:
        return 1;
    default:
        return 0;
    }
}

void ckpt_tensor_encoding(const ckpt_tensor *tensor, char *out, size_t out_bytes)
{
    static const char *const tensor_scales[] = { "", " * F32", " / F32" };

    if (tensor->scale_dtype == CKPT_NONE)
        snprintf(out, out_bytes, "%s", tensor->codes_name != NULL
                                           ? tensor->codes_name : ckpt_dtype_name(tensor->dtype));
    else if (tensor->block_cols == ENCODING_WHOLE_ROW)
        snprintf(out, out_bytes, "%s %uxrow %s", ckpt_dtype_name(tensor->dtype),
                 tensor->block_rows, ckpt_dtype_name(tensor->scale_dtype));
    else
        snprintf(out, out_bytes, "%s %ux%u %s%s", ckpt_dtype_name(tensor->dtype),
                 tensor->block_rows, tensor->block_cols, ckpt_dtype_name(tensor->scale_dtype),
                 tensor_scales[tensor->tensor_scale]);
}

int catalog_same_encoding(const ckpt_tensor *a, const ckpt_tensor *b)
{
    return a->dtype == b->dtype && a->scale_dtype == b->scale_dtype &&
           a->block_rows == b->block_rows && a->block_cols == b->block_cols &&
           a->tensor_scale == b->tensor_scale;
}

int catalog_same_shape(const ckpt_tensor *a, const ckpt_tensor *b)
{
    return a->rank == b->rank && memcmp(a->shape, b->shape, a->rank * sizeof a->shape[0]) == 0;
}

void catalog_set_plain(ckpt_tensor *tensor, ckpt_dtype dtype)
{
    tensor->dtype = dtype;
    tensor->stored_dtype = dtype;
    tensor->scale_dtype = CKPT_NONE;
    tensor->stored_scale_dtype = CKPT_NONE;
    tensor->has_scale_vector = 0;
    tensor->tensor_scale = CKPT_TENSOR_SCALE_NONE;
    tensor->has_tensor_scale_vector = 0;
    tensor->has_input_scale = 0;
    tensor->has_input_scale_vector = 0;
    tensor->shape_dtype = CKPT_NONE;
    tensor->part_names = CKPT_NAMES_OF_MAP;
    tensor->stored_form = CKPT_FORM_APART;
    tensor->block_rows = 0;
    tensor->block_cols = 0;
}

ckpt_code catalog_check_same(const ckpt_tensor *got, const ckpt_tensor *expected,
                             const char *where, ckpt_error *err)
{
    char expected_shape[256];
    char got_shape[256];

    if (got->codes_name != NULL ||             /* the shape counts bytes, not elements */
        (catalog_same_shape(got, expected) &&
         ckpt_tensor_is_int(got) == ckpt_tensor_is_int(expected)))
        return CKPT_OK;
    catalog_shape_text(expected, expected_shape, sizeof expected_shape);
    catalog_shape_text(got, got_shape, sizeof got_shape);
    return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s'%s is %s %s, expected %s %s", got->name, where,
                     ckpt_dtype_name(got->dtype), got_shape, ckpt_dtype_name(expected->dtype),
                     expected_shape);
}

void catalog_shape_text(const ckpt_tensor *tensor, char *out, size_t out_bytes)
{
    size_t used = 0;

    used += (size_t)snprintf(out, out_bytes, "[");
    for (uint32_t i = 0; i < tensor->rank && i < CKPT_RANK_MAX && used < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%llu", i == 0 ? "" : ", ",
                                 (unsigned long long)tensor->shape[i]);
    if (used < out_bytes)
        snprintf(out + used, out_bytes - used, "]");
}

void catalog_put_shape(json_writer *w, const ckpt_tensor *tensor)
{
    json_member_array(w, "shape");
    for (uint32_t d = 0; d < tensor->rank; d++)
        json_put_u64(w, tensor->shape[d]);
    json_put_array_end(w);
}
