/* Sums over pairs, in lanes of a fixed order. */
#include "difference_row.h"

#include <string.h>

#include "statistics_lanes.h"

typedef struct {
    uint64_t changed[STATISTICS_LANES];
    uint64_t nonfinite[STATISTICS_LANES];
    double a_squares[STATISTICS_LANES];
    double b_squares[STATISTICS_LANES];
    double error_squares[STATISTICS_LANES];
    double dot_positive[STATISTICS_LANES];
    double dot_negative[STATISTICS_LANES];
    double max_error[STATISTICS_LANES];
} difference_lanes;

/* Without branches, so that a compiler makes it vectors. */
static inline void add_pair(difference_lanes *s, float a, float b, size_t l)
{
    const uint32_t a_bits = magnitude_bits(a);
    const uint32_t b_bits = magnitude_bits(b);
    const int both_finite = (a_bits < INFINITY_BITS) & (b_bits < INFINITY_BITS);
    const int both_nan = (a_bits > INFINITY_BITS) & (b_bits > INFINITY_BITS);
    const int is_changed = !((a == b) | both_nan);
    const double x = both_finite ? (double)a : 0.0;
    const double y = both_finite ? (double)b : 0.0;
    const double error = y - x;
    const double amount = error < 0 ? -error : error;
    const double product = x * y;

    s->changed[l] += (uint64_t)is_changed;
    s->nonfinite[l] += (uint64_t)(is_changed & !both_finite);
    s->a_squares[l] += x * x;
    s->b_squares[l] += y * y;
    s->error_squares[l] += error * error;
    s->dot_positive[l] += product > 0 ? product : 0.0;
    s->dot_negative[l] += product < 0 ? -product : 0.0;
    s->max_error[l] = amount > s->max_error[l] ? amount : s->max_error[l];
}

void difference_row(const float *a, const float *b, size_t count, row_difference *out)
{
    const size_t whole = count / STATISTICS_LANES * STATISTICS_LANES;
    difference_lanes s;

    memset(&s, 0, sizeof s);
    for (size_t c = 0; c < whole; c += STATISTICS_LANES)
        for (size_t l = 0; l < STATISTICS_LANES; l++)
            add_pair(&s, a[c + l], b[c + l], l);
    for (size_t l = 0; l < count - whole; l++)
        add_pair(&s, a[whole + l], b[whole + l], l);
    *out = (row_difference){ lanes_count(s.changed), lanes_count(s.nonfinite),
                             lanes_sum(s.a_squares), lanes_sum(s.b_squares),
                             lanes_sum(s.error_squares), lanes_sum(s.dot_positive),
                             lanes_sum(s.dot_negative), 0 };
    for (size_t l = 0; l < STATISTICS_LANES; l++)
        out->max_error = s.max_error[l] > out->max_error ? s.max_error[l] : out->max_error;
}
