/* json_scan.c: the JSON grammar (RFC 8259), and stricter rules of ckpt. */
#include "json_scan.h"

#include <assert.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "plain_bytes looks at words");

/* Longest number with a point or an exponent; 17 digits identify every double. */
enum { JSON_NUMBER_MAX = 63 };

static const uint64_t JSON_INTEGER_MAX = UINT64_C(1) << 53;

/* What the grammar allows next. */
enum {
    STATE_VALUE,
    STATE_VALUE_OR_END,      /* just inside an array */
    STATE_KEY,
    STATE_KEY_OR_END,        /* just inside an object */
    STATE_AFTER_VALUE,
    STATE_DONE
};

void json_scan_begin(json_scanner *s, const char *text, size_t size, const char *subject)
{
    s->text = text;
    s->size = size;
    s->subject = subject;
    s->at = 0;
    s->depth = 0;
    s->state = STATE_VALUE;
    s->takes_long_integers = 0;
    s->is_object[0] = 0;
}

ckpt_code json_scan_fail(const json_scanner *s, size_t at, const char *what, ckpt_error *err)
{
    if (s->size == 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is empty, not valid JSON: %s at byte %zu",
                         s->subject, what, at);
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not valid JSON: %s at byte %zu", s->subject, what,
                     at);
}

/* The byte at the current position, or -1 at the end. */
static int peek(const json_scanner *s)
{
    return s->at < s->size ? (unsigned char)s->text[s->at] : -1;
}

static void skip_space(json_scanner *s)
{
    while (s->at < s->size) {
        const char c = s->text[s->at];

        if (c != ' ' && c != '\n' && c != '\t' && c != '\r')
            break;
        s->at++;
    }
}

/* ---- strings ---- */

