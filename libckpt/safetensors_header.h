/*
 * safetensors_header.h: writes the header of a .safetensors file before its data exists.
 *
 *   8 bytes   N, little endian
 *   N bytes   {"__metadata__": {...}, "NAME": {"dtype", "shape", "data_offsets"}, ...} and blanks,
 *             so that the data begins at a multiple of 8
 */
#ifndef CKPT_SAFETENSORS_HEADER_H
#define CKPT_SAFETENSORS_HEADER_H

#include "buffer.h"
#include "catalog.h"

#define SAFETENSORS_SUFFIX ".safetensors"

enum { SAFETENSORS_LENGTH_BYTES = 8 };

typedef struct {
    byte_buffer bytes;
    json_writer json;        /* write a member "__metadata__" to it before the first tensor */
} safetensors_header;

/* Begin a header. Do not move *h before safetensors_header_end: its json_writer points to it. */
void safetensors_header_begin(safetensors_header *h);

/* Add one tensor whose data begins `begin` bytes after the header. */
void safetensors_header_put(safetensors_header *h, const char *name, const ckpt_tensor *tensor,
                            uint64_t begin);

/* Return the bytes of the header, malloc'd. Consumes h, also on failure. */
ckpt_code safetensors_header_end(safetensors_header *h, char **out, size_t *size,
                                 ckpt_error *err);
void safetensors_header_drop(safetensors_header *h);

#endif
