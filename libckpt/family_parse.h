/* family_parse.h: the layers of the parser of family texts: words, then terms, then lines. */
#ifndef CKPT_FAMILY_PARSE_H
#define CKPT_FAMILY_PARSE_H

#include "family_text.h"

typedef struct {
    ckpt_family *family;
    ckpt_error *err;
    char *text;                        /* the rest of the text, a copy in the arena */
    uint32_t line;                     /* 1-based */
    char *words[FAMILY_WORDS_MAX];
    uint32_t word_count;
    uint32_t next;                     /* first word not yet taken */
    int64_t open;                      /* index of the line that opened a block or part, or -1 */
} family_parser;

#define FAIL(p, ...) family_fail_at((p), ckpt_fail((p)->err, CKPT_E_FORMAT, __VA_ARGS__))

/* Prefix the error text that was just written with the line number. */
ckpt_code family_fail_at(family_parser *p, ckpt_code code);
ckpt_code family_fail_memory(family_parser *p);
/* A copy in the family's arena; NULL when there is no memory. */
void *family_keep(family_parser *p, const void *items, size_t count, size_t item_bytes);

/* ---- words (family_words.c) ---- */

/* Split the next line into words, in place. A blank line has none. */
ckpt_code family_read_line(family_parser *p);
/* The next word, or NULL at the end of the line. */
const char *family_peek_word(const family_parser *p);
int family_take_if(family_parser *p, const char *word);
ckpt_code family_take_word(family_parser *p, const char *what, const char **out);
ckpt_code family_expect_end(family_parser *p);

int family_is_digit(char c);
size_t family_identifier_length(const char *text);      /* 0: text begins with no identifier */

/* The symbol with this name; a new one is SYMBOL_UNKNOWN. */
ckpt_code family_find_symbol(family_parser *p, const char *name, size_t length, uint32_t *out);
/* Take the next word as a name that this line defines. */
ckpt_code family_define_symbol(family_parser *p, family_symbol_kind kind, uint32_t *out);

/* ---- terms (family_terms.c) ---- */

ckpt_code family_take_expr(family_parser *p, const char *what, family_expr *out);
/* Take the name of a list that is defined on an earlier line. */
ckpt_code family_take_list(family_parser *p, uint32_t *out);
/* [if CONDITION [and CONDITION]...], then the end of the line. */
ckpt_code family_take_conditions(family_parser *p, family_line *line);
ckpt_code family_take_template(family_parser *p, family_template *out);
ckpt_code family_take_encoding(family_parser *p, family_encoding *out);
/* EXPR[,EXPR]... */
ckpt_code family_take_dims(family_parser *p, family_line *line);

#endif
