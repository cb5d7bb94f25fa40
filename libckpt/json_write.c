/* json_write.c: writes JSON piece by piece, with the white space of Python's json.dump. */
#include "json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json_scan.h"

/* Bits of json_writer.filled. */
enum { LEVEL_FILLED = 1, LEVEL_OBJECT = 2 };

/* Python switches to exponents outside of these powers of ten. */
enum { DOUBLE_DIGITS_MAX = 17, DOUBLE_POINT_MIN = -4, DOUBLE_POINT_MAX = 16 };

static void emit(json_writer *w, const char *bytes, size_t size)
{
    if (!w->failed && size > 0 && w->write(w->context, bytes, size) != 0)
        w->failed = 1;
}

static void emit_text(json_writer *w, const char *text)
{
    emit(w, text, strlen(text));
}

static void emit_line_break(json_writer *w)
{
    static const char spaces[] = "                                ";
    size_t left = (size_t)w->indent * w->depth;

    if (w->indent == 0)
        return;
    emit_text(w, "\n");
    while (left > 0) {
        const size_t step = left < sizeof spaces - 1 ? left : sizeof spaces - 1;

        emit(w, spaces, step);
        left -= step;
    }
}

void json_writer_begin(json_writer *w, json_write_fn *write, void *context, unsigned indent)
{
    memset(w, 0, sizeof *w);
    w->write = write;
    w->context = context;
    w->indent = indent;
}

int json_writer_end(json_writer *w)
{
    return !w->failed && w->depth == 0 && (w->filled[0] & LEVEL_FILLED);
}

int json_write_stdio(void *context, const char *bytes, size_t size)
{
    return fwrite(bytes, 1, size, context) != size;
}

/* ---- structure ---- */

/* Write the comma and line break before an entry of the current container. */
static void begin_entry(json_writer *w)
{
    assert(w->depth > 0 || !(w->filled[0] & LEVEL_FILLED));     /* one value is a document */
    if (w->filled[w->depth] & LEVEL_FILLED)
        emit_text(w, ",");
    w->filled[w->depth] |= LEVEL_FILLED;
    if (w->depth > 0)
        emit_line_break(w);
}

static void begin_value(json_writer *w)
{
    const int in_object = (w->filled[w->depth] & LEVEL_OBJECT) != 0;

    assert(in_object == w->pending_key);
    if (!in_object)
        begin_entry(w);
    w->pending_key = 0;
}

static void open_container(json_writer *w, const char *bracket, unsigned char kind)
{
    begin_value(w);
    emit_text(w, bracket);
    if (w->depth == JSON_DEPTH_MAX) {
        w->failed = 1;
        return;
    }
    w->filled[++w->depth] = kind;
}

static void close_container(json_writer *w, const char *bracket, unsigned char kind)
{
    unsigned char filled;

    if (w->failed)          /* the container may not have been opened */
        return;
    filled = w->filled[w->depth];
    assert(w->depth > 0 && !w->pending_key && (filled & LEVEL_OBJECT) == kind);
    (void)kind;
    w->depth--;
    if (filled & LEVEL_FILLED)
        emit_line_break(w);
    emit_text(w, bracket);
}

void json_put_object(json_writer *w)
{
    const char *schema = w->schema;

    if (!w->failed)
        open_container(w, "{", LEVEL_OBJECT);
    w->schema = NULL;
    if (schema != NULL)
        json_member_string(w, "schema", schema);
}

void json_put_object_end(json_writer *w)
{
    close_container(w, "}", LEVEL_OBJECT);
}

void json_put_array(json_writer *w)
{
    if (!w->failed)
        open_container(w, "[", 0);
}

void json_put_array_end(json_writer *w)
{
    close_container(w, "]", 0);
}

/* ---- strings ---- */

