/* Parsing a map and matching its patterns. */
#include "map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"

enum { MAP_RULES_MAX = 4096, MAP_LINE_MAX = 4096 };

/* ---- patterns ---- */

static int captures_add(map_captures *captures, const char *key, size_t key_bytes,
                        const char *value, size_t value_bytes)
{
    for (size_t i = 0; i < captures->count; i++)
        if (captures->items[i].key_bytes == key_bytes &&
            memcmp(captures->items[i].key, key, key_bytes) == 0)
            return captures->items[i].value_bytes == value_bytes &&
                   memcmp(captures->items[i].value, value, value_bytes) == 0;
    if (captures->count == MAP_CAPTURES_MAX)
        return 0;
    captures->items[captures->count].key = key;
    captures->items[captures->count].key_bytes = key_bytes;
    captures->items[captures->count].value = value;
    captures->items[captures->count].value_bytes = value_bytes;
    captures->count++;
    return 1;
}

int map_match(const char *pattern, const char *name, map_captures *captures)
{
    const char *begin = pattern;

    while (*pattern != '\0') {
        const char *close;
        size_t length;

        if (*pattern != '{') {
            if (*pattern++ != *name++)
                return 0;
            continue;
        }
        close = strchr(pattern, '}');
        length = close[-1] == '*' ? strlen(name) : strcspn(name, ".");
        if ((length == 0 && !(close[-1] == '*' && pattern == begin)) ||
            !captures_add(captures, pattern, (size_t)(close + 1 - pattern), name, length))
            return 0;
        pattern = close + 1;
        name += length;
    }
    return *name == '\0';
}

static const char *captures_find(const map_captures *captures, const char *key, size_t key_bytes,
                                 size_t *value_bytes)
{
    for (size_t i = 0; i < captures->count; i++)
        if (captures->items[i].key_bytes == key_bytes &&
            memcmp(captures->items[i].key, key, key_bytes) == 0) {
            *value_bytes = captures->items[i].value_bytes;
            return captures->items[i].value;
        }
    return NULL;
}

int map_expand(const char *pattern, const map_captures *captures, char out[MAP_NAME_BYTES])
{
    size_t used = 0;

    while (*pattern != '\0') {
        const char *from = pattern;
        const char *next = pattern + 1;
        size_t length = 1;

        if (*pattern == '{') {
            next = strchr(pattern, '}') + 1;
            from = captures_find(captures, pattern, (size_t)(next - pattern), &length);
            if (from == NULL)
                return 0;
        }
        if (length >= MAP_NAME_BYTES - used)
            return 0;
        memcpy(out + used, from, length);
        used += length;
        pattern = next;
    }
    out[used] = '\0';
    return 1;
}

int map_capture_number(const map_captures *captures, const char *key, uint64_t *out)
{
    for (size_t i = 0; i < captures->count; i++) {
        char digits[24];
        char *end;

        if (captures->items[i].key_bytes != strlen(key) ||
            memcmp(captures->items[i].key, key, strlen(key)) != 0)
            continue;
        if (captures->items[i].value_bytes >= sizeof digits)
            return 0;
        memcpy(digits, captures->items[i].value, captures->items[i].value_bytes);
        digits[captures->items[i].value_bytes] = '\0';
        errno = 0;
        *out = strtoull(digits, &end, 10);
        return *end == '\0' && digits[0] >= '0' && digits[0] <= '9' && errno == 0 &&
               (digits[0] != '0' || digits[1] == '\0');     /* one spelling an entry */
    }
    return 0;
}

/* The reason of the first line of this kind that is about a logical tensor. */
static const char *find_reason(const ckpt_map *map, map_kind kind, const char *name)
{
    for (size_t i = 0; i < map->rule_count; i++) {
        map_captures captures = { .count = 0 };

        if (map->rules[i].kind == kind &&
            map_match(map->rules[i].logical[0], name, &captures))
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

        if (map_weight_of_scale(name, weight) && ckpt_catalog_find(stored, weight) >= 0)
            continue;
        score += map_find_stored(map, name, &captures) != NULL;
    }
    return score;
}

