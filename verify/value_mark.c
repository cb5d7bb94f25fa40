/* Finds unusual scales and ids in one tile. */
#include "value_mark.h"

#include <math.h>
#include <string.h>

#include "libckpt/scale.h"
#include "libckpt/size.h"
#include "libckpt/text.h"
#include "libckpt/values.h"

enum { SCALE_NAN = 0xFF, BLOCK_ROWS = 128, BLOCK_GROUPS = 4, IDS_MAX = 256 };

static void place_init(value_place *p)
{
    memset(p, 0, sizeof *p);
    p->row = UINT64_MAX;
}

void value_mark_init(value_mark *mark)
{
    memset(mark, 0, sizeof *mark);
    place_init(&mark->scale_nan);
    place_init(&mark->scale_zero);
    place_init(&mark->spread);
    place_init(&mark->id_range);
    place_init(&mark->id_repeated);
}

static void note(value_place *p, uint64_t row, uint64_t col, int64_t value)
{
    p->count++;
    if (row > p->row || (row == p->row && col >= p->col))
        return;
    p->row = row;
    p->col = col;
    p->value = value;
}

static void place_merge(value_place *p, const value_place *other)
{
    const uint64_t count = p->count + other->count;

    if (other->row < p->row || (other->row == p->row && other->col < p->col))
        *p = *other;
    p->count = count;
}

void value_mark_merge(value_mark *mark, const value_mark *other)
{
    hash128_add(&mark->bytes, other->bytes);
    place_merge(&mark->scale_nan, &other->scale_nan);
    place_merge(&mark->scale_zero, &other->scale_zero);
    place_merge(&mark->spread, &other->spread);
    place_merge(&mark->id_range, &other->id_range);
    place_merge(&mark->id_repeated, &other->id_repeated);
    mark->spread_max = size_max(mark->spread_max, other->spread_max);
    mark->whole_scale = other->whole_scale;        /* the same in every tile */
    mark->input_scale = other->input_scale;
}

/* ---- scales ---- */

static void count_scales(const ckpt_tensor *t, const uint8_t *row, uint64_t cols,
                         uint64_t *counters)
{
    const ckpt_kernels *kernels = kernels_get();

    if (t->scale_dtype == CKPT_F8_E8M0) {      /* the byte is the exponent, also as F32 */
        for (uint64_t c = 0; c < cols; c++)
            counters[row[c]]++;
        return;
    }
    for (uint64_t c = 0; c < cols; c++) {
        const float scale = scale_get(kernels, t->scale_dtype, row, c);
        uint32_t bits;

        memcpy(&bits, &scale, sizeof bits);
        counters[bits >> 23 & 0xff]++;
    }
}

static void look_at_scales(value_mark *mark, const value_tile *tile)
{
    const ckpt_tensor *t = tile->tensor;
    const uint64_t cols = ckpt_part_cols(t, CKPT_SCALE);
    const uint64_t row_bytes = ckpt_part_row_bytes(t, CKPT_SCALE);
    const uint8_t *row = tile->tile->part[CKPT_SCALE];
    const ckpt_kernels *kernels = kernels_get();
    uint64_t first;
    uint64_t rows;

    source_scale_rows(t, tile->range, &first, &rows);
    for (uint64_t r = 0; r < rows; r++, row += row_bytes) {
        if (tile->scales != NULL)
            count_scales(t, row, cols, tile->scales);
        if (t->scale_dtype == CKPT_F8_E8M0 && scale_e8m0_within(row, cols, 1, SCALE_NAN - 1))
            continue;
        for (uint64_t c = 0; c < cols; c++) {
            const float scale = scale_get(kernels, t->scale_dtype, row, c);

            if (!isfinite(scale))
                note(&mark->scale_nan, first + r, c, 0);
            else if (t->scale_dtype == CKPT_F8_E8M0 ? row[c] == 0 : scale == 0)
                note(&mark->scale_zero, first + r, c, 0);
        }
    }
}

/* 1 when all codes of a group are +0 or -0, whatever its scale. */
static int is_zero_group(const uint8_t *packed)
{
    uint8_t bits = 0;

    for (int i = 0; i < FP4_GROUP / 2; i++)
        bits |= packed[i] & 0x77;
    return bits == 0;
}

/* Find the smallest and largest scale of one block of the band that begins at tile row `first`. The
 * scales of groups of zeros do not matter; NaN is a separate finding. */
static void look_at_block(value_mark *mark, const value_tile *tile, uint64_t first,
                          uint64_t block)
{
    const uint64_t groups = ckpt_part_cols(tile->tensor, CKPT_SCALE);
    const uint64_t end = size_min(groups, (block + 1) * BLOCK_GROUPS);
    const uint64_t rows = size_min(first + BLOCK_ROWS, tile->range->row_count);
    const uint8_t *codes = tile->tile->part[CKPT_DATA];
    const uint8_t *scales = tile->tile->part[CKPT_SCALE];
    uint8_t low = SCALE_NAN;
    uint8_t high = 0;

    for (uint64_t r = first; r < rows; r++)
        for (uint64_t g = block * BLOCK_GROUPS; g < end; g++) {
            const uint8_t s = scales[r * groups + g];

            if (s == SCALE_NAN || (s < low && is_zero_group(codes + (r * groups + g) *
                                                                        (FP4_GROUP / 2))))
                continue;
            low = s < low ? s : low;
            high = s > high ? s : high;
        }
    if (high <= low)
        return;
    mark->spread_max = size_max(mark->spread_max, (uint64_t)(high - low));
    if (high - low > FP4_DISTANCE_EXACT)
        note(&mark->spread, (tile->range->row + first) / BLOCK_ROWS, block, high - low);
}

