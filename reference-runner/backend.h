/*
 * backend.h: the interface between the layer graph and a compute backend.
 *
 * The graph (graph_*.c) is written once and calls this table. A backend has opaque buffers and
 * weights and one function per operation. It knows nothing of models, layers and profiles: where
 * the profiles differ, the graph sets `round` or leaves out an operation. To add a backend:
 * implement the table, add it to backends.c, and compare each operation with the plain C in
 * plain.h, as the unit tests of the CPU backend do.
 *
 * Numbers. A buffer holds 4-byte elements: F32, or I32 where a comment says so. If `round` is set,
 * the inputs are BF16 values, and the result is rounded to BF16 (nearest even) and kept as F32.
 * A sum over a dimension of the model is formed in F64, in ascending order, and rounded to F32
 * once. Products of two F32 are exact in F64, so fused multiplication changes no bit, and backends
 * agree to the last bit or nearly so. A result must not depend on the number of rows of a call, on
 * threads, or on the encoding of a weight.
 *
 * Weights are passed in their stored encoding: codes and scales as in a ckpt_tile, a band of rows
 * at a time. The value of an element is the one of the digest: the F32 product code x scale, and in
 * NVFP4 its F32 product with the scale of the tensor. Encodings that a backend does not take are
 * decoded to F32 before they are passed (weights_load.h).
 *
 * Row i of a run_rows begins at element offset + i * pitch of its buffer. A ring holds the row of
 * position p at p % capacity. Operations run in the order of the calls; buffer_read waits for them.
 * Only weight_put and stage_* may be called from several threads. Functions that can fail return a
 * ckpt_code.
 */
#ifndef RUN_BACKEND_H
#define RUN_BACKEND_H

#include "libckpt/source.h"

typedef struct run_backend run_backend;
typedef struct run_buffer run_buffer;
typedef struct run_weight run_weight;

/* Host memory that a device can copy from asynchronously. First member of a backend's struct. */
typedef struct {
    void *memory;
    uint64_t bytes;
} run_stage;

typedef struct {
    run_buffer *buffer;
    uint64_t offset;
    uint64_t pitch;
} run_rows;

typedef struct {
    run_buffer *buffer;
    uint64_t capacity;       /* rows */
    uint64_t width;
} run_ring;

/*
 * y[t, n] = sum over k of x[t, k] * w[weight_row + n, k], n < weight_row_count, k < the weight's
 * columns. The columns are cut into blocks of `block` (0: one block); each block's sum is formed in
 * F64 and rounded to F32, and the blocks are added in ascending order in F32. Then, unless scale
 * is 0, y = y * scale (rounded after the sum and after the product when `round` is set).
 * Unless group_rows is 0, the weight rows are in groups of group_rows, and group g reads x from
 * column g * group_step on (a block-diagonal product).
 * Unless other_weight is NULL, the same is done with it, a weight of the same shape, into
 * other_y.
 */
typedef struct {
    run_rows x;
    run_rows y;
    uint64_t row_count;
    const run_weight *weight;
    const run_weight *other_weight;
    run_rows other_y;
    uint64_t weight_row;
    uint64_t weight_row_count;
    uint64_t group_rows;
    uint64_t group_step;
    uint32_t block;
    float scale;
    int round;
} run_linear;

/* The second product alone; op->other_weight is not NULL. */
static inline run_linear run_linear_other(const run_linear *op)
{
    run_linear out = *op;

    out.weight = op->other_weight;
    out.y = op->other_y;
    out.other_weight = NULL;
    return out;
}

/*
 * y = x quantised and dequantised. Each block of `block` columns has one power-of-two scale
 * 2^ceil(log2(max(amax, floor) / M)): E4M3 (M 448, floor 1e-4) or E2M1 (M 6, floor 6 * 2^-126).
 * y may be x. The last block of a row may be shorter.
 */