/* ---- parsing ---- */

typedef struct {
    ckpt_map *map;
    const char *subject;
    unsigned line;
    ckpt_error *err;
} map_parser;

static ckpt_code parse_fail(const map_parser *p, const char *what, const char *word)
{
    return ckpt_fail(p->err, CKPT_E_FORMAT, "map '%s', line %u: %s '%s'", p->subject, p->line,
                     what, word == NULL ? "" : word);
}

/* Placeholders are closed, not empty, not nested; {x*} stands at the end; after {x} comes '.'. */
static int pattern_is_valid(const char *pattern)
{
    if (*pattern == '\0')
        return 0;
    for (const char *c = pattern; *c != '\0'; c++) {
        const char *close;

        if (strchr("}(),= \t", *c) != NULL)
            return 0;
        if (*c != '{')
            continue;
        close = c + 1 + strcspn(c + 1, "{}");
        if (*close != '}' || close == c + 1)
            return 0;
        if (close[-1] == '*' ? close[1] != '\0' : close[1] != '\0' && close[1] != '.')
            return 0;
        c = close;
    }
    return 1;
}

static ckpt_code keep_pattern(map_parser *p, char *word, const char **out)
{
    if (word == NULL || !pattern_is_valid(word))
        return parse_fail(p, "bad name pattern", word);
    *out = arena_strdup(&p->map->memory, word, strlen(word));
    return *out == NULL ? ckpt_fail_memory(p->err, "a map", strlen(word)) : CKPT_OK;
}

static char *skip_blanks(char *text)
{
    return text + strspn(text, " \t");
}

/* Cut a word off *text; NULL at the end of the line. */
static char *take_word(char **text)
{
    char *word = skip_blanks(*text);
    char *end = word + strcspn(word, " \t");

    if (*word == '\0')
        return NULL;
    *text = end;
    if (*end != '\0') {
        *end = '\0';
        *text = end + 1;
    }
    return word;
}

/* `name(` at *text: step inside and cut off the closing parenthesis at the end of the text. */
static int take_call(char **text, const char *name)
{
    const size_t length = strlen(name);
    const size_t text_length = strlen(*text);

    if (strncmp(*text, name, length) != 0 || (*text)[length] != '(' ||
        (*text)[text_length - 1] != ')')
        return 0;
    (*text)[text_length - 1] = '\0';
    *text += length + 1;
    return 1;
}

/* LOGICAL,0/3 */
static ckpt_code parse_part(map_parser *p, map_rule *rule, char *text)
{
    char *comma = strchr(text, ',');

    if (comma == NULL || rule->stack != NULL)
        return parse_fail(p, "part needs a name and a fraction:", text);
    *comma++ = '\0';
    if (strlen(comma) != 3 || comma[1] != '/' || comma[0] < '0' || comma[2] > '9' ||
        comma[0] >= comma[2])
        return parse_fail(p, "not a fraction:", comma);
    rule->part = (uint32_t)(comma[0] - '0');
    rule->part_count = (uint32_t)(comma[2] - '0');
    rule->logical_count = 1;
    return keep_pattern(p, text, &rule->logical[0]);
}

static ckpt_code parse_expression(map_parser *p, map_rule *rule, char *text)
{
    ckpt_code code;

    if (take_call(&text, "stack")) {
        char *comma = strchr(text, ',');

        if (comma == NULL)
            return parse_fail(p, "stack needs an index and a name:", text);
        *comma = '\0';
        if ((code = keep_pattern(p, text, &rule->stack)) != CKPT_OK)
            return code;
        if (rule->stack[0] != '{' || strchr(rule->stack, '*') != NULL)
            return parse_fail(p, "not an index:", rule->stack);
        text = comma + 1;
    }
    if (take_call(&text, "part"))
        return parse_part(p, rule, text);
    if (!take_call(&text, "concat")) {
        rule->logical_count = 1;
        return keep_pattern(p, text, &rule->logical[0]);
    }
    while (text != NULL) {
        char *comma = strchr(text, ',');

        if (rule->logical_count == MAP_CONCAT_MAX)
            return parse_fail(p, "too many names in concat", text);
        if (comma != NULL)
            *comma++ = '\0';
        if ((code = keep_pattern(p, text, &rule->logical[rule->logical_count++])) != CKPT_OK)
            return code;
        text = comma;
    }
    return CKPT_OK;
}

