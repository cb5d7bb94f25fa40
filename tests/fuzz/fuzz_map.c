/* fuzz_map.c: map texts, applied both ways to a small catalog. */
#include "libckpt/map.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ckpt_catalog *make_stored(void)
{
    static const struct {
        const char *name;
        ckpt_dtype dtype;
        uint32_t rank;
        uint64_t shape[3];
    } tensors[] = {
        { "embed.weight", CKPT_BF16, 2, { 6, 4 } },
        { "mtp.0.emb.tok_emb.weight", CKPT_BF16, 2, { 6, 4 } },
        { "hc_head_scale", CKPT_F32, 1, { 1 } },
        { "layers.0.attn.wq_a.weight", CKPT_F8_E4M3, 2, { 256, 130 } },
        { "layers.0.attn.wq_a.scale", CKPT_F8_E8M0, 2, { 2, 2 } },
        { "layers.0.ffn.experts.0.w1.weight", CKPT_I8, 2, { 2, 16 } },
        { "layers.0.ffn.experts.0.w1.scale", CKPT_F8_E8M0, 2, { 2, 1 } },
        { "layers.0.ffn.experts.1.w1.weight", CKPT_I8, 2, { 2, 16 } },
        { "layers.0.ffn.experts.1.w1.scale", CKPT_F8_E8M0, 2, { 2, 1 } },
        { "model.layers.0.mlp.experts.gate_up_proj", CKPT_BF16, 3, { 2, 8, 4 } },
    };
    ckpt_catalog *stored = catalog_create();

    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        ckpt_tensor t = { .name = tensors[i].name, .dtype = tensors[i].dtype,
                          .stored_dtype = tensors[i].dtype, .rank = tensors[i].rank };

        memcpy(t.shape, tensors[i].shape, sizeof tensors[i].shape);
        if (stored == NULL || catalog_add(stored, &t, NULL) != CKPT_OK)
            abort();
    }
    return stored;
}

/* Write what was read; whatever is written has a place for every logical element. */
static void write_back(const ckpt_map *map, const map_reading *reading)
{
    const map_write_input input = { map, reading->logical, reading->layout };
    ckpt_catalog *stored = catalog_create();
    ckpt_layout *layout;
    ckpt_error err;

    if (stored == NULL)
        abort();
    if (map_write(&input, stored, &layout, &err) == CKPT_OK) {
        for (size_t i = 0; i < ckpt_catalog_count(stored); i++)
            if (ckpt_catalog_find(stored, ckpt_catalog_at(stored, i)->name) != (int64_t)i)
                abort();
        layout_free(layout);
    } else if (err.text[0] == '\0' || strchr(err.text, '\n') != NULL) {
        abort();
    }
    catalog_free(stored);
}

static void look_up(const ckpt_map *map, const ckpt_catalog *stored)
{
    for (size_t i = 0; i < ckpt_catalog_count(stored); i++) {
        const char *name = ckpt_catalog_at(stored, i)->name;
        char expanded[MAP_NAME_BYTES];
        uint64_t layer;
        map_captures captures = { .count = 0 };
        const map_rule *rule = map_find_stored(map, name, &captures);

        /* A pattern that fits a name gives the name back. */
        if (rule != NULL && (!map_expand(rule->stored, &captures, expanded) ||
                             strcmp(expanded, name) != 0))
            abort();
        map_find_shard(map, name, &captures);
        map_find_stage(map, name, &layer);
        map_find_extra(map, name);
        map_find_encode(map, name);
        map_find_omit(map, name);
        map_find_spare(map, name);
        map_find_cut(map, name);
        map_carries(map, name);
    }
    if (map_score(map, stored).matched > ckpt_catalog_count(stored) || !map_same_rules(map, map))
        abort();
}

static json_document *make_config(void)
{
    static const char text[] = "{\"heads\": 4, \"groups\": 2, \"layers\": 3, \"big\": "
                               "9007199254740991, \"word\": \"x\", \"a\": {\"b\": 1}}";
    json_document *config;

    if (json_parse(text, sizeof text - 1, "config", &config, NULL) != CKPT_OK)
        abort();
    return config;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static ckpt_catalog *stored;
    static json_document *config;
    ckpt_error err;
    ckpt_map *map;

    if (stored == NULL) {
        stored = make_stored();
        config = make_config();
    }
    if (map_parse((const char *)data, size, "input", &map, &err) != CKPT_OK)
        return 0;
    if (map_bind(map, json_root(config), &err) != CKPT_OK) {
        map_free(map);
        return 0;
    }
    look_up(map, stored);
    for (int lenient = 0; lenient < 2; lenient++) {
        const map_read_options options = { .lenient = lenient, .encodings = UINT_MAX };
        map_reading reading;

        if (map_read(map, stored, &options, &reading, &err) != CKPT_OK)
            continue;
        for (size_t i = 0; i < ckpt_catalog_count(stored); i++)
            if (reading.fates[i].kind == FATE_NONE)
                abort();                    /* nothing is silent */
        write_back(map, &reading);
        map_reading_release(&reading);
    }
    map_free(map);
    return 0;
}
