/* hf_private.h: shared by hf.c, hf_index.c and hf_files.c. */
#ifndef CKPT_HF_PRIVATE_H
#define CKPT_HF_PRIVATE_H

#include "hf.h"

/* hf_files.c: "model-00002-of-00046.safetensors", or "model.safetensors" for the only one. i counts
 * from 0. */
void hf_file_name(size_t i, size_t count, char out[FORMAT_NAME_BYTES]);
/* Read the headers of all files of out->store; note those that are missing from a series. */
ckpt_code hf_read_files(ckpt_checkpoint *out, ckpt_error *err);

/* hf_index.c: add the files that the index names to out->store, read them, and compare both. If
 * several files have a tensor, that of the index is kept. */
ckpt_code hf_read_index(ckpt_checkpoint *out, ckpt_error *err);

#endif
