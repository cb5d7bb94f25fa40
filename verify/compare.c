/* The comparing sink: tiles of A come in, tiles of B are read beside them. */
#include "compare.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "manifest.h"
#include "libckpt/size.h"

enum { NOT_COMPARED = -1 };

/* What is known of one tensor of A. Positions are those of the first one. */
typedef struct {
    int64_t match;                 /* tensor of B, or NOT_COMPARED */
    uint64_t count;                /* elements that differ */
    uint64_t row;
    uint64_t col;
    int64_t a_value;
    int64_t b_value;
    uint64_t byte_count;           /* stored bytes that differ where values may be equal */
    uint64_t byte_row;
    uint64_t byte_col;
} compare_state;

typedef struct {
    ckpt_sink base;
    ckpt_source *a;
    ckpt_source *b;
    const ckpt_store *const *stores;
    compare_state *states;         /* by tensor of A */
    pthread_mutex_t lock;          /* of the states */
} compare_sink;

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
static void add_difference(compare_state *found, uint64_t row, uint64_t col, int64_t a, int64_t b)
{
    if (found->count++ > 0)
        return;
    found->row = row;
    found->col = col;
    found->a_value = a;
    found->b_value = b;
}

static void compare_row_bf16(const uint16_t *a, const uint16_t *b, uint64_t cols, uint64_t row,
                             compare_state *found)
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

static void compare_row_f32(const uint32_t *a, const uint32_t *b, uint64_t cols, uint64_t row,
                            compare_state *found)
{
    if (memcmp(a, b, cols * sizeof *a) == 0)
        return;
    for (uint64_t c = 0; c < cols; c++) {
        const uint32_t x = canonical_f32(a[c]);
        const uint32_t y = canonical_f32(b[c]);

        if (x != y)
            add_difference(found, row, c, x, y);
    }
}

static void compare_row_i64(const int64_t *a, const int64_t *b, uint64_t cols, uint64_t row,
                            compare_state *found)
{
    for (uint64_t c = 0; c < cols; c++)
        if (a[c] != b[c])
            add_difference(found, row, c, a[c], b[c]);
}

/* ---- tiles ---- */

/* One side of a tile: its values and a row of them. */
typedef struct {
    values_reader values;
    void *row;
} compare_side;

static ckpt_code begin_side(compare_side *side, const ckpt_tensor *t, const ckpt_tile *tile,
                            arena *scratch, ckpt_error *err)
{
    const uint64_t bytes = ckpt_tensor_cols(t) * sizeof(int64_t);
    const ckpt_code code = values_begin(&side->values, t, tile, scratch, err);

    if (code != CKPT_OK)
        return code;
    side->row = arena_alloc(scratch, bytes);
    return side->row != NULL ? CKPT_OK : ckpt_fail_memory(err, "a row", bytes);
}

static void compare_row(compare_side *a, compare_side *b, uint64_t tile_row, uint64_t row,
                        compare_state *found)
{
    const uint64_t cols = a->values.cols;
    const uint16_t *a_bf16;
    const uint16_t *b_bf16;

    if (ckpt_tensor_is_int(a->values.tensor)) {
        values_i64(&a->values, tile_row, a->row);
        values_i64(&b->values, tile_row, b->row);
        compare_row_i64(a->row, b->row, cols, row, found);
    } else if (values_bf16(&a->values, tile_row, a->row, &a_bf16) &&
               values_bf16(&b->values, tile_row, b->row, &b_bf16)) {
        compare_row_bf16(a_bf16, b_bf16, cols, row, found);
    } else {
        values_f32(&a->values, tile_row, 0, cols, a->row);
        values_f32(&b->values, tile_row, 0, cols, b->row);
        compare_row_f32(a->row, b->row, cols, row, found);
    }
}

/* Count the bytes of one part that differ. Scale rows and columns are told as those of the first
 * element that they scale. */
