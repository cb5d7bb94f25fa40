/* map_parse.h: the layers of the parser of map texts: words, then lines. */
#ifndef CKPT_MAP_PARSE_H
#define CKPT_MAP_PARSE_H

#include "map.h"

typedef struct {
    ckpt_map *map;
    const char *subject;
    unsigned line;
    ckpt_error *err;
} map_parser;

/* ---- words (map_words.c) ---- */

/* CKPT_E_FORMAT with the place; `what` is about `word`, which may be NULL. */
ckpt_code map_parse_fail(const map_parser *p, const char *what, const char *word);
char *map_skip_blanks(char *text);
/* Cut a word off *text; NULL at the end of the line. */
char *map_take_word(char **text);
/* Keep a copy in the map. */
ckpt_code map_keep_word(map_parser *p, const char *word, const char **out);
/* The same, of a valid name with placeholders; NULL is none. */
ckpt_code map_keep_pattern(map_parser *p, char *word, const char **out);
/* A number, or an expression of members of the config; NULL is none. */
ckpt_code map_parse_number(map_parser *p, const char *text, map_number *out);
/* Make room for one more item after `count`; NULL when there are too many, or no memory. */
void *map_grow(void *items, size_t count, size_t item_bytes);

/* ---- lines, behind their first word ---- */

/* map_rules.c */
ckpt_code map_parse_rule(map_parser *p, map_kind kind, char *text);
/* map_ranks.c */
ckpt_code map_parse_shard(map_parser *p, char *text);
ckpt_code map_parse_stage(map_parser *p, char *text);
ckpt_code map_parse_extra(map_parser *p, char *text);
ckpt_code map_parse_dialect(map_parser *p, char *text);
ckpt_code map_parse_preset(map_parser *p, char *text);

#endif
