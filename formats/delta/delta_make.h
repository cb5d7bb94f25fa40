/*
 * delta_make.h: makes a delta from two checkpoints.
 */
#ifndef CKPT_DELTA_MAKE_H
#define CKPT_DELTA_MAKE_H

#include "delta_carry.h"
#include "delta_diff.h"
#include "delta_target.h"

typedef struct {
    const char *before;
    const char *after;
    const char *target;
    int discard;                    /* the delta is removed at the end: it was only measured or
                                       sent */
    int dry_run;                    /* read no tensor data, write nothing: only counts are filled */
    const int *send_to;             /* a descriptor that gets the delta as a stream
                                       (delta_stream.h); NULL: none */
    delta_layout layout;
    delta_container container;
    delta_diff_options diff;
    uint64_t version;               /* 0: that of the target's name, else 1 */
    uint64_t file_bytes_max;
    int restart;
    int structural;                 /* tensors may be added or removed, or change dtype or shape */
    ckpt_open_options open;
    ckpt_run_options run;
} delta_make_options;

/* Sums over a class of tensors: "experts", "attention" ... */
typedef struct {
    const char *name;
    size_t tensor_count;
    size_t changed_count;
    uint64_t bytes;
    uint64_t elements;
    uint64_t changed_bytes;
    uint64_t changed_elements;
    uint64_t packed_bytes;
} delta_class;

enum { DELTA_CLASSES = 8 };

/* Sums over all tensors, by class; classes without tensors have a count of 0. */
typedef struct {
    delta_class classes[DELTA_CLASSES];
    delta_class total;
} delta_summary;

/* Add a tensor of class `kind` (delta_class_of). */
void delta_summary_add(delta_summary *summary, unsigned kind, const delta_class *tensor);
/* The class of a stored tensor, by its name and dtype. */
unsigned delta_class_of(const char *name, ckpt_dtype dtype);

typedef struct {
    delta_summary summary;
    delta_roots before;
    delta_roots after;
    char version[DELTA_VERSION_BYTES];
    size_t carried_count;
    int is_rounded;                 /* by rules; `loss` is what that lost of the new checkpoint */
    quantise_loss loss;
    file_list notes;
} delta_made;

/* Release *out, also after a failure. The target appears whole or not at all. */
ckpt_code delta_make(const delta_make_options *options, delta_made *out, ckpt_error *err);
void delta_made_release(delta_made *made);

/* ---- shared with delta_rework ---- */

/* Two sources of the same tensors, and the files beside their weights. */
typedef struct {
    const delta_model *model;       /* defines the stored tensors */
    ckpt_source *before;            /* both in the order of the model */
    ckpt_source *after;
    const ckpt_digest *before_digest;       /* filled while reading; or NULL */
    const ckpt_digest *after_digest;
    delta_target *inputs[2];        /* checked for changes after reading; or NULL */
    /* Copy other files that differ to the directory and list them; `names` has every name that it
     * may create. */
    ckpt_code (*carry)(void *context, const char *directory, struct delta_carried *out,
                       ckpt_error *err);
    void *carry_context;
    const file_list *names;
    const delta_roots *told[2];     /* expected roots, compared if known; or NULL */
    const char *base_version;       /* NULL: one less than the version */
    hash128 fingerprint;            /* of the inputs */
    uint64_t fixed_bytes;           /* memory held by all of this */
    uint64_t thread_bytes;          /* memory of the sources per thread */
    const struct delta_shape *structure;     /* tensors are added or removed; or NULL */
    int roots_are_told;             /* those of `told` were proven already */
} delta_makings;

/* Write the delta of these makings. *out is yours to release, as after delta_make. */
ckpt_code delta_make_from(const delta_makings *from, const delta_make_options *options,
                          delta_made *out, ckpt_error *err);

#endif
