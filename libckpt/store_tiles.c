/* Tiles into files. */
#include "store_piece.h"

uint64_t store_write_need(const ckpt_layout *layout, size_t tensor, uint64_t row_count)
{
    return store_blocks_need(layout, tensor, row_count);
}

typedef struct {
    ckpt_store *store;
    const store_tile *tile;
    int writes;               /* 0: the bytes are in the files already, only call the watch */
} tile_visit;

/* Process one run of bytes of a tile: write it if asked to, and call the watch. */
static ckpt_code visit_rows(const tile_visit *visit, const store_piece *piece, const void *rows,
                            uint64_t pitch_bytes, ckpt_error *err)
{
    ckpt_store *store = visit->store;
    ckpt_code code = CKPT_OK;

    if (visit->writes)
        code = file_write_rect(store->files[piece->file].file, &piece->rect, rows, pitch_bytes,
                               err);
    if (code == CKPT_OK && store->watch != NULL)
        store->watch->wrote(store->watch, piece->stored, &piece->rect, rows, pitch_bytes);
    return code;
}

/* Blocks need codes and scales together. A tile without one of them was not read completely, so
 * there are no bytes to report. */
static ckpt_code visit_blocks(const tile_visit *visit, const store_piece *piece,
                              const piece_rows *rows, ckpt_error *err)
{
    arena *scratch = visit->tile->scratch;
    const size_t mark = arena_mark(scratch);
    const uint64_t bytes = piece->rect.row_count * piece->rect.row_bytes;
    void *blocks;
    ckpt_code code;

    if (rows->part[CKPT_DATA] == NULL || rows->part[CKPT_SCALE] == NULL)
        return CKPT_OK;
    if ((blocks = arena_alloc(scratch, bytes)) == NULL)
        return ckpt_fail_memory(err, "a tile", bytes);
    store_join_blocks(piece, rows, blocks);
    code = visit_rows(visit, piece, blocks, piece->rect.row_bytes, err);
    arena_rewind(scratch, mark);
    return code;
}

static ckpt_code visit_part(const tile_visit *visit, ckpt_part part, ckpt_error *err)
{
    const store_tile *tile = visit->tile;
    const ckpt_tensor *tensor = ckpt_catalog_at(tile->layout->logical, tile->range->tensor);
    const layout_extent *e;
    const layout_extent *end;
    ckpt_code code = CKPT_OK;
    uint64_t row;
    uint64_t row_count;

    source_part_rows(tensor, part, tile->range, &row, &row_count);
    layout_extents(tile->layout, tile->range->tensor, part, &e, &end);
    for (; e < end && code == CKPT_OK; e++) {
        store_piece piece;
        piece_rows rows;

        if (!store_locate(tile->layout, e, row, row_count, &piece) ||
            (piece.form != NULL && part == CKPT_SCALE))      /* done together with the codes */
            continue;
        rows = store_rows_of(tensor, tile->tile, &piece);
        code = piece.form != NULL ? visit_blocks(visit, &piece, &rows, err)
                                  : visit_rows(visit, &piece, rows.part[part],
                                               rows.pitch_bytes[part], err);
    }
    return code;
}

/* Process every run of bytes that a tile has in the files. */
static ckpt_code visit_tile(const tile_visit *visit, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (int part = 0; part < CKPT_PART_COUNT && code == CKPT_OK; part++)
        if (visit->tile->tile->part[part] != NULL &&
            source_has_part(visit->tile->range, (ckpt_part)part))
            code = visit_part(visit, (ckpt_part)part, err);
    return code;
}

ckpt_code store_write_tile(ckpt_store *store, const store_tile *tile, ckpt_error *err)
{
    return visit_tile(&(tile_visit){ store, tile, 1 }, err);
}

ckpt_code store_found_tile(ckpt_store *store, const store_tile *tile, ckpt_error *err)
{
    return store->watch == NULL ? CKPT_OK : visit_tile(&(tile_visit){ store, tile, 0 }, err);
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
