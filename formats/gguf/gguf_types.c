/* The table of ggml's types. Numbers that are left out belonged to types that were removed. */
#include "gguf_types.h"

#include <stddef.h>
#include <string.h>

enum { QK_K = 256 };               /* values of a block of the K and IQ types */

#define PLAIN(dtype) dtype, CKPT_FORM_APART
#define BLOCKS(form) CKPT_NONE, form
#define CODES CKPT_NONE, CKPT_FORM_APART

static const gguf_type types[] = {
    { 0, "F32", 1, 4, PLAIN(CKPT_F32) },
    { 1, "F16", 1, 2, PLAIN(CKPT_F16) },
    { 2, "Q4_0", 32, 18, CODES },
    { 3, "Q4_1", 32, 20, CODES },
    { 6, "Q5_0", 32, 22, CODES },
    { 7, "Q5_1", 32, 24, CODES },
    { 8, "Q8_0", 32, 34, BLOCKS(CKPT_FORM_Q8_0) },
    { 9, "Q8_1", 32, 36, CODES },
    { 10, "Q2_K", QK_K, 84, CODES },
    { 11, "Q3_K", QK_K, 110, CODES },
    { 12, "Q4_K", QK_K, 144, CODES },
    { 13, "Q5_K", QK_K, 176, CODES },
    { 14, "Q6_K", QK_K, 210, CODES },
    { 15, "Q8_K", QK_K, 292, CODES },
    { 16, "IQ2_XXS", QK_K, 66, CODES },
    { 17, "IQ2_XS", QK_K, 74, CODES },
    { 18, "IQ3_XXS", QK_K, 98, CODES },
    { 19, "IQ1_S", QK_K, 50, CODES },
    { 20, "IQ4_NL", 32, 18, CODES },
    { 21, "IQ3_S", QK_K, 110, CODES },
    { 22, "IQ2_S", QK_K, 82, CODES },
    { 23, "IQ4_XS", QK_K, 136, CODES },
    { 24, "I8", 1, 1, PLAIN(CKPT_I8) },
    { 25, "I16", 1, 2, PLAIN(CKPT_I16) },
    { 26, "I32", 1, 4, PLAIN(CKPT_I32) },
    { 27, "I64", 1, 8, PLAIN(CKPT_I64) },
    { 28, "F64", 1, 8, PLAIN(CKPT_F64) },
    { 29, "IQ1_M", QK_K, 56, CODES },
    { 30, "BF16", 1, 2, PLAIN(CKPT_BF16) },
    { 34, "TQ1_0", QK_K, 54, CODES },
    { 35, "TQ2_0", QK_K, 66, CODES },
    { 39, "MXFP4", 32, 17, BLOCKS(CKPT_FORM_MXFP4) },
    { 40, "NVFP4", 64, 36, BLOCKS(CKPT_FORM_NVFP4) },
    { 41, "Q1_0", 128, 18, CODES },
};

const gguf_type *gguf_type_find(uint32_t id)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].id == id)
            return &types[i];
    return NULL;
}

const gguf_type *gguf_type_of(const ckpt_tensor *stored)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const gguf_type *t = &types[i];

        if (stored->codes_name != NULL          ? strcmp(stored->codes_name, t->name) == 0
            : stored->scale_dtype != CKPT_NONE ? t->form != CKPT_FORM_APART &&
                                                     stored->stored_form == t->form
                                               : t->dtype == stored->dtype && t->dtype != CKPT_NONE)
            return t;
    }
    return NULL;
}
