/* Rows of each encoding, decoded by the kernels. */
#include "encoding_rows.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "scale.h"
#include "size.h"
#include "values.h"

static const uint8_t *data_row(const values_reader *r, uint64_t row)
{
    return (const uint8_t *)r->tile->part[CKPT_DATA] + row * r->row_bytes;
}

static const uint8_t *scale_row_at(const values_reader *r, uint64_t row)
{
    return (const uint8_t *)r->tile->part[CKPT_SCALE] +
           row / r->tensor->block_rows * r->scale_row_bytes;
}

/* ---- the digest by way of F32, for encodings without a faster kernel ---- */

static void f32_digest(values_reader *r, uint64_t row, uint64_t first_unit, void *row_buffer,
                       hash128 *sum)
{
    r->encoding->rows->f32(r, row, 0, r->cols, row_buffer);
    r->kernels->digest_row_f32(row_buffer, r->cols, first_unit, sum);
}

/* ---- plain elements ---- */

#define DECODER(name, kernel, bits)                                                               \
    static void name##_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count,          \
                           float *out)                                                            \
    {                                                                                             \
        const void *from = data_row(r, row) + col * (bits) / 8;                                   \
                                                                                                  \
        r->kernels->kernel(from, out, count);                                                     \
    }

DECODER(e2m1, e2m1_to_f32, 4)
DECODER(e4m3, e4m3_to_f32, 8)
DECODER(e5m2, e5m2_to_f32, 8)
DECODER(e8m0, e8m0_to_f32, 8)
DECODER(f16, f16_to_f32, 16)
DECODER(bf16, bf16_to_f32, 16)

static void f32_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count, float *out)
{
    memcpy(out, data_row(r, row) + col * sizeof *out, count * sizeof *out);
}

static int bf16_bf16(values_reader *r, uint64_t row, uint16_t *out, const uint16_t **row_values)
{
    const void *from = data_row(r, row);

    (void)out;
    *row_values = from;
    return 1;
}

static void bf16_digest(values_reader *r, uint64_t row, uint64_t first_unit, void *row_buffer,
                        hash128 *sum)
{
    const void *from = data_row(r, row);

    (void)row_buffer;
    r->kernels->digest_row_bf16(from, r->cols, first_unit, sum);
}

/* ---- integers ---- */

#define WIDEN(type)                                                                               \
    do {                                                                                          \
        for (uint64_t c = 0; c < r->cols; c++) {                                                  \
            type value;                                                                           \
            memcpy(&value, from + c * sizeof value, sizeof value);                                \
            out[c] = (int64_t)value;                                                              \
        }                                                                                         \
    } while (0)

static void int_i64(const values_reader *r, uint64_t row, int64_t *out)
{
    const uint8_t *from = data_row(r, row);

    switch (r->tensor->dtype) {
    case CKPT_BOOL:
    case CKPT_U8:
        WIDEN(uint8_t);
        break;
    case CKPT_I8:
        WIDEN(int8_t);
        break;
    case CKPT_I16:
        WIDEN(int16_t);
        break;
    case CKPT_U16:
        WIDEN(uint16_t);
        break;
    case CKPT_I32:
        WIDEN(int32_t);
        break;
    case CKPT_U32:
        WIDEN(uint32_t);
        break;
    default:                    /* U64 as well: its bits are the value modulo 2^64 */
        assert(r->tensor->dtype == CKPT_I64 || r->tensor->dtype == CKPT_U64);
        WIDEN(int64_t);
        break;
    }
}

static void int_digest(values_reader *r, uint64_t row, uint64_t first_unit, void *row_buffer,
                       hash128 *sum)
{
    int_i64(r, row, row_buffer);
    r->kernels->digest_row_i64(row_buffer, r->cols, first_unit, sum);
}

const encoding_rows encoding_rows_e2m1 = { 0, e2m1_f32, NULL, f32_digest, NULL };
const encoding_rows encoding_rows_e4m3 = { 0, e4m3_f32, NULL, f32_digest, NULL };
const encoding_rows encoding_rows_e5m2 = { 0, e5m2_f32, NULL, f32_digest, NULL };
const encoding_rows encoding_rows_e8m0 = { 0, e8m0_f32, NULL, f32_digest, NULL };
const encoding_rows encoding_rows_f16 = { 0, f16_f32, NULL, f32_digest, NULL };
const encoding_rows encoding_rows_bf16 = { 0, bf16_f32, bf16_bf16, bf16_digest, NULL };
const encoding_rows encoding_rows_f32 = { 0, f32_f32, NULL, f32_digest, NULL };
const encoding_rows encoding_rows_int = { 0, NULL, NULL, int_digest, int_i64 };

