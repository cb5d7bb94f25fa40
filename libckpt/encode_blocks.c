/* Encodes any float type as FP8 blocks or FP4 groups, with given scales or by canonical rules. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "encode_job.h"
#include "scale.h"
#include "size.h"

/* ---- FP8 ---- */

/* Bytes for the values of one block. */
static uint64_t panel_bytes(const ckpt_tensor *to)
{
    return to->block_rows * size_min(to->block_cols, ckpt_tensor_cols(to)) * sizeof(float);
}

uint64_t encode_fp8_need(const ckpt_tensor *from, const ckpt_tensor *to)
{
    return values_need(from) + arena_cost(panel_bytes(to));
}

/* The values of one block, which is smaller at the last row and column of the tensor. */
typedef struct {
    const float *panel;
    uint64_t pitch;
    uint64_t rows;
    uint64_t width;
} block;

static float value_at(const block *b, uint64_t i)
{
    return b->panel[i / b->width * b->pitch + i % b->width];
}

/*
 * Scales taken from another checkpoint fit that checkpoint's values. A value far beyond their range
 * was changed since, and would be clamped, which is more than rounding. The limit is the midpoint
 * between the largest number of the format and the next one that it would have with more range.
 */
static ckpt_code fail_saturated(const encode_job *job, uint64_t row, uint64_t col, float value,
                                float largest)
{
    return ckpt_fail(job->err, CKPT_E_INEXACT,
                     "tensor '%s', row %llu, column %llu: %.9g is larger than %.9g, the maximum "
                     "for the scale of --like: its block has changed and needs a scale of its "
                     "own: %s",
                     job->to->name, (unsigned long long)(job->range->row + row),
                     (unsigned long long)col, (double)value, (double)largest,
                     job->from->scale_dtype == CKPT_NONE
                         ? "--quantize RULE makes one, and --allow-lossy by fp8-ue8m0 or fp4"
                         : "cast to BF16 first, then --quantize, --allow-lossy or not");
}

enum { FP8_LIMIT = 464, FP4_LIMIT = 7 };

/* The first element of a block that saturates; rows * width when none does. */
static uint64_t find_saturated(const block *b, double limit)
{
    uint64_t i = 0;

    while (i < b->rows * b->width && fabs((double)value_at(b, i)) <= limit)
        i++;
    return i;
}

static ckpt_code check_block_fits(const encode_job *job, uint64_t row, uint64_t col,
                                  const block *b, float scale)
{
    const uint64_t i = find_saturated(b, (double)scale * FP8_LIMIT);

    if (i == b->rows * b->width)
        return CKPT_OK;
    return fail_saturated(job, row + i / b->width, col + i % b->width, value_at(b, i),
                          scale * encoding_of(job->to)->largest);
}

/*
 * If scales are not powers of two, BF16 has rounded the products, and no code yields a BF16 value
 * exactly. But with the given scale the original code can still be found: products of neighbouring
 * codes differ by at least 2^-4 relatively, and BF16 rounds by at most 2^-9. So a code whose
 * product rounds to the value is the original one. Counts the values for which that does not hold.
 */
static encode_result count_lost(const encode_job *job, const block *b, float scale,
                                const uint8_t *codes, uint64_t pitch)
{
    encode_result lost = { 0, 0 };
    uint16_t back[FP8_BLOCK];

    for (uint64_t r = 0; r < b->rows; r++) {
        job->kernels->fp8_row_to_bf16(codes + r * pitch, &scale, b->width, back);
        for (uint64_t c = 0; c < b->width; c++) {
            uint32_t bits;

            memcpy(&bits, &b->panel[r * b->pitch + c], sizeof bits);
            if (bits >> 16 == back[c])
                continue;
            if (lost.inexact_count++ == 0)
                lost.first_inexact = r * b->width + c;
        }
    }
    return lost;
}

