/* certify_plan.h: what ckpt-verify certify --dry-run prints. */
#ifndef TOOL_CERTIFY_PLAN_H
#define TOOL_CERTIFY_PLAN_H

#include "certify_places.h"
#include "libckpt/checkpoint.h"

typedef struct {
    ckpt_checkpoint *const *checkpoints;    /* opened, in the order of the command line */
    size_t count;
    const cli_list *deltas;
    int structure_only;
    const certify_places *places;
} certify_plan;

/* On standard output: the checkpoints and deltas that are read, and the files that the run would
 * write. */
void certify_plan_print(const certify_plan *plan, const cli_common *common);

#endif
