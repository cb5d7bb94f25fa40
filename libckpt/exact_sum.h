/*
 * exact_sum.h: a sum of doubles without rounding. The result does not depend on the order, so that
 * threads may add in any order.
 *
 * A fixed-point number with room for 2^63 squares of F32 values: bits of weight 2^-352 to 2^351.
 */
#ifndef CKPT_EXACT_SUM_H
#define CKPT_EXACT_SUM_H

#include <stdint.h>

enum { EXACT_SUM_LIMBS = 11, EXACT_SUM_LOWEST = -352 };

/* Initialise with zeros. limb[i] counts units of 2^(64 * i - 352). */
typedef struct {
    uint64_t limb[EXACT_SUM_LIMBS];
} exact_sum;

/* *sum += value, which is 0 or at least 2^-300 and below 2^320. */
void exact_sum_add(exact_sum *sum, double value);

/* *sum += other */
void exact_sum_merge(exact_sum *sum, const exact_sum *other);

/* The sum, truncated to 53 bits. */
double exact_sum_value(const exact_sum *sum);

#endif
