/* The parser of family texts: every word is known before a config is looked at. */
#include "family.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "family_text.h"
#include "size.h"

typedef struct {
    ckpt_family *family;
    ckpt_error *err;
    char *text;                        /* what is left of the copy in the arena */
    uint32_t line;                     /* 1-based */
    char *words[FAMILY_WORDS_MAX];
    uint32_t word_count;
    uint32_t next;                     /* first word not yet taken */
    int64_t open;                      /* line index of the block or part that is open, or -1 */
} parser;

#define FAIL(p, ...) fail_at((p), ckpt_fail((p)->err, CKPT_E_FORMAT, __VA_ARGS__))

/* Put the place in front of the text that was just written. */
static ckpt_code fail_at(parser *p, ckpt_code code)
{
    if (p->err == NULL)
        return code;
    return ckpt_fail(p->err, code, "'%s' line %u: %s", p->family->subject, p->line, p->err->text);
}

static ckpt_code fail_memory(parser *p)
{
    return ckpt_fail_memory(p->err, "a family text", FAMILY_TEXT_MAX_BYTES);
}

static void *keep(parser *p, const void *items, size_t count, size_t item_bytes)
{
    void *copy = arena_alloc(&p->family->memory, count * item_bytes);

    if (copy != NULL && count > 0)
        memcpy(copy, items, count * item_bytes);
    return copy;
}

/* ---- words ---- */

static int is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static size_t identifier_length(const char *text)
{
    size_t length = 0;

    if (!is_letter(text[0]))
        return 0;
    while (is_letter(text[length]) || is_digit(text[length]))
        length++;
    return length;
}

/* Cut the next line into words, in place. Blank lines have none. */
static ckpt_code read_line(parser *p)
{
    char *c = p->text;
    size_t length = strcspn(c, "\n");

    p->line++;
    p->word_count = 0;
    p->next = 0;
    p->text = c + length + (c[length] == '\n');
    c[length] = '\0';
    c[strcspn(c, "#")] = '\0';
    while (*c != '\0') {
        const char *start = c;

        if (is_blank(*c)) {
            *c++ = '\0';
            continue;
        }
        if (p->word_count == FAMILY_WORDS_MAX)
            return FAIL(p, "more than %d words", FAMILY_WORDS_MAX);
        p->words[p->word_count++] = c;
        for (; *c != '\0' && !is_blank(*c); c++)
            if (*c <= ' ' || *c > '~' || *c == '"' || *c == '\\')
                return FAIL(p, "an invalid character after '%.*s'", (int)(c - start),
                            start);
        if (c - start >= FAMILY_NAME_MAX_BYTES)
            return FAIL(p, "a word of more than %d bytes", FAMILY_NAME_MAX_BYTES - 1);
    }
    return CKPT_OK;
}

/* The next word, or NULL at the end of the line. */
static const char *peek_word(const parser *p)
{
    return p->next < p->word_count ? p->words[p->next] : NULL;
}

static int take_if(parser *p, const char *word)
{
    const char *next = peek_word(p);

    if (next == NULL || strcmp(next, word) != 0)
        return 0;
    p->next++;
    return 1;
}

static ckpt_code take_word(parser *p, const char *what, const char **out)
{
    *out = peek_word(p);
    if (*out == NULL)
        return FAIL(p, "%s is missing at the end", what);
    p->next++;
    return CKPT_OK;
}

static ckpt_code expect_end(parser *p)
{
    if (p->next < p->word_count)
        return FAIL(p, "unexpected word '%s'", p->words[p->next]);
    return CKPT_OK;
}

/* ---- symbols ---- */

static ckpt_code find_symbol(parser *p, const char *name, size_t length, uint32_t *out)
{
    ckpt_family *f = p->family;
    family_symbol *symbol;

    for (*out = 0; *out < f->symbol_count; ++*out)
        if (strlen(f->symbols[*out].name) == length &&
            memcmp(f->symbols[*out].name, name, length) == 0)
            return CKPT_OK;
    if (f->symbol_count == FAMILY_SYMBOLS_MAX)
        return FAIL(p, "more than %d names", FAMILY_SYMBOLS_MAX);
    symbol = &f->symbols[f->symbol_count++];
    memset(symbol, 0, sizeof *symbol);
    symbol->line = p->line;
    symbol->name = arena_strdup(&f->memory, name, length);
    return symbol->name == NULL ? fail_memory(p) : CKPT_OK;
}