typedef enum { RUN_E4M3, RUN_E2M1 } run_grid;
typedef struct {
    run_rows x;
    run_rows y;
    uint64_t row_count;
    uint64_t col_count;
    uint32_t block;
    run_grid grid;
} run_quantise;

/*
 * y = weight * (x / sqrt(mean(x^2) + eps)); weight NULL: 1. y may be x. The mean is formed in F64
 * and rounded to F32; the rest is F32. With `round` and no weight, each step is rounded to BF16 as
 * in DeepSeek's code: a = x^2, m = mean(a), v = m + eps, g = 1/sqrt(v), y = x * g.
 * Unless quantised.buffer is NULL, y is then quantised into it as run_quantise does, to E4M3 in
 * blocks of 128 columns.
 */
typedef struct {
    run_rows x;
    run_rows y;
    uint64_t row_count;
    uint64_t col_count;
    const run_buffer *weight;
    run_rows quantised;
    float eps;
    int round;
} run_norm;

/* The quantiser of run_norm for its result. */
static inline run_quantise run_norm_quantise(const run_norm *op)
{
    const run_quantise out = { op->y, op->quantised, op->row_count, op->col_count, 128, RUN_E4M3 };

    return out;
}

/*
 * Rotate pairs (2i, 2i+1) of the last rope_dim columns of each head, in place: head h of row t is
 * columns [h * head_dim, (h + 1) * head_dim). Row t of angles holds cos and sin of pair i at 2 i;
 * (a, b) -> (a cos - b sin, a sin + b cos), with -sin when inverse. Products and sums in F32.
 */
typedef struct {
    run_rows x;
    uint64_t row_count;
    uint32_t head_count;
    uint32_t head_dim;
    uint32_t rope_dim;
    run_rows angles;
    int inverse;
    int round;
} run_rope;

/* x = width^-1/2 * H x for each of the row_count * head_count vectors, with H the Hadamard matrix
 * in Sylvester's order. Computed by log2(width) passes of sums and differences in F32, with
 * distances 1, 2, 4 ... */
typedef struct {
    run_rows x;
    uint64_t row_count;
    uint32_t head_count;
    uint32_t width;          /* a power of two */
    int round;
} run_hadamard;

/* ring[position + t] = x[t] + add[(position + t) % add_rows]; x[t] if add is NULL. */
typedef struct {
    run_rows x;
    run_ring ring;
    uint64_t row_count;
    uint64_t position;
    const run_buffer *add;
    uint64_t add_rows;
} run_ring_put;

/*
 * Compressed entries c = entry .. entry + entry_count - 1, one per row of y, `width` columns. With
 * D = width, score rows s and value rows k (rings of width D, or 2D if overlap is set):
 *   plain    slots = positions c*ratio .. c*ratio + ratio - 1, columns [0, D)
 *   overlap  slots = the ratio positions before these, columns [0, D) (none for c = 0), then the
 *            same positions as plain, columns [D, 2D)
 * y[j] = sum of exp(s_j - max) * k_j / sum of exp(s_j - max) over the slots, column by column.
 */
typedef struct {
    run_ring k;
    run_ring s;
    run_rows y;
    uint64_t entry;
    uint64_t entry_count;
    uint32_t ratio;
    uint32_t width;
    int overlap;
    int round;
} run_pool;

/*
 * For each row t, position p = position + t, candidates c < min(V, entry_count), V =
 * (p + 1) / ratio: score[c] = sum over h of max(q[t,h] . keys[c], 0) * weights[t,h]; with `round`
 * the dot product, each product and the sum are rounded to BF16. The min(topk, V) best (higher
 * score first, ties by lower c) are written to chosen[t, 0..topk-1] (I32) in ascending order of c,
 * followed by -1. gap[t]: (lowest score taken - highest score left out) / the larger magnitude of
 * the two; 0 if equal; infinite if nothing is left out.
 */
