/* buffer.h: bytes that grow: what streamed writers write into before a file has its size. */
#ifndef CKPT_BUFFER_H
#define CKPT_BUFFER_H

#include <stddef.h>

/* Begin with { NULL, 0, 0 }; bytes are malloc'd, the owner's to free. */
typedef struct {
    char *bytes;
    size_t used;
    size_t capacity;
} byte_buffer;

/* Append; non-zero when there is no memory, and nothing was appended. */
int byte_buffer_add(byte_buffer *buffer, const void *bytes, size_t size);

/* The same as a json_write_fn; context is the byte_buffer. */
int byte_buffer_write(void *context, const char *bytes, size_t size);

#endif
