/*
 * encode_quantise.c: quantises one tile by a named rule, in panels that fit the cache. With an
 * original, blocks whose values did not change get the original's bytes.
 */
#include <math.h>
#include <string.h>

#include "encode_job.h"
#include "size.h"

/* A panel is 256 KB of values for blocks of 128 rows, 16 KB for blocks of one row. */
enum { PANEL_COLS = 512, FLAT_COLS = 2048, FLAT_ROWS = 2 };

/* The size of a panel. */
typedef struct {
    size_t rows;               /* at most */
    size_t cols;
    size_t block_count;        /* at most */
} panel_size;

static panel_size find_size(const ckpt_tensor *to)
{
    const uint64_t cols = ckpt_tensor_cols(to);
    const int is_tall = to->block_rows > 1;
    const size_t most = is_tall ? PANEL_COLS : to->block_cols > FLAT_COLS ? SIZE_MAX : FLAT_COLS;
    panel_size size = { is_tall ? to->block_rows : FLAT_ROWS, (size_t)size_min(cols, most), 0 };

    if (size.cols == cols && most == SIZE_MAX)
        size.rows = 1;
    size.block_count = (size_t)size_div_up(size.cols, size_min(to->block_cols, size.cols)) *
                       (is_tall ? 1 : size.rows);
    return size;
}

uint64_t encode_quantise_need(const ckpt_tensor *from, const ckpt_tensor *to, int has_original)
{
    const panel_size size = find_size(to);
    const uint64_t values = arena_cost((uint64_t)size.rows * size.cols * sizeof(float));

    return values_need(from) + (has_original ? values_need(to) : 0) + 2 * values +
           arena_cost(size.block_count) + arena_cost(size.cols * sizeof(uint16_t));
}

/* 1 when nothing but the codes' rounding changes the values: they need no panel of F32. */
static int takes_halves(const encode_job *job, const quantise_rule *rule)
{
    return job->from->dtype == CKPT_BF16 && job->from->scale_dtype == CKPT_NONE &&
           job->original == NULL && !job->options->zero_nonfinite && !rule->keeps_exact;
}

typedef struct {
    encode_job *job;
    const quantise_rule *rule;
    quantise_setup setup;
    panel_size size;
    values_reader values;
    values_reader original;    /* with job->original */
    int is_rescaled;           /* the original's tensor scale is not kept, so no block is kept */
    const uint16_t *halves;    /* the tile's BF16 values, if they are quantised as they are */
    float *panel;
    float *other;              /* the original's values */
    uint8_t *kept;
    uint16_t *narrow;          /* a row as BF16 */
    quantise_loss loss;
} work;

static ckpt_code begin(work *w)
{
    encode_job *job = w->job;
    arena *scratch = job->scratch;
    const size_t values = w->size.rows * w->size.cols * sizeof(float);
    ckpt_code code;

    if ((code = values_begin(&w->values, job->from, job->in, scratch, job->err)) != CKPT_OK ||
        (job->original != NULL && (code = values_begin(&w->original, job->to, job->original,
                                                       scratch, job->err)) != CKPT_OK))
        return code;
    w->panel = arena_alloc(scratch, values);
    w->other = arena_alloc(scratch, values);
    w->kept = arena_alloc(scratch, w->size.block_count);
    w->narrow = arena_alloc(scratch, w->size.cols * sizeof *w->narrow);
    if (w->panel == NULL || w->other == NULL || w->kept == NULL || w->narrow == NULL)
        return ckpt_fail_memory(job->err, "a panel", 2 * values);
    return CKPT_OK;
}

/*
 * Choose the tensor scale. Keep the original's if the largest value does not saturate with it,
 * because another tensor scale changes every block.
 */
static void choose_tensor_scale(work *w)
{
    const encode_job *job = w->job;
    float largest;
    float old = 0;

    if (!w->rule->has_tensor_scale)
        return;
    memcpy(&largest, &job->whole_maximum, sizeof largest);
    if (job->original != NULL && job->original->part[CKPT_TENSOR_SCALE] != NULL)
        memcpy(&old, job->original->part[CKPT_TENSOR_SCALE], sizeof old);
    w->is_rescaled = job->original != NULL && !(old > 0 && largest <= 2688.0f * old);
    w->setup.tensor_scale = job->original != NULL && !w->is_rescaled
                                ? old
                                : quantise_tensor_scale(w->rule, largest);
    memcpy(job->out->part[CKPT_TENSOR_SCALE], &w->setup.tensor_scale, sizeof(float));
}