typedef struct {
    run_rows q;              /* head_count * width columns */
    run_rows weights;        /* head_count columns */
    run_rows keys;           /* one row per entry */
    run_rows chosen;
    run_buffer *gap;
    uint64_t row_count;
    uint64_t position;
    uint32_t ratio;
    uint32_t head_count;
    uint32_t width;
    uint32_t topk;
    int round;
} run_select;

/*
 * Attention of each row over the list L: first the window's rows p - window + 1 .. p that exist, in
 * ascending order, then compressed entries: those in chosen[t] up to the first -1 or, if
 * chosen.buffer is NULL, all c < (p + 1) / ratio; none if entries.buffer is NULL. A vector is both
 * key and value:
 *   s_j = (q . L_j) * scale;  M = max_j s_j;  l = sum_j exp(s_j - M) + exp(sink[h] - M)
 *   y = (sum_j P_j * L_j) / l,  P_j = exp(s_j - M), rounded to BF16 with `round`
 * If sink[h] > M + 80, sink[h] is used for M, so that exp(sink[h] - M) stays finite.
 */
typedef struct {
    run_rows q;              /* head_count * head_dim columns */
    run_rows y;
    run_ring window_kv;
    run_rows entries;
    run_rows chosen;
    const run_buffer *sink;
    uint64_t row_count;
    uint64_t position;
    uint32_t window;
    uint32_t ratio;
    uint32_t topk;
    uint32_t head_count;
    uint32_t head_dim;
    float scale;
    int round;
} run_attend;

/*
 * Hyper-connections with N = stream_count. x: N * dim columns per row. `mix` holds fn . x, not yet
 * multiplied by rho = 1 / sqrt(mean(x^2) + norm_eps).
 * hc_pre: mix has N + N + N*N columns m0, m1, m2; base has as many, scale has 3 elements.
 *   pre[n] = sigmoid(m0[n] rho scale[0] + base) + hc_eps;  u = sum_n pre[n] x[n]
 *   post[n] = 2 sigmoid(m1[n] rho scale[1] + base)
 *   comb[i, o]: Sinkhorn's normalisation of m2 rho scale[2] + base: a softmax over o, plus hc_eps,
 *   divided by (its sum over i) + hc_eps; then iters - 1 times the same over o, then over i.
 * hc_head: u as in hc_pre; mix has N columns, scale 1 element; post and comb are not used.
 */
typedef struct {
    run_rows x;
    run_rows mix;
    run_rows u;
    run_rows post;
    run_rows comb;
    const run_buffer *scale;
    const run_buffer *base;
    uint64_t row_count;
    uint32_t stream_count;
    uint32_t dim;
    uint32_t iters;
    float hc_eps;
    float norm_eps;
    int round;
} run_streams;

/* In place: x[o] = post[o] * y + sum_i comb[i, o] * x[i], with i ascending. */
typedef struct {
    run_rows x;
    run_rows y;
    run_rows post;
    run_rows comb;
    uint64_t row_count;
    uint32_t stream_count;
    uint32_t dim;
    int round;
} run_streams_post;

/*
 * g = sqrt(softplus(logits)). With table.buffer, ids = table[t]; else ids are the active_count best
 * of g + bias (higher first, ties by lower id). weights[i] = g[ids[i]] / (sum of the chosen g in
 * this order) * route_scale. gap is as in run_select, over g + bias; infinite with a table.
 */
typedef struct {
    run_rows logits;         /* expert_count columns */
    run_rows table;          /* I32, active_count columns; table.buffer may be NULL */
    run_rows ids;            /* I32 */
    run_rows weights;
    run_buffer *gap;
    const run_buffer *bias;
    uint64_t row_count;
    uint32_t expert_count;
    uint32_t active_count;
    float route_scale;
} run_route;

