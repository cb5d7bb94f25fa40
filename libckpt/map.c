/* Looks up the lines of a map for a name. */
#include "map.h"

#include <string.h>

/* The reason of the first line of this kind that matches a logical tensor. */
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

const char *map_find_spare(const ckpt_map *map, const char *name)
{
    return find_reason(map, MAP_SPARE, name);
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

const map_cut *map_find_cut(const ckpt_map *map, const char *name)
{
    for (size_t i = 0; i < map->cut_count; i++) {
        map_captures captures = { .count = 0 };

        if (map_match(map->cuts[i].stored, name, &captures))
            return &map->cuts[i];
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

map_fit map_score(const ckpt_map *map, const ckpt_catalog *stored)
{
    map_fit fit = { 0, 0 };

    for (size_t i = 0; i < ckpt_catalog_count(stored); i++) {
        const char *name = ckpt_catalog_at(stored, i)->name;
        char weight[MAP_NAME_BYTES];
        map_captures captures;
        const map_rule *rule;

        if (pair_find_weight(stored, name, weight) >= 0)
            continue;
        rule = map_find_stored(map, name, &captures);
        fit.matched += rule != NULL;
        fit.named += rule != NULL && strcmp(rule->stored, "{x*}") != 0;
    }
    return fit;
}

const map_dialect *map_find_dialect(const ckpt_map *map, const char *name)
{
    for (size_t i = 0; i < map->dialect_count; i++)
        if (strcmp(map->dialects[i].name, name) == 0)
            return &map->dialects[i];
    return NULL;
}

/* ---- comparing ---- */

static int same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static int same_piece(const map_piece *a, const map_piece *b)
{
    return same_text(a->logical, b->logical) && a->times.value == b->times.value &&
           a->from.value == b->from.value && a->count.value == b->count.value &&
           a->of.value == b->of.value;
}

static int same_rule(const map_rule *a, const map_rule *b)
{
    int same = a->kind == b->kind && same_text(a->stored, b->stored) &&
               a->piece_count == b->piece_count && a->groups.value == b->groups.value &&
               a->has_cols == b->has_cols && a->stack_count == b->stack_count &&
               same_text(a->when, b->when);

    for (size_t c = 0; c < a->piece_count && same; c++)
        same = same_piece(&a->pieces[c], &b->pieces[c]);
    for (size_t s = 0; s < a->stack_count && same; s++)
        same = same_text(a->stacks[s], b->stacks[s]);
    return same;
}

int map_same_rules(const ckpt_map *a, const ckpt_map *b)
{
    int same = a->rule_count == b->rule_count && same_text(a->scale_suffix, b->scale_suffix);

    for (size_t i = 0; i < a->rule_count && same; i++)
        same = same_rule(&a->rules[i], &b->rules[i]);
    return same;
}
