/* group_scale.h: the canonical scale of an FP4 group, from reductions that vector code makes. */
#ifndef CKPT_KERNELS_GROUP_SCALE_H
#define CKPT_KERNELS_GROUP_SCALE_H

#include "internal.h"

/*
 * fp4_group_scale_exact_scalar for normal values. FP4 magnitudes are 2^e and 1.5 * 2^e, so all
 * mantissas must be 1 or 1.5. Let E be the exponent of the largest magnitude.
 *   - The largest must not exceed code 6: the scale is at least E - 2.
 *   - 2^e has a code with scales up to e + 1, 1.5 * 2^e with scales up to e.
 * So if any scale fits, E - 2 does, and the largest becomes 4 or 6. Only if the largest is
 * 1.5 * 2^E can E - 1 fit too, where it becomes 3; the canonical scale is then E - 1.
 *   odd: not 0 if any mantissa is neither 1 nor 1.5. largest: bits of the largest magnitude.
 *   least: minimum over the nonzero values of the exponent field, less 1 if the mantissa is 1.5.
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
