/* Extents, and the check that they cover every part exactly once. */
#include "layout.h"

#include <stdlib.h>

#include "array.h"
#include "size.h"
#include "stored_form.h"

ckpt_layout *layout_create(const ckpt_catalog *logical, const ckpt_catalog *stored)
{
    ckpt_layout *layout = calloc(1, sizeof *layout);

    if (layout == NULL)
        return NULL;
    layout->logical = logical;
    layout->stored = stored;
    return layout;
}

void layout_free(ckpt_layout *layout)
{
    if (layout == NULL)
        return;
    array_free_counted(layout->extents, layout->count, sizeof *layout->extents);
    free(layout->first);
    free(layout);
}

ckpt_code layout_add(ckpt_layout *layout, const layout_extent *extent, ckpt_error *err)
{
    layout_extent *extents =
        array_room_counted(layout->extents, layout->count, sizeof *extents, "the layout", err);

    if (extents == NULL)
        return CKPT_E_MEMORY;
    layout->extents = extents;
    extents[layout->count++] = *extent;
    return CKPT_OK;
}

static int compare_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int compare_extents(const void *left, const void *right)
{
    const layout_extent *a = left;
    const layout_extent *b = right;
    int order = compare_u64(a->logical, b->logical);

    if (order == 0)
        order = compare_u64(a->part, b->part);
    if (order == 0)
        order = compare_u64(a->copy, b->copy);
    if (order == 0)
        order = compare_u64(a->row, b->row);
    if (order == 0)
        order = compare_u64(a->col, b->col);
    return order == 0 ? compare_u64(a->stored, b->stored) : order;
}

/* begin + count <= limit without overflow. */
static int range_fits(uint64_t begin, uint64_t count, uint64_t limit)
{
    return count <= limit && begin <= limit - count;
}

static ckpt_code fail_fit(const ckpt_layout *layout, const layout_extent *e, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' does not fit in stored tensor '%s'",
                     ckpt_catalog_at(layout->logical, e->logical)->name,
                     ckpt_catalog_at(layout->stored, e->stored)->name);
}

/* 1 when blocks have the codes and scales of the tensor, whose tensor scale is beside them. */
static int same_blocks(const ckpt_tensor *logical, const ckpt_tensor *stored)
{
    ckpt_tensor alone = *logical;

    alone.tensor_scale = CKPT_TENSOR_SCALE_NONE;
    return stored_form_fits((ckpt_stored_form)stored->stored_form, logical) &&
           catalog_same_encoding(&alone, stored);
}

/* 1 when interleaved blocks contain this part of the tensor, and the rectangle is whole blocks. */
static int is_in_blocks(const ckpt_tensor *logical, const ckpt_tensor *stored,
                        const layout_extent *e)
{
    const uint64_t elements = stored_form_of(stored)->elements;
    const uint64_t step = e->part == CKPT_DATA ? elements : elements / stored->block_cols;

    return !e->column && !catalog_is_of_whole(e->part) && same_blocks(logical, stored) &&
           range_fits(e->stored_row, e->row_count, ckpt_part_rows(stored, (ckpt_part)e->part)) &&
           range_fits(e->stored_col, e->col_count, ckpt_part_cols(stored, (ckpt_part)e->part)) &&
           e->col % step == 0 && e->col_count % step == 0 && e->stored_col % step == 0;
}

static int is_in_elements(const ckpt_tensor *stored, const layout_extent *e, uint32_t bits)
{
    const uint64_t cols = e->column ? 1 : ckpt_part_row_bytes(stored, CKPT_DATA) * 8 / bits;
    const uint64_t rows = e->column ? ckpt_tensor_cols(stored) : ckpt_tensor_rows(stored);

    return range_fits(e->stored_row, e->row_count, rows) &&
           range_fits(e->stored_col, e->col_count, cols) && e->col * bits % 8 == 0 &&
           e->stored_col * bits % 8 == 0;
}

static ckpt_code check_bounds(const ckpt_layout *layout, const layout_extent *e, ckpt_error *err)
{
    const ckpt_tensor *logical = ckpt_catalog_at(layout->logical, e->logical);
    const ckpt_tensor *stored = ckpt_catalog_at(layout->stored, e->stored);
    const ckpt_part part = (ckpt_part)e->part;

    if (range_fits(e->row, e->row_count, ckpt_part_rows(logical, part)) &&
        range_fits(e->col, e->col_count, ckpt_part_cols(logical, part)) &&
        (stored->stored_form != CKPT_FORM_APART
             ? is_in_blocks(logical, stored, e)
             : is_in_elements(stored, e, ckpt_dtype_bits(catalog_part_dtype(logical, part)))))
        return CKPT_OK;
    return fail_fit(layout, e, err);
}

static int overlap(const layout_extent *a, const layout_extent *b)
{
    return a->row < b->row + b->row_count && b->row < a->row + a->row_count &&
           a->col < b->col + b->col_count && b->col < a->col + a->col_count;
}

