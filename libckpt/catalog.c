/* The list of tensors of a source. */
#include "catalog.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "text.h"

ckpt_catalog *catalog_create(void)
{
    ckpt_catalog *catalog = calloc(1, sizeof *catalog);

    if (catalog == NULL)
        return NULL;
    arena_init(&catalog->memory);
    table_init(&catalog->names);
    return catalog;
}

ckpt_catalog *catalog_create_borrowing(void)
{
    ckpt_catalog *catalog = catalog_create();

    if (catalog != NULL)
        catalog->borrows_names = 1;
    return catalog;
}

void catalog_free(ckpt_catalog *catalog)
{
    if (catalog == NULL)
        return;
    table_release(&catalog->names);
    arena_release(&catalog->memory);
    array_free_counted(catalog->tensors, catalog->count, sizeof *catalog->tensors);
    free(catalog);
}

ckpt_code catalog_add(ckpt_catalog *catalog, const ckpt_tensor *tensor, ckpt_error *err)
{
    ckpt_tensor copy = *tensor;
    ckpt_tensor *tensors;
    ckpt_code code;

    if ((code = catalog_check_shape(tensor, err)) != CKPT_OK)
        return code;
    tensors = array_room_counted(catalog->tensors, catalog->count, sizeof *tensors, "the catalog",
                                 err);
    if (tensors == NULL)
        return CKPT_E_MEMORY;
    catalog->tensors = tensors;
    if (!catalog->borrows_names)
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
    tensors[catalog->count++] = copy;
    return CKPT_OK;
}

ckpt_tensor *catalog_edit(ckpt_catalog *catalog, size_t i)
{
    return &catalog->tensors[i];
}

uint64_t catalog_bytes(const ckpt_catalog *catalog)
{
    return catalog->memory.total_bytes + array_bytes(catalog->count, sizeof *catalog->tensors) +
           table_bytes(&catalog->names);
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

int64_t catalog_find_same(const ckpt_catalog *catalog, const ckpt_tensor *tensor)
{
    const int64_t i = ckpt_catalog_find(catalog, tensor->name);
    const ckpt_tensor *found = i < 0 ? NULL : ckpt_catalog_at(catalog, (size_t)i);

    return found != NULL && found->dtype == tensor->dtype && catalog_same_shape(found, tensor)
               ? i : CKPT_NOT_FOUND;
}

int catalog_has_match(const ckpt_catalog *catalog, const char *glob)
{
    for (size_t i = 0; i < catalog->count; i++)
        if (text_matches_any(catalog->tensors[i].name, &glob, 1))
            return 1;
    return 0;
}
