/* scale.h: the scales of block-scaled tensors, by their dtype: E8M0, E4M3, F16, BF16 or F32. */
#ifndef CKPT_SCALE_H
#define CKPT_SCALE_H

#include "ckpt.h"
#include "kernels/kernels.h"

/* Decode `count` scales to F32, which is exact. */
void scale_row_f32(const ckpt_kernels *k, ckpt_dtype dtype, const void *scales, uint64_t count,
               float *out);

/* Decode scale `i` of a row. */
float scale_get(const ckpt_kernels *k, ckpt_dtype dtype, const void *scales, uint64_t i);

/* The largest finite scale of a dtype. */
float scale_largest(ckpt_dtype dtype);

/* Apply the tensor scale, if any, to a product of a code and the scale of its block. */
float scale_whole(ckpt_tensor_scale what, float product, float tensor_scale);

/* 1 for a finite number above 0, which every scale of a whole tensor or of activations must be:
 * programs divide by them. */
int scale_is_fit(float scale);

/* Store one scale as element `i` of a row; 0 when the dtype cannot represent it exactly. */
int scale_put(const ckpt_kernels *k, ckpt_dtype dtype, uint8_t *row, uint64_t i, float scale);

/* 1 when all of these E8M0 codes are in [low, high]; low must be 0..128, high 127..254. */
int scale_e8m0_within(const uint8_t *codes, uint64_t count, uint8_t low, uint8_t high);

#endif
