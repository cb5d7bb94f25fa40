/* Stored tensors in files: the list, and moving tiles between files and extents. */
#include "store.h"

#include <stdlib.h>
#include <string.h>

#include "size.h"

ckpt_store *store_create(const char *directory)
{
    ckpt_store *store = calloc(1, sizeof *store);

    if (store == NULL)
        return NULL;
    store->directory = strdup(directory);
    store->catalog = catalog_create();
    if (store->directory == NULL || store->catalog == NULL) {
        store_free(store);
        return NULL;
    }
    return store;
}

void store_free(ckpt_store *store)
{
    if (store == NULL)
        return;
    for (size_t i = 0; i < store->file_count; i++) {
        file_close(store->files[i].file, NULL);
        free(store->files[i].name);
        free(store->files[i].header);
        free(store->files[i].metadata);
        free(store->files[i].prefix);
    }
    free(store->files);
    layout_free(store->pieces);
    catalog_free(store->keys);
    catalog_free(store->catalog);
    if (store->watch != NULL)
        store->watch->free(store->watch);
    free(store->directory);
    free(store);
}

const ckpt_catalog *store_names(const ckpt_store *store)
{
    return store->keys != NULL ? store->keys : store->catalog;
}

ckpt_code store_add_file(ckpt_store *store, const char *name, uint32_t *out, ckpt_error *err)
{
    if (store->file_count == store->file_capacity) {
        const size_t capacity = store->file_capacity == 0 ? 16 : 2 * store->file_capacity;
        store_file *files = realloc(store->files, capacity * sizeof *files);

        if (files == NULL)
            return ckpt_fail_memory(err, "the list of files", capacity * sizeof *files);
        store->files = files;
        store->file_capacity = capacity;
    }
    memset(&store->files[store->file_count], 0, sizeof *store->files);
    store->files[store->file_count].name = strdup(name);
    if (store->files[store->file_count].name == NULL)
        return ckpt_fail_memory(err, "a file name", strlen(name));
    *out = (uint32_t)store->file_count++;
    return CKPT_OK;
}

ckpt_code store_open_file(ckpt_store *store, size_t i, int writable, ckpt_error *err)
{
    store_file *f = &store->files[i];
    ckpt_code code;
    char *path;

    if (f->file != NULL)
        return CKPT_OK;
    if ((path = file_join(store->directory, f->name)) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(f->name));
    code = writable ? file_open_rw(path, &f->file, err) : file_open(path, &f->file, err);
    free(path);
    return code;
}

ckpt_code store_sync_files(ckpt_store *store, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < store->file_count && code == CKPT_OK; i++)
        if (store->files[i].file != NULL)
            code = file_sync(store->files[i].file, err);
    return code;
}

ckpt_code store_close_files(ckpt_store *store, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < store->file_count; i++) {
        const ckpt_code closed = file_close(store->files[i].file, code == CKPT_OK ? err : NULL);

        store->files[i].file = NULL;
        if (code == CKPT_OK)
            code = closed;
    }
    return code;
}

ckpt_code store_check_unchanged(const ckpt_store *store, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < store->file_count && code == CKPT_OK; i++)
        if (store->files[i].file != NULL)
            code = file_check_unchanged(store->files[i].file, err);
    return code;
}

int store_locate(const ckpt_layout *layout, const layout_extent *extent, uint64_t row,
                 uint64_t row_count, store_piece *out)
{
    const ckpt_tensor *logical = ckpt_catalog_at(layout->logical, extent->logical);
    const ckpt_tensor *stored = ckpt_catalog_at(layout->stored, extent->stored);
    const ckpt_dtype dtype = extent->part == CKPT_DATA ? logical->dtype : logical->scale_dtype;
    const uint32_t bits = ckpt_dtype_bits(dtype);
    const uint64_t begin = size_max(row, extent->row);
    const uint64_t end = size_min(row + row_count, extent->row + extent->row_count);
    const uint64_t pitch_bytes = ckpt_part_row_bytes(stored, CKPT_DATA);

    if (begin >= end || extent->col_count == 0)
        return 0;
    out->rect.pitch_bytes = pitch_bytes;
    out->rect.row_bytes = extent->col_count * bits / 8;
    out->rect.row_count = end - begin;
    out->rect.offset = stored->offset + (extent->stored_row + (begin - extent->row)) * pitch_bytes +
                       extent->stored_col * bits / 8;
    out->file = stored->file;
    out->tile_row = begin - row;
    out->tile_col_bytes = extent->col * bits / 8;
    return 1;
}

