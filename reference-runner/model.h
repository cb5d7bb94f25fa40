/* model.h: types and functions that the files of the layer graph share. */
#ifndef RUN_MODEL_H
#define RUN_MODEL_H

#include "runner.h"
#include "weights.h"

/* Weights of a block, under names like those of their tensors (weight_rows in graph_load.c). NULL
 * for those that its kind does not have. Borrowed from run_weights. */
typedef struct {
    const run_buffer *attn_norm;
    const run_buffer *ffn_norm;
    const run_weight *hc_attn_fn;
    const run_buffer *hc_attn_base;
    const run_buffer *hc_attn_scale;
    const run_weight *hc_ffn_fn;
    const run_buffer *hc_ffn_base;
    const run_buffer *hc_ffn_scale;
    const run_buffer *sink;
    const run_weight *wq_a;
    const run_buffer *q_norm;
    const run_weight *wq_b;
    const run_weight *wkv;
    const run_buffer *kv_norm;
    const run_weight *wo_a;
    const run_weight *wo_b;
    const run_buffer *ape;
    const run_weight *pool_wkv;
    const run_weight *pool_wgate;
    const run_buffer *pool_norm;
    const run_weight *index_wq_b;
    const run_weight *index_weights;
    const run_buffer *index_ape;
    const run_weight *index_wkv;
    const run_weight *index_wgate;
    const run_buffer *index_norm;
    const run_weight *gate;
    const run_buffer *gate_bias;
    const int32_t *tid2eid;
    const run_weight *shared[3];       /* w1, w2, w3 */
    const run_weight *e_proj;          /* MTP only */
    const run_weight *h_proj;
    const run_buffer *enorm;
    const run_buffer *hnorm;
} run_layer_weights;

enum { LAYER_PREFIX_BYTES = 32, TENSOR_NAME_BYTES = 96 };

typedef struct {
    uint32_t number;                   /* MTP: layer_count */
    uint32_t ratio;                    /* tokens per compressed entry; 0: no compression */
    int is_hash;                       /* experts come from the table tid2eid */
    int is_mtp;
    char prefix[LAYER_PREFIX_BYTES];   /* "layers.3." */
    run_layer_weights w;
} run_layer;

/* State of one layer of a sequence. Each ring keeps only the last rows that are still needed: the
 * window, or the inputs of compressed entries that are not complete. */
typedef struct {
    run_ring kv;                       /* the window */
    run_ring k;                        /* compressor: values and scores of tokens */
    run_ring s;
    run_ring index_k;                  /* the same for the indexer's keys */
    run_ring index_s;
    run_buffer *entries;               /* compressed entries: head_dim columns */
    run_buffer *keys;                  /* their keys for the indexer: index_dim columns */
} run_layer_state;

struct run_sequence {
    uint64_t position;
    uint64_t max_positions;
    unsigned number;
    run_layer_state *layers;           /* main layers, then the MTP block */
    run_buffer *held;                  /* MTP: hidden state of the last position (run_mtp_rows) */
};

/* Buffers for all rows of a forward call. */
typedef struct {
    uint64_t capacity;
    run_buffer *x;                     /* streams * dim */
    run_buffer *n;                     /* dim: normalised input of the experts */
    run_buffer *nq;                    /* n quantised */
    run_buffer *y;                     /* dim: sum of the routed experts' outputs; then of all rows
                                          the output of the shared expert */
    run_buffer *post;                  /* streams, as in run_streams */
    run_buffer *comb;                  /* streams * streams */
    run_buffer *routed;                /* I32, active_count: experts of the row; then of all rows
                                          active_count factors, so that one read gets both */
} run_batch;

