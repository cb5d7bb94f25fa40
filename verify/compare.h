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
    const char *const *globs;      /* only tensors whose names match one of them; NULL: all */
    size_t glob_count;
    compare_form form;
    int measure;                   /* also say how far values are apart */
    const quantise_rule *const *rules;   /* tensors of B that one of them makes must be what the
                                            first such makes of A: see compare_rule.h. NULL: none */
    size_t rule_count;
} compare_options;

/* How far one tensor is from the other. */
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
    uint64_t element_count;        /* whose values were compared */
    ckpt_difference *differing;
    size_t differing_count;
    const char **missing_in_a;
    size_t missing_in_a_count;
    const char **missing_in_b;
    size_t missing_in_b_count;
    const char **re_encoded;       /* equal values, same encoding, different codes or scales */
    size_t re_encoded_count;
    size_t by_rule_count;          /* tensors that were held against a rule */
    compare_blocks blocks;         /* of those */
    compare_form form;
    compare_measured *measured;    /* of all whose values were compared, if that was asked for */
    size_t measured_count;
    size_t other_encoding_count;   /* compared tensors whose encodings are not the same */
    config_verdict config;         /* empty until config_verdict_make */
    certificate_checkpoint files[2];   /* only their files: what `companions` borrows from */
    companion_comparison companions;   /* tokenizer and the like; empty where not asked for */
    compare_input inputs[2];
};

/* Compare all tensors; compare_checkpoints does it with checkpoints, as ckpt_compare does. No
 * tensor of the same name: an error, not a result. *out is yours to release. */
ckpt_code compare_sources(ckpt_source *a, ckpt_source *b, const compare_options *options,
                          ckpt_comparison *out, ckpt_error *err);
void compare_release(ckpt_comparison *comparison);
/* options->stores are filled in here. *out is yours to ckpt_comparison_free. */
ckpt_code compare_checkpoints(const ckpt_checkpoint *a, const ckpt_checkpoint *b,
                              const compare_options *options, ckpt_comparison **out,
                              ckpt_error *err);

/* As ckpt_comparison_is_same, but values may differ as far as difference_is_within lets them. What
 * was compared was measured. */
int compare_is_within(const ckpt_comparison *comparison, double tolerance);

/* The document's members. */
void compare_put_members(json_writer *w, const ckpt_comparison *comparison);

#endif
