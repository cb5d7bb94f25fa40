/* Cutting keys for tests. */
#include "split_keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "formats/maps.h"

ckpt_store *split_keys(const split_model *model, const format_sharding *sharding, ckpt_error *err)
{
    const ckpt_builtin_map *text = maps_find(model->map);
    ckpt_store *store = store_create("nowhere");
    ckpt_catalog *keys = catalog_create();
    ckpt_map *map;
    ckpt_code code;

    assert_non_null(text);
    assert_non_null(store);
    assert_non_null(keys);
    assert_int_equal(map_parse(text->text, text->text_bytes, text->name, &map, err), CKPT_OK);
    for (size_t i = 0; i < model->key_count; i++) {
        const split_key *k = &model->keys[i];
        ckpt_tensor t = { .name = k->name, .dtype = k->dtype, .stored_dtype = k->dtype,
                          .rank = k->rank };

        memcpy(t.shape, k->shape, k->rank * sizeof t.shape[0]);
        assert_int_equal(catalog_add(keys, &t, err), CKPT_OK);
    }
    if ((code = model->format->split(store, keys, map, sharding, err)) == CKPT_OK)
        code = model->format->lay_out(store, &(format_target){ .map = map }, err);
    map_free(map);
    if (code == CKPT_OK)
        return store;
    store_free(store);
    return NULL;
}

const ckpt_tensor *split_piece(const ckpt_store *store, const char *name)
{
    const int64_t found = ckpt_catalog_find(store->catalog, name);

    if (found < 0)
        fail_msg("there is no piece '%s'", name);
    return ckpt_catalog_at(store->catalog, (size_t)found);
}

void split_corner(const ckpt_store *store, const char *name, uint64_t out[CKPT_RANK_MAX])
{
    const int64_t piece = ckpt_catalog_find(store->catalog, name);

    for (size_t i = 0; i < store->pieces->count; i++) {
        const layout_extent *e = &store->pieces->extents[i];
        const ckpt_tensor *key = ckpt_catalog_at(store->keys, e->logical);
        uint64_t row = e->row;

        if ((int64_t)e->stored != piece || e->stored_row != 0)
            continue;
        out[key->rank - 1] = e->col;
        for (uint32_t d = key->rank - 1; d > 0; d--) {
            out[d - 1] = row % key->shape[d - 1];
            row /= key->shape[d - 1];
        }
        return;
    }
    fail_msg("there is no piece '%s'", name);
}
