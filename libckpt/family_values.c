/* Values of the symbols and expressions of a family, from the numbers of a config. */
#include "family_expand.h"

#include <stdio.h>
#include <string.h>

#include "config_number.h"
#include "text.h"

ckpt_code family_expand_fail_at(family_expander *x, ckpt_code code)
{
    if (x->err == NULL)
        return code;
    return ckpt_fail(x->err, code, "'%s' line %u: %s", x->family->subject, x->line->number,
                     x->err->text);
}

static unsigned long long llu(uint64_t number)
{
    return number;
}

static ckpt_code set_symbol(family_expander *x, uint32_t symbol, uint64_t value)
{
    if (x->set[symbol] != UNSET)
        return FAIL_TEXT(x, "'%s' is set twice", x->family->symbols[symbol].name);
    x->set[symbol] = x->now;
    x->value[symbol] = value;
    return CKPT_OK;
}

/* The config member from which a symbol gets its value; the symbol's name if there is none. */
static const char *member_of(const family_expander *x, const char *name, size_t length)
{
    const ckpt_family *f = x->family;

    for (uint32_t i = 0; i < f->line_count; i++) {
        const family_line *line = &f->lines[i];
        const char *symbol;

        if (line->kind != LINE_LET_MEMBER && line->kind != LINE_LIST && line->kind != LINE_COUNT)
            continue;
        symbol = f->symbols[line->symbol].name;
        if (strlen(symbol) == length && memcmp(symbol, name, length) == 0)
            return line->word;
    }
    return NULL;
}

/* Write an expression with the names of config members: "num_attention_heads*head_dim/o_groups". */
typedef struct {
    char text[256];
} expr_words;

static expr_words expr_in_words(const family_expander *x, const family_expr *expr)
{
    expr_words out = { "" };
    size_t used = 0;

    for (const char *at = expr->text; *at != '\0' && used < sizeof out.text;) {
        const size_t length = strcspn(at, "+-*/%[]");
        const char *word = length == 0 ? NULL : member_of(x, at, length);

        used += (size_t)snprintf(out.text + used, sizeof out.text - used, "%.*s",
                                 word != NULL ? (int)strlen(word) : (int)(length > 0 ? length : 1),
                                 word != NULL ? word : at);
        at += length > 0 ? length : 1;
    }
    return out;
}

/* ---- expressions ---- */

static const char *list_word(const family_expander *x, uint32_t list)
{
    const char *name = x->family->symbols[list].name;
    const char *word = member_of(x, name, strlen(name));

    return word == NULL ? name : word;
}

static ckpt_code term_value(family_expander *x, const family_term *term, uint64_t *out)
{
    const family_symbol *symbols = x->family->symbols;

    *out = term->operand;
    if (!term->is_number) {
        if (x->set[term->operand] == UNSET)
            return FAIL_TEXT(x, "'%s' is undefined here", symbols[term->operand].name);
        *out = x->value[term->operand];
    }
    if (term->is_element) {
        if (*out >= x->value[term->list])
            return FAIL(x, "config list '%s' has %s, no element %llu", list_word(x, term->list),
                        text_count(x->value[term->list], "element", "elements").text, llu(*out));
        *out = x->list[term->list][*out];
    }
    return CKPT_OK;
}

ckpt_code family_expr_value(family_expander *x, const family_expr *expr, uint64_t *out)
{
    const char *problem;
    uint64_t operand;
    ckpt_code code;

    *out = 0;
    for (uint32_t i = 0; i < expr->count; i++) {
        if ((code = term_value(x, &expr->terms[i], &operand)) != CKPT_OK)
            return code;
        if (expr->terms[i].op == '/' && operand != 0 && *out % operand != 0)
            return FAIL(x, "'%s': %llu is not a multiple of %llu", expr_in_words(x, expr).text,
                        llu(*out), llu(operand));
        if ((problem = config_number_step(expr->terms[i].op, operand, out)) != NULL)
            return FAIL(x, "'%s' %s", expr_in_words(x, expr).text, problem);
    }
    return CKPT_OK;
}

