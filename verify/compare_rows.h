/*
 * compare_rows.h: compares two tiles of the same rows element by element.
 */
#ifndef CKPT_COMPARE_ROWS_H
#define CKPT_COMPARE_ROWS_H

#include "difference.h"
#include "libckpt/quantise.h"
#include "libckpt/sink.h"

/* How both sides are rounded before they are compared. */
typedef enum {
    COMPARE_AS_STORED,             /* not at all */
    COMPARE_AS_BF16,               /* to BF16, nearest even, once, as by a cast */
    COMPARE_AS_BF16_SLIME          /* F32 scales to BF16, then the product, as slime does */
} compare_form;

/* Differences of one tensor, or of some of its rows. Positions are of the first difference. */
typedef struct {
    uint64_t count;                /* elements that differ */
    uint64_t row;
    uint64_t col;
    int64_t a_value;               /* integer, or bits of the F32 */
    int64_t b_value;
    uint64_t byte_count;           /* stored bytes that differ, also if values are equal */
    uint64_t byte_row;
    uint64_t byte_col;
} compare_found;

/* Two tiles: rows of tensor a of one side, and of tensor b of the other. */
typedef struct {
    const ckpt_tensor *a;
    const ckpt_tensor *b;
    const source_range *a_range;
    const source_range *b_range;
    const ckpt_tile *a_tile;
    const ckpt_tile *b_tile;
    compare_form form;
    const quantise_rule *rule;     /* for compare_by_rule; else NULL */
    float tensor_scale;            /* expected by the rule, if it has one */
    int same_bytes;                /* set by compare_rows */
} compare_pair;

/* The unit of distances (difference.h); CKPT_NONE for integers. */
ckpt_dtype compare_unit(const ckpt_tensor *a, const ckpt_tensor *b, compare_form form);

/* Scratch bytes for compare_rows. */
uint64_t compare_rows_need(const ckpt_tensor *a, const ckpt_tensor *b, uint64_t row_count);

/* Compare the tiles. *found and, unless it is NULL, *statistics begin at zero; *found counts rows
 * from the tile's first, *statistics from the tensor's. */
ckpt_code compare_rows(const compare_pair *pair, compare_found *found,
                       difference_statistics *statistics, arena *scratch, ckpt_error *err);

/* Add the differences of a tile to those of the tensor. */
void compare_found_merge(compare_found *all, const compare_found *found, uint64_t first_row);

#endif
