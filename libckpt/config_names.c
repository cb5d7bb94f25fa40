/* The table of names of a DeepSeek-V4 config, and the look-up of members. */
#include "config_names.h"

#include <string.h>

const config_name config_names[] = {
    { "vocab_size", "vocab_size", NULL },
    { "hidden_size", "dim", NULL },
    { "num_hidden_layers", "n_layers", NULL },
    { "num_nextn_predict_layers", "n_mtp_layers", "1" },
    { "num_hash_layers", "n_hash_layers", NULL },
    { "num_attention_heads", "n_heads", NULL },
    { "head_dim", "head_dim", NULL },
    { "qk_rope_head_dim", "rope_head_dim", NULL },
    { "q_lora_rank", "q_lora_rank", NULL },
    { "o_groups", "o_groups", NULL },
    { "o_lora_rank", "o_lora_rank", NULL },
    { "sliding_window", "window_size", NULL },
    { "n_routed_experts", "n_routed_experts", NULL },
    { "num_experts_per_tok", "n_activated_experts", NULL },
    { "moe_intermediate_size", "moe_inter_dim", NULL },
    { "index_n_heads", "index_n_heads", NULL },
    { "index_head_dim", "index_head_dim", NULL },
    { "index_topk", "index_topk", NULL },
    { "hc_mult", "hc_mult", NULL },
    { "hc_sinkhorn_iters", "hc_sinkhorn_iters", NULL },
    { "max_position_embeddings", "max_seq_len", "1048576" },
    { "rope_scaling.original_max_position_embeddings", "original_seq_len", "0" },
    { "rope_theta", "rope_theta", NULL },
    { "compress_rope_theta", "compress_rope_theta", NULL },
    { "rope_scaling.factor", "rope_factor", "1" },
    { "rope_scaling.beta_fast", "beta_fast", "32" },
    { "rope_scaling.beta_slow", "beta_slow", "1" },
    { "routed_scaling_factor", "route_scale", NULL },
    { "swiglu_limit", "swiglu_limit", NULL },
    { "hc_eps", "hc_eps", "1e-6" },
    { "rms_norm_eps", "norm_eps", "1e-6" },
    { "scoring_func", "score_func", "\"sqrtsoftplus\"" },
    { "hidden_act", NULL, "\"silu\"" },
    { "topk_method", NULL, "\"noaux_tc\"" },
    { "norm_topk_prob", NULL, "true" },
    { "num_key_value_heads", NULL, "1" },
    { "n_shared_experts", "n_shared_experts", "1" },
    { "attention_bias", NULL, "false" },
    { "mlp_bias", NULL, "false" },
    { "tie_word_embeddings", NULL, "false" },
    { "rope_scaling.type", NULL, "\"yarn\"" },
    { "rope_scaling.attention_factor", NULL, "1" },
    { NULL, NULL, NULL }
};

/* The place of a member in transformers since version 5. */
static const struct {
    const char *name;
    const char *path[3];
} moved[] = {
    { "rope_scaling.factor", { "rope_parameters", "compress", "factor" } },
    { "rope_scaling.beta_fast", { "rope_parameters", "compress", "beta_fast" } },
    { "rope_scaling.beta_slow", { "rope_parameters", "compress", "beta_slow" } },
    { "rope_scaling.original_max_position_embeddings",
      { "rope_parameters", "compress", "original_max_position_embeddings" } },
    { "rope_scaling.rope_type", { "rope_parameters", "compress", "rope_type" } },
    { "rope_scaling.type", { "rope_parameters", "compress", "rope_type" } },
    { "rope_scaling.attention_factor", { "rope_parameters", "compress", "attention_factor" } },
    { "rope_theta", { "rope_parameters", "main", "rope_theta" } },
    { "compress_rope_theta", { "rope_parameters", "compress", "rope_theta" } },
};

const config_name *config_name_find(const char *name)
{
    for (const config_name *n = config_names; n->name != NULL; n++)
        if (strcmp(n->name, name) == 0)
            return n;
    return NULL;
}

int config_is_inference(const json_value *config)
{
    return json_member(config, "dim") != NULL;
}

static const json_value *find_moved(const json_value *config, const char *name)
{
    for (size_t i = 0; i < sizeof moved / sizeof *moved; i++)
        if (strcmp(moved[i].name, name) == 0) {
            const json_value *v = config;

            for (size_t k = 0; k < sizeof moved[i].path / sizeof *moved[i].path; k++)
                v = json_member(v, moved[i].path[k]);
            return v;
        }
    return NULL;
}

const json_value *config_find_as(const json_value *config, const char *name)
{
    static const char inner[] = "rope_scaling.";
    const json_value *v;

    if (strncmp(name, inner, sizeof inner - 1) == 0)
        v = json_member(json_member(config, "rope_scaling"), name + sizeof inner - 1);
    else
        v = json_member(config, name);
    if (v == NULL)
        v = find_moved(config, name);
    return json_is_null(v) ? NULL : v;
}

const json_value *config_find(const json_value *config, const char *name)
{
    const config_name *n = config_name_find(name);

    if (n == NULL || !config_is_inference(config))
        return config_find_as(config, name);
    return n->inference == NULL ? NULL : config_find_as(config, n->inference);
}

ckpt_code config_layer_ratio(const json_value *config, const json_value *kind, uint64_t *out,
                             ckpt_error *err)
{
    static const struct {
        const char *kind;
        const char *scalar;        /* an older spelling, which takes precedence */
        uint64_t usual;
    } kinds[] = {
        { "compressed_sparse_attention", "compress_rate_csa", 4 },
        { "heavily_compressed_attention", "compress_rate_hca", 128 },
    };
    const char *name = json_string(kind);

    *out = 0;
    if (name == NULL)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "config member 'layer_types' has an element that is not a string");
    if (strcmp(name, "sliding_attention") == 0)
        return CKPT_OK;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const json_value *rates = json_member(config, "compress_rates");

        if (strcmp(name, kinds[i].kind) != 0)
            continue;
        if (json_u64(json_member(config, kinds[i].scalar), out) ||
            json_u64(json_member(rates, name), out))
            return CKPT_OK;
        *out = kinds[i].usual;
        return rates == NULL ? CKPT_OK
                             : ckpt_fail(err, CKPT_E_FORMAT,
                                         "config member 'compress_rates' has no number for '%s'",
                                         name);
    }
    return ckpt_fail(err, CKPT_E_FORMAT, "config member 'layer_types' has an unknown '%s'",
                     name);
}
