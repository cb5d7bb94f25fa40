/*
 * delta_patch.h: the view that a delta makes of a checkpoint: its tensors after the change.
 *
 * The tiles of a tensor must be read in order, by one thread at a time (ckpt_copy_in_order). The
 * bytes of each changed tensor are checked before they go in, where the delta has what they were,
 * and when the last one is through, always: a tensor that fails fails its last tile.
 */
#ifndef CKPT_DELTA_PATCH_H
#define CKPT_DELTA_PATCH_H

#include "delta_model.h"

typedef struct {
    const ckpt_delta *delta;
    int skip_before;            /* what the bytes were is not asked */
    int skip_all;               /* nor what they become: somebody else knows */
} delta_patch_options;

/*
 * `from` has the tensors of `model` (the model's own, or another patch of them). All is borrowed.
 * Refuses a delta that names a tensor which the model lacks, or changes a tensor and not its copy.
 * *out is yours to free.
 */
ckpt_code source_patch(ckpt_source *from, const delta_model *model,
                       const delta_patch_options *options, ckpt_source **out, ckpt_error *err);

/* Memory of one thread beside its scratch. */
enum { DELTA_PATCH_THREAD_BYTES = ZFRAME_READER_BYTES };

#endif
