/*
 * encode.h: a view that changes encodings. Values that would change are an error, unless asked for.
 *
 * Every pair of encodings is one of these:
 *   same codes and scales                 copied; given scales are used in tiles whose values they
 *                                         all represent exactly
 *   same codes, other scale dtype         E8M0 <-> F32 <-> BF16 of the same power of two
 *   block-scaled -> plain float           dequantise
 *   FP4 -> FP8                            DeepSeek's rule: block scale = largest group scale / 64
 *   any float -> FP8 or FP4 blocks        with given scales (`--like`), else by the canonical rule
 *   plain -> plain of the same class      cast
 *   FP4 -> NVFP4, with a rule             codes are kept; each scale is split into a block scale
 *                                         and a tensor scale, or refused
 *   plain float -> blocks, with a rule    quantise (quantise.h): rounds; given an original, blocks
 *                                         whose values did not change get its bytes
 * A value that would change is an error that names tensor, row and column or block, code and scale,
 * unless allow_lossy, which permits rounding; but a number never becomes an infinity, and NaN never
 * a number. The canonical rules: FP8 2^ceil(log2(amax / 448)) on 128 x 128; FP4 the largest scale
 * that represents the group with largest magnitude 3, 4 or 6, and code 1 for all zeros.
 */
#ifndef CKPT_ENCODE_H
#define CKPT_ENCODE_H

#include "quantise.h"
#include "source.h"

/* A group whose FP4 scale cannot be recovered by the canonical rule after FP4 -> FP8. */
typedef struct {
    uint64_t group;            /* row * groups per row + group in the row */
    uint8_t scale;             /* E8M0 code */
} encode_exception;

/* Receives the exceptions of one tile, in order of groups. Thread-safe. */
typedef struct encode_exception_sink {
    ckpt_code (*put)(struct encode_exception_sink *self, const source_range *range,
                     const encode_exception *exceptions, size_t count, ckpt_error *err);
} encode_exception_sink;

/* The exceptions of a tensor, sorted by group; *count 0 when there are none. */
typedef struct encode_exception_table {
    const encode_exception *(*find)(const struct encode_exception_table *self, const char *name,
                                    size_t *count);
} encode_exception_table;

typedef struct {
    int allow_lossy;
    int allow_odd_scales;          /* accept NaN codes, and scales that are not positive numbers */
    int match_reference;           /* FP4 code 8 (-0) becomes +0 in FP8, as in DeepSeek's table */
    ckpt_source *scales;           /* scale grids to use, found by tensor name and encoding; or
                                      NULL. With a rule: the original whose blocks are kept */
    const quantise_rule *const *rules;                /* by tensor, NULL: no rule; or NULL */
    ckpt_source *whole;                               /* `from` without taps, for rules that need a
                                                         maximum of the whole tensor: read twice.
                                                         NULL if no rule does */
    const float *input_scales;     /* by tensor, for NVFP4 tensors without one; NULL: 1 */
    int sticky_scale;              /* see quantise_panel */
    int zero_nonfinite;            /* NaN and infinity become 0 where a rule quantises them */
    int quantise_f32;              /* do not round F32 to BF16 before quantising it */
    encode_exception_sink *exceptions_out;            /* FP4 -> FP8; or NULL */
    const encode_exception_table *exceptions_in;      /* -> FP4 by the canonical rule; or NULL */
} encode_options;

typedef struct {
    uint64_t spread;               /* FP4 -> FP8: largest distance of scales within a block */
    uint64_t inexact;              /* elements that changed value (allow_lossy) */
    uint64_t returned;             /* BF16 elements for which a given scale yields the exact code
                                      that they had before they were rounded to BF16 */
    uint64_t exceptions;           /* groups whose scale the canonical rule does not recover */
    uint64_t zero_groups;          /* -> FP4: all-zero groups, whose scale is arbitrary */
    uint64_t replaced;             /* elements that zero_nonfinite changed to 0 */
} encode_stats;

/*
 * Make a view of `from` whose tensors have the encodings of `targets`, a catalog of the same
 * tensors (name, shape) in the same order. Borrows both and the options' members.
 */
ckpt_code source_encode(ckpt_source *from, const ckpt_catalog *targets,
                        const encode_options *options, ckpt_source **out, ckpt_error *err);

/* Statistics of `tensor`; valid when all of it was read. */
encode_stats source_encode_stats(ckpt_source *self, size_t tensor);
/* The loss of its rule; NULL when no tensor has a rule. */
const quantise_loss *source_encode_loss(ckpt_source *self, size_t tensor);

#endif
