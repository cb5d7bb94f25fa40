/*
 * trace.h: writes statistics of the values at named points of every layer, one JSON object a line:
 *
 *   {"sequence": 0, "layer": 2, "point": "q", "shape": [T, C], "digest": HEX32, "min": ..,
 *    "max": .., "mean": .., "rms": .., "values": {"POSITION": [..], ...}}
 *
 * The digest is the sum modulo 2^128 of XXH3-128 of each row's bytes (F32 or I32) with the row's
 * position as seed. Other sums run in the order of rows. So a line does not depend on chunks.
 * A top-k selection has a line {"sequence", "layer", "point", "cuts": N, "ties": T, "gap": G,
 * "position": P}: N selections, T of them with equal scores on both sides of the cut, G the
 * smallest relative gap of the others, at position P.
 */
#ifndef RUN_TRACE_H
#define RUN_TRACE_H

#include "libckpt/json.h"
#include "runner.h"

typedef struct {
    json_write_fn *write;
    void *context;
    const uint64_t *positions;     /* positions whose values are written in full */
    size_t position_count;
} run_trace_options;

/* The options are copied, the positions borrowed. */
ckpt_code run_trace_create(const run_trace_options *options, run_trace **out, ckpt_error *err);
/* Write all lines. Do not call it after a failed run: its points are incomplete. */
ckpt_code run_trace_finish(run_trace *trace, ckpt_error *err);
void run_trace_free(run_trace *trace);      /* NULL is fine */

typedef struct {
    const char *point;             /* name; borrowed until run_trace_free */
    unsigned sequence;
    uint32_t layer;
    uint64_t position;             /* of the first row */
    run_rows rows;
    uint64_t row_count;
    uint64_t cols;
    int is_int;
} run_trace_point;

/* Add rows to a point; does nothing if trace is NULL. */
ckpt_code run_trace_rows(run_trace *trace, const run_backend *backend,
                         const run_trace_point *point, ckpt_error *err);
/* The same for row_count * cols values in host memory; point->rows is ignored. */
ckpt_code run_trace_values(run_trace *trace, const run_trace_point *point, const float *values,
                           ckpt_error *err);
/* Add the gaps of top-k selections (run_select): rows has one column. */
ckpt_code run_trace_gaps(run_trace *trace, const run_backend *backend,
                         const run_trace_point *point, ckpt_error *err);

#endif
