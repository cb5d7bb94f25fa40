/* Finds the family of a checkpoint and the map that reads its names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "maps.h"
#include "notes.h"
#include "libckpt/config_number.h"
#include "libckpt/config_words.h"
#include "libckpt/foreign_codes.h"
#include "libckpt/text.h"

enum { MAP_BYTES_MAX = 1 << 22 };

/* A language model that is described a level deeper would get no numbers, or those of others. */
static ckpt_code check_nesting(const json_value *config, ckpt_error *err)
{
    for (int i = 0; i < CONFIG_LANGUAGE_PARTS; i++)
        for (int k = 0; k < CONFIG_LANGUAGE_PARTS; k++) {
            const char *outer = config_language_parts[i];
            const char *inner = config_language_parts[k];
            const json_value *part = config_member_here(config, outer);

            if (config_member_here(part, CONFIG_LAYER_COUNT) == NULL &&
                config_member_here(config_member_here(part, inner), CONFIG_LAYER_COUNT) != NULL)
                return ckpt_fail(err, CKPT_E_FORMAT,
                                 "the config describes its language model in '%s.%s': expected "
                                 "it in '%s'",
                                 outer, inner, outer);
        }
    return CKPT_OK;
}

ckpt_code checkpoint_find_family(const json_value *config, ckpt_family **out, ckpt_error *err)
{
    *out = NULL;
    for (size_t i = 0; config != NULL && i < ckpt_builtin_map_count; i++) {
        const ckpt_builtin_map *text = &ckpt_builtin_maps[i];
        ckpt_family *family;
        ckpt_code code;

        if (!text_ends_with(text->name, ".family"))
            continue;
        code = family_parse(text->text, text->text_bytes, text->name, &family, err);
        if (code != CKPT_OK)
            return code;
        if (family_matches(family, config)) {
            if ((code = check_nesting(config, err)) == CKPT_OK)
                *out = family;
            else
                family_free(family);
            return code;
        }
        family_free(family);
    }
    return CKPT_OK;
}

/* Is `name` FAMILY.STYLE.map? */
static int is_map_of(const char *name, const char *family)
{
    return strncmp(name, family, strlen(family)) == 0 && name[strlen(family)] == '.' &&
           text_ends_with(name, ".map");
}

/* A map text with the numbers of the config. */
static ckpt_code make_map(const ckpt_builtin_map *text, const json_value *config, ckpt_map **out,
                          ckpt_error *err)
{
    ckpt_map *map;
    ckpt_code code = map_parse(text->text, text->text_bytes, text->name, &map, err);

    if (code != CKPT_OK)
        return code;
    if ((code = map_bind(map, config, err)) != CKPT_OK)
        map_free(map);
    else
        *out = map;
    return code;
}

const char *checkpoint_layout_of_names(const char *names)
{
    for (size_t i = 0; ckpt_formats[i] != NULL; i++)
        for (size_t k = 0; ckpt_formats[i]->map_names != NULL &&
             ckpt_formats[i]->map_names[k] != NULL; k++)
            if (strcmp(ckpt_formats[i]->map_names[k], names) == 0)
                return ckpt_formats[i]->name;
    return NULL;
}

ckpt_code checkpoint_find_map(const char *family, const char *names, const json_value *config,
                              ckpt_map **out, ckpt_error *err)
{
    char known[256] = "";
    char wanted[MAP_NAME_BYTES];
    const ckpt_builtin_map *found;

    snprintf(wanted, sizeof wanted, "%s.%s.map", family, names);
    if ((found = maps_find(wanted)) != NULL)
        return make_map(found, config, out, err);
    for (size_t i = 0; i < ckpt_builtin_map_count; i++) {
        const char *name = ckpt_builtin_maps[i].name;
        const size_t used = strlen(known);

        if (!is_map_of(name, family))
            continue;
        snprintf(wanted, sizeof wanted, "%.*s",
                 (int)(strlen(name) - strlen(family) - strlen("..map")),
                 name + strlen(family) + 1);
        if (checkpoint_layout_of_names(wanted) == NULL)
            snprintf(known + used, sizeof known - used, " %.60s", wanted);
    }
    return ckpt_fail(err, CKPT_E_USAGE, "family '%s' has no naming style '%s', expected one of:%s",
                     family, names, known);
}

