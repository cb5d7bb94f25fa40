/*
 * mp.h: model-parallel shards, as written by DeepSeek's inference/convert.py and read by its
 * loader.
 *
 *   model{rank}-mp{N}.safetensors     rank 0 .. N-1, one file per rank, no index, no __metadata__
 *
 * A tensor is cut in N equal parts along the dimension that the map's shard line names, belongs to
 * the one rank that owns its expert (expert e of E: rank e / (E / N)), or is repeated by all ranks.
 * Packed FP4 has dtype F4 and its logical shape. A cut of a block-scaled weight lies on a block
 * boundary; N must divide every cut dimension, of weight and scale, the number of experts and that
 * of the groups of the attention's output.
 */
#ifndef CKPT_MP_H
#define CKPT_MP_H

#include "format.h"
#include "libckpt/pieces.h"

extern const ckpt_format format_mp;

#endif