/* Take a name that this line defines. Variables may be used in a part before, and be set on
 * several lines under different conditions; lists and indexes may not. */
static ckpt_code define_symbol(parser *p, family_symbol_kind kind, uint32_t *out)
{
    const char *name;
    ckpt_code code;
    family_symbol *symbol;

    if ((code = take_word(p, "a name", &name)) != CKPT_OK)
        return code;
    if (name[identifier_length(name)] != '\0')
        return FAIL(p, "'%s' is not a name: expected letters, digits and _", name);
    if ((code = find_symbol(p, name, strlen(name), out)) != CKPT_OK)
        return code;
    symbol = &p->family->symbols[*out];
    if (symbol->kind == SYMBOL_UNKNOWN && (kind == SYMBOL_VARIABLE || symbol->line == p->line))
        symbol->kind = kind;
    else if (kind != SYMBOL_VARIABLE || symbol->kind != SYMBOL_VARIABLE)
        return FAIL(p, "'%s' is already used or defined on line %u", name, symbol->line);
    return CKPT_OK;
}

/* ---- expressions ---- */

static ckpt_code parse_number(parser *p, const char **text, uint64_t *out)
{
    const char *start = *text;

    for (*out = 0; is_digit(**text); ++*text)
        if (!size_mul(*out, 10, out) || !size_add(*out, (uint64_t)(**text - '0'), out))
            return FAIL(p, "the number '%s' is over 64 bits", start);
    return CKPT_OK;
}

/* A number or a name. */
static ckpt_code parse_operand(parser *p, const char **text, const char *whole, family_term *term)
{
    const size_t length = identifier_length(*text);
    uint32_t symbol;
    ckpt_code code;

    if (is_digit(**text)) {
        term->is_number = 1;
        return parse_number(p, text, &term->operand);
    }
    if (length == 0)
        return FAIL(p, "'%s' is not an expression: expected a number or name at "
            "'%s'", whole, *text);
    if ((code = find_symbol(p, *text, length, &symbol)) != CKPT_OK)
        return code;
    *text += length;
    term->is_number = 0;
    term->operand = symbol;
    return CKPT_OK;
}

static ckpt_code parse_term(parser *p, const char **text, const char *whole, family_term *term)
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

/* `text` is one word, or a piece of one that ends in a NUL. */
static ckpt_code parse_expr(parser *p, const char *text, family_expr *out)
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
    out->terms = keep(p, terms, out->count, sizeof terms[0]);
    return out->terms == NULL ? fail_memory(p) : CKPT_OK;
}

static ckpt_code take_expr(parser *p, const char *what, family_expr *out)
{
    const char *word;
    const ckpt_code code = take_word(p, what, &word);

    return code != CKPT_OK ? code : parse_expr(p, word, out);
}

static ckpt_code take_compare(parser *p, family_compare *out)
{
    static const char *const words[] = {
        [COMPARE_EQUAL] = "=",   [COMPARE_DIFFERENT] = "!=", [COMPARE_LESS] = "<",
        [COMPARE_LESS_EQUAL] = "<=", [COMPARE_GREATER] = ">", [COMPARE_GREATER_EQUAL] = ">=",
        [COMPARE_IN] = "in", [COMPARE_NOT_IN] = "not-in",
    };
    const char *word;
    ckpt_code code;

    if ((code = take_word(p, "a comparison", &word)) != CKPT_OK)
        return code;
    for (int i = COMPARE_EQUAL; i <= COMPARE_NOT_IN; i++) {
        if (strcmp(words[i], word) == 0) {
            *out = (family_compare)i;
            return CKPT_OK;
        }
    }
    return FAIL(p, "'%s' is not a comparison: expected = != < <= > >= in not-in", word);
}

/* A list that stands before. */
static ckpt_code take_list(parser *p, uint32_t *out)
{
    const char *word;
    ckpt_code code;

    if ((code = take_word(p, "a list", &word)) != CKPT_OK ||
        (code = find_symbol(p, word, strlen(word), out)) != CKPT_OK)
        return code;
    return p->family->symbols[*out].kind == SYMBOL_LIST ? CKPT_OK
                                                        : FAIL(p, "'%s' is not a list", word);
}

