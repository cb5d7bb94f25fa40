/* A map read backwards: logical tensors become stored ones. */
#include "map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where a logical tensor goes: piece `piece` of entry `entry` of the stored tensor `target`. */
typedef struct {
    const map_rule *rule;
    uint32_t target;         /* in writer.targets */
    uint32_t piece;
    uint64_t entry;
} placement;

/* A stored tensor to be: which logical tensor came first, and how many entries were seen. */
typedef struct {
    uint32_t first;
    uint64_t filled;
    uint64_t entry_count;
    uint32_t stored[CKPT_PART_COUNT];
} target;

typedef struct {
    const ckpt_map *map;
    const ckpt_catalog *logical;
    ckpt_catalog *stored;
    ckpt_layout *layout;
    placement *placements;
    target *targets;
    size_t target_count;
    ckpt_catalog *names;     /* of the targets, to find them by name */
    ckpt_error *err;
} writer;

/* The line and piece whose pattern the logical name fits; its stored name. */
static const map_rule *find_logical(const ckpt_map *map, const char *name, placement *place,
                                    char stored[MAP_NAME_BYTES])
{
    for (size_t i = 0; i < map->rule_count; i++) {
        const map_rule *rule = &map->rules[i];

        for (size_t c = 0; rule->kind == MAP_TENSOR && c < rule->logical_count; c++) {
            map_captures captures = { .count = 0 };

            if (!map_match(rule->logical[c], name, &captures))
                continue;
            place->piece = (uint32_t)c;
            place->entry = 0;
            if (rule->stack != NULL && !map_capture_number(&captures, rule->stack, &place->entry))
                continue;
            if (map_expand(rule->stored, &captures, stored))
                return rule;
        }
    }
    return NULL;
}

int map_carries(const ckpt_map *map, const char *name)
{
    char stored[MAP_NAME_BYTES];
    placement place;

    return find_logical(map, name, &place, stored) != NULL;
}

static ckpt_code place_tensor(writer *w, size_t i)
{
    const ckpt_tensor *t = ckpt_catalog_at(w->logical, i);
    placement *place = &w->placements[i];
    char name[MAP_NAME_BYTES];
    int64_t found;

    place->rule = find_logical(w->map, t->name, place, name);
    if (place->rule == NULL)
        return ckpt_fail(w->err, CKPT_E_USAGE, "tensor '%s' has no name among the %s names of %s",
                         t->name, w->map->names, w->map->family);
    if (place->rule->part_count > 1)
        return CKPT_OK;                /* add_parts makes its stored tensors */
    found = ckpt_catalog_find(w->names, name);
    if (found < 0) {
        const ckpt_tensor named = { .name = name, .dtype = CKPT_U8 };
        const ckpt_code code = catalog_add(w->names, &named, w->err);

        if (code != CKPT_OK)
            return code;
        found = (int64_t)w->target_count;
        w->targets[w->target_count++].first = (uint32_t)i;
    }
    place->target = (uint32_t)found;
    w->targets[found].filled++;
    if (place->entry >= w->targets[found].entry_count)
        w->targets[found].entry_count = place->entry + 1;
    return CKPT_OK;
}

static ckpt_code fail_target(const writer *w, size_t i, const char *what)
{
    return ckpt_fail(w->err, CKPT_E_USAGE, "cannot pack '%s': %s",
                     ckpt_catalog_at(w->names, i)->name, what);
}

/* The stored name of a scale: X.weight -> X + suffix, any other X -> X_scale_inv. */
static int scale_name(const writer *w, const char *name, char out[MAP_NAME_BYTES])
{
    const size_t length = strlen(name);
    const size_t word = strlen(".weight");

    if (length > word && strcmp(name + length - word, ".weight") == 0)
        return snprintf(out, MAP_NAME_BYTES, "%.*s%s", (int)(length - word), name,
                        w->map->scale_suffix) < MAP_NAME_BYTES;
    return snprintf(out, MAP_NAME_BYTES, "%s_scale_inv", name) < MAP_NAME_BYTES;
}

static ckpt_code add_stored(writer *w, size_t i, ckpt_part part, const ckpt_tensor *whole)
{
    ckpt_tensor stored = part == CKPT_DATA ? pair_stored_data(whole) : pair_stored_scale(whole);
    char name[MAP_NAME_BYTES];

    stored.name = ckpt_catalog_at(w->names, i)->name;
    if (part == CKPT_SCALE) {
        if (!scale_name(w, stored.name, name))
            return fail_target(w, i, "the name is too long");
        stored.name = name;
    }
    w->targets[i].stored[part] = (uint32_t)ckpt_catalog_count(w->stored);
    return catalog_add(w->stored, &stored, w->err);
}

static ckpt_code make_target(writer *w, size_t i)
{
    const target *t = &w->targets[i];
    const map_rule *rule = w->placements[t->first].rule;
    ckpt_tensor whole = *ckpt_catalog_at(w->logical, t->first);
    ckpt_code code;

    if (t->filled != t->entry_count * rule->logical_count)
        return fail_target(w, i, "some of its pieces are missing");
    if (rule->logical_count > 1) {
        if (whole.rank < 2)
            return fail_target(w, i, "its pieces are no matrices");
        if (whole.scale_dtype != CKPT_NONE && whole.shape[0] % whole.block_rows != 0)
            return fail_target(w, i, "its pieces are no whole number of blocks");
        whole.shape[0] *= rule->logical_count;
    }
    if (rule->stack != NULL) {
        if (whole.rank >= CKPT_RANK_MAX)
            return fail_target(w, i, "too many dimensions");
        memmove(whole.shape + 1, whole.shape, whole.rank * sizeof whole.shape[0]);
        whole.shape[0] = t->entry_count;
        whole.rank++;
    }
    whole.name = ckpt_catalog_at(w->names, i)->name;
    if ((code = catalog_check_shape(&whole, w->err)) != CKPT_OK)
        return code;
    code = add_stored(w, i, CKPT_DATA, &whole);
    if (code == CKPT_OK && whole.scale_dtype != CKPT_NONE)
        code = add_stored(w, i, CKPT_SCALE, &whole);
    return code;
}

