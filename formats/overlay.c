/* Tensors that exist in several files. The store has all of them, the later ones as FILE:NAME. */
#include "overlay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/map.h"
#include "libckpt/memory.h"
#include "notes.h"

ckpt_code overlay_begin(overlay *o, ckpt_store *store, file_list *notes, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(store->catalog);

    memset(o, 0, sizeof *o);
    o->store = store;
    o->notes = notes;
    table_init(&o->shadowed);
    arena_init(&o->names);
    if (store->repeat_count == 0)
        return CKPT_OK;
    if (!memory_has(count) || (o->is_repeat = calloc(count, 1)) == NULL)
        return ckpt_fail_memory(err, "copies of tensors", count);
    for (size_t i = 0; i < store->repeat_count; i++)
        o->is_repeat[store->repeats[i].tensor] = 1;
    return CKPT_OK;
}

void overlay_release(overlay *o)
{
    table_release(&o->shadowed);
    arena_release(&o->names);
    free(o->is_repeat);
}

/* Compare everything except the names. */
static void swap(ckpt_tensor *a, ckpt_tensor *b)
{
    const ckpt_tensor old = *a;
    const char *b_name = b->name;

    *a = *b;
    a->name = old.name;
    *b = old;
    b->name = b_name;
}

void overlay_choose(overlay *o, const char *name, uint32_t file)
{
    const ckpt_catalog *catalog = o->store->catalog;
    const int64_t first = ckpt_catalog_find(catalog, name);
    char repeat[2 * MAP_NAME_BYTES];
    int64_t found;

    if (o->is_repeat == NULL || first < 0 || o->is_repeat[first] ||
        ckpt_catalog_at(catalog, (size_t)first)->file == file ||
        snprintf(repeat, sizeof repeat, "%s:%s", o->store->files[file].name, name) >=
            (int)sizeof repeat)
        return;
    found = ckpt_catalog_find(catalog, repeat);
    if (found >= 0 && o->is_repeat[found])
        swap(catalog_edit(o->store->catalog, (size_t)first),
             catalog_edit(o->store->catalog, (size_t)found));
}

static ckpt_code note_repeat(overlay *o, const store_repeat *repeat, ckpt_error *err)
{
    const store_file *files = o->store->files;
    const ckpt_tensor *other = ckpt_catalog_at(o->store->catalog, repeat->tensor);
    const char *name = other->name + strlen(files[repeat->file].name) + 1;
    const int64_t taken = ckpt_catalog_find(o->store->catalog, name);
    const char *kept = arena_strdup(&o->names, name, strlen(name));

    if (kept == NULL || table_add(&o->shadowed, kept, other->file) == TABLE_NO_MEMORY)
        return ckpt_fail_memory(err, "copies of tensors", strlen(name));
    return note_add(o->notes, err, "tensor '%s' of '%s' is not used: the index maps it to '%s'",
                    name, files[other->file].name,
                    files[ckpt_catalog_at(o->store->catalog, (size_t)taken)->file].name);
}

/* An edited weight in an overlay with the scale of the old one, or the other way round: legal, but
 * usually a mistake. */
static ckpt_code note_split_pairs(overlay *o, ckpt_error *err)
{
    const ckpt_catalog *catalog = o->store->catalog;
    const store_file *files = o->store->files;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(catalog) && code == CKPT_OK; i++) {
        const ckpt_tensor *scale = ckpt_catalog_at(catalog, i);
        char name[MAP_NAME_BYTES];
        uint64_t file;
        int64_t w;

        if ((w = pair_find_weight(catalog, scale->name, name)) < 0 ||
            table_find(&o->shadowed, name, &file) == table_find(&o->shadowed, scale->name, &file))
            continue;
        code = note_add(o->notes, err,
                        "'%s' is in '%s' and its scale in '%s': only one of the two replaces an "
                        "older copy", name, files[ckpt_catalog_at(catalog, (size_t)w)->file].name,
                        files[scale->file].name);
    }
    return code;
}

/* The catalog without the unused copies. */
static ckpt_code forget_repeats(overlay *o, ckpt_error *err)
{
    const ckpt_catalog *all = o->store->catalog;
    ckpt_catalog *kept = catalog_create();
    ckpt_code code = CKPT_OK;

    if (kept == NULL)
        return ckpt_fail_memory(err, "a catalog", ckpt_catalog_count(all));
    for (size_t i = 0; i < ckpt_catalog_count(all) && code == CKPT_OK; i++)
        if (!o->is_repeat[i])
            code = catalog_add(kept, ckpt_catalog_at(all, i), err);
    if (code != CKPT_OK) {
        catalog_free(kept);
        return code;
    }
    catalog_free(o->store->catalog);
    o->store->catalog = kept;
    return CKPT_OK;
}

ckpt_code overlay_end(overlay *o, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (o->is_repeat == NULL)
        return CKPT_OK;
    for (size_t i = 0; i < o->store->repeat_count && code == CKPT_OK; i++)
        code = note_repeat(o, &o->store->repeats[i], err);
    if (code == CKPT_OK)
        code = note_split_pairs(o, err);
    return code == CKPT_OK ? forget_repeats(o, err) : code;
}