enum { BOUND_GROUPS = 64 };

typedef struct {
    uint8_t low[BOUND_GROUPS];
    uint8_t end[BOUND_GROUPS];     /* the largest scale plus 1; 0: all are NaN */
} scale_bounds;

/* Bounds of the scales in BOUND_GROUPS columns of a band, those of zero groups included: what
 * look_at_block finds in a block lies within them. The fixed number of columns and arrays that
 * nothing else points to let the compiler vectorise this. */
static void find_bounds(const uint8_t *scales, uint64_t rows, uint64_t row_bytes,
                        scale_bounds *out)
{
    uint8_t low[BOUND_GROUPS];
    uint8_t end[BOUND_GROUPS] = { 0 };

    memset(low, SCALE_NAN, sizeof low);
    for (uint64_t r = 0; r < rows; r++, scales += row_bytes)
        for (int g = 0; g < BOUND_GROUPS; g++) {
            const uint8_t next = (uint8_t)(scales[g] + 1);       /* of NaN: 0 */

            low[g] = scales[g] < low[g] ? scales[g] : low[g];
            end[g] = next > end[g] ? next : end[g];
        }
    memcpy(out->low, low, sizeof low);
    memcpy(out->end, end, sizeof end);
}

/* 1 when the block may have a larger spread than those before, or one that is noted. */
static int may_matter(const value_mark *mark, const scale_bounds *bounds, uint64_t block)
{
    uint8_t low = SCALE_NAN;
    uint8_t end = 0;

    for (uint64_t g = block * BLOCK_GROUPS; g < (block + 1) * BLOCK_GROUPS; g++) {
        low = bounds->low[g] < low ? bounds->low[g] : low;
        end = bounds->end[g] > end ? bounds->end[g] : end;
    }
    return end > low && ((uint64_t)(end - 1 - low) > mark->spread_max ||
                         end - 1 - low > FP4_DISTANCE_EXACT);
}

static void look_at_band(value_mark *mark, const value_tile *tile, uint64_t first)
{
    const uint64_t groups = ckpt_part_cols(tile->tensor, CKPT_SCALE);
    const uint64_t rows = size_min(BLOCK_ROWS, tile->range->row_count - first);
    const uint8_t *scales = tile->tile->part[CKPT_SCALE];
    const uint64_t bounded = groups / BOUND_GROUPS * BOUND_GROUPS;
    scale_bounds bounds;

    for (uint64_t g = 0; g < bounded; g += BOUND_GROUPS) {
        find_bounds(scales + first * groups + g, rows, groups, &bounds);
        for (uint64_t b = 0; b < BOUND_GROUPS / BLOCK_GROUPS; b++)
            if (may_matter(mark, &bounds, b))
                look_at_block(mark, tile, first, g / BLOCK_GROUPS + b);
    }
    for (uint64_t b = bounded / BLOCK_GROUPS; b < size_div_up(groups, BLOCK_GROUPS); b++)
        look_at_block(mark, tile, first, b);
}

/* ---- ids ---- */

int value_is_id_table(const ckpt_tensor *tensor)
{
    return ckpt_tensor_is_int(tensor) && text_ends_with(tensor->name, ".tid2eid");
}

static void look_at_ids(value_mark *mark, const int64_t *ids, uint64_t count,
                        uint64_t expert_count, uint64_t row)
{
    for (uint64_t c = 0; c < count; c++) {
        uint64_t d = 0;

        if (expert_count > 0 && (ids[c] < 0 || (uint64_t)ids[c] >= expert_count))
            note(&mark->id_range, row, c, ids[c]);
        while (count <= IDS_MAX && d < c && ids[d] != ids[c])
            d++;
        if (count <= IDS_MAX && d < c)
            note(&mark->id_repeated, row, c, ids[c]);
    }
}

static ckpt_code look_at_table(value_mark *mark, const value_tile *tile, arena *scratch,
                               ckpt_error *err)
{
    const uint64_t cols = ckpt_tensor_cols(tile->tensor);
    const size_t begin = arena_mark(scratch);
    int64_t *ids = arena_alloc(scratch, cols * sizeof *ids);
    values_reader values;
    ckpt_code code;

    if (ids == NULL)
        return ckpt_fail_memory(err, "a row", cols * sizeof *ids);
    if ((code = values_begin(&values, tile->tensor, tile->tile, scratch, err)) != CKPT_OK)
        return code;
    for (uint64_t r = 0; r < tile->range->row_count; r++) {
        values_i64(&values, r, ids);
        look_at_ids(mark, ids, cols, tile->expert_count, tile->range->row + r);
    }
    arena_rewind(scratch, begin);
    return CKPT_OK;
}

static void take_whole(const ckpt_tile *tile, ckpt_part part, float *out)
{
    if (tile->part[part] != NULL)
        memcpy(out, tile->part[part], sizeof *out);
}

ckpt_code value_mark_tile(value_mark *mark, const value_tile *tile, arena *scratch,
                          ckpt_error *err)
{
    const ckpt_tensor *t = tile->tensor;

    mark->bytes = tile_hash(tile->range, tile->tile);
    take_whole(tile->tile, CKPT_TENSOR_SCALE, &mark->whole_scale);
    take_whole(tile->tile, CKPT_INPUT_SCALE, &mark->input_scale);
    if (t->scale_dtype != CKPT_NONE)
        look_at_scales(mark, tile);
    if (encoding_is(t, ENCODING_FP4_32) && t->scale_dtype == CKPT_F8_E8M0)
        for (uint64_t r = 0; r < tile->range->row_count; r += BLOCK_ROWS)
            look_at_band(mark, tile, r);
    return value_is_id_table(t) ? look_at_table(mark, tile, scratch, err) : CKPT_OK;
}
