/*
 * hf.h: a Hugging Face directory, or one .safetensors file alone.
 *
 *   config.json                        model_type, sizes, quantization_config
 *   model.safetensors.index.json       {"metadata": {"total_size": BYTES},
 *                                       "weight_map": {"TENSOR": "FILE", ...}}
 *   *.safetensors                      the files of the index, also in folders below; without one,
 *                                      all of them here. Others are left out and noted
 *   anything else                      carried along
 *
 * Index and files must agree in both directions; --lenient notes what does not. Of a tensor that is
 * in several files the index tells which one counts: overlays are files that replace some tensors.
 */
#ifndef CKPT_HF_H
#define CKPT_HF_H

#include "format.h"

#define HF_INDEX_FILE "model.safetensors.index.json"

extern const ckpt_format format_hf;
extern const ckpt_format format_safetensors_file;

/* "model-00002-of-00046.safetensors", or "model.safetensors" for the only one. i counts from 0. */
void hf_file_name(size_t i, size_t count, char out[FORMAT_NAME_BYTES]);

#endif
