/* The words and names of family texts. */
#include "family_parse.h"

#include <string.h>

ckpt_code family_fail_at(family_parser *p, ckpt_code code)
{
    if (p->err == NULL)
        return code;
    return ckpt_fail(p->err, code, "'%s' line %u: %s", p->family->subject, p->line, p->err->text);
}

ckpt_code family_fail_memory(family_parser *p)
{
    return ckpt_fail_memory(p->err, "a family text", FAMILY_TEXT_MAX_BYTES);
}

void *family_keep(family_parser *p, const void *items, size_t count, size_t item_bytes)
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

int family_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

size_t family_identifier_length(const char *text)
{
    size_t length = 0;

    if (!is_letter(text[0]))
        return 0;
    while (is_letter(text[length]) || family_is_digit(text[length]))
        length++;
    return length;
}

ckpt_code family_read_line(family_parser *p)
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

const char *family_peek_word(const family_parser *p)
{
    return p->next < p->word_count ? p->words[p->next] : NULL;
}

int family_take_if(family_parser *p, const char *word)
{
    const char *next = family_peek_word(p);

    if (next == NULL || strcmp(next, word) != 0)
        return 0;
    p->next++;
    return 1;
}

ckpt_code family_take_word(family_parser *p, const char *what, const char **out)
{
    *out = family_peek_word(p);
    if (*out == NULL)
        return FAIL(p, "%s is missing at the end", what);
    p->next++;
    return CKPT_OK;
}

ckpt_code family_expect_end(family_parser *p)
{
    if (p->next < p->word_count)
        return FAIL(p, "unexpected word '%s'", p->words[p->next]);
    return CKPT_OK;
}

/* ---- symbols ---- */

ckpt_code family_find_symbol(family_parser *p, const char *name, size_t length, uint32_t *out)
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
    return symbol->name == NULL ? family_fail_memory(p) : CKPT_OK;
}

/* Take a name that this line defines. A variable may be used in an earlier part, and may be set on
 * several lines with different conditions; lists and indexes may not. */
ckpt_code family_define_symbol(family_parser *p, family_symbol_kind kind, uint32_t *out)
{
    const char *name;
    ckpt_code code;
    family_symbol *symbol;

    if ((code = family_take_word(p, "a name", &name)) != CKPT_OK)
        return code;
    if (name[family_identifier_length(name)] != '\0')
        return FAIL(p, "'%s' is not a name: expected letters, digits and _", name);
    if ((code = family_find_symbol(p, name, strlen(name), out)) != CKPT_OK)
        return code;
    symbol = &p->family->symbols[*out];
    if (symbol->kind == SYMBOL_UNKNOWN && (kind == SYMBOL_VARIABLE || symbol->line == p->line))
        symbol->kind = kind;
    else if (kind != SYMBOL_VARIABLE || symbol->kind != SYMBOL_VARIABLE)
        return FAIL(p, "'%s' is already used or defined on line %u", name, symbol->line);
    return CKPT_OK;
}