static void remove_blanks(char *text)
{
    char *to = text;

    for (const char *from = text; *from != '\0'; from++)
        if (*from != ' ' && *from != '\t')
            *to++ = *from;
    *to = '\0';
}

/* Room for one more behind `count` items; NULL when there are too many, or no memory. */
static void *grow(void *items, size_t count, size_t item_bytes)
{
    return count == MAP_RULES_MAX ? NULL : array_room(items, count, item_bytes, "a map", NULL);
}

static ckpt_code parse_rule(map_parser *p, map_kind kind, char *text)
{
    ckpt_map *map = p->map;
    map_rule rule = { .kind = kind, .part_count = 1 };
    map_rule *rules;
    ckpt_code code;

    if ((code = keep_pattern(p, take_word(&text), &rule.stored)) != CKPT_OK)
        return code;
    text = skip_blanks(text);
    if (kind == MAP_OMIT || kind == MAP_PLAIN) {
        rule.logical[rule.logical_count++] = rule.stored;
        rule.stored = "";                  /* fits no name */
    }
    if (kind == MAP_DROP || kind == MAP_OMIT || kind == MAP_PLAIN) {
        rule.reason = arena_strdup(&map->memory, text, strlen(text));
        if (*text == '\0' || rule.reason == NULL)
            return parse_fail(p, "a reason is missing for", text);
    } else {
        if (*text != '=')
            return parse_fail(p, "'=' expected after", rule.stored);
        remove_blanks(text);
        if ((code = parse_expression(p, &rule, text + 1)) != CKPT_OK)
            return code;
        if (kind == MAP_COPY && (rule.stack != NULL || rule.logical_count != 1))
            return parse_fail(p, "a copy is of one tensor:", rule.stored);
    }
    if ((rules = grow(map->rules, map->rule_count, sizeof *rules)) == NULL)
        return parse_fail(p, "too many lines at", rule.stored);
    map->rules = rules;
    rules[map->rule_count++] = rule;
    return CKPT_OK;
}

/* AXIS=WHERE, halves=2 or groups=KEY. */
static ckpt_code parse_axis(map_parser *p, map_shard *shard, char *word)
{
    static const char *const names[MAP_AXIS_COUNT] = { "mp", "tp", "ep", "etp" };
    char *where = strchr(word, '=');
    size_t axis = 0;

    if (where == NULL)
        return parse_fail(p, "'=' expected in", word);
    *where++ = '\0';
    if (strcmp(word, "halves") == 0 && strcmp(where, "2") == 0) {
        shard->halves = 2;
        return CKPT_OK;
    }
    if (strcmp(word, "groups") == 0)
        return keep_pattern(p, where, &shard->groups);
    while (axis < MAP_AXIS_COUNT && strcmp(word, names[axis]) != 0)
        axis++;
    if (axis == MAP_AXIS_COUNT || shard->axes[axis].cut)
        return parse_fail(p, "unknown or repeated axis", word);
    shard->axes[axis].cut = 1;
    if (where[0] == '{')
        return keep_pattern(p, where, &shard->axes[axis].index);
    if (where[0] < '0' || where[0] >= '0' + CKPT_RANK_MAX || where[1] != '\0')
        return parse_fail(p, "not a dimension:", where);
    shard->axes[axis].dimension = (uint32_t)(where[0] - '0');
    return CKPT_OK;
}

