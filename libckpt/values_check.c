/* Products that are no values, and elements in words. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "scale.h"
#include "size.h"
#include "values.h"

enum { CODES_AT_ONCE = 128 };

/* Codes [col, col + count) of a row of a scaled tensor as numbers; FP4 takes pairs. */
static void decode_codes(const ckpt_tensor *t, const uint8_t *row, uint64_t col, uint64_t count,
                         float *out)
{
    if (t->dtype == CKPT_F4)
        kernels_get()->e2m1_to_f32(row + col / 2, out, count);
    else
        kernels_get()->e4m3_to_f32(row + col, out, count);
}

/* ---- words ---- */

static void text_of_code(const ckpt_tensor *t, const ckpt_tile *tile, uint64_t row, uint64_t col,
                         char out[VALUES_TEXT_BYTES])
{
    const uint8_t *codes = (const uint8_t *)tile->part[CKPT_DATA] +
                           row * ckpt_part_row_bytes(t, CKPT_DATA);
    const uint8_t *scales = (const uint8_t *)tile->part[CKPT_SCALE] +
                            row / t->block_rows * ckpt_part_row_bytes(t, CKPT_SCALE);
    const int is_fp4 = t->dtype == CKPT_F4;
    const uint64_t odd = is_fp4 ? col % 2 : 0;
    const uint64_t block = col / t->block_cols;
    const unsigned code = is_fp4 ? (unsigned)codes[col / 2] >> odd * 4 & 15 : codes[col];
    char byte[16] = "";
    float value[2];

    decode_codes(t, codes, col - odd, is_fp4 ? 2 : 1, value);
    if (t->scale_dtype == CKPT_F8_E8M0)
        snprintf(byte, sizeof byte, " (0x%02X)", scales[block]);
    snprintf(out, VALUES_TEXT_BYTES, "code 0x%02X (%g) x scale %.9g%s", code, (double)value[odd],
             (double)scale_get(kernels_get(), t->scale_dtype, scales, block), byte);
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
    } else {                     /* plain elements take no scratch; packed ones come in pairs */
        values_f32(&reader, row, col - col % 2, size_min(2, reader.cols - (col - col % 2)), value);
        snprintf(out, VALUES_TEXT_BYTES, "%.9g", (double)value[col % 2]);
    }
}

/* ---- the check ---- */

/* One tile and the block of it that is looked at. */
typedef struct {
    const ckpt_tensor *tensor;
    const source_range *range;
    const ckpt_tile *tile;
    uint64_t row;
    uint64_t row_end;
    uint64_t col;
    uint64_t col_end;
    float scale;
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

/* NaN codes are NaN under any scale, so that only infinite products are new. */
static ckpt_code check_products(const suspect *s, ckpt_error *err)
{
    const uint64_t row_bytes = ckpt_part_row_bytes(s->tensor, CKPT_DATA);
    float values[CODES_AT_ONCE];

    for (uint64_t row = s->row; row < s->row_end; row++)
        for (uint64_t col = s->col; col < s->col_end; col += CODES_AT_ONCE) {
            const uint64_t count = size_min(CODES_AT_ONCE, s->col_end - col);

            decode_codes(s->tensor, (const uint8_t *)s->tile->part[CKPT_DATA] + row * row_bytes,
                         col, count, values);
            for (uint64_t i = 0; i < count; i++)
                if (isinf(values[i] * s->scale))
                    return fail_product(s, row, col + i, err);
        }
    return CKPT_OK;
}

/* Whether some code may overflow under this scale. */
static int is_suspect(const ckpt_encoding *e, float scale)
{
    return isfinite(scale) && isinf(scale * e->largest);
}

ckpt_code values_check(const ckpt_tensor *tensor, const source_range *range, const ckpt_tile *tile,
                       ckpt_error *err)
{
    const uint64_t cols = ckpt_part_cols(tensor, CKPT_SCALE);
    const ckpt_encoding *e = encoding_of(tensor);
    const ckpt_kernels *k = kernels_get();
    suspect s = { .tensor = tensor, .range = range, .tile = tile };
    ckpt_code code = CKPT_OK;
    uint64_t first;
    uint64_t rows;

    if (tensor->scale_dtype == CKPT_NONE)
        return CKPT_OK;
    if (k == NULL)
        return kernels_require(err);
    source_scale_rows(tensor, range, &first, &rows);
    if (tensor->scale_dtype == CKPT_F8_E8M0 &&
        scale_e8m0_within(tile->part[CKPT_SCALE], rows * cols, 0, e->finite_high))
        return CKPT_OK;
    for (uint64_t i = 0; i < rows * cols && code == CKPT_OK; i++) {
        s.scale = scale_get(k, tensor->scale_dtype, tile->part[CKPT_SCALE], i);
        if (!is_suspect(e, s.scale))
            continue;
        s.row = i / cols * tensor->block_rows;
        s.row_end = size_min(s.row + tensor->block_rows, range->row_count);
        s.col = i % cols * tensor->block_cols;
        s.col_end = size_min(s.col + tensor->block_cols, ckpt_tensor_cols(tensor));
        code = check_products(&s, err);
    }
    return code;
}
