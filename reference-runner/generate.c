/* generate.c: chooses the next token. */
#include "generate.h"

#include <math.h>

/* The output function of splitmix64 (Steele, Lea, Flood 2014): a 64-bit hash. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

uint32_t run_next_token(const float *logits, uint32_t vocab_size, const run_draw *draw)
{
    const uint64_t stream = mix(mix(mix(draw->seed) ^ draw->prompt) ^ draw->position);
    double best_value = -INFINITY;
    uint32_t best = 0;

    for (uint32_t v = 0; v < vocab_size; v++) {
        double value = (double)logits[v];

        if (draw->temperature > 0) {
            /* In (0, 1): 53 random bits plus a half, so that it is never 0 or 1. */
            const double uniform = ((double)(mix(stream ^ v) >> 11) + 0.5) * 0x1p-53;

            value = value / draw->temperature - log(-log(uniform));
        }
        if (value > best_value) {
            best_value = value;
            best = v;
        }
    }
    return best;
}

uint32_t run_find_nan(const float *logits, uint32_t vocab_size)
{
    for (uint32_t v = 0; v < vocab_size; v++)
        if (isnan(logits[v]))
            return v + 1;
    return 0;
}
