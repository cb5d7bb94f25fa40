/* Lays out safetensors files before their data exists. */
#include <string.h>

#include "file_order.h"
#include "safetensors.h"
#include "libckpt/safetensors_header.h"
#include "libckpt/size.h"

/* As the library orders a file: dtype rank descending, then name. */
static int compare_tensors(const ckpt_tensor *a, const ckpt_tensor *b)
{
    if (a->dtype != b->dtype)
        return a->dtype > b->dtype ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Header of one file from its tensors in order; sets their offsets from the data's beginning. */
static ckpt_code lay_out_file(ckpt_store *store, size_t file, ckpt_tensor **tensors, size_t count,
                              const void *context, ckpt_error *err)
{
    store_file *f = &store->files[file];
    safetensors_header h;
    uint64_t end = 0;
    ckpt_code code;

    (void)context;
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
    static const file_order order = { compare_tensors, lay_out_file, NULL };

    (void)target;
    return file_order_lay_out(store, &order, err);
}
