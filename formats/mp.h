/*
 * mp.h: model-parallel shards, as written by DeepSeek's inference/convert.py and read by its
 * loader.
 *
 *   model{rank}-mp{N}.safetensors     rank 0 .. N-1, one file per rank, no index, no __metadata__
 *
 * A tensor is cut into N equal slices along the dimension of the map's shard line, or belongs to
 * the one rank that owns its expert (expert e of E: rank e / (E / N)), or is repeated in all ranks.
 * Packed FP4 has dtype F4 and its logical shape. Block-scaled weights are cut at block boundaries.
 * N must divide every cut dimension of weights and scales, the number of experts, and the number of
 * groups of the attention's output projection.
 */
#ifndef CKPT_MP_H
#define CKPT_MP_H

#include "format.h"
#include "libckpt/pieces.h"

extern const ckpt_format format_mp;

#endif
