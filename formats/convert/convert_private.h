/* convert_private.h: a conversion in its three stages, and what the files of the run ask of each
 * other. */
#ifndef CKPT_CONVERT_PRIVATE_H
#define CKPT_CONVERT_PRIVATE_H

#include "convert_output.h"
#include "convert_pipeline.h"

struct convert_job {
    const job_plan *plan;            /* owned */
    job_output output;
    job_result result;
};

/* ---- convert_parts.c ---- */

/* This part is done. The last one checks what the others wrote and goes on: result.is_waiting. */
ckpt_code convert_join(convert_job *job, const convert_pipeline *p, ckpt_error *err);
/* *is_there becomes 1: DST exists, and holds what this part would write. */
ckpt_code convert_find_result(const job_plan *plan, const convert_pipeline *p, int *is_there,
                              ckpt_error *err);

#endif
