/*
 * runner.h: run a DeepSeek-V4 model from logical tensors, layer by layer.
 *
 * A model loads the weights of a layer when it runs it, and keeps them while memory lasts.
 * Sequences hold the state that attention needs. run_forward appends tokens to sequences and leaves
 * their hidden states in the model; run_logits computes logits from them. How tokens are divided
 * into calls and chunks changes no bit of any result.
 *
 * Profiles. exact: F32 with F64 sums, the stored weights, no other rounding. deploy: rounds where
 * DeepSeek's inference code does: results to BF16, activations to E4M3 before products with
 * quantised weights, KV to E4M3, indexer inputs to E2M1; the same for every encoding of the
 * weights.
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
    unsigned device_count;     /* layers are divided among them, in order */
    uint64_t memory_bytes;     /* hard limit on buffers, on each device */
    uint64_t host_bytes;       /* for each device: host memory for stages and copies of weights */
    uint32_t chunk;            /* rows that attention processes at once; 0: chosen by memory */
    int mtp;                   /* run the MTP block, too */
    run_trace *trace;          /* borrowed; NULL: none */
    int has_times;             /* measure the time of each layer */
    int keeps_weights;         /* for many short calls: if all weights fit, load them gradually */
    const atomic_int *stop;    /* if set, run_forward ends before its next layer; or NULL */
} run_options;

/* Check that every tensor exists with the right shape; reads no data. Borrows source and config. */
ckpt_code run_open(ckpt_source *source, const run_config *config, const run_options *options,
                   run_model **out, ckpt_error *err);
void run_close(run_model *model);              /* NULL is fine */
/* The least memory_bytes: for the largest layer and scratch, without rows and sequences. */
uint64_t run_need_bytes(const run_model *model);

/* `number` identifies the sequence in traces. *out is yours: run_sequence_free. */
ckpt_code run_sequence_create(run_model *model, uint64_t max_positions, unsigned number,
                              run_sequence **out, ckpt_error *err);
void run_sequence_free(run_model *model, run_sequence *sequence);   /* NULL is fine */
uint64_t run_sequence_position(const run_sequence *sequence);       /* tokens so far */

typedef struct {
    run_sequence *sequence;    /* a sequence may occur only once in a call */
    const uint32_t *tokens;
    uint64_t token_count;
} run_segment;

/* The rows of the result are the tokens of the segments, one segment after the other. */
ckpt_code run_forward(run_model *model, const run_segment *segments, size_t segment_count,
                      ckpt_error *err);

/* Totals of one layer over all calls. Its weights may be copied while the layer before it runs. */
typedef struct {
    run_lap lap;
    uint64_t weight_bytes;     /* of the weights it used, cached ones included */
} run_layer_time;
/* An array of *count: the layers, then the MTP block. NULL without has_times. */
const run_layer_time *run_layer_times(const run_model *model, uint32_t *count);

/* Receives the vocab_size logits of row request->rows[i]. */
typedef ckpt_code run_logits_fn(void *context, uint64_t i, const float *logits, ckpt_error *err);

typedef struct {
    const uint64_t *rows;      /* numbers of rows of the last run_forward */
    uint64_t row_count;
    run_logits_fn *take;
    void *context;
} run_logits_request;
ckpt_code run_logits(run_model *model, const run_logits_request *request, ckpt_error *err);

/*
 * MTP. Row p of the block combines the hidden state at position p with the embedding of token p + 1
 * and predicts token p + 2. It needs token p + 1, so the row of a call's last token is computed in
 * the next call. Returns the number of rows of a segment; *position: position of the first one;
 * *row: its number in run_mtp_logits.
 */
uint64_t run_mtp_rows(const run_model *model, size_t segment, uint64_t *row, uint64_t *position);
ckpt_code run_mtp_logits(run_model *model, const run_logits_request *request, ckpt_error *err);

#endif
