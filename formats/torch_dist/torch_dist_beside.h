/* torch_dist_beside.h: what lies beside the data of a torch_dist checkpoint. */
#ifndef CKPT_TORCH_DIST_BESIDE_H
#define CKPT_TORCH_DIST_BESIDE_H

#include "dcp_metadata.h"
#include "torch_dist.h"

/* Check what lies beside .metadata in the store's folder. */
ckpt_code torch_dist_check_beside(ckpt_checkpoint *c, const dcp_metadata *m, ckpt_error *err);

#endif
