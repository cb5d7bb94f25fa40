/* run_passes.h: ckpt-run on prompts of tokens or text. */
#ifndef TOOL_RUN_PASSES_H
#define TOOL_RUN_PASSES_H

#include "run_job.h"

/* Run all prompts of job->lines to their ends, and the tokens that are generated after them. Puts
 * the wanted logits into job->results. */
ckpt_code run_passes(run_job *job, ckpt_error *err);

#endif
