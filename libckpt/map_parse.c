/* The parser of map texts. */
#include "map.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "config_number.h"
#include "map_pack.h"

enum { MAP_RULES_MAX = 4096, MAP_LINE_MAX = 4096 };

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

/* {m+KEY}: a name and an expression. */
static int shift_is_valid(const char *open, const char *close)
{
    const char *plus = memchr(open, '+', (size_t)(close - open));
    char text[MAP_SHIFT_BYTES];

    if (plus == NULL)
        return 1;
    if (plus == open + 1 || memchr(open, '*', (size_t)(plus - open)) != NULL ||
        (size_t)(close - plus) > sizeof text)
        return 0;
    memcpy(text, plus + 1, (size_t)(close - plus - 1));
    text[close - plus - 1] = '\0';
    return config_expression_is_valid(text);
}

/* Placeholders must be closed, not empty and not nested. {x*} must be last, and {x} be followed by
 * '.' or the end, so that a name can match in one way only. */
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
        if (*close != '}' || close == c + 1 || !shift_is_valid(c, close))
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

/* A piece that is a whole logical tensor. */
static const map_piece whole_piece = { NULL, { "1", 1 }, { "0", 0 }, { "1", 1 }, { "1", 1 } };

/* Cut the first argument off *text, up to a comma outside of parentheses; NULL after the last. */
static char *take_argument(char **text)
{
    char *argument = *text;
    char *end = argument;
    int depth = 0;

    if (argument == NULL)
        return NULL;
    for (; *end != '\0' && (*end != ',' || depth > 0); end++)
        depth += (*end == '(') - (*end == ')');
    *text = *end == '\0' ? NULL : end + 1;
    *end = '\0';
    return argument;
}

static ckpt_code parse_number(map_parser *p, const char *text, map_number *out)
{
    if (text == NULL || !config_expression_is_valid(text))
        return parse_fail(p, "not a number or a member of the config:", text);
    out->value = 0;                    /* not evaluated yet */
    out->text = arena_strdup(&p->map->memory, text, strlen(text));
    return out->text == NULL ? ckpt_fail_memory(p->err, "a map", strlen(text)) : CKPT_OK;
}

/* LOGICAL,K/N or LOGICAL,FROM,COUNT,OF */
static ckpt_code parse_part(map_parser *p, map_piece *piece, char *text)
{
    const char *name = take_argument(&text);
    char *from = take_argument(&text);
    char *slash = from == NULL ? NULL : strchr(from, '/');
    ckpt_code code;

    if (from == NULL)
        return parse_fail(p, "part needs a name and a fraction:", name);
    if (text == NULL && slash != NULL) {
        *slash = '\0';
        text = slash + 1;
    } else if ((code = parse_number(p, take_argument(&text), &piece->count)) != CKPT_OK) {
        return code;
    }
    if ((code = parse_number(p, from, &piece->from)) != CKPT_OK ||
        (code = parse_number(p, text, &piece->of)) != CKPT_OK)
        return code;
    return keep_pattern(p, (char *)name, &piece->logical);
}

/* LOGICAL or part(...), with an optional :N. */
static ckpt_code parse_piece(map_parser *p, map_rule *rule, char *text)
{
    map_piece *piece = &rule->pieces[rule->piece_count];
    char *colon = strrchr(text, ':');
    ckpt_code code;

    if (rule->piece_count == MAP_PIECES_MAX)
        return parse_fail(p, "too many names in one tensor:", text);
    rule->piece_count++;
    *piece = whole_piece;
    if (colon != NULL) {
        *colon = '\0';
        if ((code = parse_number(p, colon + 1, &piece->times)) != CKPT_OK)
            return code;
    }
    return take_call(&text, "part") ? parse_part(p, piece, text)
                                    : keep_pattern(p, text, &piece->logical);
}

static ckpt_code parse_stack(map_parser *p, map_rule *rule, char **text)
{
    char *index = take_argument(text);
    const char **stack = &rule->stacks[rule->stack_count];
    ckpt_code code;

    if (*text == NULL)
        return parse_fail(p, "stack needs an index and a name:", index);
    if (rule->stack_count == MAP_STACKS_MAX)
        return parse_fail(p, "too many stacks:", *text);
    rule->stack_count++;
    if ((code = keep_pattern(p, index, stack)) != CKPT_OK)
        return code;
    if ((*stack)[0] != '{' || strpbrk(*stack, "*+") != NULL || strchr(*stack, '}')[1] != '\0')
        return parse_fail(p, "not an index:", *stack);
    return CKPT_OK;
}

