/* Refuses products that overflow, and describes elements for errors. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "scale.h"
#include "size.h"
#include "values.h"

enum { CODES_AT_ONCE = 128, SCALES_AT_ONCE = 128 };

/* Prepare a reader that decodes codes without their scales. Packed codes must be read in pairs. */
static values_reader read_codes(const ckpt_tensor *t, const ckpt_tile *tile)
{
    return (values_reader){ .kernels = kernels_get(), .encoding = encoding_codes(t->dtype),
                            .tensor = t, .tile = tile, .cols = ckpt_tensor_cols(t),
                            .row_bytes = ckpt_part_row_bytes(t, CKPT_DATA) };
}

/* 1 for a tensor without such a scale. */
static float tensor_scale_of(const ckpt_tile *tile)
{
    float scale = 1;

    if (tile->part[CKPT_TENSOR_SCALE] != NULL)
        memcpy(&scale, tile->part[CKPT_TENSOR_SCALE], sizeof scale);
    return scale;
}

/* ---- words ---- */

static void text_of_code(const ckpt_tensor *t, const ckpt_tile *tile, uint64_t row, uint64_t col,
                         char out[VALUES_TEXT_BYTES])
{
    const uint8_t *codes = (const uint8_t *)tile->part[CKPT_DATA] +
                           row * ckpt_part_row_bytes(t, CKPT_DATA);
    const uint8_t *scales = (const uint8_t *)tile->part[CKPT_SCALE] +
                            row / t->block_rows * ckpt_part_row_bytes(t, CKPT_SCALE);
    const int is_packed = ckpt_dtype_bits(t->dtype) == 4;
    const uint64_t odd = is_packed ? col % 2 : 0;
    const uint64_t block = col / t->block_cols;
    const unsigned code = is_packed ? (unsigned)codes[col / 2] >> odd * 4 & 15 : codes[col];
    values_reader numbers = read_codes(t, tile);
    char byte[16] = "";
    char whole[32] = "";
    float value[2];

    values_f32(&numbers, row, col - odd, is_packed ? 2 : 1, value);
    if (ckpt_dtype_bits(t->scale_dtype) == 8)
        snprintf(byte, sizeof byte, " (0x%02X)", scales[block]);
    if (t->tensor_scale != CKPT_TENSOR_SCALE_NONE)
        snprintf(whole, sizeof whole, " %s %.9g",
                 t->tensor_scale == CKPT_TENSOR_SCALE_FACTOR ? "x" : "/",
                 (double)tensor_scale_of(tile));
    snprintf(out, VALUES_TEXT_BYTES, "code 0x%02X (%g) x scale %.9g%s%s", code,
             (double)value[odd],
             (double)scale_get(kernels_get(), t->scale_dtype, scales, block), byte, whole);
}

void values_text(const ckpt_tensor *tensor, const ckpt_tile *tile, uint64_t row, uint64_t col,
                 char out[VALUES_TEXT_BYTES])
{
    values_reader reader;
    float value[2] = { 0, 0 };

    if (tensor->scale_dtype != CKPT_NONE) {
        text_of_code(tensor, tile, row, col, out);
    } else if (ckpt_tensor_is_int(tensor) ||
               values_begin(&reader, tensor, tile, NULL, NULL) != CKPT_OK) {
        snprintf(out, VALUES_TEXT_BYTES, "element");
    } else {                     /* plain elements need no scratch; packed ones are read in pairs */
        values_f32(&reader, row, col - col % 2, size_min(2, reader.cols - (col - col % 2)), value);
        snprintf(out, VALUES_TEXT_BYTES, "%.9g", (double)value[col % 2]);
    }
}

/* ---- the check ---- */

/* A tile and its block that is being checked. */
typedef struct {
    const ckpt_tensor *tensor;
    const source_range *range;
    const ckpt_tile *tile;
    uint64_t row;
    uint64_t row_end;
    uint64_t col;
    uint64_t col_end;
    float scale;
    float tensor_scale;
} suspect;

static ckpt_code fail_product(const suspect *s, uint64_t row, uint64_t col, ckpt_error *err)
{
    char text[VALUES_TEXT_BYTES];

    values_text(s->tensor, s->tile, row, col, text);
    return ckpt_fail(err, CKPT_E_FORMAT,
                     "tensor '%s', row %llu, column %llu: %s is beyond the range of F32 and "
                     "stands for no value",
                     s->tensor->name, (unsigned long long)(s->range->row + row),
                     (unsigned long long)col, text);
}

