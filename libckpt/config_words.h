/*
 * config_words.h: members of a config.json that code reads for every family, with all their
 * spellings (config_number.h). Members that only one family's text reads are named in that text.
 */
#ifndef CKPT_CONFIG_WORDS_H
#define CKPT_CONFIG_WORDS_H

#define CONFIG_MODEL_TYPE "model_type"
#define CONFIG_LAYER_COUNT "num_hidden_layers"
#define CONFIG_EXPERT_COUNT "n_routed_experts|num_experts|num_local_experts"
#define CONFIG_ACTIVE_EXPERTS "num_experts_per_tok"
#define CONFIG_NEXT_TOKEN_BLOCKS "num_nextn_predict_layers"

/* The model_type of DeepSeek-V4, whose config has more than one form (config_names.h). */
#define CONFIG_TYPE_V4 "deepseek_v4"

#endif
