/* The source that reads tiles from files. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store_piece.h"

typedef struct {
    ckpt_source base;
    ckpt_store *store;
    const ckpt_layout *layout;
} stored_source;

/* One part of a tile, while it is read. */
typedef struct {
    char *rows;
    uint64_t row_bytes;
    uint64_t row;                  /* first row, within the tensor's part */
    arena *scratch;
} tile_part;

/* A row of a copy that differs from the original. */
typedef struct {
    uint64_t row;                  /* within the tensor's part */
    const char *original;
    const char *copy;
} copied_row;

/* The column of the first byte that differs, in elements; *at: the byte's index in the row. */
static uint64_t find_column(const ckpt_tensor *tensor, const layout_extent *e,
                            const store_piece *piece, const copied_row *row, uint64_t *at)
{
    for (*at = 0; row->copy[*at] == row->original[*at]; ++*at)
        ;
    return (piece->tile_col_bytes + *at) * 8 /
           ckpt_dtype_bits(catalog_part_dtype(tensor, (ckpt_part)e->part));
}

/* Keep the first difference in the order of parts, rows and files, so that the result does not
 * depend on the order of threads. */
static void note_copy(const stored_source *s, const store_copy *found, size_t tensor)
{
    store_copy *known = &s->store->copies[tensor];

    pthread_mutex_lock(&s->store->copies_lock);
    if (!known->is_found || found->part < known->part ||
        (found->part == known->part &&
         (found->row < known->row || (found->row == known->row && found->file < known->file))))
        *known = *found;
    pthread_mutex_unlock(&s->store->copies_lock);
}

static ckpt_code take_difference(const stored_source *s, const layout_extent *e,
                                 const store_piece *piece, const copied_row *row,
                                 ckpt_error *err)
{
    const ckpt_tensor *tensor = ckpt_catalog_at(s->layout->logical, e->logical);
    const store_file *file = &s->store->files[piece->file];
    const char *name = ckpt_catalog_at(s->layout->stored, e->stored)->name;
    uint64_t at;
    const uint64_t col = find_column(tensor, e, piece, row, &at);

    if (s->store->copies != NULL) {
        note_copy(s, &(store_copy){ 1, e->part, row->row, col, (uint32_t)piece->file },
                  e->logical);
        return CKPT_OK;
    }
    if (file->prefix != NULL)
        name += strlen(file->prefix);
    return ckpt_fail(err, CKPT_E_FORMAT,
                     "tensor '%s' has a copy that differs, '%s' in '%s': %srow %" PRIu64
                     " column %" PRIu64 ": expected byte 0x%02x, got 0x%02x", tensor->name, name,
                     file->name, e->part == CKPT_DATA ? "" : "scale ", row->row, col,
                     (unsigned char)row->original[at], (unsigned char)row->copy[at]);
}

/* Read a copy and compare it with the original, which has been read. */
static ckpt_code check_copy(const stored_source *s, const layout_extent *e,
                            const store_piece *piece, const tile_part *read, ckpt_error *err)
{
    const ckpt_tensor *tensor = ckpt_catalog_at(s->layout->logical, e->logical);
    arena *scratch = read->scratch;
    const uint64_t row_bytes = read->row_bytes;
    const char *original = read->rows + piece->tile_row * row_bytes + piece->tile_col_bytes;
    const uint64_t width =
        e->col_count * ckpt_dtype_bits(catalog_part_dtype(tensor, piece->part)) / 8;
    const size_t mark = arena_mark(scratch);
    char *copy = arena_alloc(scratch, piece->rect.row_count * width);
    piece_rows own = { .part = { NULL } };
    ckpt_code code;

    if (copy == NULL)
        return ckpt_fail_memory(err, "a copy", piece->rect.row_count * width);
    own.part[piece->part] = (uint8_t *)copy;
    own.pitch_bytes[piece->part] = width;
    code = store_read_piece(s->store, piece, &own, scratch, err);
    for (uint64_t r = 0; code == CKPT_OK && r < piece->rect.row_count; r++)
        if (memcmp(copy + r * width, original + r * row_bytes, width) != 0)
            code = take_difference(s, e, piece,
                                   &(copied_row){ read->row + piece->tile_row + r,
                                                  original + r * row_bytes, copy + r * width },
                                   err);
    arena_rewind(scratch, mark);
    return code;
}

