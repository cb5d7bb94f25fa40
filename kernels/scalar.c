/*
 * scalar.c: the definition of every kernel, written to be read. The vector sets must return the
 * same bits and are tested against this file.
 */
#include "internal.h"

/* Pointers need not be aligned, so elements are loaded and stored bytewise. */
static uint16_t load_u16(const void *base, size_t i)
{
    uint16_t value;

    memcpy(&value, (const unsigned char *)base + i * sizeof value, sizeof value);
    return value;
}

static uint32_t load_u32(const void *base, size_t i)
{
    uint32_t value;

    memcpy(&value, (const unsigned char *)base + i * sizeof value, sizeof value);
    return value;
}

static float load_f32(const void *base, size_t i)
{
    return f32_from_bits(load_u32(base, i));
}

static void store_u16(void *base, size_t i, uint32_t value)
{
    const uint16_t narrow = (uint16_t)value;

    memcpy((unsigned char *)base + i * sizeof narrow, &narrow, sizeof narrow);
}

static void store_f32(void *base, size_t i, float value)
{
    memcpy((unsigned char *)base + i * sizeof value, &value, sizeof value);
}

/* ---- one element ---------------------------------------------------------------------------
 * The magnitude of a small float is its exponent field, then `mantissa_bits` bits. As integers,
 * magnitudes have the order of their values. So rebiasing is an addition, and a carry out of the
 * mantissa in rounding correctly increments the exponent.
 */

/* The value of a finite magnitude code. A subnormal is its code times the smallest one: exact. */
static float small_to_f32(uint32_t code, unsigned mantissa_bits, unsigned bias)
{
    const uint32_t rebias = (127 - bias) << 23;

    if (code >> mantissa_bits == 0)
        return (float)code * f32_from_bits((128 - bias - mantissa_bits) << 23);
    return f32_from_bits((code << (23 - mantissa_bits)) + rebias);
}

static uint32_t shift_right_even(uint32_t value, unsigned shift)
{
    const uint32_t half = 1u << (shift - 1);

    return (value + half - 1 + ((value >> shift) & 1)) >> shift;
}

/* Round a finite F32 magnitude to nearest even; overflow gives codes beyond the format's range. */
static uint32_t f32_to_small(uint32_t magnitude, unsigned mantissa_bits, unsigned bias)
{
    const uint32_t exponent = magnitude >> 23;
    const uint32_t smallest_normal = 128 - bias;
    const unsigned shift = 23 - mantissa_bits;
    unsigned subnormal_shift;

    if (exponent >= smallest_normal)
        return shift_right_even(magnitude - ((127 - bias) << 23), shift);
    subnormal_shift = shift + smallest_normal - exponent;
    if (subnormal_shift > 24)       /* less than half of the smallest subnormal */
        return 0;
    return shift_right_even((magnitude & 0x7FFFFFu) | 0x800000u, subnormal_shift);
}

static float e4m3_value(uint8_t code)
{
    const uint32_t sign = (uint32_t)(code & 0x80) << 24;
    const uint32_t magnitude = code & 0x7F;

    if (magnitude == E4M3_NAN)
        return f32_from_bits(sign | F32_NAN_BITS);
    return f32_from_bits(sign | f32_bits(small_to_f32(magnitude, 3, 7)));
}

static float e5m2_value(uint8_t code)
{
    const uint32_t sign = (uint32_t)(code & 0x80) << 24;
    const uint32_t magnitude = code & 0x7F;

    if (magnitude > 0x7C)
        return f32_from_bits(sign | F32_NAN_BITS);
    if (magnitude == 0x7C)
        return f32_from_bits(sign | F32_INF_BITS);
    return f32_from_bits(sign | f32_bits(small_to_f32(magnitude, 2, 15)));
}

static float e2m1_value(unsigned code)
{
    const uint32_t sign = (uint32_t)(code & 8) << 28;

    return f32_from_bits(sign | f32_bits(small_to_f32(code & 7, 1, 1)));
}

