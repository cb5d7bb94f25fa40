/*
 * inference_config.h: inference/config.json, which DeepSeek's own code needs beside its mp shards,
 * derived from config.json if the source has none. The names of the keys are data:
 * maps/FAMILY.inference.keys.
 */
#ifndef CKPT_INFERENCE_CONFIG_H
#define CKPT_INFERENCE_CONFIG_H

#include "libckpt/error.h"

/* *out is malloc'd; NULL for a family that has no such file. A value missing in config.json is
 * CKPT_E_FORMAT. Members about the encoding are set by config_rewrite_inference. */
ckpt_code inference_config_derive(const char *family, const char *config, char **out,
                                  ckpt_error *err);

#endif