/* One expert, the rows routed to it and their factors (arrays in host memory). */
typedef struct {
    const run_weight *w1;
    const run_weight *w2;
    const run_weight *w3;
    const uint32_t *rows;
    const float *factors;
    uint64_t row_count;
} run_expert;

/*
 * The products of several experts. For each expert in the order given and each of its rows r:
 *   a = x[r] w1, b = x[r] w3 (rounded), b = clamp(b, -limit, limit), a = min(a, limit) if limit > 0
 *   h = factor * (a / (1 + exp(-a)) * b) (rounded), through the E4M3 quantiser in blocks of 128
 *   when `round` is set;  y[r] += h w2 (the product rounded, the sum in F32)
 * The caller has already quantised x: with `round` its values are on the E4M3 grid in blocks of
 * 128. `block` is as in run_linear.
 */
typedef struct {
    run_rows x;
    run_rows y;
    const run_expert *experts;
    size_t expert_count;
    uint32_t dim;
    uint32_t expert_dim;
    uint32_t block;
    float limit;
    int round;
} run_experts;

/* y = a + b; y = a if b.buffer is NULL. Row t of a is used for `repeat` consecutive rows of y and b
 * (1: an ordinary sum). y may be a or b. */
typedef struct {
    run_rows a;
    run_rows b;
    run_rows y;
    uint64_t row_count;      /* of y */
    uint64_t col_count;
    uint32_t repeat;
    int round;
} run_add;

/* Times since the last lap. A backend in host memory has no copies and no waits. */
typedef struct {
    double seconds;          /* until all operations were done */
    double wait_seconds;     /* the share of them in which operations waited for weights */
    double copy_seconds;     /* while weights were being copied to the device */
    uint64_t copy_bytes;
} run_lap;