/* ---- values ---- */

static void clear_odd(work *w, float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i])) {
            values[i] = 0;
            w->job->stats.replaced++;
        }
}

/* F32 masters are rounded to BF16 first, as exporters to FP8 and FP4 do, unless the rule's exporter
 * does not, or options->quantise_f32. */
static void fill_panel(work *w, const quantise_panel *p)
{
    const ckpt_kernels *k = w->job->kernels;
    const uint64_t row = p->first_row - w->job->range->row;

    for (size_t r = 0; r < p->rows; r++) {
        float *values = w->panel + r * p->pitch;

        values_f32(&w->values, row + r, p->first_col, p->cols, values);
        if (w->job->from->dtype == CKPT_F32 && !w->job->options->quantise_f32 &&
            !w->rule->keeps_f32) {
            k->f32_to_bf16(values, w->narrow, p->cols);
            k->bf16_to_f32(w->narrow, values, p->cols);
        }
        if (w->job->options->zero_nonfinite)
            clear_odd(w, values, p->cols);
        if (w->job->original != NULL)
            values_f32(&w->original, row + r, p->first_col, p->cols, w->other + r * p->pitch);
    }
}

static ckpt_code fail(const work *w, const quantise_panel *p, const quantise_result *result)
{
    const size_t at = (result->row - p->first_row) * p->pitch + (result->col - p->first_col);
    float value;
    const char *const name = w->job->to->name;
    const unsigned long long row = result->row;
    const unsigned long long col = result->col;

    if (p->halves != NULL)
        w->job->kernels->bf16_to_f32(p->halves + at, &value, 1);
    else
        value = w->panel[at];
    switch (result->outcome) {
    case QUANTISE_NOT_FINITE:
        return ckpt_fail(w->job->err, CKPT_E_FORMAT, "tensor '%s', row %llu, column %llu: the "
                         "value is %s, which no rule quantises; --nonfinite zero makes it 0", name,
                         row, col, isnan(value) ? "NaN" : "infinite");
    case QUANTISE_TOO_LARGE:
        if (w->rule->scale_dtype == CKPT_F16)
            return ckpt_fail(w->job->err, CKPT_E_FORMAT, "tensor '%s', row %llu, column %llu: %s "
                             "needs a scale for the block there that is more than F16 holds", name,
                             row, col, w->rule->name);
        return ckpt_fail(w->job->err, CKPT_E_FORMAT, "tensor '%s', row %llu, column %llu: %s makes "
                         "of %.9g a code that stands for more than BF16 holds", name, row, col,
                         w->rule->name, (double)value);
    default:
        return ckpt_fail(w->job->err, CKPT_E_FORMAT, "tensor '%s', row %llu, column %llu: the "
                         "tensor's values are too small for %s: its scale is 0 in F32", name, row,
                         col, w->rule->name);
    }
}

/* ---- blocks of the original ---- */

/* The rows of one part in the output and in the original, from a block on. */
typedef struct {
    uint8_t *to;
    const uint8_t *from;
    size_t pitch;
} part_rows;

static part_rows find_part(const work *w, ckpt_part part, uint64_t row, uint64_t col)
{
    const ckpt_tensor *t = w->job->to;
    const size_t pitch = (size_t)ckpt_part_row_bytes(t, part);
    const uint64_t at = row * pitch + col * ckpt_dtype_bits(part == CKPT_DATA ? t->dtype
                                                                             : t->scale_dtype) / 8;

    return (part_rows){ (uint8_t *)w->job->out->part[part] + at,
                        w->job->original == NULL
                            ? NULL : (const uint8_t *)w->job->original->part[part] + at, pitch };
}

