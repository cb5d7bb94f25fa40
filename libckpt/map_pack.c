/* Evaluates the numbers of rules, and computes the extents of pieces. */
#include "map_pack.h"

#include <stdio.h>
#include <string.h>

#include "config_number.h"
#include "size.h"

/* Limit of the extents of one piece in one entry, because a layout keeps all in memory. */
enum { RUNS_MAX = 1 << 16 };

/* ---- the numbers of a config ---- */

typedef struct {
    const json_value *config;
    int numbers_alone;         /* skip expressions with members of a config */
} binding;

/* 1 when the text names a member of a config. */
static int has_member(const char *text)
{
    return text[strspn(text, "0123456789+-*/%")] != '\0';
}

static ckpt_code bind_number(map_number *number, const binding *b, int may_be_zero,
                             ckpt_error *err)
{
    ckpt_code code;

    if (b->numbers_alone && has_member(number->text))
        return CKPT_OK;
    if ((code = config_expression(b->config, number->text, &number->value, err)) != CKPT_OK)
        return code;
    return number->value > 0 || may_be_zero
               ? CKPT_OK
               : ckpt_fail(err, CKPT_E_FORMAT, "'%s' is 0", number->text);
}

static ckpt_code bind_piece(map_piece *piece, const binding *b, ckpt_error *err)
{
    uint64_t end;
    ckpt_code code;

    if ((code = bind_number(&piece->times, b, 0, err)) != CKPT_OK ||
        (code = bind_number(&piece->from, b, 1, err)) != CKPT_OK ||
        (code = bind_number(&piece->count, b, 0, err)) != CKPT_OK ||
        (code = bind_number(&piece->of, b, 0, err)) != CKPT_OK)
        return code;
    if (piece->of.value > 0 &&
        (!size_add(piece->from.value, piece->count.value, &end) || end > piece->of.value))
        return ckpt_fail(err, CKPT_E_FORMAT, "no such part: %llu and %llu of %llu",
                         (unsigned long long)piece->from.value,
                         (unsigned long long)piece->count.value,
                         (unsigned long long)piece->of.value);
    return CKPT_OK;
}

static ckpt_code bind_numbers(map_rule *rule, const binding *b, ckpt_error *err)
{
    ckpt_code code = bind_number(&rule->groups, b, 0, err);

    for (size_t c = 0; c < rule->piece_count && code == CKPT_OK; c++)
        code = bind_piece(&rule->pieces[c], b, err);
    return code;
}

ckpt_code map_rule_bind_numbers(map_rule *rule, ckpt_error *err)
{
    return bind_numbers(rule, &(binding){ NULL, 1 }, err);
}

/* Append to out[*used] the placeholder or character at *pattern, with its shift evaluated. */
static ckpt_code bind_step(const json_value *config, const char **pattern,
                           char out[MAP_NAME_BYTES], size_t *used, ckpt_error *err)
{
    const char *at = *pattern;
    const size_t length = *at == '{' ? strcspn(at, "}") + 1 : 1;
    const char *plus = *at == '{' ? memchr(at, '+', length) : NULL;
    char text[MAP_SHIFT_BYTES] = "";
    uint64_t shift;
    size_t written;
    ckpt_code code;

    *pattern += length;
    if (plus == NULL) {
        written = (size_t)snprintf(out + *used, MAP_NAME_BYTES - *used, "%.*s", (int)length, at);
    } else {
        memcpy(text, plus + 1, length - 2 - (size_t)(plus - at));  /* parser checked the length */
        if ((code = config_expression(config, text, &shift, err)) != CKPT_OK)
            return code;
        written = (size_t)snprintf(out + *used, MAP_NAME_BYTES - *used, "%.*s%llu}",
                                   (int)(plus + 1 - at), at, (unsigned long long)shift);
    }
    *used += written;
    return *used < MAP_NAME_BYTES ? CKPT_OK
                                  : ckpt_fail(err, CKPT_E_FORMAT, "'%s' is too long a name", at);
}

