/* interleave_wide.h: MXFP4 blocks with wider instructions. Not for files outside kernels/. */
#ifndef CKPT_KERNELS_INTERLEAVE_WIDE_H
#define CKPT_KERNELS_INTERLEAVE_WIDE_H

#include <stddef.h>
#include <stdint.h>

/* As interleave_split and interleave_join, for the first blocks of `count`; returns how many. */
size_t mxfp4_split_avx512(const uint8_t *blocks, size_t count, uint8_t *codes, uint8_t *scales);
size_t mxfp4_join_avx512(const uint8_t *codes, const uint8_t *scales, size_t count,
                         uint8_t *blocks);

#endif
