/* Compares tiles with the result of a rule, block by block. */
#include "compare_rule.h"

#include <string.h>

#include "libckpt/encoding.h"
#include "libckpt/size.h"
#include "libckpt/values.h"

int compare_rule_makes(const quantise_rule *rule, const ckpt_tensor *b)
{
    return b->dtype == rule->codes && b->block_rows == rule->block_rows &&
           b->block_cols == rule->block_cols && !rule->from_fp4 &&
           quantise_rule_fits(rule, ckpt_tensor_cols(b)) &&
           (b->tensor_scale == CKPT_TENSOR_SCALE_FACTOR) == rule->has_tensor_scale &&
           b->tensor_scale != CKPT_TENSOR_SCALE_DIVISOR &&
           (b->scale_dtype == rule->scale_dtype ||
            (b->scale_dtype == CKPT_F32 && rule->powers_of_two));
}

/* Block rows per panel: one for tall blocks, several for flat ones, to reduce calls. */
static uint64_t panel_rows(const ckpt_tensor *b)
{
    return size_max(b->block_rows, 16);
}

/* State of one panel: rows of the tile that form whole block rows. */
typedef struct {
    const compare_pair *pair;
    values_reader a_values;
    values_reader b_values;
    quantise_setup setup;
    uint64_t cols;
    uint64_t code_row_bytes;
    uint64_t scale_row_bytes;
    uint64_t block_cols;           /* clipped to the matrix */
    float *a;                      /* rounded to BF16, unless the rule keeps F32 */
    float *b;
    uint16_t *rounded;             /* one row */
    uint8_t *kept;                 /* by block, row by row */
    uint8_t *codes;                /* by the rule */
    uint8_t *scales;
    int other_tensor_scale;        /* B's differs from that of the rule */
    uint64_t row;                  /* the panel's first row in the tile */
    uint64_t rows;
} rule_panel;

static uint64_t block_count(const ckpt_tensor *b)
{
    return ckpt_part_cols(b, CKPT_SCALE) * size_div_up(panel_rows(b), b->block_rows);
}

uint64_t compare_rule_need(const ckpt_tensor *a, const ckpt_tensor *b)
{
    const uint64_t cols = ckpt_tensor_cols(b);
    const uint64_t rows = panel_rows(b);

    return values_need(a) + values_need(b) + 2 * arena_cost(rows * cols * sizeof(float)) +
           arena_cost(cols * sizeof(uint16_t)) + arena_cost(block_count(b)) +
           arena_cost(rows * ckpt_part_row_bytes(b, CKPT_DATA)) +
           arena_cost(size_div_up(rows, b->block_rows) * ckpt_part_row_bytes(b, CKPT_SCALE));
}

static ckpt_code begin_panels(rule_panel *p, arena *scratch, ckpt_error *err)
{
    const ckpt_tensor *b = p->pair->b;
    const uint64_t rows = panel_rows(b);
    ckpt_code code;

    p->cols = ckpt_tensor_cols(b);
    p->block_cols = size_min(b->block_cols, p->cols);
    p->code_row_bytes = ckpt_part_row_bytes(b, CKPT_DATA);
    p->scale_row_bytes = ckpt_part_row_bytes(b, CKPT_SCALE);
    if ((code = values_begin(&p->a_values, p->pair->a, p->pair->a_tile, scratch, err)) !=
            CKPT_OK ||
        (code = values_begin(&p->b_values, b, p->pair->b_tile, scratch, err)) != CKPT_OK)
        return code;
    p->a = arena_alloc(scratch, rows * p->cols * sizeof *p->a);
    p->b = arena_alloc(scratch, rows * p->cols * sizeof *p->b);
    p->rounded = arena_alloc(scratch, p->cols * sizeof *p->rounded);
    p->kept = arena_alloc(scratch, block_count(b));
    p->codes = arena_alloc(scratch, rows * p->code_row_bytes);
    p->scales = arena_alloc(scratch, size_div_up(rows, b->block_rows) * p->scale_row_bytes);
    if (p->a == NULL || p->b == NULL || p->rounded == NULL || p->kept == NULL ||
        p->codes == NULL || p->scales == NULL)
        return ckpt_fail_memory(err, "blocks", rows * p->cols);
    return CKPT_OK;
}

/* ---- the result of the rule ---- */

static ckpt_code fail_values(const rule_panel *p, const quantise_result *result, ckpt_error *err)
{
    char text[VALUES_TEXT_BYTES];

    values_text(p->pair->a, p->pair->a_tile, result->row - p->pair->a_range->row, result->col,
                text);
    return ckpt_fail(err, CKPT_E_INEXACT,
                     "tensor '%s', row %llu, column %llu: %s cannot be quantised by rule '%s'",
                     p->pair->a->name, (unsigned long long)result->row,
                     (unsigned long long)result->col, text, p->setup.rule->name);
}

static ckpt_code make_panel(rule_panel *p, ckpt_error *err)
{
    const ckpt_kernels *k = p->setup.kernels;
    const quantise_panel panel = { .values = p->a, .rows = p->rows, .cols = p->cols,
                                   .pitch = p->cols, .kept = p->kept,
                                   .first_row = p->pair->a_range->row + p->row };
    const quantise_target target = { p->codes, p->code_row_bytes, p->scales, p->scale_row_bytes,
                                     p->pair->b->scale_dtype };
    quantise_loss loss;
    quantise_result result;

    memset(&loss, 0, sizeof loss);
    for (uint64_t r = 0; r < p->rows; r++) {
        values_f32(&p->a_values, p->row + r, 0, p->cols, p->a + r * p->cols);
        if (!p->setup.rule->keeps_f32) {
            k->f32_to_bf16(p->a + r * p->cols, p->rounded, p->cols);
            k->bf16_to_f32(p->rounded, p->a + r * p->cols, p->cols);
        }
        values_f32(&p->b_values, p->row + r, 0, p->cols, p->b + r * p->cols);
    }
    quantise_find_kept(&p->setup, &panel, p->b, p->kept);
    result = quantise_panel_run(&p->setup, &panel, &target, &loss);
    return result.outcome == QUANTISE_DONE ? CKPT_OK : fail_values(p, &result, err);
}

