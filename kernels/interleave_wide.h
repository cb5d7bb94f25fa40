/* interleave_wide.h: blocks of FP4 with wider instructions. Not for files outside kernels/. */
#ifndef CKPT_KERNELS_INTERLEAVE_WIDE_H
#define CKPT_KERNELS_INTERLEAVE_WIDE_H

#include <stddef.h>
#include <stdint.h>

/* As interleave_split and interleave_join, for the first blocks of `count`; return how many. */
typedef size_t split_wide(const uint8_t *blocks, size_t count, uint8_t *codes, uint8_t *scales);
typedef size_t join_wide(const uint8_t *codes, const uint8_t *scales, size_t count,
                         uint8_t *blocks);

split_wide mxfp4_split_avx2, mxfp4_split_avx512, nvfp4_split_avx2;
join_wide mxfp4_join_avx2, mxfp4_join_avx512, nvfp4_join_avx2;

#endif