static int compare_holds(family_compare compare, uint64_t left, uint64_t right)
{
    switch (compare) {
    case COMPARE_EQUAL:
        return left == right;
    case COMPARE_DIFFERENT:
        return left != right;
    case COMPARE_LESS:
        return left < right;
    case COMPARE_LESS_EQUAL:
        return left <= right;
    case COMPARE_GREATER:
        return left > right;
    default:
        return left >= right;
    }
}

/* The index of a value in a list; the length of the list when it is absent. */
static uint64_t list_position(const family_expander *x, uint32_t list, uint64_t value)
{
    uint64_t i = 0;

    while (i < x->value[list] && x->list[list][i] != value)
        i++;
    return i;
}

/* Stop at the first condition that is false: expressions after it may have no value. */
ckpt_code family_conditions_hold(family_expander *x, int *out)
{
    const family_line *line = x->line;
    ckpt_code code;

    *out = 1;
    for (uint32_t i = 0; i < line->condition_count && *out; i++) {
        const family_condition *c = &line->conditions[i];
        uint64_t left;
        uint64_t right;

        if ((code = family_expr_value(x, &c->left, &left)) != CKPT_OK)
            return code;
        if (c->compare >= COMPARE_IN) {
            *out =
                (list_position(x, c->list, left) < x->value[c->list]) == (c->compare == COMPARE_IN);
            continue;
        }
        if ((code = family_expr_value(x, &c->right, &right)) != CKPT_OK)
            return code;
        *out = compare_holds(c->compare, left, right);
    }
    return CKPT_OK;
}

ckpt_code family_file_number(family_expander *x, const family_expr *expr, uint32_t *out)
{
    uint64_t number;
    ckpt_code code;

    if ((code = family_expr_value(x, expr, &number)) != CKPT_OK)
        return code;
    if (number == 0 || number > FAMILY_RANGE_MAX)
        return FAIL_TEXT(x, "file number %llu is not in 1 .. %d", llu(number), FAMILY_RANGE_MAX);
    *out = (uint32_t)number - 1;
    return CKPT_OK;
}

ckpt_code family_index_range(family_expander *x, const family_symbol *symbol, uint64_t *from,
                             uint64_t *to)
{
    ckpt_code code;

    if ((code = family_expr_value(x, &symbol->from, from)) != CKPT_OK ||
        (code = family_expr_value(x, &symbol->to, to)) != CKPT_OK)
        return code;
    if (*from > *to || *to - *from > FAMILY_RANGE_MAX)
        return FAIL(x, "'%s' counts from %llu to %llu, expected 0 .. %d steps",
                    expr_in_words(x, &symbol->to).text, llu(*from), llu(*to), FAMILY_RANGE_MAX);
    return CKPT_OK;
}

/* ---- the config ---- */

static ckpt_code expand_let(family_expander *x)
{
    const family_line *line = x->line;
    const json_value *member;
    uint64_t value;
    ckpt_code code;

    if (line->kind == LINE_LET_MEMBER && (member = config_member(x->config, line->word)) != NULL) {
        if (!config_number(member, &value))
            return FAIL(x, "config member '%s' is not a non-negative integer", line->word);
    } else {
        if (line->kind == LINE_LET_MEMBER && !line->has_default)
            return FAIL(x, "config member '%s' is missing", line->word);
        if ((code = family_expr_value(x, &line->value, &value)) != CKPT_OK)
            return code;
    }
    return set_symbol(x, line->symbol, value);
}

/* The value of a list element: a number, or the number of a string of the line. */
static int list_value(const family_line *line, const json_value *v, uint64_t *out)
{
    const char *text = json_string(v);

    if (line->choice_count == 0)
        return config_number(v, out);
    for (*out = 0; text != NULL && *out < line->choice_count; ++*out)
        if (strcmp(line->choices[*out], text) == 0)
            return 1;
    return 0;
}

