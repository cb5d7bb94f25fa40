/*
 * quantise.c: quantises one panel by one rule: maxima, scales, codes. Works on runs of blocks that
 * are small enough to stay in the cache between the three steps.
 */
#include "quantise.h"

#include <assert.h>
#include <string.h>

#include "scale.h"
#include "size.h"

enum { RUN_COLS = 8192, RUN_BLOCKS = 512 };     /* of blocks of 16 or 32 columns */

static const quantise_result done = { QUANTISE_DONE, 0, 0 };

/* Adjacent blocks of a block row, `rows` high, that are quantised together. */
typedef struct {
    size_t row;                 /* of the panel */
    size_t rows;
    size_t first_block;         /* of the block row */
    size_t block_count;
    size_t col;                 /* of the panel */
    size_t cols;
    size_t row_cols;            /* of the panel that was given, whose rows may have become one */
} run;

/* The width of a block; a block of a whole row is as wide as the panel. */
static size_t block_width(const quantise_rule *rule, const quantise_panel *p)
{
    return size_min(rule->block_cols, p->cols);
}

/* A position in the tensor. */
typedef struct {
    uint64_t row;
    uint64_t col;
} place;

static place place_of(const quantise_panel *p, const run *r, uint64_t row, uint64_t col)
{
    return (place){ p->first_row + row + col / r->row_cols, p->first_col + col % r->row_cols };
}

static quantise_result fail_at(quantise_outcome outcome, const quantise_panel *p, const run *r,
                               size_t row, size_t col)
{
    const place at = place_of(p, r, row, col);

    return (quantise_result){ outcome, at.row, at.col };
}

static const float *values_at(const quantise_panel *p, size_t row, size_t col)
{
    return p->values == NULL ? NULL : p->values + row * p->pitch + col;
}

static const uint16_t *halves_at(const quantise_panel *p, size_t row, size_t col)
{
    return p->halves == NULL ? NULL : p->halves + row * p->pitch + col;
}

static float value_at(const quantise_setup *s, const quantise_panel *p, size_t row, size_t col)
{
    float value;

    if (p->values != NULL)
        memcpy(&value, values_at(p, row, col), sizeof value);
    else
        s->kernels->bf16_to_f32(halves_at(p, row, col), &value, 1);
    return value;
}

/* ---- what is refused ---- */

static int is_finite(float value)
{
    return value - value == 0;
}

static float largest_of(const quantise_setup *s, const float *values, size_t count)
{
    return s->kernels->f32_block_amax(values, 1, count, count);
}

static quantise_result fail_not_finite(const quantise_setup *s, const quantise_panel *p,
                                       const run *r)
{
    for (size_t row = r->row; row < r->row + r->rows; row++)
        for (size_t col = r->col; col < r->col + r->cols; col++)
            if (!is_finite(value_at(s, p, row, col)))
                return fail_at(QUANTISE_NOT_FINITE, p, r, row, col);
    assert(!"a maximum that is no maximum of its block");
    return done;
}

/* The scale of a block is not finite: name the place of its maximum, which is why. */
static quantise_result fail_at_largest(const quantise_setup *s, const quantise_panel *p,
                                       const run *r, size_t block, float largest)
{
    const size_t width = block_width(s->rule, p);
    const size_t end = r->col + size_min((block + 1) * width, r->cols);

    for (size_t row = r->row; row < r->row + r->rows; row++)
        for (size_t col = r->col + block * width; col < end; col++) {
            const float value = value_at(s, p, row, col);

            if (value == largest || -value == largest)
                return fail_at(QUANTISE_TOO_LARGE, p, r, row, col);
        }
    assert(!"a maximum that its block does not have");
    return done;
}

/* Decode the codes of one row, without their scales. Not for int8: its scales are F16, so that no
 * value is as large as those that are decoded here. */
static void decode(const quantise_setup *s, const uint8_t *codes, size_t count, float *out)
{
    if (s->rule->codes == CKPT_F4)
        s->kernels->e2m1_to_f32(codes, out, count);
    else
        s->kernels->e4m3_to_f32(codes, out, count);
}

/*
 * A code that was rounded up may decode to more than its value. Only blocks with values of 2^127
 * and more can reach 2^128 - 2^119, which BF16 rounds to infinity.
 */