/* The extents of one part cover it exactly once if their areas add up to its area and no two
 * overlap. */
static ckpt_code check_cover(const ckpt_layout *layout, size_t tensor, ckpt_part part,
                             ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(layout->logical, tensor);
    const uint64_t total = ckpt_part_rows(t, part) * ckpt_part_cols(t, part);
    const layout_extent *begin;
    const layout_extent *end;
    uint64_t area = 0;

    layout_extents(layout, tensor, part, &begin, &end);
    for (const layout_extent *e = begin; e < end && !e->copy; e++) {
        uint64_t piece;

        if (!size_mul(e->row_count, e->col_count, &piece) || !size_add(area, piece, &area))
            return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s': the size of its pieces overflows",
                             t->name);
        for (const layout_extent *next = e + 1;
             next < end && !next->copy && next->row < e->row + e->row_count; next++)
            if (overlap(e, next))
                return ckpt_fail(err, CKPT_E_FORMAT,
                                 "tensor '%s': row %llu, column %llu is stored twice", t->name,
                                 (unsigned long long)next->row, (unsigned long long)next->col);
    }
    if (area != total)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "tensor '%s': its pieces have %llu of %llu elements", t->name,
                         (unsigned long long)area, (unsigned long long)total);
    return CKPT_OK;
}

/*
 * Blocks are read and written with codes and scales together, by the extents of the data. So each
 * extent of data needs a matching extent of scales. Blocks have one row, so that matching extents
 * are in the same order in both parts.
 */
static ckpt_code check_blocks(const ckpt_layout *layout, size_t tensor, ckpt_error *err)
{
    const layout_extent *e;
    const layout_extent *end;
    const layout_extent *scale;
    const layout_extent *scale_end;

    layout_extents(layout, tensor, CKPT_DATA, &e, &end);
    layout_extents(layout, tensor, CKPT_SCALE, &scale, &scale_end);
    for (; e < end || scale < scale_end; e += e < end, scale += scale < scale_end) {
        const layout_extent *either = e < end ? e : scale;
        const ckpt_tensor *stored = ckpt_catalog_at(layout->stored, either->stored);

        if (stored->stored_form == CKPT_FORM_APART)
            continue;
        if (e == end || scale == scale_end || e->stored != scale->stored ||
            e->copy != scale->copy || e->row != scale->row || e->row_count != scale->row_count ||
            e->stored_row != scale->stored_row || e->col != scale->col * stored->block_cols ||
            e->col_count != scale->col_count * stored->block_cols ||
            e->stored_col != scale->stored_col * stored->block_cols)
            return fail_fit(layout, either, err);
    }
    return CKPT_OK;
}

/* The index of a part of a tensor in layout->first. */
static size_t find_key(size_t logical, unsigned part)
{
    return CKPT_PART_COUNT * logical + part;
}

ckpt_code layout_seal(ckpt_layout *layout, ckpt_error *err)
{
    const size_t keys = CKPT_PART_COUNT * ckpt_catalog_count(layout->logical);
    ckpt_code code;
    size_t next = 0;

    for (size_t i = 0; i < layout->count; i++)
        if ((code = check_bounds(layout, &layout->extents[i], err)) != CKPT_OK)
            return code;
    if (layout->count > 0)
        qsort(layout->extents, layout->count, sizeof *layout->extents, compare_extents);
    /* Numbers of extents are of 32 bits: there are five for each tensor, mostly of no use. */
    layout->first = layout->count > UINT32_MAX ? NULL : calloc(keys + 1, sizeof *layout->first);
    if (layout->first == NULL)
        return ckpt_fail_memory(err, "the layout", keys);
    for (size_t key = 0; key <= keys; key++) {
        while (next < layout->count &&
               find_key(layout->extents[next].logical, layout->extents[next].part) < key)
            next++;
        layout->first[key] = (uint32_t)next;
    }
    for (size_t key = 0; key < keys; key++)
        if ((code = check_cover(layout, key / CKPT_PART_COUNT, (ckpt_part)(key % CKPT_PART_COUNT),
                                err)) != CKPT_OK)
            return code;
    for (size_t i = 0; i < ckpt_catalog_count(layout->logical); i++)
        if ((code = check_blocks(layout, i, err)) != CKPT_OK)
            return code;
    return CKPT_OK;
}

void layout_extents(const ckpt_layout *layout, size_t logical, ckpt_part part,
                    const layout_extent **begin, const layout_extent **end)
{
    const size_t key = find_key(logical, part);

    *begin = layout->extents + layout->first[key];
    *end = layout->extents + layout->first[key + 1];
}

