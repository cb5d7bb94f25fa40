/*
 * sums.h: do files still hold the bytes that they were written with? Some formats keep checksums of
 * runs of their bytes; their readers note them (store_add_sum), this reads all runs and compares.
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
    size_t absent_count;           /* runs of which the file has no checksum */
    sums_difference *wrong;        /* in the order of the store */
    size_t wrong_count;
} sums_result;

/* Every run once, by as many threads as the options say. *out is yours to release. */
ckpt_code sums_check(const ckpt_store *store, const ckpt_run_options *options, sums_result *out,
                     ckpt_error *err);
void sums_release(sums_result *result);

#endif
