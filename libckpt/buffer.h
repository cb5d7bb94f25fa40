/* buffer.h: bytes that grow: what streamed writers write into before a file has its size. */
#ifndef CKPT_BUFFER_H
#define CKPT_BUFFER_H

#include <stddef.h>

/* Begin with zeros; bytes are malloc'd, the owner's to free. */
typedef struct {
    char *bytes;
    size_t used;
    size_t capacity;
    int failed;              /* there was no memory once: what is there is not all */
} byte_buffer;

/* Append; non-zero, and nothing is appended, when there is no memory or was none before. */
int byte_buffer_add(byte_buffer *buffer, const void *bytes, size_t size);

/* The same as a json_write_fn; context is the byte_buffer. */
int byte_buffer_write(void *context, const char *bytes, size_t size);

#endif
