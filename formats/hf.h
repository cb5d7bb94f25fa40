/*
 * hf.h: a Hugging Face directory, or a single .safetensors file.
 *
 *   config.json                        model_type, sizes, quantization_config
 *   model.safetensors.index.json       {"metadata": {"total_size": BYTES},
 *                                       "weight_map": {"TENSOR": "FILE", ...}}
 *   *.safetensors                      the files of the index, also in sub-folders; without an
 *                                      index, all in this folder. Others are skipped with a note
 *   anything else                      copied along
 *
 * Index and files must agree in both directions; --lenient notes disagreements. If several files
 * have a tensor, the index decides: overlays are files that replace some tensors.
 */
#ifndef CKPT_HF_H
#define CKPT_HF_H

#include "format.h"

/* Exists while the tensors of a directory are changed in place: some may be changed already. */
#define HF_CHANGE_JOURNAL ".ckpt-delta-journal"
#define HF_INDEX_FILE "model.safetensors.index.json"
enum { HF_INDEX_BYTES_MAX = 1 << 28 };

extern const ckpt_format format_hf;
extern const ckpt_format format_safetensors_file;

/* 1 if `finish` of format_hf writes an index. */
int hf_has_index(const ckpt_store *store, const format_target *target);

#endif
