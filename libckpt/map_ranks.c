/* Lines of map texts on layouts whose tensors are divided over ranks. */
#include "map_parse.h"

#include <string.h>

#include "config_number.h"

/* AXIS=WHERE, halves=2 or groups=KEY. */
static ckpt_code parse_axis(map_parser *p, map_shard *shard, char *word)
{
    static const char *const names[MAP_AXIS_COUNT] = { "mp", "tp", "ep", "etp" };
    char *where = strchr(word, '=');
    size_t axis = 0;

    if (where == NULL)
        return map_parse_fail(p, "'=' expected in", word);
    *where++ = '\0';
    if (strcmp(word, "halves") == 0 && strcmp(where, "2") == 0) {
        shard->halves = 2;
        return CKPT_OK;
    }
    if (strcmp(word, "groups") == 0)
        return map_keep_pattern(p, where, &shard->groups);
    while (axis < MAP_AXIS_COUNT && strcmp(word, names[axis]) != 0)
        axis++;
    if (axis == MAP_AXIS_COUNT || shard->axes[axis].cut)
        return map_parse_fail(p, "unknown or repeated axis", word);
    shard->axes[axis].cut = 1;
    if (where[0] == '{')
        return map_keep_pattern(p, where, &shard->axes[axis].index);
    if (where[0] < '0' || where[0] >= '0' + CKPT_RANK_MAX || where[1] != '\0')
        return map_parse_fail(p, "not a dimension:", where);
    shard->axes[axis].dimension = (uint32_t)(where[0] - '0');
    return CKPT_OK;
}

ckpt_code map_parse_shard(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    map_shard shard = { .halves = 1 };
    map_shard *shards;
    char *word;
    ckpt_code code;

    if ((code = map_keep_pattern(p, map_take_word(&text), &shard.stored)) != CKPT_OK)
        return code;
    while ((word = map_take_word(&text)) != NULL)
        if ((code = parse_axis(p, &shard, word)) != CKPT_OK)
            return code;
    if ((shards = map_grow(map->shards, map->shard_count, sizeof *shards)) == NULL)
        return map_parse_fail(p, "too many lines at", shard.stored);
    map->shards = shards;
    shards[map->shard_count++] = shard;
    return CKPT_OK;
}

ckpt_code map_parse_stage(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    map_stage stage = { NULL, NULL, 0 };
    map_stage *stages;
    char *word;
    ckpt_code code;

    if ((code = map_keep_pattern(p, map_take_word(&text), &stage.stored)) != CKPT_OK)
        return code;
    word = map_take_word(&text);
    stage.is_stacked = word != NULL && strcmp(word, "stacked") == 0;
    if (word == NULL || (strcmp(word, "first") != 0 && !stage.is_stacked &&
                         (word[0] != '{' || strstr(stage.stored, word) == NULL)))
        return map_parse_fail(p, "neither first nor stacked nor an index of the name:", word);
    if (word[0] == '{' && (code = map_keep_pattern(p, word, &stage.layer)) != CKPT_OK)
        return code;
    if ((stages = map_grow(map->stages, map->stage_count, sizeof *stages)) == NULL)
        return map_parse_fail(p, "too many lines at", stage.stored);
    map->stages = stages;
    stages[map->stage_count++] = stage;
    return CKPT_OK;
}

ckpt_code map_parse_extra(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    map_extra extra = { NULL, 0 };
    map_extra *extras;
    const char *word;
    ckpt_code code;

    if ((code = map_keep_pattern(p, map_take_word(&text), &extra.stored)) != CKPT_OK)
        return code;
    word = map_take_word(&text);
    if (word == NULL || (strcmp(word, "empty") != 0 && strcmp(word, "none") != 0))
        return map_parse_fail(p, "neither empty nor none:", word);
    extra.is_none = strcmp(word, "none") == 0;
    if ((extras = map_grow(map->extras, map->extra_count, sizeof *extras)) == NULL)
        return map_parse_fail(p, "too many lines at", extra.stored);
    map->extras = extras;
    extras[map->extra_count++] = extra;
    return CKPT_OK;
}

ckpt_code map_parse_dialect(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    const char *name = map_take_word(&text);
    const char *arg = map_take_word(&text);
    map_dialect dialect = { NULL, NULL };
    map_dialect *dialects;
    ckpt_code code;

    if (name == NULL || *map_skip_blanks(text) != '\0')
        return map_parse_fail(p, "expected a name and perhaps an argument:", name);
    if ((code = map_keep_word(p, name, &dialect.name)) != CKPT_OK ||
        (arg != NULL && (code = map_keep_word(p, arg, &dialect.arg)) != CKPT_OK))
        return code;
    if ((dialects = map_grow(map->dialects, map->dialect_count, sizeof *dialects)) == NULL)
        return map_parse_fail(p, "too many lines at", name);
    map->dialects = dialects;
    dialects[map->dialect_count++] = dialect;
    return CKPT_OK;
}

/* AXIS=N */
static ckpt_code parse_preset_number(map_parser *p, map_preset *preset, const char *word)
{
    static const char *const names[PRESET_COUNT] = {
        "tp=", "pp=", "ep=", "etp=", "first=", "last="
    };
    int i = 0;
    uint64_t number;

    while (i < PRESET_COUNT && strncmp(word, names[i], strlen(names[i])) != 0)
        i++;
    if (i == PRESET_COUNT || preset->numbers[i] != 0)
        return map_parse_fail(p, "unknown or repeated axis", word);
    if (!config_expression_is_valid(word + strlen(names[i])) ||
        config_expression(NULL, word + strlen(names[i]), &number, NULL) != CKPT_OK || number == 0 ||
        number > UINT16_MAX)
        return map_parse_fail(p, "not a number of ranks or layers:", word);
    preset->numbers[i] = (uint32_t)number;
    return CKPT_OK;
}

ckpt_code map_parse_preset(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    const char *word = map_take_word(&text);
    map_preset preset = { .name = NULL };
    map_preset *presets;
    ckpt_code code;

    if (word == NULL)
        return map_parse_fail(p, "a name is missing for", "preset");
    if ((code = map_keep_word(p, word, &preset.name)) != CKPT_OK)
        return code;
    while ((word = map_take_word(&text)) != NULL)
        if ((code = parse_preset_number(p, &preset, word)) != CKPT_OK)
            return code;
    if ((presets = map_grow(map->presets, map->preset_count, sizeof *presets)) == NULL)
        return map_parse_fail(p, "too many lines at", preset.name);
    map->presets = presets;
    presets[map->preset_count++] = preset;
    return CKPT_OK;
}
