/* Decoding the rows of a tile, by the table of encodings. */
#include "values.h"

#include <stdlib.h>
#include <string.h>

#include "size.h"

/* The number of F32 scales that the kernels need for a row: one per block, or per 128 columns. */
static uint64_t scale_row_need(const ckpt_tensor *t)
{
    const ckpt_encoding *e = encoding_of(t);

    if (e == NULL || !e->rows->takes_f32_scales)
        return 0;
    return size_max(ckpt_part_cols(t, CKPT_SCALE), size_div_up(ckpt_tensor_cols(t), FP8_BLOCK)) *
           sizeof(float);
}

ckpt_code kernels_require(ckpt_error *err)
{
    const char *name = getenv("CKPT_KERNELS");

    if (kernels_get() != NULL)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "CKPT_KERNELS '%s': expected scalar, avx2 or avx512, and a "
                     "CPU that has it", name == NULL ? "" : name);
}

uint64_t values_need(const ckpt_tensor *tensor)
{
    const uint64_t bytes = scale_row_need(tensor);

    return bytes == 0 ? 0 : arena_cost(bytes);
}

ckpt_code values_begin(values_reader *reader, const ckpt_tensor *tensor, const ckpt_tile *tile,
                       arena *scratch, ckpt_error *err)
{
    memset(reader, 0, sizeof *reader);
    reader->kernels = kernels_get();
    reader->encoding = encoding_of(tensor);
    reader->tensor = tensor;
    reader->tile = tile;
    reader->cols = ckpt_tensor_cols(tensor);
    reader->row_bytes = ckpt_part_row_bytes(tensor, CKPT_DATA);
    reader->scale_row_bytes = ckpt_part_row_bytes(tensor, CKPT_SCALE);
    reader->scale_row = UINT64_MAX;
    if (tile->part[CKPT_TENSOR_SCALE] != NULL)
        memcpy(&reader->tensor_scale, tile->part[CKPT_TENSOR_SCALE], sizeof reader->tensor_scale);
    if (reader->kernels == NULL)
        return kernels_require(err);
    if (reader->encoding == NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s': dtype %s has no value digest",
                         tensor->name, ckpt_dtype_name(tensor->dtype));
    if (scale_row_need(tensor) > 0) {
        const uint64_t bytes = scale_row_need(tensor);

        reader->scales = arena_alloc(scratch, bytes);
        if (reader->scales == NULL)
            return ckpt_fail_memory(err, "a row of scales", bytes);
    }
    return CKPT_OK;
}

void values_f32(values_reader *reader, uint64_t row, uint64_t col, uint64_t count, float *out)
{
    reader->encoding->rows->f32(reader, row, col, count, out);
}

int values_bf16(values_reader *reader, uint64_t row, uint16_t *out, const uint16_t **row_values)
{
    const encoding_rows *rows = reader->encoding->rows;

    return rows->bf16 != NULL && rows->bf16(reader, row, out, row_values);
}

void values_digest(values_reader *reader, uint64_t row, uint64_t first_unit, void *row_buffer,
                   hash128 *sum)
{
    reader->encoding->rows->digest(reader, row, first_unit, row_buffer, sum);
}

void values_i64(const values_reader *reader, uint64_t row, int64_t *out)
{
    reader->encoding->rows->i64(reader, row, out);
}