/* {m+KEY} becomes {m+61}. */
static ckpt_code bind_shift(arena *memory, const json_value *config, const char **pattern,
                            ckpt_error *err)
{
    const char *at = *pattern;
    char out[MAP_NAME_BYTES];
    size_t used = 0;
    ckpt_code code;

    if (at == NULL || strchr(at, '+') == NULL)
        return CKPT_OK;
    while (*at != '\0')
        if ((code = bind_step(config, &at, out, &used, err)) != CKPT_OK)
            return code;
    *pattern = arena_strdup(memory, out, used);
    return *pattern == NULL ? ckpt_fail_memory(err, "a map", used) : CKPT_OK;
}

static ckpt_code bind_rule(ckpt_map *map, map_rule *rule, const json_value *config,
                           ckpt_error *err)
{
    const binding all = { config, 0 };
    ckpt_code code;

    if ((code = bind_numbers(rule, &all, err)) != CKPT_OK ||
        (code = bind_shift(&map->memory, config, &rule->stored, err)) != CKPT_OK)
        return code;
    for (size_t c = 0; c < rule->piece_count && code == CKPT_OK; c++)
        code = bind_shift(&map->memory, config, &rule->pieces[c].logical, err);
    return code;
}

static ckpt_code check_condition(const map_rule *rule, const json_value *config, int *holds,
                                 ckpt_error *err)
{
    const char *member = rule->condition.member;
    const json_value *value = member == NULL || config == NULL ? NULL
                                                               : config_member(config, member);
    uint64_t number = 0;

    if (member != NULL && !has_member(member))
        (void)config_expression(NULL, member, &number, NULL);
    else if (value != NULL && !config_number(value, &number))
        return ckpt_fail(err, CKPT_E_FORMAT, "config member '%s' is not a number", member);
    *holds = member == NULL || (number == rule->condition.number) == !rule->condition.differs;
    return CKPT_OK;
}

static ckpt_code leave_out_rules(ckpt_map *map, const json_value *config, ckpt_error *err)
{
    size_t kept = 0;

    for (size_t i = 0; i < map->rule_count; i++) {
        int holds = 0;
        const ckpt_code code = check_condition(&map->rules[i], config, &holds, err);

        if (code != CKPT_OK)
            return code;
        if (holds)
            map->rules[kept++] = map->rules[i];
    }
    map->rule_count = kept;
    return CKPT_OK;
}

ckpt_code map_bind(ckpt_map *map, const json_value *config, ckpt_error *err)
{
    ckpt_code code = leave_out_rules(map, config, err);

    for (size_t i = 0; i < map->rule_count && code == CKPT_OK; i++)
        code = bind_rule(map, &map->rules[i], config, err);
    for (size_t i = 0; i < map->shard_count && code == CKPT_OK; i++)
        code = bind_shift(&map->memory, config, &map->shards[i].stored, err);
    for (size_t i = 0; i < map->cut_count; i++)
        if (config_expression(config, map->cuts[i].rows.text, &map->cuts[i].rows.value, NULL) !=
            CKPT_OK)
            map->cuts[i].rows.value = 0;
    for (size_t i = 0; i < map->stage_count && code == CKPT_OK; i++)
        code = bind_shift(&map->memory, config, &map->stages[i].stored, err);
    for (size_t i = 0; i < map->extra_count && code == CKPT_OK; i++)
        code = bind_shift(&map->memory, config, &map->extras[i].stored, err);
    for (size_t i = 0; i < map->module_count && code == CKPT_OK; i++)
        for (size_t n = 0; n < map->modules[i].name_count && code == CKPT_OK; n++)
            code = bind_shift(&map->memory, config, &map->modules[i].names[n], err);
    if (code == CKPT_E_FORMAT && err != NULL)
        return ckpt_fail(err, code, "%s, and the %s names of %s need it%s", err->text, map->names,
                         map->family, config == NULL ? ": use --config FILE" : "");
    return code;
}

