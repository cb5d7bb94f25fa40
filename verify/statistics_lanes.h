/* statistics_lanes.h: sums in 16 lanes, which are added in a fixed order. */
#ifndef CKPT_STATISTICS_LANES_H
#define CKPT_STATISTICS_LANES_H

#include <stdint.h>
#include <string.h>

enum { STATISTICS_LANES = 16 };

#define INFINITY_BITS 0x7f800000u

/* The bits of |value|: those of NaN are above INFINITY_BITS. */
static inline uint32_t magnitude_bits(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7fffffff;
}

/* Lanes l and l + 8, then l and l + 4, l + 2, l + 1. */
static inline double lanes_sum(const double lanes[STATISTICS_LANES])
{
    double sum[STATISTICS_LANES];

    memcpy(sum, lanes, sizeof sum);
    for (size_t half = STATISTICS_LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++)
            sum[l] += sum[l + half];
    return sum[0];
}

static inline uint64_t lanes_count(const uint64_t lanes[STATISTICS_LANES])
{
    uint64_t sum = 0;

    for (size_t l = 0; l < STATISTICS_LANES; l++)
        sum += lanes[l];
    return sum;
}

#endif
