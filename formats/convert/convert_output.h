/* convert_output.h: where a run writes: DST.partial with its journal and lock, the planned files in
 * it, and what lies beside the weights. */
#ifndef CKPT_CONVERT_OUTPUT_H
#define CKPT_CONVERT_OUTPUT_H

#include "convert_plan.h"

typedef struct {
    const job_plan *plan;
    ckpt_output *partial;            /* NULL before job_output_begin and after the end */
    side_data_writer *spill;         /* FP4 -> FP8, while tensors are written; or NULL */
    file_list others;                /* what was written that is no tensor file */
} job_output;

/* Make or enter DST.partial, make the planned files in it, begin the spill. `output` stays where it
 * is until the end. */
ckpt_code job_output_begin(job_output *output, ckpt_error *err);
ckpt_code job_output_begin_spill(job_output *output, ckpt_error *err);
const char *job_output_directory(const job_output *output);

/* Exceptions reach the disk before the journal says that their tensor is done. `context` is the
 * job_output, with a spill. */
ckpt_code job_output_sync_spill(void *context, ckpt_error *err);

/* What the format puts around the data of some tensors; NULL: of all. */
ckpt_code job_output_seal(const job_output *output, const uint8_t *tensors, ckpt_error *err);
/* What describes all data: an index, .metadata. */
ckpt_code job_output_write_index(const job_output *output, ckpt_error *err);
/* The same below `directory`, for a plan that is not run. */
ckpt_code job_output_describe(const job_output *output, const char *directory, ckpt_error *err);
/* config.json and what is carried along. */
ckpt_code job_output_write_others(job_output *output, ckpt_error *err);

ckpt_code job_output_commit(job_output *output, ckpt_error *err);
void job_output_discard(job_output *output);       /* nothing of it can be used */
void job_output_withdraw(job_output *output);      /* this run has written nothing */
void job_output_close(job_output *output);         /* leaves what is not committed */

#endif
