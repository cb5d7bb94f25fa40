/* zip_item_private.h: what reading and writing torch.save items share. */
#ifndef CKPT_ZIP_ITEM_PRIVATE_H
#define CKPT_ZIP_ITEM_PRIVATE_H

#include "zip_item.h"

typedef struct {
    ckpt_dtype dtype;
    const char *name;            /* torch's: "bfloat16" */
    const char *storage;         /* class of its typed storage; NULL: untyped storage and v3 */
    uint32_t element_bytes;
} zip_item_dtype;

/* NULL when there is none. */
const zip_item_dtype *zip_item_dtype_of(ckpt_dtype dtype);
const zip_item_dtype *zip_item_dtype_named(const char *name);
const zip_item_dtype *zip_item_dtype_stored(const char *storage);

#endif