/* Rows of one part that belong to a range of data rows. */
static void part_rows(const ckpt_tensor *tensor, ckpt_part part, const source_range *range,
                      uint64_t *row, uint64_t *row_count)
{
    *row = range->row;
    *row_count = range->row_count;
    if (part == CKPT_SCALE)
        source_scale_rows(tensor, range, row, row_count);
}

typedef struct {
    ckpt_store *store;
    const ckpt_layout *layout;
    int writes;               /* 0: the bytes are there already */
} tile_visit;

/* Every run of bytes that a tile has in the files: write it or not, and tell the watch. */
static ckpt_code visit_tile(const tile_visit *visit, const source_range *range,
                            const ckpt_tile *tile, ckpt_error *err)
{
    ckpt_store *store = visit->store;
    const ckpt_layout *layout = visit->layout;
    const ckpt_tensor *tensor = ckpt_catalog_at(layout->logical, range->tensor);

    for (int part = 0; part < CKPT_PART_COUNT; part++) {
        const uint64_t row_bytes = ckpt_part_row_bytes(tensor, (ckpt_part)part);
        const layout_extent *e;
        const layout_extent *end;
        uint64_t row;
        uint64_t row_count;

        if (tile->part[part] == NULL)
            continue;
        part_rows(tensor, (ckpt_part)part, range, &row, &row_count);
        layout_extents(layout, range->tensor, (ckpt_part)part, &e, &end);
        for (; e < end; e++) {
            store_piece piece;
            const char *rows;
            ckpt_code code;

            if (!store_locate(layout, e, row, row_count, &piece))
                continue;
            rows = (const char *)tile->part[part] + piece.tile_row * row_bytes +
                   piece.tile_col_bytes;
            if (visit->writes &&
                (code = file_write_rect(store->files[piece.file].file, &piece.rect, rows, row_bytes,
                                        err)) != CKPT_OK)
                return code;
            if (store->watch != NULL)
                store->watch->wrote(store->watch, e->stored, &piece.rect, rows, row_bytes);
        }
    }
    return CKPT_OK;
}

ckpt_code store_write_tile(ckpt_store *store, const ckpt_layout *layout,
                           const source_range *range, const ckpt_tile *tile, ckpt_error *err)
{
    return visit_tile(&(tile_visit){ store, layout, 1 }, range, tile, err);
}

void store_found_tile(ckpt_store *store, const ckpt_layout *layout, const source_range *range,
                      const ckpt_tile *tile)
{
    if (store->watch != NULL)
        visit_tile(&(tile_visit){ store, layout, 0 }, range, tile, NULL);
}

void store_forget_tensor(ckpt_store *store, const ckpt_layout *layout, size_t tensor)
{
    for (int part = 0; store->watch != NULL && part < CKPT_PART_COUNT; part++) {
        const layout_extent *e;
        const layout_extent *end;

        layout_extents(layout, tensor, (ckpt_part)part, &e, &end);
        for (; e < end; e++)
            store->watch->forget(store->watch, e->stored);
    }
}

/* ---- the source ---- */

typedef struct {
    ckpt_source base;
    ckpt_store *store;
    const ckpt_layout *layout;
} stored_source;

/* The part of a tile that is being read. */
typedef struct {
    char *rows;
    uint64_t row_bytes;
    arena *scratch;
} tile_part;

