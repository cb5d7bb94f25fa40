/*
 * safetensors_header.h: the first bytes of a .safetensors file, written before there is data.
 *
 *   8 bytes   N, little endian
 *   N bytes   {"__metadata__": {...}, "NAME": {"dtype", "shape", "data_offsets"}, ...} and blanks,
 *             so that the data begins at a multiple of 8
 */
#ifndef CKPT_SAFETENSORS_HEADER_H
#define CKPT_SAFETENSORS_HEADER_H

#include "buffer.h"
#include "catalog.h"

enum { SAFETENSORS_LENGTH_BYTES = 8 };

typedef struct {
    byte_buffer bytes;
    json_writer json;        /* a caller puts a member "__metadata__" first, if it has one */
} safetensors_header;

/* The json_writer points into it: it does not move until safetensors_header_end. */
void safetensors_header_begin(safetensors_header *h);

/* One tensor; its data begins `begin` bytes behind the header. */
void safetensors_header_put(safetensors_header *h, const char *name, const ckpt_tensor *tensor,
                            uint64_t begin);

/* The bytes, malloc'd. Consumes h, also on failure. */
ckpt_code safetensors_header_end(safetensors_header *h, char **out, size_t *size,
                                 ckpt_error *err);
void safetensors_header_drop(safetensors_header *h);

#endif
