/* delta_apply_private.h: a run of apply, for the delta_apply*.c files. */
#ifndef CKPT_DELTA_APPLY_PRIVATE_H
#define CKPT_DELTA_APPLY_PRIVATE_H

#include "delta_apply.h"
#include "delta_proof.h"
#include "delta_views.h"
#include "libckpt/output.h"

typedef struct {
    const delta_apply_options *options;
    delta_outcome *out;
    delta_chain chain;
    delta_views views;
    ckpt_run_options run;          /* the caller's, stopped too when the proof fails */
    copy_turns turns;
    delta_proof *proof;            /* of the deltas' files, beside the work; NULL: it has ended */
    ckpt_store *store;             /* of the target; NULL: nothing is written, or in place */
    ckpt_output *output;
    file_list names;               /* of all files of the target */
    uint8_t *shared;               /* by file: it shares blocks with that of the base */
    uint8_t *there;                /* by tensor of the views: these have all of its bytes */
    int is_refused;                /* the inputs do not fit: leave no output */
} apply_job;

/* Compare the known roots of base and result with those stored in the deltas. */
ckpt_code delta_apply_check_roots(apply_job *job, ckpt_error *err);
/* Check that no input was changed while it was read. */
ckpt_code delta_apply_check_inputs(const apply_job *job, ckpt_error *err);
/* Check all files beside the weights before anything is written: their names, and their content. */
ckpt_code delta_apply_check_files(const apply_job *job, ckpt_error *err);
/* Check a carried file against the hash in its delta. */
ckpt_code delta_apply_check_carried(const ckpt_delta *d, const delta_file *f, ckpt_error *err);

/* ---- delta_apply_target.c ---- */

/* Refuse a target that is there or is an input; list its files. */
ckpt_code delta_apply_check_target(apply_job *job, ckpt_error *err);
/* Create the target's files with the headers of the base, or resume an earlier run. Where the file
 * system can, new files begin with the blocks of the base's. Checks the free space. */
ckpt_code delta_apply_begin(apply_job *job, ckpt_error *err);
/* For dry runs: refuse the places that delta_apply_begin would refuse, and find the space that the
 * target will need at most. */
ckpt_code delta_apply_check_begin(apply_job *job, ckpt_error *err);

/* ---- delta_apply_inplace.c ---- */

/* Change the base into the result. */
ckpt_code delta_apply_in_place(apply_job *job, ckpt_error *err);
/* For dry runs: refuse what that would refuse before its first byte. */
ckpt_code delta_apply_check_in_place(apply_job *job, ckpt_error *err);

#endif