static ckpt_code parse_shard(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    map_shard shard = { .halves = 1 };
    map_shard *shards;
    char *word;
    ckpt_code code;

    if ((code = keep_pattern(p, take_word(&text), &shard.stored)) != CKPT_OK)
        return code;
    while ((word = take_word(&text)) != NULL)
        if ((code = parse_axis(p, &shard, word)) != CKPT_OK)
            return code;
    if ((shards = grow(map->shards, map->shard_count, sizeof *shards)) == NULL)
        return parse_fail(p, "too many lines at", shard.stored);
    map->shards = shards;
    shards[map->shard_count++] = shard;
    return CKPT_OK;
}

static ckpt_code parse_stage(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    map_stage stage = { NULL, NULL };
    map_stage *stages;
    char *word;
    ckpt_code code;

    if ((code = keep_pattern(p, take_word(&text), &stage.stored)) != CKPT_OK)
        return code;
    word = take_word(&text);
    if (word == NULL || (strcmp(word, "first") != 0 &&
                         (word[0] != '{' || strstr(stage.stored, word) == NULL)))
        return parse_fail(p, "neither first nor an index of the name:", word);
    if (word[0] == '{' && (code = keep_pattern(p, word, &stage.layer)) != CKPT_OK)
        return code;
    if ((stages = grow(map->stages, map->stage_count, sizeof *stages)) == NULL)
        return parse_fail(p, "too many lines at", stage.stored);
    map->stages = stages;
    stages[map->stage_count++] = stage;
    return CKPT_OK;
}

static ckpt_code parse_extra(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    map_extra extra = { NULL, 0 };
    map_extra *extras;
    const char *word;
    ckpt_code code;

    if ((code = keep_pattern(p, take_word(&text), &extra.stored)) != CKPT_OK)
        return code;
    word = take_word(&text);
    if (word == NULL || (strcmp(word, "empty") != 0 && strcmp(word, "none") != 0))
        return parse_fail(p, "neither empty nor none:", word);
    extra.is_none = strcmp(word, "none") == 0;
    if ((extras = grow(map->extras, map->extra_count, sizeof *extras)) == NULL)
        return parse_fail(p, "too many lines at", extra.stored);
    map->extras = extras;
    extras[map->extra_count++] = extra;
    return CKPT_OK;
}

static ckpt_code parse_encode(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    map_encode encode = { NULL, CKPT_NONE };
    map_encode *encodes;
    const char *word;
    ckpt_code code;

    if ((code = keep_pattern(p, take_word(&text), &encode.logical)) != CKPT_OK)
        return code;
    word = take_word(&text);
    encode.dtype = word == NULL ? CKPT_NONE : ckpt_dtype_find(word);
    if (encode.dtype == CKPT_NONE)
        return parse_fail(p, "not a dtype:", word);
    if ((encodes = grow(map->encodes, map->encode_count, sizeof *encodes)) == NULL)
        return parse_fail(p, "too many lines at", encode.logical);
    map->encodes = encodes;
    encodes[map->encode_count++] = encode;
    return CKPT_OK;
}

static ckpt_code parse_module(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    map_module module = { .logical = NULL };
    map_module *modules;
    char *word;
    ckpt_code code;

    if ((code = keep_pattern(p, take_word(&text), &module.logical)) != CKPT_OK)
        return code;
    while ((word = take_word(&text)) != NULL) {
        if (module.name_count == MAP_MODULE_NAMES_MAX)
            return parse_fail(p, "too many names of module", module.logical);
        if ((code = keep_pattern(p, word, &module.names[module.name_count++])) != CKPT_OK)
            return code;
    }
    if (module.name_count == 0)
        return parse_fail(p, "a name is missing for module", module.logical);
    if ((modules = grow(map->modules, map->module_count, sizeof *modules)) == NULL)
        return parse_fail(p, "too many lines at", module.logical);
    map->modules = modules;
    modules[map->module_count++] = module;
    return CKPT_OK;
}

