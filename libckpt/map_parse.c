/* The parser of map texts: their lines, and what is said of whole maps. */
#include "map_parse.h"

#include <stdlib.h>
#include <string.h>

#include "config_number.h"

enum { MAP_LINE_MAX = 4096 };

/* STORED ROWS REASON... */
static ckpt_code parse_cut(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    map_cut cut = { .stored = NULL };
    map_cut *cuts;
    ckpt_code code;

    if ((code = map_keep_pattern(p, map_take_word(&text), &cut.stored)) != CKPT_OK ||
        (code = map_parse_number(p, map_take_word(&text), &cut.rows)) != CKPT_OK)
        return code;
    text = map_skip_blanks(text);
    if (*text == '\0')
        return map_parse_fail(p, "a reason is missing for", cut.stored);
    if ((cut.reason = arena_strdup(&map->memory, text, strlen(text))) == NULL)
        return ckpt_fail_memory(p->err, "a map", strlen(text));
    if ((cuts = map_grow(map->cuts, map->cut_count, sizeof *cuts)) == NULL)
        return map_parse_fail(p, "too many lines at", cut.stored);
    map->cuts = cuts;
    cuts[map->cut_count++] = cut;
    return CKPT_OK;
}

static ckpt_code parse_encode(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    map_encode encode = { NULL, CKPT_NONE };
    map_encode *encodes;
    const char *word;
    ckpt_code code;

    if ((code = map_keep_pattern(p, map_take_word(&text), &encode.logical)) != CKPT_OK)
        return code;
    word = map_take_word(&text);
    encode.dtype = word == NULL ? CKPT_NONE : ckpt_dtype_find(word);
    if (encode.dtype == CKPT_NONE)
        return map_parse_fail(p, "not a dtype:", word);
    if ((encodes = map_grow(map->encodes, map->encode_count, sizeof *encodes)) == NULL)
        return map_parse_fail(p, "too many lines at", encode.logical);
    map->encodes = encodes;
    encodes[map->encode_count++] = encode;
    return CKPT_OK;
}

static ckpt_code parse_arg(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    const char *name = map_take_word(&text);
    const char *expression = map_take_word(&text);
    map_arg *args;
    ckpt_code code;

    if (name == NULL || expression == NULL || *map_skip_blanks(text) != '\0')
        return map_parse_fail(p, "expected a name and an expression:", name);
    if (strcmp(expression, "none") == 0)
        expression = NULL;
    else if (!config_expression_is_valid(expression))
        return map_parse_fail(p, "not an expression:", expression);
    if ((args = map_grow(map->args, map->arg_count, sizeof *args)) == NULL)
        return map_parse_fail(p, "too many lines at", name);
    map->args = args;
    args[map->arg_count].expression = NULL;
    if ((code = map_keep_word(p, name, &args[map->arg_count].name)) != CKPT_OK ||
        (expression != NULL &&
         (code = map_keep_word(p, expression, &args[map->arg_count].expression)) != CKPT_OK))
        return code;
    map->arg_count++;
    return CKPT_OK;
}

static ckpt_code parse_module(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    map_module module = { .logical = NULL };
    map_module *modules;
    char *word;
    ckpt_code code;

    if ((code = map_keep_pattern(p, map_take_word(&text), &module.logical)) != CKPT_OK)
        return code;
    while ((word = map_take_word(&text)) != NULL) {
        if (module.name_count == MAP_MODULE_NAMES_MAX)
            return map_parse_fail(p, "too many names of module", module.logical);
        if ((code = map_keep_pattern(p, word, &module.names[module.name_count++])) != CKPT_OK)
            return code;
    }
    if (module.name_count == 0)
        return map_parse_fail(p, "a name is missing for module", module.logical);
    if ((modules = map_grow(map->modules, map->module_count, sizeof *modules)) == NULL)
        return map_parse_fail(p, "too many lines at", module.logical);
    map->modules = modules;
    modules[map->module_count++] = module;
    return CKPT_OK;
}

/* 1 when reading would pair a scale with this suffix with its weight. */
static int is_read_back(const char *suffix)
{
    char name[MAP_NAME_BYTES];
    char weight[MAP_NAME_BYTES];

    return (size_t)snprintf(name, sizeof name, "x%s", suffix) < sizeof name &&
           map_weight_of_scale(name, weight) && strcmp(weight, "x.weight") == 0;
}

/* Take the next word, if there is one; no earlier line may have given it. */
static ckpt_code take_once(map_parser *p, char **text, const char **out)
{
    const char *word = map_take_word(text);

    if (word == NULL)
        return CKPT_OK;
    if (*out != NULL)
        return map_parse_fail(p, "unexpected", word);
    return map_keep_word(p, word, out);
}

static ckpt_code expect_end(const map_parser *p, char *text)
{
    const char *word = map_take_word(&text);

    return word == NULL ? CKPT_OK : map_parse_fail(p, "unexpected", word);
}

static ckpt_code parse_map(map_parser *p, char *text)
{
    ckpt_code code;

    if ((code = take_once(p, &text, &p->map->family)) != CKPT_OK ||
        (code = take_once(p, &text, &p->map->names)) != CKPT_OK)
        return code;
    return expect_end(p, text);
}

static ckpt_code parse_scale(map_parser *p, char *text)
{
    const char **suffix = &p->map->scale_suffix;
    ckpt_code code;

    if ((code = take_once(p, &text, suffix)) != CKPT_OK || (code = expect_end(p, text)) != CKPT_OK)
        return code;
    return *suffix == NULL || is_read_back(*suffix)
               ? CKPT_OK
               : map_parse_fail(p, "no weight is found by a scale with the suffix", *suffix);
}

static ckpt_code parse_line(map_parser *p, char *text)
{
    static const struct {
        const char *word;
        map_kind kind;
    } rules[] = {
        { "tensor", MAP_TENSOR }, { "copy", MAP_COPY },   { "drop", MAP_DROP },
        { "omit", MAP_OMIT },     { "spare", MAP_SPARE }, { "plain", MAP_PLAIN },
    };
    static const struct {
        const char *word;
        ckpt_code (*parse)(map_parser *p, char *text);
    } others[] = {
        { "map", parse_map },           { "scale", parse_scale },
        { "module", parse_module },     { "shard", map_parse_shard },
        { "stage", map_parse_stage },   { "extra", map_parse_extra },
        { "cut", parse_cut },           { "encode", parse_encode },
        { "arg", parse_arg },           { "dialect", map_parse_dialect },
        { "preset", map_parse_preset },
    };
    const char *word = map_take_word(&text);

    if (word == NULL)
        return CKPT_OK;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(rules[i].word, word) == 0)
            return map_parse_rule(p, rules[i].kind, text);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(others[i].word, word) == 0)
            return others[i].parse(p, text);
    return map_parse_fail(p, "unknown word", word);
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
            return map_parse_fail(p, "line too long, or not text", NULL);
        memcpy(line, text, length);
        line[length] = '\0';
        line[strcspn(line, "#\r")] = '\0';
        if ((code = parse_line(p, line)) != CKPT_OK)
            return code;
        text += length + 1;
    }
    if (p->map->family == NULL || p->map->names == NULL || p->map->scale_suffix == NULL)
        return map_parse_fail(p, "no line", p->map->scale_suffix == NULL ? "scale" : "map");
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
    free(map->args);
    free(map->cuts);
    free(map->dialects);
    free(map->presets);
    free(map->modules);
    free(map);
}
