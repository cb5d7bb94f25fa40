/* delta_apply_private.h: a run of apply, for the delta_apply*.c files. */
#ifndef CKPT_DELTA_APPLY_PRIVATE_H
#define CKPT_DELTA_APPLY_PRIVATE_H

#include "delta_apply.h"
#include "delta_views.h"
#include "libckpt/output.h"

typedef struct {
    const delta_apply_options *options;
    delta_outcome *out;
    delta_chain chain;
    delta_views views;
    ckpt_store *store;             /* of the target; NULL: nothing is written, or in place */
    ckpt_output *output;
    file_list names;               /* of all files of the target */
    int is_refused;                /* the inputs do not fit: nothing may be left */
} apply_job;

/* Roots of base and result, as far as they are known, are those that the deltas tell. */
ckpt_code delta_apply_check_roots(apply_job *job, ckpt_error *err);
/* No input was changed while it was read. */
ckpt_code delta_apply_check_inputs(const apply_job *job, ckpt_error *err);
/* A carried file has the bytes that its delta says. */
ckpt_code delta_apply_check_carried(const ckpt_delta *d, const delta_file *f, ckpt_error *err);

/* The base becomes the result. */
ckpt_code delta_apply_in_place(apply_job *job, ckpt_error *err);

#endif
