/* Finds pieces of tiles in files, and splits and joins interleaved blocks. */
#include "store_piece.h"

#include "size.h"

/* For interleaved blocks: the range of blocks that contain elements of the extent. */
static void locate_blocks(const ckpt_tensor *stored, const layout_extent *extent,
                          store_piece *out)
{
    const stored_form *form = stored_form_of(stored);
    const uint64_t step = extent->part == CKPT_DATA ? form->elements
                                                    : form->elements / stored->block_cols;

    out->form = form;
    out->block = extent->col / step;
    out->rect.pitch_bytes = ckpt_tensor_cols(stored) / form->elements * form->shape->bytes;
    out->rect.row_bytes = extent->col_count / step * form->shape->bytes;
    out->rect.offset = extent->stored_col / step * form->shape->bytes;
}

static void locate_elements(const ckpt_tensor *stored, const layout_extent *extent, uint32_t bits,
                            store_piece *out)
{
    out->form = NULL;
    out->block = 0;
    out->rect.pitch_bytes =
        extent->column ? bits / 8 : ckpt_part_row_bytes(stored, CKPT_DATA);
    out->rect.row_bytes = extent->col_count * bits / 8;
    out->rect.offset = extent->stored_col * bits / 8;
}

int store_locate(const ckpt_layout *layout, const layout_extent *extent, uint64_t row,
                 uint64_t row_count, store_piece *out)
{
    const ckpt_tensor *logical = ckpt_catalog_at(layout->logical, extent->logical);
    const ckpt_tensor *stored = ckpt_catalog_at(layout->stored, extent->stored);
    const uint32_t bits = ckpt_dtype_bits(catalog_part_dtype(logical, (ckpt_part)extent->part));
    const uint64_t begin = size_max(row, extent->row);
    const uint64_t end = size_min(row + row_count, extent->row + extent->row_count);

    if (begin >= end || extent->col_count == 0)
        return 0;
    if (stored->stored_form != CKPT_FORM_APART)
        locate_blocks(stored, extent, out);
    else
        locate_elements(stored, extent, bits, out);
    out->part = (ckpt_part)extent->part;
    out->stored = extent->stored;
    out->rect.row_count = end - begin;
    out->rect.offset += stored->offset +
                        (extent->stored_row + (begin - extent->row)) * out->rect.pitch_bytes;
    out->file = stored->file;
    out->tile_row = begin - row;
    out->tile_col_bytes = extent->col * bits / 8;
    return 1;
}

piece_rows store_rows_of(const ckpt_tensor *tensor, const ckpt_tile *tile,
                         const store_piece *piece)
{
    piece_rows rows = { .part = { NULL } };
    uint64_t col_bytes[CKPT_PART_COUNT] = { 0 };

    if (piece->form != NULL) {
        col_bytes[CKPT_DATA] = piece->block * piece->form->shape->code_bytes;
        col_bytes[CKPT_SCALE] = piece->block * piece->form->shape->scale_bytes;
    }
    col_bytes[piece->part] = piece->tile_col_bytes;
    for (int part = 0; part < CKPT_PART_COUNT; part++) {
        if (tile->part[part] == NULL || (piece->form == NULL && part != (int)piece->part))
            continue;
        rows.pitch_bytes[part] = ckpt_part_row_bytes(tensor, (ckpt_part)part);
        rows.part[part] = (uint8_t *)tile->part[part] +
                          piece->tile_row * rows.pitch_bytes[part] + col_bytes[part];
    }
    return rows;
}

/* Rows that can be split or joined in one call, because they have nothing between them. */
static uint64_t rows_at_once(const store_piece *piece, const piece_rows *rows)
{
    const block_shape *shape = piece->form->shape;
    const uint64_t blocks = piece->rect.row_bytes / shape->bytes;

    return rows->part[CKPT_DATA] != NULL && rows->part[CKPT_SCALE] != NULL &&
                   rows->pitch_bytes[CKPT_DATA] == blocks * shape->code_bytes &&
                   rows->pitch_bytes[CKPT_SCALE] == blocks * shape->scale_bytes
               ? piece->rect.row_count
               : 1;
}

static uint8_t *row_at(const piece_rows *rows, ckpt_part part, uint64_t row)
{
    return rows->part[part] == NULL ? NULL : rows->part[part] + row * rows->pitch_bytes[part];
}

ckpt_code store_read_piece(ckpt_store *store, const store_piece *piece, const piece_rows *to,
                           arena *scratch, ckpt_error *err)
{
    const file_rect *rect = &piece->rect;
    const size_t mark = arena_mark(scratch);
    uint64_t rows;
    uint8_t *blocks;
    ckpt_code code;

    if (piece->form == NULL)
        return file_read_rect(store->files[piece->file].file, rect, to->part[piece->part],
                              to->pitch_bytes[piece->part], err);
    if ((blocks = arena_alloc(scratch, rect->row_count * rect->row_bytes)) == NULL)
        return ckpt_fail_memory(err, "a tile", rect->row_count * rect->row_bytes);
    rows = rows_at_once(piece, to);
    code = file_read_rect(store->files[piece->file].file, rect, blocks, rect->row_bytes, err);
    for (uint64_t r = 0; r < rect->row_count && code == CKPT_OK; r += rows)
        interleave_split(piece->form->shape, blocks + r * rect->row_bytes,
                         rows * rect->row_bytes / piece->form->shape->bytes,
                         row_at(to, CKPT_DATA, r), row_at(to, CKPT_SCALE, r));
    arena_rewind(scratch, mark);
    return code;
}

void store_join_blocks(const store_piece *piece, const piece_rows *from, void *blocks)
{
    const file_rect *rect = &piece->rect;
    const uint64_t rows = rows_at_once(piece, from);

    for (uint64_t r = 0; r < rect->row_count; r += rows)
        interleave_join(piece->form->shape, row_at(from, CKPT_DATA, r),
                        row_at(from, CKPT_SCALE, r),
                        rows * rect->row_bytes / piece->form->shape->bytes,
                        (uint8_t *)blocks + r * rect->row_bytes);
}

uint64_t store_blocks_need(const ckpt_layout *layout, size_t tensor, uint64_t row_count)
{
    const ckpt_tensor *t = ckpt_catalog_at(layout->logical, tensor);
    const layout_extent *e;
    const layout_extent *end;

    layout_extents(layout, tensor, CKPT_DATA, &e, &end);
    for (; e < end; e++)
        if (ckpt_catalog_at(layout->stored, e->stored)->stored_form != CKPT_FORM_APART)
            return arena_cost(row_count * (ckpt_part_row_bytes(t, CKPT_DATA) +
                                           ckpt_part_row_bytes(t, CKPT_SCALE)));
    return 0;
}