/* ---- units ---- */

int map_piece_is_part(const map_rule *rule, size_t c)
{
    return rule->pieces[c].count.value != rule->pieces[c].of.value;
}

int map_rule_is_plain(const map_rule *rule)
{
    return rule->piece_count == 1 && rule->groups.value == 1 &&
           rule->pieces[0].times.value == 1 && rule->pieces[0].of.value == 1;
}

/* Units of a group before piece c; with c == piece_count, the units of a group. */
static int units_before(const map_rule *rule, size_t c, uint64_t *units)
{
    *units = rule->has_cols ? 1 : 0;   /* cols: every piece has all rows of the entry */
    if (rule->has_cols)
        return 1;
    for (size_t i = 0; i < c; i++) {
        uint64_t product;

        if (!size_mul(rule->pieces[i].times.value, rule->pieces[i].count.value, &product) ||
            !size_add(*units, product, units))
            return 0;
    }
    return 1;
}

static int entry_units(const map_rule *rule, uint64_t *units)
{
    return units_before(rule, rule->piece_count, units) &&
           size_mul(*units, rule->groups.value, units);
}

static int piece_units(const map_rule *rule, size_t c, uint64_t *units)
{
    return size_mul(rule->groups.value, rule->pieces[c].times.value, units) &&
           size_mul(*units, rule->pieces[c].of.value, units);
}

static int divide(uint64_t size, uint64_t units, uint64_t *unit)
{
    if (units == 0 || size % units != 0)
        return 0;
    *unit = size / units;
    return 1;
}

int map_unit_of_entry(const map_rule *rule, uint64_t size, uint64_t *unit)
{
    uint64_t units;

    return entry_units(rule, &units) && divide(size, units, unit);
}

int map_unit_of_piece(const map_rule *rule, size_t c, uint64_t size, uint64_t *unit)
{
    uint64_t units;

    return piece_units(rule, c, &units) && divide(size, units, unit);
}

int map_entry_size(const map_rule *rule, uint64_t unit, uint64_t *size)
{
    return entry_units(rule, size) && size_mul(*size, unit, size);
}

int map_piece_size(const map_rule *rule, size_t c, uint64_t unit, uint64_t *size)
{
    return piece_units(rule, c, size) && size_mul(*size, unit, size);
}

/* ---- extents ---- */

int map_side_by_side(const map_rule *rule, ckpt_tensor *entry)
{
    return !rule->has_cols ||
           (entry->rank > 1 && size_mul(entry->shape[entry->rank - 1], rule->piece_count,
                                        &entry->shape[entry->rank - 1]));
}

int map_side_of(const map_rule *rule, ckpt_tensor *piece)
{
    return !rule->has_cols ||
           (piece->rank > 1 && divide(piece->shape[piece->rank - 1], rule->piece_count,
                                      &piece->shape[piece->rank - 1]));
}

int map_blocks_are_whole(const map_packed *packed)
{
    const map_piece *piece = &packed->rule->pieces[packed->piece];
    const uint64_t rows = packed->tensor->block_rows;
    const uint64_t part = piece->count.value == piece->of.value ? piece->times.value : 1;

    /* One per stored tensor; blocks have a vector of them beside them, one per entry. */
    if (packed->tensor->tensor_scale != CKPT_TENSOR_SCALE_NONE)
        return map_rule_is_plain(packed->rule) &&
               (packed->rule->stack_count == 0 || packed->tensor->stored_form != CKPT_FORM_APART);
    if (packed->rule->has_cols)
        return packed->tensor->scale_dtype == CKPT_NONE ||
               ckpt_tensor_cols(packed->tensor) % packed->tensor->block_cols == 0;
    if (packed->tensor->scale_dtype == CKPT_NONE || packed->tensor->rank > 2 ||
        map_rule_is_plain(packed->rule))
        return 1;
    return piece->from.value * packed->unit % rows == 0 &&
           piece->count.value * part * packed->unit % rows == 0 &&
           piece->of.value * part * packed->unit % rows == 0;
}