/* Escape a byte that JSON strings cannot contain. `out` has room for seven bytes. */
static void escape_byte(unsigned char c, char out[7])
{
    static const char plain[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";
    const char *found = c == '\0' ? NULL : strchr(plain, c);

    if (c >= 0x80)
        memcpy(out, "\xef\xbf\xbd", 4);         /* U+FFFD in place of invalid UTF-8 */
    else if (found != NULL)
        snprintf(out, 7, "\\%c", letters[found - plain]);
    else
        snprintf(out, 7, "\\u%04x", c);
}

static void emit_string(json_writer *w, const char *text)
{
    const unsigned char *bytes = (const unsigned char *)text;
    const size_t length = strlen(text);
    size_t done = 0;

    emit_text(w, "\"");
    for (size_t i = 0; i < length;) {
        const size_t character_bytes = json_utf8_bytes(bytes + i, length - i);
        char escaped[7];

        if (character_bytes > 1 ||
            (character_bytes == 1 && bytes[i] >= 0x20 && bytes[i] != '"' && bytes[i] != '\\')) {
            i += character_bytes;
            continue;
        }
        emit(w, text + done, i - done);
        escape_byte(bytes[i], escaped);
        emit_text(w, escaped);
        i++;
        done = i;
    }
    emit(w, text + done, length - done);
    emit_text(w, "\"");
}

void json_put_key(json_writer *w, const char *key)
{
    if (w->failed)
        return;
    assert((w->filled[w->depth] & LEVEL_OBJECT) && !w->pending_key);
    begin_entry(w);
    emit_string(w, key);
    emit_text(w, w->indent == 0 ? ":" : ": ");
    w->pending_key = 1;
}

void json_put_string(json_writer *w, const char *text)
{
    if (text == NULL) {
        json_put_null(w);
        return;
    }
    if (w->failed)
        return;
    begin_value(w);
    emit_string(w, text);
}

/* ---- numbers and words ---- */

void json_put_raw(json_writer *w, const char *json)
{
    if (w->failed)
        return;
    begin_value(w);
    emit_text(w, json);
}

void json_put_u64(json_writer *w, uint64_t number)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRIu64, number);
    json_put_raw(w, text);
}

void json_put_i64(json_writer *w, int64_t number)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRId64, number);
    json_put_raw(w, text);
}

/*
 * The fewest digits that read back as `number`, and its power of ten. Only the digits of printf's
 * text are used: the point between them follows the locale.
 */
static int shortest_digits(double number, char digits[DOUBLE_DIGITS_MAX + 1], int *exponent)
{
    char text[64];
    int digit_count = 0;

    for (int precision = 0; precision < DOUBLE_DIGITS_MAX; precision++) {
        double back;

        snprintf(text, sizeof text, "%.*e", precision, number);
        back = strtod(text, NULL);
        if (!(back < number) && !(back > number))
            break;
    }
    *exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    for (const char *c = text; *c != 'e'; c++)
        if (*c >= '0' && *c <= '9')
            digits[digit_count++] = *c;
    digits[digit_count] = '\0';
    return digit_count;
}

/* Like Python's repr: always with a point or an exponent, so that it is read back as a float. */
static void format_double(double number, char *out, size_t out_bytes)
{
    const char *sign = signbit(number) ? "-" : "";
    char digits[DOUBLE_DIGITS_MAX + 1];
    int exponent;
    const int digit_count = shortest_digits(fabs(number), digits, &exponent);

    if (exponent < DOUBLE_POINT_MIN || exponent >= DOUBLE_POINT_MAX)
        snprintf(out, out_bytes, "%s%c%s%se%c%02d", sign, digits[0],
                 digit_count > 1 ? "." : "", digits + 1, exponent < 0 ? '-' : '+',
                 abs(exponent));
    else if (exponent < 0)
        snprintf(out, out_bytes, "%s0.%.*s%s", sign, -exponent - 1, "0000", digits);
    else if (exponent + 1 >= digit_count)
        snprintf(out, out_bytes, "%s%s%.*s.0", sign, digits, exponent + 1 - digit_count,
                 "0000000000000000");
    else
        snprintf(out, out_bytes, "%s%.*s.%s", sign, exponent + 1, digits,
                 digits + exponent + 1);
}

void json_put_double(json_writer *w, double number)
{
    char text[64];

    if (isnan(number) || isinf(number)) {       /* JSON cannot express these */
        json_put_null(w);
        return;
    }
    format_double(number, text, sizeof text);
    json_put_raw(w, text);
}

void json_put_bool(json_writer *w, int flag)
{
    json_put_raw(w, flag ? "true" : "false");
}

void json_put_null(json_writer *w)
{
    json_put_raw(w, "null");
}

/* ---- members ---- */

void json_member_string(json_writer *w, const char *key, const char *text)
{
    json_put_key(w, key);
    json_put_string(w, text);
}

void json_member_u64(json_writer *w, const char *key, uint64_t number)
{
    json_put_key(w, key);
    json_put_u64(w, number);
}

void json_member_double(json_writer *w, const char *key, double number)
{
    json_put_key(w, key);
    json_put_double(w, number);
}

void json_member_bool(json_writer *w, const char *key, int flag)
{
    json_put_key(w, key);
    json_put_bool(w, flag);
}

void json_member_object(json_writer *w, const char *key)
{
    json_put_key(w, key);
    json_put_object(w);
}

void json_member_array(json_writer *w, const char *key)
{
    json_put_key(w, key);
    json_put_array(w);
}

void json_member_names(json_writer *w, const char *key, const char *const *names, size_t count)
{
    json_member_array(w, key);
    for (size_t i = 0; i < count; i++)
        json_put_string(w, names[i]);
    json_put_array_end(w);
}