size_t json_utf8_bytes(const unsigned char *bytes, size_t left)
{
    const unsigned char lead = left > 0 ? bytes[0] : 0xff;
    unsigned char low = 0x80;       /* bounds of the second byte: they keep out overlong forms, */
    unsigned char high = 0xbf;      /* surrogates and what lies above U+10FFFF */
    size_t length;

    if (lead < 0x80)
        return 1;
    if (lead >= 0xc2 && lead <= 0xdf)
        length = 2;
    else if ((lead & 0xf0) == 0xe0)
        length = 3;
    else if (lead >= 0xf0 && lead <= 0xf4)
        length = 4;
    else
        return 0;
    if (lead == 0xe0)
        low = 0xa0;
    else if (lead == 0xed)
        high = 0x9f;
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f;
    if (left < length || bytes[1] < low || bytes[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

int json_is_utf8(const char *text, size_t size)
{
    for (size_t at = 0, step; at < size; at += step)
        if ((step = json_utf8_bytes((const unsigned char *)text + at, size - at)) == 0)
            return 0;
    return 1;
}

/*
 * How many bytes from `at` on are plain: printable ASCII, no quote, no backslash. Eight at a
 * time: each term sets the top bit of a byte that is not plain. Borrows can only set further
 * bits above a true one, so the lowest bit is right.
 */
static size_t plain_bytes(const char *text, size_t at, size_t size)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    const uint64_t tops = ones * 0x80;
    const size_t start = at;

    for (; at + 8 <= size; at += 8) {
        uint64_t word;
        uint64_t quote;
        uint64_t backslash;
        uint64_t special;

        memcpy(&word, text + at, sizeof word);
        quote = word ^ (ones * '"');
        backslash = word ^ (ones * '\\');
        special = (quote - ones) & ~quote;
        special |= (backslash - ones) & ~backslash;
        special |= (word - ones * 0x20) & ~word;
        special = (special | word) & tops;
        if (special != 0)
            return at - start + (size_t)__builtin_ctzll(special) / 8;
    }
    while (at < size && (unsigned char)text[at] >= 0x20 && (unsigned char)text[at] < 0x80 &&
           text[at] != '"' && text[at] != '\\')
        at++;
    return at - start;
}

/* The value of the four hex digits at `text`; -1 when they are not hex digits. */
static int32_t hex4(const char *text, size_t left)
{
    int32_t value = 0;

    if (left < 4)
        return -1;
    for (size_t i = 0; i < 4; i++) {
        const char c = text[i];

        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + (c - 'a' + 10);
        else if (c >= 'A' && c <= 'F')
            value = value * 16 + (c - 'A' + 10);
        else
            return -1;
    }
    return value;
}

/* Read the escape at s->at, which points to a backslash. */
static ckpt_code scan_escape(json_scanner *s, ckpt_error *err)
{
    const size_t start = s->at;
    const size_t left = s->size - start;
    const char *text = s->text + start;
    int32_t unit;
    int32_t low;

    if (left < 2 || text[1] == '\0' || strchr("\"\\/bfnrtu", text[1]) == NULL)
        return json_scan_fail(s, start, "unknown escape", err);
    s->at += 2;
    if (text[1] != 'u')
        return CKPT_OK;
    unit = hex4(text + 2, left - 2);
    if (unit < 0)
        return json_scan_fail(s, start, "\\u without four hex digits", err);
    if (unit == 0)
        return json_scan_fail(s, start, "\\u0000, which is not supported,", err);
    s->at += 4;
    if (unit < 0xd800 || unit > 0xdfff)
        return CKPT_OK;
    low = left >= 12 && text[6] == '\\' && text[7] == 'u' ? hex4(text + 8, 4) : -1;
    if (unit > 0xdbff || low < 0xdc00 || low > 0xdfff)
        return json_scan_fail(s, start, "lone surrogate", err);
    s->at += 6;
    return CKPT_OK;
}

/* Read the string at s->at, which points to a quote. */
static ckpt_code scan_string(json_scanner *s, ckpt_error *err)
{
    const size_t start = s->at;
    ckpt_code code;

    s->at++;
    for (;;) {
        size_t character_bytes;
        int c;

        s->at += plain_bytes(s->text, s->at, s->size);
        c = peek(s);
        if (c == '"') {
            s->at++;
            return CKPT_OK;
        }
        if (c == '\\') {
            if ((code = scan_escape(s, err)) != CKPT_OK)
                return code;
            continue;
        }
        if (c < 0)
            return json_scan_fail(s, start, "unterminated string", err);
        if (c < 0x20)
            return json_scan_fail(s, s->at, "control character in a string", err);
        character_bytes = json_utf8_bytes((const unsigned char *)s->text + s->at,
                                          s->size - s->at);
        if (character_bytes == 0)
            return json_scan_fail(s, s->at, "invalid UTF-8", err);
        s->at += character_bytes;
    }
}

/* ---- numbers and words ---- */

static size_t skip_digits(json_scanner *s)
{
    const size_t start = s->at;

    while (s->at < s->size && s->text[s->at] >= '0' && s->text[s->at] <= '9')
        s->at++;
    return s->at - start;
}

/* Doubles hold every integer up to 2^53; a larger one would silently become another. */
static ckpt_code check_integer(const json_scanner *s, size_t start, ckpt_error *err)
{
    const size_t digits = start + (s->text[start] == '-');
    const size_t length = s->at - start;
    uint64_t value = 0;

    for (size_t i = digits; i < s->at && value <= JSON_INTEGER_MAX; i++)
        value = value * 10 + (uint64_t)(s->text[i] - '0');
    if (value > JSON_INTEGER_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s' is not valid JSON: integer %.*s%s beyond 2^53 at byte %zu",
                         s->subject, (int)(length < JSON_NUMBER_MAX ? length : JSON_NUMBER_MAX),
                         s->text + start, length < JSON_NUMBER_MAX ? "" : "...", start);
    return CKPT_OK;
}

static ckpt_code scan_number(json_scanner *s, json_token *token, ckpt_error *err)
{
    const size_t start = s->at;
    int is_integer = 1;

    if (peek(s) == '-')
        s->at++;
    if (peek(s) == '0')
        s->at++;
    else if (skip_digits(s) == 0)
        return json_scan_fail(s, start, "number without digits", err);
    if (peek(s) == '.') {
        is_integer = 0;
        s->at++;
        if (skip_digits(s) == 0)
            return json_scan_fail(s, start, "number without digits after its point", err);
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        is_integer = 0;
        s->at++;
        if (peek(s) == '+' || peek(s) == '-')
            s->at++;
        if (skip_digits(s) == 0)
            return json_scan_fail(s, start, "number without digits in its exponent", err);
    }
    token->is_unsigned = is_integer && s->text[start] != '-';
    if (is_integer)
        return s->takes_long_integers ? CKPT_OK : check_integer(s, start, err);
    if (s->at - start > JSON_NUMBER_MAX)
        return json_scan_fail(s, start, "number of more than 63 characters", err);
    return CKPT_OK;
}

static ckpt_code scan_word(json_scanner *s, const char *word, ckpt_error *err)
{
    const size_t length = strlen(word);

    if (s->size - s->at < length || memcmp(s->text + s->at, word, length) != 0)
        return json_scan_fail(s, s->at, "unknown word", err);
    s->at += length;
    return CKPT_OK;
}

/* ---- structure ---- */

static ckpt_code scan_open(json_scanner *s, int is_object, ckpt_error *err)
{
    if (s->depth == JSON_DEPTH_MAX)
        return json_scan_fail(s, s->at, "nesting deeper than 64", err);
    s->at++;
    s->depth++;
    s->is_object[s->depth] = (unsigned char)is_object;
    s->state = is_object ? STATE_KEY_OR_END : STATE_VALUE_OR_END;
    return CKPT_OK;
}

/* Read the closing bracket at s->at, or anything else at a place where one is allowed. */
static ckpt_code scan_close(json_scanner *s, json_token *token, ckpt_error *err)
{
    const int is_object = s->is_object[s->depth];
    const int c = peek(s);

    if (c < 0)
        return json_scan_fail(s, s->at, "end of text inside an object or array", err);
    if (c != (is_object ? '}' : ']'))
        return json_scan_fail(s, s->at, is_object ? "expected ',' or '}'" : "expected ',' or ']'",
                              err);
    token->kind = is_object ? JSON_SCAN_OBJECT_END : JSON_SCAN_ARRAY_END;
    s->at++;
    s->depth--;
    token->depth = s->depth;
    s->state = STATE_AFTER_VALUE;
    return CKPT_OK;
}

static ckpt_code scan_key(json_scanner *s, json_token *token, ckpt_error *err)
{
    ckpt_code code;

    if (peek(s) != '"')
        return json_scan_fail(s, s->at, "expected a key", err);
    if ((code = scan_string(s, err)) != CKPT_OK)
        return code;
    token->kind = JSON_SCAN_KEY;
    token->end = s->at;
    skip_space(s);
    if (peek(s) != ':')
        return json_scan_fail(s, s->at, "expected ':'", err);
    s->at++;
    s->state = STATE_VALUE;
    return CKPT_OK;
}

static ckpt_code scan_value(json_scanner *s, json_token *token, ckpt_error *err)
{
    s->state = STATE_AFTER_VALUE;
    switch (peek(s)) {
    case '{':
        token->kind = JSON_SCAN_OBJECT;
        return scan_open(s, 1, err);
    case '[':
        token->kind = JSON_SCAN_ARRAY;
        return scan_open(s, 0, err);
    case '"':
        token->kind = JSON_SCAN_STRING;
        return scan_string(s, err);
    case 't':
        token->kind = JSON_SCAN_TRUE;
        return scan_word(s, "true", err);
    case 'f':
        token->kind = JSON_SCAN_FALSE;
        return scan_word(s, "false", err);
    case 'n':
        token->kind = JSON_SCAN_NULL;
        return scan_word(s, "null", err);
    case '-': case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9':
        token->kind = JSON_SCAN_NUMBER;
        return scan_number(s, token, err);
    default:
        return json_scan_fail(s, s->at, "expected a value", err);
    }
}

/* Read what follows a value: the end of the text, of the container, or a comma. */
static ckpt_code scan_after_value(json_scanner *s, json_token *token, ckpt_error *err)
{
    if (s->depth == 0) {
        if (s->at < s->size)
            return json_scan_fail(s, s->at, "trailing data after the document", err);
        token->kind = JSON_SCAN_END;
        s->state = STATE_DONE;
        return CKPT_OK;
    }
    if (peek(s) != ',')
        return scan_close(s, token, err);
    s->at++;
    skip_space(s);
    token->start = s->at;
    return s->is_object[s->depth] ? scan_key(s, token, err) : scan_value(s, token, err);
}

ckpt_code json_scan_next(json_scanner *s, json_token *token, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    assert(s->state != STATE_DONE);
    skip_space(s);
    token->start = s->at;
    token->end = 0;
    token->depth = s->depth;
    token->is_unsigned = 0;
    switch (s->state) {
    case STATE_VALUE_OR_END:
        code = peek(s) == ']' ? scan_close(s, token, err) : scan_value(s, token, err);
        break;
    case STATE_VALUE:
        code = scan_value(s, token, err);
        break;
    case STATE_KEY_OR_END:
        code = peek(s) == '}' ? scan_close(s, token, err) : scan_key(s, token, err);
        break;
    default:
        code = scan_after_value(s, token, err);
        break;
    }
    if (token->end == 0)
        token->end = s->at;
    if (code != CKPT_OK)
        s->state = STATE_DONE;
    return code;
}

ckpt_code json_scan_all(const char *text, size_t size, const char *subject, ckpt_error *err)
{
    json_scanner s;
    json_token token;
    ckpt_code code;

    json_scan_begin(&s, text, size, subject);
    do {
        code = json_scan_next(&s, &token, err);
    } while (code == CKPT_OK && token.kind != JSON_SCAN_END);
    return code;
}

ckpt_code json_scan_value(json_scanner *s, json_token *value, ckpt_error *err)
{
    const unsigned depth = s->depth;
    json_token token;
    ckpt_code code = json_scan_next(s, value, err);

    while (code == CKPT_OK && s->depth > depth) {
        code = json_scan_next(s, &token, err);
        value->end = token.end;
    }
    return code;
}

/* ---- decoding strings ---- */

/* Decode the escape at `text` to UTF-8; returns the escape's length. */
static size_t decode_escape(const char *text, char out[4], size_t *out_bytes)
{
    static const char names[] = "bfnrt";
    static const char values[] = "\b\f\n\r\t";
    const char *name = strchr(names, text[1]);
    uint32_t c;
    size_t length = 6;

    *out_bytes = 1;
    if (text[1] != 'u') {
        out[0] = name != NULL ? values[name - names] : text[1];
        return 2;
    }
    c = (uint32_t)hex4(text + 2, 4);
    if (c >= 0xd800 && c <= 0xdbff) {
        c = 0x10000 + ((c - 0xd800) << 10) + ((uint32_t)hex4(text + 8, 4) - 0xdc00);
        length = 12;
    }
    if (c < 0x80) {
        out[0] = (char)c;
        return length;
    }
    *out_bytes = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = *out_bytes - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (c & 0x3f));
        c >>= 6;
    }
    out[0] = (char)((0xf00 >> *out_bytes & 0xf0) | c);
    return length;
}

