/* Expressions, conditions, tensor names, encodings and shapes in family texts. */
#include "family_parse.h"

#include <string.h>

#include "size.h"

/* ---- expressions ---- */

static ckpt_code parse_number(family_parser *p, const char **text, uint64_t *out)
{
    const char *start = *text;

    for (*out = 0; family_is_digit(**text); ++*text)
        if (!size_mul(*out, 10, out) || !size_add(*out, (uint64_t)(**text - '0'), out))
            return FAIL(p, "the number '%s' is over 64 bits", start);
    return CKPT_OK;
}

/* A number or a name. */
static ckpt_code parse_operand(family_parser *p, const char **text, const char *whole,
                               family_term *term)
{
    const size_t length = family_identifier_length(*text);
    uint32_t symbol;
    ckpt_code code;

    if (family_is_digit(**text)) {
        term->is_number = 1;
        return parse_number(p, text, &term->operand);
    }
    if (length == 0)
        return FAIL(p, "'%s' is not an expression: expected a number or name at "
            "'%s'", whole, *text);
    if ((code = family_find_symbol(p, *text, length, &symbol)) != CKPT_OK)
        return code;
    *text += length;
    term->is_number = 0;
    term->operand = symbol;
    return CKPT_OK;
}

static ckpt_code parse_term(family_parser *p, const char **text, const char *whole,
                            family_term *term)
{
    const family_symbol *symbols = p->family->symbols;
    ckpt_code code;

    if ((code = parse_operand(p, text, whole, term)) != CKPT_OK)
        return code;
    if (**text == '[' && !term->is_number) {
        term->list = (uint32_t)term->operand;
        term->is_element = 1;
        if (symbols[term->list].kind != SYMBOL_LIST)
            return FAIL(p, "'%s' is not a list", symbols[term->list].name);
        ++*text;
        if ((code = parse_operand(p, text, whole, term)) != CKPT_OK)
            return code;
        if (**text != ']')
            return FAIL(p, "'%s': expected ']' at '%s'", whole, *text);
        ++*text;
    }
    if (!term->is_number && symbols[term->operand].kind == SYMBOL_LIST)
        return FAIL(p, "'%s' is a list, not a number", symbols[term->operand].name);
    return CKPT_OK;
}

/* Parse an expression: `text` is a word or a NUL-terminated piece of one. */
static ckpt_code parse_expr(family_parser *p, const char *text, family_expr *out)
{
    family_term terms[FAMILY_TERMS_MAX];
    const char *c = text;
    char op = '+';
    ckpt_code code;

    memset(out, 0, sizeof *out);
    memset(terms, 0, sizeof terms);
    for (;;) {
        if (out->count == FAMILY_TERMS_MAX)
            return FAIL(p, "'%s' has more than %d terms", text, FAMILY_TERMS_MAX);
        terms[out->count].op = op;
        if ((code = parse_term(p, &c, text, &terms[out->count++])) != CKPT_OK)
            return code;
        if (*c == '\0')
            break;
        if (strchr("+-*/%", *c) == NULL)
            return FAIL(p, "'%s' is not an expression: expected + - * / or %% at '%s'", text, c);
        op = *c++;
    }
    out->text = text;
    out->terms = family_keep(p, terms, out->count, sizeof terms[0]);
    return out->terms == NULL ? family_fail_memory(p) : CKPT_OK;
}

ckpt_code family_take_expr(family_parser *p, const char *what, family_expr *out)
{
    const char *word;
    const ckpt_code code = family_take_word(p, what, &word);

    return code != CKPT_OK ? code : parse_expr(p, word, out);
}

static ckpt_code take_compare(family_parser *p, family_compare *out)
{
    static const char *const words[] = {
        [COMPARE_EQUAL] = "=",   [COMPARE_DIFFERENT] = "!=", [COMPARE_LESS] = "<",
        [COMPARE_LESS_EQUAL] = "<=", [COMPARE_GREATER] = ">", [COMPARE_GREATER_EQUAL] = ">=",
        [COMPARE_IN] = "in", [COMPARE_NOT_IN] = "not-in",
    };
    const char *word;
    ckpt_code code;

    if ((code = family_take_word(p, "a comparison", &word)) != CKPT_OK)
        return code;
    for (int i = COMPARE_EQUAL; i <= COMPARE_NOT_IN; i++) {
        if (strcmp(words[i], word) == 0) {
            *out = (family_compare)i;
            return CKPT_OK;
        }
    }
    return FAIL(p, "'%s' is not a comparison: expected = != < <= > >= in not-in", word);
}

ckpt_code family_take_list(family_parser *p, uint32_t *out)
{
    const char *word;
    ckpt_code code;

    if ((code = family_take_word(p, "a list", &word)) != CKPT_OK ||
        (code = family_find_symbol(p, word, strlen(word), out)) != CKPT_OK)
        return code;
    return p->family->symbols[*out].kind == SYMBOL_LIST ? CKPT_OK
                                                        : FAIL(p, "'%s' is not a list", word);
}

