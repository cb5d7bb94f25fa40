/*
 * config_scheme.h: which encodings config.json allows for quantised weights.
 *
 * The config declares the scheme, and the shapes must fit it: block sizes are never derived from
 * shapes alone.
 *
 *   FP8                  blocks of weight_block_size, else 128 x 128; 1 x 32 if E8M0 scales have
 *                        that grid; without a weight_block_size also one scale per row
 *   "mxfp8"              1 x 32, with scales that may be stored as U8
 *   "NVFP4"              as quant_algo or moe_quant_algo: FP4 weights may be 1 x 16
 *   compressed-tensors   decoded are 8-bit floats by rows ("channel"), 4-bit floats by groups of 16
 *                        with a scale of the tensor ("tensor_group"), and by groups of 32
 *                        ("group"); and symmetric 4-bit integers by groups of 32, packed in words
 *   FP4 of 1 x 32        is not declared: no other encoding has these dtypes of codes and scales
 */
#ifndef CKPT_CONFIG_SCHEME_H
#define CKPT_CONFIG_SCHEME_H

#include "libckpt/json.h"

typedef struct {
    int is_decoded;          /* 0: codes and scales of this scheme are separate tensors */
    int has_others;          /* some weights are of another scheme, which is not decoded */
    int has_u8_scales;       /* U8 scales are E8M0 codes */
    int has_odd_block;       /* the weight_block_size is not supported */
    int replaces_blocks;     /* all weights are MXFP8 or NVFP4, also if a family has FP8 blocks */
    unsigned encodings;      /* as in map_read_options */
} config_scheme;

/* Model-Optimizer's file, which replaces a quantization_config that config.json lacks. */
#define CONFIG_MODELOPT_FILE "hf_quant_config.json"

/* For the config.json of a generic model and CONFIG_MODELOPT_FILE; NULL: none. */
config_scheme config_read_scheme(const json_value *config, const json_value *modelopt);

/* The quantisation method if its encoding is not decoded: "gptq". "" if it is decoded or there is
 * none. */
enum { CONFIG_METHOD_BYTES = 64 };
void config_find_method(const json_value *config, char out[CONFIG_METHOD_BYTES]);

#endif
