/*
 * statistics_tile.h: adds the values, codes and scales of one tile to the statistics of its tensor.
 *
 * Values are those of the digest (F32 product of code and scale; -0 is +0), but a product that
 * overflows is counted as an infinity here, not refused.
 */
#ifndef CKPT_STATISTICS_TILE_H
#define CKPT_STATISTICS_TILE_H

#include "libckpt/sink.h"
#include "tensor_statistics.h"

/* Scratch bytes for statistics_add. */
uint64_t statistics_need(const ckpt_tensor *tensor);

/* Add one tile. Refuses dtypes that have no values (F64, C64, FNUZ). */
ckpt_code statistics_add(tensor_statistics *s, const ckpt_tensor *tensor,
                         const source_range *range, const ckpt_tile *tile, arena *scratch,
                         ckpt_error *err);

#endif