/* Read a copy and compare it with what was read of the original. */
static ckpt_code check_copy(const stored_source *s, const layout_extent *e,
                            const store_piece *piece, const tile_part *read, ckpt_error *err)
{
    arena *scratch = read->scratch;
    const uint64_t row_bytes = read->row_bytes;
    const char *original = read->rows + piece->tile_row * row_bytes + piece->tile_col_bytes;
    const ckpt_tensor *stored = ckpt_catalog_at(s->layout->stored, e->stored);
    const uint64_t width = piece->rect.row_bytes;
    const size_t mark = arena_mark(scratch);
    char *copy = arena_alloc(scratch, piece->rect.row_count * width);
    ckpt_code code;

    if (copy == NULL)
        return ckpt_fail_memory(err, "a copy", piece->rect.row_count * width);
    code = file_read_rect(s->store->files[piece->file].file, &piece->rect, copy, width, err);
    for (uint64_t r = 0; code == CKPT_OK && r < piece->rect.row_count; r++)
        if (memcmp(copy + r * width, original + r * row_bytes, width) != 0)
            code = ckpt_fail(err, CKPT_E_FORMAT,
                             "'%s' in '%s' must repeat '%s', but row %llu differs", stored->name,
                             s->store->files[piece->file].name,
                             ckpt_catalog_at(s->layout->logical, e->logical)->name,
                             (unsigned long long)(e->row + piece->tile_row + r));
    arena_rewind(scratch, mark);
    return code;
}

static ckpt_code read_part(stored_source *s, const source_range *range, ckpt_part part,
                           arena *scratch, ckpt_tile *tile, ckpt_error *err)
{
    const ckpt_tensor *tensor = ckpt_catalog_at(s->base.catalog, range->tensor);
    const uint64_t row_bytes = ckpt_part_row_bytes(tensor, part);
    const layout_extent *e;
    const layout_extent *end;
    uint64_t row;
    uint64_t row_count;
    char *out;

    part_rows(tensor, part, range, &row, &row_count);
    tile->part_bytes[part] = row_count * row_bytes;
    tile->part[part] = out = arena_alloc(scratch, row_count * row_bytes);
    if (out == NULL)
        return ckpt_fail_memory(err, "a tile", row_count * row_bytes);
    layout_extents(s->layout, range->tensor, part, &e, &end);
    for (; e < end; e++) {
        store_piece piece;
        ckpt_code code;
        char *at;

        if (!store_locate(s->layout, e, row, row_count, &piece))
            continue;
        at = out + piece.tile_row * row_bytes + piece.tile_col_bytes;
        if (e->copy)
            code = check_copy(s, e, &piece, &(tile_part){ out, row_bytes, scratch }, err);
        else
            code = file_read_rect(s->store->files[piece.file].file, &piece.rect, at, row_bytes,
                                  err);
        if (code != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static ckpt_code stored_read(ckpt_source *self, const source_range *range, arena *scratch,
                             ckpt_tile *tile, ckpt_error *err)
{
    stored_source *s = (stored_source *)self;
    const ckpt_tensor *tensor = ckpt_catalog_at(self->catalog, range->tensor);
    ckpt_code code = CKPT_OK;

    if (range->want & SOURCE_WANT_DATA)
        code = read_part(s, range, CKPT_DATA, scratch, tile, err);
    if (code == CKPT_OK && (range->want & SOURCE_WANT_SCALE) && tensor->scale_dtype != CKPT_NONE)
        code = read_part(s, range, CKPT_SCALE, scratch, tile, err);
    return code;
}

static uint64_t stored_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    const stored_source *s = (const stored_source *)self;
    const ckpt_tensor *t = ckpt_catalog_at(self->catalog, tensor);
    uint64_t total = 0;

    for (int part = 0; part < CKPT_PART_COUNT; part++) {
        const source_range range = { .tensor = tensor, .row_count = row_count };
        const layout_extent *e;
        const layout_extent *end;
        uint64_t row;
        uint64_t rows;

        if (part == CKPT_SCALE && t->scale_dtype == CKPT_NONE)
            continue;
        part_rows(t, (ckpt_part)part, &range, &row, &rows);
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