static ckpt_code encode_block(encode_job *job, uint64_t block_row, uint64_t block_col,
                              const block *b)
{
    const uint64_t cols = ckpt_tensor_cols(job->to);
    const uint64_t row = block_row * job->to->block_rows;
    const uint64_t col = block_col * job->to->block_cols;
    const uint64_t first_block = job->range->row / job->to->block_rows;
    const uint64_t place = block_row * ckpt_part_cols(job->to, CKPT_SCALE) + block_col;
    const float amax = job->kernels->f32_block_amax(b->panel, b->rows, b->width, b->pitch);
    uint8_t *codes = (uint8_t *)job->out->part[CKPT_DATA] + row * cols + col;
    encode_result result;
    ckpt_code code = CKPT_OK;
    float scale;

    if (!isfinite(amax))
        return ckpt_fail(job->err, CKPT_E_FORMAT,
                         "tensor '%s', block [%llu, %llu]: a value is NaN or infinite",
                         job->to->name,
                         (unsigned long long)(first_block + block_row),
                         (unsigned long long)block_col);
    scale = job->given_scales == NULL
                ? fp8_scale_pow2(amax)
                : scale_get(job->kernels, job->to->scale_dtype, job->given_scales, place);
    if (!scale_put(job->kernels, job->to->scale_dtype, job->out->part[CKPT_SCALE], place, scale))
        return encode_fail_scale(job, first_block + block_row, block_col, scale);
    result = job->kernels->f32_block_to_fp8(b->panel, b->rows, b->width, b->pitch, scale, codes,
                                            cols);
    if (result.inexact_count > 0 && job->given_scales != NULL && job->from->dtype == CKPT_BF16) {
        const uint64_t rounded = result.inexact_count;

        result = count_lost(job, b, scale, codes, cols);
        job->stats.returned += rounded - result.inexact_count;
    }
    if (result.inexact_count == 0)
        return CKPT_OK;
    if (job->given_scales != NULL)
        code = check_block_fits(job, row, col, b, scale);
    if (code == CKPT_OK && !job->options->allow_lossy)
        code = encode_fail_inexact(job, row + result.first_inexact / b->width,
                                   col + result.first_inexact % b->width);
    job->stats.inexact += result.inexact_count;
    return code;
}

ckpt_code encode_fp8(encode_job *job)
{
    const uint64_t cols = ckpt_tensor_cols(job->to);
    const uint64_t block_rows = job->to->block_rows;
    const uint64_t block_cols = job->to->block_cols;
    const size_t mark = arena_mark(job->scratch);
    values_reader values;
    ckpt_code code;
    float *panel;

    assert(block_cols <= FP8_BLOCK);            /* the kernels use one scale for that many */
    if ((code = values_begin(&values, job->from, job->in, job->scratch, job->err)) != CKPT_OK)
        return code;
    panel = arena_alloc(job->scratch, panel_bytes(job->to));
    if (panel == NULL)
        return ckpt_fail_memory(job->err, "a block", panel_bytes(job->to));
    for (uint64_t row = 0; row < job->range->row_count; row += block_rows) {
        const uint64_t rows = size_min(block_rows, job->range->row_count - row);

        for (uint64_t col = 0; col < cols && code == CKPT_OK; col += block_cols) {
            const block b = { panel, size_min(block_cols, cols), rows,
                              size_min(block_cols, cols - col) };

            for (uint64_t r = 0; r < rows; r++)
                values_f32(&values, row + r, col, b.width, panel + r * b.pitch);
            code = encode_block(job, row / block_rows, col / block_cols, &b);
        }
    }
    arena_rewind(job->scratch, mark);
    return code;
}

/* ---- FP4 ---- */

uint64_t encode_fp4_need(const ckpt_tensor *from)
{
    return values_need(from) + arena_cost(ckpt_tensor_cols(from) * sizeof(float));
}

enum { SCALE_MISFIT = -2 };

/* The exceptions within the tile, as a range of the sorted list. */
typedef struct {
    const encode_exception *next;
    const encode_exception *end;
} exceptions_cursor;

