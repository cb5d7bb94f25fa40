/*
 * delta_rework.h: combines several deltas into one (squash), or makes the reverse delta.
 */
#ifndef CKPT_DELTA_REWORK_H
#define CKPT_DELTA_REWORK_H

#include "delta_chain.h"
#include "delta_make.h"

typedef struct {
    const char *base;
    char *const *deltas;
    size_t delta_count;
    int is_reverse;                 /* from the result of the deltas back to the base */
    delta_make_options make;        /* `before`, `after` and `layout` are not used */
} delta_rework_options;

/* Checks everything that delta_apply checks. Release *out, also after a failure. */
ckpt_code delta_rework(const delta_rework_options *options, delta_made *out, ckpt_error *err);

#endif
