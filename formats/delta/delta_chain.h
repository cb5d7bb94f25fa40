/*
 * delta_chain.h: deltas in the order in which they are applied, and whether they follow each other.
 */
#ifndef CKPT_DELTA_CHAIN_H
#define CKPT_DELTA_CHAIN_H

#include "delta.h"

typedef struct {
    const char *base;           /* borrowed, or in `paths`: a whole version inside the chain takes
                                   the place of the base and of what was before it */
    ckpt_delta **deltas;
    size_t count;
    file_list paths;
} delta_chain;

/*
 * Open what `paths` name: versions, or folders of versions (weight_v000001, ...), whose versions
 * follow each other without a gap. Each delta must begin where the one before it ends: by its value
 * root where both tell it, else by its version. Release it, also after a failure.
 */
ckpt_code delta_chain_open(const char *base, char *const *paths, size_t count, delta_chain *out,
                           ckpt_error *err);
void delta_chain_release(delta_chain *chain);

#endif
