/*
 * config_scheme.h: which encodings config.json allows for quantised weights.
 *
 * The config says the scheme and the shapes must fit it: a block is never found by dividing shapes
 * alone. FP8 has the weight_block_size, else 128 x 128; else 1 x 32 where E8M0 scales have that
 * grid; without a weight_block_size also a scale for each row. Schemes named "mxfp8" are 1 x 32
 * with scales that may be U8. quant_algo or moe_quant_algo "NVFP4" lets FP4 weights be 1 x 16. Of
 * compressed-tensors 8-bit floats by rows ("channel"), 4-bit ones by groups of 16 under a scale of
 * the tensor ("tensor_group") and by groups of 32 ("group") are decoded. FP4 of 1 x 32 needs no
 * word of the config: codes and scales are of dtypes that nothing else has.
 */
#ifndef CKPT_CONFIG_SCHEME_H
#define CKPT_CONFIG_SCHEME_H

#include "libckpt/json.h"

typedef struct {
    int is_decoded;          /* 0: codes and scales of this scheme are separate tensors */
    int has_others;          /* some weights are of another scheme, which is not decoded */
    int has_u8_scales;       /* U8 scales are E8M0 codes */
    int has_odd_block;       /* the weight_block_size is not supported */
    unsigned encodings;      /* as in map_read_options */
} config_scheme;

/* Model-Optimizer's file, which replaces a quantization_config that config.json lacks. */
#define CONFIG_MODELOPT_FILE "hf_quant_config.json"

/* For the config.json of a generic model and CONFIG_MODELOPT_FILE; NULL: none. */
config_scheme config_read_scheme(const json_value *config, const json_value *modelopt);

#endif
