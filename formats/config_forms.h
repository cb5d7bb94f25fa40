/*
 * config_forms.h: a common view of config.json as several programs spell it. For members of a
 * model inside another: libckpt/config_number.h.
 *
 *   transformers 5, DeepSeek-V4   layer_types and compress_rates stand for compress_ratios, and
 *                                 mlp_layer_types for num_hash_layers
 */
#ifndef CKPT_CONFIG_FORMS_H
#define CKPT_CONFIG_FORMS_H

#include "libckpt/json.h"

/*
 * The config of a DeepSeek-V4 model with the members that its family needs, derived from those of
 * transformers 5 if missing; *out is NULL if none is missing. If both exist they must agree.
 * `drafter_count`: number of blocks mtp.{m} in the files, which the new spelling does not state.
 */
ckpt_code config_complete(const char *text, const json_value *config, uint64_t drafter_count,
                          json_document **out, ckpt_error *err);

#endif
