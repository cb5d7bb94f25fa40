/*
 * compare_scales.h: computes the tensor scale that a rule produces (NVFP4) from the largest value.
 *
 * Tensors that servers fuse (w1 and w3 of an expert) share a scale, for the larger of their maxima.
 * So B's scale is right if the rule produces it from A's tensor, or from a sibling with a larger
 * maximum. The names of siblings differ only in the component before the last.
 */
#ifndef CKPT_COMPARE_SCALES_H
#define CKPT_COMPARE_SCALES_H

#include "libckpt/quantise.h"
#include "libckpt/sink.h"

/* A tensor that is compared by a rule with a tensor scale. */
typedef struct {
    size_t a;                      /* index in A's catalog */
    size_t b;
    const quantise_rule *rule;
    float scale;                   /* out: the expected scale */
} compare_scale;

typedef struct {
    compare_scale *items;          /* sorted by name */
    size_t count;
} compare_scales;

/* Fill in the scales. A's tensors are read, once. */
ckpt_code compare_find_scales(ckpt_source *a, ckpt_source *b, const compare_scales *scales,
                              const ckpt_run_options *run, ckpt_error *err);

#endif
