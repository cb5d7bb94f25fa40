/*
 * delta_rework.h: deltas made from deltas and their base: several as one, or the way back.
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
    delta_make_options make;        /* but for `before`, `after` and `layout` */
} delta_rework_options;

/* All is checked as apply does. Release *out, also after a failure. */
ckpt_code delta_rework(const delta_rework_options *options, delta_made *out, ckpt_error *err);

#endif
