/* Sums over a row, in lanes of a fixed order, so that the width of registers changes no bit. */
#include "statistics_row.h"

#include <math.h>
#include <string.h>

enum { LANES = 16 };

#define INFINITY_BITS 0x7f800000u

typedef struct {
    uint64_t zeros[LANES];
    uint64_t nans[LANES];
    uint64_t infinities[LANES];
    float min[LANES];
    float max[LANES];
    double positive[LANES];
    double negative[LANES];
    double squares[LANES];
} row_lanes;

/* Without branches, so that a compiler makes it vectors. */
static inline void add_value(row_lanes *s, float value, size_t l)
{
    uint32_t bits;
    float finite;

    memcpy(&bits, &value, sizeof bits);
    bits &= 0x7fffffff;
    finite = bits < INFINITY_BITS ? value + 0.0f : 0.0f;           /* -0 becomes +0 */
    s->zeros[l] += bits == 0;
    s->nans[l] += bits > INFINITY_BITS;
    s->infinities[l] += bits == INFINITY_BITS;
    s->min[l] = bits < INFINITY_BITS && finite < s->min[l] ? finite : s->min[l];
    s->max[l] = bits < INFINITY_BITS && finite > s->max[l] ? finite : s->max[l];
    s->positive[l] += finite > 0 ? (double)finite : 0.0;
    s->negative[l] += finite < 0 ? (double)-finite : 0.0;
    s->squares[l] += (double)finite * (double)finite;
}

static double fold(const double lanes[LANES])
{
    double sum[LANES];

    memcpy(sum, lanes, sizeof sum);
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++)
            sum[l] += sum[l + half];
    return sum[0];
}

static uint64_t count(const uint64_t lanes[LANES])
{
    uint64_t sum = 0;

    for (size_t l = 0; l < LANES; l++)
        sum += lanes[l];
    return sum;
}

void statistics_row(const float *values, size_t size, row_statistics *out)
{
    const size_t whole = size / LANES * LANES;
    row_lanes s;

    memset(&s, 0, sizeof s);
    for (size_t l = 0; l < LANES; l++) {
        s.min[l] = INFINITY;
        s.max[l] = -INFINITY;
    }
    for (size_t c = 0; c < whole; c += LANES)
        for (size_t l = 0; l < LANES; l++)
            add_value(&s, values[c + l], l);
    for (size_t l = 0; l < size - whole; l++)
        add_value(&s, values[whole + l], l);
    *out = (row_statistics){ count(s.zeros), count(s.nans), count(s.infinities), s.min[0],
                             s.max[0], fold(s.positive), fold(s.negative), fold(s.squares) };
    for (size_t l = 1; l < LANES; l++) {
        out->min = s.min[l] < out->min ? s.min[l] : out->min;
        out->max = s.max[l] > out->max ? s.max[l] : out->max;
    }
}
