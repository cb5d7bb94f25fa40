/*
 * config.h: config.json of a converted checkpoint. Text is edited in place: what does not change
 * keeps its bytes.
 *
 *   all BF16                  quantization_config and expert_dtype are removed
 *   FP8 or FP4 weights        quantization_config: fp8, e4m3, ue8m0, [128, 128], dynamic
 *   routed experts FP4 / FP8  expert_dtype "fp4" / "fp8", for families that know the key
 */
#ifndef CKPT_CONFIG_H
#define CKPT_CONFIG_H

#include "catalog.h"

#define CONFIG_INFERENCE_FILE "inference/config.json"      /* of DeepSeek's own code */

/* *out is malloc'd. `text` is the source's config.json. */
ckpt_code config_rewrite(const char *text, const ckpt_catalog *targets, int has_expert_dtype,
                         char **out, ckpt_error *err);

/* The same for --like: its text if the two say the same apart from the encoding, else the source's
 * text with like's encoding. */
ckpt_code config_rewrite_like(const char *text, const char *like, char **out, ckpt_error *err);

/* inference/config.json of DeepSeek's own code: dtype, scale_fmt, expert_dtype. */
ckpt_code config_rewrite_inference(const char *text, const ckpt_catalog *targets, char **out,
                                   ckpt_error *err);

#endif
