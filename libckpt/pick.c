/* A view that selects and orders tensors of several sources. */
#include "pick.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    ckpt_source base;
    ckpt_catalog *catalog;
    pick_entry *entries;
} pick_view;

static ckpt_code pick_read(ckpt_source *self, const source_range *range, arena *scratch,
                           ckpt_tile *tile, ckpt_error *err)
{
    const pick_entry *entry = &((const pick_view *)self)->entries[range->tensor];
    source_range inner = *range;

    inner.tensor = entry->tensor;
    return source_read_tile(entry->source, &inner, scratch, tile, err);
}

static uint64_t pick_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    const pick_entry *entry = &((const pick_view *)self)->entries[tensor];

    return source_need(entry->source, entry->tensor, row_count);
}

static void pick_free(ckpt_source *self)
{
    pick_view *v = (pick_view *)self;

    catalog_free(v->catalog);
    free(v->entries);
    free(v);
}

ckpt_code source_pick(const pick_entry *entries, size_t count, ckpt_source **out, ckpt_error *err)
{
    static const source_ops ops = { pick_read, pick_need, pick_free };
    pick_view *v = calloc(1, sizeof *v);
    ckpt_code code = CKPT_OK;

    if (v == NULL)
        return ckpt_fail_memory(err, "a view", sizeof *v);
    v->base.ops = &ops;
    v->catalog = catalog_create_borrowing();
    v->base.catalog = v->catalog;
    v->entries = calloc(count + 1, sizeof *v->entries);
    if (v->catalog == NULL || v->entries == NULL) {
        code = ckpt_fail_memory(err, "a view", count);
    } else {
        memcpy(v->entries, entries, count * sizeof *entries);
        for (size_t i = 0; i < count && code == CKPT_OK; i++)
            code = catalog_add(v->catalog,
                               ckpt_catalog_at(entries[i].source->catalog, entries[i].tensor),
                               err);
    }
    if (code != CKPT_OK)
        pick_free(&v->base);
    else
        *out = &v->base;
    return code;
}
