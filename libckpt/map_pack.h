/*
 * map_pack.h: the arithmetic of packing: where the rows of each piece are in a stored tensor. Used
 * for reading and writing by a map.
 *
 * An entry is a stored tensor or, with stacks, the matrix at one value of its stack indexes. Its
 * first dimension is divided into units of equal size. In each group, piece c fills times * count
 * units of the entry, taken from times * of units of its logical tensor.
 */
#ifndef CKPT_MAP_PACK_H
#define CKPT_MAP_PACK_H

#include "map.h"

enum { MAP_SHIFT_BYTES = 256 };    /* most bytes of KEY in {m+KEY} */

/* Evaluate the numbers of a rule just parsed; those with members of a config stay 0 until map_bind.
 * CKPT_E_FORMAT when one is not valid. */
ckpt_code map_rule_bind_numbers(map_rule *rule, ckpt_error *err);

/* 1 when each entry is exactly one logical tensor. */
int map_rule_is_plain(const map_rule *rule);
/* 1 when piece c is not all of its logical tensor. */
int map_piece_is_part(const map_rule *rule, size_t c);

/* The rows of a unit, from the first dimension of an entry; 0 when that is not divisible. */
int map_unit_of_entry(const map_rule *rule, uint64_t size, uint64_t *unit);
/* The same, from the first dimension of the logical tensor of piece c. */
int map_unit_of_piece(const map_rule *rule, size_t c, uint64_t size, uint64_t *unit);
/* The first dimension of an entry, and of the logical tensor of piece c; 0 when it is over 64
 * bits. */
int map_entry_size(const map_rule *rule, uint64_t unit, uint64_t *size);
int map_piece_size(const map_rule *rule, size_t c, uint64_t unit, uint64_t *size);

/* For cols(...): change the columns of a piece to those of its entry, and back. Does nothing for
 * other rules. 0: overflow, or not divisible. */
int map_side_by_side(const map_rule *rule, ckpt_tensor *entry);
int map_side_of(const map_rule *rule, ckpt_tensor *piece);

typedef struct {
    const map_rule *rule;
    size_t piece;
    uint64_t unit;
    uint64_t entry;                /* number of the entry: the stack indexes, flattened */
    const ckpt_tensor *tensor;     /* the logical tensor of the piece */
    size_t logical;                /* its index in the logical catalog */
    uint32_t stored[CKPT_PART_COUNT];
} map_packed;

/* 1 when packing cuts no scale block. Tensors with a tensor scale must not be packed at all. */
int map_blocks_are_whole(const map_packed *packed);

/* Add the extents of data and scales. */
ckpt_code map_add_extents(ckpt_layout *layout, const map_packed *packed, ckpt_error *err);

#endif
