/*
 * statistics_fp4.h: what statistics.h calls brief, of FP4 in groups of 32 with E8M0 scales,
 * without decoding it: the squares of a group are a whole number times a power of two.
 */
#ifndef CKPT_STATISTICS_FP4_H
#define CKPT_STATISTICS_FP4_H

#include "statistics.h"

/* Add the brief figures of one tile. 0, and nothing was added: the tensor has another encoding, or
 * a scale under which a product need not be finite. */
int statistics_fp4_add(tensor_statistics *s, const ckpt_tensor *tensor, const source_range *range,
                       const ckpt_tile *tile);

#endif
