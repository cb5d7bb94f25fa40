/* model.h: what the files of the layer graph share. */
#ifndef RUN_MODEL_H
#define RUN_MODEL_H

#include "runner.h"
#include "weights.h"

/* Weights of a block; those that its kind lacks are NULL. */
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
    uint32_t ratio;
    int is_hash;
    int is_mtp;
    char prefix[LAYER_PREFIX_BYTES];   /* "layers.3." */
    run_layer_weights w;
} run_layer;

/* Rings and entries of one layer. Ring slots hold the last rows that anything still needs. */
typedef struct {
    run_ring kv;
    run_ring k;
    run_ring s;
    run_ring index_k;
    run_ring index_s;
    run_buffer *entries;               /* head_dim columns */
    run_buffer *keys;                  /* index_dim columns */
} run_layer_state;

struct run_sequence {
    uint64_t position;
    uint64_t max_positions;
    unsigned number;
    run_layer_state *layers;           /* main layers, then the MTP block */
    run_buffer *held;                  /* MTP: hidden state of the last position */
};

/* Rows that a forward works on at once, and what belongs to all of them. */
typedef struct {
    uint64_t capacity;
    run_buffer *x;                     /* streams * dim */
    run_buffer *n;                     /* dim: normed input of the experts */
    run_buffer *nq;                    /* the same, quantised */
    run_buffer *y;                     /* dim */
    run_buffer *post;
    run_buffer *comb;
    run_buffer *ids;                   /* I32 */
    run_buffer *factors;
} run_batch;

/* Scratch of one chunk. */
typedef struct {
    run_buffer *mix;
    run_buffer *u;
    run_buffer *uq;
    run_buffer *qr;
    run_buffer *qrq;
    run_buffer *q;
    run_buffer *kv;
    run_buffer *o;
    run_buffer *z;
    run_buffer *zq;
    run_buffer *k;
    run_buffer *s;
    run_buffer *iq;
    run_buffer *iw;
    run_buffer *chosen;                /* I32 */
    run_buffer *gap;
    run_buffer *gate;
    run_buffer *table;                 /* I32 */
    run_buffer *logits;                /* one slice of the head */
} run_scratch;

/* cos and sin of the positions [begin, end), a row each. */
typedef struct {
    run_buffer *angles;
    uint64_t capacity;
    uint64_t begin;
    uint64_t end;
} rope_table;

/* Rows of one sequence in a batch. */
typedef struct {
    run_sequence *sequence;
    const uint32_t *tokens;            /* at these rows */
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

/* The next weight to prefetch: a layer, and a place among its weights. */
typedef struct {
    uint32_t layer;
    uint32_t at;
} run_ahead;

struct run_model {
    const run_config *config;
    run_options options;
    run_backend *backend;
    run_weights *weights;
    uint32_t layer_begin;              /* the layers of this device */
    uint32_t layer_end;                /* the MTP block is one of them */
    run_model *next;                   /* with the layers after these */
    int deploy;
    uint32_t chunk;
    uint32_t expert_group;             /* experts in memory together */
    float *frequencies[2];             /* plain, YaRN; rope_dim / 2 each */
    rope_table rope[2];
    run_ahead ahead;
    run_ahead warm;                    /* of what is fetched because it fits */
    int takes_all_experts;             /* so many rows that each expert has some */
    run_layer_time *times;
    run_batch main;
    run_batch mtp;
    run_scratch scratch;
    run_buffer *head_rows;             /* normed rows, HEAD_ROWS of dim; NULL: none yet */
    run_span *spans;                   /* of the last call; tokens are gone */
    run_span *mtp_spans;
    size_t mtp_span_count;
    uint64_t fixed_bytes;
    uint64_t state_bytes;
    uint64_t batch_bytes;
    uint64_t expert_bytes;             /* the largest expert */
    uint64_t layer_bytes;              /* weights of the largest layer, and what goes with it */
};

/* Rows whose logits are computed together. */
enum { HEAD_ROWS = 64 };

/* The main layers, and the MTP block if it runs. */
static inline uint32_t block_count(const run_model *model)
{
    return model->config->layer_count + (model->options.mtp ? 1 : 0);
}

/* graph_load.c */
ckpt_code layer_check(run_model *model, run_layer *layer, uint64_t *bytes, ckpt_error *err);
ckpt_code layer_load(run_model *model, run_layer *layer, ckpt_error *err);
void layer_describe(const run_model *model, uint32_t number, run_layer *out);
/* While layer `number` runs: begin to load what comes next, to the end of the layer after it. The
 * experts of `number` are known once its rows are routed: `first` as in graph_experts.c, or NULL.
 */
void layers_prefetch(run_model *model, uint32_t number, const uint32_t *first);
/* Begin to load a few more of all weights, if they are to be kept and fit. */
void layers_warm(run_model *model);

/* graph_state.c: buffers and the memory they take. */
ckpt_code state_create(run_model *model, run_sequence *sequence, ckpt_error *err);
void state_free(run_model *model, run_sequence *sequence);
ckpt_code scratch_create(run_model *model, ckpt_error *err);
void scratch_free(run_model *model);
/* Room for row_count rows; also sets what is left for weights. */
ckpt_code batch_reserve(run_model *model, run_batch *batch, uint64_t row_count, ckpt_error *err);
void batch_free(run_model *model, run_batch *batch);
ckpt_code model_limit(run_model *model, ckpt_error *err);

/* graph_rope.c */
ckpt_code rope_tables(run_model *model, ckpt_error *err);
void rope_free(run_model *model);
/* cos and sin of position + i * step, row i of *out, from a table of the positions [begin, end) at
 * least: layers that ask for the same ones share it. */
typedef struct {
    uint64_t begin;
    uint64_t end;
    uint64_t position;
    uint64_t step;
    int is_yarn;
} rope_range;
ckpt_code rope_angles(run_model *model, const rope_range *range, run_rows *out, ckpt_error *err);

/* Where tables begin: the first position of any compressed entry is not before it. */
enum { ROPE_TABLE_STEP = 128 };

/* graph_attention.c, graph_experts.c: the two halves of a block over all rows. */
ckpt_code block_attention(run_model *model, const run_layer *layer, const run_work *work,
                          ckpt_error *err);
ckpt_code block_experts(run_model *model, const run_layer *layer, const run_work *work,
                        ckpt_error *err);

/* Steps that several places take. */
typedef struct {
    run_rows x;
    uint64_t row_count;
    const run_weight *fn;
    const run_buffer *base;
    const run_buffer *scale;
    run_rows u;
    run_rows post;                     /* no buffer: the head's form */
    run_rows comb;
} run_collapse;
ckpt_code collapse_streams(run_model *model, const run_collapse *c, ckpt_error *err);
/* Put x in the grid of activations into `to`; nothing where the profile has none. What products
 * then take is activated(). */
ckpt_code activate_rows(run_model *model, run_rows x, run_rows to, uint64_t row_count,
                        ckpt_error *err);

static inline run_rows activated(const run_model *model, run_rows x, run_rows to)
{
    return model->deploy ? to : x;
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

/* Blocks of the reductions in deploy; one block in exact. */
enum { LINEAR_BLOCK = 128, EXPERT_BLOCK = 32, KV_BLOCK = 64, INDEX_BLOCK = 32 };

#endif
