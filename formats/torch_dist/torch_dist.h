/*
 * torch_dist.h: Megatron torch_dist checkpoints, and PyTorch DCP directories like them.
 *
 *   latest_checkpointed_iteration.txt   "release" or a number; written last
 *   release/  or  iter_0000001/
 *     .metadata                         keys, boxes, files, positions (dcp_metadata.h)
 *     metadata.json                     name and version of the backend
 *     common.pt                         arguments of the run (common_pt.h)
 *     __{rank}_{n}.distcp               items back to back, each a torch.save archive (zip_item.h)
 *
 * A key is a whole tensor; an item holds one box of it. When we write, a box never spans several
 * logical tensors; experts are cut by expert and half, matrices along their tensor-parallel
 * dimension.
 */
#ifndef CKPT_TORCH_DIST_H
#define CKPT_TORCH_DIST_H

#include "formats/format.h"
#include "libckpt/pieces.h"

extern const ckpt_format format_torch_dist;
extern const char *const torch_dist_map_names[];

/* Cut keys into boxes and name the files. */
ckpt_code torch_dist_split(ckpt_store *store, ckpt_catalog *keys, const ckpt_map *map,
                           const format_sharding *sharding, ckpt_error *err);
/* Set the positions of the items, and begin to compute their checksums while data is written. */
ckpt_code torch_dist_lay_out(ckpt_store *store, const format_target *target, ckpt_error *err);
/* Write heads and tails of the items, with their checksums. */
ckpt_code torch_dist_seal(ckpt_store *store, const uint8_t *owned, ckpt_error *err);
/* Write the files beside the data. */
ckpt_code torch_dist_finish(ckpt_store *store, const format_target *target, ckpt_error *err);

#endif
