/* Groups the tensors of a store by file and sorts each group. */
#include "file_order.h"

#include <stdlib.h>

#include "libckpt/catalog.h"

static int compare_tensors(const void *left, const void *right, void *context)
{
    const file_order *order = context;
    const ckpt_tensor *const *a = left;
    const ckpt_tensor *const *b = right;

    if ((*a)->file != (*b)->file)
        return (*a)->file < (*b)->file ? -1 : 1;
    return order->compare(*a, *b);
}

ckpt_code file_order_lay_out(ckpt_store *store, const file_order *order, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(store->catalog);
    ckpt_tensor **tensors = calloc(count + 1, sizeof *tensors);
    ckpt_code code = CKPT_OK;
    size_t begin = 0;

    if (tensors == NULL)
        return ckpt_fail_memory(err, "the layout of files", count);
    for (size_t i = 0; i < count; i++)
        tensors[i] = catalog_edit(store->catalog, i);
    qsort_r(tensors, count, sizeof *tensors, compare_tensors, (void *)(uintptr_t)order);
    for (size_t f = 0; f < store->file_count && code == CKPT_OK; f++) {
        size_t end = begin;

        while (end < count && tensors[end]->file == f)
            end++;
        code = order->lay_out(store, f, tensors + begin, end - begin, order->context, err);
        begin = end;
    }
    free(tensors);
    return code;
}
