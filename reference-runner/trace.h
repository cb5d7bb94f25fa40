/*
 * trace.h: the values at the named points of every layer: one JSON object per line,
 *
 *   {"sequence": 0, "layer": 2, "point": "q", "shape": [T, C], "digest": HEX32, "min": ..,
 *    "max": .., "mean": .., "rms": .., "values": {"POSITION": [..], ...}}
 *
 * Rows count by position; the digest is the sum modulo 2^128 of XXH3-128 of each row's bytes (F32
 * or I32) with its position as seed. Sums run in the order of rows. So a line does not depend on
 * chunks. A top-k cut is a line {"sequence", "layer", "point", "cuts": N, "ties": those where the
 * last score taken equals the first left out, "gap": the smallest relative gap of the others,
 * "position": where}.
 */
#ifndef RUN_TRACE_H
#define RUN_TRACE_H

#include "libckpt/json.h"
#include "runner.h"

typedef struct {
    json_write_fn *write;
    void *context;
    const uint64_t *positions;     /* whose values are written in full */
    size_t position_count;
} run_trace_options;

/* Options are copied, the positions borrowed. */
ckpt_code run_trace_create(const run_trace_options *options, run_trace **out, ckpt_error *err);
/* Write all lines; the results of a run that failed are not written. */
ckpt_code run_trace_finish(run_trace *trace, ckpt_error *err);
void run_trace_free(run_trace *trace);      /* NULL is fine */

typedef struct {
    const char *point;             /* a string that stays */
    unsigned sequence;
    uint32_t layer;
    uint64_t position;             /* of the first row */
    run_rows rows;
    uint64_t row_count;
    uint64_t cols;
    int is_int;
} run_trace_point;

/* Add rows to a point. trace may be NULL. */
ckpt_code run_trace_rows(run_trace *trace, const run_backend *backend,
                         const run_trace_point *point, ckpt_error *err);
/* The same for rows in host memory, side by side; the point's own are not looked at. */
ckpt_code run_trace_values(run_trace *trace, const run_trace_point *point, const float *values,
                           ckpt_error *err);
/* Add the gaps of a cut: rows has one column. */
ckpt_code run_trace_gaps(run_trace *trace, const run_backend *backend,
                         const run_trace_point *point, ckpt_error *err);

#endif