static ckpt_code expand_list(family_expander *x)
{
    const family_line *line = x->line;
    const json_value *array = config_member(x->config, line->word);
    const size_t count = array == NULL ? 0 : json_count(array);
    uint64_t *values;
    size_t i = 0;

    if (array == NULL && line->has_default)
        return set_symbol(x, line->symbol, 0);
    if (!json_is_array(array))
        return FAIL(x, "config member '%s' is missing or not an array", line->word);
    if ((values = arena_calloc(&x->memory, count, sizeof *values)) == NULL)
        return ckpt_fail_memory(x->err, "a list of the config", count * sizeof *values);
    for (const json_value *v = json_first(array); v != NULL; v = json_next(v), i++)
        if (!list_value(line, v, &values[i]))
            return FAIL(x, "config member '%s', element %zu, is not a %s", line->word, i,
                        line->choice_count == 0 ? "non-negative integer" : "word of the family");
    x->list[line->symbol] = values;
    return set_symbol(x, line->symbol, count);
}

static ckpt_code expand_position(family_expander *x)
{
    const family_line *line = x->line;
    uint64_t value;
    uint64_t position;
    ckpt_code code;

    if ((code = family_expr_value(x, &line->value, &value)) != CKPT_OK)
        return code;
    position = list_position(x, line->list, value);
    if (position == x->value[line->list])
        return FAIL(x, "config list '%s' has no %llu", list_word(x, line->list), llu(value));
    return set_symbol(x, line->symbol, position);
}

static ckpt_code expand_count(family_expander *x)
{
    const family_line *line = x->line;
    const json_value *array = config_member(x->config, line->word);

    if (array != NULL && !json_is_array(array))
        return FAIL(x, "config member '%s' is not an array", line->word);
    return set_symbol(x, line->symbol, array == NULL ? 0 : json_count(array));
}

ckpt_code family_define(family_expander *x)
{
    int holds = 1;
    ckpt_code code = CKPT_OK;

    if (x->line->kind != LINE_LIST && x->line->kind != LINE_COUNT)
        code = family_conditions_hold(x, &holds);
    if (code != CKPT_OK || !holds)
        return code;
    switch (x->line->kind) {
    case LINE_LIST:
        return expand_list(x);
    case LINE_COUNT:
        return expand_count(x);
    case LINE_POSITION:
        return expand_position(x);
    default:
        return expand_let(x);
    }
}

ckpt_code family_read_encodings(family_expander *x)
{
    const char *key = x->family->expert_member;
    const json_value *member = key == NULL ? NULL : config_member(x->config, key);
    const char *experts = json_string(member);
    const json_value *quantization = config_member(x->config, "quantization_config");
    const char *format = NULL;

    if (json_is_object(quantization))
        format = json_string(json_member(quantization, "scale_fmt"));
    if (member != NULL &&
        (experts == NULL || (strcmp(experts, "fp4") != 0 && strcmp(experts, "fp8") != 0)))
        return ckpt_fail(x->err, CKPT_E_FORMAT,
                         "config member '%s' is '%s', expected \"fp4\" or \"fp8\"", key,
                         experts == NULL ? "no string" : experts);
    x->experts_told = experts != NULL;
    x->experts_fp8 = x->experts_told ? strcmp(experts, "fp8") == 0 : x->broken_groups;
    x->has_int4 = family_has_int4(x->family, x->config);
    x->scale_dtype = CKPT_F8_E8M0;
    if (x->family->scale_dtype != CKPT_NONE)
        x->scale_dtype = x->family->scale_dtype;
    else if (x->experts_fp8 && (format == NULL || strcmp(format, "ue8m0") != 0))
        x->scale_dtype = CKPT_F32;
    return CKPT_OK;
}