/* ---- FP4 ---- */

static void fp4_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count, float *out)
{
    r->kernels->fp4_row_to_f32(data_row(r, row) + col / 2, scale_row_at(r, row) + col / FP4_GROUP,
                               count, out);
}

static int fp4_bf16(values_reader *r, uint64_t row, uint16_t *out, const uint16_t **row_values)
{
    const uint8_t *scales = scale_row_at(r, row);

    if (!scale_e8m0_within(scales, r->cols / FP4_GROUP, r->encoding->exact_low,
                           r->encoding->exact_high))
        return 0;
    r->kernels->fp4_row_to_bf16(data_row(r, row), scales, r->cols, out);
    *row_values = out;
    return 1;
}

static void fp4_digest(values_reader *r, uint64_t row, uint64_t first_unit, void *row_buffer,
                       hash128 *sum)
{
    (void)row_buffer;
    r->kernels->digest_row_fp4(data_row(r, row), scale_row_at(r, row), r->cols, first_unit, sum);
}

const encoding_rows encoding_rows_fp4 = { 0, fp4_f32, fp4_bf16, fp4_digest, NULL };

/* ---- scales as F32 ---- */

/* 1 when a scale is a power of two between two E8M0 codes. */
static int scale_is_exact(const ckpt_encoding *e, float scale)
{
    const int code = e8m0_from_f32_exact(scale);

    return code >= e->exact_low && code <= e->exact_high;
}

/* Decode the scales of the block row that contains `row`, unless the reader has them already. */
static void load_scales(values_reader *r, uint64_t row)
{
    const uint64_t count = ckpt_part_cols(r->tensor, CKPT_SCALE);

    if (r->scale_row == row / r->tensor->block_rows)
        return;
    r->scale_row = row / r->tensor->block_rows;
    scale_row_f32(r->kernels, r->tensor->scale_dtype, scale_row_at(r, row), count, r->scales);
    r->exact = 1;
    for (uint64_t i = 0; i < count && r->exact; i++)
        r->exact = scale_is_exact(r->encoding, r->scales[i]);
    if (r->encoding->block_cols == ENCODING_WHOLE_ROW)      /* kernels need one per 128 columns */
        for (uint64_t i = 1; i < size_div_up(r->cols, FP8_BLOCK); i++)
            r->scales[i] = r->scales[0];
}

/* ---- NVFP4 ---- */

/* Codes times the scales of their groups, which is exact, times a factor. The kernel takes whole
 * groups; what is left are the few values of a check. */
static void fp4_groups_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count,
                           float factor, float *out)
{
    const uint64_t group = r->encoding->block_cols;
    const uint64_t whole = col % group == 0 ? count / group * group : 0;
    const uint8_t *codes = data_row(r, row) + col / 2;

    assert(group == NVFP4_GROUP);
    r->kernels->nvfp4_row_to_f32(codes, r->scales + col / group, factor, whole, out);
    r->kernels->e2m1_to_f32(codes + whole / 2, out + whole, count - whole);
    for (uint64_t i = whole; i < count; i++)
        out[i] = out[i] * r->scales[(col + i) / group] * factor;
}

/* As ggml decodes them: it ignores the sign of a scale, and takes the code of NaN for 0. */
static void load_unsigned_scales(values_reader *r, uint64_t row)
{
    const int is_new = r->scale_row != row;

    load_scales(r, row);
    for (uint64_t i = 0; is_new && i < ckpt_part_cols(r->tensor, CKPT_SCALE); i++)
        r->scales[i] = isnan(r->scales[i]) ? 0 : fabsf(r->scales[i]);
}

/* The tensor scale comes last; it rounds once. */
static void nvfp4_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count, float *out)
{
    const int is_factor = r->encoding->tensor_scale == CKPT_TENSOR_SCALE_FACTOR;

    if (r->tensor->stored_form == CKPT_FORM_NVFP4)
        load_unsigned_scales(r, row);
    else
        load_scales(r, row);
    fp4_groups_f32(r, row, col, count, is_factor ? r->tensor_scale : 1.0f, out);
    for (uint64_t i = 0; i < count && !is_factor; i++)
        out[i] /= r->tensor_scale;
}

const encoding_rows encoding_rows_nvfp4 = { 1, nvfp4_f32, NULL, f32_digest, NULL };

static void fp4_16_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count, float *out)
{
    load_unsigned_scales(r, row);
    fp4_groups_f32(r, row, col, count, 1.0f, out);
}

