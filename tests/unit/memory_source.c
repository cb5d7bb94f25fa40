/* Tensors in memory. */
#include "memory_source.h"

#include <stdlib.h>
#include <string.h>

struct memory_source {
    ckpt_source base;
    ckpt_catalog *catalog;
    void **parts;                  /* CKPT_PART_COUNT for each tensor */
};

static void *must(void *memory)
{
    if (memory == NULL)
        abort();
    return memory;
}

static ckpt_code memory_read(ckpt_source *self, const source_range *range, arena *scratch,
                             ckpt_tile *tile, ckpt_error *err)
{
    memory_source *m = (memory_source *)self;
    const ckpt_tensor *t = ckpt_catalog_at(m->catalog, range->tensor);

    for (int part = 0; part < CKPT_PART_COUNT; part++) {
        const uint64_t row_bytes = ckpt_part_row_bytes(t, (ckpt_part)part);
        uint64_t row;
        uint64_t row_count;

        if (catalog_part_dtype(t, (ckpt_part)part) == CKPT_NONE)
            continue;
        source_part_rows(t, (ckpt_part)part, range, &row, &row_count);
        tile->part_bytes[part] = row_count * row_bytes;
        tile->part[part] = arena_alloc(scratch, tile->part_bytes[part]);
        if (tile->part[part] == NULL)
            return ckpt_fail_memory(err, t->name, tile->part_bytes[part]);
        memcpy(tile->part[part],
               (char *)m->parts[CKPT_PART_COUNT * range->tensor + (size_t)part] + row * row_bytes,
               tile->part_bytes[part]);
    }
    return CKPT_OK;
}

static uint64_t memory_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    const memory_source *m = (const memory_source *)self;
    const ckpt_tensor *t = ckpt_catalog_at(m->catalog, tensor);
    const source_range range = { .tensor = tensor, .row_count = row_count };
    uint64_t need = 0;

    for (int part = 0; part < CKPT_PART_COUNT; part++) {
        uint64_t row;
        uint64_t rows;

        if (catalog_part_dtype(t, (ckpt_part)part) == CKPT_NONE)
            continue;
        source_part_rows(t, (ckpt_part)part, &range, &row, &rows);
        need += arena_cost(rows * ckpt_part_row_bytes(t, (ckpt_part)part));
    }
    return need;
}

memory_source *memory_source_create(void)
{
    static const source_ops ops = { memory_read, memory_need, NULL };
    memory_source *m = must(calloc(1, sizeof *m));

    m->catalog = must(catalog_create());
    m->base.ops = &ops;
    m->base.catalog = m->catalog;
    return m;
}

void memory_source_free(memory_source *source)
{
    for (size_t i = 0; i < CKPT_PART_COUNT * ckpt_catalog_count(source->catalog); i++)
        free(source->parts[i]);
    free(source->parts);
    catalog_free(source->catalog);
    free(source);
}

ckpt_source *memory_source_base(memory_source *source)
{
    return &source->base;
}

const ckpt_catalog *memory_source_catalog(const memory_source *source)
{
    return source->catalog;
}

size_t memory_source_add_tensor(memory_source *source, const ckpt_tensor *tensor)
{
    const size_t i = ckpt_catalog_count(source->catalog);

    if (catalog_add(source->catalog, tensor, NULL) != CKPT_OK)
        abort();
    source->parts = must(realloc(source->parts,
                                 CKPT_PART_COUNT * (i + 1) * sizeof *source->parts));
    for (int part = 0; part < CKPT_PART_COUNT; part++)
        source->parts[CKPT_PART_COUNT * i + (size_t)part] =
            must(calloc(1, ckpt_part_bytes(tensor, (ckpt_part)part) + 1));
    return i;
}

size_t memory_source_add(memory_source *source, const char *name, ckpt_dtype dtype, uint64_t rows,
                         uint64_t cols)
{
    ckpt_tensor t = { .name = name, .dtype = dtype, .rank = 2, .shape = { rows, cols } };

    if (dtype == CKPT_F8_E4M3 || dtype == CKPT_F4) {
        t.scale_dtype = CKPT_F8_E8M0;
        t.block_rows = dtype == CKPT_F4 ? 1 : 128;
        t.block_cols = dtype == CKPT_F4 ? 32 : 128;
    }
    return memory_source_add_tensor(source, &t);
}

void *memory_source_part(memory_source *source, size_t tensor, ckpt_part part)
{
    return source->parts[CKPT_PART_COUNT * tensor + part];
}
