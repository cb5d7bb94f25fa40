/* Conversions to plain elements (dequantise and cast), and checks for all conversions. */
#include <math.h>
#include <string.h>

#include "encode_job.h"
#include "scale.h"

/* Fail with "tensor 'x', row 1, column 2: F32 0.1 is " and the given text. */
static ckpt_code fail_element(const encode_job *job, ckpt_code code, uint64_t row, uint64_t col,
                              const char *what)
{
    char text[VALUES_TEXT_BYTES];
    char from[64];
    char to[64];

    values_text(job->from, job->in, row, col, text);
    ckpt_tensor_encoding(job->from, from, sizeof from);
    ckpt_tensor_encoding(job->to, to, sizeof to);
    return ckpt_fail(job->err, code, "tensor '%s', row %llu, column %llu: %s %s is %s %s",
                     job->to->name, (unsigned long long)(job->range->row + row),
                     (unsigned long long)col, from, text, what, to);
}

ckpt_code encode_fail_inexact(const encode_job *job, uint64_t row, uint64_t col)
{
    return fail_element(job, CKPT_E_INEXACT, row, col, "not exact in");
}

ckpt_code encode_fail_beyond(const encode_job *job, uint64_t row, uint64_t col)
{
    return fail_element(job, CKPT_E_FORMAT, row, col, "beyond the range of");
}

ckpt_code encode_fail_scale(const encode_job *job, uint64_t block_row, uint64_t block_col,
                            float scale)
{
    return ckpt_fail(job->err, CKPT_E_INEXACT,
                     "tensor '%s', block [%llu, %llu]: scale %.9g is not exact in %s, and "
                     "--allow-lossy does not round scales", job->to->name,
                     (unsigned long long)block_row, (unsigned long long)block_col, (double)scale,
                     ckpt_dtype_name(job->to->scale_dtype));
}

/* ---- checking the source ---- */

/* Tests many codes at a time: adding 1 to the low seven bits carries into bit 7 only for 0x7F. */
static int has_nan_code(const uint8_t *codes, uint64_t count)
{
    typedef uint8_t codes16 __attribute__((vector_size(16)));
    codes16 many = { 0 };
    uint8_t seen = 0;
    uint64_t i = 0;

    for (; i + sizeof many <= count; i += sizeof many) {
        codes16 some;

        memcpy(&some, codes + i, sizeof some);
        many |= (some & 0x7F) + 1;
    }
    for (size_t k = 0; k < sizeof many; k++)
        seen |= many[k];
    for (; i < count; i++)
        seen |= (uint8_t)((codes[i] & 0x7F) + 1);
    return (seen & 0x80) != 0;
}

static ckpt_code fail_nan_code(const encode_job *job)
{
    const uint64_t row_bytes = ckpt_part_row_bytes(job->from, CKPT_DATA);
    const uint8_t *codes = job->in->part[CKPT_DATA];
    uint64_t i = 0;

    while ((codes[i] & 0x7F) != 0x7F)
        i++;
    return ckpt_fail(job->err, CKPT_E_FORMAT,
                     "tensor '%s', row %llu, column %llu: code 0x%02X is NaN", job->from->name,
                     (unsigned long long)(job->range->row + i / row_bytes),
                     (unsigned long long)(i % row_bytes), codes[i]);
}

static int scale_is_odd(const encode_job *job, uint64_t i)
{
    const float scale = scale_get(job->kernels, job->from->scale_dtype,
                                     job->in->part[CKPT_SCALE], i);

    return !(scale > 0 && scale < __builtin_inff()) &&
           !(scale == 0 && encoding_of(job->from)->has_zero_scales);
}

