/* convert_private.h: a conversion with its three stages; private to the files of the run. */
#ifndef CKPT_CONVERT_PRIVATE_H
#define CKPT_CONVERT_PRIVATE_H

#include "convert_output.h"
#include "convert_pipeline.h"

struct convert_job {
    const job_plan *plan;            /* owned */
    int may_be_there;                /* what convert_check_run found of DST */
    job_output output;
    job_result result;
};

/* ---- convert_job.c ---- */

/* Refuse ids of nonexistent experts in the tables of the source, if readers of the target do not
 * check them, and integers beyond the dtype that they get. */
ckpt_code convert_check_ids(const job_plan *plan, ckpt_error *err);

/* ---- convert_root.c ---- */

/* Fail if the source holds another root than that of the values that were read. */
ckpt_code convert_check_root(const job_plan *plan, job_result *result, ckpt_error *err);

/* ---- convert_shares.c ---- */

/* This share is done. The last process verifies what the others wrote and continues; for the
 * others result.is_waiting is set. */
ckpt_code convert_join(convert_job *job, const convert_pipeline *p, ckpt_error *err);
/* *may_be: 1 if DST has files as this job writes them; only comparing would tell their values. */
ckpt_code convert_may_be_result(const job_plan *plan, int *may_be, ckpt_error *err);
/* *is_there is set to 1 if DST exists and has what this share would write. */
ckpt_code convert_find_result(const job_plan *plan, const convert_pipeline *p, int *is_there,
                              ckpt_error *err);

#endif