static void compare_bytes(const ckpt_tensor *t, ckpt_part part, const ckpt_tile *a,
                          const ckpt_tile *b, compare_state *found)
{
    const uint8_t *left = a->part[part];
    const uint8_t *right = b->part[part];
    const uint64_t row_bytes = ckpt_part_row_bytes(t, part);
    const uint64_t bits = ckpt_dtype_bits(part == CKPT_DATA ? t->dtype : t->scale_dtype);

    if (a->part_bytes[part] == 0 || memcmp(left, right, a->part_bytes[part]) == 0)
        return;
    for (uint64_t i = 0; i < a->part_bytes[part]; i++) {
        uint64_t row = i / row_bytes;
        uint64_t col = i % row_bytes * 8 / bits;

        if (left[i] == right[i])
            continue;
        row *= part == CKPT_SCALE ? t->block_rows : 1;
        col *= part == CKPT_SCALE ? t->block_cols : 1;
        if (found->byte_count++ > 0 && (row > found->byte_row ||
                                        (row == found->byte_row && col >= found->byte_col)))
            continue;
        found->byte_row = row;
        found->byte_col = col;
    }
}

/* `found` counts from the tile's first row, `state` from the tensor's. */
static void merge_found(compare_state *state, const compare_state *found, uint64_t first_row)
{
    const uint64_t row = first_row + found->row;
    const uint64_t byte_row = first_row + found->byte_row;

    if (found->count > 0 && (state->count == 0 || row < state->row)) {
        state->row = row;
        state->col = found->col;
        state->a_value = found->a_value;
        state->b_value = found->b_value;
    }
    if (found->byte_count > 0 && (state->byte_count == 0 || byte_row < state->byte_row)) {
        state->byte_row = byte_row;
        state->byte_col = found->byte_col;
    }
    state->count += found->count;
    state->byte_count += found->byte_count;
}

static ckpt_code compare_tiles(compare_sink *s, const source_range *range, const ckpt_tile *a_tile,
                               arena *scratch, ckpt_error *err)
{
    compare_state *state = &s->states[range->tensor];
    const ckpt_tensor *a = ckpt_catalog_at(s->a->catalog, range->tensor);
    const ckpt_tensor *b = ckpt_catalog_at(s->b->catalog, (size_t)state->match);
    source_range b_range = *range;
    compare_state found = { 0 };
    compare_side sides[2];
    ckpt_tile b_tile;
    ckpt_code code;

    b_range.tensor = (size_t)state->match;
    if ((code = source_read_tile(s->b, &b_range, scratch, &b_tile, err)) != CKPT_OK ||
        (code = values_check(a, range, a_tile, err)) != CKPT_OK ||
        (code = values_check(b, &b_range, &b_tile, err)) != CKPT_OK)
        return code;
    if (catalog_same_encoding(a, b)) {
        compare_bytes(a, CKPT_DATA, a_tile, &b_tile, &found);
        compare_bytes(a, CKPT_SCALE, a_tile, &b_tile, &found);
        if (found.byte_count == 0)
            return CKPT_OK;        /* equal bytes are equal values */
    }
    if ((code = begin_side(&sides[0], a, a_tile, scratch, err)) != CKPT_OK ||
        (code = begin_side(&sides[1], b, &b_tile, scratch, err)) != CKPT_OK)
        return code;
    for (uint64_t r = 0; r < range->row_count; r++)
        compare_row(&sides[0], &sides[1], r, r, &found);
    pthread_mutex_lock(&s->lock);
    merge_found(state, &found, range->row);
    pthread_mutex_unlock(&s->lock);
    return CKPT_OK;
}

static int compare_wants(const ckpt_sink *self, size_t tensor)
{
    return ((const compare_sink *)self)->states[tensor].match != NOT_COMPARED;
}

static ckpt_code compare_put_tile(ckpt_sink *self, const source_range *range,
                                  const ckpt_tile *tile, arena *scratch, ckpt_error *err)
{
    const size_t mark = arena_mark(scratch);
    const ckpt_code code = compare_tiles((compare_sink *)self, range, tile, scratch, err);

    arena_rewind(scratch, mark);
    return code;
}

static uint64_t compare_need(const ckpt_sink *self, size_t tensor, uint64_t row_count)
{
    const compare_sink *s = (const compare_sink *)self;
    const ckpt_tensor *a = ckpt_catalog_at(s->a->catalog, tensor);
    const int64_t match = s->states[tensor].match;

    if (match == NOT_COMPARED)
        return 0;
    return source_need(s->b, (size_t)match, row_count) + values_need(a) +
           values_need(ckpt_catalog_at(s->b->catalog, (size_t)match)) +
           2 * arena_cost(ckpt_tensor_cols(a) * sizeof(int64_t));
}