static quantise_result check_products(const quantise_setup *s, const quantise_panel *p,
                                      const run *r, const quantise_target *t, const float *scales)
{
    const size_t width = block_width(s->rule, p);
    const size_t bits = ckpt_dtype_bits(s->rule->codes);
    float values[FP8_BLOCK];

    for (size_t row = r->row; row < r->row + r->rows; row++)
        for (size_t i = 0; i < r->cols; i += FP8_BLOCK) {
            const size_t count = size_min(FP8_BLOCK, r->cols - i);
            const uint8_t *codes = t->codes + row * t->codes_pitch + (r->col + i) * bits / 8;

            decode(s, codes, count, values);
            for (size_t k = 0; k < count; k++) {
                const float product = values[k] * scales[(i + k) / width] *
                                      s->tensor_scale;

                if (product >= 0x1.FFp127f || product <= -0x1.FFp127f)
                    return fail_at(QUANTISE_TOO_LARGE, p, r, row, r->col + i + k);
            }
        }
    return done;
}

/* ---- the steps ---- */

static void find_maxima(const quantise_setup *s, const quantise_panel *p, const run *r, float *amax)
{
    const ckpt_kernels *k = s->kernels;
    const float *values = values_at(p, r->row, r->col);
    const uint16_t *halves = halves_at(p, r->row, r->col);

    if (s->rule->block_cols >= FP8_BLOCK)
        amax[0] = values != NULL ? k->f32_block_amax(values, r->rows, r->cols, p->pitch)
                                 : k->bf16_block_amax(halves, r->rows, r->cols, p->pitch);
    else if (values != NULL)
        k->f32_group_amax(values, r->block_count, s->rule->block_cols, amax);
    else
        k->bf16_group_amax(halves, r->block_count, s->rule->block_cols, amax);
}

/*
 * Keep an original's scale if the rule's own is at most one power of two away and the block's
 * maximum does not saturate with it, so that elements that did not change keep their codes.
 */
static void keep_sticky(const quantise_setup *s, const quantise_panel *p, const run *r,
                        const float *amax, const block_scales *scales)
{
    const float largest = s->rule->codes == CKPT_F4 ? 6 : 448;
    const uint8_t *codes =
        p->sticky + r->row / s->rule->block_rows * p->sticky_pitch + r->first_block;

    for (size_t b = 0; b < r->block_count; b++) {
        const int distance = codes[b] - scales->code[b];
        float scale;

        s->kernels->e8m0_to_f32(&codes[b], &scale, 1);
        if (distance < -1 || distance > 1 || !(amax[b] <= largest * scale))
            continue;
        scales->code[b] = codes[b];
        scales->scale[b] = scale;
        scales->divisor[b] = scale;
        scales->peak[b] = amax[b] / scale;
    }
}

/* The maxima are finite. */
static quantise_result make_scales(const quantise_setup *s, const quantise_panel *p, const run *r,
                                   const float *amax, const block_scales *scales)
{
    const size_t width = block_width(s->rule, p);

    s->kernels->amax_to_scale(s->rule->scales, amax, r->block_count, s->tensor_scale, scales);
    if (p->sticky != NULL && s->rule->scale_dtype == CKPT_F8_E8M0)
        keep_sticky(s, p, r, amax, scales);
    if (is_finite(largest_of(s, scales->peak, r->block_count)) &&
        is_finite(largest_of(s, scales->scale, r->block_count)))
        return done;
    for (size_t b = 0; b < r->block_count; b++) {
        if (!(scales->divisor[b] > 0))
            return fail_at(QUANTISE_TOO_SMALL, p, r, r->row, r->col + b * width);
        if (!is_finite(scales->divisor[b]) || !is_finite(scales->scale[b]))
            return fail_at_largest(s, p, r, b, amax[b]);
    }
    return done;
}

static void store_scales(const quantise_setup *s, const run *r, const quantise_target *t,
                         const block_scales *scales)
{
    uint8_t *to = t->scales + r->row / s->rule->block_rows * t->scales_pitch +
                  r->first_block * ckpt_dtype_bits(t->scale_dtype) / 8;

    if (t->scale_dtype == CKPT_F32)
        memcpy(to, scales->scale, r->block_count * sizeof *scales->scale);
    else if (t->scale_dtype == CKPT_F16)
        s->kernels->f32_to_f16(scales->scale, (uint16_t *)(void *)to, r->block_count);
    else
        memcpy(to, scales->code, r->block_count);
}

