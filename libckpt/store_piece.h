/*
 * store_piece.h: the rows of one extent in a file and in memory. Private to the code that moves
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
    uint64_t tile_row;            /* first row of the piece within the tile's part */
    uint64_t tile_col_bytes;
    const stored_form *form;      /* interleaved blocks: rows of the file contain codes and scales;
                                     or NULL */
    uint64_t block;               /* number of the first block within the logical tensor's row */
} store_piece;

/* Find the rows [row, row + row_count) of a part in an extent; 0 when it has none of them. */
int store_locate(const ckpt_layout *layout, const layout_extent *extent, uint64_t row,
                 uint64_t row_count, store_piece *out);

/* The first row of a piece in memory, for its part, or for codes and scales if it consists of
 * blocks. NULL: not wanted. */
typedef struct {
    uint8_t *part[CKPT_PART_COUNT];
    uint64_t pitch_bytes[CKPT_PART_COUNT];
} piece_rows;

piece_rows store_rows_of(const ckpt_tensor *tensor, const ckpt_tile *tile,
                         const store_piece *piece);

/* Read the wanted parts of a piece. Blocks are read into scratch and split. */
ckpt_code store_read_piece(ckpt_store *store, const store_piece *piece, const piece_rows *to,
                           arena *scratch, ckpt_error *err);

/* Join codes and scales to rows of blocks: rect.row_count rows of rect.row_bytes. */
void store_join_blocks(const store_piece *piece, const piece_rows *from, void *blocks);

/* Bytes of scratch for the blocks of a tile, in any extents; 0: it has no blocks. */
uint64_t store_blocks_need(const ckpt_layout *layout, size_t tensor, uint64_t row_count);

#endif