/* The same for a key that is a vector used as a column; its pieces are vectors, too. */
static int meet_column(const layout_extent *outer, const layout_extent *inner, layout_extent *out)
{
    const uint64_t row = size_max(outer->stored_row, inner->col);
    const uint64_t row_end = size_min(outer->stored_row + outer->row_count,
                                      inner->col + inner->col_count);

    if (row >= row_end)
        return 0;
    *out = *outer;
    out->stored = inner->stored;
    out->copy = outer->copy || inner->copy;
    out->row = outer->row + (row - outer->stored_row);
    out->row_count = row_end - row;
    out->stored_row = inner->stored_col + (row - inner->col);
    return 1;
}

/* Intersect two rectangles of a key, which gives an extent of a logical tensor in a piece. All
 * numbers count elements of the logical part; `to` of them are one element of the key (2 for FP4
 * stored as I8). */
static int meet(const layout_extent *outer, const layout_extent *inner, uint64_t to,
                layout_extent *out)
{
    const uint64_t inner_col = inner->col * to;
    const uint64_t row = size_max(outer->stored_row, inner->row);
    const uint64_t row_end = size_min(outer->stored_row + outer->row_count,
                                      inner->row + inner->row_count);
    const uint64_t col = size_max(outer->stored_col, inner_col);
    const uint64_t col_end = size_min(outer->stored_col + outer->col_count,
                                      inner_col + inner->col_count * to);

    if (outer->column)
        return meet_column(outer, inner, out);
    if (row >= row_end || col >= col_end)
        return 0;
    *out = *outer;
    out->stored = inner->stored;
    out->copy = outer->copy || inner->copy;
    out->row = outer->row + (row - outer->stored_row);
    out->col = outer->col + (col - outer->stored_col);
    out->row_count = row_end - row;
    out->col_count = col_end - col;
    out->stored_row = inner->stored_row + (row - inner->row);
    out->stored_col = inner->stored_col * to + (col - inner_col);
    return 1;
}

ckpt_code layout_compose(const ckpt_layout *outer, const ckpt_layout *inner, ckpt_layout **out,
                         ckpt_error *err)
{
    ckpt_layout *layout = layout_create(outer->logical, inner->stored);
    ckpt_code code = CKPT_OK;

    if (layout == NULL)
        return ckpt_fail_memory(err, "a layout", outer->count);
    for (size_t i = 0; i < outer->count && code == CKPT_OK; i++) {
        const layout_extent *o = &outer->extents[i];
        const ckpt_tensor *logical = ckpt_catalog_at(outer->logical, o->logical);
        const uint32_t bits = ckpt_dtype_bits(catalog_part_dtype(logical, (ckpt_part)o->part));
        const ckpt_tensor *key = ckpt_catalog_at(outer->stored, o->stored);
        const uint64_t to = ckpt_dtype_bits(key->dtype) / bits;
        const layout_extent *e;
        const layout_extent *end;

        layout_extents(inner, o->stored, CKPT_DATA, &e, &end);
        for (; e < end && code == CKPT_OK; e++) {
            layout_extent both;

            if (meet(o, e, to, &both))
                code = layout_add(layout, &both, err);
        }
    }
    if (code != CKPT_OK)
        layout_free(layout);
    else
        *out = layout;
    return code;
}

layout_extent layout_identity(size_t logical, const ckpt_tensor *tensor, ckpt_part part,
                              size_t stored)
{
    const layout_extent extent = {
        .logical = (uint32_t)logical,
        .stored = (uint32_t)stored,
        .part = (uint8_t)part,
        .column = part == CKPT_SCALE && tensor->has_scale_vector,
        .row_count = ckpt_part_rows(tensor, part),
        .col_count = ckpt_part_cols(tensor, part),
    };

    return extent;
}

ckpt_code layout_of_stored(const ckpt_catalog *stored, ckpt_layout **out, ckpt_error *err)
{
    ckpt_layout *layout = layout_create(stored, stored);
    ckpt_code code = CKPT_OK;

    if (layout == NULL)
        return ckpt_fail_memory(err, "a layout", ckpt_catalog_count(stored));
    for (size_t i = 0; i < ckpt_catalog_count(stored); i++)
        for (int part = 0; part < CKPT_PART_COUNT && code == CKPT_OK; part++) {
            const ckpt_tensor *t = ckpt_catalog_at(stored, i);
            const layout_extent e = layout_identity(i, t, (ckpt_part)part, i);

            if (catalog_part_dtype(t, (ckpt_part)part) != CKPT_NONE)
                code = layout_add(layout, &e, err);
        }
    if (code == CKPT_OK)
        code = layout_seal(layout, err);
    if (code != CKPT_OK)
        layout_free(layout);
    else
        *out = layout;
    return code;
}

uint64_t layout_bytes(const ckpt_layout *layout)
{
    if (layout == NULL)
        return 0;
    return array_bytes(layout->count, sizeof *layout->extents) +
           CKPT_PART_COUNT * ckpt_catalog_count(layout->logical) * sizeof *layout->first;
}
