/* Decoding the rows of a tile. */
#include "values.h"

#include <assert.h>
#include <string.h>

#include "size.h"

/* E8M0 codes whose product with any code of the format is exact in BF16 for certain. Others may be,
 * and go by way of F32. */
enum { FP8_EXACT_LOW = 9, FP8_EXACT_HIGH = 245, FP4_EXACT_LOW = 2, FP4_EXACT_HIGH = 251 };

static int is_fp8(const ckpt_tensor *t)
{
    return t->dtype == CKPT_F8_E4M3 && t->scale_dtype != CKPT_NONE;
}

ckpt_code kernels_require(ckpt_error *err)
{
    if (kernels_get() != NULL)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE,
                     "CKPT_KERNELS names a set of kernels that this machine does not have");
}

uint64_t values_need(const ckpt_tensor *tensor)
{
    return is_fp8(tensor) ? arena_cost(ckpt_part_cols(tensor, CKPT_SCALE) * sizeof(float)) : 0;
}

int values_are_known(ckpt_dtype dtype)
{
    switch (dtype) {
    case CKPT_NONE:
    case CKPT_F6_E2M3:
    case CKPT_F6_E3M2:
    case CKPT_F8_E4M3FNUZ:
    case CKPT_F8_E5M2FNUZ:
    case CKPT_C64:
    case CKPT_F64:
        return 0;
    default:
        return 1;
    }
}

ckpt_code values_begin(values_reader *reader, const ckpt_tensor *tensor, const ckpt_tile *tile,
                       arena *scratch, ckpt_error *err)
{
    memset(reader, 0, sizeof *reader);
    reader->kernels = kernels_get();
    reader->tensor = tensor;
    reader->tile = tile;
    reader->cols = ckpt_tensor_cols(tensor);
    reader->row_bytes = ckpt_part_row_bytes(tensor, CKPT_DATA);
    reader->scale_row_bytes = ckpt_part_row_bytes(tensor, CKPT_SCALE);
    reader->scale_row = UINT64_MAX;
    if (reader->kernels == NULL)
        return kernels_require(err);
    if (!values_are_known(tensor->dtype))
        return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s': dtype %s has no value digest",
                         tensor->name, ckpt_dtype_name(tensor->dtype));
    if (is_fp8(tensor)) {
        const uint64_t bytes = ckpt_part_cols(tensor, CKPT_SCALE) * sizeof(float);

        reader->scales = arena_alloc(scratch, bytes);
        if (reader->scales == NULL)
            return ckpt_fail_memory(err, "a row of scales", bytes);
    }
    return CKPT_OK;
}

static const uint8_t *data_row(const values_reader *r, uint64_t row)
{
    return (const uint8_t *)r->tile->part[CKPT_DATA] + row * r->row_bytes;
}

static const uint8_t *scale_row(const values_reader *r, uint64_t row)
{
    return (const uint8_t *)r->tile->part[CKPT_SCALE] +
           row / r->tensor->block_rows * r->scale_row_bytes;
}

/* A power of two between the two E8M0 codes. */
static int scale_is_exact(float scale)
{
    const int code = e8m0_from_f32_exact(scale);

    return code >= FP8_EXACT_LOW && code <= FP8_EXACT_HIGH;
}

/* Decode the scales of the block row that holds `row`, unless they are at hand. */
static void load_scales(values_reader *r, uint64_t row)
{
    const uint64_t count = ckpt_part_cols(r->tensor, CKPT_SCALE);
    const uint8_t *from = scale_row(r, row);

    if (r->scale_row == row / r->tensor->block_rows)
        return;
    r->scale_row = row / r->tensor->block_rows;
    if (r->tensor->scale_dtype == CKPT_F8_E8M0)
        r->kernels->e8m0_to_f32(from, r->scales, count);
    else if (r->tensor->scale_dtype == CKPT_BF16)
        r->kernels->bf16_to_f32((const uint16_t *)(const void *)from, r->scales, count);
    else
        memcpy(r->scales, from, count * sizeof(float));
    r->exact = 1;
    for (uint64_t i = 0; i < count && r->exact; i++)
        r->exact = scale_is_exact(r->scales[i]);
}

/* FP8 blocks are 128 wide for the kernels; other widths go block by block. */
static void fp8_f32(values_reader *r, uint64_t row, uint64_t col, uint64_t count, float *out)
{
    const uint8_t *codes = data_row(r, row);
    const uint64_t block = r->tensor->block_cols;

    load_scales(r, row);
    if (block == FP8_BLOCK) {
        r->kernels->fp8_row_to_f32(codes + col, r->scales + col / block, count, out);
        return;
    }
    for (uint64_t c = col; c < col + count;) {
        const uint64_t width = size_min(size_min(block - c % block, col + count - c), FP8_BLOCK);

        r->kernels->fp8_row_to_f32(codes + c, r->scales + c / block, width, out + (c - col));
        c += width;
    }
}

