/* hub_text.c: headers of a hub's replies, patterns and names. */
#include "hub_text.h"

#include <ctype.h>
#include <strings.h>
#include <time.h>

#include "libckpt/json_scan.h"
#include "libckpt/size.h"

/* Parse decimal digits at *at and advance it. 0: no digits, or too large. */
static int take_number(const char **at, uint64_t *out)
{
    uint64_t number = 0;
    const char *begin = *at;

    for (; **at >= '0' && **at <= '9'; ++*at)
        if (!size_mul(number, 10, &number) || !size_add(number, (uint64_t)(**at - '0'), &number))
            return 0;
    *out = number;
    return *at > begin;
}

int hub_parse_content_range(const char *text, hub_content_range *out)
{
    memset(out, 0, sizeof *out);
    if (strncasecmp(text, "bytes ", 6) != 0)
        return 0;
    text += 6;
    if (*text == '*') {
        out->is_empty = 1;
        text++;
    } else if (!take_number(&text, &out->first) || *text++ != '-' ||
               !take_number(&text, &out->last) || out->last < out->first) {
        return 0;
    }
    if (*text++ != '/')
        return 0;
    if (strcmp(text, "*") == 0)
        return !out->is_empty;
    out->has_total = 1;
    return take_number(&text, &out->total) && *text == '\0' &&
           (out->is_empty || out->last < out->total);
}

/* 1 when "next" is the word in `value`, up to `end`, or one of several words in quotes. */
static int names_next(const char *value, const char *end)
{
    static const char ends[] = " \t\"";

    while (value < end) {
        size_t size = 0;

        while (value + size < end && strchr(ends, value[size]) == NULL)
            size++;
        if (size == 4 && strncasecmp(value, "next", 4) == 0)
            return 1;
        value += size + 1;
    }
    return 0;
}

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    return at;
}

/* 1 when the parameters of a link contain rel=next. */
static int is_next(const char *at, const char *end)
{
    while (at < end) {
        const char *stop = at;

        while (stop < end && *stop != ';')
            stop++;
        at = skip_blanks(at, stop);
        if (stop - at > 3 && strncasecmp(at, "rel", 3) == 0) {
            at = skip_blanks(at + 3, stop);
            if (at < stop && *at == '=' && names_next(at + 1, stop))
                return 1;
        }
        at = stop + 1;
    }
    return 0;
}

char *hub_next_link(const char *link)
{
    while ((link = strchr(link, '<')) != NULL) {
        const char *close = strchr(link, '>');
        const char *end;

        if (close == NULL)
            return NULL;
        end = close;
        while (*end != '\0' && *end != ',')
            end++;
        if (is_next(close + 1, end))
            return strndup(link + 1, (size_t)(close - link - 1));
        link = end;
    }
    return NULL;
}

int hub_rate_number(const char *text, char key, uint64_t *out)
{
    int quoted = 0;

    for (; *text != '\0'; text++) {
        if (*text == '"')
            quoted = !quoted;
        if (quoted || *text != ';')
            continue;
        do
            text++;
        while (*text == ' ');
        if (*text == key && text[1] == '=') {
            text += 2;
            return take_number(&text, out);
        }
        text--;
    }
    return 0;
}

int hub_parse_rate(const char *text, hub_rate *out)
{
    const char *open = strchr(text, '"');
    const char *close = open == NULL ? NULL : strchr(open + 1, '"');
    size_t size;

    memset(out, 0, sizeof *out);
    if (close == NULL)
        return 0;
    size = (size_t)(close - open - 1);
    if (size == 0 || size >= sizeof out->bucket)
        return 0;
    memcpy(out->bucket, open + 1, size);
    return hub_rate_number(close + 1, 'r', &out->left_count) &&
           hub_rate_number(close + 1, 't', &out->reset_seconds);
}

int64_t hub_http_date(const char *text)
{
    struct tm when;
    const char *end;

    memset(&when, 0, sizeof when);
    end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &when);
    return end == NULL ? 0 : (int64_t)timegm(&when);
}

int hub_retry_after(const char *text, int64_t now, uint64_t *seconds)
{
    int64_t when;

    if (take_number(&text, seconds))
        return *text == '\0';
    if (text[0] != '\0' && text[strspn(text, "0123456789")] == '\0') {
        *seconds = UINT64_MAX;                  /* too large to be a number here */
        return 1;
    }
    when = hub_http_date(text);
    *seconds = when > now ? (uint64_t)(when - now) : 0;
    return when != 0;
}

void hub_etag(const char *text, char *out, size_t out_bytes)
{
    size_t used = 0;

    if (strncmp(text, "W/", 2) == 0)
        text += 2;
    for (; *text != '\0' && used + 1 < out_bytes; text++)
        if (*text != '"')
            out[used++] = *text;
    out[used] = '\0';
}

uint64_t hub_text_hash(const char *text, size_t size)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)text[i]) * UINT64_C(1099511628211);
    return hash;
}

int hub_is_hex(const char *text, size_t digit_count)
{
    return strspn(text, "0123456789abcdef") == digit_count && text[digit_count] == '\0';
}

/* ---- patterns ---- */

static const char *next_code_point(const char *text)
{
    text++;
    while (((unsigned char)*text & 0xc0) == 0x80)
        text++;
    return text;
}