/* ---- matching ---- */

static int is_left_out(const ckpt_tensor *t, const compare_options *options)
{
    return options->asked.main_only && digest_is_mtp(t->name);
}

/* Pair the tensors by name; those of one shape and class are compared. `out` has room. */
static void match_tensors(compare_sink *s, const compare_options *options, const size_t *order,
                          ckpt_comparison *out)
{
    for (size_t i = 0; i < ckpt_catalog_count(s->a->catalog); i++) {
        const ckpt_tensor *a = ckpt_catalog_at(s->a->catalog, order[i]);
        const int64_t match = ckpt_catalog_find(s->b->catalog, a->name);
        compare_state *state = &s->states[order[i]];
        const ckpt_tensor *b;

        state->match = NOT_COMPARED;
        if (is_left_out(a, options))
            continue;
        if (match == CKPT_NOT_FOUND) {
            out->missing_in_b[out->missing_in_b_count++] = a->name;
            continue;
        }
        b = ckpt_catalog_at(s->b->catalog, (size_t)match);
        out->compared++;
        out->other_encoding_count += !catalog_same_encoding(a, b);
        if (!catalog_same_shape(a, b) || ckpt_tensor_is_int(a) != ckpt_tensor_is_int(b))
            continue;
        out->element_count += ckpt_tensor_rows(a) * ckpt_tensor_cols(a);
        state->match = match;
    }
}

static void find_missing_in_a(const compare_sink *s, const compare_options *options,
                              const size_t *order, ckpt_comparison *out)
{
    for (size_t i = 0; i < ckpt_catalog_count(s->b->catalog); i++) {
        const ckpt_tensor *b = ckpt_catalog_at(s->b->catalog, order[i]);

        if (!is_left_out(b, options) &&
            ckpt_catalog_find(s->a->catalog, b->name) == CKPT_NOT_FOUND)
            out->missing_in_a[out->missing_in_a_count++] = b->name;
    }
}

/* ---- the result ---- */

/* Does one side store the tensor twice, and not the same? */
static int find_copy(const compare_sink *s, const size_t tensors[2], ckpt_difference *out)
{
    for (int side = 0; side < 2; side++) {
        const ckpt_store *store = s->stores[side];
        const store_copy *copy = store == NULL ? NULL : &store->copies[tensors[side]];

        if (copy == NULL || !copy->is_found)
            continue;
        out->kind = CKPT_DIFFERENT_COPY;
        out->row = copy->row;
        out->col = copy->col;
        out->file = store->files[copy->file].name;
        out->side = side;
        return 1;
    }
    return 0;
}

/* What became of a tensor of A that has a partner in B; 0: nothing to tell. */
static int judge(const compare_sink *s, size_t tensor, const compare_options *options,
                 ckpt_difference *out)
{
    const compare_state *state = &s->states[tensor];
    size_t tensors[2] = { tensor, 0 };

    memset(out, 0, sizeof *out);
    out->a = ckpt_catalog_at(s->a->catalog, tensor);
    tensors[1] = (size_t)ckpt_catalog_find(s->b->catalog, out->a->name);
    out->b = ckpt_catalog_at(s->b->catalog, tensors[1]);
    if (ckpt_tensor_is_int(out->a) != ckpt_tensor_is_int(out->b)) {
        out->kind = CKPT_DIFFERENT_CLASS;
    } else if (!catalog_same_shape(out->a, out->b)) {
        out->kind = CKPT_DIFFERENT_SHAPE;
    } else if (state->count > 0) {
        out->kind = CKPT_DIFFERENT_VALUES;
        out->row = state->row;
        out->col = state->col;
        out->count = state->count;
        out->a_value = state->a_value;
        out->b_value = state->b_value;
    } else if (find_copy(s, tensors, out)) {
        return 1;
    } else if (options->asked.bits && !catalog_same_encoding(out->a, out->b)) {
        out->kind = CKPT_DIFFERENT_ENCODING;
    } else if (state->byte_count > 0) {
        out->kind = CKPT_DIFFERENT_BITS;
        out->row = state->byte_row;
        out->col = state->byte_col;
        out->count = state->byte_count;
    } else {
        return 0;
    }
    return 1;
}