/* ---- blocks ---- */

/* Rows and columns of one block within the panel. */
typedef struct {
    uint64_t row;
    uint64_t row_end;
    uint64_t col;
    uint64_t col_end;
    uint64_t scale;                /* index of its scale in the panel */
} block_place;

static uint64_t bytes_of(const rule_panel *p, uint64_t cols)
{
    return cols * ckpt_dtype_bits(p->pair->b->dtype) / 8;
}

static const uint8_t *codes_of_b(const rule_panel *p, uint64_t row)
{
    return (const uint8_t *)p->pair->b_tile->part[CKPT_DATA] + (p->row + row) * p->code_row_bytes;
}

static const uint8_t *scales_of_b(const rule_panel *p)
{
    return (const uint8_t *)p->pair->b_tile->part[CKPT_SCALE] +
           p->row / p->pair->b->block_rows * p->scale_row_bytes;
}

static int same_scale(const rule_panel *p, const block_place *place)
{
    return memcmp(p->scales + place->scale, scales_of_b(p) + place->scale,
                  ckpt_dtype_bits(p->pair->b->scale_dtype) / 8) == 0;
}

static int same_codes(const rule_panel *p, const block_place *place, uint64_t row)
{
    const uint64_t at = bytes_of(p, place->col);

    return memcmp(p->codes + row * p->code_row_bytes + at, codes_of_b(p, row) + at,
                  bytes_of(p, place->col_end - place->col)) == 0;
}

static unsigned code_at(const ckpt_tensor *b, const uint8_t *row, uint64_t col)
{
    return b->dtype == CKPT_F4 ? row[col / 2] >> col % 2 * 4 & 15u : row[col];
}

/* Add the elements of a wrong block. The first position by rows is kept, for any order of
 * blocks. */
static void add_wrong(const rule_panel *p, const block_place *place, compare_found *found)
{
    const int all = p->other_tensor_scale || !same_scale(p, place);

    for (uint64_t r = place->row; r < place->row_end; r++)
        for (uint64_t c = place->col; c < place->col_end; c++) {
            const uint64_t row = p->row + r;
            const int is_first = found->count == 0 || row < found->row ||
                                 (row == found->row && c < found->col);
            uint32_t bits[2];

            if (!all && code_at(p->pair->b, p->codes + r * p->code_row_bytes, c) ==
                            code_at(p->pair->b, codes_of_b(p, r), c))
                continue;
            found->count++;
            if (!is_first)
                continue;
            memcpy(&bits[0], &p->a[r * p->cols + c], sizeof bits[0]);
            memcpy(&bits[1], &p->b[r * p->cols + c], sizeof bits[1]);
            found->row = row;
            found->col = c;
            found->a_value = bits[0];
            found->b_value = bits[1];
        }
}

static void judge_block(const rule_panel *p, const block_place *place, int is_kept,
                        compare_found *found, compare_blocks *blocks)
{
    int same = !is_kept && !p->other_tensor_scale && same_scale(p, place);

    for (uint64_t r = place->row; r < place->row_end && same; r++)
        same = same_codes(p, place, r);
    blocks->kept += (uint64_t)is_kept;
    blocks->made += (uint64_t)(!is_kept && same);
    if (is_kept || same)
        return;
    blocks->wrong++;
    add_wrong(p, place, found);
}

static void judge_panel(const rule_panel *p, compare_found *found, compare_blocks *blocks)
{
    const ckpt_tensor *b = p->pair->b;
    const uint64_t scale_bytes = ckpt_dtype_bits(b->scale_dtype) / 8;
    const uint64_t across = ckpt_part_cols(b, CKPT_SCALE);
    uint64_t i = 0;

    for (uint64_t r = 0; r < p->rows; r += b->block_rows)
        for (uint64_t n = 0; n < across; n++, i++) {
            const block_place place = {
                r, size_min(r + b->block_rows, p->rows), n * p->block_cols,
                size_min((n + 1) * p->block_cols, p->cols),
                r / b->block_rows * p->scale_row_bytes + n * scale_bytes
            };

            judge_block(p, &place, p->kept[i], found, blocks);
        }
}

ckpt_code compare_by_rule(const compare_pair *pair, compare_found *found, compare_blocks *blocks,
                          arena *scratch, ckpt_error *err)
{
    const void *tensor_scale = pair->b_tile->part[CKPT_TENSOR_SCALE];
    rule_panel p = { .pair = pair, .setup = { kernels_get(), pair->rule, pair->tensor_scale } };
    ckpt_code code;

    if ((code = values_check(pair->a, pair->a_range, pair->a_tile, err)) != CKPT_OK ||
        (code = values_check(pair->b, pair->b_range, pair->b_tile, err)) != CKPT_OK ||
        (code = begin_panels(&p, scratch, err)) != CKPT_OK)
        return code;
    p.other_tensor_scale = pair->rule->has_tensor_scale &&
                           memcmp(tensor_scale, &pair->tensor_scale, sizeof(float)) != 0;
    for (; p.row < pair->a_range->row_count && code == CKPT_OK; p.row += panel_rows(pair->b)) {
        p.rows = size_min(panel_rows(pair->b), pair->a_range->row_count - p.row);
        if ((code = make_panel(&p, err)) == CKPT_OK)
            judge_panel(&p, found, blocks);
    }
    return code;
}
