/* The table of ggml's types. Numbers that are left out belonged to types that were removed. */
#include "gguf_types.h"

#include <stddef.h>

enum { QK_K = 256 };               /* values of a block of the K and IQ types */

static const gguf_type types[] = {
    { 0, "F32", 1, 4, CKPT_F32 },
    { 1, "F16", 1, 2, CKPT_F16 },
    { 2, "Q4_0", 32, 18, CKPT_NONE },
    { 3, "Q4_1", 32, 20, CKPT_NONE },
    { 6, "Q5_0", 32, 22, CKPT_NONE },
    { 7, "Q5_1", 32, 24, CKPT_NONE },
    { 8, "Q8_0", 32, 34, CKPT_NONE },
    { 9, "Q8_1", 32, 36, CKPT_NONE },
    { 10, "Q2_K", QK_K, 84, CKPT_NONE },
    { 11, "Q3_K", QK_K, 110, CKPT_NONE },
    { 12, "Q4_K", QK_K, 144, CKPT_NONE },
    { 13, "Q5_K", QK_K, 176, CKPT_NONE },
    { 14, "Q6_K", QK_K, 210, CKPT_NONE },
    { 15, "Q8_K", QK_K, 292, CKPT_NONE },
    { 16, "IQ2_XXS", QK_K, 66, CKPT_NONE },
    { 17, "IQ2_XS", QK_K, 74, CKPT_NONE },
    { 18, "IQ3_XXS", QK_K, 98, CKPT_NONE },
    { 19, "IQ1_S", QK_K, 50, CKPT_NONE },
    { 20, "IQ4_NL", 32, 18, CKPT_NONE },
    { 21, "IQ3_S", QK_K, 110, CKPT_NONE },
    { 22, "IQ2_S", QK_K, 82, CKPT_NONE },
    { 23, "IQ4_XS", QK_K, 136, CKPT_NONE },
    { 24, "I8", 1, 1, CKPT_I8 },
    { 25, "I16", 1, 2, CKPT_I16 },
    { 26, "I32", 1, 4, CKPT_I32 },
    { 27, "I64", 1, 8, CKPT_I64 },
    { 28, "F64", 1, 8, CKPT_F64 },
    { 29, "IQ1_M", QK_K, 56, CKPT_NONE },
    { 30, "BF16", 1, 2, CKPT_BF16 },
    { 34, "TQ1_0", QK_K, 54, CKPT_NONE },
    { 35, "TQ2_0", QK_K, 66, CKPT_NONE },
    { 39, "MXFP4", 32, 17, CKPT_NONE },
    { 40, "NVFP4", 64, 36, CKPT_NONE },
    { 41, "Q1_0", 128, 18, CKPT_NONE },
};

const gguf_type *gguf_type_find(uint32_t id)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].id == id)
            return &types[i];
    return NULL;
}

const gguf_type *gguf_type_of(ckpt_dtype dtype)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].dtype == dtype && dtype != CKPT_NONE)
            return &types[i];
    return NULL;
}
