/* Applies a map for writing: logical tensors become stored ones. */
#include "map_pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "size.h"

/* The piece of a target that a logical tensor, or a part of it, fills. */
typedef struct {
    const map_rule *rule;
    uint32_t tensor;         /* in the logical catalog */
    uint32_t piece;
    uint32_t target;         /* in writer.targets */
    uint64_t steps[MAP_STACKS_MAX];     /* values of the stack indexes */
} placement;

/* A stored tensor to be written: its first placement, and the number of its placements. */
typedef struct {
    size_t first;
    uint64_t filled;
    uint64_t counts[MAP_STACKS_MAX];    /* sizes of the stack dimensions */
    uint64_t unit;           /* rows of a unit, see map_pack.h */
    uint32_t stored[CKPT_PART_COUNT];
    uint8_t *seen;           /* 1 when filled; indexed by entry and piece */
} target;

typedef struct {
    const ckpt_map *map;
    const ckpt_catalog *logical;
    ckpt_catalog *stored;
    ckpt_layout *layout;
    placement *placements;
    size_t placement_count;
    target *targets;
    size_t target_count;
    ckpt_catalog *names;     /* finds a target by its name */
    ckpt_error *err;
} writer;

/* 1 when piece c of a rule matches the logical tensor; sets *place and *captures. */
static int fits(const map_rule *rule, size_t c, const char *name, placement *place,
                map_captures *captures)
{
    captures->count = 0;
    if (rule->kind != MAP_TENSOR || !map_match(rule->pieces[c].logical, name, captures))
        return 0;
    memset(place, 0, sizeof *place);
    place->rule = rule;
    place->piece = (uint32_t)c;
    for (uint32_t s = 0; s < rule->stack_count; s++)
        if (!map_capture_number(captures, rule->stacks[s], &place->steps[s]))
            return 0;
    return 1;
}

/* 1 when the tensor of the rule's `when` exists, or it has none. */
static int when_holds(const writer *w, const map_rule *rule, const map_captures *captures)
{
    char name[MAP_NAME_BYTES];

    return rule->when == NULL || (map_expand(rule->when, captures, name) &&
                                  ckpt_catalog_find(w->logical, name) >= 0);
}

int map_carries(const ckpt_map *map, const char *name)
{
    char stored[MAP_NAME_BYTES];
    map_captures captures;
    placement place;

    for (size_t i = 0; i < map->rule_count; i++)
        for (size_t c = 0; c < map->rules[i].piece_count; c++)
            if (fits(&map->rules[i], c, name, &place, &captures) &&
                map_expand(map->rules[i].stored, &captures, stored))
                return 1;
    return 0;
}

static ckpt_code add_placement(writer *w, placement *place, const char *name)
{
    int64_t found = ckpt_catalog_find(w->names, name);
    placement *placements;
    target *targets;
    target *t;
    ckpt_code code;

    placements =
        array_room(w->placements, w->placement_count, sizeof *placements, "a plan", w->err);
    if (placements == NULL)
        return CKPT_E_MEMORY;
    w->placements = placements;
    if (found < 0) {
        const ckpt_tensor named = { .name = name, .dtype = CKPT_U8 };

        targets = array_room(w->targets, w->target_count, sizeof *targets, "a plan", w->err);
        if (targets == NULL)
            return CKPT_E_MEMORY;
        w->targets = targets;
        if ((code = catalog_add(w->names, &named, w->err)) != CKPT_OK)
            return code;
        found = (int64_t)w->target_count++;
        memset(&targets[found], 0, sizeof *targets);
        targets[found].first = w->placement_count;
    }
    t = &w->targets[found];
    place->target = (uint32_t)found;
    t->filled++;
    for (int s = 0; s < MAP_STACKS_MAX; s++)
        t->counts[s] = size_max(t->counts[s], place->steps[s] + 1);
    placements[w->placement_count++] = *place;
    return CKPT_OK;
}

/* Place a tensor by the first rule that matches it, or, if that takes a part of the tensor, by all
 * rules that take parts of it. */
