/*
 * weights_load.h: threads that read tensors, check their values and hand them over.
 *
 * Loads are processed in the order in which they were started, one tile per thread at a time,
 * while the caller continues. A thread reads into one stage while the other is being copied to the
 * device. A NaN or an infinity is an error that names the tensor and its rows.
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

/* Rows of a tensor, and where they go: one of these. What is pointed at is borrowed to the end. */
typedef struct {
    size_t tensor;
    uint64_t row;              /* a multiple of SOURCE_BAND_ROWS */
    uint64_t row_count;
    run_weight *weight;
    float *floats;
    int32_t *ints;
    /* Single rows, by id, instead of a range: row i to floats + place * columns. */
    const load_row *rows;
    size_t single_count;
} load_job;

typedef struct {
    ckpt_source *source;       /* borrowed, as is the backend */
    run_backend *backend;
    unsigned thread_count;
} load_options;

ckpt_code load_team_open(const load_options *options, load_team **out, ckpt_error *err);
void load_team_close(load_team *team);         /* all loads have ended; NULL is fine */

/* Whether few weights are wanted at once from now on. From the thread that begins loads. */
void load_team_expect(load_team *team, int is_few);

ckpt_code load_begin(load_team *team, const load_job *job, load_task **out, ckpt_error *err);
/* Waits; frees the task. */
ckpt_code load_end(load_task *task, ckpt_error *err);

#endif
