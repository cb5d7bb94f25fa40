/* Patterns of names: matching, and replacing placeholders. */
#include "map.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A parsed placeholder: {key}, {key+shift}, or {key*}, whose star is part of the key. */
typedef struct {
    const char *key;
    size_t key_bytes;
    int is_rest;                   /* {x*} */
    int is_shifted;                /* {m+61}, or {m+KEY} before map_bind */
    uint64_t shift;
    const char *end;               /* after the closing brace */
} placeholder;

/* A decimal number without leading zeros, so that each number has one spelling. */
static int read_number(const char *text, size_t length, uint64_t *out)
{
    char digits[24];
    char *end;

    if (length == 0 || length >= sizeof digits || (text[0] == '0' && length > 1))
        return 0;
    memcpy(digits, text, length);
    digits[length] = '\0';
    errno = 0;
    *out = strtoull(digits, &end, 10);
    return *end == '\0' && digits[0] >= '0' && digits[0] <= '9' && errno == 0;
}

/* `pattern` points to a brace. 0 when the shift is not a number yet (before map_bind): the pattern
 * then matches no name. */
static int read_placeholder(const char *pattern, placeholder *out)
{
    const char *close = strchr(pattern, '}');
    const char *plus = memchr(pattern, '+', (size_t)(close - pattern));

    memset(out, 0, sizeof *out);
    out->key = pattern + 1;
    out->key_bytes = (size_t)((plus != NULL ? plus : close) - out->key);
    out->end = close + 1;
    out->is_shifted = plus != NULL;
    if (plus != NULL)
        return read_number(plus + 1, (size_t)(close - plus - 1), &out->shift);
    out->is_rest = close[-1] == '*';
    return 1;
}

/* ---- captures ---- */

static const char *captured(const map_captures *captures, size_t i)
{
    return captures->items[i].value != NULL ? captures->items[i].value
                                            : captures->items[i].number;
}

/* The index of a key, or `count` when it is not captured. */
static size_t find_capture(const map_captures *captures, const char *key, size_t key_bytes)
{
    size_t i = 0;

    while (i < captures->count && (captures->items[i].key_bytes != key_bytes ||
                                   memcmp(captures->items[i].key, key, key_bytes) != 0))
        i++;
    return i;
}

/* 0 when it has another value already, or there is no room. */
static int add_capture(map_captures *captures, const char *key, size_t key_bytes,
                       const char *value, size_t value_bytes)
{
    const size_t i = find_capture(captures, key, key_bytes);

    if (i < captures->count)
        return captures->items[i].value_bytes == value_bytes &&
               memcmp(captured(captures, i), value, value_bytes) == 0;
    if (i == MAP_CAPTURES_MAX)
        return 0;
    captures->items[i].key = key;
    captures->items[i].key_bytes = key_bytes;
    captures->items[i].value = value;
    captures->items[i].value_bytes = value_bytes;
    captures->count++;
    return 1;
}

/* The same for a number; its digits are stored in the captures. */
static int add_number(map_captures *captures, const char *key, size_t key_bytes, uint64_t number)
{
    char digits[sizeof captures->items[0].number];
    const size_t length =
        (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
    const size_t i = captures->count;

    if (!add_capture(captures, key, key_bytes, digits, length))
        return 0;
    if (captures->count > i) {
        memcpy(captures->items[i].number, digits, sizeof digits);
        captures->items[i].value = NULL;
    }
    return 1;
}

static void strip_braces(const char **key, size_t *key_bytes)
{
    *key_bytes = strlen(*key) - 2;
    ++*key;
}

int map_capture_add(map_captures *captures, const char *key, uint64_t number)
{
    size_t key_bytes;

    strip_braces(&key, &key_bytes);
    return add_number(captures, key, key_bytes, number);
}

int map_capture_number(const map_captures *captures, const char *key, uint64_t *out)
{
    size_t key_bytes;
    size_t i;

    strip_braces(&key, &key_bytes);
    i = find_capture(captures, key, key_bytes);
    return i < captures->count &&
           read_number(captured(captures, i), captures->items[i].value_bytes, out);
}

/* ---- names ---- */

static int match_placeholder(const placeholder *p, const char *name, size_t length,
                             map_captures *captures)
{
    uint64_t number;

    if (!p->is_shifted)
        return add_capture(captures, p->key, p->key_bytes, name, length);
    return read_number(name, length, &number) && number >= p->shift &&
           add_number(captures, p->key, p->key_bytes, number - p->shift);
}

int map_match(const char *pattern, const char *name, map_captures *captures)
{
    const char *begin = pattern;

    while (*pattern != '\0') {
        placeholder p;
        size_t length;

        if (*pattern != '{') {
            if (*pattern++ != *name++)
                return 0;
            continue;
        }
        if (!read_placeholder(pattern, &p))
            return 0;
        length = p.is_rest ? strlen(name) : strcspn(name, ".");
        if ((length == 0 && !(p.is_rest && pattern == begin)) ||
            !match_placeholder(&p, name, length, captures))
            return 0;
        pattern = p.end;
        name += length;
    }
    return *name == '\0';
}

static int append(char out[MAP_NAME_BYTES], size_t *used, const char *text, size_t length)
{
    if (length >= MAP_NAME_BYTES - *used)
        return 0;
    memcpy(out + *used, text, length);
    *used += length;
    return 1;
}

/* Append the value of a placeholder. */
static int append_capture(const placeholder *p, const map_captures *captures,
                          char out[MAP_NAME_BYTES], size_t *used)
{
    const size_t i = find_capture(captures, p->key, p->key_bytes);
    char digits[24];
    uint64_t number;

    if (i == captures->count)
        return 0;
    if (!p->is_shifted)
        return append(out, used, captured(captures, i), captures->items[i].value_bytes);
    if (!read_number(captured(captures, i), captures->items[i].value_bytes, &number) ||
        number > UINT64_MAX - p->shift)
        return 0;
    return append(out, used, digits,
                  (size_t)snprintf(digits, sizeof digits, "%llu",
                                   (unsigned long long)(number + p->shift)));
}

int map_expand(const char *pattern, const map_captures *captures, char out[MAP_NAME_BYTES])
{
    size_t used = 0;

    while (*pattern != '\0') {
        placeholder p;

        if (*pattern != '{') {
            if (!append(out, &used, pattern++, 1))
                return 0;
            continue;
        }
        if (!read_placeholder(pattern, &p) || !append_capture(&p, captures, out, &used))
            return 0;
        pattern = p.end;
    }
    out[used] = '\0';
    return 1;
}