typedef struct {
    const char *name;        /* "cpu", "cuda" */
    /* thread_count 0: one per core. CKPT_E_USAGE if the machine has no such device. Each call opens
     * a separate backend, also on the same device. */
    ckpt_code (*open)(unsigned thread_count, unsigned device, run_backend **out, ckpt_error *err);
    void (*close)(run_backend *backend);
    /* Free memory of the device, to call before open; NULL: the backend uses host memory. */
    ckpt_code (*free_bytes)(unsigned device, uint64_t *out, ckpt_error *err);
    /* Waits for all operations, unless is_waiting is 0, and returns the times since the last call.
     * Without waiting, `seconds` is the time in which they were queued, and wait_seconds is 0: the
     * next lap that waits has it all. */
    ckpt_code (*lap)(run_backend *backend, int is_waiting, run_lap *out, ckpt_error *err);

    /* A new buffer is filled with zeros. Counts and positions are in elements. */
    ckpt_code (*buffer_create)(run_backend *backend, uint64_t count, run_buffer **out,
                               ckpt_error *err);
    void (*buffer_free)(run_backend *backend, run_buffer *buffer);      /* NULL is fine */
    ckpt_code (*buffer_write)(run_buffer *buffer, uint64_t first, const void *from,
                              uint64_t count, ckpt_error *err);
    ckpt_code (*buffer_read)(const run_buffer *buffer, uint64_t first, void *out, uint64_t count,
                             ckpt_error *err);
    /* NULL: of no use. Start reading: a buffer_read of the same elements then waits only for the
     * operations before this call. The elements must not change in between. */
    ckpt_code (*buffer_read_begin)(const run_buffer *buffer, uint64_t first, uint64_t count,
                                   ckpt_error *err);
    /* Copy to a buffer of another backend of the same kind. Returns when the copy is complete. */
    ckpt_code (*buffer_pass)(const run_buffer *from, run_buffer *to, uint64_t count,
                             ckpt_error *err);
    ckpt_code (*buffer_zero)(run_buffer *buffer, uint64_t first, uint64_t count, ckpt_error *err);

    /* stage_wait: until all weight_put from this stage are copied and its memory can be reused. */
    ckpt_code (*stage_create)(run_backend *backend, uint64_t bytes, run_stage **out,
                              ckpt_error *err);
    ckpt_code (*stage_wait)(run_stage *stage, ckpt_error *err);
    void (*stage_free)(run_backend *backend, run_stage *stage);         /* NULL is fine */

    /* 1: weights of this encoding are taken. All backends take the plain floats. */
    int (*takes)(const ckpt_tensor *tensor);
    /* A hint, before the first weight: the most memory that weights will need at a time. */
    void (*weights_reserve)(run_backend *backend, uint64_t bytes);
    /* weight_create: an empty weight for row_count rows of `tensor` (whole rows of scale blocks);
     * the struct is copied. weight_put: fill rows [row, row + row_count), a multiple of
     * SOURCE_BAND_ROWS except at the end, from a tile in the stage's memory; several threads may
     * call it at once for different rows. */
    ckpt_code (*weight_create)(run_backend *backend, const ckpt_tensor *tensor,
                               uint64_t row_count, run_weight **out, ckpt_error *err);
    ckpt_code (*weight_put)(run_weight *weight, uint64_t row, uint64_t row_count,
                            const ckpt_tile *tile, run_stage *stage, ckpt_error *err);
    void (*weight_free)(run_backend *backend, run_weight *weight);      /* NULL is fine */

    /* Copies of weights in host memory that the device reads and writes at the speed of the bus;
     * NULL: of no use. host_create may take a while, and any thread may call it. host_free comes
     * after weight_free of all weights. */
    ckpt_code (*host_create)(run_backend *backend, uint64_t bytes, void **out, ckpt_error *err);
    void (*host_free)(run_backend *backend, void *memory, uint64_t bytes);
    /* weight_save: begin to copy a weight, all rows of which were put, to weight_save_bytes of host
     * memory. weight_restore: fill an empty weight of the same rows with that copy, once the one
     * that was saved is freed. */
    uint64_t (*weight_save_bytes)(const run_weight *weight);
    ckpt_code (*weight_save)(run_weight *weight, void *to, ckpt_error *err);
    ckpt_code (*weight_restore)(run_weight *weight, const void *from, ckpt_error *err);

    ckpt_code (*linear)(run_backend *backend, const run_linear *op, ckpt_error *err);
    ckpt_code (*quantise)(run_backend *backend, const run_quantise *op, ckpt_error *err);
    ckpt_code (*norm)(run_backend *backend, const run_norm *op, ckpt_error *err);
    ckpt_code (*rope)(run_backend *backend, const run_rope *op, ckpt_error *err);
    ckpt_code (*hadamard)(run_backend *backend, const run_hadamard *op, ckpt_error *err);
    ckpt_code (*ring_put)(run_backend *backend, const run_ring_put *op, ckpt_error *err);
    ckpt_code (*pool)(run_backend *backend, const run_pool *op, ckpt_error *err);
    ckpt_code (*select)(run_backend *backend, const run_select *op, ckpt_error *err);
    ckpt_code (*attend)(run_backend *backend, const run_attend *op, ckpt_error *err);
    ckpt_code (*hc_pre)(run_backend *backend, const run_streams *op, ckpt_error *err);
    ckpt_code (*hc_post)(run_backend *backend, const run_streams_post *op, ckpt_error *err);
    ckpt_code (*hc_head)(run_backend *backend, const run_streams *op, ckpt_error *err);
    ckpt_code (*route)(run_backend *backend, const run_route *op, ckpt_error *err);
    ckpt_code (*experts)(run_backend *backend, const run_experts *op, ckpt_error *err);
    ckpt_code (*add)(run_backend *backend, const run_add *op, ckpt_error *err);
} run_backend_ops;

/* First member of every backend. */
struct run_backend {
    const run_backend_ops *ops;
};

/* The backend called `name`; NULL if this build has none of that name. */
const run_backend_ops *run_backend_find(const char *name);

#endif