static ckpt_code parse_expression(map_parser *p, map_rule *rule, char *text)
{
    ckpt_code code = CKPT_OK;
    char *piece;

    while (take_call(&text, "stack"))
        if ((code = parse_stack(p, rule, &text)) != CKPT_OK)
            return code;
    if (take_call(&text, "interleave"))
        code = parse_number(p, take_argument(&text), &rule->groups);
    else if (take_call(&text, "cols"))
        rule->has_cols = 1;
    else if (!take_call(&text, "concat"))
        return parse_piece(p, rule, text);
    if (code == CKPT_OK && text == NULL)
        return parse_fail(p, "interleave needs names:", rule->stored);
    while (code == CKPT_OK && (piece = take_argument(&text)) != NULL)
        code = parse_piece(p, rule, piece);
    for (size_t c = 0; code == CKPT_OK && rule->has_cols && c < rule->piece_count; c++)
        if (strcmp(rule->pieces[c].times.text, "1") != 0 ||
            strcmp(rule->pieces[c].of.text, "1") != 0)
            code = parse_fail(p, "cols takes whole tensors:", rule->pieces[c].logical);
    return code;
}

/* ... when LOGICAL */
static ckpt_code parse_when(map_parser *p, map_rule *rule, char *text)
{
    char *when = strstr(text, " when");
    char *end;

    if (when == NULL || (when[5] != '\0' && when[5] != ' ' && when[5] != '\t'))
        return CKPT_OK;
    *when = '\0';
    when = skip_blanks(when + 5);
    end = when + strcspn(when, " \t");
    if (*skip_blanks(end) != '\0')
        return parse_fail(p, "unexpected", skip_blanks(end));
    *end = '\0';
    return keep_pattern(p, when, &rule->when);
}

/* ... if MEMBER = N, or != N */
static ckpt_code parse_condition(map_parser *p, map_rule *rule, char *text)
{
    char *at = strstr(text, " if ");
    const char *member;
    const char *compare;
    const char *number;

    if (at == NULL)
        return CKPT_OK;
    *at = '\0';
    at += strlen(" if ");
    member = take_word(&at);
    compare = take_word(&at);
    number = take_word(&at);
    if (number == NULL || *skip_blanks(at) != '\0' || !config_expression_is_valid(member) ||
        (strcmp(compare, "=") != 0 && strcmp(compare, "!=") != 0) ||
        number[strspn(number, "0123456789")] != '\0' ||
        config_expression(NULL, number, &rule->condition.number, NULL) != CKPT_OK)
        return parse_fail(p, "expected MEMBER = N or MEMBER != N after if:", member);
    rule->condition.differs = compare[0] == '!';
    rule->condition.member = arena_strdup(&p->map->memory, member, strlen(member));
    return rule->condition.member == NULL ? ckpt_fail_memory(p->err, "a map", strlen(member))
                                          : CKPT_OK;
}

static void remove_blanks(char *text)
{
    char *to = text;

    for (const char *from = text; *from != '\0'; from++)
        if (*from != ' ' && *from != '\t')
            *to++ = *from;
    *to = '\0';
}

/* Make room for one more item after `count`; NULL when there are too many, or no memory. */
static void *grow(void *items, size_t count, size_t item_bytes)
{
    return count == MAP_RULES_MAX ? NULL : array_room(items, count, item_bytes, "a map", NULL);
}

/* `= EXPRESSION [when LOGICAL] [if CONDITION]`, after STORED. */
static ckpt_code parse_packing(map_parser *p, map_rule *rule, char *text)
{
    ckpt_code code;

    if (*text != '=')
        return parse_fail(p, "'=' expected after", rule->stored);
    if ((code = parse_condition(p, rule, text)) != CKPT_OK ||
        (code = parse_when(p, rule, text)) != CKPT_OK)
        return code;
    remove_blanks(text);
    if ((code = parse_expression(p, rule, text + 1)) != CKPT_OK)
        return code;
    if (rule->kind == MAP_COPY &&
        (rule->stack_count > 0 || rule->piece_count != 1 || rule->when != NULL ||
         strcmp(rule->pieces[0].of.text, "1") != 0))
        return parse_fail(p, "a copy is of one tensor:", rule->stored);
    return CKPT_OK;
}

