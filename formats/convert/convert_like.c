/* The target of --like: the same files, headers and extents. */
#include <stdlib.h>

#include "convert_plan.h"
#include "formats/hf.h"

static ckpt_code copy_header(const store_file *from, store_file *to, ckpt_error *err)
{
    to->size_bytes = from->size_bytes;
    to->header_bytes = from->header_bytes;
    if ((to->header = malloc(from->header_bytes + 1)) == NULL)
        return ckpt_fail_memory(err, "a header", from->header_bytes);
    return file_read_at(from->file, 0, to->header, from->header_bytes, err);
}

ckpt_code convert_lay_out_like(job_plan *plan, ckpt_error *err)
{
    const ckpt_store *like = plan->like->store;
    const ckpt_layout *layout = plan->like->reading.layout;
    ckpt_code code = CKPT_OK;

    if (plan->like->format != &format_hf)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' is a %s checkpoint, expected an HF directory",
                         plan->options.like, ckpt_layout_name(plan->like));
    for (size_t i = 0; i < like->file_count && code == CKPT_OK; i++) {
        uint32_t number;

        if ((code = store_add_file(plan->store, like->files[i].name, &number, err)) == CKPT_OK)
            code = copy_header(&like->files[i], &plan->store->files[number], err);
    }
    for (size_t i = 0; i < ckpt_catalog_count(like->catalog) && code == CKPT_OK; i++)
        code = plan->like->reading.fates[i].kind == FATE_DROPPED
                   ? ckpt_fail(err, CKPT_E_USAGE, "'%s' has a tensor '%s' for which there is no "
                       "source",
                               plan->options.like, ckpt_catalog_at(like->catalog, i)->name)
                   : catalog_add(plan->store->catalog, ckpt_catalog_at(like->catalog, i), err);
    if (code != CKPT_OK)
        return code;
    if ((plan->layout = layout_create(plan->targets, plan->store->catalog)) == NULL)
        return ckpt_fail_memory(err, "a layout", layout->count);
    for (size_t i = 0; i < layout->count && code == CKPT_OK; i++)
        code = layout_add(plan->layout, &layout->extents[i], err);
    plan->with_index = plan->like->has_index;
    return code == CKPT_OK ? layout_seal(plan->layout, err) : code;
}
