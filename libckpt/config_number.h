/*
 * config_number.h: members of a config.json by path, and expressions over them.
 *
 * A path is a member's name, or names joined by dots for members of objects, as in
 * "rope_scaling.factor". Paths joined by bars are spellings of one member, as in
 * "num_experts|num_local_experts": the first one that is present is used. A member that is null
 * counts as absent. Paths are looked up in text_config, language_config and llm_config first, where
 * multimodal models describe their language model: transformers build it from there, whatever the
 * root says. Only model_type, tie_word_embeddings and how weights are quantised are of the whole
 * model, and looked up at the root first.
 */
#ifndef CKPT_CONFIG_NUMBER_H
#define CKPT_CONFIG_NUMBER_H

#include "json.h"

enum { CONFIG_LANGUAGE_PARTS = 3 };

extern const char *const config_language_parts[CONFIG_LANGUAGE_PARTS];

/* The member at a path; NULL when it is absent or null. */
const json_value *config_member(const json_value *config, const char *path);
/* The same for a path without bars, at the root only. */
const json_value *config_member_here(const json_value *config, const char *path);

/* The value of a non-negative integer, of true (1) or of false (0). */
int config_number(const json_value *value, uint64_t *out);

/*
 * Apply one operation of a chain that is evaluated from left to right: `op` is one of + - * / and %
 * (remainder). Returns NULL, or what is wrong with the result, as in "is over 64 bits".
 */
const char *config_number_step(char op, uint64_t operand, uint64_t *value);

/* 1 for a chain of + - * / % over numbers and paths, without blanks: "hidden_size/2". */
int config_expression_is_valid(const char *text);

/* Evaluate a chain. `config` may be NULL if the chain consists of numbers only. */
ckpt_code config_expression(const json_value *config, const char *text, uint64_t *out,
                            ckpt_error *err);

#endif