static ckpt_code parse_rule(map_parser *p, map_kind kind, char *text)
{
    ckpt_map *map = p->map;
    map_rule rule = { .kind = kind, .groups = { "1", 1 } };
    map_rule *rules;
    ckpt_code code;

    if ((code = keep_pattern(p, take_word(&text), &rule.stored)) != CKPT_OK)
        return code;
    text = skip_blanks(text);
    if (kind == MAP_OMIT || kind == MAP_SPARE || kind == MAP_PLAIN) {
        rule.pieces[rule.piece_count] = whole_piece;
        rule.pieces[rule.piece_count++].logical = rule.stored;
        rule.stored = "";                  /* matches no name */
    }
    if (kind != MAP_TENSOR && kind != MAP_COPY) {
        rule.reason = arena_strdup(&map->memory, text, strlen(text));
        if (*text == '\0' || rule.reason == NULL)
            return parse_fail(p, "a reason is missing for", text);
    } else if ((code = parse_packing(p, &rule, text)) != CKPT_OK) {
        return code;
    } else if ((code = map_rule_bind_numbers(&rule, p->err)) != CKPT_OK) {
        return p->err == NULL ? code : parse_fail(p, p->err->text, rule.stored);
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
    map_stage stage = { NULL, NULL, 0 };
    map_stage *stages;
    char *word;
    ckpt_code code;

    if ((code = keep_pattern(p, take_word(&text), &stage.stored)) != CKPT_OK)
        return code;
    word = take_word(&text);
    stage.is_stacked = word != NULL && strcmp(word, "stacked") == 0;
    if (word == NULL || (strcmp(word, "first") != 0 && !stage.is_stacked &&
                         (word[0] != '{' || strstr(stage.stored, word) == NULL)))
        return parse_fail(p, "neither first nor stacked nor an index of the name:", word);
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

/* STORED ROWS REASON... */
static ckpt_code parse_cut(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    map_cut cut = { .stored = NULL };
    map_cut *cuts;
    ckpt_code code;

    if ((code = keep_pattern(p, take_word(&text), &cut.stored)) != CKPT_OK ||
        (code = parse_number(p, take_word(&text), &cut.rows)) != CKPT_OK)
        return code;
    text = skip_blanks(text);
    if (*text == '\0')
        return parse_fail(p, "a reason is missing for", cut.stored);
    if ((cut.reason = arena_strdup(&map->memory, text, strlen(text))) == NULL)
        return ckpt_fail_memory(p->err, "a map", strlen(text));
    if ((cuts = grow(map->cuts, map->cut_count, sizeof *cuts)) == NULL)
        return parse_fail(p, "too many lines at", cut.stored);
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

static ckpt_code keep_word(map_parser *p, const char *word, const char **out)
{
    *out = arena_strdup(&p->map->memory, word, strlen(word));
    return *out == NULL ? ckpt_fail_memory(p->err, "a map", strlen(word)) : CKPT_OK;
}

static ckpt_code parse_arg(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    const char *name = take_word(&text);
    const char *expression = take_word(&text);
    map_arg *args;
    ckpt_code code;

    if (name == NULL || expression == NULL || *skip_blanks(text) != '\0')
        return parse_fail(p, "expected a name and an expression:", name);
    if (strcmp(expression, "none") == 0)
        expression = NULL;
    else if (!config_expression_is_valid(expression))
        return parse_fail(p, "not an expression:", expression);
    if ((args = grow(map->args, map->arg_count, sizeof *args)) == NULL)
        return parse_fail(p, "too many lines at", name);
    map->args = args;
    args[map->arg_count].expression = NULL;
    if ((code = keep_word(p, name, &args[map->arg_count].name)) != CKPT_OK ||
        (expression != NULL &&
         (code = keep_word(p, expression, &args[map->arg_count].expression)) != CKPT_OK))
        return code;
    map->arg_count++;
    return CKPT_OK;
}

static ckpt_code parse_dialect(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    const char *name = take_word(&text);
    const char *arg = take_word(&text);
    map_dialect dialect = { NULL, NULL };
    map_dialect *dialects;
    ckpt_code code;

    if (name == NULL || *skip_blanks(text) != '\0')
        return parse_fail(p, "expected a name and perhaps an argument:", name);
    if ((code = keep_word(p, name, &dialect.name)) != CKPT_OK ||
        (arg != NULL && (code = keep_word(p, arg, &dialect.arg)) != CKPT_OK))
        return code;
    if ((dialects = grow(map->dialects, map->dialect_count, sizeof *dialects)) == NULL)
        return parse_fail(p, "too many lines at", name);
    map->dialects = dialects;
    dialects[map->dialect_count++] = dialect;
    return CKPT_OK;
}

/* AXIS=N */
static ckpt_code parse_preset_number(map_parser *p, map_preset *preset, const char *word)
{
    static const char *const names[PRESET_COUNT] = { "tp=", "pp=", "ep=", "etp=", "first=",
                                                     "last=" };
    int i = 0;
    uint64_t number;

    while (i < PRESET_COUNT && strncmp(word, names[i], strlen(names[i])) != 0)
        i++;
    if (i == PRESET_COUNT || preset->numbers[i] != 0)
        return parse_fail(p, "unknown or repeated axis", word);
    if (!config_expression_is_valid(word + strlen(names[i])) ||
        config_expression(NULL, word + strlen(names[i]), &number, NULL) != CKPT_OK ||
        number == 0 || number > UINT16_MAX)
        return parse_fail(p, "not a number of ranks or layers:", word);
    preset->numbers[i] = (uint32_t)number;
    return CKPT_OK;
}

static ckpt_code parse_preset(map_parser *p, char *text)
{
    ckpt_map *map = p->map;
    const char *word = take_word(&text);
    map_preset preset = { .name = NULL };
    map_preset *presets;
    ckpt_code code;

    if (word == NULL)
        return parse_fail(p, "a name is missing for", "preset");
    if ((code = keep_word(p, word, &preset.name)) != CKPT_OK)
        return code;
    while ((word = take_word(&text)) != NULL)
        if ((code = parse_preset_number(p, &preset, word)) != CKPT_OK)
            return code;
    if ((presets = grow(map->presets, map->preset_count, sizeof *presets)) == NULL)
        return parse_fail(p, "too many lines at", preset.name);
    map->presets = presets;
    presets[map->preset_count++] = preset;
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
    const char *word = take_word(text);

    if (word == NULL)
        return CKPT_OK;
    if (*out != NULL)
        return parse_fail(p, "unexpected", word);
    *out = arena_strdup(&p->map->memory, word, strlen(word));
    return *out == NULL ? ckpt_fail_memory(p->err, "a map", strlen(word)) : CKPT_OK;
}

static ckpt_code expect_end(const map_parser *p, char *text)
{
    const char *word = take_word(&text);

    return word == NULL ? CKPT_OK : parse_fail(p, "unexpected", word);
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

    if ((code = take_once(p, &text, suffix)) != CKPT_OK ||
        (code = expect_end(p, text)) != CKPT_OK)
        return code;
    return *suffix == NULL || is_read_back(*suffix)
               ? CKPT_OK
               : parse_fail(p, "no weight is found by a scale with the suffix", *suffix);
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
        { "map", parse_map },         { "scale", parse_scale },   { "module", parse_module },
        { "shard", parse_shard },     { "stage", parse_stage },   { "extra", parse_extra },
        { "cut", parse_cut },         { "encode", parse_encode }, { "arg", parse_arg },
        { "dialect", parse_dialect }, { "preset", parse_preset },
    };
    const char *word = take_word(&text);

    if (word == NULL)
        return CKPT_OK;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(rules[i].word, word) == 0)
            return parse_rule(p, rules[i].kind, text);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(others[i].word, word) == 0)
            return others[i].parse(p, text);
    return parse_fail(p, "unknown word", word);
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
    free(map->args);
    free(map->cuts);
    free(map->dialects);
    free(map->presets);
    free(map->modules);
    free(map);
}
