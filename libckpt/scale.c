/* Decoding, encoding and bounds of scales. */
#include "scale.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

void scale_row_f32(const ckpt_kernels *k, ckpt_dtype dtype, const void *scales, uint64_t count,
               float *out)
{
    switch (dtype) {
    case CKPT_F8_E8M0:
        k->e8m0_to_f32(scales, out, count);
        break;
    case CKPT_F8_E4M3:
        k->e4m3_to_f32(scales, out, count);
        break;
    case CKPT_F16:
        k->f16_to_f32(scales, out, count);
        break;
    case CKPT_BF16:
        k->bf16_to_f32(scales, out, count);
        break;
    default:
        assert(dtype == CKPT_F32);
        memcpy(out, scales, count * sizeof *out);
        break;
    }
}

float scale_get(const ckpt_kernels *k, ckpt_dtype dtype, const void *scales, uint64_t i)
{
    float value;

    scale_row_f32(k, dtype, (const uint8_t *)scales + i * ckpt_dtype_bits(dtype) / 8, 1, &value);
    return value;
}

float scale_largest(ckpt_dtype dtype)
{
    switch (dtype) {
    case CKPT_F8_E8M0:
        return 0x1p127f;
    case CKPT_F8_E4M3:
        return 448;
    case CKPT_F16:
        return 65504;
    default:
        return FLT_MAX;
    }
}

float scale_whole(ckpt_tensor_scale what, float product, float tensor_scale)
{
    switch (what) {
    case CKPT_TENSOR_SCALE_FACTOR:
        return product * tensor_scale;
    case CKPT_TENSOR_SCALE_DIVISOR:
        return product / tensor_scale;
    default:
        return product;
    }
}

int scale_is_fit(float scale)
{
    return isfinite(scale) && scale > 0;
}

int scale_put(const ckpt_kernels *k, ckpt_dtype dtype, uint8_t *row, uint64_t i, float scale)
{
    uint16_t half;
    float back;

    if (dtype == CKPT_F8_E8M0) {
        const int code = e8m0_from_f32_exact(scale);

        row[i] = (uint8_t)code;
        return code >= 0;
    }
    if (dtype == CKPT_F32) {
        memcpy(row + 4 * i, &scale, sizeof scale);
        return 1;
    }
    if (dtype == CKPT_F8_E4M3) {
        k->f32_to_e4m3(&scale, &row[i], 1);
        k->e4m3_to_f32(&row[i], &back, 1);
        return memcmp(&back, &scale, sizeof scale) == 0;
    }
    if (dtype == CKPT_F16) {
        k->f32_to_f16(&scale, &half, 1);
        k->f16_to_f32(&half, &back, 1);
    } else {
        k->f32_to_bf16(&scale, &half, 1);
        k->bf16_to_f32(&half, &back, 1);
    }
    memcpy(row + 2 * i, &half, sizeof half);
    return memcmp(&back, &scale, sizeof scale) == 0;
}

/* Tests many codes at a time. */
int scale_e8m0_within(const uint8_t *codes, uint64_t count, uint8_t low, uint8_t high)
{
    typedef uint8_t codes16 __attribute__((vector_size(16)));
    codes16 outside = { 0 };
    uint8_t seen = 0;
    uint64_t i = 0;

    for (; i + sizeof outside <= count; i += sizeof outside) {
        codes16 some;

        memcpy(&some, codes + i, sizeof some);
        outside |= (codes16)((some < low) | (some > high));
    }
    for (size_t k = 0; k < sizeof outside; k++)
        seen |= outside[k];
    for (; i < count; i++)
        seen |= codes[i] < low || codes[i] > high;
    return seen == 0;
}