void values_f32(values_reader *reader, uint64_t row, uint64_t col, uint64_t count, float *out)
{
    const ckpt_tensor *t = reader->tensor;
    const uint8_t *from = data_row(reader, row) + col * ckpt_dtype_bits(t->dtype) / 8;
    const void *plain = from;

    switch (t->dtype) {
    case CKPT_F4:
        if (t->scale_dtype == CKPT_NONE)
            reader->kernels->e2m1_to_f32(from, out, count);
        else
            reader->kernels->fp4_row_to_f32(from, scale_row(reader, row) + col / FP4_GROUP, count,
                                            out);
        break;
    case CKPT_F8_E4M3:
        if (t->scale_dtype == CKPT_NONE)
            reader->kernels->e4m3_to_f32(from, out, count);
        else
            fp8_f32(reader, row, col, count, out);
        break;
    case CKPT_F8_E5M2:
        reader->kernels->e5m2_to_f32(from, out, count);
        break;
    case CKPT_F8_E8M0:
        reader->kernels->e8m0_to_f32(from, out, count);
        break;
    case CKPT_BF16:
        reader->kernels->bf16_to_f32(plain, out, count);
        break;
    case CKPT_F16:
        reader->kernels->f16_to_f32(plain, out, count);
        break;
    default:
        assert(t->dtype == CKPT_F32);
        memcpy(out, from, count * sizeof *out);
        break;
    }
}

/* Eight codes at a time. Adding 0x80 - low to the low seven bits of a code carries into the top
 * unless they are below `low`; the complement must be at least 255 - high in the same way. */
int values_e8m0_within(const uint8_t *codes, uint64_t count, uint8_t low, uint8_t high)
{
    const uint64_t ones = 0x0101010101010101ULL;
    const uint64_t seven = 0x7F * ones;
    const uint64_t add_low = (uint64_t)(0x80 - low) * ones;
    const uint64_t add_high = (uint64_t)(0x80 - (0xFF - high)) * ones;
    uint64_t within = ~seven;
    uint64_t i = 0;

    for (; i + 8 <= count; i += 8) {
        uint64_t word;

        memcpy(&word, codes + i, sizeof word);
        within &= (((word & seven) + add_low) | word) & (((~word & seven) + add_high) | ~word);
    }
    for (; i < count; i++)
        within = codes[i] < low || codes[i] > high ? 0 : within;
    return within == ~seven;
}

int values_bf16(values_reader *reader, uint64_t row, uint16_t *out, const uint16_t **row_values)
{
    const ckpt_tensor *t = reader->tensor;

    *row_values = out;
    if (t->dtype == CKPT_BF16) {
        const void *from = data_row(reader, row);

        *row_values = from;
        return 1;
    }
    if (t->scale_dtype == CKPT_NONE)
        return 0;
    if (t->dtype == CKPT_F4) {
        if (!values_e8m0_within(scale_row(reader, row), reader->cols / FP4_GROUP, FP4_EXACT_LOW,
                                FP4_EXACT_HIGH))
            return 0;
        reader->kernels->fp4_row_to_bf16(data_row(reader, row), scale_row(reader, row),
                                         reader->cols, out);
        return 1;
    }
    if (t->block_cols != FP8_BLOCK)
        return 0;
    load_scales(reader, row);
    if (!reader->exact)
        return 0;
    reader->kernels->fp8_row_to_bf16(data_row(reader, row), reader->scales, reader->cols, out);
    return 1;
}

#define WIDEN(type)                                                                               \
    do {                                                                                          \
        for (uint64_t c = 0; c < reader->cols; c++) {                                             \
            type value;                                                                           \
            memcpy(&value, from + c * sizeof value, sizeof value);                                \
            out[c] = (int64_t)value;                                                              \
        }                                                                                         \
    } while (0)

void values_i64(const values_reader *reader, uint64_t row, int64_t *out)
{
    const uint8_t *from = data_row(reader, row);

    switch (reader->tensor->dtype) {
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
        assert(reader->tensor->dtype == CKPT_I64 || reader->tensor->dtype == CKPT_U64);
        WIDEN(int64_t);
        break;
    }
}

void values_digest(values_reader *reader, uint64_t row, uint64_t first_unit, void *row_buffer,
                   hash128 *sum)
{
    const ckpt_tensor *t = reader->tensor;
    const ckpt_kernels *k = reader->kernels;
    const uint8_t *from = data_row(reader, row);
    const void *plain = from;

    if (ckpt_tensor_is_int(t)) {
        values_i64(reader, row, row_buffer);
        k->digest_row_i64(row_buffer, reader->cols, first_unit, sum);
    } else if (t->dtype == CKPT_BF16) {
        k->digest_row_bf16(plain, reader->cols, first_unit, sum);
    } else if (t->dtype == CKPT_F4 && t->scale_dtype != CKPT_NONE) {
        k->digest_row_fp4(from, scale_row(reader, row), reader->cols, first_unit, sum);
    } else if (is_fp8(t) && t->block_cols == FP8_BLOCK) {
        load_scales(reader, row);
        k->digest_row_fp8(from, reader->scales, reader->cols, first_unit, sum);
    } else {
        values_f32(reader, row, 0, reader->cols, row_buffer);
        k->digest_row_f32(row_buffer, reader->cols, first_unit, sum);
    }
}
