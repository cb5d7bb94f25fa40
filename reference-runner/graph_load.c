/* graph_load.c: a table of the weights of a block, which are checked when the model is opened and
 * loaded when the block runs; and prefetching. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "model.h"
#include "libckpt/size.h"

typedef enum { ALWAYS, POOLED, INDEXED, HASHED, SCORED, MTP_ONLY } layer_when;
typedef enum {
    NONE,            /* no rows: a vector of rank 1 */
    D, QR, HEADS, HEAD_DIM, ALL_HEADS, GROUP_HEADS, ALL_O_RANKS, STREAMS_D,
    MIX, THREE, RATIO, POOL_WIDTH, INDEX_HEADS, INDEX_DIM, ALL_INDEX, INDEX_POOL_WIDTH, EXPERTS,
    ACTIVE, EXPERT_DIM, VOCAB, SIZE_COUNT
} weight_size;

typedef struct {
    const char *name;
    weight_size rows;
    weight_size cols;
    run_weight_kind kind;
    layer_when when;
    size_t offset;
} weight_row;

#define AT(member) offsetof(run_layer_weights, member)

static const weight_row weight_rows[] = {
    { "attn_norm.weight", NONE, D, RUN_VECTOR, ALWAYS, AT(attn_norm) },
    { "ffn_norm.weight", NONE, D, RUN_VECTOR, ALWAYS, AT(ffn_norm) },
    { "hc_attn_fn", MIX, STREAMS_D, RUN_MATRIX, ALWAYS, AT(hc_attn_fn) },
    { "hc_attn_base", NONE, MIX, RUN_VECTOR, ALWAYS, AT(hc_attn_base) },
    { "hc_attn_scale", NONE, THREE, RUN_VECTOR, ALWAYS, AT(hc_attn_scale) },
    { "hc_ffn_fn", MIX, STREAMS_D, RUN_MATRIX, ALWAYS, AT(hc_ffn_fn) },
    { "hc_ffn_base", NONE, MIX, RUN_VECTOR, ALWAYS, AT(hc_ffn_base) },
    { "hc_ffn_scale", NONE, THREE, RUN_VECTOR, ALWAYS, AT(hc_ffn_scale) },
    { "attn.attn_sink", NONE, HEADS, RUN_VECTOR, ALWAYS, AT(sink) },
    { "attn.wq_a.weight", QR, D, RUN_MATRIX, ALWAYS, AT(wq_a) },
    { "attn.q_norm.weight", NONE, QR, RUN_VECTOR, ALWAYS, AT(q_norm) },
    { "attn.wq_b.weight", ALL_HEADS, QR, RUN_MATRIX, ALWAYS, AT(wq_b) },
    { "attn.wkv.weight", HEAD_DIM, D, RUN_MATRIX, ALWAYS, AT(wkv) },
    { "attn.kv_norm.weight", NONE, HEAD_DIM, RUN_VECTOR, ALWAYS, AT(kv_norm) },
    { "attn.wo_a.weight", ALL_O_RANKS, GROUP_HEADS, RUN_MATRIX, ALWAYS, AT(wo_a) },
    { "attn.wo_b.weight", D, ALL_O_RANKS, RUN_MATRIX, ALWAYS, AT(wo_b) },
    { "attn.compressor.ape", RATIO, POOL_WIDTH, RUN_VECTOR, POOLED, AT(ape) },
    { "attn.compressor.wkv.weight", POOL_WIDTH, D, RUN_MATRIX, POOLED, AT(pool_wkv) },
    { "attn.compressor.wgate.weight", POOL_WIDTH, D, RUN_MATRIX, POOLED, AT(pool_wgate) },
    { "attn.compressor.norm.weight", NONE, HEAD_DIM, RUN_VECTOR, POOLED, AT(pool_norm) },
    { "attn.indexer.wq_b.weight", ALL_INDEX, QR, RUN_MATRIX, INDEXED, AT(index_wq_b) },
    { "attn.indexer.weights_proj.weight", INDEX_HEADS, D, RUN_MATRIX, INDEXED, AT(index_weights) },
    { "attn.indexer.compressor.ape", RATIO, INDEX_POOL_WIDTH, RUN_VECTOR, INDEXED, AT(index_ape) },
    { "attn.indexer.compressor.wkv.weight", INDEX_POOL_WIDTH, D, RUN_MATRIX, INDEXED,
      AT(index_wkv) },
    { "attn.indexer.compressor.wgate.weight", INDEX_POOL_WIDTH, D, RUN_MATRIX, INDEXED,
      AT(index_wgate) },
    { "attn.indexer.compressor.norm.weight", NONE, INDEX_DIM, RUN_VECTOR, INDEXED, AT(index_norm) },
    { "ffn.gate.weight", EXPERTS, D, RUN_MATRIX, ALWAYS, AT(gate) },
    { "ffn.gate.bias", NONE, EXPERTS, RUN_VECTOR, SCORED, AT(gate_bias) },
    { "ffn.gate.tid2eid", VOCAB, ACTIVE, RUN_INTS, HASHED, AT(tid2eid) },
    { "ffn.shared_experts.w1.weight", EXPERT_DIM, D, RUN_MATRIX, ALWAYS, AT(shared[0]) },
    { "ffn.shared_experts.w2.weight", D, EXPERT_DIM, RUN_MATRIX, ALWAYS, AT(shared[1]) },
    { "ffn.shared_experts.w3.weight", EXPERT_DIM, D, RUN_MATRIX, ALWAYS, AT(shared[2]) },
    { "e_proj.weight", D, D, RUN_MATRIX, MTP_ONLY, AT(e_proj) },
    { "h_proj.weight", D, D, RUN_MATRIX, MTP_ONLY, AT(h_proj) },
    { "enorm.weight", NONE, D, RUN_VECTOR, MTP_ONLY, AT(enorm) },
    { "hnorm.weight", NONE, D, RUN_VECTOR, MTP_ONLY, AT(hnorm) },
};