static float f16_value(uint16_t code)
{
    const uint32_t sign = (uint32_t)(code & 0x8000) << 16;
    const uint32_t magnitude = code & 0x7FFF;

    if (magnitude > 0x7C00)
        return f32_from_bits(sign | F32_NAN_BITS | (magnitude & 0x3FF) << 13);
    if (magnitude == 0x7C00)
        return f32_from_bits(sign | F32_INF_BITS);
    return f32_from_bits(sign | f32_bits(small_to_f32(magnitude, 10, 15)));
}

static uint32_t bf16_from_f32(float value)
{
    const uint32_t bits = f32_bits(value);

    if ((bits & ~F32_SIGN_BIT) > F32_INF_BITS)
        return BF16_NAN;
    return shift_right_even(bits, 16);
}

static uint32_t f16_from_f32(float value)
{
    const uint32_t bits = f32_bits(value);
    const uint32_t sign = bits >> 31 << 15;
    const uint32_t magnitude = bits & ~F32_SIGN_BIT;

    if (magnitude > F32_INF_BITS)
        return sign | 0x7E00 | (magnitude >> 13 & 0x3FF);
    if (magnitude >= 0x47800000u)       /* 2^16 */
        return sign | 0x7C00;
    return sign | f32_to_small(magnitude, 10, 15);
}

static uint8_t e4m3_from_f32(float value)
{
    const uint32_t bits = f32_bits(value);
    const uint32_t sign = bits >> 31 << 7;
    const uint32_t magnitude = bits & ~F32_SIGN_BIT;

    if (magnitude > f32_bits(464.0f))   /* 464 is the tie between 448 and the absent 480 */
        return (uint8_t)(sign | E4M3_NAN);
    return (uint8_t)(sign | f32_to_small(magnitude, 3, 7));
}

static uint8_t e5m2_from_f32(float value)
{
    const uint32_t bits = f32_bits(value);
    const uint32_t sign = bits >> 31 << 7;
    const uint32_t magnitude = bits & ~F32_SIGN_BIT;

    if (magnitude > F32_INF_BITS)
        return (uint8_t)(sign | 0x7F);
    if (magnitude >= 0x47800000u)       /* 2^16 */
        return (uint8_t)(sign | 0x7C);
    return (uint8_t)(sign | f32_to_small(magnitude, 2, 15));
}

/* torch's rule: a mantissa of 1.5 or more rounds up; below 2^-126, only values above 2^-127 do. */
static uint8_t e8m0_from_f32(float value)
{
    const uint32_t bits = f32_bits(value);
    const uint32_t exponent = bits >> 23 & 0xFF;
    const int half_or_more = (bits & 0x400000u) != 0;
    const int more_than_half = (bits & 0x3FFFFFu) != 0;

    if (exponent == 255)
        return E8M0_NAN;
    return (uint8_t)(exponent + (half_or_more && (more_than_half || exponent > 0)));
}

static unsigned e2m1_from_f32(float value)
{
    const uint32_t bits = f32_bits(value);
    const uint32_t sign = bits >> 31 << 3;
    const uint32_t magnitude = bits & ~F32_SIGN_BIT;

    if (magnitude > F32_INF_BITS)
        return 7;
    if (magnitude >= f32_bits(6.0f))
        return sign | 7;
    return sign | f32_to_small(magnitude, 1, 1);
}

/* The bits of a NaN product depend on the machine and the operand order, so fix them. */
static float f32_product(float a, float b)
{
    const float product = a * b;

    return product != product ? f32_from_bits(F32_NAN_BITS) : product;
}

/* Code i of a packed row: the low nibble is the even column. */
static unsigned fp4_code(const uint8_t *packed, size_t i)
{
    return (unsigned)packed[i / 2] >> (i % 2 * 4) & 15;
}

/* ---- element codecs ---- */

static void e4m3_to_f32(const uint8_t *src, float *dst, size_t count)
{
    for (size_t i = 0; i < count; i++)
        store_f32(dst, i, e4m3_value(src[i]));
}

