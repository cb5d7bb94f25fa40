/* text.h: small tests of names. */
#ifndef CKPT_TEXT_H
#define CKPT_TEXT_H

#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Copy a text, malloc'd; a copy of NULL is NULL. 0 when there is no memory. */
static inline int text_copy(const char *text, char **out)
{
    *out = text == NULL ? NULL : strdup(text);
    return text == NULL || *out != NULL;
}

/*
 * A number with its noun, and with the verb where that changes, too: "1 tensor differs", "5 tensors
 * differ". printf("%s\n", text_count(n, "file", "files").text): a result lives until the end of the
 * expression. `one` and `many` are short.
 */
enum { TEXT_COUNT_BYTES = 56 };
typedef struct {
    char text[TEXT_COUNT_BYTES];
} text_counted;

static inline text_counted text_count(uint64_t count, const char *one, const char *many)
{
    text_counted out;

    snprintf(out.text, sizeof out.text, "%" PRIu64 " %s", count, count == 1 ? one : many);
    return out;
}

/* The order of two texts by bytes, for qsort and bsearch over an array of them. */
static inline int text_order(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static inline int text_begins_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* 1 when `text` ends in `suffix` and is longer than it. */
static inline int text_ends_with(const char *text, const char *suffix)
{
    const size_t length = strlen(text);
    const size_t suffix_length = strlen(suffix);

    return length > suffix_length && strcmp(text + length - suffix_length, suffix) == 0;
}

/* 1 when a shell's pattern ('*.experts.7.*', where * also takes '/') matches all of `text`. */
static inline int text_matches_any(const char *text, const char *const *globs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fnmatch(globs[i], text, 0) == 0)
            return 1;
    return 0;
}

/* 1 for a file name inside the directory or a sub-folder: no component starts with a dot, which
 * excludes "." and "..". */
static inline int text_is_below(const char *name)
{
    for (const char *at = name; at != NULL; at = strchr(at, '/')) {
        at += at != name;
        if (at[0] == '\0' || at[0] == '.' || at[0] == '/')
            return 0;
    }
    return strchr(name, '\\') == NULL;
}

/*
 * If `text` begins with a hidden character, its length in bytes, else 0. Hidden are characters that
 * make a name look like another one: control characters and those that change the direction of
 * writing. U+0000..1F, U+007F..9F, U+061C, U+200E..F, U+202A..E, U+2066..9, in UTF-8. `text` has
 * `size` bytes.
 */
static inline size_t text_hidden_bytes(const char *text, size_t size)
{
    unsigned char p[3] = { 0 };

    memcpy(p, text, size < sizeof p ? size : sizeof p);
    if (size > 0 && (p[0] < 0x20 || p[0] == 0x7f))
        return 1;
    if ((p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) || (p[0] == 0xd8 && p[1] == 0x9c))
        return 2;
    if (p[0] == 0xe2 && p[1] == 0x80 &&
        (p[2] == 0x8e || p[2] == 0x8f || (p[2] >= 0xaa && p[2] <= 0xae)))
        return 3;
    return p[0] == 0xe2 && p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9 ? 3 : 0;
}

/* 1 for a text without hidden characters. */
static inline int text_is_plain(const char *text)
{
    for (size_t left = strlen(text); left > 0; left--, text++)
        if (text_hidden_bytes(text, left) > 0)
            return 0;
    return 1;
}

#endif