enum { WEIGHT_ROWS = sizeof weight_rows / sizeof *weight_rows };

void layer_describe(const run_model *model, uint32_t number, run_layer *out)
{
    const run_config *c = model->config;

    memset(out, 0, sizeof *out);
    out->number = number;
    out->ratio = c->ratios[number];
    out->is_mtp = number >= c->layer_count;
    out->is_hash = number < c->hash_layer_count;
    if (out->is_mtp)
        snprintf(out->prefix, sizeof out->prefix, "mtp.%u.", number - c->layer_count);
    else
        snprintf(out->prefix, sizeof out->prefix, "layers.%u.", number);
}

static int has_row(const run_layer *layer, const weight_row *row)
{
    switch (row->when) {
    case POOLED:
        return layer->ratio > 0;
    case INDEXED:
        return layer->ratio == RUN_RATIO_CSA;
    case HASHED:
        return layer->is_hash;
    case SCORED:
        return !layer->is_hash;
    case MTP_ONLY:
        return layer->is_mtp;
    default:
        return 1;
    }
}

static void fill_sizes(const run_config *c, const run_layer *layer, uint64_t sizes[SIZE_COUNT])
{
    const uint64_t overlap = layer->ratio == RUN_RATIO_CSA ? 2 : 1;
    const uint64_t streams = c->stream_count;

    memset(sizes, 0, SIZE_COUNT * sizeof *sizes);
    sizes[D] = c->dim;
    sizes[QR] = c->q_rank;
    sizes[HEADS] = c->head_count;
    sizes[HEAD_DIM] = c->head_dim;
    sizes[ALL_HEADS] = (uint64_t)c->head_count * c->head_dim;
    sizes[GROUP_HEADS] = sizes[ALL_HEADS] / c->group_count;
    sizes[ALL_O_RANKS] = (uint64_t)c->group_count * c->o_rank;
    sizes[STREAMS_D] = streams * c->dim;
    sizes[MIX] = (2 + streams) * streams;
    sizes[THREE] = 3;
    sizes[RATIO] = layer->ratio;
    sizes[POOL_WIDTH] = overlap * c->head_dim;
    sizes[INDEX_HEADS] = c->index_head_count;
    sizes[INDEX_DIM] = c->index_dim;
    sizes[ALL_INDEX] = (uint64_t)c->index_head_count * c->index_dim;
    sizes[INDEX_POOL_WIDTH] = overlap * c->index_dim;
    sizes[EXPERTS] = c->expert_count;
    sizes[ACTIVE] = c->active_count;
    sizes[EXPERT_DIM] = c->expert_dim;
    sizes[VOCAB] = c->vocab_size;
}

