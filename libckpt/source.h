/*
 * source.h: what a source is made of, for those who write one (views, formats, generators).
 *
 * A tile is a band of whole rows of one tensor: its data and, if block-scaled, the rows of the
 * scale grid that cover it; every tile has what there is of the whole tensor, once each. Tiles
 * start at multiples of SOURCE_BAND_ROWS, so that no FP8 block is cut; they end there too or at the
 * tensor's end. Buffers come from the caller's scratch arena and live until it is rewound. A read
 * allocates nothing else.
 */
#ifndef CKPT_SOURCE_H
#define CKPT_SOURCE_H

#include "arena.h"
#include "catalog.h"

enum { SOURCE_BAND_ROWS = 128 };

enum {
    SOURCE_WANT_DATA = 1u << CKPT_DATA,
    SOURCE_WANT_SCALE = 1u << CKPT_SCALE,
    SOURCE_WANT_ALL = (1u << CKPT_PART_COUNT) - 1
};

typedef struct {
    size_t tensor;
    uint64_t row;          /* multiple of SOURCE_BAND_ROWS */
    uint64_t row_count;
    unsigned want;         /* SOURCE_WANT_*; a source may return more */
} source_range;

typedef struct {
    void *part[CKPT_PART_COUNT];            /* NULL: absent or not wanted */
    uint64_t part_bytes[CKPT_PART_COUNT];   /* packed rows, ckpt_part_row_bytes each */
} ckpt_tile;

typedef struct {
    ckpt_code (*read)(ckpt_source *self, const source_range *range, arena *scratch,
                      ckpt_tile *tile, ckpt_error *err);
    /* The most scratch that a read of this many rows takes (sum of arena_cost). */
    uint64_t (*need)(const ckpt_source *self, size_t tensor, uint64_t row_count);
    void (*free)(ckpt_source *self);
} source_ops;

/* First member of every source. Views borrow what they stand on: free the view first. */
struct ckpt_source {
    const source_ops *ops;
    const ckpt_catalog *catalog;
};

ckpt_code source_read_tile(ckpt_source *source, const source_range *range, arena *scratch,
                           ckpt_tile *tile, ckpt_error *err);
uint64_t source_need(const ckpt_source *source, size_t tensor, uint64_t row_count);

/* Rows of one tile of this tensor: a function of its shape alone, so that results that are kept by
 * tile (the journal) do not depend on threads or memory. A multiple of SOURCE_BAND_ROWS. */
uint64_t source_tile_rows(const ckpt_tensor *tensor);

/* Rows [*row, *row + *row_count) of the scale grid that cover a range of data rows. */
void source_scale_rows(const ckpt_tensor *tensor, const source_range *range, uint64_t *row,
                       uint64_t *row_count);
/* The same of any part; those of the data are the range's own, and what there is of the whole
 * tensor is one row that every range has. */
void source_part_rows(const ckpt_tensor *tensor, ckpt_part part, const source_range *range,
                      uint64_t *row, uint64_t *row_count);
/* 1 when the tile of this range is the one that counts for the part: what there is of a whole
 * tensor comes with every tile, and counts once. For those who go through the bytes of a part. */
static inline int source_has_part(const source_range *range, ckpt_part part)
{
    return !catalog_is_of_whole(part) || range->row == 0;
}

#endif
