/* Sums over a row, in lanes of a fixed order, so that the width of registers changes no bit. */
#include "statistics_row.h"

#include <math.h>
#include <string.h>

#include "statistics_lanes.h"

typedef struct {
    uint64_t zeros[STATISTICS_LANES];
    uint64_t nans[STATISTICS_LANES];
    uint64_t infinities[STATISTICS_LANES];
    float min[STATISTICS_LANES];
    float max[STATISTICS_LANES];
    double positive[STATISTICS_LANES];
    double negative[STATISTICS_LANES];
    double squares[STATISTICS_LANES];
} row_lanes;

/* Without branches, so that a compiler makes it vectors. */
static inline void add_value(row_lanes *s, float value, size_t l)
{
    const uint32_t bits = magnitude_bits(value);
    const float finite = bits < INFINITY_BITS ? value + 0.0f : 0.0f;   /* -0 becomes +0 */

    s->zeros[l] += bits == 0;
    s->nans[l] += bits > INFINITY_BITS;
    s->infinities[l] += bits == INFINITY_BITS;
    s->min[l] = bits < INFINITY_BITS && finite < s->min[l] ? finite : s->min[l];
    s->max[l] = bits < INFINITY_BITS && finite > s->max[l] ? finite : s->max[l];
    s->positive[l] += finite > 0 ? (double)finite : 0.0;
    s->negative[l] += finite < 0 ? (double)-finite : 0.0;
    s->squares[l] += (double)finite * (double)finite;
}

void statistics_row(const float *values, size_t size, row_statistics *out)
{
    const size_t whole = size / STATISTICS_LANES * STATISTICS_LANES;
    row_lanes s;

    memset(&s, 0, sizeof s);
    for (size_t l = 0; l < STATISTICS_LANES; l++) {
        s.min[l] = INFINITY;
        s.max[l] = -INFINITY;
    }
    for (size_t c = 0; c < whole; c += STATISTICS_LANES)
        for (size_t l = 0; l < STATISTICS_LANES; l++)
            add_value(&s, values[c + l], l);
    for (size_t l = 0; l < size - whole; l++)
        add_value(&s, values[whole + l], l);
    *out = (row_statistics){ .zeros = lanes_count(s.zeros),
                             .nans = lanes_count(s.nans),
                             .infinities = lanes_count(s.infinities),
                             .min = s.min[0],
                             .max = s.max[0],
                             .positive = lanes_sum(s.positive),
                             .negative = lanes_sum(s.negative),
                             .squares = lanes_sum(s.squares) };
    for (size_t l = 1; l < STATISTICS_LANES; l++) {
        out->min = s.min[l] < out->min ? s.min[l] : out->min;
        out->max = s.max[l] > out->max ? s.max[l] : out->max;
    }
}