static ckpt_code check_experts(run_model *model, const run_layer *layer, uint64_t *bytes,
                               ckpt_error *err)
{
    const run_config *c = model->config;
    const uint64_t in[2] = { c->expert_dim, c->dim };
    const uint64_t out[2] = { c->dim, c->expert_dim };
    uint64_t largest = 0;

    for (uint32_t e = 0; e < c->expert_count; e++) {
        uint64_t expert = 0;

        for (int i = 1; i <= 3; i++) {
            char name[TENSOR_NAME_BYTES];
            uint64_t one = 0;
            ckpt_code code;

            snprintf(name, sizeof name, "%sffn.experts.%u.w%d.weight", layer->prefix, e, i);
            code = run_weights_check(model->weights, name, i == 2 ? out : in, &one, err);
            if (code != CKPT_OK)
                return code;
            expert += one + WEIGHT_EXTRA_BYTES;
        }
        largest = size_max(largest, expert);
    }
    *bytes += largest;
    model->expert_bytes = size_max(model->expert_bytes, largest);
    return CKPT_OK;
}

ckpt_code layer_check(run_model *model, run_layer *layer, uint64_t *bytes, ckpt_error *err)
{
    uint64_t sizes[SIZE_COUNT];

    *bytes = 0;
    fill_sizes(model->config, layer, sizes);
    for (size_t i = 0; i < WEIGHT_ROWS; i++) {
        const weight_row *row = &weight_rows[i];
        const uint64_t shape[2] = { sizes[row->rows], sizes[row->cols] };
        char name[TENSOR_NAME_BYTES];
        uint64_t one;
        ckpt_code code;

        if (!has_row(layer, row))
            continue;
        snprintf(name, sizeof name, "%s%s", layer->prefix, row->name);
        if ((code = run_weights_check(model->weights, name, shape, &one, err)) != CKPT_OK)
            return code;
        if (row->kind != RUN_MATRIX)
            one = (shape[0] > 0 ? shape[0] : 1) * shape[1] * sizeof(float);
        *bytes += one + WEIGHT_EXTRA_BYTES;
    }
    return check_experts(model, layer, bytes, err);
}

/* Check that ids are below the number of experts and that no token has an expert twice. */
static ckpt_code check_table(const run_model *model, const char *name, const int32_t *ids,
                             ckpt_error *err)
{
    const run_config *c = model->config;

    for (uint32_t v = 0; v < c->vocab_size; v++) {
        const int32_t *row = ids + (size_t)v * c->active_count;

        for (uint32_t i = 0; i < c->active_count; i++) {
            if ((uint32_t)row[i] >= c->expert_count)
                return ckpt_fail(err, CKPT_E_FORMAT,
                                 "tensor '%s': token %u goes to expert %d of %u", name, v, row[i],
                                 c->expert_count);
            for (uint32_t j = 0; j < i; j++)
                if (row[i] == row[j])
                    return ckpt_fail(err, CKPT_E_FORMAT,
                                     "tensor '%s': token %u goes to expert %d twice", name, v,
                                     row[i]);
        }
    }
    return CKPT_OK;
}

