/*
 * statistics.h: what the values of a tensor are: range, mean, zeros, NaN; its codes and scales.
 *
 * Values are those of the digest (F32 product of code and scale; -0 is +0), but a product that
 * overflows is counted as an infinity here, not refused. Every figure is a count, a minimum, a
 * maximum or an exact sum over tiles: tiles may come in any order and from any thread, and the
 * result has the same bits. NaN and infinities are counted and are in no other figure.
 */
#ifndef CKPT_STATISTICS_H
#define CKPT_STATISTICS_H

#include <pthread.h>

#include "libckpt/exact_sum.h"
#include "libckpt/sink.h"

enum { STATISTICS_CODES = 256, STATISTICS_EXPONENTS = 256 };

/* Scales of blocks, as F32. */
typedef struct {
    uint64_t count;
    uint64_t zeros;                /* 0; of E8M0 the byte 0x00, which stands for 2^-127 */
    uint64_t nans;                 /* NaN (of E8M0 the byte 0xFF), infinity */
    float min;                     /* of the others; min > max: there is none */
    float max;
} scale_statistics;

/* Begin with statistics_init. Rows count from the tensor's first, in its row view. */
typedef struct {
    int is_brief;                  /* as statistics_options has it; set before tiles are added */
    uint64_t count;
    uint64_t zeros;
    uint64_t nans;
    uint64_t infinities;
    uint64_t zero_rows;            /* rows that are all 0 */
    uint64_t first_zero_row;       /* the first of them; UINT64_MAX: none */
    uint64_t bad_row;              /* of the first NaN or infinity, by rows; UINT64_MAX: none */
    uint64_t bad_col;
    float min;                     /* of finite values; min > max: there is none */
    float max;
    exact_sum positive;            /* of the sums of tiles that are above 0, */
    exact_sum negative;            /* and of the amounts of the others */
    exact_sum squares;
    int64_t int_min;               /* of integers, which have no sums; of U64 the value less 2^63 */
    int64_t int_max;
    scale_statistics scales;       /* count 0: it has none */
    uint64_t saturated;            /* codes of the largest magnitude; FP8 and FP4 only */
    uint64_t *codes;               /* borrowed counters of codes, 16 for FP4 and 256 for FP8: all
                                      codes are added to them; NULL: they are not counted */
    uint64_t *exponents;           /* the same by the 8 bits of the F32's exponent, without 0, NaN
                                      and infinity; NULL: not counted */
} tensor_statistics;

void statistics_init(tensor_statistics *s);
/* Count a row that is all 0. */
void statistics_note_zero_row(tensor_statistics *s, uint64_t row);

/* 16 or 256: how many codes the histogram of such a tensor has; 0: its elements are no codes. */
size_t statistics_code_count(const ckpt_tensor *tensor);

/* 1 when `code` has the largest finite magnitude of this dtype, with either sign. */
int statistics_is_largest(ckpt_dtype dtype, unsigned code);

/* Scratch that statistics_add takes. */
uint64_t statistics_need(const ckpt_tensor *tensor);

/* Add one tile. Refuses dtypes that have no values (F64, C64, FNUZ). */
ckpt_code statistics_add(tensor_statistics *s, const ckpt_tensor *tensor,
                         const source_range *range, const ckpt_tile *tile, arena *scratch,
                         ckpt_error *err);

/* *s += other: other tiles of the tensor, or other tensors (places are then without meaning).
 * Counters of codes and exponents are added where both have them. */
void statistics_merge(tensor_statistics *s, const tensor_statistics *other, size_t code_count);

/* NaN when there is no finite value. */
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
    statistics_totals *totals;     /* to be added to; NULL: not counted */
    const uint8_t *wanted;         /* by tensor of the catalog; NULL: all */
    int codes;                     /* count codes */
    int exponents;                 /* count exponents, each tensor's own */
    int brief;                     /* ranges, sums and scales may be left out, where counts, places
                                      and squares are faster without; not with the above */
} statistics_options;

/* By tensor of the catalog; those that are not wanted or have no values are as statistics_init
 * leaves them. */
typedef struct {
    const ckpt_catalog *catalog;   /* borrowed */
    const uint8_t *wanted;         /* borrowed; NULL: all */
    tensor_statistics *tensors;
    size_t count;
    uint64_t *counters;            /* what their codes and exponents point into */
    uint64_t bytes;                /* that these figures take */
    int is_brief;
    statistics_totals *totals;     /* borrowed; or NULL */
    pthread_mutex_t lock;
} source_statistics;

/* Room for the figures of a catalog's tensors, for whoever has the tiles of another pass. *out is
 * yours to release, also on failure; it is not to be moved. */
ckpt_code statistics_begin(const ckpt_catalog *catalog, const statistics_options *options,
                           source_statistics *out, ckpt_error *err);
/* 1 when the figures of this tensor are wanted, and it has some. */
int statistics_wants(const source_statistics *statistics, size_t tensor);
/* Add one tile of a tensor that is wanted. Thread-safe; scratch is that of statistics_add. */
ckpt_code statistics_put_tile(source_statistics *statistics, const source_range *range,
                              const ckpt_tile *tile, arena *scratch, ckpt_error *err);

/* One pass over the data. *out is yours to release. */
ckpt_code statistics_of_source(ckpt_source *source, const statistics_options *options,
                               source_statistics *out, ckpt_error *err);
void statistics_release(source_statistics *statistics);

#endif
