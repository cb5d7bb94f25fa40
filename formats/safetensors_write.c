/* Lays out safetensors files before their data exists. */
#include <stdlib.h>
#include <string.h>

#include "safetensors.h"
#include "libckpt/safetensors_header.h"
#include "libckpt/size.h"

/* By file, then as the library orders a file: dtype rank descending, then name. */
static int compare_tensors(const void *left, const void *right)
{
    const ckpt_tensor *const *a = left;
    const ckpt_tensor *const *b = right;

    if ((*a)->file != (*b)->file)
        return (*a)->file < (*b)->file ? -1 : 1;
    if ((*a)->dtype != (*b)->dtype)
        return (*a)->dtype > (*b)->dtype ? -1 : 1;
    return strcmp((*a)->name, (*b)->name);
}

/* Header of one file from its tensors in order; sets their offsets from the data's beginning. */
static ckpt_code lay_out_file(store_file *f, ckpt_tensor **tensors, size_t count,
                              ckpt_error *err)
{
    safetensors_header h;
    uint64_t end = 0;
    ckpt_code code;

    safetensors_header_begin(&h);
    if (f->metadata != NULL) {
        json_put_key(&h.json, "__metadata__");
        json_put_raw(&h.json, f->metadata);
    }
    for (size_t i = 0; i < count; i++) {
        const char *name = tensors[i]->name + (f->prefix == NULL ? 0 : strlen(f->prefix));

        safetensors_header_put(&h, name, tensors[i], end);
        tensors[i]->offset = end;
        if (!size_add(end, ckpt_part_bytes(tensors[i], CKPT_DATA), &end) || end > INT64_MAX) {
            safetensors_header_drop(&h);
            return ckpt_fail(err, CKPT_E_USAGE, "file '%s' would be too large", f->name);
        }
    }
    if ((code = safetensors_header_end(&h, &f->header, &f->header_bytes, err)) != CKPT_OK)
        return code;
    f->size_bytes = f->header_bytes + end;
    for (size_t i = 0; i < count; i++)
        tensors[i]->offset += f->header_bytes;
    if (f->header_bytes - SAFETENSORS_LENGTH_BYTES > SAFETENSORS_HEADER_MAX)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "file '%s' would need a header of %zu bytes, readers accept %d: use more "
                         "files",
                         f->name, f->header_bytes - SAFETENSORS_LENGTH_BYTES,
                         SAFETENSORS_HEADER_MAX);
    return CKPT_OK;
}

ckpt_code safetensors_lay_out(ckpt_store *store, const format_target *target, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(store->catalog);
    ckpt_tensor **order = calloc(count + 1, sizeof *order);
    ckpt_code code = CKPT_OK;
    size_t begin = 0;

    (void)target;
    if (order == NULL)
        return ckpt_fail_memory(err, "the layout of files", count);
    for (size_t i = 0; i < count; i++)
        order[i] = catalog_edit(store->catalog, i);
    qsort(order, count, sizeof *order, compare_tensors);
    for (size_t f = 0; f < store->file_count && code == CKPT_OK; f++) {
        size_t end = begin;

        while (end < count && order[end]->file == f)
            end++;
        code = lay_out_file(&store->files[f], order + begin, end - begin, err);
        begin = end;
    }
    free(order);
    return code;
}
