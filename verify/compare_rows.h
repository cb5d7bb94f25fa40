/*
 * compare_rows.h: two tiles of the same rows, element by element.
 */
#ifndef CKPT_COMPARE_ROWS_H
#define CKPT_COMPARE_ROWS_H

#include "difference.h"
#include "libckpt/quantise.h"
#include "libckpt/sink.h"

/* What both sides are rounded to first. */
typedef enum {
    COMPARE_AS_STORED,             /* nothing: values as they are */
    COMPARE_AS_BF16,               /* to nearest even, once, as the cast does */
    COMPARE_AS_BF16_SLIME          /* F32 scales to BF16, and then the product: as slime reads */
} compare_form;

/* Differences of one tensor, or of rows of it. Positions are those of the first one. */
typedef struct {
    uint64_t count;                /* elements that differ */
    uint64_t row;
    uint64_t col;
    int64_t a_value;               /* integer, or bits of the F32 */
    int64_t b_value;
    uint64_t byte_count;           /* stored bytes that differ where values may be equal */
    uint64_t byte_row;
    uint64_t byte_col;
} compare_found;

/* The tiles: rows [range->row, ...) of tensor a of one side and b of the other. */
typedef struct {
    const ckpt_tensor *a;
    const ckpt_tensor *b;
    const source_range *a_range;
    const source_range *b_range;
    const ckpt_tile *a_tile;
    const ckpt_tile *b_tile;
    compare_form form;
    const quantise_rule *rule;     /* compare_by_rule's; else NULL */
    float tensor_scale;            /* that the rule makes, where it has one */
    int same_bytes;                /* compare_rows finds it out */
} compare_pair;

/* Units of their distances; CKPT_NONE: integers have none. */
ckpt_dtype compare_unit(const ckpt_tensor *a, const ckpt_tensor *b, compare_form form);

/* Scratch that compare_rows takes. */
uint64_t compare_rows_need(const ckpt_tensor *a, const ckpt_tensor *b, uint64_t row_count);

/* Compare the tiles. *found and, unless it is NULL, *statistics begin at zero; *found counts rows
 * from the tile's first, *statistics from the tensor's. */
ckpt_code compare_rows(const compare_pair *pair, compare_found *found,
                       difference_statistics *statistics, arena *scratch, ckpt_error *err);

/* Add what a tile has to what is known of the tensor. */
void compare_found_merge(compare_found *all, const compare_found *found, uint64_t first_row);

#endif