static ckpt_code check_scales(const encode_job *job)
{
    const ckpt_tensor *t = job->from;
    const uint64_t cols = ckpt_part_cols(t, CKPT_SCALE);
    const uint64_t width = ckpt_dtype_bits(t->scale_dtype) / 8;
    const uint8_t *scales = job->in->part[CKPT_SCALE];
    const uint64_t count = job->in->part_bytes[CKPT_SCALE] / width;
    uint64_t row;
    uint64_t rows;

    if (t->scale_dtype == CKPT_F8_E8M0 && scale_e8m0_within(scales, count, 0x00, 0xFE))
        return CKPT_OK;
    for (uint64_t i = 0; i < count; i++) {
        if (!scale_is_odd(job, i))
            continue;
        source_scale_rows(t, job->range, &row, &rows);
        if (t->scale_dtype == CKPT_F8_E8M0)
            return ckpt_fail(job->err, CKPT_E_FORMAT,
                             "tensor '%s', block [%llu, %llu]: scale byte 0x%02X is NaN",
                             t->name, (unsigned long long)(row + i / cols),
                             (unsigned long long)(i % cols), scales[i]);
        return ckpt_fail(job->err, CKPT_E_FORMAT,
                         "tensor '%s', block [%llu, %llu]: the scale is not a positive number",
                         t->name, (unsigned long long)(row + i / cols),
                         (unsigned long long)(i % cols));
    }
    return CKPT_OK;
}

/* Scales with a sign, and NaN, mean something else in blocks of NVFP4 than apart. */
static ckpt_code check_block_scales(const encode_job *job)
{
    const uint64_t cols = ckpt_part_cols(job->from, CKPT_SCALE);
    const uint8_t *scales = job->in->part[CKPT_SCALE];
    uint64_t row;
    uint64_t rows;

    if (job->from->scale_dtype != CKPT_F8_E4M3 || job->to->scale_dtype != CKPT_F8_E4M3 ||
        (job->from->stored_form == CKPT_FORM_NVFP4) == (job->to->stored_form == CKPT_FORM_NVFP4))
        return CKPT_OK;
    for (uint64_t i = 0; i < job->in->part_bytes[CKPT_SCALE]; i++) {
        if (scales[i] < 0x7F)
            continue;
        source_scale_rows(job->from, job->range, &row, &rows);
        return ckpt_fail(job->err, CKPT_E_FORMAT, "tensor '%s', block [%llu, %llu]: scale byte "
                         "0x%02X has a sign or is NaN, which blocks of NVFP4 ignore and scales "
                         "apart do not", job->from->name, (unsigned long long)(row + i / cols),
                         (unsigned long long)(i % cols), scales[i]);
    }
    return CKPT_OK;
}

ckpt_code encode_check_source(const encode_job *job)
{
    const int odd_ones_pass = job->options->allow_odd_scales;
    ckpt_code code;

    if (!odd_ones_pass && job->from->dtype == CKPT_F8_E4M3 &&
        job->from->scale_dtype != CKPT_NONE &&
        has_nan_code(job->in->part[CKPT_DATA], job->in->part_bytes[CKPT_DATA]))
        return fail_nan_code(job);
    if (!odd_ones_pass && job->from->scale_dtype != CKPT_NONE &&
        ((code = values_check_whole_scale(job->from, job->in, job->err)) != CKPT_OK ||
         (code = check_scales(job)) != CKPT_OK))
        return code;
    if ((code = check_block_scales(job)) != CKPT_OK)
        return code;
    return values_check(job->from, job->range, job->in, job->err);
}

/* ---- scale dtype ---- */

ckpt_code encode_scales(encode_job *job)
{
    const uint64_t cols = ckpt_part_cols(job->to, CKPT_SCALE);
    const uint64_t count =
        job->in->part_bytes[CKPT_SCALE] * 8 / ckpt_dtype_bits(job->from->scale_dtype);
    uint64_t row;
    uint64_t rows;

    memcpy(job->out->part[CKPT_DATA], job->in->part[CKPT_DATA], job->in->part_bytes[CKPT_DATA]);
    if (job->out->part[CKPT_TENSOR_SCALE] != NULL)
        memcpy(job->out->part[CKPT_TENSOR_SCALE], job->in->part[CKPT_TENSOR_SCALE],
               job->in->part_bytes[CKPT_TENSOR_SCALE]);
    source_scale_rows(job->to, job->range, &row, &rows);
    for (uint64_t i = 0; i < count; i++) {
        const float scale =
            scale_get(job->kernels, job->from->scale_dtype, job->in->part[CKPT_SCALE], i);

        if (!scale_put(job->kernels, job->to->scale_dtype, job->out->part[CKPT_SCALE], i, scale))
            return encode_fail_scale(job, row + i / cols, i % cols, scale);
    }
    return CKPT_OK;
}

