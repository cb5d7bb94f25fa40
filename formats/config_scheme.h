/*
 * config_scheme.h: which encodings config.json allows for quantised weights.
 *
 * The config says the scheme and the shapes must fit it: a block is never found by dividing shapes
 * alone. FP8 has the weight_block_size, else 128 x 128; else 1 x 32 where E8M0 scales have that
 * grid; without a weight_block_size also a scale for each row. Schemes named "mxfp8" are 1 x 32
 * with scales that may be U8; of compressed-tensors FP8 a row ("channel") is decoded.
 */
#ifndef CKPT_CONFIG_SCHEME_H
#define CKPT_CONFIG_SCHEME_H

#include "libckpt/json.h"

typedef struct {
    int is_decoded;          /* 0: codes and scales of this scheme are separate tensors */
    int has_others;          /* some weights are of another scheme (NVFP4 experts beside FP8) */
    int has_u8_scales;       /* U8 scales are E8M0 codes */
    int has_odd_block;       /* the weight_block_size is not supported */
    unsigned fp8;            /* as in map_read_options */
} config_scheme;

/* For the config.json of a generic model; NULL: none. */
config_scheme config_read_scheme(const json_value *config);

#endif
