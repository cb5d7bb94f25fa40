/* Writes keys. Little endian, as the machine is. */
#include "gguf_put.h"

#include <string.h>

void gguf_put_number(byte_buffer *bytes, uint64_t number, size_t size)
{
    byte_buffer_add(bytes, &number, size);
}

void gguf_put_text(byte_buffer *bytes, const char *text)
{
    const size_t size = strlen(text);

    gguf_put_number(bytes, size, sizeof(uint64_t));
    byte_buffer_add(bytes, text, size);
}

static void begin(gguf_put *p, const char *key, gguf_kind kind)
{
    gguf_put_text(&p->bytes, key);
    gguf_put_number(&p->bytes, kind, sizeof(uint32_t));
    p->count++;
}

void gguf_put_u32(gguf_put *p, const char *key, uint32_t number)
{
    begin(p, key, GGUF_U32);
    gguf_put_number(&p->bytes, number, sizeof number);
}

void gguf_put_u16(gguf_put *p, const char *key, uint16_t number)
{
    begin(p, key, GGUF_U16);
    gguf_put_number(&p->bytes, number, sizeof number);
}

void gguf_put_i32(gguf_put *p, const char *key, int32_t number)
{
    begin(p, key, GGUF_I32);
    gguf_put_number(&p->bytes, (uint32_t)number, sizeof number);
}

void gguf_put_f32(gguf_put *p, const char *key, float number)
{
    begin(p, key, GGUF_F32);
    byte_buffer_add(&p->bytes, &number, sizeof number);
}

void gguf_put_bool(gguf_put *p, const char *key, int flag)
{
    begin(p, key, GGUF_BOOL);
    gguf_put_number(&p->bytes, flag != 0, 1);
}

void gguf_put_string(gguf_put *p, const char *key, const char *text)
{
    begin(p, key, GGUF_STRING);
    gguf_put_text(&p->bytes, text);
}

void gguf_put_array(gguf_put *p, const char *key, gguf_kind kind, uint64_t count,
                    const byte_buffer *elements)
{
    begin(p, key, GGUF_ARRAY);
    gguf_put_number(&p->bytes, kind, sizeof(uint32_t));
    gguf_put_number(&p->bytes, count, sizeof count);
    byte_buffer_add(&p->bytes, elements->bytes, elements->used);
    p->bytes.failed |= elements->failed;
}
