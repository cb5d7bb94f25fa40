/*
 * file_order.h: laying out files one after the other, each from its tensors in a fixed order.
 */
#ifndef CKPT_FILE_ORDER_H
#define CKPT_FILE_ORDER_H

#include "libckpt/store.h"

typedef struct {
    /* Order of two tensors of the same file, as for qsort. Names are unique, so an order that ends
     * with them does not depend on the source's order. */
    int (*compare)(const ckpt_tensor *a, const ckpt_tensor *b);
    /* Lay out store->files[file]; `tensors` are all tensors of it, in order, to be edited. */
    ckpt_code (*lay_out)(ckpt_store *store, size_t file, ckpt_tensor **tensors, size_t count,
                         const void *context, ckpt_error *err);
    const void *context;           /* for lay_out */
} file_order;

/* Lay out every file of the store; the first failure ends it. */
ckpt_code file_order_lay_out(ckpt_store *store, const file_order *order, ckpt_error *err);

#endif