/* Scratch for the rows of one chunk. */
typedef struct {
    run_buffer *mix;                   /* run_streams.mix */
    run_buffer *u;                     /* input of attention; ..q: the same quantised */
    run_buffer *uq;
    run_buffer *qr;                    /* low-rank queries */
    run_buffer *qrq;
    run_buffer *q;                     /* queries of all heads */
    run_buffer *kv;
    run_buffer *o;                     /* attention's output of all heads */
    run_buffer *z;                     /* the same after the first output projection */
    run_buffer *zq;
    run_buffer *k;                     /* compressor: values and scores of the chunk's tokens */
    run_buffer *s;
    run_buffer *iq;                    /* indexer: queries and weights of its heads */
    run_buffer *iw;
    run_buffer *chosen;                /* I32: run_select.chosen */
    run_buffer *gap;
    run_buffer *gate;                  /* logits of the experts */
    run_buffer *table;                 /* I32: run_route.table */
    run_buffer *logits;                /* of a slice of the vocabulary */
} run_scratch;

/* cos and sin of the positions [begin, end), one row per position. */
typedef struct {
    run_buffer *angles;
    uint64_t capacity;
    uint64_t begin;
    uint64_t end;
} rope_table;

/* Rows of one sequence in a batch. */
typedef struct {
    run_sequence *sequence;
    const uint32_t *tokens;            /* of these rows; borrowed during the call */
    uint64_t row;
    uint64_t row_count;
    uint64_t position;
} run_span;

typedef struct {
    const run_span *spans;
    size_t span_count;
    uint64_t row_count;
    run_batch *batch;
} run_work;

/* The next weight to prefetch: a layer, and an index in the order of its weights. */
typedef struct {
    uint32_t layer;
    uint32_t at;
} run_ahead;

struct run_model {
    const run_config *config;
    run_options options;
    run_backend *backend;
    run_weights *weights;
    uint32_t layer_begin;              /* the layers on this device */
    uint32_t layer_end;                /* the MTP block counts as the last layer */
    run_model *next;                   /* of the next device, with the layers after these */
    int deploy;
    uint32_t chunk;
    uint32_t expert_group;             /* experts that run in one operation */
    float *frequencies[2];             /* [0] plain, [1] YaRN; rope_dim / 2 values each */
    rope_table rope[2];
    run_ahead ahead;
    run_ahead warm;                    /* the same for layers_warm */
    int is_single;                     /* the call has one row */
    int takes_all_experts;             /* so many rows that each expert probably has some */
    run_layer_time *times;
    run_batch main;
    run_batch mtp;
    run_scratch scratch;
    run_buffer *head_rows;             /* HEAD_ROWS normalised rows of dim; NULL until needed */
    run_span *spans;                   /* of the last call; their tokens are no longer valid */
    run_span *mtp_spans;
    size_t mtp_span_count;
    uint64_t fixed_bytes;
    uint64_t state_bytes;
    uint64_t batch_bytes;
    uint64_t expert_bytes;             /* of the largest expert */
    uint64_t layer_bytes;              /* of the largest layer and what must be loaded with it */
};

/* Rows whose logits are computed together. */
enum { HEAD_ROWS = 64 };

/* The main layers, and the MTP block if it runs. */
static inline uint32_t block_count(const run_model *model)
{
    return model->config->layer_count + (model->options.mtp ? 1 : 0);
}

/* The part on the last device, which runs the MTP block and the head. */
static inline run_model *model_last(run_model *model)
{
    while (model->next != NULL)
        model = model->next;
    return model;
}

/* run_block.c. embed_span: write the embedding of each of a span's tokens to its row of `to`,
 * `copies` times in a row. run_block: load a block's weights and run it. */
ckpt_code embed_span(run_model *m, const run_span *span, run_rows to, uint32_t copies,
                     ckpt_error *err);
ckpt_code run_block(run_model *m, uint32_t number, const run_work *work, ckpt_error *err);
/* run_mtp.c: run the MTP block on what the main layers left for `main`. */
ckpt_code mtp_forward(run_model *m, const run_work *main, ckpt_error *err);