/* EXPR OP EXPR or EXPR in LIST */
static ckpt_code take_condition(family_parser *p, family_condition *c)
{
    ckpt_code code;

    memset(c, 0, sizeof *c);
    if ((code = family_take_expr(p, "a condition", &c->left)) != CKPT_OK ||
        (code = take_compare(p, &c->compare)) != CKPT_OK)
        return code;
    if (c->compare >= COMPARE_IN)
        return family_take_list(p, &c->list);
    return family_take_expr(p, "the right side of a condition", &c->right);
}

ckpt_code family_take_conditions(family_parser *p, family_line *line)
{
    family_condition conditions[FAMILY_CONDITIONS_MAX];
    uint32_t count = 0;
    ckpt_code code;

    if (!family_take_if(p, "if"))
        return family_expect_end(p);
    do {
        if (count == FAMILY_CONDITIONS_MAX)
            return FAIL(p, "more than %d conditions", FAMILY_CONDITIONS_MAX);
        if ((code = take_condition(p, &conditions[count++])) != CKPT_OK)
            return code;
    } while (family_take_if(p, "and"));
    line->condition_count = count;
    line->conditions = family_keep(p, conditions, count, sizeof conditions[0]);
    return line->conditions == NULL ? family_fail_memory(p) : family_expect_end(p);
}

/* ---- names ---- */

/* One piece of a name: text up to a brace, then the index in it, if there is one. */
static ckpt_code parse_piece(family_parser *p, const char **text, family_piece *piece)
{
    const char *start = *text;
    size_t length = strcspn(start, "{}");
    uint32_t symbol;
    ckpt_code code;

    piece->literal = start;
    piece->literal_bytes = (uint32_t)length;
    piece->index = -1;
    *text = start + length;
    if (**text == '\0')
        return CKPT_OK;
    start += length + 1;
    length = family_identifier_length(start);
    if (**text == '}' || length == 0 || start[length] != '}')
        return FAIL(p, "expected an index name in braces at '%s'", *text);
    if ((code = family_find_symbol(p, start, length, &symbol)) != CKPT_OK)
        return code;
    if (p->family->symbols[symbol].kind != SYMBOL_INDEX)
        return FAIL(p, "'%s' is not an index", p->family->symbols[symbol].name);
    piece->index = (int32_t)symbol;
    *text = start + length + 1;
    return CKPT_OK;
}

ckpt_code family_take_template(family_parser *p, family_template *out)
{
    family_piece pieces[FAMILY_PIECES_MAX];
    const char *text;
    ckpt_code code;

    out->piece_count = 0;
    if ((code = family_take_word(p, "a tensor name", &text)) != CKPT_OK)
        return code;
    while (*text != '\0') {
        if (out->piece_count == FAMILY_PIECES_MAX)
            return FAIL(p, "a name of more than %d pieces", FAMILY_PIECES_MAX);
        if ((code = parse_piece(p, &text, &pieces[out->piece_count++])) != CKPT_OK)
            return code;
    }
    out->pieces = family_keep(p, pieces, out->piece_count, sizeof pieces[0]);
    return out->pieces == NULL ? family_fail_memory(p) : CKPT_OK;
}

ckpt_code family_take_encoding(family_parser *p, family_encoding *out)
{
    const char *word;
    ckpt_code code;

    if ((code = family_take_word(p, "an encoding", &word)) != CKPT_OK)
        return code;
    if (family_encoding_find(word, out))
        return CKPT_OK;
    return FAIL(p, "'%s' is not an encoding: expected f32 bf16 linear f16 i64 i32 fp8 "
                   "fp4, or fp8 with a block: fp8:128x128 fp8:32x32 fp8:1x32 fp8:row", word);
}

ckpt_code family_take_dims(family_parser *p, family_line *line)
{
    family_expr dims[CKPT_RANK_MAX];
    const char *word;
    ckpt_code code;

    if ((code = family_take_word(p, "a shape", &word)) != CKPT_OK)
        return code;
    for (;;) {
        const size_t length = strcspn(word, ",");
        char *dim = arena_strdup(&p->family->memory, word, length);

        if (dim == NULL)
            return family_fail_memory(p);
        if (line->rank == CKPT_RANK_MAX)
            return FAIL(p, "a shape of more than %d dimensions", CKPT_RANK_MAX);
        if ((code = parse_expr(p, dim, &dims[line->rank++])) != CKPT_OK)
            return code;
        if (word[length] == '\0')
            break;
        word += length + 1;
    }
    line->dims = family_keep(p, dims, line->rank, sizeof dims[0]);
    return line->dims == NULL ? family_fail_memory(p) : CKPT_OK;
}
