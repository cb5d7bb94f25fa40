/* config_members.c: tables of the members of config.json and the values that the forward pass of
 * DeepSeek-V4 supports. */
#include "config_members.h"

#include <string.h>

#include "libckpt/config_meaning.h"
#include "libckpt/config_names.h"

/* Strings of which only one value is supported. */
static const struct {
    const char *name;
    const char *word;
} words[] = {
    { "scoring_func", "sqrtsoftplus" }, { "score_func", "sqrtsoftplus" },
    { "hidden_act", "silu" },           { "topk_method", "noaux_tc" },
    { "rope_scaling.type", "yarn" },    { "rope_scaling.rope_type", "yarn" },
    { "model_type", "deepseek_v4" },
};

/* Numbers and flags of which only one value is supported. Members of other model families are
 * listed with the value that turns their effect off. */
static const struct {
    const char *name;
    double value;
} numbers[] = {
    { "num_key_value_heads", 1 },       { "n_shared_experts", 1 },
    { "attention_bias", 0 },            { "mlp_bias", 0 },
    { "norm_topk_prob", 1 },            { "tie_word_embeddings", 0 },
    { "rope_scaling.attention_factor", 1 },
    { "final_logit_softcapping", 0 },   { "attn_logit_softcapping", 0 },
    { "logit_softcapping", 0 },         { "router_logit_softcapping", 0 },
    { "logit_scale", 1 },               { "logits_scaling", 1 },
    { "embedding_multiplier", 1 },      { "residual_multiplier", 1 },
    { "lm_head_multiplier", 1 },        { "scale_emb", 1 },
    { "qkv_bias", 0 },                  { "use_bias", 0 },
    { "use_qkv_bias", 0 },              { "lm_head_bias", 0 },
    { "alibi", 0 },                     { "parallel_residual", 0 },
    { "use_parallel_residual", 0 },     { "n_group", 1 },
    { "topk_group", 1 },                { "n_expert_groups", 1 },
    { "n_limited_groups", 1 },          { "first_k_dense_replace", 0 },
    { "n_dense_layers", 0 },            { "moe_layer_freq", 1 },
    { "decoder_sparse_step", 1 },
};

/* Members that other code reads: layer kinds, and objects whose members are checked one by one. */
static const char *const read_elsewhere[] = {
    "compress_ratios", "layer_types", "compress_rates", "compress_rate_csa", "compress_rate_hca",
    "mlp_layer_types", "partial_rotary_factor", "rope_scaling", "rope_parameters",
    "dspark_target_layer_ids",
};

/* Members that transformers and trainers write and that do not affect the forward pass. */
static const char *const harmless[] = {
    "auto_map", "quantization_config", "attn_implementation", "_attn_implementation",
    "_attn_implementation_autoset", "_commit_hash", "unsloth_version", "unsloth_fixed", "id2label",
    "label2id", "problem_type", "finetuning_task", "task_specific_params", "tokenizer_class",
    "return_dict_in_generate", "torchscript", "is_decoder", "is_encoder_decoder",
    "chunk_size_feed_forward", "prefix", "sep_token_id", "decoder_start_token_id",
    "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens",
    "bad_words_ids", "do_sample", "early_stopping", "max_length", "min_length", "temperature",
    "top_k", "top_p", "typical_p", "num_beams", "num_beam_groups", "num_return_sequences",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "repetition_penalty", "length_penalty",
    "diversity_penalty", "remove_invalid_values", "exponential_decay_length_penalty",
    "output_scores", "pruned_heads", "cross_attention_hidden_size", "add_cross_attention",
    "tie_encoder_decoder", "tf_legacy_loss", "use_bfloat16", "gradient_checkpointing",
};

static int is_in(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return 1;
    return 0;
}

#define IS_IN(name, list) is_in(name, list, sizeof (list) / sizeof *(list))

ckpt_code config_members_check(const json_value *config, const char *subject, ckpt_error *err)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const json_value *v = config_find_as(config, words[i].name);
        const char *word = json_string(v);

        if (v != NULL && (word == NULL || strcmp(word, words[i].word) != 0))
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s': '%s' is not \"%s\"", subject,
                             words[i].name, words[i].word);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const json_value *v = config_find_as(config, numbers[i].name);
        double number = 0;
        int flag = 0;

        if (json_bool(v, &flag))
            number = flag;
        else if (v != NULL && !json_number(v, &number))
            number = -1;
        if (v != NULL && number != numbers[i].value)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s': '%s' is not %g, and what else it would do "
                             "to the forward pass is not computed here", subject, numbers[i].name,
                             numbers[i].value);
    }
    if (json_count(config_find_as(config, "dspark_target_layer_ids")) > 0)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': 'dspark_target_layer_ids' belongs to a later release, whose "
                         "forward pass is not supported",
                         subject);
    return CKPT_OK;
}

/* 1 if run_config_read reads a member of this name in the spelling that this config uses. */
static int is_read(const char *name, int is_inference)
{
    for (const config_name *n = config_names; n->name != NULL; n++) {
        const char *spelled = is_inference && n->inference != NULL ? n->inference : n->name;

        if (strcmp(spelled, name) == 0)
            return 1;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i].name, name) == 0)
            return 1;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(numbers[i].name, name) == 0)
            return 1;
    return IS_IN(name, read_elsewhere);
}

const json_value *config_members_unknown(const json_value *config, int is_inference,
                                         const json_value *after)
{
    const json_value *v = after == NULL ? json_first(config) : json_next(after);

    while (v != NULL && (json_is_null(v) || is_read(json_key(v), is_inference) ||
                         config_member_is_aside(json_key(v)) || IS_IN(json_key(v), harmless)))
        v = json_next(v);
    return v;
}