ckpt_code checkpoint_find_preset(const char *name, map_preset *out, ckpt_error *err)
{
    char known[512] = "";

    for (size_t i = 0; i < ckpt_builtin_map_count; i++) {
        const ckpt_builtin_map *text = &ckpt_builtin_maps[i];
        ckpt_map *map;
        ckpt_code code;
        int found = 0;

        if (!text_ends_with(text->name, ".map"))
            continue;
        if ((code = map_parse(text->text, text->text_bytes, text->name, &map, err)) != CKPT_OK)
            return code;
        for (size_t p = 0; p < map->preset_count && !found; p++) {
            const size_t used = strlen(known);

            *out = map->presets[p];
            found = strcmp(out->name, name) == 0;
            if (strstr(known, out->name) == NULL)
                snprintf(known + used, sizeof known - used, " %s", out->name);
        }
        map_free(map);
        out->name = NULL;
        if (found)
            return CKPT_OK;
    }
    return ckpt_fail(err, CKPT_E_USAGE, "--preset '%s': expected one of%s", name, known);
}

/* Is it a map of this format, which has names of its own? */
static int names_map(const ckpt_format *format, const ckpt_map *map)
{
    for (size_t i = 0; format->map_names != NULL && format->map_names[i] != NULL; i++)
        if (strcmp(format->map_names[i], map->names) == 0)
            return 1;
    return 0;
}

/* Can the map be used for this format? */
static int map_suits(const ckpt_checkpoint *c, const ckpt_map *map)
{
    if (c->format->map_names != NULL)
        return names_map(c->format, map);
    for (size_t i = 0; ckpt_formats[i] != NULL; i++)
        if (names_map(ckpt_formats[i], map))
            return 0;
    return 1;
}

typedef struct {
    const char *family;             /* NULL: any */
    const char *prefix;             /* prefix of all names; "": none */
    map_fit best;                   /* of c->map */
} map_search;

/* A line for every name says nothing about names, so it decides only if nothing else does. */
static int fits_better(map_fit a, map_fit b)
{
    return a.matched != b.matched ? a.matched > b.matched : a.named > b.named;
}

/* Keep the map if it fits better than the best one so far. */
static ckpt_code try_map(ckpt_checkpoint *c, const ckpt_builtin_map *text, map_search *search,
                         ckpt_error *err)
{
    const json_value *config = c->config == NULL ? NULL : json_root(c->config);
    ckpt_map *map;
    ckpt_code code = map_parse(text->text, text->text_bytes, text->name, &map, err);
    map_fit fit = { 0, 0 };

    if (code != CKPT_OK)
        return code;
    if (!map_suits(c, map)) { /* nor is the config asked for what only it needs */
        map_free(map);
        return CKPT_OK;
    }
    if ((code = map_bind(map, config, err)) != CKPT_OK)
        map_free(map);
    if (code == CKPT_E_FORMAT && search->family == NULL)
        return CKPT_OK;            /* of a family whose config this is not */
    if (code != CKPT_OK)
        return code;
    if (search->prefix[0] != '\0' &&
        (code = map_add_prefix(map, search->prefix, err)) != CKPT_OK) {
        map_free(map);
        return code;
    }
    fit = map_score(map, store_names(c->store));
    if (c->map != NULL && !fits_better(fit, search->best)) {
        map_free(map);
        return CKPT_OK;
    }
    map_free(c->map);
    c->map = map;
    search->best = fit;
    return CKPT_OK;
}