static void copy_kept(const work *w, const quantise_panel *p, const part_rows *codes,
                      const part_rows *scales)
{
    const size_t height = w->rule->block_rows;
    const size_t width = (size_t)size_min(w->rule->block_cols, p->cols);
    const size_t count = (size_t)size_div_up(p->cols, width);
    const size_t bits = ckpt_dtype_bits(w->rule->codes);
    const size_t scale_bytes = ckpt_dtype_bits(w->job->to->scale_dtype) / 8;

    for (size_t i = 0; i < (size_t)size_div_up(p->rows, height) * count; i++) {
        const size_t first_row = i / count * height;
        const size_t col = i % count * width;
        const size_t bytes = size_min(width, p->cols - col) * bits / 8;

        if (!w->kept[i])
            continue;
        memcpy(scales->to + i / count * scales->pitch + i % count * scale_bytes,
               scales->from + i / count * scales->pitch + i % count * scale_bytes, scale_bytes);
        for (size_t r = first_row; r < size_min(first_row + height, p->rows); r++)
            memcpy(codes->to + r * codes->pitch + col * bits / 8,
                   codes->from + r * codes->pitch + col * bits / 8, bytes);
    }
}

/* ---- panels ---- */

static ckpt_code quantise_panel_at(work *w, uint64_t row, uint64_t col)
{
    const encode_job *job = w->job;
    const ckpt_tensor *to = job->to;
    const uint64_t block_col = col / size_min(to->block_cols, ckpt_tensor_cols(to));
    const part_rows codes = find_part(w, CKPT_DATA, row, col);
    const part_rows scales = find_part(w, CKPT_SCALE, row / to->block_rows, block_col);
    const quantise_target target = { codes.to, codes.pitch, scales.to, scales.pitch,
                                     to->scale_dtype };
    quantise_panel p = {
        .values = w->panel,
        .rows = (size_t)size_min(w->size.rows, job->range->row_count - row),
        .cols = (size_t)size_min(w->size.cols, ckpt_tensor_cols(to) - col),
        .pitch = w->size.cols,
        .first_row = job->range->row + row,
        .first_col = col,
    };
    quantise_result result;

    if (w->halves != NULL) {
        p.pitch = (size_t)ckpt_tensor_cols(to);
        p.halves = w->halves + row * p.pitch + col;
        p.values = NULL;
    } else {
        fill_panel(w, &p);
    }
    if (job->original != NULL && !w->is_rescaled) {
        quantise_find_kept(&w->setup, &p, w->other, w->kept);
        copy_kept(w, &p, &codes, &scales);
        p.kept = w->kept;
        p.original = w->other;
        if (job->options->sticky_scale && to->scale_dtype == CKPT_F8_E8M0) {
            p.sticky = scales.from;
            p.sticky_pitch = scales.pitch;
        }
    } else if (w->rule->keeps_exact) {
        memset(w->kept, 0, w->size.block_count);
        quantise_keep_exact(&w->setup, &p, &target, w->kept);
        p.kept = w->kept;
        p.original = w->panel;
    }
    result = quantise_panel_run(&w->setup, &p, &target, &w->loss);
    return result.outcome == QUANTISE_DONE ? CKPT_OK : fail(w, &p, &result);
}

ckpt_code encode_quantise(encode_job *job, const quantise_rule *rule, quantise_loss *loss)
{
    work w = {
        .job = job,
        .rule = rule,
        .setup = { job->kernels, rule, 1.0f },
        .size = find_size(job->to),
    };
    const size_t mark = arena_mark(job->scratch);
    ckpt_code code = CKPT_OK;

    if (takes_halves(job, rule)) {
        w.halves = job->in->part[CKPT_DATA];
        w.size.cols = (size_t)ckpt_tensor_cols(job->to);        /* no panel has to fit a cache */
        if (job->to->block_rows == 1)
            w.size.rows = (size_t)job->range->row_count;
    } else {
        code = begin(&w);
    }
    choose_tensor_scale(&w);
    for (uint64_t row = 0; row < job->range->row_count && code == CKPT_OK; row += w.size.rows)
        for (uint64_t col = 0; col < ckpt_tensor_cols(job->to) && code == CKPT_OK;
             col += w.size.cols)
            code = quantise_panel_at(&w, row, col);
    arena_rewind(job->scratch, mark);
    job->stats.inexact += w.loss.rounded;
    *loss = w.loss;
    return code;
}
