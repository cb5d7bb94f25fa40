/*
 * statistics.h: statistics of all tensors of a source, from one pass over its data.
 */
#ifndef CKPT_STATISTICS_H
#define CKPT_STATISTICS_H

#include <pthread.h>

#include "libckpt/sink.h"
#include "tensor_statistics.h"

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
