/* Zeros, tile by tile. */
#include "delta_zeros.h"

#include <string.h>

static ckpt_code zero_read(ckpt_source *self, const source_range *range, arena *scratch,
                           ckpt_tile *tile, ckpt_error *err)
{
    const uint64_t size =
        range->row_count *
        ckpt_part_row_bytes(ckpt_catalog_at(self->catalog, range->tensor), CKPT_DATA);

    tile->part_bytes[CKPT_DATA] = size;
    if ((tile->part[CKPT_DATA] = arena_alloc(scratch, size)) == NULL)
        return ckpt_fail_memory(err, "a tile", size);
    memset(tile->part[CKPT_DATA], 0, size);
    return CKPT_OK;
}

static uint64_t zero_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    return arena_cost(row_count *
                      ckpt_part_row_bytes(ckpt_catalog_at(self->catalog, tensor), CKPT_DATA));
}

ckpt_source delta_zeros(const ckpt_catalog *catalog)
{
    static const source_ops ops = { zero_read, zero_need, NULL };

    return (ckpt_source){ &ops, catalog };
}
