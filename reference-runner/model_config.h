/*
 * model_config.h: reads the config of a DeepSeek-V4 model, whichever names it uses.
 *
 * Three spellings are read: the root config.json of a release (hidden_size, num_hidden_layers ...),
 * inference/config.json of DeepSeek's own code (dim, n_layers ...), and what transformers 5 writes
 * (layer_types, rope_parameters ... instead of some of the first). The same model gives the same
 * run_config and digest in each. Members that this forward pass does not support are refused, not
 * ignored.
 */
#ifndef RUN_CONFIG_H
#define RUN_CONFIG_H

#include "libckpt/json.h"
#include "libckpt/sha256.h"

enum {
    RUN_LAYERS_MAX = 1024,      /* main layers and MTP blocks */
    RUN_STREAMS_MAX = 8,        /* hyper-connection streams */
    RUN_ACTIVE_MAX = 64         /* experts of one token */
};

/*
 * Tokens per compressed entry of a layer (run_config.ratios), or 0: the layer attends to its window
 * alone. CSA: entries overlap, each has the tokens of the one before it, too, and an indexer
 * chooses those that a token attends to. HCA: it attends to all of them.
 */
enum { RUN_RATIO_CSA = 4, RUN_RATIO_HCA = 128 };

typedef struct {
    uint32_t vocab_size;
    uint32_t dim;
    uint32_t layer_count;
    uint32_t mtp_count;
    uint32_t hash_layer_count;   /* the first layers choose experts by a table of token ids */
    uint32_t head_count;
    uint32_t head_dim;
    uint32_t rope_dim;           /* the last dimensions of a head */
    uint32_t q_rank;
    uint32_t group_count;        /* of the output projection */
    uint32_t o_rank;
    uint32_t window;
    uint32_t expert_count;
    uint32_t active_count;       /* routed experts of one token */
    uint32_t expert_dim;
    uint32_t index_head_count;
    uint32_t index_dim;
    uint32_t index_topk;
    uint32_t stream_count;       /* hyper-connection streams */
    uint32_t sinkhorn_iters;
    uint64_t max_positions;
    uint64_t original_length;    /* of YaRN; 0: no YaRN */
    double rope_theta;
    double compress_theta;
    double rope_factor;
    double beta_fast;
    double beta_slow;
    double route_scale;
    double swiglu_limit;         /* 0: no clamp */
    double hc_eps;
    double norm_eps;
    uint32_t ratios[RUN_LAYERS_MAX];    /* 0, RUN_RATIO_CSA or RUN_RATIO_HCA */
    char digest[SHA256_HEX];     /* SHA-256 of all members above as text */
} run_config;

/* `subject` names the file in errors. */
ckpt_code run_config_read(const json_value *config, const char *subject, run_config *out,
                          ckpt_error *err);

#endif
