/* The names and widths of element types, in the order of ckpt_dtype. */
#include "ckpt.h"

#include <string.h>

static const struct {
    const char *name;
    uint32_t bits;
} dtypes[CKPT_DTYPE_COUNT] = {
    [CKPT_NONE] = { "NONE", 0 },
    [CKPT_BOOL] = { "BOOL", 8 },
    [CKPT_F4] = { "F4", 4 },
    [CKPT_F6_E2M3] = { "F6_E2M3", 6 },
    [CKPT_F6_E3M2] = { "F6_E3M2", 6 },
    [CKPT_U8] = { "U8", 8 },
    [CKPT_I8] = { "I8", 8 },
    [CKPT_F8_E5M2] = { "F8_E5M2", 8 },
    [CKPT_F8_E4M3] = { "F8_E4M3", 8 },
    [CKPT_F8_E8M0] = { "F8_E8M0", 8 },
    [CKPT_F8_E4M3FNUZ] = { "F8_E4M3FNUZ", 8 },
    [CKPT_F8_E5M2FNUZ] = { "F8_E5M2FNUZ", 8 },
    [CKPT_I16] = { "I16", 16 },
    [CKPT_U16] = { "U16", 16 },
    [CKPT_F16] = { "F16", 16 },
    [CKPT_BF16] = { "BF16", 16 },
    [CKPT_I32] = { "I32", 32 },
    [CKPT_U32] = { "U32", 32 },
    [CKPT_F32] = { "F32", 32 },
    [CKPT_C64] = { "C64", 64 },
    [CKPT_F64] = { "F64", 64 },
    [CKPT_I64] = { "I64", 64 },
    [CKPT_U64] = { "U64", 64 },
    [CKPT_I4] = { "I4", 4 },
};

const char *ckpt_dtype_name(ckpt_dtype dtype)
{
    return dtypes[dtype].name;
}

ckpt_dtype ckpt_dtype_find(const char *name)
{
    for (int i = CKPT_NONE + 1; i < CKPT_DTYPE_COUNT; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return (ckpt_dtype)i;
    return CKPT_NONE;
}

uint32_t ckpt_dtype_bits(ckpt_dtype dtype)
{
    return dtypes[dtype].bits;
}