static void collect(const compare_sink *s, const compare_options *options, const size_t *order,
                    ckpt_comparison *out)
{
    for (size_t i = 0; i < ckpt_catalog_count(s->a->catalog); i++) {
        const ckpt_tensor *a = ckpt_catalog_at(s->a->catalog, order[i]);
        ckpt_difference difference;

        if (is_left_out(a, options) ||
            ckpt_catalog_find(s->b->catalog, a->name) == CKPT_NOT_FOUND ||
            !judge(s, order[i], options, &difference))
            continue;
        if (difference.kind == CKPT_DIFFERENT_BITS)
            out->re_encoded[out->re_encoded_count++] = a->name;
        if (difference.kind != CKPT_DIFFERENT_BITS || options->asked.bits)
            out->differing[out->differing_count++] = difference;
    }
}

static int make_lists(ckpt_comparison *out, size_t a_count, size_t b_count)
{
    memset(out, 0, sizeof *out);
    out->differing = calloc(a_count + 1, sizeof *out->differing);
    out->missing_in_b = calloc(a_count + 1, sizeof *out->missing_in_b);
    out->re_encoded = calloc(a_count + 1, sizeof *out->re_encoded);
    out->missing_in_a = calloc(b_count + 1, sizeof *out->missing_in_a);
    return out->differing != NULL && out->missing_in_b != NULL && out->re_encoded != NULL &&
           out->missing_in_a != NULL;
}

ckpt_code compare_sources(ckpt_source *a, ckpt_source *b, const compare_options *options,
                          ckpt_comparison *out, ckpt_error *err)
{
    static const sink_ops ops = { compare_wants, compare_put_tile, compare_need, NULL };
    const size_t a_count = ckpt_catalog_count(a->catalog);
    const size_t b_count = ckpt_catalog_count(b->catalog);
    compare_sink sink = { .base = { &ops }, .a = a, .b = b,
                          .stores = options->stores };
    size_t *a_order = manifest_order(a->catalog);
    size_t *b_order = manifest_order(b->catalog);
    ckpt_run_options copy = options->asked.run;
    ckpt_code code = CKPT_OK;

    pthread_mutex_init(&sink.lock, NULL);
    sink.states = calloc(a_count + 1, sizeof *sink.states);
    if (!make_lists(out, a_count, b_count) || sink.states == NULL || a_order == NULL ||
        b_order == NULL) {
        code = ckpt_fail_memory(err, "a comparison", a_count + b_count);
        goto out;
    }
    match_tensors(&sink, options, a_order, out);
    find_missing_in_a(&sink, options, b_order, out);
    if (out->compared == 0) {
        code = ckpt_fail(err, CKPT_E_USAGE, "nothing to compare: no tensor of the one checkpoint "
                         "(%zu) has the name of one of the other (%zu)", a_count, b_count);
        goto out;
    }
    copy.fixed_bytes += a_count * (sizeof *sink.states + sizeof *out->differing);
    if ((code = ckpt_copy(a, &sink.base, &copy, err)) == CKPT_OK)
        collect(&sink, options, a_order, out);
    if (code == CKPT_OK && out->element_count == 0 && ckpt_comparison_is_same(out))
        code = ckpt_fail(err, CKPT_E_USAGE, "nothing to compare: the tensors of both checkpoints "
                         "(%zu) have no elements", out->compared);
out:
    if (code != CKPT_OK)
        compare_release(out);
    pthread_mutex_destroy(&sink.lock);
    free(sink.states);
    free(a_order);
    free(b_order);
    return code;
}

void compare_release(ckpt_comparison *comparison)
{
    free(comparison->differing);
    free(comparison->missing_in_a);
    free(comparison->missing_in_b);
    free(comparison->re_encoded);
    config_verdict_release(&comparison->config);
    memset(comparison, 0, sizeof *comparison);
}

int ckpt_comparison_is_same(const ckpt_comparison *comparison)
{
    return comparison->differing_count == 0 && comparison->missing_in_a_count == 0 &&
           comparison->missing_in_b_count == 0 && comparison->config.comparison.count == 0;
}
