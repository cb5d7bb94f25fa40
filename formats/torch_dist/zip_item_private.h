/* zip_item_private.h: shared by the reader and the writer of torch.save items. */
#ifndef CKPT_ZIP_ITEM_PRIVATE_H
#define CKPT_ZIP_ITEM_PRIVATE_H

#include "zip_item.h"

typedef struct {
    ckpt_dtype dtype;
    const char *name;            /* torch's: "bfloat16" */
    const char *storage;         /* class of typed storage; NULL: untyped, tensor_v3 */
    uint32_t element_bytes;
} zip_item_dtype;

/* The entry of a dtype, or NULL. */
const zip_item_dtype *zip_item_dtype_of(ckpt_dtype dtype);
const zip_item_dtype *zip_item_dtype_named(const char *name);
const zip_item_dtype *zip_item_dtype_stored(const char *storage);

#endif
