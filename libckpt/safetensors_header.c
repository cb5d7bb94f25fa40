/* Writes the header: length, JSON, and blanks for alignment. */
#include "safetensors_header.h"

#include <stdlib.h>

enum { ALIGNMENT = 8 };

void safetensors_header_begin(safetensors_header *h)
{
    static const char zeros[SAFETENSORS_LENGTH_BYTES];

    h->bytes = (byte_buffer){ .bytes = NULL };
    byte_buffer_add(&h->bytes, zeros, sizeof zeros);
    json_writer_begin(&h->json, byte_buffer_write, &h->bytes, 0);
    json_put_object(&h->json);
}

void safetensors_header_put(safetensors_header *h, const char *name, const ckpt_tensor *tensor,
                            uint64_t begin)
{
    json_writer *w = &h->json;

    json_member_object(w, name);
    json_member_string(w, "dtype", ckpt_dtype_name(tensor->dtype));
    catalog_put_shape(w, tensor);
    json_member_array(w, "data_offsets");
    json_put_u64(w, begin);
    json_put_u64(w, begin + ckpt_part_bytes(tensor, CKPT_DATA));
    json_put_array_end(w);
    json_put_object_end(w);
}

ckpt_code safetensors_header_end(safetensors_header *h, char **out, size_t *size,
                                 ckpt_error *err)
{
    static const char blanks[ALIGNMENT] = "        ";
    byte_buffer *b = &h->bytes;

    json_put_object_end(&h->json);
    byte_buffer_add(b, blanks, (ALIGNMENT - b->used % ALIGNMENT) % ALIGNMENT);
    if (!json_writer_end(&h->json) || b->failed) {
        const ckpt_code code = ckpt_fail_memory(err, "a header", b->capacity);

        safetensors_header_drop(h);
        return code;
    }
    for (int i = 0; i < SAFETENSORS_LENGTH_BYTES; i++)
        b->bytes[i] = (char)((b->used - SAFETENSORS_LENGTH_BYTES) >> 8 * i);
    *out = b->bytes;
    *size = b->used;
    return CKPT_OK;
}

void safetensors_header_drop(safetensors_header *h)
{
    free(h->bytes.bytes);
}
