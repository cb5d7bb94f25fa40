/* convert_pipeline.h: the views that tensors pass through: picked inputs -> digest tap ->
 * encodings, and if --verify needs it another digest tap. */
#ifndef CKPT_CONVERT_PIPELINE_H
#define CKPT_CONVERT_PIPELINE_H

#include "convert_result.h"

typedef struct {
    ckpt_source *tap;
    ckpt_source *encoded;
    ckpt_source *written;            /* what is copied: `encoded`, or the tap on it */
} convert_pipeline;

/* Digests are created in `result` if it has none. `exceptions` may be NULL. Free it, also on
 * failure. */
ckpt_code pipeline_make(const job_plan *plan, encode_exception_sink *exceptions,
                        job_result *result, convert_pipeline *out, ckpt_error *err);
void pipeline_free(convert_pipeline *p);

/* The encode options of this plan, without exceptions_out. */
encode_options pipeline_encode_options(const job_plan *plan);

/* 1 when values of the result may differ from the inputs. */
int pipeline_may_change(const job_plan *plan);

/* Memory of one thread's tile. */
ckpt_code pipeline_tile_bytes(const job_plan *plan, uint64_t *out, ckpt_error *err);

/* Set result.losses after all tensors were read; refuses a tensor that lost more than its limit.
 * Needs result.stats if there are tensors of an earlier run. */
ckpt_code convert_take_losses(const job_plan *plan, const convert_pipeline *p, job_result *result,
                              ckpt_error *err);

/* The run options for a loop over this plan's tensors. */
ckpt_run_options pipeline_run_options(const job_plan *plan);

#endif
