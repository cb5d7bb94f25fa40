/* scale.h: the scales of block-scaled tensors, by their dtype: E8M0, E4M3, F16, BF16 or F32. */
#ifndef CKPT_SCALE_H
#define CKPT_SCALE_H

#include "ckpt.h"
#include "kernels/kernels.h"

/* `count` scales as F32, exactly. */
void scale_row_f32(const ckpt_kernels *k, ckpt_dtype dtype, const void *scales, uint64_t count,
               float *out);

/* Scale `i` of a row. */
float scale_get(const ckpt_kernels *k, ckpt_dtype dtype, const void *scales, uint64_t i);

/* The largest finite one of a dtype. */
float scale_largest(ckpt_dtype dtype);

/* A product of a code and the scale of its block, under the scale of the whole tensor, if any. */
float scale_whole(ckpt_tensor_scale what, float product, float tensor_scale);

/* Store one scale as element `i` of a row; 0 when the dtype does not have that value. */
int scale_put(const ckpt_kernels *k, ckpt_dtype dtype, uint8_t *row, uint64_t i, float scale);

/* Whether all of these E8M0 codes lie in [low, high]; low is 0..128, high is 127..254. */
int scale_e8m0_within(const uint8_t *codes, uint64_t count, uint8_t low, uint8_t high);

#endif