static void e5m2_to_f32(const uint8_t *src, float *dst, size_t count)
{
    for (size_t i = 0; i < count; i++)
        store_f32(dst, i, e5m2_value(src[i]));
}

static void e8m0_to_f32(const uint8_t *src, float *dst, size_t count)
{
    for (size_t i = 0; i < count; i++)
        store_f32(dst, i, e8m0_value(src[i]));
}

static void e2m1_to_f32(const uint8_t *packed, float *dst, size_t count)
{
    for (size_t i = 0; i < count; i++)
        store_f32(dst, i, e2m1_value(fp4_code(packed, i)));
}

/* bf16 is the top half of an f32, so widening is exact: NaN payloads and -0 survive. */
static void bf16_to_f32(const uint16_t *src, float *dst, size_t count)
{
    for (size_t i = 0; i < count; i++)
        store_f32(dst, i, f32_from_bits((uint32_t)load_u16(src, i) << 16));
}

static void f16_to_f32(const uint16_t *src, float *dst, size_t count)
{
    for (size_t i = 0; i < count; i++)
        store_f32(dst, i, f16_value(load_u16(src, i)));
}

static void f32_to_bf16(const float *src, uint16_t *dst, size_t count)
{
    for (size_t i = 0; i < count; i++)
        store_u16(dst, i, bf16_from_f32(load_f32(src, i)));
}

static void f32_to_f16(const float *src, uint16_t *dst, size_t count)
{
    for (size_t i = 0; i < count; i++)
        store_u16(dst, i, f16_from_f32(load_f32(src, i)));
}

static void f32_to_e4m3(const float *src, uint8_t *dst, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = e4m3_from_f32(load_f32(src, i));
}

static void f32_to_e5m2(const float *src, uint8_t *dst, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = e5m2_from_f32(load_f32(src, i));
}

static void f32_to_e8m0(const float *src, uint8_t *dst, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = e8m0_from_f32(load_f32(src, i));
}

static void f32_to_e2m1(const float *src, uint8_t *packed, size_t count)
{
    for (size_t i = 0; i < count; i += 2)
        packed[i / 2] = (uint8_t)(e2m1_from_f32(load_f32(src, i)) |
                                  e2m1_from_f32(load_f32(src, i + 1)) << 4);
}

/* ---- dequantise ---- */

static void fp8_row_to_f32(const uint8_t *codes, const float *scale, size_t cols, float *dst)
{
    for (size_t c = 0; c < cols; c++)
        store_f32(dst, c, f32_product(e4m3_value(codes[c]), load_f32(scale, c / FP8_BLOCK)));
}

static void fp8_row_to_bf16(const uint8_t *codes, const float *scale, size_t cols, uint16_t *dst)
{
    for (size_t c = 0; c < cols; c++)
        store_u16(dst, c, bf16_from_f32(e4m3_value(codes[c]) * load_f32(scale, c / FP8_BLOCK)));
}

static void fp4_row_to_f32(const uint8_t *packed, const uint8_t *scale, size_t cols, float *dst)
{
    for (size_t c = 0; c < cols; c++)
        store_f32(dst, c, f32_product(e2m1_value(fp4_code(packed, c)),
                                      e8m0_value(scale[c / FP4_GROUP])));
}

static void fp4_row_to_bf16(const uint8_t *packed, const uint8_t *scale, size_t cols,
                            uint16_t *dst)
{
    for (size_t c = 0; c < cols; c++)
        store_u16(dst, c, bf16_from_f32(e2m1_value(fp4_code(packed, c)) *
                                        e8m0_value(scale[c / FP4_GROUP])));
}

static void int4_row_to_f32(const uint8_t *packed, const uint16_t *scale, size_t cols, float *dst)
{
    for (size_t c = 0; c < cols; c++) {
        const float factor = bf16_at(scale, c / INT4_GROUP);

        store_f32(dst, c, f32_product((float)((int)fp4_code(packed, c) - 8), factor));
    }
}