/* EXPR OP EXPR or EXPR in LIST */
static ckpt_code take_condition(parser *p, family_condition *c)
{
    ckpt_code code;

    memset(c, 0, sizeof *c);
    if ((code = take_expr(p, "a condition", &c->left)) != CKPT_OK ||
        (code = take_compare(p, &c->compare)) != CKPT_OK)
        return code;
    return c->compare >= COMPARE_IN ? take_list(p, &c->list)
                                    : take_expr(p, "the right side of a condition", &c->right);
}

/* [if CONDITION [and CONDITION]...], then the end of the line. */
static ckpt_code take_conditions(parser *p, family_line *line)
{
    family_condition conditions[FAMILY_CONDITIONS_MAX];
    uint32_t count = 0;
    ckpt_code code;

    if (!take_if(p, "if"))
        return expect_end(p);
    do {
        if (count == FAMILY_CONDITIONS_MAX)
            return FAIL(p, "more than %d conditions", FAMILY_CONDITIONS_MAX);
        if ((code = take_condition(p, &conditions[count++])) != CKPT_OK)
            return code;
    } while (take_if(p, "and"));
    line->condition_count = count;
    line->conditions = keep(p, conditions, count, sizeof conditions[0]);
    return line->conditions == NULL ? fail_memory(p) : expect_end(p);
}

/* ---- names ---- */

/* One piece of a name: text up to a brace, then the index in it, if there is one. */
static ckpt_code parse_piece(parser *p, const char **text, family_piece *piece)
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
    length = identifier_length(start);
    if (**text == '}' || length == 0 || start[length] != '}')
        return FAIL(p, "expected an index name in braces at '%s'", *text);
    if ((code = find_symbol(p, start, length, &symbol)) != CKPT_OK)
        return code;
    if (p->family->symbols[symbol].kind != SYMBOL_INDEX)
        return FAIL(p, "'%s' is not an index", p->family->symbols[symbol].name);
    piece->index = (int32_t)symbol;
    *text = start + length + 1;
    return CKPT_OK;
}

static ckpt_code take_template(parser *p, family_template *out)
{
    family_piece pieces[FAMILY_PIECES_MAX];
    const char *text;
    ckpt_code code;

    out->piece_count = 0;
    if ((code = take_word(p, "a tensor name", &text)) != CKPT_OK)
        return code;
    while (*text != '\0') {
        if (out->piece_count == FAMILY_PIECES_MAX)
            return FAIL(p, "a name of more than %d pieces", FAMILY_PIECES_MAX);
        if ((code = parse_piece(p, &text, &pieces[out->piece_count++])) != CKPT_OK)
            return code;
    }
    out->pieces = keep(p, pieces, out->piece_count, sizeof pieces[0]);
    return out->pieces == NULL ? fail_memory(p) : CKPT_OK;
}

static ckpt_code take_encoding(parser *p, family_encoding *out)
{
    const char *word;
    ckpt_code code;

    if ((code = take_word(p, "an encoding", &word)) != CKPT_OK)
        return code;
    if (family_encoding_find(word, out))
        return CKPT_OK;
    return FAIL(p, "'%s' is not an encoding: expected f32 bf16 linear f16 i64 i32 fp8 "
                   "fp4, or fp8 with a block: fp8:128x128 fp8:32x32 fp8:1x32 fp8:row", word);
}

/* EXPR[,EXPR]... */
static ckpt_code take_dims(parser *p, family_line *line)
{
    family_expr dims[CKPT_RANK_MAX];
    const char *word;
    ckpt_code code;

    if ((code = take_word(p, "a shape", &word)) != CKPT_OK)
        return code;
    for (;;) {
        const size_t length = strcspn(word, ",");
        char *dim = arena_strdup(&p->family->memory, word, length);

        if (dim == NULL)
            return fail_memory(p);
        if (line->rank == CKPT_RANK_MAX)
            return FAIL(p, "a shape of more than %d dimensions", CKPT_RANK_MAX);
        if ((code = parse_expr(p, dim, &dims[line->rank++])) != CKPT_OK)
            return code;
        if (word[length] == '\0')
            break;
        word += length + 1;
    }
    line->dims = keep(p, dims, line->rank, sizeof dims[0]);
    return line->dims == NULL ? fail_memory(p) : CKPT_OK;
}

/* ---- lines ---- */

