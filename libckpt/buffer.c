/* A growing buffer. */
#include "buffer.h"

#include <stdlib.h>
#include <string.h>

enum { BUFFER_SLACK_BYTES = 4096 };

int byte_buffer_add(byte_buffer *buffer, const void *bytes, size_t size)
{
    if (buffer->failed)
        return 1;
    if (size > buffer->capacity - buffer->used) {
        const size_t capacity = 2 * buffer->capacity + size + BUFFER_SLACK_BYTES;
        char *grown = realloc(buffer->bytes, capacity);

        if (grown == NULL) {
            buffer->failed = 1;
            return 1;
        }
        buffer->bytes = grown;
        buffer->capacity = capacity;
    }
    if (size > 0)                  /* an empty text may be NULL, which is invalid for memcpy */
        memcpy(buffer->bytes + buffer->used, bytes, size);
    buffer->used += size;
    return 0;
}

int byte_buffer_write(void *context, const char *bytes, size_t size)
{
    return byte_buffer_add(context, bytes, size);
}
