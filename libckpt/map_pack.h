/*
 * map_pack.h: the arithmetic of packing: which rows of a stored tensor are which rows of its
 * pieces. Reading and writing by a map share it.
 *
 * An entry is a stored tensor, or one step of its stack indexes. Its first dimension is divided
 * into units: in each group, piece c has times x count of them, out of times x of units that a
 * group has of the logical tensor.
 */
#ifndef CKPT_MAP_PACK_H
#define CKPT_MAP_PACK_H

#include "map.h"

enum { MAP_SHIFT_BYTES = 256 };    /* of what stands behind the plus of {m+KEY} */

/* Work out the numbers of a rule that has just been parsed; those with members of a config stay 0.
 * CKPT_E_FORMAT when they cannot be. */
ckpt_code map_rule_bind_numbers(map_rule *rule, ckpt_error *err);

/* The tensor, or its entries, are the one logical tensor as it is. */
int map_rule_is_plain(const map_rule *rule);
/* Piece c is not all of its logical tensor. */
int map_piece_is_part(const map_rule *rule, size_t c);

/* The unit of an entry whose first dimension is `size`; 0 when it does not divide. */
int map_unit_of_entry(const map_rule *rule, uint64_t size, uint64_t *unit);
/* The same from the first dimension of the logical tensor of piece c. */
int map_unit_of_piece(const map_rule *rule, size_t c, uint64_t size, uint64_t *unit);
/* The first dimension of an entry, and of the logical tensor of piece c; 0 when it is over 64
 * bits. */
int map_entry_size(const map_rule *rule, uint64_t unit, uint64_t *size);
int map_piece_size(const map_rule *rule, size_t c, uint64_t unit, uint64_t *size);

/* Where pieces stand side by side: the columns of the entry from those of a piece, and back; any
 * other tensor stays. 0 when they cannot be. */
int map_side_by_side(const map_rule *rule, ckpt_tensor *entry);
int map_side_of(const map_rule *rule, ckpt_tensor *piece);

typedef struct {
    const map_rule *rule;
    size_t piece;
    uint64_t unit;
    uint64_t entry;                /* which step of the stack indexes */
    const ckpt_tensor *tensor;     /* the logical tensor of the piece */
    size_t logical;                /* its place in the logical catalog */
    uint32_t stored[CKPT_PART_COUNT];
} map_packed;

/* 1 when no block of scales would be cut, and no scale of a whole tensor. */
int map_blocks_are_whole(const map_packed *packed);

/* Add the extents of data and scales. */
ckpt_code map_add_extents(ckpt_layout *layout, const map_packed *packed, ckpt_error *err);

#endif
