/* error.c: the one line that says what failed. */
#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char ERROR_CUT[] = "...";

/* Bytes that `c` takes in an error line: control characters would break the line or colour it. */
static size_t escape(unsigned char c, char out[5])
{
    static const char hex[] = "0123456789abcdef";

    if (c >= 0x20 && c != 0x7f) {
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

void error_line(char text[CKPT_ERROR_BYTES], const char *raw)
{
    const size_t room = CKPT_ERROR_BYTES - sizeof ERROR_CUT;
    size_t used = 0;
    size_t i;

    for (i = 0; raw[i] != '\0'; i++) {
        char piece[5];
        const size_t piece_bytes = escape((unsigned char)raw[i], piece);

        if (used + piece_bytes > room)
            break;
        memcpy(text + used, piece, piece_bytes);
        used += piece_bytes;
    }
    if (raw[i] != '\0') {
        while (i > 0 && used > 0 && ((unsigned char)raw[i] & 0xc0) == 0x80) {
            i--;
            used--;
        }
        memcpy(text + used, ERROR_CUT, sizeof ERROR_CUT);
    } else {
        text[used] = '\0';
    }
}

ckpt_code ckpt_fail(ckpt_error *err, ckpt_code code, const char *format, ...)
{
    const int saved_errno = errno;
    char raw[CKPT_ERROR_BYTES];     /* apart, as the arguments may point into err->text */
    va_list args;
    int length;

    if (err == NULL)
        return code;
    va_start(args, format);
    length = vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    if (length < 0)
        raw[0] = '\0';
    err->code = code;
    error_line(err->text, raw);
    errno = saved_errno;
    return code;
}

ckpt_code ckpt_fail_memory(ckpt_error *err, const char *what, uint64_t size)
{
    return ckpt_fail(err, CKPT_E_MEMORY, "no memory for %s: %" PRIu64 " bytes", what, size);
}
