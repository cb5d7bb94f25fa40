/* Laying out safetensors files before their data exists. */
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "json.h"
#include "safetensors.h"
#include "size.h"

enum { LENGTH_BYTES = 8, ALIGNMENT = 8 };

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

static void put_entry(json_writer *w, const ckpt_tensor *t, const char *prefix, uint64_t begin)
{
    json_put_key(w, t->name + (prefix == NULL ? 0 : strlen(prefix)));
    json_put_object(w);
    json_put_key(w, "dtype");
    json_put_string(w, ckpt_dtype_name(t->dtype));
    json_put_key(w, "shape");
    json_put_array(w);
    for (uint32_t d = 0; d < t->rank; d++)
        json_put_u64(w, t->shape[d]);
    json_put_array_end(w);
    json_put_key(w, "data_offsets");
    json_put_array(w);
    json_put_u64(w, begin);
    json_put_u64(w, begin + ckpt_part_bytes(t, CKPT_DATA));
    json_put_array_end(w);
    json_put_object_end(w);
}

/* Header of one file from its tensors in order; sets their offsets from the data's beginning. */
static ckpt_code lay_out_file(store_file *f, ckpt_tensor **tensors, size_t count,
                              ckpt_error *err)
{
    static const char blanks[LENGTH_BYTES] = "        ";
    const char zeros[LENGTH_BYTES] = { 0 };
    byte_buffer b = { NULL, 0, 0 };
    uint64_t end = 0;
    uint64_t length;
    json_writer w;

    if (byte_buffer_write(&b, zeros, LENGTH_BYTES) != 0)
        return ckpt_fail_memory(err, "a header", LENGTH_BYTES);
    json_writer_begin(&w, byte_buffer_write, &b, 0);
    json_put_object(&w);
    if (f->metadata != NULL) {
        json_put_key(&w, "__metadata__");
        json_put_raw(&w, f->metadata);
    }
    for (size_t i = 0; i < count; i++) {
        put_entry(&w, tensors[i], f->prefix, end);
        tensors[i]->offset = end;
        if (!size_add(end, ckpt_part_bytes(tensors[i], CKPT_DATA), &end) || end > INT64_MAX) {
            free(b.bytes);
            return ckpt_fail(err, CKPT_E_USAGE, "file '%s' would be too large", f->name);
        }
    }
    json_put_object_end(&w);
    if (!json_writer_end(&w) ||
        byte_buffer_write(&b, blanks, (ALIGNMENT - b.used % ALIGNMENT) % ALIGNMENT) != 0) {
        free(b.bytes);
        return ckpt_fail_memory(err, "a header", b.capacity);
    }
    length = b.used - LENGTH_BYTES;
    for (int i = 0; i < LENGTH_BYTES; i++)
        b.bytes[i] = (char)(length >> 8 * i);
    f->header = b.bytes;
    f->header_bytes = b.used;
    f->size_bytes = b.used + end;
    for (size_t i = 0; i < count; i++)
        tensors[i]->offset += b.used;
    if (length > SAFETENSORS_HEADER_MAX)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "file '%s' would need a header of %llu bytes, readers take %d: use more "
                         "files",
                         f->name, (unsigned long long)length, SAFETENSORS_HEADER_MAX);
    return CKPT_OK;
}

ckpt_code safetensors_lay_out(ckpt_store *store, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(store->catalog);
    ckpt_tensor **order = calloc(count + 1, sizeof *order);
    ckpt_code code = CKPT_OK;
    size_t begin = 0;

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
