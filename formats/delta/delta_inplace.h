/*
 * delta_inplace.h: a base that becomes the result itself, for checkpoints too large for two copies.
 *
 * Two passes. The first reads and checks all that apply does and notes what every touched piece was
 * and will be (delta_sectors.h); nothing is changed before all of it was right and is on the disk.
 * The second goes over the pieces: one that is what it was is changed, one that is what it will be
 * is left, any other one is refused with its place. So XOR can be begun again after a kill.
 */
#ifndef CKPT_DELTA_INPLACE_H
#define CKPT_DELTA_INPLACE_H

#include "delta_chain.h"
#include "delta_sectors.h"
#include "delta_views.h"

typedef struct {
    const delta_chain *chain;
    const ckpt_checkpoint *checkpoint;
    delta_sectors sectors;
    int is_begun;                   /* an earlier run may have changed some pieces */
    hash128 fingerprint;
    uint8_t *touched;               /* by stored tensor */
} delta_inplace;

/* What has to be done, and whether an earlier run has begun it. Refuses a chain that mixes
 * encodings. Release *out, also after a failure. */
ckpt_code delta_inplace_begin(const delta_chain *chain, const ckpt_checkpoint *c,
                              delta_inplace *out, ckpt_error *err);
void delta_inplace_release(delta_inplace *in);

/* The first pass. The caller compares roots, then calls delta_sectors_complete. */
ckpt_code delta_inplace_look(delta_inplace *in, delta_views *views, const ckpt_run_options *run,
                             ckpt_error *err);
/* The second. What was written is on the disk afterwards. *kept: pieces that were changed
 * already. */
ckpt_code delta_inplace_write(delta_inplace *in, const ckpt_run_options *run, uint64_t *kept,
                              ckpt_error *err);

#endif
