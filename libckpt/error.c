/* error.c: formats the one line of an error. */
#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "size.h"
#include "text.h"

/* The text in place of what was cut out, and the least length to which a subject is cut. */
static const char CUT[] = "...";
enum { CUT_BYTES = sizeof CUT - 1, SUBJECT_MIN = 32, LINE_BYTES = CKPT_ERROR_BYTES - 1 };

/* Bytes that text[0] needs in an error line. Hidden characters are escaped, because they could
 * break the line, colour it or reverse its direction. *hidden: how many bytes of the current hidden
 * character are left; 0 at the begin of a text. */
static size_t escape(const char *text, size_t size, size_t *hidden, char out[5])
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char c = (unsigned char)text[0];

    *hidden = *hidden > 0 ? *hidden - 1 : 0;
    if (*hidden == 0 && (*hidden = text_hidden_bytes(text, size)) == 0) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = '\\';
    if (c == '\n' || c == '\t' || c == '\r') {
        out[1] = c == '\n' ? 'n' : c == '\t' ? 't' : 'r';
        return 2;
    }
    out[1] = 'x';
    out[2] = hex[c >> 4];
    out[3] = hex[c & 15];
    return 4;
}

/* ---- cutting ---- */

/* The length of a UTF-8 character, or 1 for an invalid byte. Texts are cut between these. */
static size_t character_bytes(const char *text, size_t size)
{
    size_t length = 1;

    if (((unsigned char)text[0] & 0xc0) != 0xc0)
        return 1;
    while (length < size && length < 4 && ((unsigned char)text[length] & 0xc0) == 0x80)
        length++;
    return length;
}

static size_t escaped_bytes(const char *text, size_t size)
{
    size_t total = 0;
    size_t hidden = 0;
    char piece[5];

    for (size_t i = 0; i < size; i++)
        total += escape(text + i, size - i, &hidden, piece);
    return total;
}

static char *put_escaped(char *out, const char *text, size_t size)
{
    size_t hidden = 0;

    for (size_t i = 0; i < size; i++) {
        char piece[5];
        const size_t piece_bytes = escape(text + i, size - i, &hidden, piece);

        memcpy(out, piece, piece_bytes);
        out += piece_bytes;
    }
    return out;
}

/* Write `text` in at most `most` bytes; if it is longer, its middle is cut out. */
static char *put_cut(char *out, const char *text, size_t size, size_t most)
{
    const size_t half = (most - CUT_BYTES) / 2;
    size_t left = escaped_bytes(text, size);
    size_t head = 0;
    size_t tail = 0;

    if (left <= most)
        return put_escaped(out, text, size);
    for (size_t used = 0; head < size;) {
        const size_t step = character_bytes(text + head, size - head);
        const size_t step_bytes = escaped_bytes(text + head, step);

        if (used + step_bytes > half)
            break;
        used += step_bytes;
        head += step;
    }
    while (left > half) {
        const size_t step = character_bytes(text + tail, size - tail);

        left -= escaped_bytes(text + tail, step);
        tail += step;
    }
    out = put_escaped(out, text, head);
    memcpy(out, CUT, CUT_BYTES);
    return put_escaped(out + CUT_BYTES, text + tail, size - tail);
}

/* The length of the line if every piece between two stops is cut to `most` bytes. */
static size_t line_bytes(const char *raw, const char *stops, size_t most)
{
    size_t total = 0;

    for (;;) {
        const size_t size = strcspn(raw, stops);

        total += size_min(escaped_bytes(raw, size), most);
        raw += size;
        if (*raw == '\0')
            return total;
        total++;
        raw++;
    }
}

/*
 * The longest length of subjects with which the line fits. Subjects are between quotes, and only
 * they can be long: they lose their middle, and the words around them stay.
 */
static size_t subject_bytes(const char *raw, const char *stops)
{
    size_t most = SUBJECT_MIN;
    size_t too_much = LINE_BYTES + 1;

    while (most + 1 < too_much) {
        const size_t middle = (most + too_much) / 2;

        if (line_bytes(raw, stops, middle) > LINE_BYTES)
            too_much = middle;
        else
            most = middle;
    }
    return most;
}

void error_line(char text[CKPT_ERROR_BYTES], const char *raw)
{
    const int is_hopeless = line_bytes(raw, "'", SUBJECT_MIN) > LINE_BYTES; /* too many quotes */
    const char *stops = is_hopeless ? "" : "'";
    const size_t most = subject_bytes(raw, stops);
    char *out = text;

    for (;;) {
        const size_t size = strcspn(raw, stops);

        out = put_cut(out, raw, size, most);
        raw += size;
        if (*raw == '\0')
            break;
        *out++ = *raw++;
    }
    *out = '\0';
}

void error_format(char text[CKPT_ERROR_BYTES], const char *format, va_list args)
{
    char some[CKPT_ERROR_BYTES];    /* a copy, because the arguments may point into `text` */
    char *all = NULL;
    va_list again;
    int length;

    va_copy(again, args);
    length = vsnprintf(some, sizeof some, format, args);
    if (length < 0)
        some[0] = '\0';
    if (length >= (int)sizeof some && vasprintf(&all, format, again) < 0)
        all = NULL;                    /* no memory: the end of the text is lost */
    va_end(again);
    error_line(text, all != NULL ? all : some);
    free(all);
}

/* ---- failing ---- */

ckpt_code ckpt_fail(ckpt_error *err, ckpt_code code, const char *format, ...)
{
    const int saved_errno = errno;
    va_list args;

    if (err == NULL)
        return code;
    va_start(args, format);
    error_format(err->text, format, args);
    va_end(args);
    err->code = code;
    err->detail = 0;
    errno = saved_errno;
    return code;
}

ckpt_code ckpt_fail_memory(ckpt_error *err, const char *what, uint64_t size)
{
    memory_refusal refusal;
    uint64_t needed;

    if (memory_take_refusal(&refusal)) {
        if (!size_add(refusal.held_bytes, refusal.wanted_bytes, &needed))
            needed = UINT64_MAX;
        return ckpt_fail(err, CKPT_E_MEMORY,
                         "the memory limit of %" PRIu64 " bytes is too small for '%s': at least %"
                         PRIu64 " bytes are needed (--memory)", refusal.limit_bytes, what, needed);
    }
    return ckpt_fail(err, CKPT_E_MEMORY, "out of memory for %s: %" PRIu64 " bytes", what, size);
}
