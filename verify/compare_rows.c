/* Compares two tiles element by element. */
#include "compare_rows.h"

#include <string.h>

#include "libckpt/scale.h"
#include "libckpt/size.h"
#include "libckpt/values.h"

/* ---- elements ---- */

static uint16_t canonical_bf16(uint16_t code)
{
    if ((code & 0x7fff) == 0)
        return 0;
    return (code & 0x7fff) > 0x7f80 ? 0x7fc0 : code;
}

static uint32_t canonical_f32(uint32_t bits)
{
    if ((bits & 0x7fffffff) == 0)
        return 0;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : bits;
}

/* Remember a difference; rows and columns come in ascending order within a tile. */
static void add_difference(compare_found *found, uint64_t row, uint64_t col, int64_t a, int64_t b)
{
    if (found->count++ > 0)
        return;
    found->row = row;
    found->col = col;
    found->a_value = a;
    found->b_value = b;
}

static void compare_row_bf16(const uint16_t *a, const uint16_t *b, uint64_t cols, uint64_t row,
                             compare_found *found)
{
    if (memcmp(a, b, cols * sizeof *a) == 0)
        return;
    for (uint64_t c = 0; c < cols; c++) {
        const uint16_t x = canonical_bf16(a[c]);
        const uint16_t y = canonical_bf16(b[c]);

        if (x != y)
            add_difference(found, row, c, (int64_t)((uint64_t)x << 16),
                           (int64_t)((uint64_t)y << 16));
    }
}

/* Remember the first difference of a row, of which there is one. */
static void find_first_f32(const uint32_t *a, const uint32_t *b, uint64_t row,
                           compare_found *found)
{
    uint64_t c = 0;

    while (canonical_f32(a[c]) == canonical_f32(b[c]))
        c++;
    found->row = row;
    found->col = c;
    found->a_value = canonical_f32(a[c]);
    found->b_value = canonical_f32(b[c]);
}

/* Add the differences of a row. */
static void add_row_f32(const float *a, const float *b, uint64_t row, uint64_t count,
                        compare_found *found)
{
    if (count > 0 && found->count == 0)
        find_first_f32((const uint32_t *)a, (const uint32_t *)b, row, found);
    found->count += count;
}

static void compare_row_f32(const float *a, const float *b, uint64_t cols, uint64_t row,
                            compare_found *found)
{
    row_difference difference;

    if (memcmp(a, b, cols * sizeof *a) == 0)
        return;
    kernels_get()->f32_row_difference(a, b, cols, &difference);
    add_row_f32(a, b, row, difference.changed, found);
}

static void compare_row_i64(const int64_t *a, const int64_t *b, uint64_t cols, uint64_t row,
                            compare_found *found)
{
    for (uint64_t c = 0; c < cols; c++)
        if (a[c] != b[c])
            add_difference(found, row, c, a[c], b[c]);
}

/* ---- stored bytes ---- */

/* Count a byte that differs, and keep the first position of such. */
static void add_byte(compare_found *found, uint64_t row, uint64_t col)
{
    if (found->byte_count++ > 0 &&
        (row > found->byte_row || (row == found->byte_row && col >= found->byte_col)))
        return;
    found->byte_row = row;
    found->byte_col = col;
}

/* Count the bytes of one part that differ. A scale is reported at the position of the first
 * element that it scales; a part that one side lacks, or has in a wider type, at the
 * first. */
static void compare_bytes(const ckpt_tensor *t, ckpt_part part, const ckpt_tile *a,
                          const ckpt_tile *b, compare_found *found)
{
    const uint8_t *left = a->part[part];
    const uint8_t *right = b->part[part];
    const uint64_t row_bytes = ckpt_part_row_bytes(t, part);
    const uint64_t bits = ckpt_dtype_bits(catalog_part_dtype(t, part));

    if (a->part_bytes[part] != b->part_bytes[part]) {
        add_byte(found, 0, 0);
        found->byte_count += size_max(a->part_bytes[part], b->part_bytes[part]) - 1;
        return;
    }
    if (a->part_bytes[part] == 0 || memcmp(left, right, a->part_bytes[part]) == 0)
        return;
    for (uint64_t i = 0; i < a->part_bytes[part]; i++) {
        uint64_t row = i / row_bytes;
        uint64_t col = i % row_bytes * 8 / bits;

        if (left[i] == right[i])
            continue;
        row *= part == CKPT_SCALE ? t->block_rows : 1;
        col *= part == CKPT_SCALE ? t->block_cols : 1;
        add_byte(found, row, col);
    }
}