int json_token_equals(const char *text, const json_token *token, const char *string)
{
    size_t at = token->start + 1;

    while (at + 1 < token->end) {
        char character[4] = { text[at] };
        size_t character_bytes = 1;

        at += text[at] == '\\' ? decode_escape(text + at, character, &character_bytes) : 1;
        if (strncmp(string, character, character_bytes) != 0)
            return 0;
        string += character_bytes;
    }
    return *string == '\0';
}

size_t json_token_decode(const char *text, const json_token *token, char *out)
{
    size_t at = token->start + 1;
    size_t length = 0;

    while (at + 1 < token->end) {
        char character[4] = { text[at] };
        size_t character_bytes = 1;

        at += text[at] == '\\' ? decode_escape(text + at, character, &character_bytes) : 1;
        if (out != NULL)
            memcpy(out + length, character, character_bytes);
        length += character_bytes;
    }
    if (out != NULL)
        out[length] = '\0';
    return length;
}

/* ---- numbers ---- */

double json_token_number(const char *text, const json_token *token)
{
    char copy[JSON_NUMBER_MAX + 1] = "";
    uint64_t integer;
    locale_t plain;
    double number;

    if (json_token_u64(text, token, &integer))
        return (double)integer;
    /* Longer numbers cannot occur: JSON has no integers with leading zeros. */
    memcpy(copy, text + token->start, token->end - token->start);
    plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);      /* not the program's locale */
    number = plain == (locale_t)0 ? strtod(copy, NULL) : strtod_l(copy, NULL, plain);
    if (plain != (locale_t)0)
        freelocale(plain);
    return number;
}

int json_token_u64(const char *text, const json_token *token, uint64_t *out)
{
    uint64_t value = 0;

    if (token->kind != JSON_SCAN_NUMBER || !token->is_unsigned)
        return 0;
    for (size_t i = token->start; i < token->end; i++)
        value = value * 10 + (uint64_t)(text[i] - '0');
    *out = value;
    return 1;
}