static ckpt_code make_room(const ckpt_tensor *tensor, const source_range *range, arena *scratch,
                           ckpt_tile *tile, ckpt_error *err)
{
    for (int part = 0; part < CKPT_PART_COUNT; part++) {
        uint64_t row;
        uint64_t row_count;

        if ((range->want & 1u << part) == 0 ||
            catalog_part_dtype(tensor, (ckpt_part)part) == CKPT_NONE)
            continue;
        source_part_rows(tensor, (ckpt_part)part, range, &row, &row_count);
        tile->part_bytes[part] = row_count * ckpt_part_row_bytes(tensor, (ckpt_part)part);
        tile->part[part] = arena_alloc(scratch, tile->part_bytes[part]);
        if (tile->part[part] == NULL)
            return ckpt_fail_memory(err, "a tile", tile->part_bytes[part]);
    }
    return CKPT_OK;
}

static ckpt_code read_part(const stored_source *s, const source_range *range, ckpt_part part,
                           const ckpt_tile *tile, arena *scratch, ckpt_error *err)
{
    const ckpt_tensor *tensor = ckpt_catalog_at(s->base.catalog, range->tensor);
    const int has_both = tile->part[CKPT_DATA] != NULL;
    tile_part read = { tile->part[part], ckpt_part_row_bytes(tensor, part), 0, scratch };
    const layout_extent *e;
    const layout_extent *end;
    ckpt_code code = CKPT_OK;
    uint64_t row_count;

    source_part_rows(tensor, part, range, &read.row, &row_count);
    layout_extents(s->layout, range->tensor, part, &e, &end);
    for (; e < end && code == CKPT_OK; e++) {
        store_piece piece;
        piece_rows to;

        if (!store_locate(s->layout, e, read.row, row_count, &piece) ||
            (piece.form != NULL && part == CKPT_SCALE && has_both && !e->copy))
            continue;                  /* scales in blocks were read with the codes */
        to = store_rows_of(tensor, tile, &piece);
        code = e->copy ? check_copy(s, e, &piece, &read, err)
                       : store_read_piece(s->store, &piece, &to, scratch, err);
    }
    return code;
}

static ckpt_code stored_read(ckpt_source *self, const source_range *range, arena *scratch,
                             ckpt_tile *tile, ckpt_error *err)
{
    const stored_source *s = (const stored_source *)self;
    const ckpt_tensor *tensor = ckpt_catalog_at(self->catalog, range->tensor);
    ckpt_code code = make_room(tensor, range, scratch, tile, err);

    for (int part = 0; part < CKPT_PART_COUNT && code == CKPT_OK; part++)
        if (tile->part[part] != NULL)
            code = read_part(s, range, (ckpt_part)part, tile, scratch, err);
    return code;
}

static uint64_t stored_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    const stored_source *s = (const stored_source *)self;
    const ckpt_tensor *t = ckpt_catalog_at(self->catalog, tensor);
    uint64_t total = store_blocks_need(s->layout, tensor, row_count);

    for (int part = 0; part < CKPT_PART_COUNT; part++) {
        const source_range range = { .tensor = tensor, .row_count = row_count };
        const layout_extent *e;
        const layout_extent *end;
        uint64_t row;
        uint64_t rows;

        if (catalog_part_dtype(t, (ckpt_part)part) == CKPT_NONE)
            continue;
        source_part_rows(t, (ckpt_part)part, &range, &row, &rows);
        layout_extents(s->layout, tensor, (ckpt_part)part, &e, &end);
        total += arena_cost(rows * ckpt_part_row_bytes(t, (ckpt_part)part)) *
                 (e < end && end[-1].copy ? 2 : 1);
    }
    return total;
}

static void stored_free(ckpt_source *self)
{
    free(self);
}

ckpt_code source_stored(ckpt_store *store, const ckpt_layout *layout, ckpt_source **out,
                        ckpt_error *err)
{
    static const source_ops ops = { stored_read, stored_need, stored_free };
    stored_source *s = calloc(1, sizeof *s);

    if (s == NULL)
        return ckpt_fail_memory(err, "a source", sizeof *s);
    s->base.ops = &ops;
    s->base.catalog = layout->logical;
    s->store = store;
    s->layout = layout;
    *out = &s->base;
    return CKPT_OK;
}
