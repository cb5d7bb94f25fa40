/* The geometry of tiles, for all sources. */
#include "source.h"

#include <assert.h>
#include <string.h>

#include "size.h"

enum { TILE_TARGET_BYTES = 1 << 20 };     /* of a tile as F32, so that it fits a core's caches */

const ckpt_catalog *ckpt_source_catalog(const ckpt_source *source)
{
    return source->catalog;
}

ckpt_code source_read_tile(ckpt_source *source, const source_range *range, arena *scratch,
                           ckpt_tile *tile, ckpt_error *err)
{
    assert(range->tensor < source->catalog->count);
    assert(range->row % SOURCE_BAND_ROWS == 0 ||
           ckpt_catalog_at(source->catalog, range->tensor)->scale_dtype == CKPT_NONE);
    memset(tile, 0, sizeof *tile);
    return source->ops->read(source, range, scratch, tile, err);
}

uint64_t source_need(const ckpt_source *source, size_t tensor, uint64_t row_count)
{
    return source->ops->need(source, tensor, row_count);
}

void ckpt_source_free(ckpt_source *source)
{
    if (source != NULL)
        source->ops->free(source);
}

uint64_t source_tile_rows(const ckpt_tensor *tensor)
{
    const uint64_t cols = size_max(ckpt_tensor_cols(tensor), 1);
    const uint64_t rows = TILE_TARGET_BYTES / 4 / cols / SOURCE_BAND_ROWS * SOURCE_BAND_ROWS;

    return size_max(rows, SOURCE_BAND_ROWS);
}

void source_scale_rows(const ckpt_tensor *tensor, const source_range *range, uint64_t *row,
                       uint64_t *row_count)
{
    *row = range->row / tensor->block_rows;
    *row_count = size_div_up(range->row + range->row_count, tensor->block_rows) - *row;
}

void source_part_rows(const ckpt_tensor *tensor, ckpt_part part, const source_range *range,
                      uint64_t *row, uint64_t *row_count)
{
    *row = range->row;
    *row_count = range->row_count;
    if (part == CKPT_SCALE)
        source_scale_rows(tensor, range, row, row_count);
    if (catalog_is_of_whole(part)) {
        *row = 0;
        *row_count = 1;
    }
}

uint64_t source_part_offset(const ckpt_tensor *tensor, ckpt_part part, const source_range *range)
{
    uint64_t row;
    uint64_t row_count;

    source_part_rows(tensor, part, range, &row, &row_count);
    return row * ckpt_part_row_bytes(tensor, part);
}
