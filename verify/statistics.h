/*
 * statistics.h: statistics of a tensor: range, mean, zeros, NaN; its codes and scales.
 *
 * Values are those of the digest (F32 product of code and scale; -0 is +0), but a product that
 * overflows is counted as an infinity here, not refused. Every figure is a count, a minimum, a
 * maximum or an exact sum over tiles: the result is bit-identical for any order of tiles and
 * number of threads. NaN and infinities are counted, but not included in other figures.
 */
#ifndef CKPT_STATISTICS_H
#define CKPT_STATISTICS_H

#include <pthread.h>

#include "libckpt/exact_sum.h"
#include "libckpt/sink.h"
#include "libckpt/size.h"

enum { STATISTICS_CODES = 256, STATISTICS_EXPONENTS = 256 };

/* Scales of blocks, as F32. */
typedef struct {
    uint64_t count;
    uint64_t zeros;                /* 0; for E8M0 the byte 0x00, which means 2^-127 */
    uint64_t nans;                 /* NaN (for E8M0 the byte 0xFF), infinity */
    float min;                     /* of the others; min > max: no others */
    float max;
} scale_statistics;

/* Begin with statistics_init. Rows count from the tensor's first, in its row view. */
typedef struct {
    int is_brief;                  /* see statistics_options; set before tiles are added */
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

/* Scratch bytes for statistics_add. */
uint64_t statistics_need(const ckpt_tensor *tensor);

/* Add one tile. Refuses dtypes that have no values (F64, C64, FNUZ). */
ckpt_code statistics_add(tensor_statistics *s, const ckpt_tensor *tensor,
                         const source_range *range, const ckpt_tile *tile, arena *scratch,
                         ckpt_error *err);

/* *s += other: other tiles of the tensor, or other tensors (positions are then undefined). Counters
 * of codes and exponents are added if both have them. */
void statistics_merge(tensor_statistics *s, const tensor_statistics *other, size_t code_count);

/* NaN if there is no finite value. */
double statistics_mean(const tensor_statistics *s);
double statistics_rms(const tensor_statistics *s);

/* ---- of all tensors of a source ---- */

/* Counts over all tensors of a pass. */
typedef struct {
    uint64_t fp8[STATISTICS_CODES];            /* codes of E4M3 */
    uint64_t fp4[16];
    uint64_t exponents[STATISTICS_EXPONENTS];  /* as in tensor_statistics */
} statistics_totals;

typedef struct {
    ckpt_run_options run;
    statistics_totals *totals;     /* counters to add to; NULL: not counted */
    const uint8_t *wanted;         /* by tensor of the catalog; NULL: all */
    int codes;                     /* count codes */
    int exponents;                 /* count exponents, each tensor's own */
    int brief;                     /* may omit ranges, sums and scales if counts, positions and
                                      squares are then faster; not with codes or exponents */
} statistics_options;

/* Statistics by tensor of the catalog. Those that are not wanted or have no values stay as after
 * statistics_init. */
typedef struct {
    const ckpt_catalog *catalog;   /* borrowed */
    const uint8_t *wanted;         /* borrowed; NULL: all */
    tensor_statistics *tensors;
    size_t count;
    uint64_t *counters;            /* storage of their codes and exponents */
    uint64_t bytes;                /* memory used by all of this */
    int is_brief;
    statistics_totals *totals;     /* borrowed; or NULL */
    pthread_mutex_t lock;
} source_statistics;

/* Prepare statistics of a catalog's tensors, for a caller that receives tiles in a pass of its own.
 * *out is yours to release, also on failure, and must not be moved. */
ckpt_code statistics_begin(const ckpt_catalog *catalog, const statistics_options *options,
                           source_statistics *out, ckpt_error *err);
/* 1 when this tensor is wanted and has values. */
int statistics_wants(const source_statistics *statistics, size_t tensor);
/* Add one tile of a wanted tensor. Thread-safe; scratch as for statistics_add. */
ckpt_code statistics_put_tile(source_statistics *statistics, const source_range *range,
                              const ckpt_tile *tile, arena *scratch, ckpt_error *err);

/* Read all data in one pass. *out is yours to release. */
ckpt_code statistics_of_source(ckpt_source *source, const statistics_options *options,
                               source_statistics *out, ckpt_error *err);
void statistics_release(source_statistics *statistics);

#endif
