/*
 * delta_patch.h: a view of a checkpoint with a delta applied.
 *
 * The tiles of a tensor must be read in order (ckpt_copy_in_order), with the same turns or none.
 * The checksum of each changed tensor after the change is always compared, and that before the
 * change if the delta has it. A tensor with a wrong checksum fails when its last tile is read.
 */
#ifndef CKPT_DELTA_PATCH_H
#define CKPT_DELTA_PATCH_H

#include "delta_model.h"
#include "libckpt/turns.h"

typedef struct {
    const ckpt_delta *delta;
    int skip_before;            /* do not check the bytes before the change */
    int skip_all;               /* nor after it: the caller checks the result */
    copy_turns *turns;          /* of the threads that read; NULL: a tensor is read by one */
} delta_patch_options;

/*
 * `from` has the tensors of `model` (its own source, or another patch of it). All is borrowed.
 * Refuses a delta of a tensor that the model lacks, or that changes a tensor but not its copy.
 * *out is yours to free.
 */
ckpt_code source_patch(ckpt_source *from, const delta_model *model,
                       const delta_patch_options *options, ckpt_source **out, ckpt_error *err);

/* Memory of one thread, without its scratch. */
enum { DELTA_PATCH_THREAD_BYTES = ZFRAME_READER_BYTES };

#endif