/* A new line of the given kind, for the caller to fill; pointers to lines move with it. */
static ckpt_code add_line(parser *p, family_line_kind kind, family_line **out)
{
    ckpt_family *f = p->family;
    family_line *lines =
        array_room(f->lines, f->line_count, sizeof *lines, "a family text", p->err);

    if (lines == NULL)
        return CKPT_E_MEMORY;
    f->lines = lines;
    *out = &lines[f->line_count++];
    memset(*out, 0, sizeof **out);
    (*out)->kind = kind;
    (*out)->number = p->line;
    return CKPT_OK;
}

static ckpt_code parse_family(parser *p)
{
    ckpt_code code;

    if (p->family->name != NULL)
        return FAIL(p, "a second family");
    if ((code = take_word(p, "the name of the family", &p->family->name)) != CKPT_OK)
        return code;
    return expect_end(p);
}

static ckpt_code parse_detect(parser *p)
{
    ckpt_family *f = p->family;
    const uint32_t i = f->detect_count;
    ckpt_code code;

    if (i == FAMILY_DETECTS_MAX)
        return FAIL(p, "more than %d detect lines", FAMILY_DETECTS_MAX);
    if ((code = take_word(p, "a config member", &f->detects[i].member)) != CKPT_OK)
        return code;
    while (code == CKPT_OK && peek_word(p) != NULL) {
        if (f->detects[i].value_count == FAMILY_CHOICES_MAX)
            return FAIL(p, "more than %d values", FAMILY_CHOICES_MAX);
        code = take_word(p, "its value", &f->detects[i].values[f->detects[i].value_count++]);
    }
    f->detect_count++;
    return code;
}

/* blocks fp8:128x128 [f32]: of the fp8 that says none. */
static ckpt_code parse_blocks(parser *p)
{
    ckpt_family *f = p->family;
    family_encoding encoding;
    const char *word = peek_word(p);
    ckpt_code code;

    if (f->fp8 != ENCODING_COUNT)
        return FAIL(p, "a second blocks line");
    if (word == NULL || strncmp(word, "fp8:", 4) != 0)
        return FAIL(p, "'%s' has no block: as in fp8:128x128", word == NULL ? "" : word);
    if ((code = take_encoding(p, &encoding)) != CKPT_OK)
        return code;
    f->fp8 = encoding.scaled;
    if (take_if(p, "f32"))
        f->scale_dtype = CKPT_F32;
    return expect_end(p);
}

static ckpt_code parse_experts(parser *p)
{
    ckpt_code code;

    if (p->family->expert_member != NULL)
        return FAIL(p, "a second experts-told-by line");
    if ((code = take_word(p, "a config member", &p->family->expert_member)) != CKPT_OK)
        return code;
    return expect_end(p);
}

/* others keep */
static ckpt_code parse_others(parser *p)
{
    if (!take_if(p, "keep"))
        return FAIL(p, "others keep: expected 'keep'");
    p->family->keeps_others = 1;
    return expect_end(p);
}

static ckpt_code parse_let(parser *p)
{
    family_line *line = NULL;
    ckpt_code code;

    if ((code = add_line(p, LINE_LET_MEMBER, &line)) != CKPT_OK ||
        (code = define_symbol(p, SYMBOL_VARIABLE, &line->symbol)) != CKPT_OK)
        return code;
    if (take_if(p, "=")) {
        line->kind = LINE_LET_EXPR;
        if ((code = take_expr(p, "an expression", &line->value)) != CKPT_OK)
            return code;
    } else {
        if ((code = take_word(p, "a config member", &line->word)) != CKPT_OK)
            return code;
        line->has_default = peek_word(p) != NULL && strcmp(peek_word(p), "if") != 0;
        if (line->has_default && (code = take_expr(p, "a default", &line->value)) != CKPT_OK)
            return code;
    }
    return take_conditions(p, line);
}

/* The strings that a list may have, to the end of the line. */
static ckpt_code take_choices(parser *p, family_line *line)
{
    const char *choices[FAMILY_CHOICES_MAX];
    ckpt_code code;

    while (peek_word(p) != NULL) {
        if (line->choice_count == FAMILY_CHOICES_MAX)
            return FAIL(p, "more than %d words", FAMILY_CHOICES_MAX);
        if ((code = take_word(p, "a word", &choices[line->choice_count++])) != CKPT_OK)
            return code;
    }
    line->choices = keep(p, choices, line->choice_count, sizeof choices[0]);
    return line->choices == NULL ? fail_memory(p) : CKPT_OK;
}

