/* convert_output.h: the output of a run: DST.partial with its journal and lock, the planned files
 * in it, and the files beside the weights. */
#ifndef CKPT_CONVERT_OUTPUT_H
#define CKPT_CONVERT_OUTPUT_H

#include "convert_plan.h"

typedef struct {
    const job_plan *plan;
    ckpt_output *partial;            /* NULL before job_output_begin and after the end */
    side_data_writer *spill;         /* FP4 -> FP8, while tensors are written; or NULL */
    file_list others;                /* files written that have no tensors */
} job_output;

/* 1 if the planned directory has config.json and the other small files as this job writes them. */
int job_output_has_others(const job_plan *plan);
/* 1 if the result has the index of a Hugging Face directory. */
int job_output_has_index(const job_plan *plan);
/* Refuse what job_output_begin would refuse, and change nothing. */
ckpt_code job_output_check_begin(job_output *output, ckpt_error *err);
/* Create or reopen DST.partial, create the planned files in it, open the spill. `output` must not
 * move until the end. */
ckpt_code job_output_begin(job_output *output, ckpt_error *err);
ckpt_code job_output_begin_spill(job_output *output, ckpt_error *err);
const char *job_output_directory(const job_output *output);

/* Exceptions are synced before the journal records that their tensor is done. `context` is the
 * job_output, with a spill. */
ckpt_code job_output_sync_spill(void *context, ckpt_error *err);

/* Write the format's bytes around the data of some tensors; NULL: of all. */
ckpt_code job_output_seal(const job_output *output, const uint8_t *tensors, ckpt_error *err);
/* Write the files that describe all data: an index, .metadata. `root`: its digest, or NULL. */
ckpt_code job_output_write_index(const job_output *output, const char *root, ckpt_error *err);
/* The same below `directory`, for a plan that is not run. */
ckpt_code job_output_describe(const job_output *output, const char *directory, ckpt_error *err);
/* Write config.json and the files copied along. */
ckpt_code job_output_write_others(job_output *output, ckpt_error *err);

ckpt_code job_output_commit(job_output *output, ckpt_error *err);
void job_output_discard(job_output *output);       /* remove it: nothing of it can be used */
void job_output_withdraw(job_output *output);      /* undo: this run has written nothing */
void job_output_close(job_output *output);         /* leaves uncommitted output on disk */

#endif
