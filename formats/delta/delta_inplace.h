/*
 * delta_inplace.h: changes the base into the result, for checkpoints too large for two copies.
 *
 * Two passes. The first checks everything that apply checks, and records a hash of the old and the
 * new content of each piece that will change (delta_sectors.h). Nothing is changed before this
 * journal is complete and on the disk. The second pass changes a piece that has its old content,
 * skips one that has its new content, and refuses any other. So a run that was killed can be
 * resumed although XOR applied twice would undo the change.
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

/* Memory of one thread, without its scratch. */
enum { DELTA_INPLACE_THREAD_BYTES = 2 * DELTA_LOT_BYTES + (1 << 12) };

/* Plan the change, and find out whether an earlier run has begun it. Refuses a chain that mixes
 * encodings. Release *out, also after a failure. */
ckpt_code delta_inplace_begin(const delta_chain *chain, const ckpt_checkpoint *c,
                              delta_inplace *out, ckpt_error *err);
void delta_inplace_release(delta_inplace *in);

/* Refuse files that cannot be changed: a link, a second name, read-only. Changes nothing. */
ckpt_code delta_inplace_check_files(const delta_inplace *in, ckpt_error *err);
/* The first pass. The caller compares roots, then calls delta_sectors_complete. */
ckpt_code delta_inplace_look(delta_inplace *in, delta_views *views, const ckpt_run_options *run,
                             ckpt_error *err);
/* The second pass; syncs what it wrote. *kept: number of pieces that were changed already. */
ckpt_code delta_inplace_write(delta_inplace *in, const ckpt_run_options *run, uint64_t *kept,
                              ckpt_error *err);

#endif
