/*
 * tensor.h: one tensor, as a catalog describes it: its check, its parts, its shape as text.
 */
#ifndef CKPT_TENSOR_H
#define CKPT_TENSOR_H

#include "ckpt.h"
#include "json.h"

/* Check a tensor's shape. Fails when the bytes of a part overflow, when a row of sub-byte elements
 * is not a whole number of bytes, or when the shape does not suit the encoding (FP4 rows that are
 * not whole groups). After this the ckpt_part_* functions cannot overflow, and kernels do not read
 * or write beyond a row. */
ckpt_code catalog_check_shape(const ckpt_tensor *tensor, ckpt_error *err);

/* 1 for parts that are one row for the whole tensor: tensor scale, input scale and shape. */
static inline int catalog_is_of_whole(ckpt_part part)
{
    return part == CKPT_TENSOR_SCALE || part == CKPT_INPUT_SCALE || part == CKPT_SHAPE;
}

/* The dtype of one part in a tile; CKPT_NONE: the tensor has no such part. */
ckpt_dtype catalog_part_dtype(const ckpt_tensor *tensor, ckpt_part part);

/* 1 when two tensors have the same encoding: dtype, scale dtype, block and tensor scale. */
int catalog_same_encoding(const ckpt_tensor *a, const ckpt_tensor *b);
int catalog_same_shape(const ckpt_tensor *a, const ckpt_tensor *b);

/* Change a tensor to plain elements of `dtype`, without scales. */
void catalog_set_plain(ckpt_tensor *tensor, ckpt_dtype dtype);

/* CKPT_OK when `got` has the shape and class (float or integer) of `expected`, or consists of codes
 * that are not decoded. `where` ("" or " of 'PATH'") follows the name in the error. */
ckpt_code catalog_check_same(const ckpt_tensor *got, const ckpt_tensor *expected,
                             const char *where, ckpt_error *err);

/* Write a shape as "[128, 64]" into out, NUL-terminated. */
void catalog_shape_text(const ckpt_tensor *tensor, char *out, size_t out_bytes);

/* Write the member "shape" of a JSON object: [128, 64]. */
void catalog_put_shape(json_writer *w, const ckpt_tensor *tensor);

#endif
