/* convert_feed_copy.h: the tensor loop of a conversion whose source arrives file by file. */
#ifndef CKPT_CONVERT_FEED_COPY_H
#define CKPT_CONVERT_FEED_COPY_H

#include "convert_plan.h"

/* The parameters of the loop, which copies tensors to `to` when they are ready. */
typedef struct {
    ckpt_source *from;
    ckpt_sink *to;
    const ckpt_run_options *options;
    uint8_t *ready;                  /* by target tensor */
    const uint8_t *kept;             /* by target tensor: already written */
    const char *directory;           /* where `to` writes its files */
} feed_copy;

/* Like ckpt_copy, but converts each tensor when its files have arrived. */
ckpt_code convert_feed_copy(const job_plan *plan, const feed_copy *copy, ckpt_error *err);

#endif