/* A logical tensor in equal parts: one stored tensor for each line of the map. */
static ckpt_code add_part(writer *w, size_t i, const map_rule *rule, const char *name)
{
    const ckpt_tensor *t = ckpt_catalog_at(w->logical, i);
    ckpt_tensor stored = *t;
    layout_extent e;
    ckpt_code code;

    if (t->rank == 0 || t->scale_dtype != CKPT_NONE || t->shape[0] % rule->part_count != 0)
        return ckpt_fail(w->err, CKPT_E_USAGE, "cannot cut '%s' in %u equal parts", t->name,
                         rule->part_count);
    stored.name = name;
    stored.shape[0] /= rule->part_count;
    e = layout_identity(i, &stored, CKPT_DATA, ckpt_catalog_count(w->stored));
    if (t->rank == 1)
        e.col = rule->part * e.col_count;
    else
        e.row = rule->part * e.row_count;
    if ((code = catalog_add(w->stored, &stored, w->err)) != CKPT_OK)
        return code;
    return layout_add(w->layout, &e, w->err);
}

static ckpt_code add_parts(writer *w, size_t i)
{
    const char *logical = ckpt_catalog_at(w->logical, i)->name;
    ckpt_code code = CKPT_OK;

    for (size_t r = 0; r < w->map->rule_count && code == CKPT_OK; r++) {
        const map_rule *rule = &w->map->rules[r];
        map_captures captures = { .count = 0 };
        char name[MAP_NAME_BYTES];

        if (rule->kind == MAP_TENSOR && rule->part_count > 1 &&
            map_match(rule->logical[0], logical, &captures) &&
            map_expand(rule->stored, &captures, name))
            code = add_part(w, i, rule, name);
    }
    return code;
}

static ckpt_code add_extents(writer *w, size_t i)
{
    const ckpt_tensor *t = ckpt_catalog_at(w->logical, i);
    const placement *place = &w->placements[i];
    const target *to = &w->targets[place->target];
    const ckpt_tensor *first = ckpt_catalog_at(w->logical, to->first);
    ckpt_code code = CKPT_OK;

    if (!catalog_same_encoding(t, first) || !catalog_same_shape(t, first))
        return ckpt_fail(w->err, CKPT_E_USAGE,
                         "cannot pack '%s': '%s' and '%s' differ in shape or encoding",
                         ckpt_catalog_at(w->names, place->target)->name, first->name, t->name);
    for (int part = 0; part < CKPT_PART_COUNT && code == CKPT_OK; part++) {
        layout_extent e;

        if (part == CKPT_SCALE && t->scale_dtype == CKPT_NONE)
            continue;
        e = layout_identity(i, t, (ckpt_part)part, to->stored[part]);
        e.stored_row =
            (place->entry * place->rule->logical_count + place->piece) * e.row_count;
        code = layout_add(w->layout, &e, w->err);
    }
    return code;
}

/* Copies keep their names and files. */
static ckpt_code add_copies(writer *w, const ckpt_layout *copies)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; copies != NULL && i < copies->count && code == CKPT_OK; i++) {
        layout_extent e = copies->extents[i];
        ckpt_tensor stored;
        int64_t logical;

        if (!e.copy)
            continue;
        logical = ckpt_catalog_find(w->logical, ckpt_catalog_at(copies->logical, e.logical)->name);
        if (logical < 0)
            continue;
        stored = *ckpt_catalog_at(copies->stored, e.stored);
        e.logical = (uint32_t)logical;
        e.stored = (uint32_t)ckpt_catalog_count(w->stored);
        if ((code = catalog_add(w->stored, &stored, w->err)) == CKPT_OK)
            code = layout_add(w->layout, &e, w->err);
    }
    return code;
}

static ckpt_code write_all(writer *w, const ckpt_layout *copies)
{
    const size_t count = ckpt_catalog_count(w->logical);
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        code = place_tensor(w, i);
    for (size_t i = 0; i < w->target_count && code == CKPT_OK; i++)
        code = make_target(w, i);
    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        code = w->placements[i].rule->part_count > 1 ? add_parts(w, i) : add_extents(w, i);
    if (code == CKPT_OK)
        code = add_copies(w, copies);
    return code == CKPT_OK ? layout_seal(w->layout, w->err) : code;
}

ckpt_code map_write(const map_write_input *input, ckpt_catalog *stored, ckpt_layout **out,
                    ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(input->logical);
    writer w = { .map = input->map, .logical = input->logical, .stored = stored, .err = err };
    ckpt_code code;

    w.layout = layout_create(input->logical, stored);
    w.placements = calloc(count + 1, sizeof *w.placements);
    w.targets = calloc(count + 1, sizeof *w.targets);
    w.names = catalog_create();
    if (w.layout == NULL || w.placements == NULL || w.targets == NULL || w.names == NULL)
        code = ckpt_fail_memory(err, "the plan of stored tensors", count);
    else
        code = write_all(&w, input->copies);
    free(w.placements);
    free(w.targets);
    catalog_free(w.names);
    if (code != CKPT_OK)
        layout_free(w.layout);
    else
        *out = w.layout;
    return code;
}
