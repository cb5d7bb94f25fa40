/*
 * delta_chain.h: opens deltas in the order of application and checks that each follows the last.
 */
#ifndef CKPT_DELTA_CHAIN_H
#define CKPT_DELTA_CHAIN_H

#include "delta.h"

typedef struct {
    const char *base;           /* borrowed, or in `paths`: a complete version in the chain
                                   replaces the base and everything before it */
    ckpt_delta **deltas;
    size_t count;
    file_list paths;
} delta_chain;

/*
 * Open the versions in `paths`: deltas, or folders of deltas (weight_v000001, ...) without a gap in
 * their numbers. The base of each delta must be the result of the previous one: compared by value
 * root if both have it, else by version. Release it, also after a failure.
 */
ckpt_code delta_chain_open(const char *base, char *const *paths, size_t count, delta_chain *out,
                           ckpt_error *err);
/* The same without delta_check_data of the deltas. */
ckpt_code delta_chain_open_unproven(const char *base, char *const *paths, size_t count,
                                    delta_chain *out, ckpt_error *err);
void delta_chain_release(delta_chain *chain);

#endif
