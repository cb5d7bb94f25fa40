/* Counts values, codes and scales of a tile. */
#include "statistics_tile.h"

#include <math.h>
#include <string.h>

#include "libckpt/scale.h"
#include "libckpt/values.h"
#include "statistics_fp4.h"

enum { SCALES_AT_ONCE = 256 };

/* ---- values ---- */

uint64_t statistics_need(const ckpt_tensor *tensor)
{
    return values_need(tensor) + arena_cost(ckpt_tensor_cols(tensor) * sizeof(int64_t));
}

/* Record the first NaN or infinity of the row, unless an earlier row has one. */
static void note_bad(tensor_statistics *s, const float *values, uint64_t cols, uint64_t row)
{
    uint64_t c = 0;

    if (row >= s->bad_row)
        return;
    while (c < cols && isfinite(values[c]))
        c++;
    s->bad_row = row;
    s->bad_col = c;
}

/* Counters of F32 exponents, four for each exponent, as in count_bytes. */
typedef struct {
    uint64_t lanes[4][STATISTICS_EXPONENTS];
} exponent_counters;

static void count_exponents(exponent_counters *counters, const float *values, uint64_t cols)
{
    for (uint64_t c = 0; c < cols; c++) {
        uint32_t bits;

        memcpy(&bits, &values[c], sizeof bits);
        counters->lanes[c % 4][bits >> 23 & 0xff]++;
    }
}

/* Exponent 0 includes zeros, and the last exponent is that of NaN and infinity. */
static void add_exponents(tensor_statistics *s, const exponent_counters *counters, uint64_t zeros)
{
    for (int e = 0; e < STATISTICS_EXPONENTS - 1; e++)
        for (int l = 0; l < 4; l++)
            s->exponents[e] += counters->lanes[l][e];
    s->exponents[0] -= zeros;
}

static void add_floats(tensor_statistics *s, values_reader *values, const source_range *range,
                       float *buffer)
{
    exponent_counters counters;
    uint64_t zeros = 0;
    double sum = 0;
    double squares = 0;

    memset(&counters, 0, sizeof counters);
    for (uint64_t r = 0; r < range->row_count; r++) {
        row_statistics row;

        values_f32(values, r, 0, values->cols, buffer);
        (s->is_brief ? values->kernels->f32_row_squares : values->kernels->f32_row_statistics)(
            buffer, values->cols, &row);
        zeros += row.zeros;
        s->nans += row.nans;
        s->infinities += row.infinities;
        s->min = fminf(s->min, row.min);
        s->max = fmaxf(s->max, row.max);
        sum += row.sum;
        squares += row.squares;
        if (row.zeros == values->cols)
            statistics_note_zero_row(s, range->row + r);
        if (row.nans + row.infinities > 0)
            note_bad(s, buffer, values->cols, range->row + r);
        if (s->exponents != NULL)
            count_exponents(&counters, buffer, values->cols);
    }
    s->zeros += zeros;
    if (s->exponents != NULL)
        add_exponents(s, &counters, zeros);
    exact_sum_add(sum < 0 ? &s->negative : &s->positive, fabs(sum));
    exact_sum_add(&s->squares, squares);
}

static void add_ints(tensor_statistics *s, const values_reader *values, const source_range *range,
                     int64_t *buffer)
{
    const int64_t bias = values->tensor->dtype == CKPT_U64 ? INT64_MIN : 0;

    for (uint64_t r = 0; r < range->row_count; r++) {
        uint64_t zeros = 0;

        values_i64(values, r, buffer);
        for (uint64_t c = 0; c < values->cols; c++) {
            const int64_t value = buffer[c] ^ bias;

            zeros += buffer[c] == 0;
            s->int_min = value < s->int_min ? value : s->int_min;
            s->int_max = value > s->int_max ? value : s->int_max;
        }
        s->zeros += zeros;
        if (zeros == values->cols)
            statistics_note_zero_row(s, range->row + r);
    }
}

/* ---- codes and scales ---- */

/* Neighbouring bytes are often equal. Four counters per value avoid waiting for the last update. */
static void count_bytes(const uint8_t *bytes, uint64_t size, uint64_t counts[256])
{
    uint32_t lanes[4][256];

    memset(counts, 0, 256 * sizeof *counts);
    while (size > 0) {
        const uint64_t now = size_min(size, UINT32_MAX);
        uint64_t i = 0;

        memset(lanes, 0, sizeof lanes);
        for (; i + 4 <= now; i += 4) {
            uint32_t word;

            memcpy(&word, bytes + i, sizeof word);
            lanes[0][word & 0xff]++;
            lanes[1][word >> 8 & 0xff]++;
            lanes[2][word >> 16 & 0xff]++;
            lanes[3][word >> 24]++;
        }
        for (; i < now; i++)
            lanes[0][bytes[i]]++;
        for (int b = 0; b < 256; b++)
            counts[b] += (uint64_t)lanes[0][b] + lanes[1][b] + lanes[2][b] + lanes[3][b];
        bytes += now;
        size -= now;
    }
}

