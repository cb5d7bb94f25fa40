/*
 * config_forms.h: config.json as several programs spell it, seen as one. Members of a model inside
 * another: libckpt/config_number.h.
 *
 *   transformers 5, DeepSeek-V4   layer_types and compress_rates stand for compress_ratios, and
 *                                 mlp_layer_types for num_hash_layers
 */
#ifndef CKPT_CONFIG_FORMS_H
#define CKPT_CONFIG_FORMS_H

#include "libckpt/json.h"

/* What quantised the weights, if it is not the FP8 and FP4 that is decoded: "gptq". "" when it is,
 * or nothing did. */
enum { CONFIG_METHOD_BYTES = 64 };
void config_find_method(const json_value *config, char out[CONFIG_METHOD_BYTES]);

/*
 * The config of a DeepSeek-V4 model with the members that its family asks for, made from those of
 * transformers 5 where they are missing; *out NULL when none is. Where both are there they must
 * agree. `drafter_count`: blocks mtp.{m} that the files have, which the new spelling does not tell.
 */
ckpt_code config_complete(const char *text, const json_value *config, uint64_t drafter_count,
                          json_document **out, ckpt_error *err);

#endif
