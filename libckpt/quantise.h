/*
 * quantise.h: named rules that quantise values to codes and scales.
 *
 * A rule's name determines every bit of the result: block, rounding, scale. The caller names a
 * rule, gives values (usually rounded to BF16 first, as all exporters do) and gets codes, scales
 * and the loss. Use, for each tensor:
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
    const char *short_name;        /* NULL: none */
    ckpt_dtype codes;              /* the encoding that it makes: arguments of encoding_find */
    uint32_t block_rows;
    uint32_t block_cols;
    ckpt_dtype scale_dtype;        /* of the block scales */
    scale_rule scales;             /* not used with from_fp4 */
    int powers_of_two;             /* scales are powers of two, so that they may be stored as F32 */
    int has_tensor_scale;          /* from the tensor's maximum, so that the tensor is read twice */
    int from_fp4;                  /* converts FP4 codes, not values: see nvfp4_cast_scales */
    int keeps_exact;               /* call quantise_keep_exact first, for groups exact in FP4 */
    int keeps_f32;                 /* F32 values are not rounded to BF16 first */
    int takes_fp8;                 /* its encoding is for files that have no FP8: it rounds the
                                      values of FP8 weights, too */
} quantise_rule;

/* Rule `i`; NULL past the last. */
const quantise_rule *quantise_rule_at(size_t i);

/* Find a rule by its name or short name; NULL when there is none. */
const quantise_rule *quantise_rule_find(const char *name);

/* The name or short name that is closest to a misspelt one. One that begins with the word was
 * meant: "fp8" is no slip of "fp4". */
const char *quantise_rule_nearest(const char *name);

/* 1 when the rule allows rows of `cols` values: blocks of 1 x 16 and 1 x 32 must be whole, blocks
 * of 128 x 128 and whole rows need not be. */
int quantise_rule_fits(const quantise_rule *rule, uint64_t cols);

/* The F32 scale of a whole tensor whose largest magnitude is `amax`; 1 if that is 0 or the rule has
 * no tensor scale. `w1` and `w3` of an expert must share one, because servers fuse them: pass the
 * larger maximum. */
float quantise_tensor_scale(const quantise_rule *rule, float amax);

/* ---- panels ---- */

typedef struct {
    const ckpt_kernels *kernels;
    const quantise_rule *rule;     /* not one with from_fp4 */
    float tensor_scale;            /* from quantise_tensor_scale, or kept from an original */
} quantise_setup;

/*
 * Values of some whole blocks: at most block_rows rows, or any number if block_rows is 1. Blocks at
 * the last row and column of the matrix may be smaller, if the rule allows it.
 */
typedef struct {
    const float *values;           /* rows are `pitch` elements apart */
    size_t rows;
    size_t cols;
    size_t pitch;
    const uint8_t *kept;           /* for each block, row by row: 1: do not quantise it; or NULL */
    uint64_t first_row;            /* row in the tensor, for positions in faults and losses */
    uint64_t first_col;
    const float *original;         /* values of kept blocks, with the same pitch: their differences
                                      from `values` count as loss; NULL: do not count them */
    const uint8_t *sticky;         /* E8M0 scales of an original's blocks, which are kept if the
                                      rule's own scale is at most one power of two away and nothing
                                      saturates with them; or NULL */
    size_t sticky_pitch;           /* bytes between block rows */
    const uint16_t *halves;        /* if `values` is NULL: BF16 values, only for quantise_panel_run
                                      and without `original` */
} quantise_panel;

/* The destination of codes and scales; pitches are bytes between rows and between block rows. */
typedef struct {
    uint8_t *codes;
    size_t codes_pitch;
    uint8_t *scales;
    size_t scales_pitch;
    ckpt_dtype scale_dtype;        /* the rule's, or F32 with powers_of_two */
} quantise_target;

typedef enum {
    QUANTISE_DONE,
    QUANTISE_NOT_FINITE,           /* a value is NaN or infinite */
    QUANTISE_TOO_LARGE,            /* the quantised value is beyond the range of BF16, or the block
                                      has no finite scale */
    QUANTISE_TOO_SMALL             /* scale times tensor scale underflows to 0: the tensor's values
                                      are too small for F32 scales */
} quantise_outcome;

typedef struct {
    quantise_outcome outcome;
    uint64_t row;                  /* if not QUANTISE_DONE: position in the tensor of the first */
    uint64_t col;                  /* such element, or of the first element of such a block */
} quantise_result;

/* Quantise the blocks that are not kept, and add the error to *loss. If the result is not
 * QUANTISE_DONE, the output is undefined. Thread-safe. */
quantise_result quantise_panel_run(const quantise_setup *setup, const quantise_panel *panel,
                                   const quantise_target *target, quantise_loss *loss);

/*
 * Set kept[i] to 1 for each block whose values equal those in `original` (of the panel's size and
 * pitch), else to 0. Values are compared as BF16 codes: -0 differs from +0; NaN and infinity differ
 * from everything. Returns how many are kept. With a tensor scale, kept blocks are valid only if
 * the original's tensor scale is kept, too.
 */
uint64_t quantise_find_kept(const quantise_setup *setup, const quantise_panel *panel,
                            const float *original, uint8_t *kept);

/*
 * For rules with keeps_exact: encode the blocks that are not kept and are exact in FP4 with a
 * canonical scale (the largest with which the largest code is 3, 4 or 6), and set kept[i] to 1 for
 * each. Returns how many.
 */
uint64_t quantise_keep_exact(const quantise_setup *setup, const quantise_panel *panel,
                             const quantise_target *target, uint8_t *kept);

/* ---- nvfp4-cast: FP4 1 x 32 to NVFP4 1 x 16, values and codes unchanged ---- */

/* The tensor scale, 2^(largest - 127 - 8), from the largest E8M0 code of all groups, not counting
 * code 255 (NaN); 1 when `largest` is 0. */
float nvfp4_cast_tensor_scale(uint8_t largest);

/*
 * Compute the E4M3 scales of the two halves of each group from its E8M0 code and the set of
 * magnitudes in it (fp4_group_masks). Returns the first group that cannot be converted: its codes
 * are not all 0, and its scale is more than 17 powers of two below the largest, or is code 0 or
 * 255. `group_count` when there is none.
 */
size_t nvfp4_cast_scales(const uint8_t *e8m0, const uint8_t *masks, size_t group_count,
                         uint8_t largest, uint8_t *scales);

#endif
