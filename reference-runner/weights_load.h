/*
 * weights_load.h: threads that read tensors, check their values and pass them to the backend.
 *
 * Loads are processed in the order in which they were started, one tile per thread at a time,
 * while the caller continues. Each thread has two stages: it reads into one while the other is
 * being copied to the device. A NaN or an infinity is an error that names the tensor and its rows.
 * A weight in an encoding that the backend does not take is decoded to F32 here, by the table of
 * encodings.
 */
#ifndef RUN_WEIGHTS_LOAD_H
#define RUN_WEIGHTS_LOAD_H

#include "backend.h"

typedef struct load_team load_team;
typedef struct load_task load_task;

typedef struct {
    uint32_t id;
    uint32_t place;
} load_row;

/* Rows of a tensor, and one destination: `weight`, `floats` or `ints`. Pointers are borrowed until
 * load_end. */
typedef struct {
    size_t tensor;
    uint64_t row;              /* a multiple of SOURCE_BAND_ROWS */
    uint64_t row_count;
    run_weight *weight;
    float *floats;
    int32_t *ints;
    /* If not NULL: single rows, sorted by id, instead of a range. Row `id` is written to
     * floats + place * columns. */
    const load_row *rows;
    size_t single_count;
} load_job;

typedef struct {
    ckpt_source *source;       /* borrowed, as is the backend */
    run_backend *backend;
    unsigned thread_count;
} load_options;

/* The encoding in which the backend gets a weight: the stored one, or F32. */
ckpt_tensor load_form(const run_backend *backend, const ckpt_tensor *tensor);

ckpt_code load_team_open(const load_options *options, load_team **out, ckpt_error *err);
void load_team_close(load_team *team);         /* after load_end of all loads; NULL is fine */
uint64_t load_team_bytes(const load_team *team);       /* of all stages */

/* A hint: with is_few, later loads use smaller tiles (run_weights_expect). Call it from the thread
 * that calls load_begin. */
void load_team_expect(load_team *team, int is_few);

ckpt_code load_begin(load_team *team, const load_job *job, load_task **out, ckpt_error *err);
/* Wait for the load, return its error, free the task. */
ckpt_code load_end(load_task *task, ckpt_error *err);

#endif