/* What is written with this suffix is paired with its weight when it is read. */
static int is_read_back(const char *suffix)
{
    char name[MAP_NAME_BYTES];
    char weight[MAP_NAME_BYTES];

    return (size_t)snprintf(name, sizeof name, "x%s", suffix) < sizeof name &&
           map_weight_of_scale(name, weight) && strcmp(weight, "x.weight") == 0;
}

static ckpt_code parse_line(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    char *word = take_word(&text);
    const char **single = NULL;

    if (word == NULL)
        return CKPT_OK;
    if (strcmp(word, "tensor") == 0)
        return parse_rule(p, MAP_TENSOR, text);
    if (strcmp(word, "copy") == 0)
        return parse_rule(p, MAP_COPY, text);
    if (strcmp(word, "drop") == 0)
        return parse_rule(p, MAP_DROP, text);
    if (strcmp(word, "omit") == 0)
        return parse_rule(p, MAP_OMIT, text);
    if (strcmp(word, "plain") == 0)
        return parse_rule(p, MAP_PLAIN, text);
    if (strcmp(word, "module") == 0)
        return parse_module(p, text);
    if (strcmp(word, "shard") == 0)
        return parse_shard(p, text);
    if (strcmp(word, "stage") == 0)
        return parse_stage(p, text);
    if (strcmp(word, "extra") == 0)
        return parse_extra(p, text);
    if (strcmp(word, "encode") == 0)
        return parse_encode(p, text);
    if (strcmp(word, "scale") == 0)
        single = &map->scale_suffix;
    else if (strcmp(word, "map") == 0)
        single = &map->family;
    else
        return parse_fail(p, "unknown word", word);
    while ((word = take_word(&text)) != NULL) {
        if (single == NULL || *single != NULL)
            return parse_fail(p, "unexpected", word);
        if ((*single = arena_strdup(&map->memory, word, strlen(word))) == NULL)
            return ckpt_fail_memory(p->err, "a map", strlen(word));
        single = single == &map->family ? &map->names : NULL;
    }
    if (map->scale_suffix != NULL && !is_read_back(map->scale_suffix))
        return parse_fail(p, "no weight is found by a scale with the suffix", map->scale_suffix);
    return CKPT_OK;
}

static ckpt_code parse_lines(map_parser *p, const char *text, size_t size)
{
    const char *end = text + size;
    char line[MAP_LINE_MAX];

    for (p->line = 1; text < end; p->line++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const size_t length = (size_t)((newline == NULL ? end : newline) - text);
        ckpt_code code;

        if (length >= sizeof line || memchr(text, '\0', length) != NULL)
            return parse_fail(p, "line too long, or not text", NULL);
        memcpy(line, text, length);
        line[length] = '\0';
        line[strcspn(line, "#\r")] = '\0';
        if ((code = parse_line(p, line)) != CKPT_OK)
            return code;
        text += length + 1;
    }
    if (p->map->family == NULL || p->map->names == NULL || p->map->scale_suffix == NULL)
        return parse_fail(p, "no line", p->map->scale_suffix == NULL ? "scale" : "map");
    return CKPT_OK;
}

ckpt_code map_parse(const char *text, size_t size, const char *subject, ckpt_map **out,
                    ckpt_error *err)
{
    map_parser parser = { .map = calloc(1, sizeof *parser.map), .subject = subject, .err = err };
    ckpt_code code;

    if (parser.map == NULL)
        return ckpt_fail_memory(err, "a map", sizeof *parser.map);
    arena_init(&parser.map->memory);
    code = parse_lines(&parser, text, size);
    if (code != CKPT_OK)
        map_free(parser.map);
    else
        *out = parser.map;
    return code;
}

void map_free(ckpt_map *map)
{
    if (map == NULL)
        return;
    arena_release(&map->memory);
    free(map->rules);
    free(map->shards);
    free(map->stages);
    free(map->extras);
    free(map->encodes);
    free(map->modules);
    free(map);
}
