/*
 * store_piece.h: the rows of one extent in a file, and in memory. Private to the files that move
 * tiles between the two (store_tiles.c, source_stored.c).
 */
#ifndef CKPT_STORE_PIECE_H
#define CKPT_STORE_PIECE_H

#include "store.h"
#include "stored_form.h"

typedef struct {
    ckpt_part part;
    uint32_t stored;              /* tensor of the stored catalog */
    size_t file;
    file_rect rect;
    uint64_t tile_row;            /* of the part */
    uint64_t tile_col_bytes;
    const stored_form *form;      /* the rows of the file are blocks that hold the other part, too;
                                     or NULL */
    uint64_t block;               /* the first of them, in the row of the logical tensor */
} store_piece;

/* Where the rows [row, row + row_count) of the extent's part are; 0 when it has none of them. */
int store_locate(const ckpt_layout *layout, const layout_extent *extent, uint64_t row,
                 uint64_t row_count, store_piece *out);

/* The first row of a piece in memory, by part: that of the piece, and of blocks both. NULL: not
 * wanted. */
typedef struct {
    uint8_t *part[CKPT_PART_COUNT];
    uint64_t pitch_bytes[CKPT_PART_COUNT];
} piece_rows;

piece_rows store_rows_of(const ckpt_tensor *tensor, const ckpt_tile *tile,
                         const store_piece *piece);

/* Read what is wanted of a piece; blocks come by way of the scratch. */
ckpt_code store_read_piece(ckpt_store *store, const store_piece *piece, const piece_rows *to,
                           arena *scratch, ckpt_error *err);

/* Put the rows of a piece of blocks together: rect.row_count of rect.row_bytes. */
void store_join_blocks(const store_piece *piece, const piece_rows *from, void *blocks);

/* Scratch that the blocks of a tile take, whichever extents they lie in; 0: it has none. */
uint64_t store_blocks_need(const ckpt_layout *layout, size_t tensor, uint64_t row_count);

#endif