/* Fields of bytes that have this value, without a histogram. */
static uint64_t count_equal(const uint8_t *bytes, uint64_t size, uint8_t mask, uint8_t value)
{
    enum { CHUNK = 240 };          /* below 256: sums of a chunk are bytes */
    uint64_t count = 0;
    uint64_t i = 0;

    for (; i + CHUNK <= size; i += CHUNK) {
        uint8_t found = 0;

        for (int k = 0; k < CHUNK; k++)
            found = (uint8_t)(found + ((bytes[i + (uint64_t)k] & mask) == value));
        count += found;
    }
    for (; i < size; i++)
        count += (bytes[i] & mask) == value;
    return count;
}

/* Codes of the largest magnitude, with either sign. */
static uint64_t count_largest(ckpt_dtype dtype, const uint8_t *codes, uint64_t size)
{
    if (dtype == CKPT_F4)
        return count_equal(codes, size, 0x07, 0x07) + count_equal(codes, size, 0x70, 0x70);
    return count_equal(codes, size, 0x7f, dtype == CKPT_F8_E5M2 ? 0x7b : 0x7e);
}

static void add_codes(tensor_statistics *s, const ckpt_tensor *t, const ckpt_tile *tile)
{
    uint64_t bytes[256];
    uint64_t codes[256] = { 0 };
    const size_t code_count = statistics_code_count(t);

    if (code_count == 0)
        return;
    if (s->codes == NULL) {
        s->saturated += count_largest(t->dtype, tile->part[CKPT_DATA],
                                      tile->part_bytes[CKPT_DATA]);
        return;
    }
    count_bytes(tile->part[CKPT_DATA], tile->part_bytes[CKPT_DATA], bytes);
    for (unsigned b = 0; b < 256; b++) {
        codes[code_count == 16 ? b & 15 : b] += bytes[b];
        if (code_count == 16)
            codes[b >> 4] += bytes[b];
    }
    for (unsigned c = 0; c < code_count; c++) {
        s->saturated += statistics_is_largest(t->dtype, c) ? codes[c] : 0;
        s->codes[c] += codes[c];
    }
}

static void add_scale(scale_statistics *s, float scale)
{
    if (!isfinite(scale)) {
        s->nans++;
        return;
    }
    s->min = scale < s->min ? scale : s->min;
    s->max = scale > s->max ? scale : s->max;
}

static void add_e8m0_scales(scale_statistics *s, const uint8_t *codes, uint64_t count)
{
    uint64_t counts[256];

    count_bytes(codes, count, counts);
    s->zeros += counts[0];
    s->nans += counts[255];
    for (unsigned c = 0; c < 255; c++) {
        const uint8_t code = (uint8_t)c;

        if (counts[c] > 0)
            add_scale(s, scale_get(kernels_get(), CKPT_F8_E8M0, &code, 0));
    }
}

/* The scale of the whole tensor, which every tile has, counts with the first. */
static void add_scales(scale_statistics *s, const ckpt_tensor *t, const ckpt_tile *tile,
                       int is_first)
{
    const uint8_t *from = tile->part[CKPT_SCALE];
    const uint64_t bytes = ckpt_dtype_bits(t->scale_dtype) / 8;
    uint64_t count = t->scale_dtype == CKPT_NONE ? 0 : tile->part_bytes[CKPT_SCALE] / bytes;
    float scales[SCALES_AT_ONCE];

    s->count += count;
    if (tile->part[CKPT_TENSOR_SCALE] != NULL && is_first) {
        memcpy(scales, tile->part[CKPT_TENSOR_SCALE], sizeof *scales);
        s->nans += isfinite(scales[0]) ? 0 : 1;
    }
    if (t->scale_dtype == CKPT_F8_E8M0) {
        add_e8m0_scales(s, from, count);
        return;
    }
    while (count > 0) {
        const uint64_t now = size_min(count, SCALES_AT_ONCE);

        scale_row_f32(kernels_get(), t->scale_dtype, from, now, scales);
        for (uint64_t i = 0; i < now; i++) {
            s->zeros += scales[i] == 0;
            add_scale(s, scales[i]);
        }
        from += now * bytes;
        count -= now;
    }
}

ckpt_code statistics_add(tensor_statistics *s, const ckpt_tensor *tensor,
                         const source_range *range, const ckpt_tile *tile, arena *scratch,
                         ckpt_error *err)
{
    const uint64_t cols = ckpt_tensor_cols(tensor);
    const size_t mark = arena_mark(scratch);
    values_reader values;
    ckpt_code code;
    void *buffer;

    if (s->is_brief && statistics_fp4_add(s, tensor, range, tile))
        return CKPT_OK;
    if ((code = values_begin(&values, tensor, tile, scratch, err)) != CKPT_OK)
        return code;
    if ((buffer = arena_alloc(scratch, cols * sizeof(int64_t))) == NULL)
        return ckpt_fail_memory(err, "a row", cols * sizeof(int64_t));
    if (ckpt_tensor_is_int(tensor)) {
        add_ints(s, &values, range, buffer);
    } else {
        add_floats(s, &values, range, buffer);
        add_codes(s, tensor, tile);
        if (!s->is_brief)
            add_scales(&s->scales, tensor, tile, range->row == 0);
    }
    s->count += range->row_count * cols;
    arena_rewind(scratch, mark);
    return CKPT_OK;
}
