/*
 * safetensors.h: one .safetensors file. Byte layout (huggingface/safetensors, README.md):
 *
 *   offset 0      N, unsigned 64-bit little endian, at most 100,000,000
 *   offset 8      N bytes of UTF-8 JSON, first byte '{', may end in spaces:
 *                 {"NAME": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ...}
 *                 and optionally "__metadata__": {string: string}
 *   offset 8 + N  tensor bytes, little endian, row-major; data_offsets count from here; the tensors
 *                 cover the rest of the file without overlap or hole
 *
 * Header as the library writes it, and as we do: compact, "__metadata__" first if there is one,
 * then tensors by dtype rank descending, then name; data in the same order; padded with spaces to
 * a multiple of 8.
 */
#ifndef CKPT_SAFETENSORS_H
#define CKPT_SAFETENSORS_H

#include "format.h"
#include "libckpt/safetensors_header.h"

enum { SAFETENSORS_HEADER_MAX = 100 * 1000 * 1000 };

/* Read the header of file `i` (opened here) and add its tensors to the store's catalog. */
ckpt_code safetensors_read(ckpt_store *store, uint32_t i, ckpt_error *err);

/* Lay out the tensors of all files: offsets in the catalog, header and size in store->files. The
 * target is not used and may be NULL. */
ckpt_code safetensors_lay_out(ckpt_store *store, const format_target *target, ckpt_error *err);

#endif
