/* Looking up what a map says of a name. */
#include "map.h"

#include <string.h>

/* The reason of the first line of this kind that is about a logical tensor. */
static const char *find_reason(const ckpt_map *map, map_kind kind, const char *name)
{
    for (size_t i = 0; i < map->rule_count; i++) {
        map_captures captures = { .count = 0 };

        if (map->rules[i].kind == kind &&
            map_match(map->rules[i].pieces[0].logical, name, &captures))
            return map->rules[i].reason;
    }
    return NULL;
}

const char *map_find_omit(const ckpt_map *map, const char *name)
{
    return find_reason(map, MAP_OMIT, name);
}

const char *map_find_plain(const ckpt_map *map, const char *name)
{
    return find_reason(map, MAP_PLAIN, name);
}

const map_module *map_find_module(const ckpt_map *map, const char *name, map_captures *captures)
{
    for (size_t i = 0; i < map->module_count; i++) {
        captures->count = 0;
        if (map_match(map->modules[i].logical, name, captures))
            return &map->modules[i];
    }
    return NULL;
}

const map_shard *map_find_shard(const ckpt_map *map, const char *name, map_captures *captures)
{
    for (size_t i = 0; i < map->shard_count; i++) {
        captures->count = 0;
        if (map_match(map->shards[i].stored, name, captures))
            return &map->shards[i];
    }
    return NULL;
}

map_stage_kind map_find_stage(const ckpt_map *map, const char *name, uint64_t *layer)
{
    for (size_t i = 0; i < map->stage_count; i++) {
        const map_stage *stage = &map->stages[i];
        map_captures captures = { .count = 0 };

        if (!map_match(stage->stored, name, &captures))
            continue;
        if (stage->is_stacked)
            return MAP_STAGE_STACKED;
        if (stage->layer == NULL)
            return MAP_STAGE_FIRST;
        if (map_capture_number(&captures, stage->layer, layer))
            return MAP_STAGE_LAYER;
    }
    return MAP_STAGE_LAST;
}

const map_extra *map_find_extra(const ckpt_map *map, const char *name)
{
    for (size_t i = 0; i < map->extra_count; i++) {
        map_captures captures = { .count = 0 };

        if (map_match(map->extras[i].stored, name, &captures))
            return &map->extras[i];
    }
    return NULL;
}

ckpt_dtype map_find_encode(const ckpt_map *map, const char *name)
{
    for (size_t i = 0; i < map->encode_count; i++) {
        map_captures captures = { .count = 0 };

        if (map_match(map->encodes[i].logical, name, &captures))
            return map->encodes[i].dtype;
    }
    return CKPT_NONE;
}

ckpt_code map_add_prefix(ckpt_map *map, const char *prefix, ckpt_error *err)
{
    const size_t length = strlen(prefix);

    for (size_t i = 0; i < map->rule_count; i++) {
        map_rule *rule = &map->rules[i];
        char *name;

        if (rule->stored == NULL)
            continue;
        if ((name = arena_alloc(&map->memory, length + strlen(rule->stored) + 1)) == NULL)
            return ckpt_fail_memory(err, "a map", length);
        memcpy(name, prefix, length);
        memcpy(name + length, rule->stored, strlen(rule->stored) + 1);
        rule->stored = name;
    }
    map->prefix = arena_strdup(&map->memory, prefix, length);
    return map->prefix == NULL ? ckpt_fail_memory(err, "a map", length) : CKPT_OK;
}

const map_rule *map_find_stored(const ckpt_map *map, const char *name, map_captures *captures)
{
    for (size_t i = 0; i < map->rule_count; i++) {
        captures->count = 0;
        if (map_match(map->rules[i].stored, name, captures))
            return &map->rules[i];
    }
    return NULL;
}

size_t map_score(const ckpt_map *map, const ckpt_catalog *stored)
{
    size_t score = 0;

    for (size_t i = 0; i < ckpt_catalog_count(stored); i++) {
        const char *name = ckpt_catalog_at(stored, i)->name;
        char weight[MAP_NAME_BYTES];
        map_captures captures;

        if (pair_find_weight(stored, name, weight) >= 0)
            continue;
        score += map_find_stored(map, name, &captures) != NULL;
    }
    return score;
}
