/* gguf_write.h: lays out GGUF files before their data exists. */
#ifndef CKPT_GGUF_WRITE_H
#define CKPT_GGUF_WRITE_H

#include "formats/format.h"

/* "model-00002-of-00003.gguf", or "model.gguf" for the only one. i counts from 0. */
void gguf_file_name(size_t i, size_t count, char out[FORMAT_NAME_BYTES]);

/* MXFP4 blocks for tensors that fit them. */
ckpt_stored_form gguf_form(const ckpt_tensor *logical);

ckpt_code gguf_lay_out(ckpt_store *store, const format_target *target, ckpt_error *err);

/* Write the root into the space reserved in the first header. */
ckpt_code gguf_finish(ckpt_store *store, const format_target *target, ckpt_error *err);

#endif
