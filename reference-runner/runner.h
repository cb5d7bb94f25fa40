/*
 * runner.h: run a DeepSeek-V4 model from logical tensors, layer by layer.
 *
 * A model holds one layer's weights at a time, and keeps them while there is room; sequences hold
 * the state that attention needs. run_forward appends tokens to sequences and leaves the hidden
 * state of these rows in the model, from which logits are taken. What is fed at once, and in what
 * chunks, changes no bit of any result.
 *
 * Profiles. exact: F32 (sums wider), stored weights, no rounding or simulation. deploy: BF16
 * rounding points, E4M3 activations before quantised products, E4M3 KV and E2M1 indexer simulation,
 * whatever encoding the weights have.
 */
#ifndef RUN_RUNNER_H
#define RUN_RUNNER_H

#include <stdatomic.h>

#include "backend.h"
#include "model_config.h"

enum { RUN_CHUNK_MAX = 4096 };

typedef enum { RUN_EXACT, RUN_DEPLOY } run_profile;

typedef struct run_model run_model;
typedef struct run_sequence run_sequence;
typedef struct run_trace run_trace;

typedef struct {
    const run_backend_ops *backend;
    run_profile profile;
    unsigned thread_count;     /* 0: one per core */
    const unsigned *devices;   /* NULL: the first one; borrowed */
    unsigned device_count;     /* layers are divided over them, in order */
    uint64_t memory_bytes;     /* hard limit on buffers, on each device */
    uint32_t chunk;            /* rows that attention takes at once; 0: as fits the memory */
    int mtp;                   /* run the MTP block, too */
    run_trace *trace;          /* borrowed; NULL: none */
    int has_times;             /* take the time of each layer */
    int keeps_weights;         /* many short calls: if all weights fit, fetch them by and by */
    const atomic_int *stop;   /* set: end before the next layer; NULL: never */
} run_options;

/* Checks that every tensor is there with the right shape; reads no data. Borrows source, config. */
ckpt_code run_open(ckpt_source *source, const run_config *config, const run_options *options,
                   run_model **out, ckpt_error *err);
void run_close(run_model *model);              /* NULL is fine */
/* What the largest layer and the scratch need, without rows and state. */
uint64_t run_need_bytes(const run_model *model);

/* `number` names the sequence in traces. */
ckpt_code run_sequence_create(run_model *model, uint64_t max_positions, unsigned number,
                              run_sequence **out, ckpt_error *err);
void run_sequence_free(run_model *model, run_sequence *sequence);   /* NULL is fine */
uint64_t run_sequence_position(const run_sequence *sequence);       /* tokens so far */

typedef struct {
    run_sequence *sequence;    /* each at most once in a call */
    const uint32_t *tokens;
    uint64_t token_count;
} run_segment;

/* Rows of the result are those of the segments, one after the other. */
ckpt_code run_forward(run_model *model, const run_segment *segments, size_t segment_count,
                      ckpt_error *err);

/* Of one layer, in all calls. A layer's weights may arrive while the one before it runs. */
typedef struct {
    run_lap lap;
    uint64_t weight_bytes;     /* that it asked for, here already or not */
} run_layer_time;
/* layer_count, and the MTP block; NULL without has_times. */
const run_layer_time *run_layer_times(const run_model *model, uint32_t *count);

/* Gets the logits of one row; vocab_size values. `i` counts the rows asked for. */
typedef ckpt_code run_logits_fn(void *context, uint64_t i, const float *logits, ckpt_error *err);

typedef struct {
    const uint64_t *rows;      /* of the last run_forward */
    uint64_t row_count;
    run_logits_fn *take;
    void *context;
} run_logits_request;
ckpt_code run_logits(run_model *model, const run_logits_request *request, ckpt_error *err);

/*
 * MTP. Row p of the block joins the hidden state at position p with the embedding of token p + 1
 * and predicts token p + 2; so each forward gives the rows p - 1 of its tokens, the last token's
 * row coming with the next one. position: of the first row of segment i; row: its place in
 * run_mtp_logits.
 */
uint64_t run_mtp_rows(const run_model *model, size_t segment, uint64_t *row, uint64_t *position);
ckpt_code run_mtp_logits(run_model *model, const run_logits_request *request, ckpt_error *err);

#endif
