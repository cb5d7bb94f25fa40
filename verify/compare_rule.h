/*
 * compare_rule.h: is one tensor what a named rule makes of another?
 *
 * B's block is right when its codes and scale are the bytes that the rule makes of A's values,
 * which are rounded to BF16 first, as exporters do; or when the block stands for exactly A's
 * values, as one that was kept from an original does.
 */
#ifndef CKPT_COMPARE_RULE_H
#define CKPT_COMPARE_RULE_H

#include "compare_rows.h"

/* Blocks of some tensors. */
typedef struct {
    uint64_t made;                 /* the bytes that the rule makes */
    uint64_t kept;                 /* other bytes, A's values */
    uint64_t wrong;
} compare_blocks;

/* 1 when the rule makes tensors of this encoding. */
int compare_rule_makes(const quantise_rule *rule, const ckpt_tensor *b);

/* Scratch that compare_by_rule takes. */
uint64_t compare_rule_need(const ckpt_tensor *a, const ckpt_tensor *b);

/* Compare the tiles of a pair whose b pair->rule makes. *found counts the elements of wrong blocks
 * whose code, or whose block's scale, is another one; rows from the tile's first. Values that the
 * rule refuses (NaN, infinity) are CKPT_E_INEXACT. */
ckpt_code compare_by_rule(const compare_pair *pair, compare_found *found, compare_blocks *blocks,
                          arena *scratch, ckpt_error *err);

#endif
