/*
 * hash_rows.c: the digest of block-scaled rows: decode unit by unit with the functions of a set,
 * then hash. The vector sets use it for the units that their own unit hashes do not handle.
 */
#include "internal.h"

/* Every product of an E2M1 and an E8M0 code is exact in BF16. */
hash128 digest_decoded_fp4(const ckpt_kernels *k, const uint8_t *packed, const uint8_t *scale,
                           size_t cols, uint64_t first_unit)
{
    hash128 sum = { 0, 0 };
    _Alignas(64) uint16_t unit[HASH_UNIT_COLUMNS];

    for (size_t begin = 0; begin < cols; begin += HASH_UNIT_COLUMNS) {
        const size_t count = size_min(cols - begin, HASH_UNIT_COLUMNS);

        k->fp4_row_to_bf16(packed + begin / 2, scale + begin / FP4_GROUP, count, unit);
        k->digest_row_bf16(unit, count, first_unit++, &sum);
    }
    return sum;
}

static int scales_keep_bf16(const float *scale, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const int code = e8m0_exact(f32_load(scale, i));

        if (code < FP8_BF16_LOW || code > FP8_BF16_HIGH)
            return 0;
    }
    return 1;
}

hash128 digest_decoded_fp8(const ckpt_kernels *k, const uint8_t *codes, const float *scale,
                           size_t cols, uint64_t first_unit)
{
    hash128 sum = { 0, 0 };
    _Alignas(64) float wide[HASH_UNIT_COLUMNS];
    _Alignas(64) uint16_t narrow[HASH_UNIT_COLUMNS];

    for (size_t begin = 0; begin < cols; begin += HASH_UNIT_COLUMNS) {
        const size_t count = size_min(cols - begin, HASH_UNIT_COLUMNS);
        const float *scales = scale + begin / FP8_BLOCK;

        if (scales_keep_bf16(scales, (count + FP8_BLOCK - 1) / FP8_BLOCK)) {
            k->fp8_row_to_bf16(codes + begin, scales, count, narrow);
            k->digest_row_bf16(narrow, count, first_unit++, &sum);
        } else {
            k->fp8_row_to_f32(codes + begin, scales, count, wide);
            k->digest_row_f32(wide, count, first_unit++, &sum);
        }
    }
    return sum;
}