static ckpt_code place_tensor(writer *w, size_t i)
{
    const char *tensor = ckpt_catalog_at(w->logical, i)->name;
    char name[MAP_NAME_BYTES];
    int found = 0;

    for (size_t r = 0; r < w->map->rule_count; r++)
        for (size_t c = 0; c < w->map->rules[r].piece_count; c++) {
            const map_rule *rule = &w->map->rules[r];
            const int is_part = map_piece_is_part(rule, c);
            map_captures captures;
            placement place;
            ckpt_code code;

            if ((found && !is_part) || !fits(rule, c, tensor, &place, &captures) ||
                !when_holds(w, rule, &captures) || !map_expand(rule->stored, &captures, name))
                continue;
            place.tensor = (uint32_t)i;
            if ((code = add_placement(w, &place, name)) != CKPT_OK || !is_part)
                return code;
            found = 1;
        }
    return found ? CKPT_OK
                 : ckpt_fail(w->err, CKPT_E_USAGE,
                             "tensor '%s' has no %s name in family %s", tensor,
                             w->map->names, w->map->family);
}

static ckpt_code fail_target(const writer *w, size_t i, const char *what)
{
    return ckpt_fail(w->err, CKPT_E_USAGE, "cannot pack '%s': %s",
                     ckpt_catalog_at(w->names, i)->name, what);
}

static ckpt_code add_stored(writer *w, size_t i, ckpt_part part, const ckpt_tensor *whole)
{
    ckpt_tensor stored = pair_stored_part(whole, part);
    char name[MAP_NAME_BYTES];
    const char *problem;

    snprintf(name, sizeof name, "%s", ckpt_catalog_at(w->names, i)->name);
    if ((problem = pair_name(whole, part, w->map->scale_suffix, name)) != NULL)
        return fail_target(w, i, problem);
    stored.name = name;
    w->targets[i].stored[part] = (uint32_t)ckpt_catalog_count(w->stored);
    return catalog_add(w->stored, &stored, w->err);
}

/* Compute the rows of a unit of a target from the logical tensor of one placement. */
static ckpt_code measure(const writer *w, const placement *place, uint64_t *unit)
{
    const ckpt_tensor *t = ckpt_catalog_at(w->logical, place->tensor);
    map_packed measured = { .rule = place->rule, .piece = place->piece, .tensor = t };

    *unit = 0;
    if (t->rank == 0)
        return map_rule_is_plain(place->rule) && place->rule->stack_count == 0
                   ? CKPT_OK
                   : fail_target(w, place->target, "a number has no rows");
    if (!map_unit_of_piece(place->rule, place->piece, t->shape[0], unit)) {
        if (map_piece_is_part(place->rule, place->piece))
            return ckpt_fail(w->err, CKPT_E_USAGE, "cannot cut '%s' in %llu equal parts", t->name,
                             (unsigned long long)place->rule->pieces[place->piece].of.value);
        return fail_target(w, place->target, "its pieces do not divide into its groups");
    }
    measured.unit = *unit;
    return map_blocks_are_whole(&measured)
               ? CKPT_OK
               : fail_target(w, place->target, "its pieces are not whole blocks");
}

static ckpt_code make_target(writer *w, size_t i)
{
    target *t = &w->targets[i];
    const placement *first = &w->placements[t->first];
    const map_rule *rule = first->rule;
    ckpt_tensor whole = *ckpt_catalog_at(w->logical, first->tensor);
    uint64_t count = rule->piece_count;
    ckpt_code code;

    for (uint32_t s = 0; s < rule->stack_count; s++)
        if (!size_mul(count, t->counts[s], &count))
            return fail_target(w, i, "too many pieces");
    if (t->filled != count)
        return fail_target(w, i, "some of its pieces are missing");
    if ((t->seen = calloc(count, 1)) == NULL)
        return ckpt_fail_memory(w->err, "a plan", count);
    if ((code = measure(w, first, &t->unit)) != CKPT_OK)
        return code;
    if ((whole.rank > 0 && !map_entry_size(rule, t->unit, &whole.shape[0])) ||
        !map_side_by_side(rule, &whole))
        return fail_target(w, i, "it would be too large");
    if (whole.rank + rule->stack_count > CKPT_RANK_MAX)
        return fail_target(w, i, "too many dimensions");
    memmove(whole.shape + rule->stack_count, whole.shape, whole.rank * sizeof whole.shape[0]);
    memcpy(whole.shape, t->counts, rule->stack_count * sizeof whole.shape[0]);
    whole.rank += rule->stack_count;
    whole.name = ckpt_catalog_at(w->names, i)->name;
    if ((code = catalog_check_shape(&whole, w->err)) != CKPT_OK)
        return code;
    for (int part = 0; part < CKPT_PART_COUNT && code == CKPT_OK; part++)
        if (part == CKPT_SCALE && whole.stored_form != CKPT_FORM_APART)
            t->stored[part] = t->stored[CKPT_DATA];
        else if (catalog_part_dtype(&whole, (ckpt_part)part) != CKPT_NONE)
            code = add_stored(w, i, (ckpt_part)part, &whole);
    return code;
}

