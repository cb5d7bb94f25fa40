/*
 * sums.h: verifies checksums that a format stores of runs of its bytes. Readers of the format
 * record them with store_add_sum; this reads all runs and compares.
 */
#ifndef CKPT_SUMS_H
#define CKPT_SUMS_H

#include "sink.h"

typedef struct {
    size_t sum;                    /* number in the store */
    uint32_t got;
} sums_difference;

typedef struct {
    size_t checked_count;
    uint64_t checked_bytes;
    size_t absent_count;           /* runs without a checksum */
    sums_difference *wrong;        /* in the order of the store */
    size_t wrong_count;
} sums_result;

/* Read every run once, with the threads of the options. *out is yours to release. */
ckpt_code sums_check(const ckpt_store *store, const ckpt_run_options *options, sums_result *out,
                     ckpt_error *err);
void sums_release(sums_result *result);

#endif