ckpt_code layer_load(run_model *model, run_layer *layer, ckpt_error *err)
{
    for (size_t i = 0; i < WEIGHT_ROWS; i++) {
        const weight_row *row = &weight_rows[i];
        void *at = (char *)&layer->w + row->offset;
        char name[TENSOR_NAME_BYTES];
        int is_new;
        ckpt_code code;

        if (!has_row(layer, row))
            continue;
        snprintf(name, sizeof name, "%s%s", layer->prefix, row->name);
        if (row->kind == RUN_MATRIX)
            code = run_weights_matrix(model->weights, name, at, err);
        else if (row->kind == RUN_VECTOR)
            code = run_weights_vector(model->weights, name, at, err);
        else if ((code = run_weights_ints(model->weights, name, at, &is_new, err)) == CKPT_OK &&
                 is_new)
            code = check_table(model, name, layer->w.tid2eid, err);
        if (code != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

/* ---- prefetching ---- */

/* Loads run in order, so a weight that is needed now waits for those begun before it: begin few. */
enum { WARM_AT_ONCE = 16 };

/* Prefetch weight `at` of a layer. The order is: the rows of weight_rows, then the three weights of
 * each expert. Returns what run_weights_prefetch does, and 1 for a weight that the layer lacks or
 * whose expert has no rows (`first` as in layers_prefetch). */
static int prefetch_one(run_model *model, const run_layer *layer, uint32_t at,
                        const uint32_t *first)
{
    const uint32_t e = at < WEIGHT_ROWS ? 0 : (at - WEIGHT_ROWS) / 3;
    char name[TENSOR_NAME_BYTES];

    if (at < WEIGHT_ROWS) {
        const weight_row *row = &weight_rows[at];

        snprintf(name, sizeof name, "%s%s", layer->prefix, row->name);
        return has_row(layer, row) ? run_weights_prefetch(model->weights, name, row->kind) : 1;
    }
    if (first != NULL && first[e + 1] == first[e])
        return 1;
    snprintf(name, sizeof name, "%sffn.experts.%u.w%u.weight", layer->prefix, e,
             (at - WEIGHT_ROWS) % 3 + 1);
    return run_weights_prefetch(model->weights, name, RUN_MATRIX);
}

static uint32_t weight_count(const run_model *model)
{
    return WEIGHT_ROWS + 3 * model->config->expert_count;
}

/* Prefetch from model->ahead.at up to `end`; returns 0 if there is no room for the next weight. */
static int prefetch_to(run_model *model, const run_layer *layer, uint32_t end,
                       const uint32_t *first)
{
    uint32_t *at = &model->ahead.at;

    for (; *at < end; (*at)++)
        if (!prefetch_one(model, layer, *at, first))
            return 0;
    return 1;
}

void layers_prefetch(run_model *model, uint32_t number, const uint32_t *first)
{
    run_ahead *ahead = &model->ahead;

    if (model->warm.layer == model->layer_end && run_weights_all_fit(model->weights))
        return;                  /* all weights are loaded or begun, and none will be evicted */
    if (ahead->layer < number)
        *ahead = (run_ahead){ number, 0 };
    while (ahead->layer < model->layer_end && ahead->layer <= number + 1) {
        const uint32_t *known = ahead->layer == number ? first : NULL;
        run_layer layer;

        layer_describe(model, ahead->layer, &layer);
        if (!prefetch_to(model, &layer, WEIGHT_ROWS, NULL) ||
            (known == NULL && !model->takes_all_experts) ||
            !prefetch_to(model, &layer, weight_count(model), known))
            return;
        *ahead = (run_ahead){ ahead->layer + 1, 0 };
    }
}

void layers_warm(run_model *model)
{
    run_ahead *warm = &model->warm;
    unsigned begun = 0;

    if (!model->options.keeps_weights || !run_weights_all_fit(model->weights))
        return;
    for (; warm->layer < model->layer_end; *warm = (run_ahead){ warm->layer + 1, 0 }) {
        run_layer layer;

        layer_describe(model, warm->layer, &layer);
        for (; warm->at < weight_count(model); warm->at++) {
            const int result = begun < WARM_AT_ONCE
                                   ? prefetch_one(model, &layer, warm->at, NULL)
                                   : 0;

            if (result == 0)
                return;
            begun += result == WEIGHT_BEGUN;
        }
    }
}
