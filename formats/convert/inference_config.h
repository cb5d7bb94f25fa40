/*
 * inference_config.h: inference/config.json, which DeepSeek's own code wants beside the files of
 * its ranks, made of config.json where the source has none. What is called what is data:
 * maps/FAMILY.inference.keys.
 */
#ifndef CKPT_INFERENCE_CONFIG_H
#define CKPT_INFERENCE_CONFIG_H

#include "libckpt/error.h"

/* *out is malloc'd; NULL for a family that has no such file. A value that config.json lacks is
 * CKPT_E_FORMAT. What tells the encoding is left to config_rewrite_inference. */
ckpt_code inference_config_derive(const char *family, const char *config, char **out,
                                  ckpt_error *err);

#endif
