/* delta_views.h: a checkpoint, the deltas on it, and the digests on both sides. */
#ifndef CKPT_DELTA_VIEWS_H
#define CKPT_DELTA_VIEWS_H

#include "delta_chain.h"
#include "delta_model.h"
#include "delta_patch.h"
#include "delta_shape.h"

typedef struct {
    ckpt_checkpoint *checkpoint;        /* the base; of a structural delta in the shape of its
                                           result */
    ckpt_checkpoint *real;              /* then: the base itself; else NULL */
    delta_shape shape;
    delta_model model;
    ckpt_source **patches;      /* by delta */
    size_t patch_count;
    ckpt_digest *digest;        /* of the result; NULL: none */
    ckpt_source *tap;
    ckpt_source *result;        /* the last view; borrowed from the above */
} delta_views;

/* Open the chain's base, which must be a Hugging Face directory, and apply the deltas. patch->delta
 * is ignored. Release *out, also after a failure. */
ckpt_code delta_views_open(const delta_chain *chain, const ckpt_open_options *open,
                           const delta_patch_options *patch, delta_views *out, ckpt_error *err);
/* Apply the deltas to a model that is open already. */
ckpt_code delta_views_stack(const delta_chain *chain, ckpt_source *from,
                            const delta_patch_options *patch, delta_views *v, ckpt_error *err);
/* The base as it is. */
const ckpt_checkpoint *delta_views_base(const delta_views *views);
void delta_views_release(delta_views *views);

/* Run options for a loop over these views, with the memory of the views and of each thread
 * (thread_bytes, plus that of the patches). */
ckpt_run_options delta_views_run(const delta_views *views, const ckpt_run_options *run,
                                 uint64_t thread_bytes);

#endif
