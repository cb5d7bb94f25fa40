/* statistics_row.h: sums over one row of values: the inner loops of statistics. */
#ifndef CKPT_STATISTICS_ROW_H
#define CKPT_STATISTICS_ROW_H

#include <stddef.h>
#include <stdint.h>

/* Of the finite values; -0 is +0. min is infinity and max -infinity when there is none. */
typedef struct {
    uint64_t zeros;
    uint64_t nans;
    uint64_t infinities;
    float min;
    float max;
    double positive;               /* sum of values above 0 */
    double negative;               /* sum of the others' amounts */
    double squares;
} row_statistics;

/* Sums are F64: lane l of 16 takes the columns c with c % 16 = l; then lanes l and l + 8 are added,
 * l and l + 4, l + 2, l + 1. */
void statistics_row(const float *values, size_t count, row_statistics *out);

#endif