/* Rows of one part in `size` steps of the first dimension. */
static uint64_t part_rows(const ckpt_tensor *t, ckpt_part part, uint64_t size)
{
    if (t->rank == 2 && part == CKPT_SCALE)
        return size / t->block_rows;
    return t->shape[0] == 0 ? 0 : size * (ckpt_part_rows(t, part) / t->shape[0]);
}

/* Add one run: run[2] steps, from step run[0] of the logical tensor to step run[1] of the entry. */
static ckpt_code add_run(ckpt_layout *layout, const map_packed *packed, ckpt_part part,
                         const uint64_t run[3], ckpt_error *err)
{
    const ckpt_tensor *t = packed->tensor;
    layout_extent e = layout_identity(packed->logical, t, part, packed->stored[part]);
    uint64_t size;

    if (t->rank == 1) {
        e.stored_row = packed->entry;
        e.col = run[0];
        e.stored_col = run[1];
        e.col_count = run[2];
    } else if (map_rule_is_plain(packed->rule)) {
        e.stored_row = packed->entry * e.row_count;
        e.column |= packed->rule->stack_count > 0 && catalog_is_of_whole(part);
    } else {
        map_entry_size(packed->rule, packed->unit, &size);
        e.row = part_rows(t, part, run[0]);
        e.stored_row = packed->entry * part_rows(t, part, size) + part_rows(t, part, run[1]);
        e.row_count = part_rows(t, part, run[2]);
    }
    return layout_add(layout, &e, err);
}

/* Add a piece of cols(...) as one extent. */
static ckpt_code add_side(ckpt_layout *layout, const map_packed *packed, ckpt_part part,
                          ckpt_error *err)
{
    layout_extent e = layout_identity(packed->logical, packed->tensor, part, packed->stored[part]);

    e.stored_row = packed->entry * e.row_count;
    e.stored_col = packed->piece * e.col_count;
    return layout_add(layout, &e, err);
}

/* Add the runs of a piece. The blocks of a whole piece are adjacent in a group, so that they are
 * one run; blocks of a part are one run each. */
static ckpt_code add_runs(ckpt_layout *layout, const map_packed *packed, ckpt_part part,
                          ckpt_error *err)
{
    const map_rule *rule = packed->rule;
    const map_piece *piece = &rule->pieces[packed->piece];
    const int is_whole = !map_piece_is_part(rule, packed->piece);
    const uint64_t unit = packed->unit;
    const uint64_t blocks = is_whole ? 1 : piece->times.value;
    const uint64_t of = is_whole ? piece->times.value * piece->of.value : piece->of.value;
    const uint64_t count = is_whole ? of : piece->count.value;
    uint64_t before;
    uint64_t group;
    uint64_t run_count;
    ckpt_code code = CKPT_OK;

    if (!units_before(rule, packed->piece, &before) ||
        !units_before(rule, rule->piece_count, &group) ||
        !size_mul(rule->groups.value, blocks, &run_count) || run_count > RUNS_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' would be stored in more than %d runs",
                         packed->tensor->name, RUNS_MAX);
    for (uint64_t i = 0; i < run_count && code == CKPT_OK; i++) {
        const uint64_t run[3] = {
            (i * of + piece->from.value) * unit,
            (i / blocks * group + before + i % blocks * count) * unit,
            count * unit,
        };

        code = add_run(layout, packed, part, run, err);
    }
    return code;
}

ckpt_code map_add_extents(ckpt_layout *layout, const map_packed *packed, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (int part = 0; part < CKPT_PART_COUNT && code == CKPT_OK; part++)
        if (catalog_part_dtype(packed->tensor, (ckpt_part)part) != CKPT_NONE)
            code = packed->rule->has_cols ? add_side(layout, packed, (ckpt_part)part, err)
                                          : add_runs(layout, packed, (ckpt_part)part, err);
    return code;
}