/* 1 when the target contains a part of a tensor, of which other targets contain the rest. */
static int is_cut(const writer *w, const target *t)
{
    const placement *first = &w->placements[t->first];

    return map_piece_is_part(first->rule, first->piece);
}

/* Targets that contain parts of tensors are made last. The order decides where tensors are in
 * files, and output bytes must stay the same between versions. */
static ckpt_code make_targets(writer *w)
{
    ckpt_code code = CKPT_OK;

    for (int cut = 0; cut < 2; cut++)
        for (size_t i = 0; i < w->target_count && code == CKPT_OK; i++)
            if (is_cut(w, &w->targets[i]) == cut)
                code = make_target(w, i);
    return code;
}

/* 1 when two pieces can be in one stored tensor: same encoding, same dimensions but the first. */
static int same_kind(const ckpt_tensor *a, const ckpt_tensor *b)
{
    return catalog_same_encoding(a, b) && a->has_input_scale == b->has_input_scale &&
           a->rank == b->rank &&
           (a->rank == 0 ||
            memcmp(a->shape + 1, b->shape + 1, (a->rank - 1) * sizeof a->shape[0]) == 0);
}

static ckpt_code add_extents(writer *w, const placement *place)
{
    const ckpt_tensor *t = ckpt_catalog_at(w->logical, place->tensor);
    target *to = &w->targets[place->target];
    const placement *first_place = &w->placements[to->first];
    const ckpt_tensor *first = ckpt_catalog_at(w->logical, first_place->tensor);
    map_packed packed = { .rule = place->rule, .piece = place->piece, .tensor = t,
                          .logical = place->tensor };
    ckpt_code code;

    if ((code = measure(w, place, &packed.unit)) != CKPT_OK)
        return code;
    if (place->rule != first_place->rule || packed.unit != to->unit || !same_kind(t, first))
        return ckpt_fail(w->err, CKPT_E_USAGE,
                         "cannot pack '%s': '%s' and '%s' differ in shape or encoding",
                         ckpt_catalog_at(w->names, place->target)->name, first->name, t->name);
    for (uint32_t s = 0; s < place->rule->stack_count; s++)
        packed.entry = packed.entry * to->counts[s] + place->steps[s];
    if (to->seen[packed.entry * place->rule->piece_count + place->piece]++ != 0)
        return fail_target(w, place->target, "some of its pieces are missing");
    memcpy(packed.stored, to->stored, sizeof packed.stored);
    return map_add_extents(w->layout, &packed, w->err);
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
        if (e.part == CKPT_SCALE && stored.stored_form != CKPT_FORM_APART) {
            e.stored = (uint32_t)ckpt_catalog_find(w->stored, stored.name);   /* with the codes */
        } else {
            e.stored = (uint32_t)ckpt_catalog_count(w->stored);
            code = catalog_add(w->stored, &stored, w->err);
        }
        if (code == CKPT_OK)
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
    if (code == CKPT_OK)
        code = make_targets(w);
    for (size_t i = 0; i < w->placement_count && code == CKPT_OK; i++)
        code = add_extents(w, &w->placements[i]);
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
    w.names = catalog_create();
    if (w.layout == NULL || w.names == NULL)
        code = ckpt_fail_memory(err, "the plan of stored tensors", count);
    else
        code = write_all(&w, input->copies);
    for (size_t i = 0; i < w.target_count; i++)
        free(w.targets[i].seen);
    free(w.placements);
    free(w.targets);
    catalog_free(w.names);
    if (code != CKPT_OK)
        layout_free(w.layout);
    else
        *out = w.layout;
    return code;
}
