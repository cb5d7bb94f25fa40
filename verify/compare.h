/*
 * compare.h: two checkpoints, value by value, whatever their layouts and encodings.
 *
 * Tensors are matched by name. Values are what the digest takes them for: -0 is +0, all NaN are
 * alike, a block-scaled element is the F32 product of code and scale. The result is the same for
 * every number of threads.
 */
#ifndef CKPT_COMPARE_H
#define CKPT_COMPARE_H

#include "config_verdict.h"
#include "libckpt/file.h"
#include "libckpt/json.h"
#include "libckpt/sink.h"
#include "libckpt/store.h"

typedef struct {
    ckpt_compare_options asked;
    const ckpt_store *stores[2];   /* of a and b, with store_keep_copies; NULL: a copy that differs
                                      is an error, not a difference */
} compare_options;

/* What was compared, for the document. */
typedef struct {
    const char *path;              /* NULL: nothing is said */
    const char *layout;
    const char *family;
    const file_list *notes;        /* what opening let pass */
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
    const char **re_encoded;       /* equal values, same encoding, other codes or scales */
    size_t re_encoded_count;
    size_t other_encoding_count;   /* compared tensors whose encodings are not the same */
    config_verdict config;         /* empty until config_verdict_make */
    compare_input inputs[2];
};

/* Compare all tensors; ckpt_compare does it with checkpoints. No tensor of the same name: an error,
 * not a result. *out is yours to release. */
ckpt_code compare_sources(ckpt_source *a, ckpt_source *b, const compare_options *options,
                          ckpt_comparison *out, ckpt_error *err);
void compare_release(ckpt_comparison *comparison);

/* The document, as one value of `w`. */
void compare_put(json_writer *w, const ckpt_comparison *comparison);

#endif
