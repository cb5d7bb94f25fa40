/* Where tiles lie in files, and writing them there. */
#include "store.h"

#include "size.h"

int store_locate(const ckpt_layout *layout, const layout_extent *extent, uint64_t row,
                 uint64_t row_count, store_piece *out)
{
    const ckpt_tensor *logical = ckpt_catalog_at(layout->logical, extent->logical);
    const ckpt_tensor *stored = ckpt_catalog_at(layout->stored, extent->stored);
    const uint32_t bits = ckpt_dtype_bits(catalog_part_dtype(logical, (ckpt_part)extent->part));
    const uint64_t begin = size_max(row, extent->row);
    const uint64_t end = size_min(row + row_count, extent->row + extent->row_count);
    const uint64_t pitch_bytes =
        extent->column ? bits / 8 : ckpt_part_row_bytes(stored, CKPT_DATA);

    if (begin >= end || extent->col_count == 0)
        return 0;
    out->rect.pitch_bytes = pitch_bytes;
    out->rect.row_bytes = extent->col_count * bits / 8;
    out->rect.row_count = end - begin;
    out->rect.offset = stored->offset + (extent->stored_row + (begin - extent->row)) * pitch_bytes +
                       extent->stored_col * bits / 8;
    out->file = stored->file;
    out->tile_row = begin - row;
    out->tile_col_bytes = extent->col * bits / 8;
    return 1;
}

typedef struct {
    ckpt_store *store;
    const ckpt_layout *layout;
    int writes;               /* 0: the bytes are there already */
} tile_visit;

/* Every run of bytes that a tile has in the files: write it or not, and tell the watch. */
static ckpt_code visit_tile(const tile_visit *visit, const source_range *range,
                            const ckpt_tile *tile, ckpt_error *err)
{
    ckpt_store *store = visit->store;
    const ckpt_layout *layout = visit->layout;
    const ckpt_tensor *tensor = ckpt_catalog_at(layout->logical, range->tensor);

    for (int part = 0; part < CKPT_PART_COUNT; part++) {
        const uint64_t row_bytes = ckpt_part_row_bytes(tensor, (ckpt_part)part);
        const layout_extent *e;
        const layout_extent *end;
        uint64_t row;
        uint64_t row_count;

        if (tile->part[part] == NULL || (part == CKPT_TENSOR_SCALE && range->row > 0))
            continue;                  /* that one is written with the first tile */
        source_part_rows(tensor, (ckpt_part)part, range, &row, &row_count);
        layout_extents(layout, range->tensor, (ckpt_part)part, &e, &end);
        for (; e < end; e++) {
            store_piece piece;
            const char *rows;
            ckpt_code code;

            if (!store_locate(layout, e, row, row_count, &piece))
                continue;
            rows = (const char *)tile->part[part] + piece.tile_row * row_bytes +
                   piece.tile_col_bytes;
            if (visit->writes &&
                (code = file_write_rect(store->files[piece.file].file, &piece.rect, rows, row_bytes,
                                        err)) != CKPT_OK)
                return code;
            if (store->watch != NULL)
                store->watch->wrote(store->watch, e->stored, &piece.rect, rows, row_bytes);
        }
    }
    return CKPT_OK;
}

ckpt_code store_write_tile(ckpt_store *store, const ckpt_layout *layout,
                           const source_range *range, const ckpt_tile *tile, ckpt_error *err)
{
    return visit_tile(&(tile_visit){ store, layout, 1 }, range, tile, err);
}

void store_found_tile(ckpt_store *store, const ckpt_layout *layout, const source_range *range,
                      const ckpt_tile *tile)
{
    if (store->watch != NULL)
        visit_tile(&(tile_visit){ store, layout, 0 }, range, tile, NULL);
}

void store_forget_tensor(ckpt_store *store, const ckpt_layout *layout, size_t tensor)
{
    for (int part = 0; store->watch != NULL && part < CKPT_PART_COUNT; part++) {
        const layout_extent *e;
        const layout_extent *end;

        layout_extents(layout, tensor, (ckpt_part)part, &e, &end);
        for (; e < end; e++)
            store->watch->forget(store->watch, e->stored);
    }
}
