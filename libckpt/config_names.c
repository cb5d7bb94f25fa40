/* The table of names of a DeepSeek-V4 config, and the look-up of members. */
#include "config_names.h"

#include <string.h>

#include "config_number.h"

const config_name config_names[] = {
    { "vocab_size", "vocab_size", NULL, NULL },
    { "hidden_size", "dim", NULL, NULL },
    { "num_hidden_layers", "n_layers", NULL, NULL },
    { "num_nextn_predict_layers", "n_mtp_layers", NULL, "1" },
    { "num_hash_layers", "n_hash_layers", NULL, NULL },
    { "num_attention_heads", "n_heads", NULL, NULL },
    { "head_dim", "head_dim", NULL, NULL },
    { "qk_rope_head_dim", "rope_head_dim", NULL, NULL },
    { "q_lora_rank", "q_lora_rank", NULL, NULL },
    { "o_groups", "o_groups", NULL, NULL },
    { "o_lora_rank", "o_lora_rank", NULL, NULL },
    { "sliding_window", "window_size", NULL, NULL },
    { "n_routed_experts", "n_routed_experts", NULL, NULL },
    { "num_experts_per_tok", "n_activated_experts", NULL, NULL },
    { "moe_intermediate_size", "moe_inter_dim", NULL, NULL },
    { "index_n_heads", "index_n_heads", NULL, NULL },
    { "index_head_dim", "index_head_dim", NULL, NULL },
    { "index_topk", "index_topk", NULL, NULL },
    { "hc_mult", "hc_mult", NULL, NULL },
    { "hc_sinkhorn_iters", "hc_sinkhorn_iters", NULL, NULL },
    { "max_position_embeddings", "max_seq_len", NULL, "1048576" },
    { "rope_scaling.original_max_position_embeddings", "original_seq_len",
      "rope_parameters.compress.original_max_position_embeddings", "0" },
    { "rope_theta", "rope_theta", "rope_parameters.main.rope_theta", NULL },
    { "compress_rope_theta", "compress_rope_theta", "rope_parameters.compress.rope_theta", NULL },
    { "rope_scaling.factor", "rope_factor", "rope_parameters.compress.factor", "1" },
    { "rope_scaling.beta_fast", "beta_fast", "rope_parameters.compress.beta_fast", "32" },
    { "rope_scaling.beta_slow", "beta_slow", "rope_parameters.compress.beta_slow", "1" },
    { "routed_scaling_factor", "route_scale", NULL, NULL },
    { "swiglu_limit", "swiglu_limit", NULL, NULL },
    { "hc_eps", "hc_eps", NULL, "1e-6" },
    { "rms_norm_eps", "norm_eps", NULL, "1e-6" },
    { "scoring_func", "score_func", NULL, "\"sqrtsoftplus\"" },
    { "hidden_act", NULL, NULL, "\"silu\"" },
    { "topk_method", NULL, NULL, "\"noaux_tc\"" },
    { "norm_topk_prob", NULL, NULL, "true" },
    { "num_key_value_heads", NULL, NULL, "1" },
    { "n_shared_experts", "n_shared_experts", NULL, "1" },
    { "attention_bias", NULL, NULL, "false" },
    { "mlp_bias", NULL, NULL, "false" },
    { "tie_word_embeddings", NULL, NULL, "false" },
    { "rope_scaling.type", NULL, "rope_parameters.compress.rope_type", "\"yarn\"" },
    { "rope_scaling.attention_factor", NULL, "rope_parameters.compress.attention_factor", "1" },
    { NULL, NULL, NULL, NULL }
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

const json_value *config_find_as(const json_value *config, const char *name)
{
    const config_name *n = config_name_find(name);
    const json_value *v = config_member_here(config, name);

    return v == NULL && n != NULL && n->moved != NULL ? config_member_here(config, n->moved) : v;
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

int config_hash_layers(const json_value *config, uint64_t *count, const json_value **wrong)
{
    const json_value *kinds = json_member(config, "mlp_layer_types");
    int others = 0;

    *count = 0;
    *wrong = NULL;
    for (const json_value *v = json_is_array(kinds) ? json_first(kinds) : NULL;
         v != NULL && *wrong == NULL; v = json_next(v)) {
        const char *kind = json_string(v);
        const int is_hash = kind != NULL && strcmp(kind, "hash_moe") == 0;

        if ((!is_hash && (kind == NULL || strcmp(kind, "moe") != 0)) || (is_hash && others))
            *wrong = v;
        others |= !is_hash;
        *count += (uint64_t)is_hash;
    }
    return json_is_array(kinds);
}

uint32_t config_rope_dim(const json_value *config)
{
    uint64_t head_dim;
    double factor;

    if (!json_u64(config_find(config, "head_dim"), &head_dim) || head_dim > INT32_MAX ||
        !json_number(json_member(config, "partial_rotary_factor"), &factor) ||
        !(factor > 0 && factor <= 1))
        return 0;
    return (uint32_t)((double)head_dim * factor);
}