/* ---- values ---- */

/* One side of a tile: its values and a row of them. */
typedef struct {
    compare_form form;
    ckpt_tile tile;
    values_reader values;
    void *row;                     /* scratch: int64, or F32 followed by as many BF16 */
} compare_side;

/* Bytes of the scales that a form rounds; 0: it does not round scales. */
static uint64_t rounded_scale_bytes(const ckpt_tensor *t, uint64_t row_count)
{
    if (t->scale_dtype != CKPT_F32)
        return 0;
    return size_div_up(row_count, t->block_rows) * ckpt_part_row_bytes(t, CKPT_SCALE);
}

/* Replace the scales of a side by copies rounded to BF16. */
static ckpt_code round_scales(compare_side *side, arena *scratch, ckpt_error *err)
{
    const ckpt_kernels *k = kernels_get();
    const uint64_t bytes = side->tile.part_bytes[CKPT_SCALE];
    float *scales = arena_alloc(scratch, bytes);

    if (scales == NULL)
        return ckpt_fail_memory(err, "scales", bytes);
    memcpy(scales, side->tile.part[CKPT_SCALE], bytes);
    for (uint64_t i = 0; i < bytes / sizeof *scales; i++) {
        uint16_t code;

        k->f32_to_bf16(&scales[i], &code, 1);
        k->bf16_to_f32(&code, &scales[i], 1);
    }
    side->tile.part[CKPT_SCALE] = scales;
    return CKPT_OK;
}

static ckpt_code begin_side(compare_side *side, const ckpt_tensor *t, const ckpt_tile *tile,
                            arena *scratch, ckpt_error *err)
{
    const uint64_t bytes = ckpt_tensor_cols(t) * sizeof(int64_t);
    ckpt_code code;

    side->tile = *tile;
    if (side->form == COMPARE_AS_BF16_SLIME && t->scale_dtype == CKPT_F32 &&
        (code = round_scales(side, scratch, err)) != CKPT_OK)
        return code;
    if ((code = values_begin(&side->values, t, &side->tile, scratch, err)) != CKPT_OK)
        return code;
    side->row = arena_alloc(scratch, bytes);
    return side->row != NULL ? CKPT_OK : ckpt_fail_memory(err, "a row", bytes);
}

/* The row as F32, rounded according to the form. */
static const float *read_f32(compare_side *side, uint64_t tile_row)
{
    const ckpt_kernels *k = kernels_get();
    const uint64_t cols = side->values.cols;
    float *values = side->row;
    uint16_t *rounded = (uint16_t *)(values + cols);

    values_f32(&side->values, tile_row, 0, cols, values);
    if (side->form != COMPARE_AS_STORED) {
        k->f32_to_bf16(values, rounded, cols);
        k->bf16_to_f32(rounded, values, cols);
    }
    return values;
}

static void compare_ints(compare_side sides[2], const compare_pair *pair, compare_found *found,
                         difference_tile *tile)
{
    for (uint64_t r = 0; r < pair->a_range->row_count; r++) {
        for (int i = 0; i < 2; i++)
            values_i64(&sides[i].values, r, sides[i].row);
        compare_row_i64(sides[0].row, sides[1].row, tile->cols, r, found);
        if (tile->statistics != NULL)
            difference_add_ints(tile, sides[0].row, sides[1].row, pair->a_range->row + r);
    }
}

/* Fast path: compare as BF16 if both sides can be decoded to it directly and nothing is
 * measured. */
static int compare_short(compare_side sides[2], uint64_t tile_row, compare_found *found)
{
    const uint16_t *rows[2];

    for (int i = 0; i < 2; i++)
        if (!values_bf16(&sides[i].values, tile_row, sides[i].row, &rows[i]))
            return 0;
    compare_row_bf16(rows[0], rows[1], sides[0].values.cols, tile_row, found);
    return 1;
}

static void compare_floats(compare_side sides[2], uint64_t tile_row, compare_found *found)
{
    const float *a;
    const float *b;

    if (compare_short(sides, tile_row, found))
        return;
    a = read_f32(&sides[0], tile_row);
    b = read_f32(&sides[1], tile_row);
    compare_row_f32(a, b, sides[0].values.cols, tile_row, found);
}

