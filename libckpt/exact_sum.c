/* A wide fixed-point accumulator; see exact_sum.h. */
#include "exact_sum.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Add to one limb and propagate the carry. */
static void add_limb(exact_sum *sum, int i, uint64_t value)
{
    for (; value != 0 && i < EXACT_SUM_LIMBS; i++) {
        sum->limb[i] += value;
        value = sum->limb[i] < value;
    }
    assert(value == 0);
}

void exact_sum_add(exact_sum *sum, double value)
{
    uint64_t bits;
    uint64_t mantissa;
    int place;

    memcpy(&bits, &value, sizeof bits);
    if (bits == 0)
        return;
    mantissa = (bits & 0xFFFFFFFFFFFFFu) | 1ull << 52;
    place = (int)(bits >> 52) - 1023 - 52 - EXACT_SUM_LOWEST;      /* of the mantissa's last bit */
    assert(place >= 0 && place < 64 * (EXACT_SUM_LIMBS - 1));
    add_limb(sum, place / 64, mantissa << place % 64);
    if (place % 64 != 0)
        add_limb(sum, place / 64 + 1, mantissa >> (64 - place % 64));
}

void exact_sum_merge(exact_sum *sum, const exact_sum *other)
{
    for (int i = 0; i < EXACT_SUM_LIMBS; i++)
        add_limb(sum, i, other->limb[i]);
}

/* The 64 bits from the leading one on are truncated to 53, so that the conversion to double does
 * not round. */
double exact_sum_value(const exact_sum *sum)
{
    int top = EXACT_SUM_LIMBS - 1;
    uint64_t bits;
    int shift;

    while (top > 0 && sum->limb[top] == 0)
        top--;
    if (sum->limb[top] == 0)
        return 0.0;
    shift = __builtin_clzll(sum->limb[top]);
    bits = sum->limb[top] << shift;
    if (shift > 0 && top > 0)
        bits |= sum->limb[top - 1] >> (64 - shift);
    return ldexp((double)(bits >> 11), 64 * top - shift + 11 + EXACT_SUM_LOWEST);
}
