/* gguf_put.h: serialises the keys and tensor infos of a head into a buffer. */
#ifndef CKPT_GGUF_PUT_H
#define CKPT_GGUF_PUT_H

#include "gguf_scan.h"
#include "libckpt/buffer.h"

/* Serialised keys. */
typedef struct {
    byte_buffer bytes;             /* its `failed` is set when out of memory */
    uint64_t count;
} gguf_put;

void gguf_put_u32(gguf_put *p, const char *key, uint32_t number);
void gguf_put_u16(gguf_put *p, const char *key, uint16_t number);
void gguf_put_i32(gguf_put *p, const char *key, int32_t number);
void gguf_put_f32(gguf_put *p, const char *key, float number);
void gguf_put_bool(gguf_put *p, const char *key, int flag);
void gguf_put_string(gguf_put *p, const char *key, const char *text);
/* An array of `count` elements, whose bytes follow. */
void gguf_put_array(gguf_put *p, const char *key, gguf_kind kind, uint64_t count,
                    const byte_buffer *elements);

/* Used for array elements and tensor infos. */
void gguf_put_text(byte_buffer *bytes, const char *text);
void gguf_put_number(byte_buffer *bytes, uint64_t number, size_t size);

#endif