static ckpt_code try_maps(ckpt_checkpoint *c, map_search *search, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_builtin_map_count && code == CKPT_OK; i++) {
        const ckpt_builtin_map *text = &ckpt_builtin_maps[i];

        if (search->family == NULL ? text_ends_with(text->name, ".map")
                                   : is_map_of(text->name, search->family))
            code = try_map(c, text, search, err);
    }
    return code;
}

/* Do names start with the prefix? Testing one in the middle is as good as testing all, and
 * quick. */
static int may_have_prefix(const ckpt_checkpoint *c, const char *prefix)
{
    const ckpt_catalog *names = store_names(c->store);
    const char *name = ckpt_catalog_at(names, ckpt_catalog_count(names) / 2)->name;

    return text_begins_with(name, prefix);
}

/* The family's map that matches most tensors; on a tie the first by name, and without a prefix
 * (prefixes occur in models inside other models). Without a family, any map of the format. */
static ckpt_code choose_map(ckpt_checkpoint *c, const char *family, ckpt_error *err)
{
    static const char *const prefixes[] = { "model.", "language_model.", "language_model.model.",
                                            "model.language_model." };
    map_search search = { .family = family, .prefix = "" };
    ckpt_code code = try_maps(c, &search, err);

    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes && code == CKPT_OK; i++) {
        search.prefix = prefixes[i];
        if (c->family != NULL && c->format->map_names == NULL &&
            may_have_prefix(c, prefixes[i]))
            code = try_maps(c, &search, err);
    }
    if (code != CKPT_OK || c->map != NULL)
        return code;
    return ckpt_fail(err, CKPT_E_USAGE, "family '%s' does not support the layout %s",
                     family == NULL ? "?" : family, c->format->name);
}

/* The map that a format needs to interpret its files: of the config's family, else the first of
 * the format's naming styles. */
ckpt_code checkpoint_need_map(ckpt_checkpoint *c, ckpt_error *err)
{
    const json_value *config = c->config == NULL ? NULL : json_root(c->config);
    const char *names = c->format->map_names[0];
    char ending[MAP_NAME_BYTES];
    ckpt_code code;

    if ((code = checkpoint_find_family(config, &c->family, err)) != CKPT_OK)
        return code;
    if (c->family != NULL)
        return checkpoint_find_map(family_name(c->family), names, config, &c->map, err);
    snprintf(ending, sizeof ending, ".%s.map", names);
    for (size_t i = 0; i < ckpt_builtin_map_count; i++)
        if (text_ends_with(ckpt_builtin_maps[i].name, ending))
            return make_map(&ckpt_builtin_maps[i], config, &c->map, err);
    return ckpt_fail(err, CKPT_E_USAGE, "no map for the naming style '%s'", names);
}

config_scheme checkpoint_scheme(const ckpt_checkpoint *c)
{
    return config_read_scheme(c->config == NULL ? NULL : json_root(c->config),
                              c->modelopt == NULL ? NULL : json_root(c->modelopt));
}

int checkpoint_has_int4(const ckpt_checkpoint *c)
{
    return c->config != NULL && family_has_int4(c->family, json_root(c->config)) &&
           checkpoint_scheme(c).encodings == 1u << ENCODING_INT4_32;
}

/* A family also defines encodings: weights quantised by another method do not belong to it, unless
 * its config alone says how they are quantised, and the method is one that is decoded. */
