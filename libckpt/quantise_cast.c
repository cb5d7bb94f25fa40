/* NVFP4 scales of FP4 groups: exponents only; see quantise.h. */
#include <math.h>

#include "quantise.h"

enum {
    LARGEST_EXPONENT = 8,      /* E4M3's largest power of two is 2^8 */
    WINDOW = 17                /* its smallest is 2^-9 */
};

float nvfp4_cast_tensor_scale(uint8_t largest)
{
    return largest == 0 ? 1.0f : ldexpf(1.0f, largest - 127 - LARGEST_EXPONENT);
}

/* E4M3 of 2^exponent, -9 .. 8. */
static uint8_t e4m3_power(int exponent)
{
    return (uint8_t)(exponent >= -6 ? (exponent + 7) << 3 : 1 << (exponent + 9));
}

size_t nvfp4_cast_scales(const uint8_t *e8m0, const uint8_t *masks, size_t group_count,
                         uint8_t largest, uint8_t *scales)
{
    for (size_t g = 0; g < group_count; g++) {
        const int distance = largest - e8m0[g];
        const int is_within = e8m0[g] != 0 && e8m0[g] != 255 && distance >= 0 &&
                              distance <= WINDOW;

        if (!is_within && (masks[g] & 0xFEu) != 0)
            return g;
        scales[2 * g] = e4m3_power(is_within ? LARGEST_EXPONENT - distance : -9);
        scales[2 * g + 1] = scales[2 * g];
    }
    return group_count;
}
