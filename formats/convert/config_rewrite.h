/*
 * config_rewrite.h: config.json of a converted checkpoint. The text is edited in place: unchanged
 * members keep their bytes.
 *
 *   all BF16                  quantization_config and expert_dtype are removed
 *   FP8 or FP4 weights        quantization_config: fp8, e4m3, ue8m0, [128, 128], dynamic
 *   routed experts FP4 / FP8  expert_dtype "fp4" / "fp8", for families that know the key
 *   a mixture                 modules_to_not_convert (or ignored_layers, if it exists) lists the
 *                             modules of the weights that are BF16
 *
 *   MXFP8 weights             quantization_config: mxfp8, ue8m0, [1, 32], dynamic, and no other FP8
 *   FP8 by rows               quantization_config: compressed-tensors, channel, and no other FP8
 *   NVFP4 weights             quantization_config: modelopt; beside FP8: moe_quant_algo of experts
 *   quantised by a rule       ckpt_rule in quantization_config, which loaders ignore, names the
 *                             rule; no scale_fmt if its FP8 scales are not powers of two
 *
 * If no encoding changes, nothing is edited.
 */
#ifndef CKPT_CONFIG_H
#define CKPT_CONFIG_H

#include "libckpt/map.h"
#include "libckpt/quantise.h"

#define CONFIG_INFERENCE_FILE "inference/config.json"      /* of DeepSeek's own code */

typedef struct {
    const ckpt_catalog *targets;
    const ckpt_catalog *from;        /* the same tensors in the same order, as described by `text`;
                                        NULL: not described */
    const ckpt_catalog *official;    /* what the family expects, or NULL */
    const ckpt_map *modules;         /* map of the native names, which gives the modules; or NULL */
    int has_expert_dtype;            /* the family knows that key */
    int lists_matrices;              /* it is unknown which tensors are weights: list every matrix
                                        that is not quantised */
    const quantise_rule *const *rules;   /* by target tensor, NULL: none; NULL: no tensor has one */
    int is_from_blocks;              /* the source's files describe its blocks themselves */
    int is_inference;                /* `from` is already in the reference code's layout */
} config_change;

/* *out is malloc'd. `text` is the source's config.json. Refuses encodings that it cannot
 * express. */
ckpt_code config_rewrite(const char *text, const config_change *change, char **out,
                         ckpt_error *err);

/* CONFIG_MODELOPT_FILE for the config that config_rewrite made; *out is NULL if none is needed. */
ckpt_code config_modelopt_text(const char *config, const config_change *change, char **out,
                               ckpt_error *err);

/* Refuse encodings that inference/config.json of DeepSeek's own code cannot express; weights with
 * a plain dtype in `plain`, the map of the layout, are exempt. */
ckpt_code config_check_inference(const config_change *change, const ckpt_map *plain,
                                 ckpt_error *err);

/* The same for --like: its text if both agree apart from the encoding, else the source's text with
 * like's encoding. */
ckpt_code config_rewrite_like(const char *text, const char *like, char **out, ckpt_error *err);

/* inference/config.json of DeepSeek's own code: dtype, scale_fmt, expert_dtype. */
ckpt_code config_rewrite_inference(const char *text, const ckpt_catalog *targets, char **out,
                                   ckpt_error *err);

#endif
