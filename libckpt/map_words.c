/* Words of map texts: names with placeholders, numbers. */
#include "map_parse.h"

#include <string.h>

#include "array.h"
#include "config_number.h"
#include "map_pack.h"

enum { MAP_RULES_MAX = 4096 };

ckpt_code map_parse_fail(const map_parser *p, const char *what, const char *word)
{
    return ckpt_fail(p->err, CKPT_E_FORMAT, "map '%s', line %u: %s '%s'", p->subject, p->line, what,
                     word == NULL ? "" : word);
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

ckpt_code map_keep_word(map_parser *p, const char *word, const char **out)
{
    *out = arena_strdup(&p->map->memory, word, strlen(word));
    return *out == NULL ? ckpt_fail_memory(p->err, "a map", strlen(word)) : CKPT_OK;
}

ckpt_code map_keep_pattern(map_parser *p, char *word, const char **out)
{
    if (word == NULL || !pattern_is_valid(word))
        return map_parse_fail(p, "bad name pattern", word);
    return map_keep_word(p, word, out);
}

char *map_skip_blanks(char *text)
{
    return text + strspn(text, " \t");
}

char *map_take_word(char **text)
{
    char *word = map_skip_blanks(*text);
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

ckpt_code map_parse_number(map_parser *p, const char *text, map_number *out)
{
    if (text == NULL || !config_expression_is_valid(text))
        return map_parse_fail(p, "not a number or a member of the config:", text);
    out->value = 0; /* not evaluated yet */
    return map_keep_word(p, text, &out->text);
}

void *map_grow(void *items, size_t count, size_t item_bytes)
{
    return count == MAP_RULES_MAX ? NULL : array_room(items, count, item_bytes, "a map", NULL);
}
