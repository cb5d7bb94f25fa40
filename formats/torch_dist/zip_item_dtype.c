/* zip_item_dtype.c: torch's names of dtypes. */
#include <string.h>

#include "zip_item_private.h"

static const zip_item_dtype dtypes[] = {
    { CKPT_BOOL, "bool", "torch BoolStorage", 1 },
    { CKPT_F4, "float4_e2m1fn_x2", NULL, 1 },
    { CKPT_U8, "uint8", "torch ByteStorage", 1 },
    { CKPT_I8, "int8", "torch CharStorage", 1 },
    { CKPT_F8_E5M2, "float8_e5m2", NULL, 1 },
    { CKPT_F8_E4M3, "float8_e4m3fn", NULL, 1 },
    { CKPT_F8_E8M0, "float8_e8m0fnu", NULL, 1 },
    { CKPT_F8_E4M3FNUZ, "float8_e4m3fnuz", NULL, 1 },
    { CKPT_F8_E5M2FNUZ, "float8_e5m2fnuz", NULL, 1 },
    { CKPT_I16, "int16", "torch ShortStorage", 2 },
    { CKPT_U16, "uint16", NULL, 2 },
    { CKPT_F16, "float16", "torch HalfStorage", 2 },
    { CKPT_BF16, "bfloat16", "torch BFloat16Storage", 2 },
    { CKPT_I32, "int32", "torch IntStorage", 4 },
    { CKPT_U32, "uint32", NULL, 4 },
    { CKPT_F32, "float32", "torch FloatStorage", 4 },
    { CKPT_C64, "complex64", "torch ComplexFloatStorage", 8 },
    { CKPT_F64, "float64", "torch DoubleStorage", 8 },
    { CKPT_I64, "int64", "torch LongStorage", 8 },
    { CKPT_U64, "uint64", NULL, 8 },
    { CKPT_NONE, "complex128", "torch ComplexDoubleStorage", 16 },    /* not supported */
};

enum { DTYPE_COUNT = sizeof dtypes / sizeof dtypes[0] };

const zip_item_dtype *zip_item_dtype_of(ckpt_dtype dtype)
{
    for (size_t i = 0; i < DTYPE_COUNT; i++)
        if (dtypes[i].dtype == dtype && dtype != CKPT_NONE)
            return &dtypes[i];
    return NULL;
}

const zip_item_dtype *zip_item_dtype_named(const char *name)
{
    for (size_t i = 0; i < DTYPE_COUNT; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    return NULL;
}

const zip_item_dtype *zip_item_dtype_stored(const char *storage)
{
    for (size_t i = 0; i < DTYPE_COUNT; i++)
        if (dtypes[i].storage != NULL && strcmp(dtypes[i].storage, storage) == 0)
            return &dtypes[i];
    return NULL;
}

const char *zip_item_dtype_name(ckpt_dtype dtype)
{
    const zip_item_dtype *d = zip_item_dtype_of(dtype);

    return d == NULL ? NULL : d->name;
}

ckpt_dtype zip_item_dtype_find(const char *name)
{
    const zip_item_dtype *d = zip_item_dtype_named(name);

    return d == NULL ? CKPT_NONE : d->dtype;
}

uint32_t zip_item_element_bytes(ckpt_dtype dtype)
{
    const zip_item_dtype *d = zip_item_dtype_of(dtype);

    return d == NULL ? 0 : d->element_bytes;
}
