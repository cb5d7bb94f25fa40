/*
 * statistics_fp4.h: brief statistics of FP4 in groups of 32 with E8M0 scales, without decoding: the
 * sum of squares of a group is an integer times a power of two.
 */
#ifndef CKPT_STATISTICS_FP4_H
#define CKPT_STATISTICS_FP4_H

#include "libckpt/sink.h"
#include "tensor_statistics.h"

/* Add the brief statistics of one tile. 0: nothing was added, because the tensor has another
 * encoding or a scale with which products may overflow. */
int statistics_fp4_add(tensor_statistics *s, const ckpt_tensor *tensor, const source_range *range,
                       const ckpt_tile *tile);

#endif