/* Compare and measure rows. */
static void measure_floats(compare_side sides[2], const compare_pair *pair, compare_found *found,
                           difference_tile *tile)
{
    for (uint64_t r = 0; r < pair->a_range->row_count; r++) {
        const float *a = read_f32(&sides[0], r);
        const float *b;

        if (pair->same_bytes) {                /* equal bytes are equal values */
            difference_add_same(tile, a);
            continue;
        }
        b = read_f32(&sides[1], r);
        add_row_f32(a, b, r, difference_add_row(tile, a, b, pair->a_range->row + r), found);
    }
    difference_end(tile);
}

static ckpt_code compare_values(const compare_pair *pair, compare_found *found,
                                difference_statistics *statistics, arena *scratch, ckpt_error *err)
{
    difference_tile tile = { .statistics = statistics, .cols = ckpt_tensor_cols(pair->a),
                             .unit = compare_unit(pair->a, pair->b, pair->form) };
    compare_side sides[2] = { { .form = pair->form }, { .form = pair->form } };
    ckpt_code code;

    if ((code = begin_side(&sides[0], pair->a, pair->a_tile, scratch, err)) != CKPT_OK ||
        (code = begin_side(&sides[1], pair->b, pair->b_tile, scratch, err)) != CKPT_OK)
        return code;
    if (ckpt_tensor_is_int(pair->a))
        compare_ints(sides, pair, found, &tile);
    else if (statistics != NULL)
        measure_floats(sides, pair, found, &tile);
    else
        for (uint64_t r = 0; r < pair->a_range->row_count; r++)
            compare_floats(sides, r, found);
    return CKPT_OK;
}

/* ---- tiles ---- */

ckpt_dtype compare_unit(const ckpt_tensor *a, const ckpt_tensor *b, compare_form form)
{
    if (ckpt_tensor_is_int(a))
        return CKPT_NONE;
    return form == COMPARE_AS_STORED ? difference_unit(a, b) : CKPT_BF16;
}

uint64_t compare_rows_need(const ckpt_tensor *a, const ckpt_tensor *b, uint64_t row_count)
{
    return values_need(a) + values_need(b) +
           arena_cost(rounded_scale_bytes(a, row_count)) +
           arena_cost(rounded_scale_bytes(b, row_count)) +
           2 * arena_cost(ckpt_tensor_cols(a) * sizeof(int64_t));
}

/* The tensor scale is counted in the first tile, but must be equal for equal values in any tile. */
static int same_tensor_scale(const compare_pair *pair)
{
    const uint64_t bytes = pair->a_tile->part_bytes[CKPT_TENSOR_SCALE];

    return bytes == 0 || memcmp(pair->a_tile->part[CKPT_TENSOR_SCALE],
                                pair->b_tile->part[CKPT_TENSOR_SCALE], bytes) == 0;
}

/* Blocks of NVFP4 ignore the sign of a scale, which counts where scales are apart. */
static int same_reading(const compare_pair *pair)
{
    return (pair->a->stored_form == CKPT_FORM_NVFP4) == (pair->b->stored_form == CKPT_FORM_NVFP4);
}

ckpt_code compare_rows(const compare_pair *pair, compare_found *found,
                       difference_statistics *statistics, arena *scratch, ckpt_error *err)
{
    compare_pair with = *pair;
    ckpt_code code;

    if ((code = values_check(pair->a, pair->a_range, pair->a_tile, err)) != CKPT_OK ||
        (code = values_check(pair->b, pair->b_range, pair->b_tile, err)) != CKPT_OK)
        return code;
    if (catalog_same_encoding(pair->a, pair->b)) {
        for (int part = 0; part < CKPT_PART_COUNT; part++)
            if (source_has_part(pair->a_range, (ckpt_part)part))
                compare_bytes(pair->a, (ckpt_part)part, pair->a_tile, pair->b_tile, found);
        with.same_bytes = found->byte_count == 0 && same_tensor_scale(pair) &&
                          same_reading(pair);
    }
    if (with.same_bytes && statistics == NULL)
        return CKPT_OK;                        /* equal bytes are equal values */
    return compare_values(&with, found, statistics, scratch, err);
}

void compare_found_merge(compare_found *all, const compare_found *found, uint64_t first_row)
{
    const uint64_t row = first_row + found->row;
    const uint64_t byte_row = first_row + found->byte_row;

    if (found->count > 0 && (all->count == 0 || row < all->row)) {
        all->row = row;
        all->col = found->col;
        all->a_value = found->a_value;
        all->b_value = found->b_value;
    }
    if (found->byte_count > 0 && (all->byte_count == 0 || byte_row < all->byte_row)) {
        all->byte_row = byte_row;
        all->byte_col = found->byte_col;
    }
    all->count += found->count;
    all->byte_count += found->byte_count;
}
