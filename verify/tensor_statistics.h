/*
 * tensor_statistics.h: statistics of a tensor: range, mean, zeros, NaN; its codes and scales.
 *
 * Every figure is a count, a minimum, a maximum or an exact sum over tiles: the result is
 * bit-identical for any order of tiles and number of threads. NaN and infinities are counted, but
 * not included in other figures.
 */
#ifndef CKPT_TENSOR_STATISTICS_H
#define CKPT_TENSOR_STATISTICS_H

#include "libckpt/exact_sum.h"
#include "libckpt/size.h"
#include "libckpt/tensor.h"

enum { STATISTICS_CODES = 256, STATISTICS_EXPONENTS = 256 };

/* Scales of blocks, as F32. */
typedef struct {
    uint64_t count;
    uint64_t zeros;                /* 0; for E8M0 the byte 0x00, which means 2^-127 */
    uint64_t nans;                 /* NaN (for E8M0 the byte 0xFF), infinity; with the scale of the
                                      whole tensor, if any */
    float min;                     /* of the others; min > max: no others */
    float max;
} scale_statistics;

/* Begin with statistics_init. Rows count from the tensor's first, in its row view. */
typedef struct {
    int is_brief;                  /* set before tiles are added; as `brief` of statistics.h */
    uint64_t count;
    uint64_t zeros;
    uint64_t nans;
    uint64_t infinities;
    uint64_t zero_rows;            /* rows that are all 0 */
    uint64_t first_zero_row;       /* the first of them; UINT64_MAX: none */
    uint64_t bad_row;              /* of the first NaN or infinity, by rows; UINT64_MAX: none */
    uint64_t bad_col;
    float min;                     /* of finite values; min > max: no finite value */
    float max;
    exact_sum positive;            /* total of the tile sums above 0, */
    exact_sum negative;            /* and of the magnitudes of the others */
    exact_sum squares;
    int64_t int_min;               /* of integers, which have no sums; for U64 minus 2^63 */
    int64_t int_max;
    scale_statistics scales;       /* count 0: no scales */
    uint64_t saturated;            /* codes of the largest magnitude; FP8 and FP4 only */
    uint64_t *codes;               /* borrowed counters of codes, 16 for FP4 and 256 for FP8;
                                      NULL: codes are not counted */
    uint64_t *exponents;           /* the same by the F32's 8 exponent bits, without 0, NaN and
                                      infinity; NULL: not counted */
} tensor_statistics;

void statistics_init(tensor_statistics *s);
/* Count a row that is all 0. */
static inline void statistics_note_zero_row(tensor_statistics *s, uint64_t row)
{
    s->zero_rows++;
    s->first_zero_row = size_min(s->first_zero_row, row);
}

/* Number of codes in the histogram of such a tensor, 16 or 256; 0: its elements are not codes. */
size_t statistics_code_count(const ckpt_tensor *tensor);

/* 1 when `code` has the largest finite magnitude of this dtype, with either sign. */
int statistics_is_largest(ckpt_dtype dtype, unsigned code);

/* *s += other: other tiles of the tensor, or other tensors (positions are then undefined). Counters
 * of codes and exponents are added if both have them. */
void statistics_merge(tensor_statistics *s, const tensor_statistics *other, size_t code_count);

/* Add `count` counters to those of `to`; nothing if either is NULL. */
void statistics_merge_counters(uint64_t *to, const uint64_t *from, size_t count);

/* NaN if there is no finite value. */
double statistics_mean(const tensor_statistics *s);
double statistics_rms(const tensor_statistics *s);

#endif
