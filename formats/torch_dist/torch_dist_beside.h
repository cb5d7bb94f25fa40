/* torch_dist_beside.h: the small files beside the data of a torch_dist checkpoint. */
#ifndef CKPT_TORCH_DIST_BESIDE_H
#define CKPT_TORCH_DIST_BESIDE_H

#include "dcp_metadata.h"
#include "torch_dist.h"

/* ckpt_format.read_argument and .read_text_argument: from common.pt, or the byte entry that newer
 * checkpoints have. */
ckpt_code torch_dist_read_argument(const ckpt_checkpoint *c, const char *name, uint64_t *out,
                                   int *is_there, ckpt_error *err);

ckpt_code torch_dist_read_text_argument(const ckpt_checkpoint *c, const char *name, char **out,
                                        ckpt_error *err);

/* Check the files beside .metadata in the store's folder. */
ckpt_code torch_dist_check_beside(ckpt_checkpoint *c, const dcp_metadata *m, ckpt_error *err);

#endif