/* graph_load.c */
ckpt_code layer_check(run_model *model, run_layer *layer, uint64_t *bytes, ckpt_error *err);
ckpt_code layer_load(run_model *model, run_layer *layer, ckpt_error *err);
void layer_describe(const run_model *model, uint32_t number, run_layer *out);
/* While layer `number` runs: start loading the next weights, up to the end of the layer after it.
 * `first`: NULL, or after the rows of `number` were routed, the first row of each expert as in
 * graph_experts.c, so that only experts with rows are loaded. */
void layers_prefetch(run_model *model, uint32_t number, const uint32_t *first);
/* With keeps_weights, if all weights fit in memory: start loading a few that are not loaded yet. */
void layers_warm(run_model *model);

/* graph_state.c: buffers, and the accounting of their memory. */
ckpt_code state_create(run_model *model, run_sequence *sequence, ckpt_error *err);
void state_free(run_model *model, run_sequence *sequence);
ckpt_code scratch_create(run_model *model, ckpt_error *err);
void scratch_free(run_model *model);
/* Make room for row_count rows; also updates the memory limit of weights. */
ckpt_code batch_reserve(run_model *model, run_batch *batch, uint64_t row_count, ckpt_error *err);
void batch_free(run_model *model, run_batch *batch);
ckpt_code model_limit(run_model *model, ckpt_error *err);

/* graph_rope.c */
ckpt_code rope_tables(run_model *model, ckpt_error *err);
void rope_free(run_model *model);
/* Row i of *out: cos and sin of position + i * step. It is in a table that covers at least the
 * positions [begin, end); layers that pass the same range share the table. */
typedef struct {
    uint64_t begin;
    uint64_t end;
    uint64_t position;
    uint64_t step;
    int is_yarn;
} rope_range;
ckpt_code rope_angles(run_model *model, const rope_range *range, run_rows *out, ckpt_error *err);

/* Tables begin at a multiple of this, so that they contain the first position of every compressed
 * entry whose last token is in the range: no ratio is larger. */
enum { ROPE_TABLE_STEP = RUN_RATIO_HCA };

/* graph_attention.c, graph_experts.c: the two halves of a block over all rows. */
ckpt_code block_attention(run_model *model, const run_layer *layer, const run_work *work,
                          ckpt_error *err);
ckpt_code block_experts(run_model *model, const run_layer *layer, const run_work *work,
                        ckpt_error *err);

/* Steps that both halves and the head use. collapse_streams: fn . x, then hc_pre or hc_head. */
typedef struct {
    run_rows x;
    uint64_t row_count;
    const run_weight *fn;
    const run_buffer *base;
    const run_buffer *scale;
    run_rows u;
    run_rows post;                     /* post.buffer NULL: hc_head instead of hc_pre */
    run_rows comb;
} run_collapse;
ckpt_code collapse_streams(run_model *model, const run_collapse *c, ckpt_error *err);
/* In the profile deploy, quantise the activations x to E4M3 into `to`; in exact, do nothing.
 * activated() returns the rows that products must read after it: `to`, or x. */
ckpt_code activate_rows(run_model *model, run_rows x, run_rows to, uint64_t row_count,
                        ckpt_error *err);

static inline run_rows activated(const run_model *model, run_rows x, run_rows to)
{
    return model->deploy ? to : x;
}

/* run_norm.quantised for rows that products read as activated(). */
static inline run_rows activated_to(const run_model *model, run_rows to)
{
    to.buffer = model->deploy ? to.buffer : NULL;
    return to;
}

static inline run_rows rows_of(run_buffer *buffer, uint64_t pitch)
{
    return (run_rows){ buffer, 0, pitch };
}

static inline run_rows rows_from(run_rows rows, uint64_t first)
{
    rows.offset += first * rows.pitch;
    return rows;
}

/* Columns per block of sums and quantisers in deploy. In exact, sums have a single block. */
enum { LINEAR_BLOCK = 128, EXPERT_BLOCK = 32, KV_BLOCK = 64, INDEX_BLOCK = 32 };

#endif
