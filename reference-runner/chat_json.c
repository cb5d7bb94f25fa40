/* chat_json.c: a JSON text as an array of its tokens in their order. */
#include "chat_json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"

enum { MEMBERS_MAX = 1024, NUMBER_BYTES = 48, DIGITS_MAX = 17 };

static int is_container(json_token_kind kind)
{
    return kind == JSON_SCAN_OBJECT || kind == JSON_SCAN_ARRAY;
}

static int is_end(json_token_kind kind)
{
    return kind == JSON_SCAN_OBJECT_END || kind == JSON_SCAN_ARRAY_END;
}

/* ---- reading ---- */

static size_t token_bytes(const chat_json *j, size_t i)
{
    return j->tokens[i].token.end - j->tokens[i].token.start;
}

/* The characters of a string without escapes, malloc'd; NULL if out of memory. *size: in bytes. */
static char *decode(const chat_json *j, size_t i, size_t *size)
{
    char *text = malloc(token_bytes(j, i));

    *size = text == NULL ? 0 : json_token_decode(j->text, &j->tokens[i].token, text);
    return text;
}

static ckpt_code fail_twice(const chat_json *j, size_t key, const char *name, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT,
                     "'%s' is not valid JSON: key '%.64s' occurs twice, again at byte %zu",
                     j->subject, name, j->tokens[key].token.start);
}

static ckpt_code check_members(const chat_json *j, size_t object, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    size_t count = 0;

    for (size_t key = chat_first(j, object); key > 0 && code == CKPT_OK; key = chat_next(j, key)) {
        size_t size;
        char *name = decode(j, key, &size);

        if (name == NULL)
            code = ckpt_fail_memory(err, j->subject, token_bytes(j, key));
        else if (++count > MEMBERS_MAX)
            code = ckpt_fail(err, CKPT_E_FORMAT,
                             "'%s' has an object of more than %d members at byte %zu", j->subject,
                             MEMBERS_MAX, j->tokens[object].token.start);
        else if (chat_member(j, object, name) != key + 1)
            code = fail_twice(j, key, name, err);
        free(name);
    }
    return code;
}

static int is_integer(const chat_json *j, size_t i)
{
    const char *text = j->text + j->tokens[i].token.start;
    const size_t size = token_bytes(j, i);

    return memchr(text, '.', size) == NULL && memchr(text, 'e', size) == NULL &&
           memchr(text, 'E', size) == NULL;
}

static ckpt_code check_last(const chat_json *j, ckpt_error *err)
{
    const size_t i = j->count - 1;
    const json_token *t = &j->tokens[i].token;

    if (t->kind == JSON_SCAN_NUMBER && !is_integer(j, i) && isinf(json_token_number(j->text, t)))
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' has a number beyond a double at byte %zu",
                         j->subject, t->start);
    return CKPT_OK;
}

static ckpt_code add_token(chat_json *j, const json_token *token, ckpt_error *err)
{
    chat_token *tokens = array_room_counted(j->tokens, j->count, sizeof *tokens, j->subject, err);

    if (tokens == NULL)
        return CKPT_E_MEMORY;
    j->tokens = tokens;
    tokens[j->count] = (chat_token){ *token, j->count + 1 };
    j->count++;
    return CKPT_OK;
}

ckpt_code chat_json_read(const char *text, size_t size, const char *subject, chat_json *out,
                         ckpt_error *err)
{
    size_t open[JSON_DEPTH_MAX + 1];
    json_scanner scan;
    json_token token;
    ckpt_code code;

    *out = (chat_json){ .text = text, .subject = subject };
    json_scan_begin(&scan, text, size, subject);
    scan.takes_long_integers = 1;
    while ((code = json_scan_next(&scan, &token, err)) == CKPT_OK && token.kind != JSON_SCAN_END) {
        if ((code = add_token(out, &token, err)) != CKPT_OK ||
            (code = check_last(out, err)) != CKPT_OK)
            return code;
        if (is_container(token.kind))
            open[token.depth] = out->count - 1;
        if (!is_end(token.kind))
            continue;
        out->tokens[open[token.depth]].after = out->count;
        if (token.kind == JSON_SCAN_OBJECT_END &&
            (code = check_members(out, open[token.depth], err)) != CKPT_OK)
            return code;
    }
    return code;
}

void chat_json_release(chat_json *json)
{
    array_free_counted(json->tokens, json->count, sizeof *json->tokens);
    json->tokens = NULL;
    json->count = 0;
}

/* ---- asking ---- */

json_token_kind chat_kind(const chat_json *json, size_t value)
{
    return json->tokens[value].token.kind;
}

size_t chat_first(const chat_json *json, size_t container)
{
    return is_end(chat_kind(json, container + 1)) ? 0 : container + 1;
}

size_t chat_next(const chat_json *json, size_t child)
{
    const size_t value = child + (chat_kind(json, child) == JSON_SCAN_KEY);
    const size_t next = json->tokens[value].after;

    return is_end(chat_kind(json, next)) ? 0 : next;
}

