/*
 * dialect.c: maps of one family and layout that differ by the software that writes them. If the
 * keys match several maps that read different values, an argument of the training run or the user
 * decides.
 */
#include "dialect.h"

#include <stdio.h>
#include <string.h>

#include "maps.h"
#include "libckpt/config_number.h"

/* ---- writing ---- */

/* 1 when the map stores all layers in one key, whose first dimension is the layer. */
static int is_stacked(const ckpt_map *map)
{
    for (size_t i = 0; i < map->stage_count; i++)
        if (map->stages[i].is_stacked)
            return 1;
    return 0;
}

/* A map must have the wanted layer keys. A map of another dialect is taken only if none of the
 * wanted dialect has these keys and they were given. */
ckpt_code dialect_choose(const dialect_wanted *wanted, const char **out, ckpt_error *err)
{
    const char *of_keys = NULL;

    *out = NULL;
    for (size_t i = 0; wanted->format->map_names[i] != NULL; i++) {
        const char *names = wanted->format->map_names[i];
        ckpt_map *map;
        ckpt_code code;
        int has_keys;
        int is_own;

        if (!maps_has(wanted->family, names))
            continue;
        code = checkpoint_find_map(wanted->family, names, wanted->config, &map, err);
        if (code != CKPT_OK)
            return code;
        has_keys = wanted->layer_keys == NULL ||
                   is_stacked(map) == (strcmp(wanted->layer_keys, "stacked") == 0);
        is_own = wanted->dialect == NULL || map_find_dialect(map, wanted->dialect) != NULL;
        map_free(map);
        if (has_keys && is_own) {
            *out = names;
            return CKPT_OK;
        }
        if (has_keys && of_keys == NULL && wanted->layer_keys != NULL)
            of_keys = names;
    }
    if ((*out = of_keys) != NULL)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "%s%s%s%s: %s has no such form of %s",
                     wanted->dialect == NULL ? "" : "--dialect ",
                     wanted->dialect == NULL ? "" : wanted->dialect,
                     wanted->layer_keys == NULL ? ""
                     : wanted->dialect == NULL  ? "--layer-keys "
                                                : " --layer-keys ",
                     wanted->layer_keys == NULL ? "" : wanted->layer_keys, wanted->format->name,
                     wanted->family);
}

/* ---- reading ---- */

enum { RIVALS_MAX = 8 };

/* Maps of the family that match as many tensors as c->map, which is the first. */
typedef struct {
    ckpt_map *maps[RIVALS_MAX];
    size_t count;
} rivals;

static void release(rivals *r)
{
    for (size_t i = 1; i < r->count; i++)
        map_free(r->maps[i]);
}

static ckpt_code find_rivals(const ckpt_checkpoint *c, rivals *out, ckpt_error *err)
{
    const json_value *config = c->config == NULL ? NULL : json_root(c->config);
    const ckpt_catalog *names = store_names(c->store);
    const size_t matched = map_score(c->map, names).matched;

    out->maps[0] = c->map;
    out->count = 1;
    for (size_t i = 0; c->format->map_names[i] != NULL && out->count < RIVALS_MAX; i++) {
        const char *style = c->format->map_names[i];
        ckpt_map *map;
        ckpt_code code;

        if (strcmp(style, c->map->names) == 0 || !maps_has(c->map->family, style))
            continue;
        if ((code = checkpoint_find_map(c->map->family, style, config, &map, err)) != CKPT_OK)
            return code;
        if (map_score(map, names).matched == matched)
            out->maps[out->count++] = map;
        else
            map_free(map);
    }
    return CKPT_OK;
}

/* *is_there: 1 if the dialect's argument is stored beside the weights. Its value must be equal to
 * that of the config, from which the map was made. */
static ckpt_code look_for_argument(const ckpt_checkpoint *c, const map_dialect *dialect,
                                   int *is_there, ckpt_error *err)
{
    const json_value *config = c->config == NULL ? NULL : json_root(c->config);
    uint64_t configured = 0;
    uint64_t told;
    ckpt_code code;

    *is_there = 0;
    if (dialect->arg == NULL)
        return CKPT_OK;
    code = c->format->read_argument(c, dialect->arg, &told, is_there, err);
    if (code != CKPT_OK || !*is_there)
        return code;
    if (config != NULL)
        config_number(config_member(config, dialect->arg), &configured);
    if (told == configured)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT,
                     "'%s': the arguments of the run have %s %llu, but "
                     "%s has %llu, and values depend on it",
                     c->place.path, dialect->arg, (unsigned long long)told,
                     checkpoint_config_name(c), (unsigned long long)configured);
}

/* The dialect that a stored argument implies, else that of --dialect, else NULL. --dialect comes
 * second because it may be meant for another input or for the output. */
static ckpt_code find_told(const ckpt_checkpoint *c, const rivals *r, const char **out,
                           ckpt_error *err)
{
    *out = NULL;
    for (size_t i = 0; i < r->count; i++)
        for (size_t d = 0; d < r->maps[i]->dialect_count; d++) {
            int is_there;
            const ckpt_code code =
                look_for_argument(c, &r->maps[i]->dialects[d], &is_there, err);

            if (code != CKPT_OK)
                return code;
            if (is_there && *out == NULL)
                *out = r->maps[i]->dialects[d].name;
        }
    if (*out == NULL)
        *out = c->options.dialect;
    return CKPT_OK;
}

/* 1 when the rivals do not all read the same values. */
static int is_open(const rivals *r)
{
    for (size_t i = 1; i < r->count; i++)
        if (!map_same_rules(r->maps[0], r->maps[i]))
            return 1;
    return 0;
}

static ckpt_code fail_open(const ckpt_checkpoint *c, const rivals *r, ckpt_error *err)
{
    char known[128] = "";

    for (size_t i = 0; i < r->count; i++)
        for (size_t d = 0; d < r->maps[i]->dialect_count; d++) {
            const size_t used = strlen(known);

            snprintf(known + used, sizeof known - used, "%s%s", used == 0 ? "" : " or ",
                     r->maps[i]->dialects[d].name);
        }
    return ckpt_fail(err, CKPT_E_USAGE, "'%s' has keys that %s write with other values, and "
                     "nothing beside them tells which: give --dialect", c->place.path, known);
}

/* Make the dialect's map c->map. */
static ckpt_code take(ckpt_checkpoint *c, rivals *r, const char *dialect, ckpt_error *err)
{
    for (size_t i = 0; i < r->count; i++)
        if (map_find_dialect(r->maps[i], dialect) != NULL) {
            c->map = r->maps[i];
            r->maps[i] = r->maps[0];
            r->maps[0] = c->map;
            return CKPT_OK;
        }
    return is_open(r) ? ckpt_fail(err, CKPT_E_USAGE, "--dialect %s: '%s' does not have the keys "
                                  "that it writes", dialect, c->place.path)
                      : CKPT_OK;
}

ckpt_code dialect_settle(ckpt_checkpoint *c, ckpt_error *err)
{
    const char *dialect;
    rivals r;
    ckpt_code code;

    if (c->format->read_argument == NULL || c->map->dialect_count == 0)
        return CKPT_OK;
    if ((code = find_rivals(c, &r, err)) == CKPT_OK &&
        (code = find_told(c, &r, &dialect, err)) == CKPT_OK) {
        if (dialect != NULL)
            code = take(c, &r, dialect, err);
        else if (is_open(&r))
            code = fail_open(c, &r, err);
    }
    release(&r);
    return code;
}
