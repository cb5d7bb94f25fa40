/*
 * gguf_types.h: the element types of tensors in GGUF files, as ggml numbers and names them.
 *
 * Elements of a row are stored in blocks: `block_bytes` for `block_values`; rows are whole blocks.
 */
#ifndef CKPT_GGUF_TYPES_H
#define CKPT_GGUF_TYPES_H

#include "libckpt/ckpt.h"

typedef struct {
    uint32_t id;
    const char *name;              /* "Q4_K" */
    uint32_t block_values;
    uint32_t block_bytes;
    ckpt_dtype dtype;              /* of plain elements; CKPT_NONE: blocks of codes */
    ckpt_stored_form form;         /* of blocks that we decode; CKPT_FORM_APART: not decoded */
} gguf_type;

/* The type of this number; NULL: unknown, or removed from ggml. */
const gguf_type *gguf_type_find(uint32_t id);

/* The GGUF type for a stored tensor; NULL: none. */
const gguf_type *gguf_type_of(const ckpt_tensor *stored);

#endif