/* ---- plain elements ---- */

uint64_t encode_plain_need(const ckpt_tensor *from)
{
    return values_need(from) + 2 * arena_cost(ckpt_tensor_cols(from) * sizeof(int64_t));
}

/* Count the elements that differ after a round trip through the narrow type. A number that would
 * become an infinity is refused, also if rounding is allowed. */
static ckpt_code check_row(encode_job *job, uint64_t row, const float *values, const float *back)
{
    const uint64_t cols = ckpt_tensor_cols(job->to);

    if (memcmp(values, back, cols * sizeof *values) == 0)
        return CKPT_OK;
    for (uint64_t c = 0; c < cols; c++) {
        if (memcmp(&values[c], &back[c], sizeof values[c]) == 0)
            continue;
        if (isinf(back[c]))
            return encode_fail_beyond(job, row, c);
        if (!job->options->allow_lossy)
            return encode_fail_inexact(job, row, c);
        job->stats.inexact++;
    }
    return CKPT_OK;
}

static ckpt_code put_floats(encode_job *job, uint64_t row, float *values, float *back)
{
    const uint64_t cols = ckpt_tensor_cols(job->to);
    void *out = (uint8_t *)job->out->part[CKPT_DATA] +
                row * ckpt_part_row_bytes(job->to, CKPT_DATA);

    switch (job->to->dtype) {
    case CKPT_BF16:
        job->kernels->f32_to_bf16(values, out, cols);
        job->kernels->bf16_to_f32(out, back, cols);
        return check_row(job, row, values, back);
    case CKPT_F16:
        job->kernels->f32_to_f16(values, out, cols);
        job->kernels->f16_to_f32(out, back, cols);
        return check_row(job, row, values, back);
    default:
        memcpy(out, values, cols * sizeof *values);
        return CKPT_OK;
    }
}

static ckpt_code put_integers(encode_job *job, uint64_t row, const int64_t *values)
{
    const uint64_t cols = ckpt_tensor_cols(job->to);
    const uint32_t bytes = ckpt_dtype_bits(job->to->dtype) / 8;
    const int is_signed = job->to->dtype == CKPT_I8 || job->to->dtype == CKPT_I16 ||
                          job->to->dtype == CKPT_I32 || job->to->dtype == CKPT_I64;
    const int64_t high = bytes == 8 ? INT64_MAX
                                    : ((int64_t)1 << (8 * bytes - (is_signed ? 1 : 0))) - 1;
    const int64_t low = is_signed ? -high - 1 : 0;
    uint8_t *out = (uint8_t *)job->out->part[CKPT_DATA] + row * cols * bytes;

    for (uint64_t c = 0; c < cols; c++) {
        if (values[c] < low || values[c] > high)
            return encode_fail_beyond(job, row, c);
        memcpy(out + c * bytes, &values[c], bytes);     /* little endian */
    }
    return CKPT_OK;
}

ckpt_code encode_plain(encode_job *job)
{
    const uint64_t cols = ckpt_tensor_cols(job->from);
    const int is_int = ckpt_tensor_is_int(job->from);
    const size_t mark = arena_mark(job->scratch);
    values_reader values;
    ckpt_code code;
    void *row;
    void *back;

    if ((code = values_begin(&values, job->from, job->in, job->scratch, job->err)) != CKPT_OK)
        return code;
    row = arena_alloc(job->scratch, cols * sizeof(int64_t));
    back = arena_alloc(job->scratch, cols * sizeof(int64_t));
    if (row == NULL || back == NULL)
        return ckpt_fail_memory(job->err, "a row", cols * sizeof(int64_t));
    for (uint64_t r = 0; r < job->range->row_count && code == CKPT_OK; r++) {
        uint16_t *out = (uint16_t *)job->out->part[CKPT_DATA] + r * cols;
        const uint16_t *exact;

        if (is_int) {
            values_i64(&values, r, row);
            code = put_integers(job, r, row);
        } else if (job->to->dtype != CKPT_BF16 || !values_bf16(&values, r, out, &exact)) {
            values_f32(&values, r, 0, cols, row);
            code = put_floats(job, r, row, back);
        }
    }
    arena_rewind(job->scratch, mark);
    return code;
}
