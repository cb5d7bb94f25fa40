/* buffer.h: a growing buffer, for output whose size is not known before it is complete. */
#ifndef CKPT_BUFFER_H
#define CKPT_BUFFER_H

#include <stddef.h>

/* Initialise with zeros. `bytes` is malloc'd, yours to free. */
typedef struct {
    char *bytes;
    size_t used;
    size_t capacity;
    int failed;              /* an allocation failed: the content is incomplete */
} byte_buffer;

/* Append. Non-zero, with nothing appended, when this or an earlier allocation failed. */
int byte_buffer_add(byte_buffer *buffer, const void *bytes, size_t size);

/* The same as a json_write_fn; context is the byte_buffer. */
int byte_buffer_write(void *context, const char *bytes, size_t size);

#endif