static void nvfp4_row_to_f32(const uint8_t *packed, const float *scale, float factor, size_t cols,
                             float *dst)
{
    for (size_t c = 0; c < cols; c++)
        store_f32(dst, c, f32_product(e2m1_value(fp4_code(packed, c)) *
                                      load_f32(scale, c / NVFP4_GROUP), factor));
}

/* ---- re-encode ---- */

static void fp4_group_masks(const uint8_t *packed, size_t group_count, uint8_t *masks)
{
    for (size_t g = 0; g < group_count; g++) {
        unsigned mask = 0;

        for (size_t i = 0; i < FP4_GROUP; i++)
            mask |= 1u << (fp4_code(packed, g * FP4_GROUP + i) & 7);
        masks[g] = (uint8_t)mask;
    }
}

/* From distance 19 on even code 7 is below half of the smallest subnormal, 6 * 2^(6 - distance) <
 * 2^-10, so larger distances give the same codes. */
static void fp4_row_to_fp8(const uint8_t *packed, const uint8_t *distance, size_t cols,
                           int positive_zero, uint8_t *codes)
{
    for (size_t c = 0; c < cols; c++) {
        const unsigned code = fp4_code(packed, c);
        const uint32_t d = (uint32_t)size_min(distance[c / FP4_GROUP], FP4_DISTANCE_COUNT);
        const float factor = f32_from_bits((127 + 6 - d) << 23);

        codes[c] = e4m3_from_f32(e2m1_value(code) * factor);
        if (positive_zero && code == 8)
            codes[c] = 0;
    }
}

/* ---- quantise ---- */

/* Compares bits as integers: that is the order of magnitudes, with NaN above every number. */
static float f32_block_amax(const float *src, size_t rows, size_t cols, size_t pitch)
{
    uint32_t largest = 0;

    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            const uint32_t magnitude = load_u32(src, r * pitch + c) & ~F32_SIGN_BIT;

            largest = magnitude > largest ? magnitude : largest;
        }
    return f32_from_bits(largest > F32_INF_BITS ? F32_NAN_BITS : largest);
}

/* Count an element whose code does not decode to the source bits. NaN is always counted. */
static void encode_result_note(encode_result *result, float source, float decoded, uint64_t index)
{
    if (source == source && f32_bits(decoded) == f32_bits(source))
        return;
    if (result->inexact_count++ == 0)
        result->first_inexact = index;
}

static encode_result f32_block_to_fp8(const float *src, size_t rows, size_t cols, size_t pitch,
                                      float scale, uint8_t *codes, size_t codes_pitch)
{
    encode_result result = { 0, 0 };

    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            const float x = load_f32(src, r * pitch + c);
            const float q = x / scale;
            uint8_t code = E4M3_NAN;

            if (q == q)
                code = e4m3_from_f32(q > 448.0f ? 448.0f : q < -448.0f ? -448.0f : q);
            codes[r * codes_pitch + c] = code;
            encode_result_note(&result, x, e4m3_value(code) * scale, r * cols + c);
        }
    return result;
}

static encode_result f32_row_to_fp4(const float *src, const uint8_t *scale, size_t cols,
                                    uint8_t *packed)
{
    encode_result result = { 0, 0 };
    unsigned pair[2] = { 0, 0 };

    for (size_t c = 0; c < cols; c++) {
        const float x = load_f32(src, c);
        const float s = e8m0_value(scale[c / FP4_GROUP]);
        const unsigned code = e2m1_from_f32(x / s);     /* saturating, so no clamp */

        pair[c % 2] = code;
        if (c % 2 == 1)
            packed[c / 2] = (uint8_t)(pair[0] | pair[1] << 4);
        encode_result_note(&result, x, e2m1_value(code) * s, c);
    }
    return result;
}

/* ---- digest ---- */

