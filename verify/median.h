/* median.h: the median of numbers. */
#ifndef CKPT_MEDIAN_H
#define CKPT_MEDIAN_H

#include <stdlib.h>

static inline int median_order(const void *left, const void *right)
{
    const double a = *(const double *)left;
    const double b = *(const double *)right;

    return (a > b) - (a < b);
}

/* Sorts x, which has at least one number and no NaN. */
static inline double median(double *x, size_t count)
{
    qsort(x, count, sizeof *x, median_order);
    return count % 2 == 1 ? x[count / 2] : (x[count / 2 - 1] + x[count / 2]) / 2;
}

#endif
