/* Lines of map texts on tensors: what a stored one is made of, and which have no packing. */
#include "map_parse.h"

#include <string.h>

#include "config_number.h"
#include "map_pack.h"

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

/* LOGICAL,K/N or LOGICAL,FROM,COUNT,OF */
static ckpt_code parse_part(map_parser *p, map_piece *piece, char *text)
{
    const char *name = take_argument(&text);
    char *from = take_argument(&text);
    char *slash = from == NULL ? NULL : strchr(from, '/');
    ckpt_code code;

    if (from == NULL)
        return map_parse_fail(p, "part needs a name and a fraction:", name);
    if (text == NULL && slash != NULL) {
        *slash = '\0';
        text = slash + 1;
    } else if ((code = map_parse_number(p, take_argument(&text), &piece->count)) != CKPT_OK) {
        return code;
    }
    if ((code = map_parse_number(p, from, &piece->from)) != CKPT_OK ||
        (code = map_parse_number(p, text, &piece->of)) != CKPT_OK)
        return code;
    return map_keep_pattern(p, (char *)name, &piece->logical);
}

/* LOGICAL or part(...), with an optional :N. */
static ckpt_code parse_piece(map_parser *p, map_rule *rule, char *text)
{
    map_piece *piece = &rule->pieces[rule->piece_count];
    char *colon = strrchr(text, ':');
    ckpt_code code;

    if (rule->piece_count == MAP_PIECES_MAX)
        return map_parse_fail(p, "too many names in one tensor:", text);
    rule->piece_count++;
    *piece = whole_piece;
    if (colon != NULL) {
        *colon = '\0';
        if ((code = map_parse_number(p, colon + 1, &piece->times)) != CKPT_OK)
            return code;
    }
    return take_call(&text, "part") ? parse_part(p, piece, text)
                                    : map_keep_pattern(p, text, &piece->logical);
}

static ckpt_code parse_stack(map_parser *p, map_rule *rule, char **text)
{
    char *index = take_argument(text);
    const char **stack = &rule->stacks[rule->stack_count];
    ckpt_code code;

    if (*text == NULL)
        return map_parse_fail(p, "stack needs an index and a name:", index);
    if (rule->stack_count == MAP_STACKS_MAX)
        return map_parse_fail(p, "too many stacks:", *text);
    rule->stack_count++;
    if ((code = map_keep_pattern(p, index, stack)) != CKPT_OK)
        return code;
    if ((*stack)[0] != '{' || strpbrk(*stack, "*+") != NULL || strchr(*stack, '}')[1] != '\0')
        return map_parse_fail(p, "not an index:", *stack);
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
        code = map_parse_number(p, take_argument(&text), &rule->groups);
    else if (take_call(&text, "cols"))
        rule->has_cols = 1;
    else if (!take_call(&text, "concat"))
        return parse_piece(p, rule, text);
    if (code == CKPT_OK && text == NULL)
        return map_parse_fail(p, "interleave needs names:", rule->stored);
    while (code == CKPT_OK && (piece = take_argument(&text)) != NULL)
        code = parse_piece(p, rule, piece);
    for (size_t c = 0; code == CKPT_OK && rule->has_cols && c < rule->piece_count; c++)
        if (strcmp(rule->pieces[c].times.text, "1") != 0 ||
            strcmp(rule->pieces[c].of.text, "1") != 0)
            code = map_parse_fail(p, "cols takes whole tensors:", rule->pieces[c].logical);
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
    when = map_skip_blanks(when + 5);
    end = when + strcspn(when, " \t");
    if (*map_skip_blanks(end) != '\0')
        return map_parse_fail(p, "unexpected", map_skip_blanks(end));
    *end = '\0';
    return map_keep_pattern(p, when, &rule->when);
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
    member = map_take_word(&at);
    compare = map_take_word(&at);
    number = map_take_word(&at);
    if (number == NULL || *map_skip_blanks(at) != '\0' || !config_expression_is_valid(member) ||
        (strcmp(compare, "=") != 0 && strcmp(compare, "!=") != 0) ||
        number[strspn(number, "0123456789")] != '\0' ||
        config_expression(NULL, number, &rule->condition.number, NULL) != CKPT_OK)
        return map_parse_fail(p, "expected MEMBER = N or MEMBER != N after if:", member);
    rule->condition.differs = compare[0] == '!';
    return map_keep_word(p, member, &rule->condition.member);
}

static void remove_blanks(char *text)
{
    char *to = text;

    for (const char *from = text; *from != '\0'; from++)
        if (*from != ' ' && *from != '\t')
            *to++ = *from;
    *to = '\0';
}

/* `= EXPRESSION [when LOGICAL] [if CONDITION]`, after STORED. */
static ckpt_code parse_packing(map_parser *p, map_rule *rule, char *text)
{
    ckpt_code code;

    if (*text != '=')
        return map_parse_fail(p, "'=' expected after", rule->stored);
    if ((code = parse_condition(p, rule, text)) != CKPT_OK ||
        (code = parse_when(p, rule, text)) != CKPT_OK)
        return code;
    remove_blanks(text);
    if ((code = parse_expression(p, rule, text + 1)) != CKPT_OK)
        return code;
    if (rule->kind == MAP_COPY && (rule->stack_count > 0 || rule->piece_count != 1 ||
                                   rule->when != NULL || strcmp(rule->pieces[0].of.text, "1") != 0))
        return map_parse_fail(p, "a copy is of one tensor:", rule->stored);
    return CKPT_OK;
}

ckpt_code map_parse_rule(map_parser *p, map_kind kind, char *text)
{
    ckpt_map *map = p->map;
    map_rule rule = { .kind = kind, .groups = { "1", 1 } };
    map_rule *rules;
    ckpt_code code;

    if ((code = map_keep_pattern(p, map_take_word(&text), &rule.stored)) != CKPT_OK)
        return code;
    text = map_skip_blanks(text);
    if (kind == MAP_OMIT || kind == MAP_SPARE || kind == MAP_PLAIN) {
        rule.pieces[rule.piece_count] = whole_piece;
        rule.pieces[rule.piece_count++].logical = rule.stored;
        rule.stored = ""; /* matches no name */
    }
    if (kind != MAP_TENSOR && kind != MAP_COPY) {
        rule.reason = arena_strdup(&map->memory, text, strlen(text));
        if (*text == '\0' || rule.reason == NULL)
            return map_parse_fail(p, "a reason is missing for", text);
    } else if ((code = parse_packing(p, &rule, text)) != CKPT_OK) {
        return code;
    } else if ((code = map_rule_bind_numbers(&rule, p->err)) != CKPT_OK) {
        return p->err == NULL ? code : map_parse_fail(p, p->err->text, rule.stored);
    }
    if ((rules = map_grow(map->rules, map->rule_count, sizeof *rules)) == NULL)
        return map_parse_fail(p, "too many lines at", rule.stored);
    map->rules = rules;
    rules[map->rule_count++] = rule;
    return CKPT_OK;
}