static void digest_row_bf16(const uint16_t *src, size_t cols, uint64_t first_unit, hash128 *sum)
{
    uint16_t canonical[HASH_UNIT_COLUMNS];

    for (size_t begin = 0; begin < cols; begin += HASH_UNIT_COLUMNS) {
        const size_t count = size_min(cols - begin, HASH_UNIT_COLUMNS);

        for (size_t i = 0; i < count; i++) {
            const uint16_t bits = load_u16(src, begin + i);
            const int is_nan = (bits & 0x7FFF) > 0x7F80;

            canonical[i] = is_nan ? BF16_NAN : bits == 0x8000 ? 0 : bits;
        }
        hash128_add(sum, hash_bytes_scalar(canonical, count * sizeof canonical[0],
                                           first_unit + begin / HASH_UNIT_COLUMNS));
    }
}

/* A canonical F32 is exact in BF16 if its low 16 bits are zero, also for NaN and subnormals. */
static void digest_row_f32(const float *src, size_t cols, uint64_t first_unit, hash128 *sum)
{
    uint32_t canonical[HASH_UNIT_COLUMNS];
    uint16_t narrow[HASH_UNIT_COLUMNS];

    for (size_t begin = 0; begin < cols; begin += HASH_UNIT_COLUMNS) {
        const size_t count = size_min(cols - begin, HASH_UNIT_COLUMNS);
        const uint64_t seed = first_unit + begin / HASH_UNIT_COLUMNS;
        uint32_t low_halves = 0;

        for (size_t i = 0; i < count; i++) {
            const uint32_t bits = load_u32(src, begin + i);
            const int is_nan = (bits & ~F32_SIGN_BIT) > F32_INF_BITS;

            canonical[i] = is_nan ? F32_NAN_BITS : bits == F32_SIGN_BIT ? 0 : bits;
            narrow[i] = (uint16_t)(canonical[i] >> 16);
            low_halves |= canonical[i] & 0xFFFF;
        }
        if (low_halves == 0)
            hash128_add(sum, hash_bytes_scalar(narrow, count * sizeof narrow[0], seed));
        else
            hash128_add(sum, hash_bytes_scalar(canonical, count * sizeof canonical[0], seed));
    }
}

static void digest_row_fp8(const uint8_t *codes, const float *scale, size_t cols,
                           uint64_t first_unit, hash128 *sum)
{
    float unit[HASH_UNIT_COLUMNS];

    for (size_t begin = 0; begin < cols; begin += HASH_UNIT_COLUMNS) {
        const size_t count = size_min(cols - begin, HASH_UNIT_COLUMNS);

        fp8_row_to_f32(codes + begin, scale + begin / FP8_BLOCK, count, unit);
        digest_row_f32(unit, count, first_unit++, sum);
    }
}

static void digest_row_fp4(const uint8_t *packed, const uint8_t *scale, size_t cols,
                           uint64_t first_unit, hash128 *sum)
{
    float unit[HASH_UNIT_COLUMNS];

    for (size_t begin = 0; begin < cols; begin += HASH_UNIT_COLUMNS) {
        const size_t count = size_min(cols - begin, HASH_UNIT_COLUMNS);

        fp4_row_to_f32(packed + begin / 2, scale + begin / FP4_GROUP, count, unit);
        digest_row_f32(unit, count, first_unit++, sum);
    }
}

static void fp4_row_counts(const uint8_t *packed, const uint8_t *scale, size_t cols,
                           fp4_counts *counts)
{
    static const uint8_t squares[] = { 0, 1, 4, 9, 16, 36, 64, 144 };

    for (size_t c = 0; c < cols; c++) {
        const unsigned magnitude = fp4_code(packed, c) & 7;

        counts->zeros += magnitude == 0;
        counts->largest += magnitude == 7;
        counts->squares[scale[c / FP4_GROUP]] += squares[magnitude];
    }
}

static void nonzero_marks(const void *src, size_t size, uint64_t *marks)
{
    const uint8_t *bytes = src;

    for (size_t i = 0; i < size; i++) {
        if (i % 64 == 0)
            marks[i / 64] = 0;
        marks[i / 64] |= (uint64_t)(bytes[i] != 0) << i % 64;
    }
}