static ckpt_code parse_list(parser *p)
{
    family_line *line = NULL;
    size_t length;
    ckpt_code code;

    if ((code = add_line(p, LINE_LIST, &line)) != CKPT_OK ||
        (code = define_symbol(p, SYMBOL_LIST, &line->symbol)) != CKPT_OK ||
        (code = take_word(p, "a config member", &line->word)) != CKPT_OK)
        return code;
    length = strlen(line->word);
    line->has_default = length > 1 && line->word[length - 1] == '?';
    if (line->has_default &&
        (line->word = arena_strdup(&p->family->memory, line->word, length - 1)) == NULL)
        return fail_memory(p);
    return take_choices(p, line);
}

static ckpt_code parse_count(parser *p)
{
    family_line *line = NULL;
    ckpt_code code;

    if ((code = add_line(p, LINE_COUNT, &line)) != CKPT_OK ||
        (code = define_symbol(p, SYMBOL_VARIABLE, &line->symbol)) != CKPT_OK ||
        (code = take_word(p, "a config member", &line->word)) != CKPT_OK)
        return code;
    return expect_end(p);
}

static ckpt_code parse_index(parser *p)
{
    family_expr from;
    family_expr to;
    uint32_t symbol;
    ckpt_code code;

    if ((code = define_symbol(p, SYMBOL_INDEX, &symbol)) != CKPT_OK ||
        (code = take_expr(p, "the first value", &from)) != CKPT_OK ||
        (code = take_expr(p, "the end of the range", &to)) != CKPT_OK)
        return code;
    p->family->symbols[symbol].from = from;
    p->family->symbols[symbol].to = to;
    return expect_end(p);
}

static ckpt_code parse_block(parser *p)
{
    family_line *line = NULL;
    ckpt_code code;

    if ((code = add_line(p, LINE_BLOCK, &line)) != CKPT_OK ||
        (code = take_template(p, &line->name)) != CKPT_OK)
        return code;
    if (!take_if(p, "file"))
        return FAIL(p, "a block needs the number of its file: file EXPR");
    if ((code = take_expr(p, "a file number", &line->file)) != CKPT_OK)
        return code;
    line->may_lack = take_if(p, "or-none");
    p->open = p->family->line_count - 1;
    line->body_first = p->family->line_count;
    return expect_end(p);
}

static family_line *find_part(const parser *p, const char *name)
{
    const ckpt_family *f = p->family;

    for (uint32_t i = 0; i < f->line_count; i++)
        if (f->lines[i].kind == LINE_PART && f->lines[i].word != NULL &&
            strcmp(f->lines[i].word, name) == 0)
            return &f->lines[i];
    return NULL;
}

static ckpt_code parse_part(parser *p)
{
    const char *name;
    family_line *line = NULL;
    ckpt_code code;

    if ((code = take_word(p, "the name of the part", &name)) != CKPT_OK)
        return code;
    if (find_part(p, name) != NULL)
        return FAIL(p, "a second part '%s'", name);
    if ((code = add_line(p, LINE_PART, &line)) != CKPT_OK)
        return code;
    line->word = name;
    p->open = p->family->line_count - 1;
    line->body_first = p->family->line_count;
    return expect_end(p);
}

static ckpt_code parse_use(parser *p)
{
    const family_line *part;
    family_line *line = NULL;
    ckpt_code code;

    if ((code = add_line(p, LINE_USE, &line)) != CKPT_OK ||
        (code = take_word(p, "the name of a part", &line->word)) != CKPT_OK)
        return code;
    if (p->open < 0 || p->family->lines[p->open].kind != LINE_BLOCK)
        return FAIL(p, "use is only allowed in a block");
    if ((part = find_part(p, line->word)) == NULL)
        return FAIL(p, "no part '%s' before this line", line->word);
    line->body_first = part->body_first;
    line->body_end = part->body_end;
    p->family->lines[p->open].has_optional |= part->has_optional;
    return expect_end(p);
}

static ckpt_code parse_end(parser *p)
{
    if (p->open < 0)
        return FAIL(p, "end without a block or part");
    p->family->lines[p->open].body_end = p->family->line_count;
    p->open = -1;
    return expect_end(p);
}

