/* ckpt_source_read and ckpt_source_read_f32: any rows of a tensor, independent of tiles. */
#include "values.h"

#include <string.h>

#include "size.h"

/* Rows [row, end) of one part of a tensor, and the destination of the next row. */
typedef struct {
    const ckpt_tensor *tensor;
    ckpt_part part;
    uint64_t row;
    uint64_t end;
    char *out;
    int as_f32;                /* decoded; `part` is CKPT_DATA */
} wanted_rows;

/* Decode rows [begin, end) of the tensor, which the tile contains. */
static ckpt_code decode_rows(wanted_rows *wanted, const source_range *range, const ckpt_tile *tile,
                             arena *scratch, ckpt_error *err)
{
    const ckpt_tensor *t = wanted->tensor;
    const uint64_t cols = ckpt_tensor_cols(t);
    const uint64_t begin = size_max(range->row, wanted->row);
    const uint64_t end = size_min(range->row + range->row_count, wanted->end);
    values_reader values;
    ckpt_code code;

    if ((code = values_check(t, range, tile, err)) != CKPT_OK ||
        (code = values_begin(&values, t, tile, scratch, err)) != CKPT_OK)
        return code;
    for (uint64_t r = begin; r < end; r++) {
        void *row = wanted->out;

        values_f32(&values, r - range->row, 0, cols, row);
        wanted->out += cols * sizeof(float);
    }
    return CKPT_OK;
}

/* Copy the wanted rows of a tile. */
static void copy_rows(wanted_rows *wanted, const source_range *range, const ckpt_tile *tile)
{
    const uint64_t row_bytes = ckpt_part_row_bytes(wanted->tensor, wanted->part);
    uint64_t first;
    uint64_t count;
    uint64_t begin;
    uint64_t end;

    source_part_rows(wanted->tensor, wanted->part, range, &first, &count);
    begin = size_max(first, wanted->row);
    end = size_min(first + count, wanted->end);
    if (begin >= end)
        return;
    memcpy(wanted->out, (const char *)tile->part[wanted->part] + (begin - first) * row_bytes,
           (end - begin) * row_bytes);
    wanted->out += (end - begin) * row_bytes;
}

static ckpt_code check_rows(const wanted_rows *wanted, uint64_t row_count, ckpt_error *err)
{
    const uint64_t rows = ckpt_part_rows(wanted->tensor, wanted->part);

    if (wanted->row <= rows && row_count <= rows - wanted->row)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' has %llu rows, not %llu + %llu",
                     wanted->tensor->name, (unsigned long long)rows,
                     (unsigned long long)wanted->row, (unsigned long long)row_count);
}

/* Read all tiles that contain wanted rows. */
static ckpt_code read_tiles(ckpt_source *source, size_t tensor, wanted_rows *wanted,
                            ckpt_error *err)
{
    const ckpt_tensor *t = wanted->tensor;
    const uint64_t rows = ckpt_tensor_rows(t);
    const uint64_t block =
        wanted->part == CKPT_SCALE && t->scale_dtype != CKPT_NONE ? t->block_rows : 1;
    const uint64_t end = size_min(wanted->end * block, rows);
    source_range range = { .tensor = tensor,
                           .want = wanted->as_f32 ? SOURCE_WANT_ALL : 1u << wanted->part };
    ckpt_code code = CKPT_OK;
    uint64_t need;
    arena scratch;

    need = source_need(source, tensor, size_min(source_tile_rows(t), rows)) +
           (wanted->as_f32 ? values_need(t) : 0);
    if (!arena_init_fixed(&scratch, need))
        return ckpt_fail_memory(err, "a tile", need);
    range.row = wanted->row * block / source_tile_rows(t) * source_tile_rows(t);
    while (code == CKPT_OK && wanted->row < wanted->end && range.row < end) {
        ckpt_tile tile;

        range.row_count = size_min(source_tile_rows(t), rows - range.row);
        arena_rewind(&scratch, 0);
        code = source_read_tile(source, &range, &scratch, &tile, err);
        if (code == CKPT_OK && wanted->as_f32)
            code = decode_rows(wanted, &range, &tile, &scratch, err);
        else if (code == CKPT_OK)
            copy_rows(wanted, &range, &tile);
        range.row += range.row_count;
    }
    arena_release(&scratch);
    return code;
}

ckpt_code ckpt_source_read(ckpt_source *source, size_t tensor, ckpt_part part, uint64_t row,
                           uint64_t row_count, void *out, ckpt_error *err)
{
    wanted_rows wanted = { ckpt_catalog_at(source->catalog, tensor), part, row, row + row_count,
                           out, 0 };
    const ckpt_code code = check_rows(&wanted, row_count, err);

    return code == CKPT_OK ? read_tiles(source, tensor, &wanted, err) : code;
}

ckpt_code ckpt_source_read_f32(ckpt_source *source, size_t tensor, uint64_t row,
                               uint64_t row_count, float *out, ckpt_error *err)
{
    wanted_rows wanted = { ckpt_catalog_at(source->catalog, tensor), CKPT_DATA, row,
                           row + row_count, (char *)out, 1 };
    const ckpt_code code = check_rows(&wanted, row_count, err);

    if (code != CKPT_OK)
        return code;
    if (ckpt_tensor_is_int(wanted.tensor))
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' holds integers (%s), which are not read "
                         "as F32", wanted.tensor->name, ckpt_dtype_name(wanted.tensor->dtype));
    return read_tiles(source, tensor, &wanted, err);
}
