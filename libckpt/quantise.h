/*
 * quantise.h: the named rules that make codes and scales of values.
 *
 * A rule's name says all of its bits: block, rounding, scale. Nothing here guesses; the caller
 * names a rule, gives values (rounded to BF16 first, as all exporters do, unless told otherwise)
 * and gets codes, scales and what was lost. Use, for each tensor:
 *
 *     rule with has_tensor_scale: largest magnitude of the tensor -> quantise_tensor_scale
 *     for panels of whole blocks, in any order, by any thread:
 *         with an original: its values -> quantise_find_kept, and its bytes into the target
 *         quantise_panel_run
 *     quantise_loss_merge
 */
#ifndef CKPT_QUANTISE_H
#define CKPT_QUANTISE_H

#include "ckpt.h"
#include "quantise_loss.h"

typedef struct {
    const char *name;
    const char *short_name;        /* NULL: it has none */
    ckpt_dtype codes;              /* the encoding that it makes, as encoding_find takes it */
    uint32_t block_rows;
    uint32_t block_cols;
    ckpt_dtype scale_dtype;        /* of the block scales */
    scale_rule scales;             /* meaningless with from_fp4 */
    int powers_of_two;             /* its scales are: F32 holds them too */
    int has_tensor_scale;          /* which the tensor's maximum makes: it is read twice */
    int from_fp4;                  /* it takes FP4 codes, not values: see nvfp4_cast_scales */
    int keeps_exact;               /* groups that are exact in FP4 go first: quantise_keep_exact */
} quantise_rule;

/* Rule `i`; NULL behind the last. */
const quantise_rule *quantise_rule_at(size_t i);

/* By name or short name; NULL when there is no such rule. */
const quantise_rule *quantise_rule_find(const char *name);

/* The name or short name that is closest to a misspelt one. */
const char *quantise_rule_nearest(const char *name);

/* 1 when rows of `cols` values are whole blocks: those of 1 x 16 and 1 x 32 never are padded, 128 x
 * 128 and whole rows need not be. */
int quantise_rule_fits(const quantise_rule *rule, uint64_t cols);

/* The F32 scale of a whole tensor whose largest magnitude is `amax`; 1 of zeros. `w1` and `w3` of
 * one expert must share one: give the larger maximum. 1 where the rule has none. */
float quantise_tensor_scale(const quantise_rule *rule, float amax);

/* ---- panels ---- */

typedef struct {
    const ckpt_kernels *kernels;
    const quantise_rule *rule;     /* not one with from_fp4 */
    float tensor_scale;            /* from quantise_tensor_scale; or an original's, kept */
} quantise_setup;

/*
 * Values of some whole blocks: at most block_rows rows where that is more than 1, else any number.
 * The last block row and column may be clipped by the matrix, where the rule allows it.
 */
typedef struct {
    const float *values;           /* `pitch` elements from row to row */
    size_t rows;
    size_t cols;
    size_t pitch;
    const uint8_t *kept;           /* of each block, row by row: 1 leaves it alone; or NULL */
    uint64_t first_row;            /* where in the tensor: for places in faults and losses */
    uint64_t first_col;
    const float *original;         /* values of kept blocks, of the same pitch: what they lack or
                                      have beyond `values` is a loss, too; NULL: do not count it */
    const uint8_t *sticky;         /* E8M0 scales of an original's blocks, which stay where the
                                      rule's own scale is at most one power of two away and nothing
                                      saturates under them; or NULL */
    size_t sticky_pitch;           /* bytes from block row to block row */
} quantise_panel;

/* Where codes and scales go; pitches in bytes, from row to row and from block row to block row. */
typedef struct {
    uint8_t *codes;
    size_t codes_pitch;
    uint8_t *scales;
    size_t scales_pitch;
    ckpt_dtype scale_dtype;        /* the rule's, or F32 where it makes powers of two */
} quantise_target;

typedef enum {
    QUANTISE_DONE,
    QUANTISE_NOT_FINITE,           /* a value is NaN or infinite */
    QUANTISE_TOO_LARGE,            /* the code of a value stands for more than BF16 holds, or its
                                      block has no scale */
    QUANTISE_TOO_SMALL             /* scale times tensor scale is 0: the tensor's values are below
                                      what F32 can scale */
} quantise_outcome;

typedef struct {
    quantise_outcome outcome;
    uint64_t row;                  /* in the tensor, when it is not QUANTISE_DONE: the first such */
    uint64_t col;                  /* element, or the first of such a block */
} quantise_result;

/* Quantise the blocks that are not kept and add to *loss what that lost. When the result is not
 * QUANTISE_DONE, what was written means nothing. Thread-safe. */
quantise_result quantise_panel_run(const quantise_setup *setup, const quantise_panel *panel,
                                   const quantise_target *target, quantise_loss *loss);

/*
 * Set kept[i] to 1 for each block that has in `original` (of the panel's size and pitch) the same
 * values, compared as BF16 codes: -0 is not +0, NaN and infinity equal nothing. To 0 for others.
 * Returns how many are kept. With a tensor scale, they are right only under the original's.
 */
uint64_t quantise_find_kept(const quantise_setup *setup, const quantise_panel *panel,
                            const float *original, uint8_t *kept);

/*
 * Encode the blocks that are not kept and have an exact FP4 scale under that (the largest one that
 * leaves the largest code at 3, 4 or 6), and set kept[i] to 1 for each. Returns how many. For rules
 * with keeps_exact.
 */
uint64_t quantise_keep_exact(const quantise_setup *setup, const quantise_panel *panel,
                             const quantise_target *target, uint8_t *kept);

/* ---- nvfp4-cast: FP4 1 x 32 to NVFP4 1 x 16, values and codes unchanged ---- */

/* The tensor's scale, 2^(largest - 127 - 8), from the largest E8M0 code of all its groups; 1 when
 * `largest` is 0. Groups of code 255 are not for it. */
float nvfp4_cast_tensor_scale(uint8_t largest);

/*
 * E4M3 scales of the two halves of each group, from its E8M0 code and the set of magnitudes in it
 * (fp4_group_masks). Returns the first group whose codes are not all 0 and whose scale is more than
 * 17 powers of two below the largest, or is code 0 or 255; `group_count` when there is none.
 */
size_t nvfp4_cast_scales(const uint8_t *e8m0, const uint8_t *masks, size_t group_count,
                         uint8_t largest, uint8_t *scales);

#endif
