/* group_scale.h: the canonical scale of an FP4 group, as the vector sets find it. */
#ifndef CKPT_KERNELS_GROUP_SCALE_H
#define CKPT_KERNELS_GROUP_SCALE_H

#include "internal.h"

/*
 * fp4_group_scale_exact_scalar for normal values, from what is extreme in the group. FP4 holds 1
 * and 3 times powers of two: mantissas of 0 and .5. With E the exponent of the largest magnitude,
 * scales E - 2 and up keep it within 6 units. 2^e has a code at scales up to e + 1, 1.5 * 2^e up to
 * e. So E - 2 fits when any scale does, and makes the largest 4 or 6; only 1.5 * 2^E may do with
 * E - 1, as a 3.
 *   odd: not 0 when a mantissa has other bits set; largest: the largest magnitude
 *   least: exponent, less one if the mantissa is .5, at its lowest over the values that are not 0
 */
static inline int fp4_group_scale_of(const float *src, uint32_t odd, uint32_t largest,
                                     int32_t least)
{
    const int exponent = (int)(largest >> 23);
    const int highest_scale = least + 1;

    if (largest == 0)
        return 1;
    if (least <= 0 || exponent < 3)           /* subnormal values or scales */
        return fp4_group_scale_exact_scalar(src);
    if (odd != 0 || largest >= F32_INF_BITS || highest_scale < exponent - 2)
        return -1;
    return (largest & 0x400000u) != 0 && highest_scale >= exponent - 1 ? exponent - 1
                                                                        : exponent - 2;
}

#endif