static ckpt_code parse_any_tensor(parser *p, family_line_kind kind)
{
    family_line *line = NULL;
    ckpt_code code;

    if ((code = add_line(p, kind, &line)) != CKPT_OK ||
        (code = take_template(p, &line->name)) != CKPT_OK ||
        (code = take_encoding(p, &line->encoding)) != CKPT_OK ||
        (code = take_dims(p, line)) != CKPT_OK)
        return code;
    line->has_file = take_if(p, "file");
    if (line->has_file != (p->open < 0))
        return FAIL(p, "a tensor has a file number if and only if it is outside a block");
    if (line->has_file && (code = take_expr(p, "a file number", &line->file)) != CKPT_OK)
        return code;
    if (kind == LINE_OPTIONAL && p->open >= 0)
        p->family->lines[p->open].has_optional = 1;
    return take_conditions(p, line);
}

static ckpt_code parse_tensor(parser *p)
{
    return parse_any_tensor(p, LINE_TENSOR);
}

static ckpt_code parse_optional(parser *p)
{
    return parse_any_tensor(p, LINE_OPTIONAL);
}

static ckpt_code parse_line(parser *p)
{
    static const struct {
        const char *word;
        int inside;                    /* may stand in a block or part */
        ckpt_code (*parse)(parser *p);
    } kinds[] = {
        { "family", 0, parse_family }, { "detect", 0, parse_detect },
        { "blocks", 0, parse_blocks }, { "others", 0, parse_others },
        { "experts-told-by", 0, parse_experts },
        { "let", 1, parse_let },       { "list", 0, parse_list },
        { "count", 0, parse_count },   { "index", 0, parse_index },
        { "block", 0, parse_block },   { "part", 0, parse_part },
        { "use", 1, parse_use },       { "end", 1, parse_end },
        { "tensor", 1, parse_tensor }, { "optional", 1, parse_optional },
    };
    const char *word = p->words[p->next++];

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i].word, word) != 0)
            continue;
        if (!kinds[i].inside && p->open >= 0)
            return FAIL(p, "'%s' is not allowed in a block or part", word);
        return kinds[i].parse(p);
    }
    return FAIL(p, "unknown word '%s'", word);
}

/* What can only be said when all lines are known. */
static ckpt_code check_whole(parser *p)
{
    const ckpt_family *f = p->family;

    if (p->open >= 0) {
        p->line = f->lines[p->open].number;
        return FAIL(p, "no end of this block or part");
    }
    for (uint32_t i = 0; i < f->symbol_count; i++) {
        if (f->symbols[i].kind == SYMBOL_UNKNOWN) {
            p->line = f->symbols[i].line;
            return FAIL(p, "unknown variable '%s'", f->symbols[i].name);
        }
    }
    if (f->name == NULL)
        return FAIL(p, "no family line");
    if (f->detect_count == 0)
        return FAIL(p, "no detect line");
    return CKPT_OK;
}

ckpt_code family_parse(const char *text, size_t size, const char *subject, ckpt_family **out,
                       ckpt_error *err)
{
    ckpt_family *family;
    parser p = { .err = err, .open = -1 };
    ckpt_code code = CKPT_OK;

    if (size > FAMILY_TEXT_MAX_BYTES || memchr(text, '\0', size) != NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not a family text: contains NUL, or more "
            "than %d bytes",
                         subject, FAMILY_TEXT_MAX_BYTES);
    if ((family = calloc(1, sizeof *family)) == NULL)
        return fail_memory(&p);
    arena_init(&family->memory);
    family->fp8 = ENCODING_COUNT;
    family->scale_dtype = CKPT_NONE;
    p.family = family;
    family->subject = arena_strdup(&family->memory, subject, strlen(subject));
    p.text = arena_strdup(&family->memory, text, size);
    if (family->subject == NULL || p.text == NULL)
        code = fail_memory(&p);
    while (code == CKPT_OK && *p.text != '\0') {
        code = read_line(&p);
        if (code == CKPT_OK && p.word_count > 0)
            code = parse_line(&p);
    }
    if (code == CKPT_OK)
        code = check_whole(&p);
    if (code != CKPT_OK) {
        family_free(family);
        return code;
    }
    *out = family;
    return CKPT_OK;
}

void family_free(ckpt_family *family)
{
    if (family == NULL)
        return;
    arena_release(&family->memory);
    free(family->lines);
    free(family);
}
