/*
 * source.h: the interface that every kind of source implements (views, formats, generators).
 *
 * A tile is a band of whole rows of one tensor: its data and, if block-scaled, the rows of the
 * scale grid that cover it. The parts that are one number for the whole tensor (tensor scale, input
 * scale) come with every tile. Tiles start and end at multiples of SOURCE_BAND_ROWS, or end at the
 * tensor's end, so that no FP8 block is cut. Buffers come from the caller's scratch arena and live
 * until it is rewound. A read allocates nothing else.
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
    uint64_t row;          /* multiple of SOURCE_BAND_ROWS; any row of a tensor without a scale
                              where only sources of stored tensors, and views that do not look at
                              values, lie below */
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
    /* Bytes of scratch that a read of this many rows takes at most (sum of arena_cost). */
    uint64_t (*need)(const ckpt_source *self, size_t tensor, uint64_t row_count);
    void (*free)(ckpt_source *self);
} source_ops;

/* First member of every source. Views borrow their sources: free the view first. */
struct ckpt_source {
    const source_ops *ops;
    const ckpt_catalog *catalog;
};

/* Read one tile; thread-safe if each thread has its own scratch, which holds the tile's buffers and
 * of which a read takes source_need bytes at most. */
ckpt_code source_read_tile(ckpt_source *source, const source_range *range, arena *scratch,
                           ckpt_tile *tile, ckpt_error *err);
uint64_t source_need(const ckpt_source *source, size_t tensor, uint64_t row_count);

/* Rows of one tile of this tensor, a multiple of SOURCE_BAND_ROWS. Depends on the shape alone, so
 * that hashes of tiles in the journal stay valid with other threads or another memory limit. */
uint64_t source_tile_rows(const ckpt_tensor *tensor);

/* The rows [*row, *row + *row_count) of the scale grid that cover a range of data rows. */
void source_scale_rows(const ckpt_tensor *tensor, const source_range *range, uint64_t *row,
                       uint64_t *row_count);
/* The same for any part. For the data it is the range itself; for a part that is one number for the
 * whole tensor it is row 0. */
void source_part_rows(const ckpt_tensor *tensor, ckpt_part part, const source_range *range,
                      uint64_t *row, uint64_t *row_count);
/* The first byte of a range in a part of the tensor. */
uint64_t source_part_offset(const ckpt_tensor *tensor, ckpt_part part, const source_range *range);
/* 1 if the bytes of this part in the tile of this range are to be counted, hashed or written. A
 * part that is one number for the whole tensor comes with every tile, but counts in the first. */
static inline int source_has_part(const source_range *range, ckpt_part part)
{
    return !catalog_is_of_whole(part) || range->row == 0;
}

#endif