static size_t mark_positions(const uint64_t *marks, uint32_t first, uint32_t *positions)
{
    size_t count = 0;

    for (uint32_t word = 0; word < MARK_WORDS; word++)
        for (uint64_t left = marks[word]; left != 0; left &= left - 1)
            positions[count++] = first + 64 * word + (uint32_t)__builtin_ctzll(left);
    return count;
}

static void xor_marks(void *into, const void *from, size_t size, unsigned element_bytes,
                      xor_found *out)
{
    uint8_t *a = into;
    const uint8_t *b = from;

    for (size_t i = 0; i < size; i++)
        a[i] = (uint8_t)(a[i] ^ b[i]);
    nonzero_marks(a, size, out->marks);
    for (size_t i = 0; i < (size + 63) / 64; i++) {
        uint64_t elements = element_marks(out->marks[i], element_bytes);

        for (uint64_t bytes = out->marks[i]; bytes != 0; bytes &= bytes - 1)
            out->byte_count++;
        for (; elements != 0; elements &= elements - 1)
            out->element_count++;
    }
}

const ckpt_kernels kernels_scalar = {
    .name = "scalar",
    .e4m3_to_f32 = e4m3_to_f32,
    .e5m2_to_f32 = e5m2_to_f32,
    .e8m0_to_f32 = e8m0_to_f32,
    .e2m1_to_f32 = e2m1_to_f32,
    .bf16_to_f32 = bf16_to_f32,
    .f16_to_f32 = f16_to_f32,
    .f32_to_bf16 = f32_to_bf16,
    .f32_to_f16 = f32_to_f16,
    .f32_to_e4m3 = f32_to_e4m3,
    .f32_to_e5m2 = f32_to_e5m2,
    .f32_to_e8m0 = f32_to_e8m0,
    .f32_to_e2m1 = f32_to_e2m1,
    .fp8_row_to_bf16 = fp8_row_to_bf16,
    .fp8_row_to_f32 = fp8_row_to_f32,
    .fp4_row_to_bf16 = fp4_row_to_bf16,
    .fp4_row_to_f32 = fp4_row_to_f32,
    .int4_row_to_f32 = int4_row_to_f32,
    .nvfp4_row_to_f32 = nvfp4_row_to_f32,
    .fp4_group_masks = fp4_group_masks,
    .fp4_row_to_fp8 = fp4_row_to_fp8,
    .f32_block_amax = f32_block_amax,
    .f32_block_to_fp8 = f32_block_to_fp8,
    .f32_row_to_fp4 = f32_row_to_fp4,
    .f32_group_amax = f32_group_amax_scalar,
    .bf16_block_amax = bf16_block_amax_scalar,
    .bf16_group_amax = bf16_group_amax_scalar,
    .amax_to_scale = amax_to_scale_scalar,
    .quantise_e4m3 = quantise_e4m3_scalar,
    .quantise_e2m1 = quantise_e2m1_scalar,
    .quantise_int8 = quantise_int8_scalar,
    .fp4_group_scale_exact = fp4_group_scale_exact_scalar,
    .digest_row_bf16 = digest_row_bf16,
    .digest_row_f32 = digest_row_f32,
    .digest_row_fp8 = digest_row_fp8,
    .digest_row_fp4 = digest_row_fp4,
    .digest_row_i64 = digest_row_i64_scalar,
    .f32_row_statistics = f32_row_statistics_scalar,
    .f32_row_squares = f32_row_squares_scalar,
    .f32_row_difference = f32_row_difference_scalar,
    .f32_row_distances = f32_row_distances_scalar,
    .fp4_row_counts = fp4_row_counts,
    .nonzero_marks = nonzero_marks,
    .mark_positions = mark_positions,
    .xor_marks = xor_marks,
    .hash_bytes = hash_bytes_scalar,
    .hash_begin = hash_begin_scalar,
    .hash_add = hash_add_scalar,
    .hash_end = hash_end_scalar,
};