/* 1 when a finite code times the block's scale, which is finite, overflows. */
static int is_beyond(const suspect *s, float code)
{
    return isfinite(code) &&
           !isfinite(scale_whole(s->tensor->tensor_scale, code * s->scale, s->tensor_scale));
}

static ckpt_code check_products(const suspect *s, ckpt_error *err)
{
    values_reader numbers = read_codes(s->tensor, s->tile);
    float values[CODES_AT_ONCE];

    for (uint64_t row = s->row; row < s->row_end; row++)
        for (uint64_t col = s->col; col < s->col_end; col += CODES_AT_ONCE) {
            const uint64_t count = size_min(CODES_AT_ONCE, s->col_end - col);

            values_f32(&numbers, row, col, count, values);
            for (uint64_t i = 0; i < count; i++)
                if (is_beyond(s, values[i]))
                    return fail_product(s, row, col + i, err);
        }
    return CKPT_OK;
}

ckpt_code values_check_shape(const ckpt_tensor *t, const ckpt_tile *tile, ckpt_error *err)
{
    const uint8_t *numbers = tile->part[CKPT_SHAPE];
    const uint32_t bytes = ckpt_dtype_bits((ckpt_dtype)t->shape_dtype) / 8;
    ckpt_tensor said = *t;
    char expected[256];
    char got[256];

    for (uint32_t i = 0; numbers != NULL && i < t->rank; i++) {
        said.shape[i] = 0;
        memcpy(&said.shape[i], numbers + (size_t)i * bytes, bytes);     /* little endian */
    }
    if (numbers == NULL || catalog_same_shape(&said, t))
        return CKPT_OK;
    catalog_shape_text(t, expected, sizeof expected);
    catalog_shape_text(&said, got, sizeof got);
    return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' has codes of the shape %s, but the numbers "
                     "of its weight_shape are %s", t->name, expected, got);
}

ckpt_code values_check_whole_scale(const ckpt_tensor *tensor, const ckpt_tile *tile,
                                   ckpt_error *err)
{
    const float scale = tensor_scale_of(tile);

    if (scale_is_fit(scale))
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT,
                     "tensor '%s': the scale of the tensor is %.9g, not a positive number",
                     tensor->name, (double)scale);
}

ckpt_code values_check(const ckpt_tensor *tensor, const source_range *range, const ckpt_tile *tile,
                       ckpt_error *err)
{
    const uint64_t cols = ckpt_part_cols(tensor, CKPT_SCALE);
    const ckpt_encoding *e = encoding_of(tensor);
    const ckpt_kernels *k = kernels_get();
    const uint64_t scale_bits = ckpt_dtype_bits(tensor->scale_dtype);
    suspect s = { .tensor = tensor, .range = range, .tile = tile };
    float scales[SCALES_AT_ONCE];
    ckpt_code code = CKPT_OK;
    uint64_t first;
    uint64_t rows;

    if (tensor->scale_dtype == CKPT_NONE)
        return CKPT_OK;
    if (k == NULL)
        return kernels_require(err);
    if ((code = values_check_shape(tensor, tile, err)) != CKPT_OK)
        return code;
    source_scale_rows(tensor, range, &first, &rows);
    s.tensor_scale = tensor_scale_of(tile);
    s.scale = scale_largest(tensor->scale_dtype);
    if (!isfinite(s.tensor_scale) || !is_beyond(&s, e->largest) ||
        (tensor->scale_dtype == CKPT_F8_E8M0 &&
         scale_e8m0_within(tile->part[CKPT_SCALE], rows * cols, 0, e->finite_high)))
        return CKPT_OK;
    for (uint64_t i = 0; i < rows * cols && code == CKPT_OK; i++) {
        if (i % SCALES_AT_ONCE == 0)
            scale_row_f32(k, tensor->scale_dtype,
                          (const uint8_t *)tile->part[CKPT_SCALE] + i * scale_bits / 8,
                          size_min(SCALES_AT_ONCE, rows * cols - i), scales);
        s.scale = scales[i % SCALES_AT_ONCE];
        if (!isfinite(s.scale) || !is_beyond(&s, e->largest))
            continue;
        s.row = i / cols * tensor->block_rows;
        s.row_end = size_min(s.row + tensor->block_rows, range->row_count);
        s.col = i % cols * tensor->block_cols;
        s.col_end = size_min(s.col + tensor->block_cols, ckpt_tensor_cols(tensor));
        code = check_products(&s, err);
    }
    return code;
}