static ckpt_code leave_family(ckpt_checkpoint *c, const json_value *config, ckpt_error *err)
{
    const config_scheme scheme = checkpoint_scheme(c);
    const char *package = foreign_codes_name(c->store->catalog);
    char method[CONFIG_METHOD_BYTES];
    ckpt_code code;

    if (c->family == NULL || c->format->map_names != NULL || c->options.map_file != NULL)
        return CKPT_OK;
    if ((family_fp8(c->family) == 0 || checkpoint_has_int4(c)) && scheme.is_decoded &&
        !scheme.has_others && package == NULL)
        return CKPT_OK;
    config_find_method(config, method);
    if ((method[0] == '\0' && package == NULL) || scheme.replaces_blocks)
        return CKPT_OK;
    if (method[0] == '\0')
        code = note_add(&c->notes, err,
                        "quantised by %s, which is not decoded: tensors are read as stored, not as "
                        "family %s", package, family_name(c->family));
    else
        code = note_add(&c->notes, err,
                        "quantised as '%s' (quantization_config of config.json), which is not "
                        "decoded: tensors are read as stored, not as family %s", method,
                        family_name(c->family));
    family_free(c->family);
    c->family = NULL;
    return code;
}

/* A model of another kind, around a language model of a family: its tensors keep their names. */
static ckpt_code note_part(ckpt_checkpoint *c, const json_value *config, ckpt_error *err)
{
    const char *type = json_string(config_member_here(config, "model_type"));
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; type != NULL && i < ckpt_builtin_map_count && code == CKPT_OK; i++) {
        const ckpt_builtin_map *text = &ckpt_builtin_maps[i];
        ckpt_family *family;

        if (!text_ends_with(text->name, ".family"))
            continue;
        code = family_parse(text->text, text->text_bytes, text->name, &family, err);
        if (code != CKPT_OK)
            return code;
        if (family_is_part(family, config))
            code = note_add(&c->notes, err, "the language model inside is like family %s, but how "
                            "'%s' names and packs its tensors is not known: they are read as "
                            "stored", family_name(family), type);
        family_free(family);
    }
    return code;
}

/* Does the map read a tensor, and not only drop some? */
static int reads_any(const ckpt_map *map, const ckpt_catalog *names)
{
    for (size_t i = 0; i < ckpt_catalog_count(names); i++) {
        map_captures captures;
        const map_rule *rule = map_find_stored(map, ckpt_catalog_at(names, i)->name, &captures);

        if (rule != NULL && rule->kind == MAP_TENSOR)
            return 1;
    }
    return 0;
}

/* Sharded layouts of a model around one of a family have, if any, the keys of the latter. Some
 * trainers put a prefix before them, and keys of their own beside them. */
static ckpt_code leave_sharded(ckpt_checkpoint *c, const json_value *config, ckpt_error *err)
{
    ckpt_code code;

    if (c->family == NULL || c->format->map_names == NULL ||
        strcmp(family_names(c->family, config), FAMILY_NATIVE) == 0 ||
        reads_any(c->map, store_names(c->store)))
        return CKPT_OK;
    family_free(c->family);
    map_free(c->map);
    c->family = NULL;
    c->map = NULL;
    code = note_part(c, config, err);
    return code == CKPT_OK ? choose_map(c, NULL, err) : code;
}

ckpt_code checkpoint_find_own_map(ckpt_checkpoint *c, ckpt_error *err)
{
    const json_value *config = c->config == NULL ? NULL : json_root(c->config);
    ckpt_code code;
    char *text;
    size_t size;

    if (c->map != NULL)
        return CKPT_OK;            /* the format needed it to read the files */
    if ((code = checkpoint_find_family(config, &c->family, err)) != CKPT_OK ||
        (c->family == NULL && (code = note_part(c, config, err)) != CKPT_OK) ||
        (code = leave_family(c, config, err)) != CKPT_OK)
        return code;
    if (c->options.map_file == NULL) {
        code = choose_map(c, c->family != NULL                ? family_name(c->family)
                             : c->format->map_names == NULL ? GENERIC_FAMILY
                                                            : NULL, err);
        return code == CKPT_OK ? leave_sharded(c, config, err) : code;
    }
    if ((code = file_read_named(c->options.map_file, MAP_BYTES_MAX, &text, &size, err)) != CKPT_OK)
        return code;
    code = map_parse(text, size, c->options.map_file, &c->map, err);
    free(text);
    return code == CKPT_OK ? map_bind(c->map, config, err) : code;
}
