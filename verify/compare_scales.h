/*
 * compare_scales.h: the scale of a whole tensor that a rule makes (NVFP4), from its largest value.
 *
 * Tensors that a server fuses share one scale, that of the larger maximum: w1 and w3 of an expert.
 * So B's scale is right when the rule makes it of A's tensor, or of a larger one beside it, whose
 * name differs in the component before the last.
 */
#ifndef CKPT_COMPARE_SCALES_H
#define CKPT_COMPARE_SCALES_H

#include "libckpt/quantise.h"
#include "libckpt/sink.h"

/* A tensor that is held against a rule with a tensor scale. */
typedef struct {
    size_t a;                      /* of A's catalog */
    size_t b;
    const quantise_rule *rule;
    float scale;                   /* out: what it must be */
} compare_scale;

typedef struct {
    compare_scale *items;          /* sorted by name */
    size_t count;
} compare_scales;

/* Fill in the scales. A's tensors are read, once. */
ckpt_code compare_find_scales(ckpt_source *a, ckpt_source *b, const compare_scales *scales,
                              const ckpt_run_options *run, ckpt_error *err);

#endif