/* The largest float below a positive one. */
static float float_below(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    bits -= bits > 0;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Of equal largest errors the first by rows counts: one in this run that equals that so far is of
 * no interest if it comes later. */
static float known_error(const quantise_loss *loss, const quantise_panel *p, const run *r)
{
    const place at = place_of(p, r, r->row, r->col);
    const int is_later = at.row > loss->max_row ||
                         (r->rows == 1 && at.row == loss->max_row && at.col > loss->max_col);

    return is_later ? loss->max_error : float_below(loss->max_error);
}

/* Add what a run lost. */
static void note_sums(const quantise_panel *p, const run *r, quantise_sums *sums,
                      quantise_loss *loss)
{
    const place largest = place_of(p, r, r->row + sums->max_row, r->col + sums->max_col);

    sums->max_row = largest.row;
    sums->max_col = largest.col;
    quantise_loss_note(loss, sums, 0, 0);
    loss->elements += (uint64_t)r->rows * r->cols;
}

static void encode(const quantise_setup *s, const quantise_input *in, uint8_t *codes,
                   size_t codes_pitch, quantise_sums *sums)
{
    if (s->rule->codes == CKPT_F4)
        s->kernels->quantise_e2m1(in, codes, codes_pitch, sums);
    else if (s->rule->codes == CKPT_I8)
        s->kernels->quantise_int8(in, codes, codes_pitch, sums);
    else
        s->kernels->quantise_e4m3(in, codes, codes_pitch, sums);
}

static quantise_result quantise_blocks(const quantise_setup *s, const quantise_panel *p,
                                       const run *r, const quantise_target *t, quantise_loss *loss)
{
    float amax[RUN_BLOCKS];
    float scale[RUN_BLOCKS];
    float divisor[RUN_BLOCKS];
    float peak[RUN_BLOCKS];
    uint8_t code[RUN_BLOCKS];
    const block_scales scales = { scale, divisor, peak, code };
    const quantise_input in = {
        values_at(p, r->row, r->col), r->rows, r->cols, p->pitch, scale, divisor, peak,
        s->rule->block_cols, s->tensor_scale, halves_at(p, r->row, r->col),
        known_error(loss, p, r)
    };
    uint8_t *codes = t->codes + r->row * t->codes_pitch +
                     r->col * ckpt_dtype_bits(s->rule->codes) / 8;
    float largest;
    quantise_sums sums;
    quantise_result result;

    find_maxima(s, p, r, amax);
    largest = largest_of(s, amax, r->block_count);
    if (!is_finite(largest))
        return fail_not_finite(s, p, r);
    if ((result = make_scales(s, p, r, amax, &scales)).outcome != QUANTISE_DONE)
        return result;
    encode(s, &in, codes, t->codes_pitch, &sums);
    if (largest >= 0x1p127f &&
        (result = check_products(s, p, r, t, scale)).outcome != QUANTISE_DONE)
        return result;
    store_scales(s, r, t, &scales);
    note_sums(p, r, &sums, loss);
    return done;
}

/* ---- kept blocks ---- */

/* Count the loss of kept blocks: differences between the original's decoded values and the given
 * ones, which BF16 causes if scales are not powers of two. These do not count as rounded, because
 * the bytes are the original's. */
static void note_kept(const quantise_panel *p, const run *r, quantise_loss *loss)
{
    enum { LANES = 16 };
    double values[LANES] = { 0 };
    double errors[LANES] = { 0 };
    quantise_sums sums = { .rounded = 0 };

    for (size_t row = r->row; row < r->row + r->rows; row++) {
        const float *x = p->values + row * p->pitch + r->col;
        const float *y = p->original + row * p->pitch + r->col;

        for (size_t i = 0; i < r->cols; i++) {
            const float error = y[i] - x[i];
            const float size = error < 0 ? -error : error;

            values[i % LANES] += (double)x[i] * x[i];
            errors[i % LANES] += (double)error * error;
            if (size > sums.max_error) {
                sums.max_error = size;
                sums.max_row = row - r->row;
                sums.max_col = i;
            }
        }
    }
    for (size_t i = 0; i < LANES; i++) {
        sums.value_squares += values[i];
        sums.error_squares += errors[i];
    }
    note_sums(p, r, &sums, loss);
}

/* ---- panels ---- */

/* The number of blocks from `first` on that are quantised together: up to the next kept block. */
static size_t run_length(const uint8_t *kept, size_t first, size_t count, size_t most)
{
    const size_t left = size_min(count - first, most);
    size_t length = 0;

    if (kept == NULL)
        return left;
    while (length < left && kept[first + length] == 0)
        length++;
    return length;
}

/* `row_cols`: see run. */
static quantise_result quantise_runs(const quantise_setup *s, const quantise_panel *p,
                                     const quantise_target *t, size_t row_cols,
                                     quantise_loss *loss)
{
    const size_t height = s->rule->block_rows;
    const size_t width = block_width(s->rule, p);
    const size_t count = p->cols == 0 ? 0 : (size_t)size_div_up(p->cols, width);
    const size_t most = s->rule->block_cols >= FP8_BLOCK ? 1 : RUN_COLS / s->rule->block_cols;

    for (size_t row = 0; row < p->rows; row += height) {
        const uint8_t *kept = p->kept == NULL ? NULL : p->kept + row / height * count;
        size_t length;

        for (size_t b = 0; b < count; b += length) {
            run r = { row, size_min(height, p->rows - row), b, 0, b * width, 0, row_cols };
            quantise_result result;

            length = run_length(kept, b, count, most);
            loss->blocks += length > 0 ? length : 1;
            loss->kept_blocks += length == 0;
            r.block_count = length > 0 ? length : 1;
            r.cols = size_min(r.block_count * width, p->cols - r.col);
            if (length == 0) {
                length = 1;
                if (p->original != NULL)
                    note_kept(p, &r, loss);
                continue;
            }
            result = quantise_blocks(s, p, &r, t, loss);
            if (result.outcome != QUANTISE_DONE)
                return result;
        }
    }
    return done;
}

/* 1 when the rows of blocks of one row follow each other without gaps, as one row would. */
static int is_one_row(const quantise_setup *s, const quantise_panel *p, const quantise_target *t)
{
    const size_t blocks = p->cols / s->rule->block_cols;

    return s->rule->block_cols < FP8_BLOCK && p->values == NULL && p->kept == NULL &&
           p->sticky == NULL && p->pitch == p->cols &&
           t->codes_pitch == p->cols * ckpt_dtype_bits(s->rule->codes) / 8 &&
           t->scales_pitch == blocks * ckpt_dtype_bits(t->scale_dtype) / 8;
}

/* Runs of more than a row leave less to be done for each. */
quantise_result quantise_panel_run(const quantise_setup *s, const quantise_panel *p,
                                   const quantise_target *t, quantise_loss *loss)
{
    quantise_panel row = *p;

    assert(!s->rule->from_fp4 && quantise_rule_fits(s->rule, p->cols));
    assert(p->values != NULL || p->original == NULL);
    assert(s->rule->block_rows == 1 || p->rows <= s->rule->block_rows);
    assert(t->scale_dtype == s->rule->scale_dtype ||
           (t->scale_dtype == CKPT_F32 && s->rule->powers_of_two));
    if (!is_one_row(s, p, t))
        return quantise_runs(s, p, t, p->cols, loss);
    row.rows = p->rows > 0;
    row.cols = p->rows * p->cols;
    return quantise_runs(s, &row, t, p->cols, loss);
}

/* ---- unchanged blocks ---- */

/* Clear kept[] for the blocks of a block row that differ in this row. */
static void compare_row(const quantise_setup *s, const quantise_panel *p, size_t row,
                        const float *original, uint8_t *kept)
{
    const size_t width = block_width(s->rule, p);
    uint16_t x[FP8_BLOCK];
    uint16_t y[FP8_BLOCK];

    for (size_t col = 0; col < p->cols; col += FP8_BLOCK) {
        const size_t count = size_min(FP8_BLOCK, p->cols - col);

        s->kernels->f32_to_bf16(values_at(p, row, col), x, count);
        s->kernels->f32_to_bf16(original + row * p->pitch + col, y, count);
        for (size_t i = 0; i < count; i++)
            if (x[i] != y[i] || (x[i] & 0x7F80) == 0x7F80)
                kept[(col + i) / width] = 0;
    }
}

uint64_t quantise_find_kept(const quantise_setup *s, const quantise_panel *p, const float *original,
                            uint8_t *kept)
{
    const size_t height = s->rule->block_rows;
    const size_t width = block_width(s->rule, p);
    const size_t count = p->cols == 0 ? 0 : (size_t)size_div_up(p->cols, width);
    uint64_t kept_count = 0;

    for (size_t row = 0; row < p->rows; row++) {
        uint8_t *of_row = kept + row / height * count;

        if (row % height == 0)
            memset(of_row, 1, count);
        compare_row(s, p, row, original, of_row);
    }
    for (size_t i = 0; i < (size_t)size_div_up(p->rows, height) * count; i++)
        kept_count += kept[i];
    return kept_count;
}

/* ---- groups that are exact ---- */

uint64_t quantise_keep_exact(const quantise_setup *s, const quantise_panel *p,
                             const quantise_target *t, uint8_t *kept)
{
    const size_t count = p->cols / FP4_GROUP;
    uint64_t exact_count = 0;

    assert(s->rule->keeps_exact);
    for (size_t row = 0; row < p->rows; row++)
        for (size_t g = 0; g < count; g++) {
            const float *values = values_at(p, row, g * FP4_GROUP);
            const int scale = kept[row * count + g] ? -1
                                                    : s->kernels->fp4_group_scale_exact(values);
            uint8_t *to = t->scales + row * t->scales_pitch + g;

            if (scale < 0)
                continue;
            *to = (uint8_t)scale;
            s->kernels->f32_row_to_fp4(values, to, FP4_GROUP,
                                       t->codes + row * t->codes_pitch + g * FP4_GROUP / 2);
            kept[row * count + g] = 1;
            exact_count++;
        }
    return exact_count;
}
