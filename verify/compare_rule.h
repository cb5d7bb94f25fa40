/*
 * compare_rule.h: checks that a tensor is the result of a named quantisation rule for another.
 *
 * A block of B is right if its codes and scale are those that the rule produces from A's values
 * (rounded to BF16 first, as exporters do, unless those of the rule do not), or if it has exactly
 * A's values, like a block that was kept from an original.
 */
#ifndef CKPT_COMPARE_RULE_H
#define CKPT_COMPARE_RULE_H

#include "compare_rows.h"

/* Number of blocks, by result. */
typedef struct {
    uint64_t made;                 /* the bytes are those of the rule */
    uint64_t kept;                 /* other bytes, but A's values */
    uint64_t wrong;
} compare_blocks;

/* 1 when the rule produces the encoding of b, for rows as long as its. */
int compare_rule_makes(const quantise_rule *rule, const ckpt_tensor *b);

/* Scratch bytes for compare_by_rule. */
uint64_t compare_rule_need(const ckpt_tensor *a, const ckpt_tensor *b);

/* Compare two tiles; pair->rule must produce the encoding of b. *found counts the elements of wrong
 * blocks whose code or scale differs; rows count from the tile's first. Values that the rule
 * refuses (NaN, infinity) are CKPT_E_INEXACT. */
ckpt_code compare_by_rule(const compare_pair *pair, compare_found *found, compare_blocks *blocks,
                          arena *scratch, ckpt_error *err);

#endif
