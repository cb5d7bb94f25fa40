/* The list of tensors of a source. */
#include "catalog.h"

#include <stdlib.h>
#include <string.h>

enum { CATALOG_FIRST_CAPACITY = 64 };

ckpt_catalog *catalog_create(void)
{
    ckpt_catalog *catalog = calloc(1, sizeof *catalog);

    if (catalog == NULL)
        return NULL;
    arena_init(&catalog->memory);
    table_init(&catalog->names);
    return catalog;
}

void catalog_free(ckpt_catalog *catalog)
{
    if (catalog == NULL)
        return;
    table_release(&catalog->names);
    arena_release(&catalog->memory);
    free(catalog->tensors);
    free(catalog);
}

static ckpt_code catalog_grow(ckpt_catalog *catalog, ckpt_error *err)
{
    const size_t capacity =
        catalog->capacity == 0 ? CATALOG_FIRST_CAPACITY : 2 * catalog->capacity;
    ckpt_tensor *tensors = realloc(catalog->tensors, capacity * sizeof *tensors);

    if (tensors == NULL)
        return ckpt_fail_memory(err, "the catalog", capacity * sizeof *tensors);
    catalog->tensors = tensors;
    catalog->capacity = capacity;
    return CKPT_OK;
}

ckpt_code catalog_add(ckpt_catalog *catalog, const ckpt_tensor *tensor, ckpt_error *err)
{
    ckpt_tensor copy = *tensor;
    ckpt_code code;

    if ((code = catalog_check_shape(tensor, err)) != CKPT_OK)
        return code;
    if (catalog->count == catalog->capacity && (code = catalog_grow(catalog, err)) != CKPT_OK)
        return code;
    copy.name = arena_strdup(&catalog->memory, tensor->name, strlen(tensor->name));
    if (copy.name == NULL)
        return ckpt_fail_memory(err, "a tensor name", strlen(tensor->name));
    switch (table_add(&catalog->names, copy.name, catalog->count)) {
    case TABLE_ADDED:
        break;
    case TABLE_PRESENT:
        return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' appears twice", copy.name);
    default:
        return ckpt_fail_memory(err, "the table of names", catalog->count);
    }
    catalog->tensors[catalog->count++] = copy;
    return CKPT_OK;
}

ckpt_tensor *catalog_edit(ckpt_catalog *catalog, size_t i)
{
    return &catalog->tensors[i];
}

uint64_t catalog_bytes(const ckpt_catalog *catalog)
{
    enum { TABLE_SLOT_BYTES = 24 };

    return catalog->memory.total_bytes + catalog->capacity * sizeof *catalog->tensors +
           catalog->names.slot_count * TABLE_SLOT_BYTES;
}

size_t ckpt_catalog_count(const ckpt_catalog *catalog)
{
    return catalog->count;
}

const ckpt_tensor *ckpt_catalog_at(const ckpt_catalog *catalog, size_t i)
{
    return &catalog->tensors[i];
}

int64_t ckpt_catalog_find(const ckpt_catalog *catalog, const char *name)
{
    uint64_t i;

    return table_find(&catalog->names, name, &i) ? (int64_t)i : CKPT_NOT_FOUND;
}
