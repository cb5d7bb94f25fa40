/* side_data_private.h: what the reader and the writer of side data share. */
#ifndef CKPT_SIDE_DATA_PRIVATE_H
#define CKPT_SIDE_DATA_PRIVATE_H

#include "side_data.h"

static const char side_data_magic[] = "ckpt-fp4-scales 1 ";

typedef struct {
    const char *name;
    size_t first;                  /* of its entries */
    size_t count;
} side_tensor;

struct side_data {
    encode_exception_table base;
    arena memory;                  /* names */
    table names;
    side_tensor *tensors;          /* malloc'd */
    size_t tensor_count;
    size_t tensor_capacity;
    encode_exception *entries;     /* malloc'd */
    size_t entry_count;
    size_t entry_capacity;
};

#endif
