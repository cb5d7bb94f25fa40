/*
 * layout.h: how logical tensors lie in stored ones. Read in both directions.
 *
 * An extent says that a rectangle of one part (data, scale grid, scale of the whole tensor) of a
 * logical tensor is a rectangle of a stored tensor. Rename, slice, concat, stack and replicate are
 * lists of extents.
 * Coordinates are elements of the row view (ckpt_tensor_rows x cols) of the part on the logical
 * side, and of the stored tensor seen in the same elements on the other: packed FP4 counts codes,
 * also where it is stored as I8. A stored tensor of interleaved blocks (stored_form.h) holds two
 * parts, and is seen in the elements of each: the extents of data and scales in it go together.
 */
#ifndef CKPT_LAYOUT_H
#define CKPT_LAYOUT_H

#include "catalog.h"

typedef struct {
    uint32_t logical;        /* tensor of the logical catalog */
    uint32_t stored;         /* tensor of the stored catalog */
    uint8_t part;            /* ckpt_part */
    uint8_t column;          /* 1: the stored tensor is a vector [n], seen as n rows of one */
    uint8_t copy;            /* 1: repeats values that another extent holds already */
    uint64_t row;            /* rectangle in the logical part */
    uint64_t col;
    uint64_t row_count;
    uint64_t col_count;
    uint64_t stored_row;     /* its corner in the stored tensor */
    uint64_t stored_col;
} layout_extent;

typedef struct {
    const ckpt_catalog *stored;    /* borrowed */
    const ckpt_catalog *logical;   /* borrowed */
    layout_extent *extents;        /* sorted by logical, part, copy, row, col once sealed */
    size_t count;
    size_t *first;                 /* by CKPT_PART_COUNT * logical + part; one more at the end */
} ckpt_layout;

/* NULL when there is no memory. */
ckpt_layout *layout_create(const ckpt_catalog *logical, const ckpt_catalog *stored);
void layout_free(ckpt_layout *layout);
ckpt_code layout_add(ckpt_layout *layout, const layout_extent *extent, ckpt_error *err);

/*
 * Sort and prove: the extents of every part (copies aside) cover it exactly once, every copy lies
 * inside it, and all rectangles lie inside their stored tensors; those in interleaved blocks are
 * whole blocks, the scales those of the codes.
 */
ckpt_code layout_seal(ckpt_layout *layout, ckpt_error *err);

/* Bytes this layout holds, for the memory plan; NULL holds none. */
uint64_t layout_bytes(const ckpt_layout *layout);

/* Extents of one part of one tensor: [*begin, *end). */
void layout_extents(const ckpt_layout *layout, size_t logical, ckpt_part part,
                    const layout_extent **begin, const layout_extent **end);

/*
 * Through both: `outer` says how logical tensors lie in keys (its stored tensors), `inner` how keys
 * lie in pieces. The result, not yet sealed, says how logical tensors lie in pieces. A copy of
 * either is a copy. *out is yours to free.
 */
ckpt_code layout_compose(const ckpt_layout *outer, const ckpt_layout *inner, ckpt_layout **out,
                         ckpt_error *err);

/* The whole of `logical`'s part, one to one. */
layout_extent layout_identity(size_t logical, const ckpt_tensor *tensor, ckpt_part part,
                              size_t stored);

/* The stored tensors as they are: each is a logical one of its own. Sealed; *out is yours to
 * free. */
ckpt_code layout_of_stored(const ckpt_catalog *stored, ckpt_layout **out, ckpt_error *err);

#endif
