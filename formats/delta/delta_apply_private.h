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
    int is_refused;                /* the inputs do not fit: leave no output */
} apply_job;

/* Compare the known roots of base and result with those stored in the deltas. */
ckpt_code delta_apply_check_roots(apply_job *job, ckpt_error *err);
/* Check that no input was changed while it was read. */
ckpt_code delta_apply_check_inputs(const apply_job *job, ckpt_error *err);
/* Check a carried file against the hash in its delta. */
ckpt_code delta_apply_check_carried(const ckpt_delta *d, const delta_file *f, ckpt_error *err);

/* Change the base into the result. */
ckpt_code delta_apply_in_place(apply_job *job, ckpt_error *err);

#endif
