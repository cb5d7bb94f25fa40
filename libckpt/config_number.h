/*
 * config_number.h: members of a config.json by path, and numbers made of them.
 *
 * A path is a member's name, or names joined by dots for members of objects, as in
 * "rope_scaling.factor". Paths joined by bars are spellings of one member, as in
 * "num_experts|num_local_experts": the first that is there counts. Members that are null are taken
 * for absent. What is not at the root is looked for in the part that describes the language model
 * of a model inside another: text_config, language_config or llm_config.
 */
#ifndef CKPT_CONFIG_NUMBER_H
#define CKPT_CONFIG_NUMBER_H

#include "json.h"

/* NULL when it is nowhere, or null. */
const json_value *config_member(const json_value *config, const char *path);

/* A whole number of zero or more, true (1) or false (0). */
int config_number(const json_value *value, uint64_t *out);

/*
 * Bring in the next operand of a chain that is worked out from left to right: `op` is one of
 * + - * / and % (remainder). NULL when done, else what is wrong with the result, as in "is over 64
 * bits".
 */
const char *config_number_step(char op, uint64_t operand, uint64_t *value);

/* 1 for a chain of + - * / % over numbers and paths, without blanks: "hidden_size/2". */
int config_expression_is_valid(const char *text);

/* Its value. `config` may be NULL when the chain has numbers alone. */
ckpt_code config_expression(const json_value *config, const char *text, uint64_t *out,
                            ckpt_error *err);

#endif
