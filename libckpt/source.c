/* What all sources share: tile geometry and the convenient read. */
#include "source.h"

#include <assert.h>
#include <string.h>

#include "size.h"

enum { TILE_TARGET_BYTES = 1 << 20 };     /* of F32: what stays in a core's caches */

const ckpt_catalog *ckpt_source_catalog(const ckpt_source *source)
{
    return source->catalog;
}

ckpt_code source_read_tile(ckpt_source *source, const source_range *range, arena *scratch,
                           ckpt_tile *tile, ckpt_error *err)
{
    assert(range->tensor < source->catalog->count);
    assert(range->row % SOURCE_BAND_ROWS == 0);
    memset(tile, 0, sizeof *tile);
    return source->ops->read(source, range, scratch, tile, err);
}

uint64_t source_need(const ckpt_source *source, size_t tensor, uint64_t row_count)
{
    return source->ops->need(source, tensor, row_count);
}

void source_free(ckpt_source *source)
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
}

/* Rows [row, end) of one part of a tensor, and where the next of them goes. */
typedef struct {
    const ckpt_tensor *tensor;
    ckpt_part part;
    uint64_t row;
    uint64_t end;
    char *out;
} wanted_rows;

/* Copy the wanted rows that are in a tile. */
static void copy_rows(wanted_rows *wanted, const source_range *range, const ckpt_tile *tile)
{
    const uint64_t row_bytes = ckpt_part_row_bytes(wanted->tensor, wanted->part);
    uint64_t first = range->row;
    uint64_t count = range->row_count;
    uint64_t begin;
    uint64_t end;

    if (wanted->part == CKPT_SCALE)
        source_scale_rows(wanted->tensor, range, &first, &count);
    begin = size_max(first, wanted->row);
    end = size_min(first + count, wanted->end);
    if (begin >= end)
        return;
    memcpy(wanted->out, (const char *)tile->part[wanted->part] + (begin - first) * row_bytes,
           (end - begin) * row_bytes);
    wanted->out += (end - begin) * row_bytes;
}

ckpt_code ckpt_source_read(ckpt_source *source, size_t tensor, ckpt_part part, uint64_t row,
                           uint64_t row_count, void *out, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(source->catalog, tensor);
    const uint64_t rows = ckpt_tensor_rows(t);
    const uint64_t block = part == CKPT_SCALE && t->scale_dtype != CKPT_NONE ? t->block_rows : 1;
    source_range range = { .tensor = tensor, .want = 1u << part };
    wanted_rows wanted = { t, part, row, row + row_count, out };
    ckpt_code code = CKPT_OK;
    uint64_t end;
    arena scratch;

    if (row > ckpt_part_rows(t, part) || row_count > ckpt_part_rows(t, part) - row)
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' has %llu rows, not %llu + %llu", t->name,
                         (unsigned long long)ckpt_part_rows(t, part), (unsigned long long)row,
                         (unsigned long long)row_count);
    range.row_count = size_min(source_tile_rows(t), rows);
    if (!arena_init_fixed(&scratch, source_need(source, tensor, range.row_count)))
        return ckpt_fail_memory(err, "a tile", source_need(source, tensor, range.row_count));
    end = size_min((row + row_count) * block, rows);
    range.row = row * block / source_tile_rows(t) * source_tile_rows(t);
    while (code == CKPT_OK && row_count > 0 && range.row < end) {
        ckpt_tile tile;

        range.row_count = size_min(source_tile_rows(t), rows - range.row);
        arena_rewind(&scratch, 0);
        code = source_read_tile(source, &range, &scratch, &tile, err);
        if (code == CKPT_OK)
            copy_rows(&wanted, &range, &tile);
        range.row += range.row_count;
    }
    arena_release(&scratch);
    return code;
}
