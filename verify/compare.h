/*
 * compare.h: compares two checkpoints value by value, in any layouts and encodings.
 *
 * Tensors are matched by name. Values are compared as the digest defines them: -0 is +0, all NaN
 * are equal, a block-scaled element is the F32 product of code and scale. The result is the same
 * for every number of threads.
 */
#ifndef CKPT_COMPARE_H
#define CKPT_COMPARE_H

#include "compare_rule.h"
#include "companions.h"
#include "config_verdict.h"
#include "libckpt/file.h"
#include "libckpt/json.h"
#include "libckpt/sink.h"
#include "libckpt/store.h"

typedef struct {
    ckpt_compare_options asked;
    const ckpt_store *stores[2];   /* of a and b, with store_keep_copies; NULL: a copy that differs
                                      is an error, not a difference */
    const char *const *globs;      /* compare only tensors whose names match one; NULL: all */
    size_t glob_count;
    compare_form form;
    int measure;                   /* also measure how much values differ */
    const quantise_rule *const *rules;   /* a tensor of B in the encoding of a rule must be the
                                            result of that rule for A (compare_rule.h); or NULL */
    size_t rule_count;
} compare_options;

/* Measured difference of two tensors. */
typedef struct {
    const ckpt_tensor *a;
    const ckpt_tensor *b;
    difference_statistics statistics;
} compare_measured;

/* Description of the inputs, for the document. */
typedef struct {
    const char *path;              /* NULL: omitted */
    const char *layout;
    const char *family;
    const file_list *notes;        /* deviations accepted when opening */
} compare_input;

/* Lists are sorted by name. Names are borrowed from the sources' catalogs. */
struct ckpt_comparison {
    size_t compared;               /* tensors of the same name */
    uint64_t element_count;        /* number of elements compared */
    ckpt_difference *differing;
    size_t differing_count;
    const char **missing_in_a;
    size_t missing_in_a_count;
    const char **missing_in_b;
    size_t missing_in_b_count;
    const char **re_encoded;       /* equal values, same encoding, different codes or scales */
    size_t re_encoded_count;
    size_t by_rule_count;          /* tensors that were compared by a rule */
    compare_blocks blocks;         /* of these tensors */
    compare_form form;
    compare_measured *measured;    /* tensors whose values were compared, with options.measure */
    size_t measured_count;
    size_t other_encoding_count;   /* compared tensors with different encodings */
    config_verdict config;         /* empty until config_verdict_make */
    certificate_checkpoint files[2];   /* only their files, from which `companions` borrows */
    companion_comparison companions;   /* tokenizer etc.; empty if not requested */
    compare_input inputs[2];
};

/* Compare all tensors. Fails if no name is in both sources. *out is yours to release. */
ckpt_code compare_sources(ckpt_source *a, ckpt_source *b, const compare_options *options,
                          ckpt_comparison *out, ckpt_error *err);
void compare_release(ckpt_comparison *comparison);
/* The same for checkpoints, with their configs and other files, as in ckpt_compare. options->stores
 * is filled in here. Free *out with ckpt_comparison_free. */
ckpt_code compare_checkpoints(const ckpt_checkpoint *a, const ckpt_checkpoint *b,
                              const compare_options *options, ckpt_comparison **out,
                              ckpt_error *err);

/* Like ckpt_comparison_is_same, but values may differ within `tolerance` (difference_is_within).
 * Needs options.measure. */
int compare_is_within(const ckpt_comparison *comparison, double tolerance);
/* How many tensors are not within it, and which has the largest relative error; NULL: none is. */
size_t compare_count_beyond(const ckpt_comparison *comparison, double tolerance,
                            const compare_measured **farthest);

/* The document's members. */
void compare_put_members(json_writer *w, const ckpt_comparison *comparison);

#endif