int chat_equals(const chat_json *json, size_t value, const char *string)
{
    return json_token_equals(json->text, &json->tokens[value].token, string);
}

size_t chat_member(const chat_json *json, size_t object, const char *key)
{
    for (size_t i = chat_first(json, object); i > 0; i = chat_next(json, i))
        if (chat_equals(json, i, key))
            return i + 1;
    return 0;
}

int chat_is_false(const chat_json *json, size_t value)
{
    const json_token *t = &json->tokens[value].token;

    if (value == 0)
        return 1;
    switch (t->kind) {
    case JSON_SCAN_OBJECT:
    case JSON_SCAN_ARRAY:
        return chat_first(json, value) == 0;
    case JSON_SCAN_STRING:
        return token_bytes(json, value) == 2;
    case JSON_SCAN_NUMBER:
        for (size_t i = t->start; i < t->end; i++) {
            const char c = json->text[i];

            if (c == 'e' || c == 'E')
                break;
            if (c >= '1' && c <= '9')
                return 0;
        }
        return 1;
    default:
        return t->kind != JSON_SCAN_TRUE;
    }
}

/* ---- writing ---- */

static void put(byte_buffer *out, const char *bytes)
{
    byte_buffer_add(out, bytes, strlen(bytes));
}

void chat_put_quoted(const char *bytes, size_t size, byte_buffer *out)
{
    static const char escaped[] = "\"\\\b\f\n\r\t";
    static const char *const escapes[] = { "\\\"", "\\\\", "\\b", "\\f", "\\n", "\\r", "\\t" };
    size_t plain = 0;

    put(out, "\"");
    for (size_t i = 0; i < size; i++) {
        const char *at = bytes[i] == '\0' ? NULL : strchr(escaped, bytes[i]);
        char code[8];

        if (at == NULL && (unsigned char)bytes[i] >= 0x20)
            continue;
        byte_buffer_add(out, bytes + plain, i - plain);
        plain = i + 1;
        snprintf(code, sizeof code, "\\u%04x", (unsigned char)bytes[i]);
        put(out, at == NULL ? code : escapes[at - escaped]);
    }
    byte_buffer_add(out, bytes + plain, size - plain);
    put(out, "\"");
}

static void put_plain(const char *bytes, size_t size, byte_buffer *out)
{
    byte_buffer_add(out, bytes, size);
}

/* Append the characters of string i as `put_text` writes them. */
static void put_decoded(const chat_json *j, size_t i,
                        void (*put_text)(const char *bytes, size_t size, byte_buffer *out),
                        byte_buffer *out)
{
    size_t size;
    char *text = decode(j, i, &size);

    if (text == NULL)
        out->failed = 1;
    else
        put_text(text, size, out);
    free(text);
}

void chat_put_string(const chat_json *json, size_t value, byte_buffer *out)
{
    put_decoded(json, value, put_plain, out);
}

/* As Python's repr: the fewest digits that read back as the same number, with an exponent if the
 * number is below 1e-4 or at least 1e16. */
static void put_double(double value, byte_buffer *out)
{
    char text[NUMBER_BYTES];
    int precision = 0;
    int exponent;
    int decimals;

    do
        snprintf(text, sizeof text, "%.*e", precision, value);
    while (strtod(text, NULL) != value && ++precision < DIGITS_MAX);
    exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exponent >= -4 && exponent < 16) {
        decimals = precision > exponent ? precision - exponent : 0;
        snprintf(text, sizeof text, "%.*f%s", decimals, value, decimals == 0 ? ".0" : "");
    }
    put(out, text);
}

/* Integers are written with their own digits, except that -0 becomes 0. */
static void put_number(const chat_json *j, size_t i, byte_buffer *out)
{
    const json_token *t = &j->tokens[i].token;
    const char *text = j->text + t->start;
    const size_t size = t->end - t->start;

    if (!is_integer(j, i))
        put_double(json_token_number(j->text, t), out);
    else if (size == 2 && memcmp(text, "-0", 2) == 0)
        put(out, "0");
    else
        byte_buffer_add(out, text, size);
}

void chat_put_value(const chat_json *json, size_t value, byte_buffer *out)
{
    for (size_t i = value; i < json->tokens[value].after; i++) {
        const json_token *t = &json->tokens[i].token;

        if (i > value && !is_end(t->kind) && !is_container(chat_kind(json, i - 1)) &&
            chat_kind(json, i - 1) != JSON_SCAN_KEY)
            put(out, ", ");
        if (t->kind == JSON_SCAN_NUMBER)
            put_number(json, i, out);
        else if (t->kind == JSON_SCAN_STRING || t->kind == JSON_SCAN_KEY)
            put_decoded(json, i, chat_put_quoted, out);
        else
            byte_buffer_add(out, json->text + t->start, t->end - t->start);
        if (t->kind == JSON_SCAN_KEY)
            put(out, ": ");
    }
}
