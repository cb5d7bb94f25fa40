/*
 * layout.h: where the elements of logical tensors are in stored tensors. Used for reading and for
 * writing.
 *
 * An extent says that a rectangle of one part (data, scale grid, scale of the whole tensor) of a
 * logical tensor is stored as a rectangle of a stored tensor. Renaming, slicing, concatenating,
 * stacking and replicating are lists of extents.
 * Coordinates count elements of the part's row view (ckpt_tensor_rows x cols), on the stored side
 * too: packed FP4 counts codes, also where the stored tensor is I8. A stored tensor of interleaved
 * blocks (stored_form.h) contains data and scales: extents of data count its elements, extents of
 * scales count its scales, and each extent of one has its match of the other.
 */
#ifndef CKPT_LAYOUT_H
#define CKPT_LAYOUT_H

#include "catalog.h"

typedef struct {
    uint32_t logical;        /* tensor of the logical catalog */
    uint32_t stored;         /* tensor of the stored catalog */
    uint8_t part;            /* ckpt_part */
    uint8_t column;          /* 1: the stored tensor is a vector [n], used as n rows of 1 column */
    uint8_t copy;            /* 1: a replica of values that other extents contain */
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
    uint32_t *first;               /* number of the first extent of a part, indexed by
                                      CKPT_PART_COUNT * logical + part; the last entry is `count` */
} ckpt_layout;

/* NULL when there is no memory. */
ckpt_layout *layout_create(const ckpt_catalog *logical, const ckpt_catalog *stored);
void layout_free(ckpt_layout *layout);
ckpt_code layout_add(ckpt_layout *layout, const layout_extent *extent, ckpt_error *err);

/*
 * Sort the extents and check that those of every part, without copies, cover it exactly once, that
 * every copy lies inside it, and that all rectangles lie inside their stored tensors. Extents in
 * interleaved blocks must be whole blocks, with matching extents for codes and scales.
 */
ckpt_code layout_seal(ckpt_layout *layout, ckpt_error *err);

/* Bytes of memory that the layout uses; 0 for NULL. */
uint64_t layout_bytes(const ckpt_layout *layout);

/* The extents [*begin, *end) of one part of one tensor, with copies. The layout must be sealed. */
void layout_extents(const ckpt_layout *layout, size_t logical, ckpt_part part,
                    const layout_extent **begin, const layout_extent **end);

/*
 * Compose two layouts: `outer` places logical tensors in keys, its stored tensors; `inner` places
 * keys in pieces. The result, not yet sealed, places logical tensors in pieces. An extent that is a
 * copy in either layout becomes a copy. *out is yours to free.
 */
ckpt_code layout_compose(const ckpt_layout *outer, const ckpt_layout *inner, ckpt_layout **out,
                         ckpt_error *err);

/* The extent of a part that is one whole stored tensor. */
layout_extent layout_identity(size_t logical, const ckpt_tensor *tensor, ckpt_part part,
                              size_t stored);

/* A sealed layout in which each stored tensor is a logical tensor. *out is yours to free. */
ckpt_code layout_of_stored(const ckpt_catalog *stored, ckpt_layout **out, ckpt_error *err);

#endif