static uint32_t code_point(const char *text)
{
    const char *end = next_code_point(text);
    uint32_t value = 0;

    for (; text < end; text++)
        value = value << 8 | (unsigned char)*text;
    return value;
}

/*
 * Match one `[...]` against the character at `path`, and advance *pattern past the bracket. An
 * unclosed bracket is a plain character, as in Python.
 */
static int match_set(const char **pattern, const char *path)
{
    const char *at = *pattern + 1;
    const int negated = *at == '!';
    const char *close = strchr(at + negated + (at[negated] == ']'), ']');
    int found = 0;

    if (at[negated] == '\0' || close == NULL) {
        ++*pattern;
        return *path == '[';
    }
    for (at += negated; at < close;) {
        const uint32_t low = code_point(at);
        uint32_t high = low;

        at = next_code_point(at);
        if (at[0] == '-' && at + 1 < close) {
            high = code_point(at + 1);
            at = next_code_point(at + 1);
        }
        found |= code_point(path) >= low && code_point(path) <= high;
    }
    *pattern = close + 1;
    return found != negated;
}

/* Only the last star needs backtracking: one loop, no recursion. */
static int match(const char *pattern, const char *path)
{
    const char *star = NULL;
    const char *resume = NULL;

    while (*path != '\0' || *pattern != '\0') {
        const char *set = pattern;

        if (*pattern == '*') {
            star = ++pattern;
            resume = path;
            continue;
        }
        if (*path != '\0' && *pattern != '\0' &&
            (*pattern == '?'                            ? (set = pattern + 1, 1)
             : *pattern == '['                          ? match_set(&set, path)
             : code_point(pattern) == code_point(path) ? (set = next_code_point(pattern), 1)
                                                        : 0)) {
            pattern = set;
            path = next_code_point(path);
            continue;
        }
        if (star == NULL || *resume == '\0')
            return 0;
        resume = next_code_point(resume);
        path = resume;
        pattern = star;
    }
    return 1;
}

int hub_glob(const char *pattern, const char *path)
{
    const size_t size = strlen(pattern);
    char *copy = malloc(size + 2);
    int found;

    if (copy == NULL)
        return 0;
    for (size_t i = 0; i < size; i++)
        copy[i] = pattern[i] == '\\' ? '/' : pattern[i];
    copy[size] = size > 0 && copy[size - 1] == '/' ? '*' : '\0';
    copy[size + 1] = '\0';
    found = match(copy, path);
    free(copy);
    return found;
}

/* ---- names ---- */

const char *hub_repo_complaint(const char *id)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789_.-";
    const char *name = strchr(id, '/');
    const size_t size = strlen(id);

    name = name == NULL ? id : name + 1;
    if (*id == '/' || strncmp(id, "./", 2) == 0 || strncmp(id, "../", 3) == 0 || *id == '~')
        return "it is a path; expected OWNER/NAME of a hub, as deepseek-ai/DeepSeek-V4-Flash";
    if (strchr(name, '/') != NULL || *name == '\0' || name == id + 1)
        return "expected NAME or OWNER/NAME";
    if (strspn(id, letters) + (name > id ? 1 + strspn(name, letters) : 0) != size)
        return "expected letters, digits, '_', '.', '-'";
    if (strlen(name) > 96 || size > 193)
        return "the name is too long";
    if (strstr(id, "--") != NULL || strstr(id, "..") != NULL)
        return "'--' and '..' are not allowed";
    if (strchr("-.", *id) != NULL || strchr("-.", *name) != NULL ||
        strchr("-.", id[size - 1]) != NULL || (name > id && strchr("-.", name[-2]) != NULL))
        return "it must not start or end with '-' or '.'";
    if (size > 4 && strcmp(id + size - 4, ".git") == 0)
        return "it must not end with '.git'";
    return NULL;
}

static const char *component_complaint(const char *at, size_t size)
{
    enum { NAME_BYTES_MAX = 246 };      /* ".metadata" is appended, a name has 255 at most */

    if (size == 0)
        return "it has an empty component";
    if (size > NAME_BYTES_MAX)
        return "a component is longer than 246 bytes";
    if ((size == 1 && at[0] == '.') || (size == 2 && at[0] == '.' && at[1] == '.'))
        return "it has a component '.' or '..'";
    if (size == 4 && strncasecmp(at, ".git", 4) == 0)
        return "it is inside a .git folder";
    return NULL;
}

const char *hub_path_complaint(const char *path)
{
    enum { PATH_BYTES_MAX = 4096 };
    static const char side[] = ".cache/huggingface";
    const char *complaint;

    if (*path == '\0')
        return "it is empty";
    if (strlen(path) > PATH_BYTES_MAX)
        return "it is longer than 4096 bytes";
    for (const char *c = path; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f || *c == '\\')
            return "it has a control character or a backslash";
    if (!json_is_utf8(path, strlen(path)))
        return "it is not UTF-8";
    if (isalpha((unsigned char)path[0]) && path[1] == ':')
        return "it starts with a drive letter";
    if (strncasecmp(path, side, sizeof side - 1) == 0 &&
        (path[sizeof side - 1] == '/' || path[sizeof side - 1] == '\0'))
        return "it would overwrite downloaders' records in .cache/huggingface";
    for (;;) {
        const size_t size = strcspn(path, "/");

        if ((complaint = component_complaint(path, size)) != NULL)
            return complaint;
        if (path[size] == '\0')
            return NULL;
        path += size + 1;
    }
}