static exceptions_cursor find_exceptions(const encode_job *job, uint64_t first_group)
{
    const encode_exception_table *given = job->options->exceptions_in;
    exceptions_cursor cursor = { NULL, NULL };
    size_t count = 0;

    if (given == NULL)
        return cursor;
    cursor.next = given->find(given, job->to->name, &count);
    cursor.end = cursor.next + count;
    while (count > 0) {                         /* binary search for first_group */
        const size_t half = count / 2;

        if (cursor.next[half].group < first_group) {
            cursor.next += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return cursor;
}

static int all_zero(const float *values, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (values[i] != 0)
            return 0;
    return 1;
}

/* 1 when a scale listed as an exception represents the values exactly. Else the values have
 * changed, and the scale is not used, not even with allow_lossy. */
static int fits_listed(const encode_job *job, uint8_t scale, const float *values)
{
    uint8_t codes[FP4_GROUP / 2];

    return job->kernels->f32_row_to_fp4(values, &scale, job->to->block_cols, codes)
               .inexact_count == 0;
}

static float group_amax(const encode_job *job, const float *values)
{
    return job->kernels->f32_block_amax(values, 1, job->to->block_cols, job->to->block_cols);
}

/* The scale of one group: that of an exception; or the canonical one; or, with allow_lossy, that of
 * DeepSeek's rule for values that are not exact in FP4 with any scale. Negative: there is none. */
static int group_scale(const encode_job *job, exceptions_cursor *cursor, uint64_t group,
                       const float *values)
{
    int scale;

    if (cursor->next < cursor->end && cursor->next->group == group) {
        const uint8_t listed = (cursor->next++)->scale;

        return fits_listed(job, listed, values) ? listed : SCALE_MISFIT;
    }
    scale = job->kernels->fp4_group_scale_exact(values);
    if (scale < 0 && job->options->allow_lossy && isfinite(group_amax(job, values)))
        scale = fp4_scale_code(group_amax(job, values));
    return scale;
}

static ckpt_code fail_group(const encode_job *job, ckpt_code code, uint64_t row, uint64_t group,
                            const char *what)
{
    return ckpt_fail(job->err, code, "tensor '%s', row %llu, group %llu: %s", job->to->name,
                     (unsigned long long)(job->range->row + row), (unsigned long long)group, what);
}

static ckpt_code scale_row(encode_job *job, exceptions_cursor *cursor, uint64_t row,
                           const float *values, uint8_t *scales)
{
    const uint64_t groups = ckpt_part_cols(job->to, CKPT_SCALE);
    const uint64_t first_group = (job->range->row + row) * groups;

    for (uint64_t g = 0; g < groups; g++, values += job->to->block_cols) {
        const int scale = group_scale(job, cursor, first_group + g, values);

        if (scale == SCALE_MISFIT)
            return fail_group(job, CKPT_E_FORMAT, row, g,
                              "its stored FP4 scale does not represent its values, which have "
                              "changed");
        if (scale < 0 && !isfinite(group_amax(job, values)))
            return fail_group(job, CKPT_E_FORMAT, row, g, "a value is NaN or infinite");
        if (scale < 0)
            return fail_group(job, CKPT_E_INEXACT, row, g,
                              "no FP4 scale represents its 32 values");
        job->stats.zero_groups += (uint64_t)all_zero(values, job->to->block_cols);
        scales[g] = (uint8_t)scale;
    }
    return CKPT_OK;
}

/* Refuse NaN and infinity, which have no code, also if rounding is allowed. */
static ckpt_code check_finite(const encode_job *job, uint64_t row, const float *values)
{
    for (uint64_t g = 0; g < ckpt_part_cols(job->to, CKPT_SCALE); g++)
        if (!isfinite(group_amax(job, values + g * job->to->block_cols)))
            return fail_group(job, CKPT_E_FORMAT, row, g, "a value is NaN or infinite");
    return CKPT_OK;
}

/* The same as check_block_fits for a row of groups. */
static ckpt_code check_row_fits(const encode_job *job, uint64_t row, const float *values,
                                const uint8_t *scales)
{
    for (uint64_t c = 0; c < ckpt_tensor_cols(job->to); c++) {
        float scale;

        job->kernels->e8m0_to_f32(scales + c / job->to->block_cols, &scale, 1);
        if (!(fabs((double)values[c]) < (double)scale * FP4_LIMIT))
            return fail_saturated(job, row, c, values[c], scale * encoding_of(job->to)->largest);
    }
    return CKPT_OK;
}

ckpt_code encode_fp4(encode_job *job)
{
    const uint64_t cols = ckpt_tensor_cols(job->to);
    const uint64_t groups = ckpt_part_cols(job->to, CKPT_SCALE);
    const size_t mark = arena_mark(job->scratch);
    exceptions_cursor cursor = find_exceptions(job, job->range->row * groups);
    values_reader values;
    ckpt_code code;
    float *row;

    assert(job->to->block_cols == FP4_GROUP);   /* the only size that the kernels support */
    if ((code = values_begin(&values, job->from, job->in, job->scratch, job->err)) != CKPT_OK)
        return code;
    row = arena_alloc(job->scratch, cols * sizeof *row);
    if (row == NULL)
        return ckpt_fail_memory(job->err, "a row", cols * sizeof *row);
    for (uint64_t r = 0; r < job->range->row_count && code == CKPT_OK; r++) {
        uint8_t *scales = (uint8_t *)job->out->part[CKPT_SCALE] + r * groups;
        encode_result result;

        values_f32(&values, r, 0, cols, row);
        if (job->given_scales != NULL)
            memcpy(scales, job->given_scales + r * groups, groups);
        else if ((code = scale_row(job, &cursor, r, row, scales)) != CKPT_OK)
            break;
        result = job->kernels->f32_row_to_fp4(row, scales, cols,
                                              (uint8_t *)job->out->part[CKPT_DATA] + r * cols / 2);
        if (result.inexact_count > 0 && (code = check_finite(job, r, row)) == CKPT_OK &&
            job->given_scales != NULL)
            code = check_row_fits(job, r, row, scales);
        if (code == CKPT_OK && result.inexact_count > 0 && !job->options->allow_lossy)
            code = encode_fail_inexact(job, r, result.first_inexact);
        job->stats.inexact += result.inexact_count;
    }
    arena_rewind(job->scratch, mark);
    return code;
}