const encoding_rows encoding_rows_fp4_16 = { 1, fp4_16_f32, NULL, f32_digest, NULL };

/* ---- INT8 ---- */

static void int8_codes_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count,
                           float *out)
{
    const int8_t *codes = (const int8_t *)data_row(r, row) + col;

    for (uint64_t i = 0; i < count; i++)
        out[i] = codes[i];
}

/* The product is exact in F32: a code has 8 bits, a scale 11. */
static void int8_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count, float *out)
{
    const int8_t *codes = (const int8_t *)data_row(r, row) + col;
    const uint64_t group = r->encoding->block_cols;

    load_scales(r, row);
    for (uint64_t c = 0; c < count; c += group) {
        const float scale = r->scales[(col + c) / group];

        for (uint64_t i = c; i < size_min(c + group, count); i++)
            out[i] = (float)codes[i] * scale;
    }
}

const encoding_rows encoding_rows_int8 = { 1, int8_f32, NULL, f32_digest, NULL };
const encoding_rows encoding_rows_int8_codes = { 0, int8_codes_f32, NULL, f32_digest, NULL };

/* ---- INT4 ---- */

static void int4_codes_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count,
                           float *out)
{
    const uint8_t *packed = data_row(r, row);

    for (uint64_t i = col; i < col + count; i++)
        *out++ = (float)((packed[i / 2] >> i % 2 * 4 & 15) - 8);
}

/* The product is exact in F32: a code has 4 bits, a scale 8. In BF16 most are not. */
static void int4_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count, float *out)
{
    const uint64_t scale = col / INT4_GROUP * sizeof(uint16_t);

    r->kernels->int4_row_to_f32(data_row(r, row) + col / 2,
                                (const void *)(scale_row_at(r, row) + scale), count, out);
}

const encoding_rows encoding_rows_int4 = { 0, int4_f32, NULL, f32_digest, NULL };
const encoding_rows encoding_rows_int4_codes = { 0, int4_codes_f32, NULL, f32_digest, NULL };

/* ---- FP8 ---- */

static void fp8_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count, float *out)
{
    load_scales(r, row);
    r->kernels->fp8_row_to_f32(data_row(r, row) + col, r->scales + col / FP8_BLOCK, count, out);
}

static int fp8_bf16(values_reader *r, uint64_t row, uint16_t *out, const uint16_t **row_values)
{
    load_scales(r, row);
    if (!r->exact)
        return 0;
    r->kernels->fp8_row_to_bf16(data_row(r, row), r->scales, r->cols, out);
    *row_values = out;
    return 1;
}

static void fp8_digest(values_reader *r, uint64_t row, uint64_t first_unit, void *row_buffer,
                       hash128 *sum)
{
    (void)row_buffer;
    load_scales(r, row);
    r->kernels->digest_row_fp8(data_row(r, row), r->scales, r->cols, first_unit, sum);
}

/* The kernels use one scale for 128 columns, so a narrower block is passed to them as a row. */
static void narrow_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count, float *out)
{
    const uint8_t *codes = data_row(r, row);
    const uint64_t block = r->encoding->block_cols;

    load_scales(r, row);
    for (uint64_t c = col; c < col + count; c += block)
        r->kernels->fp8_row_to_f32(codes + c, r->scales + c / block,
                                   size_min(block, col + count - c), out + (c - col));
}

static int narrow_bf16(values_reader *r, uint64_t row, uint16_t *out, const uint16_t **row_values)
{
    const uint8_t *codes = data_row(r, row);
    const uint64_t block = r->encoding->block_cols;

    load_scales(r, row);
    if (!r->exact)
        return 0;
    for (uint64_t c = 0; c < r->cols; c += block)
        r->kernels->fp8_row_to_bf16(codes + c, r->scales + c / block,
                                    size_min(block, r->cols - c), out + c);
    *row_values = out;
    return 1;
}

static void narrow_digest(values_reader *r, uint64_t row, uint64_t first_unit, void *row_buffer,
                          hash128 *sum)
{
    const uint16_t *row_values;

    if (narrow_bf16(r, row, row_buffer, &row_values))
        r->kernels->digest_row_bf16(row_values, r->cols, first_unit, sum);
    else
        f32_digest(r, row, first_unit, row_buffer, sum);
}

const encoding_rows encoding_rows_fp8_narrow = { 1, narrow_f32, narrow_bf16, narrow_digest,
                                                 NULL };
const encoding_rows encoding_rows_fp8 = { 1, fp8_f32, fp8_bf16, fp8_digest, NULL };
